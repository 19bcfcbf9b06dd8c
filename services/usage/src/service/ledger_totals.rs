//! `GetLedgerTotals`: sums of the ledger itself.

use octroi_core::{AccountId, MetricSlug, Source, Units, Window};
use octroi_kit::db::Scope;

use super::Service;
use crate::{error::Error, store};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct TotalsQuery {
    /// The account; none means all.
    pub account: Option<AccountId>,
    /// The metrics.
    pub metrics: Vec<MetricSlug>,
    /// The range of event times.
    pub range: Window,
    /// Only events of this source.
    pub source: Option<Source>,
}

/// The sums of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricTotal {
    /// The metric.
    pub metric: MetricSlug,
    /// Units that decisions recorded.
    pub decided: Units,
    /// Units that were recorded after the fact.
    pub direct: Units,
    /// The number of events.
    pub events: u64,
    /// The sum of units as the rollups have it, over all sources.
    pub rollup: Units,
}

/// The sums, and how far the rollups are behind.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerTotals {
    /// One a metric, in the order asked.
    pub metrics: Vec<MetricTotal>,
    /// Events that the rollups do not have yet, over all accounts; 0 where one account was asked for.
    pub rollup_lag_events: u64,
}

impl Service {
    /// Sums of the ledger itself, which are true the instant an event was acknowledged.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn get_ledger_totals(&self, query: TotalsQuery) -> Result<LedgerTotals, Error> {
        if let Some(metric) = self.catalog.first_unknown(&query.metrics).await? {
            return Err(Error::MetricNotFound { metric });
        }
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let metrics = store::sum_ledger(connection, &query).await?;
                    let rollup_lag_events = if query.account.is_none() {
                        store::count_rollup_lag(connection).await?
                    } else {
                        0
                    };
                    Ok(LedgerTotals {
                        metrics,
                        rollup_lag_events,
                    })
                })
            })
            .await
    }
}
