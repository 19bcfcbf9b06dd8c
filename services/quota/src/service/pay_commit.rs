//! What pays for the amounts of a commit: the hold, and where that is not enough, a slice that is carved now.

use std::collections::BTreeMap;

use octroi_core::{AccountId, Charge, MetricSlug, SliceId, Units};
use uuid::Uuid;

use super::{Service, question::need};
use crate::{
    domain::{
        check::Item,
        hold::{Hold, slice_of},
        slice::SliceKind,
    },
    error::Error,
    escrow::{Ask, Carved, Terms},
    store::SliceRow,
};

/// How often it is looked for what pays, because slices or limits changed meanwhile.
const TRIES_MAX: u32 = 8;
/// How long a commit may take to charge what it carved, in seconds.
const EXTRA_S: i64 = 60;
/// How long what it carved may be charged at the least, in seconds: the ledger's clock may be another.
const EXTRA_CHARGED_S: i64 = 3_600;

/// What pays for an amount.
#[derive(Clone, Debug, Default)]
pub(super) struct Paid {
    pub(super) charges: Vec<Charge>,
    /// The part that nothing pays for, although a limit is there.
    pub(super) overrun: Units,
}

/// The slices that pay and are not the hold's own.
pub(super) fn extra_slices(hold: &Hold, paid: &[Paid]) -> Vec<SliceId> {
    let own = |slice: &SliceId| {
        hold.items
            .iter()
            .any(|item| slice_of(hold.id, &item.metric) == *slice)
    };
    let all = paid
        .iter()
        .flat_map(|one| &one.charges)
        .map(|charge| charge.slice);
    all.filter(|slice| !own(slice)).collect()
}

impl Service {
    /// What pays for each amount: the hold, and for what is more than it, or where it has ended for all, a slice that
    /// is carved now, where the limit has room.
    pub(super) async fn pay(
        &self,
        account: &AccountId,
        hold: &Hold,
        amounts: &[Item],
        late: bool,
    ) -> Result<Vec<Paid>, Error> {
        let held: BTreeMap<SliceId, SliceRow> = (self.slices_of_hold(hold.id).await?.into_iter())
            .map(|row| (row.slice.id, row))
            .collect();
        let mut all = Vec::with_capacity(amounts.len());
        for used in amounts {
            let mut charges = Vec::new();
            let mut rest = used.amount;
            if let Some(row) = held.get(&slice_of(hold.id, &used.metric)).filter(|_| !late) {
                let part = rest.min(row.slice.cap);
                rest = rest.saturating_sub(part);
                charges.extend((part > Units::ZERO).then(|| row.slice.charge(part)));
            }
            let mut paid = Paid::default();
            if rest > Units::ZERO {
                paid = self.pay_extra(account, hold, &used.metric, rest).await?;
            }
            charges.append(&mut paid.charges);
            all.push(Paid { charges, ..paid });
        }
        Ok(all)
    }

    /// Carves as much of `amount` as every window has room for.
    async fn pay_extra(
        &self,
        account: &AccountId,
        hold: &Hold,
        metric: &MetricSlug,
        amount: Units,
    ) -> Result<Paid, Error> {
        let mut wanted = amount;
        for _ in 0..TRIES_MAX {
            let Some(limits) = self.limits_of(account).await? else {
                return Ok(Paid::default());
            };
            let now = self.db.clock().now();
            let item = Item {
                metric: metric.clone(),
                amount: wanted,
            };
            let need = need(&limits, &item, hold.reserved_at, now);
            if need.windows.is_empty() {
                return Ok(Paid::default());
            }
            let ask = Ask {
                account: account.clone(),
                metric: metric.clone(),
                kind: SliceKind::Extra,
                kept: false,
                need: wanted,
                want: wanted,
                windows: need.windows.clone(),
                revision: limits.revision,
                terms: Terms::Given {
                    spend_until: now + jiff::SignedDuration::from_secs(EXTRA_S),
                    // A commit may come when the hold itself cannot be charged any more.
                    hard_end_at: hold
                        .hard_end_at()
                        .max(now + jiff::SignedDuration::from_secs(EXTRA_CHARGED_S)),
                },
                id: SliceId::new(Uuid::new_v4()),
                owner: self.escrow.replica(),
                content_hash: None,
            };
            match self.escrow.carve_all(vec![ask]).await?.pop() {
                Some(Carved::Slice(slice)) => {
                    return Ok(Paid {
                        charges: vec![slice.charge(wanted)],
                        overrun: amount.saturating_sub(wanted),
                    });
                }
                Some(Carved::Stale(revision)) => self.holdings.outdated(account, revision),
                Some(Carved::Full(_)) if self.escrow.recall_all(account, metric).await? => {}
                Some(Carved::Full(granted)) => {
                    let rooms = (need.windows.iter().zip(granted)).map(|((_, max), (_, one))| one.room(*max));
                    wanted = rooms.min().unwrap_or_default().min(wanted);
                    if wanted == Units::ZERO {
                        break;
                    }
                }
                _ => break,
            }
        }
        Ok(Paid {
            charges: Vec::new(),
            overrun: amount,
        })
    }
}
