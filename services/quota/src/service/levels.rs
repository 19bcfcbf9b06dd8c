//! Reads cold windows from the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{AccountId, Units, Window};
use octroi_kit::{
    convert::to_proto_time,
    db::{DatabaseError, joined},
    status::Upstream,
};
use octroi_proto::usage::v1::GetLedgerTotalsRequest;
use tracing::Instrument as _;

use super::{Service, check_quota::Consumption};
use crate::{
    counters::Taken,
    domain::{decision::Level, window::WindowKey},
    error::Error,
};

/// Seeding makes windows warm; one that is cold again and again was forgotten in between.
const SEEDS_MAX: usize = 3;
/// The most metrics that the ledger sums in one answer.
const METRICS_MAX: usize = 16;

impl Service {
    /// Takes from all windows or from none, seeding those that are cold.
    pub(super) async fn take(&self, consumption: &Consumption, now: Timestamp) -> Result<Taken, Error> {
        let Consumption { check, mark, receipt } = consumption;
        for _ in 0..SEEDS_MAX {
            match self.counters.take(&check.account, mark, receipt, now).await? {
                Taken::Cold(cold) => {
                    let cold = cold.iter().filter_map(|index| receipt.asks.get(*index));
                    let keys = cold.map(|ask| ask.key.clone()).collect();
                    self.seed(&check.account, keys, now).await?;
                }
                taken => return Ok(taken),
            }
        }
        Err(cold_again())
    }

    /// What the windows hold, seeding those that are cold.
    pub(super) async fn levels(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        now: Timestamp,
    ) -> Result<Vec<Level>, Error> {
        for _ in 0..SEEDS_MAX {
            match self.counters.look(account, keys).await? {
                Ok(levels) => return Ok(levels),
                Err(cold) => {
                    let cold = cold.iter().filter_map(|index| keys.get(*index));
                    self.seed(account, cold.cloned().collect(), now).await?;
                }
            }
        }
        Err(cold_again())
    }

    /// In a task of its own: a sum that takes longer than its caller waits is there for the next one.
    async fn seed(&self, account: &AccountId, keys: Vec<WindowKey>, now: Timestamp) -> Result<(), Error> {
        let (service, account) = (self.clone(), account.clone());
        let task = async move { service.read_and_seed(&account, keys, now).await };
        joined(tokio::spawn(task.in_current_span()).await)
    }

    async fn read_and_seed(
        &self,
        account: &AccountId,
        keys: Vec<WindowKey>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let _place = (self.seeding.acquire().await).map_err(|_| DatabaseError::Stopping)?;
        let keys: Vec<WindowKey> = match self.counters.look(account, &keys).await? {
            Ok(_) => return Ok(()),
            // Others may have seeded some of them while this one waited for its place.
            Err(cold) => (cold.iter().filter_map(|index| keys.get(*index)))
                .cloned()
                .collect(),
        };
        let mut by_window: BTreeMap<_, Vec<WindowKey>> = BTreeMap::new();
        for key in keys {
            by_window.entry(key.window()).or_default().push(key);
        }
        let mut chunks: Vec<(Window, Vec<WindowKey>)> = Vec::new();
        for (window, keys) in by_window {
            chunks.extend(keys.chunks(METRICS_MAX).map(|keys| (window, keys.to_vec())));
        }
        for (window, keys) in chunks {
            let request = GetLedgerTotalsRequest {
                account_id: account.to_string(),
                metrics: keys.iter().map(|key| key.metric.to_string()).collect(),
                start_time: Some(to_proto_time(window.start)),
                end_time: window.is_bounded().then(|| to_proto_time(window.end)),
                source: String::new(),
                skip_rollups: true,
            };
            let totals = self.usage.clone().get_ledger_totals(request).await;
            let totals = totals
                .map_err(|status| Upstream::new("usage", status))?
                .into_inner()
                .totals;
            let levels: Vec<(WindowKey, Level)> = keys
                .into_iter()
                .zip(totals)
                .map(|(key, total)| {
                    let units = |amount| Units::new(amount).unwrap_or(Units::MAX);
                    (
                        key,
                        Level {
                            decided: units(total.decided_amount),
                            direct: units(total.direct_amount),
                        },
                    )
                })
                .collect();
            self.counters.seed(account, &levels, now).await?;
        }
        Ok(())
    }
}

/// Windows are seeded and found cold again.
pub(super) fn cold_again() -> Error {
    Error::Counters(crate::counters::CountersError(
        "windows are forgotten as soon as they are seeded".into(),
    ))
}
