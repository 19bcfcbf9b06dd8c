//! Reads cold windows from the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{AccountId, Units};
use octroi_kit::{convert::to_proto_time, status::Upstream};
use octroi_proto::usage::v1::GetLedgerTotalsRequest;

use super::Service;
use crate::{
    counters::{Ask, Taken, WindowKey},
    domain::decision::Level,
    error::Error,
};

/// Seeding makes windows warm; one that is cold again and again was forgotten in between.
const SEEDS_MAX: usize = 3;

impl Service {
    /// Takes from all windows or from none, seeding those that are cold.
    pub(super) async fn take(
        &self,
        account: &AccountId,
        asks: &[Ask],
        now: Timestamp,
    ) -> Result<Taken, Error> {
        for _ in 0..SEEDS_MAX {
            match self.counters.take(account, asks, now).await? {
                Taken::Cold(cold) => {
                    let keys = cold
                        .iter()
                        .filter_map(|index| asks.get(*index))
                        .map(|ask| ask.key.clone())
                        .collect();
                    self.seed(account, keys, now).await?;
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
                Taken::Cold(cold) => {
                    let cold = cold
                        .iter()
                        .filter_map(|index| keys.get(*index))
                        .cloned()
                        .collect();
                    self.seed(account, cold, now).await?;
                }
                Taken::Yes(levels) | Taken::No(levels) => return Ok(levels),
            }
        }
        Err(cold_again())
    }

    async fn seed(&self, account: &AccountId, keys: Vec<WindowKey>, now: Timestamp) -> Result<(), Error> {
        let mut by_window: BTreeMap<_, Vec<WindowKey>> = BTreeMap::new();
        for key in keys {
            by_window.entry(key.window()).or_default().push(key);
        }
        for (window, keys) in by_window {
            let request = GetLedgerTotalsRequest {
                account_id: account.to_string(),
                metrics: keys.iter().map(|key| key.metric.to_string()).collect(),
                start_time: Some(to_proto_time(window.start)),
                end_time: window.is_bounded().then(|| to_proto_time(window.end)),
                source: String::new(),
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

fn cold_again() -> Error {
    Error::Counters(crate::counters::CountersError(
        "windows are forgotten as soon as they are seeded".into(),
    ))
}
