//! A report that is written in the background: where it stands, and who may go on with it.

use std::{fmt, str::FromStr};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    events::NotAPlace,
    report::{ReportQuery, RowTotals},
};

/// The most bytes of one piece of a file.
pub const CHUNK_BYTES_MAX: usize = 256 * 1024;
/// How often a job is begun before it is given up: whoever began it was stopped, or could not read.
pub const RUNS_MAX: i32 = 10;

/// A job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportJobId(Uuid);

impl ReportJobId {
    /// The id of these bits.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Its bits.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for ReportJobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// The text is no id of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be the id of a report")]
pub struct NotAReportJobId;

impl FromStr for ReportJobId {
    type Err = NotAReportJobId;

    fn from_str(text: &str) -> Result<Self, NotAReportJobId> {
        // As it is written, and in no other way.
        let uuid = Uuid::try_parse(text).map_err(|_| NotAReportJobId)?;
        let id = Self(uuid);
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(NotAReportJobId)
        }
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportJobState {
    /// It waits for its turn.
    Queued,
    /// It is being written.
    Running,
    /// Its file is there.
    Done,
    /// It cannot be written.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Its file was kept for its time and is gone.
    Expired,
}

octroi_core::named!(ReportJobState {
    Queued => "queued",
    Running => "running",
    Done => "done",
    Failed => "failed",
    Cancelled => "cancelled",
    Expired => "expired",
});

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows that were read.
    pub rows_read: u64,
    /// Rows that were written: those that the filter lets through.
    pub rows_written: u64,
    /// The length of the file.
    pub bytes: u64,
    /// The pieces of the file.
    pub chunks: i32,
}

/// One job.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportJob {
    /// Its id.
    pub job_id: ReportJobId,
    /// What it is of.
    pub query: ReportQuery,
    /// Where it was left.
    pub state: ReportJobState,
    /// How often it was begun.
    pub run: i32,
    /// How many rows there are to read, as the figures had it when it was made.
    pub rows_expected: u64,
    /// How far it is.
    pub progress: Progress,
    /// The instant that its file is of.
    pub recorded_before: Option<Timestamp>,
    /// What its rows come to.
    pub totals: RowTotals,
    /// Why it failed: the name of a reason.
    pub failure: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// From when on its file is gone.
    pub expires_at: Option<Timestamp>,
}

impl ReportJob {
    /// Its place among the jobs of its account.
    #[must_use]
    pub fn place(&self) -> JobPlace {
        JobPlace {
            created_at: self.created_at,
            job_id: self.job_id,
        }
    }

    /// Where it stands at `now`: a file that is over its time is gone, though nobody has swept it away yet.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> ReportJobState {
        let is_over = self.expires_at.is_some_and(|at| at <= now);
        match self.state {
            ReportJobState::Done if is_over => ReportJobState::Expired,
            state => state,
        }
    }
}

/// The place of a job among those of its account: by when it was made, and by its id where times are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobPlace {
    /// When it was made.
    pub created_at: Timestamp,
    /// Its id.
    pub job_id: ReportJobId,
}

/// As a page token carries it.
impl fmt::Display for JobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.created_at.as_microsecond(), self.job_id)
    }
}

impl FromStr for JobPlace {
    type Err = NotAPlace;

    fn from_str(text: &str) -> Result<Self, NotAPlace> {
        let (created_at, job_id) = text.split_once('/').ok_or(NotAPlace)?;
        let created_at = created_at.parse().map_err(|_| NotAPlace)?;
        Ok(Self {
            created_at: Timestamp::from_microsecond(created_at).map_err(|_| NotAPlace)?,
            job_id: job_id.parse().map_err(|_| NotAPlace)?,
        })
    }
}

/// How long files and jobs are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeping {
    /// How long the file of a job that is done is kept.
    pub kept: SignedDuration,
}

impl Keeping {
    /// Files are kept for so many days.
    #[must_use]
    pub fn of_days(days: u32) -> Self {
        Self {
            kept: SignedDuration::from_hours(24 * i64::from(days)),
        }
    }

    /// From when on a file that is done at `now` is gone.
    #[must_use]
    pub fn expires_at(self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.kept).unwrap_or(now)
    }

    /// Jobs that ended before this are forgotten: each is there for twice as long after its end as its file was, and four
    /// weeks more, so that whoever comes too late is told what became of it.
    #[must_use]
    pub fn forgotten_before(self, now: Timestamp) -> Timestamp {
        let kept = self.kept * 2 + SignedDuration::from_hours(24 * 28);
        now.saturating_sub(kept).unwrap_or(now)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use octroi_core::{AccountId, Period};

    use super::*;
    use crate::domain::report::{Filter, Grain};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn job(state: ReportJobState) -> ReportJob {
        ReportJob {
            job_id: ReportJobId::from_uuid(Uuid::from_u128(7)),
            query: ReportQuery {
                account: AccountId::parse("acme").expect("an id"),
                metrics: Vec::new(),
                start_at: at("2026-01-01T00:00:00Z"),
                end_at: at("2026-02-01T00:00:00Z"),
                grain: Grain::Bucket(Period::Day),
                zone: None,
                filter: Filter::default(),
                columns: Vec::new(),
            },
            state,
            run: 1,
            rows_expected: 31,
            progress: Progress::default(),
            recorded_before: None,
            totals: BTreeMap::new(),
            failure: None,
            created_at: at("2026-02-01T00:00:00Z"),
            ended_at: None,
            expires_at: Some(at("2026-02-08T00:00:00Z")),
        }
    }

    #[test]
    fn a_file_is_gone_at_its_time_and_nothing_else_changes_by_itself() {
        let last = at("2026-02-07T23:59:59.999999Z");
        for state in ReportJobState::ALL {
            assert_eq!(job(state).state_at(last), state);
            let later = job(state).state_at(at("2026-02-08T00:00:00Z"));
            let expected = if state == ReportJobState::Done {
                ReportJobState::Expired
            } else {
                state
            };
            assert_eq!(later, expected);
        }
    }

    #[test]
    fn an_id_is_read_as_it_is_written_only() {
        let id = ReportJobId::from_uuid(Uuid::from_u128(0xabc));
        assert_eq!(id.to_string().parse(), Ok(id));
        let text = id.to_string();
        for other in [
            "",
            "7",
            &text.to_uppercase(),
            &text.replace('-', ""),
            &format!("{{{text}}}"),
        ] {
            assert_eq!(other.parse::<ReportJobId>(), Err(NotAReportJobId), "{other}");
        }
    }

    #[test]
    fn a_place_among_jobs_is_what_was_written_of_it() {
        let place = job(ReportJobState::Done).place();
        assert_eq!(place.to_string().parse(), Ok(place));
        for text in [
            "",
            "1",
            "1/7",
            "x/00000000-0000-0000-0000-000000000007",
            "9999999999999999999/00000000-0000-0000-0000-000000000007",
        ] {
            assert_eq!(text.parse::<JobPlace>(), Err(NotAPlace), "{text}");
        }
    }

    #[test]
    fn a_job_is_known_for_longer_than_its_file() {
        let keeping = Keeping::of_days(7);
        let now = at("2026-03-01T00:00:00Z");
        assert_eq!(keeping.expires_at(now), at("2026-03-08T00:00:00Z"));
        assert_eq!(keeping.forgotten_before(now), at("2026-01-18T00:00:00Z"));
    }
}
