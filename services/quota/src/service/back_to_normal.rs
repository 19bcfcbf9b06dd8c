//! Whoever was told of a threshold is told once that the use is normal again: the window has ended, the limit was raised,
//! or units were given back.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, Units};
use octroi_kit::{
    convert::{to_proto_period, to_proto_time},
    db::Scope,
    outbox,
};
use octroi_proto::events::v1::BackToNormal;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::Service;
use crate::{
    domain::{holding::AccountLimits, limits::EffectiveLimit, thresholds::is_normal, window::WindowKey},
    error::Error,
    store::{self, AccountWindow},
};

/// How often thresholds that stand are looked at, some at a time.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many are looked at together.
const AT_ONCE: i64 = 200;

/// Where an account stands now.
enum Now {
    /// Below every threshold.
    Normal {
        /// The limit in force, where there is one, with the window that runs.
        running: Option<(Arc<EffectiveLimit>, AccountWindow)>,
        /// What is used of it.
        used: u128,
    },
    /// Still at a threshold of the same window.
    Standing,
    /// The window has ended, and the one that runs has thresholds of its own.
    Elsewhere,
}

impl Service {
    /// Looks at thresholds that people were told of, each of them every `each`, until `stop`.
    pub async fn watch_thresholds(self, each: SignedDuration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            if let Err(error) = self.look_at_thresholds(each).await {
                tracing::debug!(error = %error, "whether use is normal again is looked at later");
            }
        }
    }

    async fn look_at_thresholds(&self, each: SignedDuration) -> Result<(), Error> {
        let now = self.db.clock().now();
        let before = now.saturating_sub(each).unwrap_or(Timestamp::MIN);
        let standing = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(store::claim_standing(connection, before, now, AT_ONCE))
            })
            .await?;
        for window in standing {
            match self.stands(&window, now).await {
                Ok(Now::Standing) => {}
                Ok(Now::Elsewhere) => self.end(window, None, now).await?,
                Ok(normal @ Now::Normal { .. }) => self.end(window, Some(normal), now).await?,
                // One account that cannot be read is not the others' fault.
                Err(error) => {
                    tracing::debug!(error = %error, account.id = %window.0, "it is looked at later")
                }
            }
        }
        Ok(())
    }

    /// Where the account of a window that had a threshold stands now.
    async fn stands(&self, (account, told): &AccountWindow, now: Timestamp) -> Result<Now, Error> {
        let Some(limits) = self.limits_of(account).await? else {
            // It is closed, and nobody need know.
            return Ok(Now::Elsewhere);
        };
        let Some((limit, key)) = running(&limits, told, now) else {
            return Ok(Now::Normal {
                running: None,
                used: 0,
            });
        };
        let used = self.followed(account, &key).await?;
        let is_told = key.start == told.start;
        Ok(if is_normal(&limit.limit.thresholds, limit.limit.amount, used) {
            let running = Some((limit.clone(), (account.clone(), key)));
            Now::Normal { running, used }
        } else if is_told {
            Now::Standing
        } else {
            Now::Elsewhere
        })
    }

    /// What the ledger has of a window.
    async fn followed(&self, account: &AccountId, key: &WindowKey) -> Result<u128, Error> {
        let window = (account.clone(), key.clone());
        let asked = [window.clone()];
        let found = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::find_windows(connection, &asked).await })
            })
            .await?;
        Ok(found.get(&window).copied().unwrap_or_default().used())
    }

    /// The thresholds of a window stand no more; of all who find that out the first one tells, where it is so still.
    async fn end(&self, window: AccountWindow, normal: Option<Now>, now: Timestamp) -> Result<(), Error> {
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    if !is_still(connection, normal.as_ref()).await? {
                        return Ok(());
                    }
                    let stood = store::end_standing(connection, &window, now).await?;
                    if let Some(Now::Normal { running, used }) = normal.filter(|_| stood) {
                        let limit = running.map(|(limit, _)| limit.limit.amount);
                        let event = event(&window, limit, used, now);
                        outbox::enqueue(connection, &event, now).await?;
                    }
                    Ok::<_, Error>(())
                })
            })
            .await
    }
}

/// Whether nothing was followed meanwhile that reaches a threshold. Nothing is until the transaction ends.
async fn is_still(connection: &mut PgConnection, normal: Option<&Now>) -> Result<bool, Error> {
    let Some(Now::Normal {
        running: Some((limit, window)),
        ..
    }) = normal
    else {
        return Ok(true);
    };
    let granted = store::lock_windows(connection, &BTreeSet::from([window.clone()])).await?;
    let used = granted.get(window).copied().unwrap_or_default().used();
    Ok(is_normal(&limit.limit.thresholds, limit.limit.amount, used))
}

/// The limit of the same metric and period that holds now, and its window; none where nothing limits it any more.
fn running<'l>(
    limits: &'l AccountLimits,
    told: &'l WindowKey,
    now: Timestamp,
) -> Option<(&'l Arc<EffectiveLimit>, WindowKey)> {
    let mut of_metric = limits.of_metric(&told.metric);
    let limit = of_metric.find(|limit| limit.limit.period == told.period)?;
    Some((limit, limits.window_key(limit, now)))
}

fn event((account, key): &AccountWindow, limit: Option<Units>, used: u128, now: Timestamp) -> BackToNormal {
    let bounded = key.end != Timestamp::MAX;
    BackToNormal {
        account_id: account.to_string(),
        metric: key.metric.to_string(),
        period: to_proto_period(key.period),
        limit: limit.map(Units::get),
        used: u64::try_from(used).unwrap_or(u64::MAX),
        window_start_time: Some(to_proto_time(key.start)),
        window_end_time: bounded.then(|| to_proto_time(key.end)),
        window_closed: bounded && key.end <= now,
    }
}
