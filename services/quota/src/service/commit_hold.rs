//! `CommitHold`, `ReleaseHold`, `RenewHold`: how a hold ends, or lives on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{AccountId, Charge, MetricSlug, SliceId, Units};
use octroi_kit::db::{DatabaseError, Scope};
use octroi_proto::usage::v1::Origin;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    Service,
    check_quota::need,
    ledger::{LedgerAnswer, Line, Request},
};
use crate::{
    domain::{
        check::Item,
        hold::{Hold, slice_of},
        slice::SliceKind,
    },
    error::Error,
    escrow::{Ask, Carved, Need, Terms},
    store::{self, SliceRow},
};

/// How often a commit looks for what pays, because slices were sealed meanwhile.
const TRIES_MAX: u32 = 8;
/// How long a commit may take to charge what it carved, in seconds.
const EXTRA_S: i64 = 60;

/// What a commit recorded of one metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The metric.
    pub metric: MetricSlug,
    /// What was recorded.
    pub amount: Units,
    /// The part of it that no limit had room for.
    pub overrun: Units,
}

/// The answer to a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// One a metric of the hold.
    pub items: Vec<Committed>,
    /// It was committed before with the same amounts.
    pub repeated: bool,
    /// The hold had ended before.
    pub late: bool,
}

impl Service {
    /// Records what was really used of a hold; a metric that is not named was used as held. More than was held finds
    /// its own place in the limit, and so does everything where the hold has ended; what finds none is overrun, and
    /// recorded all the same.
    ///
    /// # Errors
    /// [`Error::HoldEnded`] where it was committed with other amounts.
    pub async fn commit_hold(
        &self,
        account: &AccountId,
        hold: &Hold,
        used: &BTreeMap<MetricSlug, Units>,
    ) -> Result<Commit, Error> {
        let amounts: Vec<Item> = (hold.items.iter())
            .map(|item| Item {
                metric: item.metric.clone(),
                amount: used.get(&item.metric).copied().unwrap_or(item.amount),
            })
            .collect();
        let request = commit_request(account, hold, &amounts);
        let commit = if request.lines.is_empty() {
            self.commit_nothing(account, hold, &amounts).await?
        } else {
            self.commit_lines(account, hold, &amounts, request).await?
        };
        let slices = self.slices_of_hold(hold.id).await?;
        self.escrow
            .settle_later(slices.iter().map(|row| row.slice.id).collect());
        Ok(commit)
    }

