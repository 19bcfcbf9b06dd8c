//! `GetLedgerTotals`: sums of the ledger itself.

use octroi_kit::db::Scope;

use super::Service;
use crate::{
    domain::sums::{MetricTotal, TotalsQuery},
    error::Error,
    store,
};

/// The sums, and how far the rollups are behind.
#[derive(Clone, Debug, PartialEq)]
pub struct LedgerTotals {
    /// One a metric, in the order asked.
    pub metrics: Vec<MetricTotal>,
    /// Events that the rollups do not have yet, over all accounts; 0 where one account was asked for.
    pub rollup_lag_events: u64,
    /// Which commits of the ledger the sums have.
    pub ledger_snapshot: String,
}

impl Service {
    /// Sums of the ledger itself, which are true the instant an event was acknowledged.
    ///
    /// # Errors
    /// [`Error::MetricNotFound`], [`Error::SumOutOfRange`], [`Error::Database`].
    pub async fn get_ledger_totals(&self, query: TotalsQuery) -> Result<LedgerTotals, Error> {
        self.catalog.with_all(&query.metrics).await?;
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let (metrics, ledger_snapshot) = store::sum_ledger(connection, &query).await?;
                    let rollup_lag_events = if query.account.is_none() {
                        store::count_rollup_lag(connection).await?
                    } else {
                        0
                    };
                    Ok(LedgerTotals {
                        metrics,
                        rollup_lag_events,
                        ledger_snapshot,
                    })
                })
            })
            .await
    }
}
