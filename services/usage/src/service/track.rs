//! `TrackUsage` and `TrackUsageBatch`: an event is recorded once.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use octroi_core::{AccountId, MetricKind, ServiceError as _, Violations};
use octroi_kit::directory::DirectoryError;

use super::{Service, catalog::Metrics};
use crate::{
    domain::{
        event::{Accepted, ContentHash, Event, Origin},
        settlement::{Call, Outcome},
    },
    error::Error,
};

/// Accounts that are asked for at the same time.
const LOOK_UPS_AT_ONCE: usize = 32;

/// Events that are to be recorded in one commit. One that is an error already stays one.
#[derive(Debug)]
pub struct Batch {
    /// The events, in the caller's order.
    pub events: Vec<Result<Event, Error>>,
    /// Whether either all of them are recorded or none.
    pub all_or_nothing: bool,
    /// The hash of the request that they are made of, which becomes part of their content.
    pub content_hash: Option<ContentHash>,
}

/// An event is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// It was there before, with the same content.
    pub duplicate: bool,
    /// When the ledger first took it.
    pub recorded_at: Timestamp,
}

/// What every event of a batch is checked against.
struct Rules {
    refused_accounts: HashMap<AccountId, DirectoryError>,
    metrics: std::sync::Arc<Metrics>,
    content_hash: Option<ContentHash>,
    now: Timestamp,
    /// The first instant of the oldest month that the ledger keeps.
    oldest_at: Timestamp,
}

impl Rules {
    fn check(&self, event: Event) -> Result<Accepted, Error> {
        if let Some(error) = self.refused_accounts.get(&event.identity.account) {
            return Err(refused(error, &event.identity.account));
        }
        let Some(counting) = self.metrics.get(&event.metric) else {
            return Err(Error::MetricNotFound {
                metric: event.metric,
                field: "metric".to_owned(),
            });
        };
        let mut violations = Violations::default();
        let returned = event.origin == Origin::Return;
        if returned && counting.kind != MetricKind::Level {
            violations.add("metric", "must be a LEVEL, of which units can be given back");
        }
        violations.take("amount", counting.aggregation.check_amount(event.amount));
        let distinct = counting.property.as_ref().and_then(|property| {
            let value = event.properties.get(property.as_str());
            if value.is_none() {
                let field = format!("properties.{property}");
                violations.add(field, "is required: the metric counts its distinct values");
            }
            value.map(|value| self.metrics.hash_of(value))
        });
        violations.finish()?;
        let Some(event_at) = (event.accepted_at(self.now)).filter(|at| *at >= self.oldest_at) else {
            return Err(Error::EventTimeOutOfRange {
                field: "event_time".into(),
            });
        };
        Ok(Accepted {
            payload_hash: event.payload_hash(self.content_hash.as_ref()),
            key: event.identity.key(),
            distinct,
            moves_level: counting.kind == MetricKind::Level,
            event,
            event_at,
        })
    }
}

impl Service {
    /// Records one event and answers after its commit.
    ///
    /// # Errors
    /// [`Error`] where it is not recorded.
    pub async fn track_usage(&self, event: Event) -> Result<Recorded, Error> {
        let batch = Batch {
            events: vec![Ok(event)],
            all_or_nothing: false,
            content_hash: None,
        };
        let mut results = self.track_usage_batch(batch).await?;
        // One event in, one result out.
        results.pop().unwrap_or(Err(Error::Overloaded))
    }

