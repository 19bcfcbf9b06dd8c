//! Names that follow from a file and the options, so that a second run uses the same ones.

use jiff::SignedDuration;
use octroi_core::{AccountId, MetricSlug, PlanSlug};
use sha2::{Digest as _, Sha256};

use super::mapping::{Accounts, Mapping, Owner};

/// The SHA-256 of a file's content.
pub type FileHash = [u8; 32];

/// What decides about the names of a run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The file.
    pub file: &'a FileHash,
    /// How it is read.
    pub mapping: &'a Mapping,
    /// The plan of the accounts.
    pub plan: &'a PlanSlug,
    /// By how much recorded times are moved.
    pub shift: SignedDuration,
    /// Whether the quota is asked.
    pub check: bool,
}

/// The names of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    file: FileHash,
    /// Names the run: the file and every option that changes what is recorded.
    key: String,
    digits: usize,
}

impl Names {
    /// The names of this run. Accounts over which lines are spread belong to one run alone, so that its
    /// windows, denials and thresholds follow from the file and the options and not from earlier runs.
    #[must_use]
    pub fn of(run: &Run<'_>) -> Self {
        let Run {
            file,
            mapping,
            plan,
            shift,
            check,
        } = run;
        let digits = match &mapping.accounts {
            Accounts::Spread(zipf) => zipf.accounts().to_string().len().max(3),
            Accounts::Column(_) => 0,
        };
        let text = format!(
            "{}; plan {plan}; shift {}; check {check}",
            mapping.fingerprint(),
            shift.as_micros()
        );
        let key = hash(&[b"run", *file, text.as_bytes()]);
        Self {
            file: **file,
            key: hex::encode(key).chars().take(8).collect(),
            digits,
        }
    }

    /// What the ids of the run's accounts begin with, such as `replay-1f3870be-`.
    #[must_use]
    pub fn account_prefix(&self) -> String {
        format!("replay-{}-", self.key)
    }

    /// The account of an owner, such as `replay-1f3870be-001`.
    #[must_use]
    pub fn account(&self, owner: &Owner) -> AccountId {
        match owner {
            Owner::Named(account) => account.clone(),
            Owner::Rank(rank) => {
                let id = format!("replay-{}-{rank:0digits$}", self.key, digits = self.digits);
                #[expect(clippy::expect_used, reason = "at most 26 characters, all of them allowed")]
                AccountId::parse(&id).expect("at most 26 characters, all of them allowed")
            }
        }
    }

    /// The source of events that are sent without asking the quota.
    #[must_use]
    pub fn source(&self) -> String {
        let file = hex::encode(self.file);
        format!("replay:{}", file.get(..16).unwrap_or(&file))
    }

    /// The id of the event that a line is of a metric.
    #[must_use]
    pub fn event_id(&self, line: u64, metric: &MetricSlug) -> String {
        hex::encode(hash(&[
            b"event",
            &self.file,
            &line.to_be_bytes(),
            metric.as_str().as_bytes(),
        ]))
    }

    /// The request id under which a line asks the quota.
    #[must_use]
    pub fn request_id(&self, line: u64) -> String {
        hex::encode(hash(&[b"request", &self.file, &line.to_be_bytes()]))
    }

    /// The request id of an account's subscription.
    #[must_use]
    pub fn subscription_request_id(&self) -> String {
        format!("replay-{}", self.key)
    }
}

/// SHA-256 over parts, each preceded by its length.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use octroi_core::{EventId, RequestId, Source};

    use super::*;
    use crate::replay::{
        mapping::{TimeStyle, Uses},
        zipf::Zipf,
    };

    fn mapping(seed: u64) -> Mapping {
        Mapping {
            time: "time".to_owned(),
            time_style: TimeStyle::Iso,
            accounts: Accounts::Spread(Zipf::new(300, seed)),
            uses: Uses::Columns {
                count: None,
                amounts: Vec::new(),
            },
        }
    }

    fn plan(slug: &str) -> PlanSlug {
        PlanSlug::parse(slug).expect("a slug")
    }

    fn account(file: FileHash, seed: u64, plan_slug: &str, shift_s: i64, check: bool) -> AccountId {
        let (mapping, plan) = (mapping(seed), plan(plan_slug));
        let shift = SignedDuration::from_secs(shift_s);
        Names::of(&Run {
            file: &file,
            mapping: &mapping,
            plan: &plan,
            shift,
            check,
        })
        .account(&Owner::Rank(7))
    }

    #[test]
    fn every_option_that_changes_what_is_recorded_has_its_own_accounts() {
        let runs = [
            account([1; 32], 1, "replay", 0, false),
            account([2; 32], 1, "replay", 0, false),
            account([1; 32], 2, "replay", 0, false),
            account([1; 32], 1, "pro", 0, false),
            account([1; 32], 1, "replay", 5, false),
            account([1; 32], 1, "replay", 0, true),
        ];
        assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), runs.len(), "{runs:?}");
        assert_eq!(
            account([1; 32], 1, "replay", 0, false),
            runs[0],
            "a second run has the same"
        );
        assert!(
            runs[0].as_str().starts_with("replay-") && runs[0].as_str().ends_with("-007"),
            "{}",
            runs[0]
        );
    }

    #[test]
    fn ids_follow_from_file_line_and_metric_alone() {
        let names = |seed, check| {
            let (mapping, plan) = (mapping(seed), plan("replay"));
            Names::of(&Run {
                file: &[1; 32],
                mapping: &mapping,
                plan: &plan,
                shift: SignedDuration::ZERO,
                check,
            })
        };
        let metric = MetricSlug::parse("llm.requests").expect("a slug");
        let one = names(1, false);
        assert_eq!(one.event_id(2, &metric), names(2, true).event_id(2, &metric));
        assert_ne!(one.event_id(2, &metric), one.event_id(3, &metric));
        assert_ne!(one.request_id(2), one.request_id(3));
        EventId::parse(&one.event_id(u64::MAX, &metric)).expect("an event id");
        EventId::parse(&format!("{}/{}", one.request_id(2), "m".repeat(64))).expect("an event id");
        RequestId::parse(&one.request_id(2)).expect("a request id");
        RequestId::parse(&one.subscription_request_id()).expect("a request id");
        Source::parse(&one.source()).expect("a source");
        assert_eq!(one.source(), "replay:0101010101010101");
    }
}
