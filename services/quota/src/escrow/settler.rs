//! Settles slices: what was not spent of them goes back to the limit.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Weak,
};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, ErrorKind, ServiceError as _, SliceId, Units};
use octroi_kit::{
    convert::to_proto_time,
    db::{DatabaseError, Scope},
    gather::{Bounds, Gather},
    status::Upstream,
};
use octroi_proto::usage::v1::{SealSlicesRequest, SliceToSeal};
use sqlx::PgConnection;

use super::{Escrow, Inner};
use crate::{
    domain::{
        carve::Granted,
        slice::{Slice, SliceKind},
        window::WindowKey,
    },
    error::Error,
    store::{self, AccountWindow, Change, SliceRow, Which},
};

/// The most slices that one call has settled together.
const SLICES_AT_ONCE: usize = 500;
/// The most slices that the ledger seals in one call.
const SEALED_AT_ONCE: usize = 5_000;
/// How many lists of abandoned slices one look settles.
const LISTS_MAX: u32 = 20;
/// Calls whose slices are settled together, because each step is a commit that somebody waits for.
const BOUNDS: Bounds = Bounds {
    batches: 2,
    jobs: 200,
    waiting: 50_000,
};

/// Settles the slices of calls that come together.
pub(super) type Settling = Gather<Vec<SliceId>, Result<usize, Error>>;

/// Starts what settles the slices of `escrow`, which has it.
pub(super) fn start(escrow: Weak<Inner>) -> Settling {
    Gather::start(BOUNDS, move |jobs| settle_together(escrow.clone(), jobs))
}

async fn settle_together(escrow: Weak<Inner>, jobs: Vec<Vec<SliceId>>) -> Vec<Result<usize, Error>> {
    let Some(escrow) = escrow.upgrade().map(Escrow) else {
        return Vec::new();
    };
    let all: BTreeSet<SliceId> = jobs.iter().flatten().copied().collect();
    let all: Vec<SliceId> = all.into_iter().collect();
    let mut settled = HashSet::new();
    for some in all.chunks(SEALED_AT_ONCE) {
        match escrow.settle_apart(some.to_vec()).await {
            Ok(some) => settled.extend(some),
            Err(error) => return jobs.iter().map(|_| Err(shared(&error))).collect(),
        }
    }
    let count = |job: Vec<SliceId>| job.iter().filter(|id| settled.contains(id)).count();
    jobs.into_iter().map(|job| Ok(count(job))).collect()
}