    /// Records events in one commit; each has a result of its own, in their order.
    ///
    /// Of an all-or-nothing batch either every event is recorded, or every one was there before with the same
    /// content, or nothing is written. Then an event that stands in the way says why, one that was there
    /// before is a duplicate, and the others are [`Error::BatchRefused`]. Whether an event was there before
    /// is not looked up where the batch fails by a rule already.
    ///
    /// # Errors
    /// [`Error`] where the commit as a whole failed; then nothing of it was recorded.
    pub async fn track_usage_batch(&self, batch: Batch) -> Result<Vec<Result<Recorded, Error>>, Error> {
        let named = batch.events.iter().flatten().map(|event| &event.metric);
        let now = self.db.clock().now();
        let rules = Rules {
            metrics: self.catalog.with(named).await?,
            refused_accounts: self.refused_accounts(&batch.events).await?,
            content_hash: batch.content_hash,
            now,
            oldest_at: self.months.oldest(now).start_at(),
        };
        let mut accepted = Vec::with_capacity(batch.events.len());
        let mut refused: Vec<Option<Error>> = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            match event.and_then(|event| rules.check(event)) {
                Ok(event) => {
                    accepted.push(event);
                    refused.push(None);
                }
                Err(error) => refused.push(Some(error)),
            }
        }
        if batch.all_or_nothing && refused.iter().any(Option::is_some) {
            let refused = refused.into_iter();
            return Ok(refused
                .map(|error| Err(error.unwrap_or(Error::BatchRefused)))
                .collect());
        }
        let call = Call {
            events: accepted,
            all_or_nothing: batch.all_or_nothing,
        };
        let mut recorded = self.commit(call, rules.now).await?.into_iter();
        Ok(refused
            .into_iter()
            .map(|refused| match refused {
                Some(error) => Err(error),
                // One result an accepted event, in their order.
                None => recorded.next().unwrap_or(Err(Error::Overloaded)),
            })
            .collect())
    }

    async fn commit(&self, call: Call, now: Timestamp) -> Result<Vec<Result<Recorded, Error>>, Error> {
        if call.events.is_empty() {
            return Ok(Vec::new());
        }
        let identities: Vec<_> = call.events.iter().map(|one| one.event.identity.clone()).collect();
        self.months
            .make(call.events.iter().map(|one| one.event_at))
            .await?;
        let committed = self.committer.commit(call, now).await;
        let outcomes = committed.inspect_err(|_| self.months.forget())?;
        let recorded = outcomes.into_iter().zip(identities).map(|(outcome, identity)| {
            let recorded = |duplicate, recorded_at| Recorded {
                duplicate,
                recorded_at,
            };
            match outcome {
                Outcome::Inserted(recorded_at) => Ok(recorded(false, recorded_at)),
                Outcome::Duplicate(recorded_at) => Ok(recorded(true, recorded_at)),
                Outcome::Reused => Err(Error::EventIdReused {
                    event_id: identity.event_id.to_string(),
                    source_name: identity.source.to_string(),
                }),
                Outcome::Denied => Err(Error::RequestDenied),
                Outcome::SlicesRefused(slices) => Err(Error::SlicesRefused { slices }),
                Outcome::LevelBelowZero => Err(Error::LevelBelowZero),
                Outcome::LevelOutOfRange => Err(Error::SumOutOfRange),
                Outcome::Withheld => Err(Error::BatchRefused),
            }
        });
        Ok(recorded.collect())
    }

    /// The accounts that cannot be used, with why. An account service that does not answer fails the call.
    async fn refused_accounts(
        &self,
        events: &[Result<Event, Error>],
    ) -> Result<HashMap<AccountId, DirectoryError>, Error> {
        let named: HashSet<AccountId> = events
            .iter()
            .flatten()
            .map(|event| event.identity.account.clone())
            .collect();
        let mut refused = HashMap::new();
        let mut answers = stream::iter(named)
            .map(async |account| {
                let answer = self.directory.get(&account).await;
                (account, answer)
            })
            .buffer_unordered(LOOK_UPS_AT_ONCE);
        while let Some((account, answer)) = answers.next().await {
            match answer {
                Ok(_) => {}
                Err(error @ DirectoryError::Upstream(_)) => return Err(error.into()),
                Err(error) => {
                    tracing::debug!(error.reason = error.reason(), "an account cannot be used");
                    refused.insert(account, error);
                }
            }
        }
        Ok(refused)
    }
}

fn refused(error: &DirectoryError, account: &AccountId) -> Error {
    Error::Account(match error {
        DirectoryError::Closed(_) => DirectoryError::Closed(account.clone()),
        DirectoryError::NotFound(_) | DirectoryError::Upstream(_) => {
            DirectoryError::NotFound(account.clone())
        }
    })
}
