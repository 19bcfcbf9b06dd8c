//! `CommitHold`, `ReleaseHold`, `RenewHold`: how a hold ends, or lives on.

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, SliceId, Units, source};
use octroi_kit::db::{DatabaseError, Scope, joined};
use octroi_proto::usage::v1::Origin;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Service,
    degraded::PATIENCE,
    ledger::{LedgerAnswer, Line, Request},
    pay_commit::extra_slices,
    question::need,
};
use crate::{
    domain::{
        check::Item,
        hold::{Hold, slice_of},
        window::WindowKey,
    },
    error::Error,
    store,
};

/// How often a commit looks for what pays, because slices were sealed meanwhile.
const TRIES_MAX: u32 = 8;

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
    /// [`Error::HoldEnded`] where it was committed with other amounts; [`Error::AmountOutOfRange`] where a window would have
    /// more than can be counted.
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
        // In a task of its own: what a commit carves is settled, also where nobody waits for the answer any more.
        let (service, account, hold) = (self.clone(), account.clone(), hold.clone());
        let task = async move {
            let slices = hold.items.iter().map(|item| slice_of(hold.id, &item.metric));
            let slices: Vec<SliceId> = slices.collect();
            service.check_sums(&account, &hold, &amounts, &request).await?;
            let commit = if request.lines.is_empty() {
                service.commit_nothing(&account, &hold, &amounts).await?
            } else {
                service.commit_lines(&account, &hold, &amounts, request).await?
            };
            // What was used is used with the answer, and the rest is free, for whoever asks wherever. It is recorded by now, so
            // that nobody waits for long.
            let settled = timeout(PATIENCE, service.escrow.settle(&slices)).await;
            if !matches!(settled, Ok(Ok(_))) {
                service.escrow.settle_later(slices);
            }
            service.note_commit(&account, &hold, &commit);
            Ok(commit)
        };
        joined(tokio::spawn(task.in_current_span()).await)
    }

    /// Whether the windows can count what is more than was held.
    async fn check_sums(
        &self,
        account: &AccountId,
        hold: &Hold,
        amounts: &[Item],
        request: &Request,
    ) -> Result<(), Error> {
        let is_more = |(used, held): (&Item, &Item)| used.amount > held.amount;
        if !amounts.iter().zip(&hold.items).any(is_more) {
            return Ok(());
        }
        let Some(limits) = self.limits_of(account).await? else {
            return Ok(());
        };
        let now = self.db.clock().now();
        for (place, used) in amounts.iter().enumerate() {
            let windows = need(&limits, used, hold.reserved_at, now).windows;
            let keys: Vec<WindowKey> = windows.into_iter().map(|(key, _)| key).collect();
            let levels = self.escrow.levels(account, &keys, Timestamp::MAX).await?;
            if levels.iter().all(|level| level.can_count(used.amount)) {
                continue;
            }
            // What was recorded before is among what is used.
            return match self.find_recording(request).await {
                Ok(true) | Err(Error::RequestIdReused { .. }) => Ok(()),
                Ok(false) => Err(Error::AmountOutOfRange { place }),
                Err(error) => Err(error),
            };
        }
        Ok(())
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
            let paid = self.pay(account, hold, amounts, late).await?;
            let metrics = amounts.iter().map(|item| &item.metric);
            let charged = request.charged(metrics.zip(paid.iter().map(|one| &one.charges)));
            let recording = self.record(&charged).await;
            let extra = extra_slices(hold, &paid);
            // What it did not pay for is free again with the answer, where that can be had.
            let for_nothing = !matches!(recording, Ok(LedgerAnswer::Recorded));
            if !for_nothing || self.escrow.settle(&extra).await.is_err() {
                self.escrow.settle_later(extra);
            }
            match recording {
                Ok(LedgerAnswer::Recorded) => {
                    if paid.iter().any(|one| one.overrun > Units::ZERO) {
                        self.tell_overrun(&charged).await;
                    }
                    let overruns = paid.iter().map(|one| one.overrun);
                    return Ok(committed(amounts, overruns, false, late));
                }
                Ok(LedgerAnswer::Repeated) => {
                    return self.committed_before(account, hold, amounts, &request).await;
                }
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

    /// Tells the windows what no limit had room for. Where that fails the bus does.
    async fn tell_overrun(&self, charged: &Request) {
        if let Err(error) = self.tell_windows(charged).await {
            tracing::warn!(error = %error, "windows hear of an overrun a moment later");
        }
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
            lines: lines(hold, &hold.items).into_iter().take(1).collect(),
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
        let overruns = std::iter::repeat(Units::ZERO);
        Ok(committed(amounts, overruns, repeated, false))
    }

    /// The answer to a commit that the ledger has: it knows what was charged, and to what.
    async fn committed_before(
        &self,
        account: &AccountId,
        hold: &Hold,
        amounts: &[Item],
        request: &Request,
    ) -> Result<Commit, Error> {
        let slices = self.slices_of_hold(hold.id).await?;
        let ids: Vec<SliceId> = slices.iter().map(|row| row.slice.id).collect();
        self.escrow.settle(&ids).await?;
        let slices = self.slices_of_hold(hold.id).await?;
        let limits = self.limits_of(account).await?;
        let is_limited = |metric: &MetricSlug| {
            let now = limits
                .as_ref()
                .is_some_and(|limits| limits.of_metric(metric).next().is_some());
            now || slices.iter().any(|row| row.slice.metric == *metric)
        };
        let mut overruns = Vec::with_capacity(amounts.len());
        let mut late = false;
        for item in amounts {
            let line = request.lines.iter().find(|line| line.metric == item.metric);
            let overrun = match line.filter(|_| is_limited(&item.metric)) {
                Some(line) => self.find_overrun(request, line).await?,
                None => Units::ZERO,
            };
            overruns.push(overrun);
            // Of a hold that was open, whatever was used is charged to it first.
            let own = slices.iter().find(|row| row.slice.metric == item.metric);
            late |= line.is_some() && own.is_some_and(|row| row.charge == Some(Units::ZERO));
        }
        Ok(committed(amounts, overruns.into_iter(), true, late))
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
        let repeated = !before.is_empty() && before.iter().all(|row| row.charge.is_some());
        self.note_release(account, hold, repeated);
        Ok(repeated)
    }

    /// Whether anything was recorded of it.
    async fn is_committed(&self, account: &AccountId, hold: &Hold) -> Result<bool, Error> {
        // Whatever the amounts were: any commit has an event of this id.
        match self
            .find_recording(&commit_request(account, hold, &hold.items))
            .await
        {
            Ok(found) => Ok(found),
            Err(Error::RequestIdReused { .. }) => Ok(true),
            Err(error) => Err(error),
        }
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

/// The hold of which an event of the ledger is the commit, where it is one.
pub(super) fn hold_committed_by(source: &str, event_id: &str) -> Option<Uuid> {
    let id = event_id
        .split('/')
        .next()
        .filter(|_| source.starts_with(source::HOLD))?;
    Uuid::parse_str(id).ok()
}

/// What a commit of these amounts records.
fn commit_request(account: &AccountId, hold: &Hold, amounts: &[Item]) -> Request {
    Request {
        account: account.clone(),
        source: format!("{}{}", source::HOLD, hold.caller),
        id: octroi_core::RequestId::parse(&hold.id.to_string())
            .unwrap_or_else(|_| unreachable!("a number in text is an id")),
        at: hold.reserved_at,
        backfill: true,
        origin: Origin::Decision,
        content_hash: content_hash(amounts),
        lines: lines(hold, amounts),
    }
}

/// An event for each metric of which anything was used. The first has the hold's own id, whichever metric that is, so
/// that no two commits of a hold pass each other by.
fn lines(hold: &Hold, amounts: &[Item]) -> Vec<Line> {
    let used = sorted(amounts)
        .into_iter()
        .filter(|item| item.amount > Units::ZERO);
    let line = |(number, item): (usize, &Item)| Line {
        event_id: match number {
            0 => hold.id.to_string(),
            _ => format!("{}/{}", hold.id, item.metric),
        },
        place: amounts
            .iter()
            .position(|one| one.metric == item.metric)
            .unwrap_or_default(),
        metric: item.metric.clone(),
        amount: item.amount,
        charges: Vec::new(),
    };
    used.enumerate().map(line).collect()
}

/// In one order, whatever the order of the request that made the hold.
fn sorted(amounts: &[Item]) -> Vec<&Item> {
    let mut sorted: Vec<&Item> = amounts.iter().collect();
    sorted.sort_by(|a, b| a.metric.cmp(&b.metric));
    sorted
}

fn content_hash(amounts: &[Item]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for item in sorted(amounts) {
        hash.update(item.metric.as_str().len().to_be_bytes());
        hash.update(item.metric.as_str());
        hash.update(item.amount.get().to_be_bytes());
    }
    hash.finalize().into()
}

fn committed(amounts: &[Item], overruns: impl Iterator<Item = Units>, repeated: bool, late: bool) -> Commit {
    let items = amounts.iter().zip(overruns).map(|(item, overrun)| Committed {
        metric: item.metric.clone(),
        amount: item.amount,
        overrun,
    });
    Commit {
        items: items.collect(),
        repeated,
        late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_a_commit_names_its_hold() {
        let hold = Uuid::from_u128(7);
        for (source, event_id, expected) in [
            ("hold:app", hold.to_string(), Some(hold)),
            ("hold:app", format!("{hold}/api.requests"), Some(hold)),
            ("hold:app", "r-1".to_owned(), None),
            ("record:app", hold.to_string(), None),
            ("decision:app", hold.to_string(), None),
            ("threshold:hold:", hold.to_string(), None),
        ] {
            assert_eq!(
                hold_committed_by(source, &event_id),
                expected,
                "{source} {event_id}"
            );
        }
    }
}
