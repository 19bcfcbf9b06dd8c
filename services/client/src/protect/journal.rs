//! What waits to be told to the fleet, because it could not be reached when it happened.

use std::{io, path::Path};

use octroi_proto::quota::v1::{CheckQuotaRequest, CommitHoldRequest, RecordUsageRequest, ReleaseHoldRequest};

use octroi_journal::JournalError;

/// The most that waits where nobody says, in bytes.
pub(super) const BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much room there must be for something that is recorded later: no record is longer than a request may be.
const RECORD_BYTES: usize = 4 * 1024;

/// What the fleet is to be told. It says the same however often it is told.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Entry {
    /// What was used where nobody could be asked, or under the name of a request.
    #[prost(message, tag = "1")]
    Record(Record),
    /// What was used of a hold.
    #[prost(message, tag = "2")]
    Commit(CommitHoldRequest),
    /// What was used, where somebody was asked and did not answer.
    #[prost(message, tag = "3")]
    Consume(Unanswered),
}

/// What was used. This is what counts it; where there is a hold, it only kept the room.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    /// What was used.
    #[prost(message, optional, tag = "1")]
    pub(super) used: Option<RecordUsageRequest>,
    /// What was held.
    #[prost(message, optional, tag = "2")]
    pub(super) release: Option<ReleaseHoldRequest>,
}

/// A question that may have arrived.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Unanswered {
    /// The question.
    #[prost(message, optional, tag = "1")]
    pub(super) check: Option<CheckQuotaRequest>,
    /// When what it asks for was used.
    #[prost(message, optional, tag = "2")]
    pub(super) at: Option<prost_types::Timestamp>,
}

impl Entry {
    pub(super) fn account(&self) -> &str {
        match self {
            Self::Record(record) => record.used.as_ref().map_or("", |used| &used.account_id),
            Self::Commit(commit) => &commit.account_id,
            Self::Consume(unanswered) => unanswered.check.as_ref().map_or("", |check| &check.account_id),
        }
    }
}

/// Room for an entry.
pub(super) type Room = octroi_journal::Room<Kept>;

/// How an entry is kept.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Kept {
    #[prost(oneof = "Entry", tags = "1, 2, 3")]
    pub(super) entry: Option<Entry>,
}

/// What waits.
#[derive(Clone, Debug)]
pub(super) struct Journal(octroi_journal::Journal<Kept>);

impl Journal {
    pub(super) fn open(dir: Option<&Path>, bytes_max: usize) -> io::Result<Self> {
        Ok(Self(match dir {
            Some(dir) => octroi_journal::Journal::open(dir, bytes_max)?,
            None => octroi_journal::Journal::in_memory(bytes_max),
        }))
    }

    /// Adds an entry, in the room that was kept for it, if any.
    pub(super) async fn append(&self, entry: Entry, room: Option<Room>) -> Result<(), JournalError> {
        let kept = Kept { entry: Some(entry) };
        match room {
            Some(room) => self.0.append_in(room, kept).await,
            None => self.0.append(kept).await,
        }
    }

    /// Keeps room for the record of something that happens from now on.
    pub(super) fn reserve(&self) -> Option<Room> {
        self.0.reserve(RECORD_BYTES)
    }

    pub(super) fn len(&self) -> usize {
        self.0.waiting()
    }

    /// The oldest behind one, with their numbers; none in place of what a newer program wrote.
    pub(super) fn after(&self, number: Option<u64>, max: usize) -> Vec<(u64, Option<Entry>)> {
        let entries = self.0.after(number, max).into_iter();
        entries.map(|kept| (kept.number, kept.message.entry)).collect()
    }

    pub(super) fn remove(&self, numbers: &[u64]) {
        self.0.remove(numbers);
    }
}
