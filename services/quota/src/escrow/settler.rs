//! Settles slices: what was not spent of them goes back to the limit.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, SliceId, Units};
use octroi_kit::{
    convert::to_proto_time,
    db::{DatabaseError, Scope},
    status::Upstream,
};
use octroi_proto::usage::v1::{SealSlicesRequest, SliceToSeal};
use sqlx::PgConnection;

use super::Escrow;
use crate::{
    domain::{
        carve::Granted,
        slice::{Slice, SliceKind},
        window::WindowKey,
    },
    error::Error,
    store::{self, AccountWindow, Change, SliceRow, Which},
};

/// The most slices that are settled together.
const SLICES_AT_ONCE: usize = 500;
/// Abandoned slices that one replica looks for at a time.
const ABANDONED_AT_ONCE: i64 = 500;

impl Escrow {
    /// Settles slices, whoever has them, and answers how many were. What is settled already, or by somebody else
    /// meanwhile, stays as it is.
    ///
    /// # Errors
    /// [`Error`] where the database or the ledger cannot be reached. Nothing is lost by that: whoever settles them
    /// later finds where they stand.
    pub async fn settle(&self, slices: &[SliceId]) -> Result<usize, Error> {
        let mut settled = 0;
        for some in slices.chunks(SLICES_AT_ONCE) {
            settled += self.settle_some(some.to_vec()).await?;
        }
        Ok(settled)
    }

    async fn settle_some(&self, ids: Vec<SliceId>) -> Result<usize, Error> {
        let (own, now) = (self.0.replica, self.0.db.clock().now());
        let closing = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::close_slices(connection, &ids, own, now).await })
            })
            .await?;
        if closing.is_empty() {
            return Ok(0);
        }
        let charges = self.seal(&closing).await?;
        let slices: Vec<Slice> = closing.into_iter().map(|row| row.slice).collect();
        let applied = slices.clone();
        let granted = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { apply(connection, &applied, &charges).await })
            })
            .await?;
        let now = self.0.db.clock().now();
        for slice in &slices {
            self.0.purses.settled(slice, &granted, now);
        }
        metrics::counter!("octroi_quota_slices_total", "outcome" => "settled")
            .increment(u64::try_from(slices.len()).unwrap_or(u64::MAX));
        Ok(slices.len())
    }

    /// Lets the ledger charge nothing more to slices, and answers what it has.
    async fn seal(&self, closing: &[SliceRow]) -> Result<HashMap<SliceId, Units>, Error> {
        let to_seal = |row: &SliceRow| SliceToSeal {
            slice_id: row.slice.id.uuid().into_bytes().to_vec(),
            cap: row.slice.cap.get(),
            hard_end_time: Some(to_proto_time(row.slice.hard_end_at)),
        };
        let request = SealSlicesRequest {
            slices: closing.iter().map(to_seal).collect(),
        };
        let sealed = self.0.usage.clone().seal_slices(request).await;
        let sealed = sealed
            .map_err(|status| Upstream::new("usage", status))?
            .into_inner();
        if sealed.charged_amounts.len() != closing.len() {
            return Err(DatabaseError::Corrupt {
                what: "answer about slices",
            }
            .into());
        }
        (closing.iter().zip(sealed.charged_amounts))
            .map(|(row, charged)| {
                let charged = Units::new(charged)
                    .ok()
                    .filter(|charged| *charged <= row.slice.cap);
                let charged = charged.ok_or(DatabaseError::Corrupt {
                    what: "charge of a slice",
                })?;
                // Its owner died: what it answered and did not tell stays counted, all that it can have been.
                let abandoned = row.open && row.slice.buffered && row.owner != self.0.replica;
                Ok((row.slice.id, if abandoned { row.slice.cap } else { charged }))
            })
            .collect()
    }

    /// Settles slices beside whatever goes on.
    pub fn settle_later(&self, slices: Vec<SliceId>) {
        let escrow = self.clone();
        tokio::spawn(async move {
            if let Err(error) = escrow.settle(&slices).await {
                tracing::debug!(error = %error, "slices are settled by the next sweep");
            }
        });
    }

    pub(super) async fn sweep_once(&self) -> Result<(), Error> {
        let now = self.0.db.clock().now();
        let (replica, config) = (self.0.replica, self.0.config);
        let ago = |ms: u64| {
            let back = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
            now.saturating_sub(back).unwrap_or(Timestamp::MIN)
        };
        let seen_since = ago(config.replica_gone_ms);
        let abandoned = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    store::see_replica(connection, replica, now).await?;
                    let which = Which::Done {
                        now,
                        seen_since,
                        limit: ABANDONED_AT_ONCE,
                    };
                    store::list_slices(connection, which).await
                })
            })
            .await?;
        let mut ids: HashSet<SliceId> = abandoned.into_iter().map(|row| row.slice.id).collect();
        ids.extend(self.0.purses.sweep(now, ago(config.idle_ms)));
        let ids: Vec<SliceId> = ids.into_iter().collect();
        self.settle(&ids).await?;
        Ok(())
    }
}

/// Gives what was not charged back to the windows, once for each slice, and answers what they have granted.
async fn apply(
    connection: &mut PgConnection,
    slices: &[Slice],
    charges: &HashMap<SliceId, Units>,
) -> Result<HashMap<(AccountId, WindowKey), Granted>, DatabaseError> {
    let windows: BTreeSet<AccountWindow> = (slices.iter())
        .flat_map(|slice| {
            slice
                .windows
                .iter()
                .map(|key| (slice.account.clone(), key.clone()))
        })
        .collect();
    let mut granted = store::lock_windows(connection, &windows).await?;
    let charged: Vec<(SliceId, Units)> = charges.iter().map(|(slice, charge)| (*slice, *charge)).collect();
    let applied = store::apply_charges(connection, &charged).await?;
    let applied: HashSet<SliceId> = applied.into_iter().collect();
    let mut changes: BTreeMap<AccountWindow, Change> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| applied.contains(&slice.id)) {
        let charge = charges.get(&slice.id).copied().unwrap_or_default();
        for key in &slice.windows {
            let window = (slice.account.clone(), key.clone());
            if let Some(granted) = granted.get_mut(&window) {
                granted.open_cap = granted.open_cap.saturating_sub(slice.cap);
                granted.charged = granted.charged.checked_add(charge).unwrap_or(Units::MAX);
                if slice.kind == SliceKind::Hold {
                    granted.held = granted.held.saturating_sub(slice.cap);
                }
            }
            let change = changes.entry(window).or_default();
            change.open_cap -= slice.cap.as_i64();
            change.charged += charge.as_i64();
            change.held -= if slice.kind == SliceKind::Hold {
                slice.cap.as_i64()
            } else {
                0
            };
        }
    }
    if !changes.is_empty() {
        store::change_windows(connection, &changes).await?;
    }
    Ok(granted)
}
