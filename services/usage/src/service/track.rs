//! `TrackUsage` and `TrackUsageBatch`: an event is recorded once.

use std::collections::{HashMap, HashSet};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use octroi_core::{AccountId, ServiceError as _};
use octroi_kit::directory::DirectoryError;

use super::{
    Service,
    commit::{Accepted, Outcome},
};
use crate::{domain::event::Event, error::Error};

/// Accounts that are asked for at the same time.
const LOOK_UPS_AT_ONCE: usize = 32;

/// An event is in the ledger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// It was there before, with the same content.
    pub duplicate: bool,
    /// When the ledger first took it.
    pub recorded_at: Timestamp,
}

impl Service {
    /// Records one event and answers after its commit.
    ///
    /// # Errors
    /// [`Error`] where it is not recorded.
    pub async fn track_usage(&self, event: Event) -> Result<Recorded, Error> {
        let mut results = self.track_usage_batch(vec![Ok(event)]).await?;
        // One event in, one result out.
        results.pop().unwrap_or(Err(Error::Overloaded))
    }

    /// Records events in one commit; each has a result of its own, in their order. An item that is an
    /// error already stays one.
    ///
    /// # Errors
    /// [`Error`] where the commit as a whole failed; then nothing of it was recorded.
    pub async fn track_usage_batch(
        &self,
        events: Vec<Result<Event, Error>>,
    ) -> Result<Vec<Result<Recorded, Error>>, Error> {
        let now = self.db.clock().now();
        let refused_accounts = self.refused_accounts(&events).await?;
        let unknown_metrics = self.unknown_metrics(&events).await?;
        let mut accepted = Vec::with_capacity(events.len());
        let mut results: Vec<Option<Error>> = Vec::with_capacity(events.len());
        for event in events {
            let checked = event.and_then(|event| {
                if let Some(error) = refused_accounts.get(&event.identity.account) {
                    return Err(refused(error, &event.identity.account));
                }
                if unknown_metrics.contains(&event.metric) {
                    return Err(Error::MetricNotFound { metric: event.metric });
                }
                let event_at = event.accepted_at(now).ok_or(Error::EventTimeOutOfRange)?;
                Ok(Accepted {
                    payload_hash: event.payload_hash(),
                    event,
                    event_at,
                })
            });
            match checked {
                Ok(event) => {
                    accepted.push(event);
                    results.push(None);
                }
                Err(error) => results.push(Some(error)),
            }
        }
        let outcomes = self.commit(accepted, now).await?;
        let mut outcomes = outcomes.into_iter();
        Ok(results
            .into_iter()
            .map(|refused| match refused {
                Some(error) => Err(error),
                // One outcome an accepted event, in their order.
                None => outcomes.next().unwrap_or(Err(Error::Overloaded)),
            })
            .collect())
    }

    async fn commit(
        &self,
        accepted: Vec<Accepted>,
        now: Timestamp,
    ) -> Result<Vec<Result<Recorded, Error>>, Error> {
        if accepted.is_empty() {
            return Ok(Vec::new());
        }
        let names: Vec<(String, String)> = accepted
            .iter()
            .map(|one| {
                (
                    one.event.identity.event_id.to_string(),
                    one.event.identity.source.to_string(),
                )
            })
            .collect();
        let outcomes = self.committer.commit(accepted, now).await?;
        let recorded =
            outcomes
                .into_iter()
                .zip(names)
                .map(|(outcome, (event_id, source_name))| match outcome {
                    Outcome::Inserted(recorded_at) => Ok(Recorded {
                        duplicate: false,
                        recorded_at,
                    }),
                    Outcome::Duplicate(recorded_at) => Ok(Recorded {
                        duplicate: true,
                        recorded_at,
                    }),
                    Outcome::Reused => Err(Error::EventIdReused {
                        event_id,
                        source_name,
                    }),
                });
        Ok(recorded.collect())
    }

    async fn unknown_metrics(
        &self,
        events: &[Result<Event, Error>],
    ) -> Result<HashSet<octroi_core::MetricSlug>, Error> {
        let mut named: HashSet<_> = events
            .iter()
            .flatten()
            .map(|event| event.metric.clone())
            .collect();
        let mut unknown = HashSet::new();
        while let Some(metric) = self.catalog.first_unknown(&named).await? {
            named.remove(&metric);
            unknown.insert(metric);
        }
        Ok(unknown)
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
