//! `RecordUsage` and `ReturnQuota`: what is used without asking before, and what is given back. Neither is denied, and
//! the windows know of both before the answer.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{MetricKind, Violations};
use octroi_kit::db::{DatabaseError, Scope};
use octroi_proto::usage::v1::Origin;
use sqlx::PgConnection;

use super::{
    Service,
    follow_ledger::Used,
    ledger::{LedgerAnswer, Request},
};
use crate::{
    answers::RequestKey,
    domain::check::Check,
    error::Error,
    store::{self, AccountWindow, Applied, Change},
};

/// What sources of events begin with of which quota tells its windows itself.
pub(super) const OWN_SOURCES: [&str; 2] = [RECORDED, RETURNED];
const RECORDED: &str = "record:";
const RETURNED: &str = "return:";

impl Service {
    /// Records what was used. What no limit has room for is overrun. Answers whether the request was done before.
    ///
    /// # Errors
    /// [`Error`] where it is not recorded.
    pub async fn record_usage(&self, used: Check, key: RequestKey) -> Result<bool, Error> {
        self.question(&used, String::new()).await?;
        self.record_and_tell(&used, &key, RECORDED, Origin::Direct).await
    }

    /// Gives back units of LEVEL metrics, all of them or none. Answers whether the request was done before.
    ///
    /// # Errors
    /// [`Error::LevelBelowZero`] where more would be given back than is held.
    pub async fn return_quota(&self, returned: Check, key: RequestKey) -> Result<bool, Error> {
        self.question(&returned, String::new()).await?;
        let catalog = self.holdings.catalog().await?;
        let mut violations = Violations::default();
        for (index, item) in returned.items.iter().enumerate() {
            let metric = catalog.metrics.get(&item.metric);
            if metric.is_some_and(|metric| metric.kind != MetricKind::Level) {
                let rule = "must be a LEVEL metric, of which units can be given back";
                violations.add(format!("items[{index}].metric"), rule);
            }
        }
        violations.finish()?;
        self.record_and_tell(&returned, &key, RETURNED, Origin::Return)
            .await
    }

    async fn record_and_tell(
        &self,
        check: &Check,
        key: &RequestKey,
        prefix: &str,
        origin: Origin,
    ) -> Result<bool, Error> {
        let at = check.event_at.unwrap_or(self.db.clock().now());
        let request = Request {
            source: format!("{prefix}{}", key.caller),
            origin,
            ..Request::decided(check, key, at)
        };
        let recording = self.record(&request).await?;
        // A repeat may come because this is where the first attempt ended.
        self.tell_windows(&request).await?;
        Ok(recording == LedgerAnswer::Repeated)
    }

    /// Tells the windows what the ledger has taken, before the bus does. Each event is told once, whoever is first.
    async fn tell_windows(&self, request: &Request) -> Result<(), Error> {
        let Some(limits) = self.limits_of(&request.account).await? else {
            return Ok(());
        };
        let mut told: Vec<(Applied, Vec<AccountWindow>, Change)> = Vec::with_capacity(request.lines.len());
        for line in &request.lines {
            let used = Used {
                account: request.account.clone(),
                metric: line.metric.clone(),
                amount: line.amount.get(),
                charged: 0,
                event_at: request.at,
                returned: request.origin == Origin::Return,
                source: request.source.clone(),
                event_id: line.event_id.clone(),
            };
            let windows = limits.of_metric(&line.metric).map(|limit| {
                let key = limits.window_key(limit, request.at);
                (request.account.clone(), key)
            });
            let change = Change {
                // Thresholds follow the ledger alone.
                followed: 0,
                ..used.change()
            };
            told.extend(used.applied().map(|applied| (applied, windows.collect(), change)));
        }
        let now = self.db.clock().now();
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { tell(connection, &told, now).await })
            })
            .await?;
        self.escrow.look_again(&request.account);
        Ok(())
    }
}

/// Adds what events change to their windows, where these were not told before.
async fn tell(
    connection: &mut PgConnection,
    told: &[(Applied, Vec<AccountWindow>, Change)],
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let events: Vec<Applied> = told.iter().map(|(applied, ..)| applied.clone()).collect();
    let new = store::insert_applied(connection, &events, now).await?;
    let mut changes: BTreeMap<AccountWindow, Change> = BTreeMap::new();
    for (_, windows, change) in told.iter().filter(|(applied, ..)| new.contains(applied)) {
        for window in windows {
            let sum = changes.entry(window.clone()).or_default();
            sum.overrun += change.overrun;
            sum.returned += change.returned;
        }
    }
    if changes.is_empty() {
        return Ok(());
    }
    store::lock_windows(connection, &changes.keys().cloned().collect()).await?;
    store::change_windows(connection, &changes).await
}