    async fn commit_lines(
        &self,
        account: &AccountId,
        hold: &Hold,
        amounts: &[Item],
        request: Request,
    ) -> Result<Commit, Error> {
        let mut late = false;
        for _ in 0..TRIES_MAX {
            let charges = self.charges_of(account, hold, amounts, late).await?;
            let needs: Vec<Need> = (amounts.iter())
                .map(|item| Need {
                    metric: item.metric.clone(),
                    amount: item.amount,
                    windows: Vec::new(),
                    until: None,
                    buffered: false,
                })
                .collect();
            let charged = request.charged(&needs, &charges);
            let recording = self.record(&charged).await;
            let extra: Vec<SliceId> = (charges.iter().flatten())
                .map(|charge| charge.slice)
                .filter(|slice| {
                    !hold
                        .items
                        .iter()
                        .any(|item| slice_of(hold.id, &item.metric) == *slice)
                })
                .collect();
            self.escrow.settle_later(extra);
            match recording {
                Ok(LedgerAnswer::Recorded) => return Ok(committed(amounts, &charges, false, late)),
                Ok(LedgerAnswer::Repeated) => return self.committed_before(&request, amounts, late).await,
                // Where the hold itself was settled it had ended; a slice of what is more is carved again.
                Ok(LedgerAnswer::Unpaid(slices)) => {
                    let of_hold = |item: &Item| slices.contains(&slice_of(hold.id, &item.metric));
                    late |= hold.items.iter().any(of_hold);
                }
                Ok(LedgerAnswer::Denied) | Err(Error::RequestIdReused { .. }) => {
                    return Err(Error::HoldEnded { state: "committed" });
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Database(DatabaseError::Aborted))
    }

    /// What pays for each amount: the hold, and for what is more than it, or where it has ended for all, a slice that
    /// is carved now, where the limit has room.
    async fn charges_of(
        &self,
        account: &AccountId,
        hold: &Hold,
        amounts: &[Item],
        late: bool,
    ) -> Result<Vec<Vec<Charge>>, Error> {
        let held: BTreeMap<SliceId, SliceRow> = (self.slices_of_hold(hold.id).await?.into_iter())
            .map(|row| (row.slice.id, row))
            .collect();
        let mut charges = Vec::with_capacity(amounts.len());
        for (item, used) in hold.items.iter().zip(amounts) {
            let mut of_item = Vec::new();
            let mut rest = used.amount;
            if let Some(row) = held.get(&slice_of(hold.id, &item.metric)).filter(|_| !late) {
                let part = rest.min(row.slice.cap);
                rest = rest.saturating_sub(part);
                of_item.extend((part > Units::ZERO).then(|| row.slice.charge(part)));
            }
            if rest > Units::ZERO {
                of_item.extend(self.carve_extra(account, hold, &used.metric, rest).await?);
            }
            charges.push(of_item);
        }
        Ok(charges)
    }

    async fn carve_extra(
        &self,
        account: &AccountId,
        hold: &Hold,
        metric: &MetricSlug,
        amount: Units,
    ) -> Result<Option<Charge>, Error> {
        for _ in 0..TRIES_MAX {
            let Some(limits) = self.limits_of(account).await? else {
                return Ok(None);
            };
            let now = self.db.clock().now();
            let item = Item {
                metric: metric.clone(),
                amount,
            };
            let need = need(&limits, &item, hold.reserved_at, now);
            if need.windows.is_empty() {
                return Ok(None);
            }
            let ask = Ask {
                account: account.clone(),
                metric: metric.clone(),
                kind: SliceKind::Extra,
                buffered: false,
                need: amount,
                want: amount,
                windows: need.windows,
                revision: limits.revision,
                terms: Terms::Given {
                    spend_until: now + jiff::SignedDuration::from_secs(EXTRA_S),
                    hard_end_at: hold.hard_end_at(),
                },
                id: SliceId::new(Uuid::new_v4()),
                owner: self.escrow.replica(),
            };
            match self.escrow.carve_all(vec![ask]).await?.pop() {
                Some(Carved::Slice(slice)) => return Ok(Some(slice.charge(amount))),
                Some(Carved::Stale) => self.holdings.forget(account),
                Some(Carved::Full(_)) if self.escrow.recall_all(account, metric).await? => {}
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// A commit of nothing ends the hold. The ledger notes it, so that no other commit comes after.
    async fn commit_nothing(
        &self,
        account: &AccountId,
        hold: &Hold,
        amounts: &[Item],
    ) -> Result<Commit, Error> {
        let ended = Request {
            origin: Origin::Denial,
            lines: hold.items.iter().take(1).map(|item| line(hold, item)).collect(),
            ..commit_request(account, hold, amounts)
        };
        let repeated = match self.record(&ended).await {
            Ok(LedgerAnswer::Recorded) => false,
            Ok(LedgerAnswer::Denied) => true,
            Ok(LedgerAnswer::Repeated | LedgerAnswer::Unpaid(_)) | Err(Error::RequestIdReused { .. }) => {
                return Err(Error::HoldEnded { state: "committed" });
            }
            Err(error) => return Err(error),
        };
        Ok(committed(amounts, &[], repeated, false))
    }

    /// The answer to a commit that the ledger has: it knows what was charged.
    async fn committed_before(
        &self,
        request: &Request,
        amounts: &[Item],
        late: bool,
    ) -> Result<Commit, Error> {
        let mut items = Vec::with_capacity(amounts.len());
        for item in amounts {
            let line = request.lines.iter().find(|line| line.metric == item.metric);
            let overrun = match line {
                Some(line) => self.find_overrun(request, line).await?,
                None => Units::ZERO,
            };
            items.push(Committed {
                metric: item.metric.clone(),
                amount: item.amount,
                overrun,
            });
        }
        Ok(Commit {
            items,
            repeated: true,
            late,
        })
    }

    /// Ends a hold of which nothing was used. Answers whether it had ended before.
    ///
    /// # Errors
    /// [`Error::HoldEnded`] where it was committed.
    pub async fn release_hold(&self, account: &AccountId, hold: &Hold) -> Result<bool, Error> {
        let before = self.slices_of_hold(hold.id).await?;
        let ids: Vec<SliceId> = before.iter().map(|row| row.slice.id).collect();
        self.escrow.settle(&ids).await?;
        // Once its slices are sealed no commit is charged to them any more; one that came before is in the ledger.
        if self.is_committed(account, hold).await? {
            return Err(Error::HoldEnded { state: "committed" });
        }
        Ok(!before.is_empty() && before.iter().all(|row| row.charge.is_some()))
    }

    async fn is_committed(&self, account: &AccountId, hold: &Hold) -> Result<bool, Error> {
        // Whatever the amounts were: any commit has one of these events.
        let request = commit_request(account, hold, &hold.items);
        for line in &request.lines {
            let one = Request {
                lines: vec![line.clone()],
                ..request.clone()
            };
            match self.find_recording(&one).await {
                Ok(false) => {}
                Ok(true) | Err(Error::RequestIdReused { .. }) => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Lets an open hold live for so many seconds from now, and answers until when.
    ///
    /// # Errors
    /// [`Error::HoldEnded`] where it has ended.
    pub async fn renew_hold(&self, account: &AccountId, hold: &Hold, ttl_s: i64) -> Result<Timestamp, Error> {
        let now = self.db.clock().now();
        let (id, until) = (hold.id, hold.renewed_until(now, ttl_s));
        let renewed = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(store::renew_hold(connection, id, now, until))
            })
            .await?;
        if let Some(until) = renewed {
            return Ok(until);
        }
        let rows = self.slices_of_hold(hold.id).await?;
        if self.is_committed(account, hold).await? {
            return Err(Error::HoldEnded { state: "committed" });
        }
        match rows.first() {
            // Nothing limits what it holds, so nothing ends it before its time.
            None if now < hold.hard_end_at() => Ok(until),
            Some(row) if now < row.slice.spend_until => Err(Error::HoldEnded { state: "released" }),
            _ => Err(Error::HoldEnded { state: "expired" }),
        }
    }
}

/// What a commit of these amounts records. A metric of which nothing was used has no event.
fn commit_request(account: &AccountId, hold: &Hold, amounts: &[Item]) -> Request {
    let used = amounts.iter().filter(|item| item.amount > Units::ZERO);
    Request {
        account: account.clone(),
        source: format!("hold:{}", hold.caller),
        id: octroi_core::RequestId::parse(&hold.id.to_string())
            .unwrap_or_else(|_| unreachable!("a number in text is an id")),
        at: hold.reserved_at,
        backfill: true,
        origin: Origin::Decision,
        content_hash: content_hash(amounts),
        lines: used.map(|item| line(hold, item)).collect(),
    }
}

fn line(hold: &Hold, item: &Item) -> Line {
    // The first metric of the hold has its own id, so that commits with different metrics meet.
    let first = hold
        .items
        .first()
        .is_some_and(|first| first.metric == item.metric);
    Line {
        event_id: if first {
            hold.id.to_string()
        } else {
            format!("{}/{}", hold.id, item.metric)
        },
        metric: item.metric.clone(),
        amount: item.amount.max(Units::positive(1).unwrap_or_default()),
        charges: Vec::new(),
    }
}

fn content_hash(amounts: &[Item]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for item in amounts {
        hash.update(item.metric.as_str().len().to_be_bytes());
        hash.update(item.metric.as_str());
        hash.update(item.amount.get().to_be_bytes());
    }
    hash.finalize().into()
}

fn committed(amounts: &[Item], charges: &[Vec<Charge>], repeated: bool, late: bool) -> Commit {
    let none = Vec::new();
    let items = amounts.iter().enumerate().map(|(index, item)| {
        let paid = charges.get(index).unwrap_or(&none);
        let paid = paid.iter().fold(Units::ZERO, |sum, charge| {
            sum.checked_add(charge.amount).unwrap_or(Units::MAX)
        });
        Committed {
            metric: item.metric.clone(),
            amount: item.amount,
            overrun: item.amount.saturating_sub(paid),
        }
    });
    Commit {
        items: items.collect(),
        repeated,
        late,
    }
}