/// The same for another call whose slices were to be settled with it.
fn shared(error: &Error) -> Error {
    match error {
        Error::Database(error) => error.shared().into(),
        Error::Overloaded => Error::Overloaded,
        Error::Upstream(upstream) => Upstream::new(upstream.service, (*upstream.status).clone()).into(),
        _ => DatabaseError::Aborted.into(),
    }
}
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
            let answer = self.0.settling.ask(some.to_vec()).await;
            settled += answer??;
        }
        Ok(settled)
    }

    /// Settles slices together, and by halves where something is wrong with one of them: that is not the others' fault.
    /// Answers those that were settled.
    async fn settle_apart(&self, ids: Vec<SliceId>) -> Result<HashSet<SliceId>, Error> {
        let mut settled = HashSet::new();
        let mut parts = vec![ids];
        while let Some(mut part) = parts.pop() {
            match self.settle_some(part.clone()).await {
                Ok(some) => settled.extend(some),
                Err(error) if error.kind() != ErrorKind::Internal => return Err(error),
                Err(_) if part.len() > 1 => {
                    parts.push(part.split_off(part.len() / 2));
                    parts.push(part);
                }
                Err(error) => {
                    metrics::counter!("octroi_quota_slices_unsettled_total").increment(1);
                    tracing::error!(error = %error, slice.ids = ?part, "a slice cannot be settled");
                }
            }
        }
        self.0.told.notify_waiters();
        Ok(settled)
    }

    /// Answers those that were settled.
    async fn settle_some(&self, ids: Vec<SliceId>) -> Result<HashSet<SliceId>, Error> {
        let (own, now) = (self.0.replica, self.0.db.clock().now());
        let closing = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::close_slices(connection, &ids, own, now).await })
            })
            .await?;
        if closing.is_empty() {
            return Ok(HashSet::new());
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
        self.windows_changed(slices.iter().map(|slice| slice.account.clone()).collect())
            .await;
        metrics::counter!("octroi_quota_slices_total", "outcome" => "settled")
            .increment(u64::try_from(slices.len()).unwrap_or(u64::MAX));
        Ok(slices.into_iter().map(|slice| slice.id).collect())
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
                // What its owner answered and did not tell stays counted, all that it can have been.
                Ok((row.slice.id, if row.abandoned { row.slice.cap } else { charged }))
            })
            .collect()
    }

    /// Settles slices beside whatever goes on.
    pub fn settle_later(&self, slices: Vec<SliceId>) {
        let escrow = self.clone();
        tokio::spawn(async move {
            if let Err(error) = escrow.settle(&slices).await {
                tracing::debug!(error = %error, "slices are settled by the next sweep");
                escrow.0.unanswered.remember(&slices, escrow.0.db.clock().now());
            }
        });
    }

    /// Looks after slices once; again where there are more than one look settles.
    pub(super) async fn sweep_once(&self) -> Result<(), Error> {
        for _ in 0..LISTS_MAX {
            if self.sweep_some().await? < usize::try_from(ABANDONED_AT_ONCE).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Lets the others know that this replica lives, whatever else can be done: they settle the slices of one that does
    /// not.
    pub(super) async fn be_seen(&self) -> Result<(), DatabaseError> {
        let (replica, now) = (self.0.replica, self.0.db.clock().now());
        self.0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(store::see_replica(connection, replica, now))
            })
            .await
    }

    /// Answers how many slices were abandoned or past their time, as far as any were settled.
    async fn sweep_some(&self) -> Result<usize, Error> {
        let now = self.0.db.clock().now();
        let (replica, config) = (self.0.replica, self.0.config);
        let ago = |ms: u64| {
            let back = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
            now.saturating_sub(back).unwrap_or(Timestamp::MIN)
        };
        let seen_since = ago(config.replica_gone_ms);
        self.be_seen().await?;
        let (recalled, abandoned) = self
            .0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    store::close_expired_holds(connection, now, ABANDONED_AT_ONCE).await?;
                    let recalled = store::list_recalled(connection, replica).await?;
                    let which = Which::Done {
                        now,
                        seen_since,
                        limit: ABANDONED_AT_ONCE,
                    };
                    let abandoned = store::list_slices(connection, which).await?;
                    Ok::<_, DatabaseError>((recalled, abandoned))
                })
            })
            .await?;
        for (account, slice) in &recalled {
            self.0.purses.retire(account, &[*slice]);
        }
        if !recalled.is_empty() {
            self.0.flush_now.notify_one();
        }
        let own = self.0.purses.sweep(now, ago(config.idle_ms));
        let found = abandoned.len();
        let mut ids: HashSet<SliceId> = (abandoned.iter())
            .filter(|row| self.may_settle(row))
            .map(|row| row.slice.id)
            .collect();
        ids.extend(own.iter().map(|(_, slice)| *slice));
        ids.extend(self.0.unanswered.sweep(now));
        let ids: Vec<SliceId> = ids.into_iter().collect();
        let settled = self.settle(&ids).await?;
        // Those that others had settled before are not among those that were settled now.
        for (account, slice) in &own {
            self.0.purses.forget(account, &[*slice]);
        }
        Ok(if settled > 0 { found } else { 0 })
    }
}

/// Gives what was not charged back to the windows, once for each slice, and answers what they have granted.
async fn apply(
    connection: &mut PgConnection,
    slices: &[Slice],
    charges: &HashMap<SliceId, Units>,
) -> Result<HashMap<(AccountId, WindowKey), Granted>, DatabaseError> {
    let charged: Vec<(SliceId, Units)> = charges.iter().map(|(slice, charge)| (*slice, *charge)).collect();
    let applied = store::apply_charges(connection, &charged).await?;
    let applied: HashSet<SliceId> = applied.into_iter().collect();
    let mut changes: BTreeMap<AccountWindow, Change> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| applied.contains(&slice.id)) {
        let charge = charges.get(&slice.id).copied().unwrap_or_default();
        for key in &slice.windows {
            let change = changes.entry((slice.account.clone(), key.clone())).or_default();
            change.open_cap -= slice.cap.as_i64();
            change.charged += charge.as_i64();
            change.held -= if slice.kind == SliceKind::Hold {
                slice.cap.as_i64()
            } else {
                0
            };
        }
    }
    if changes.is_empty() {
        return Ok(HashMap::new());
    }
    store::change_windows(connection, &changes).await
}
