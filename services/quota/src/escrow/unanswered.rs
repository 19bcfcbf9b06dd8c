//! Slices that were asked for and whose answer never came: the database may have carved them all the same. Nobody
//! spends them, so whoever asked has them settled, before a denial at the latest. The same for slices that nobody spends
//! any more and that could not be settled when that was tried.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, MetricSlug, SliceId};

use super::Ask;

/// How long a transaction whose answer was lost may still be on its way.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_secs(60);
/// The most slices that are remembered; what is forgotten is settled at its time.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Debug)]
struct Asked {
    /// Whose, where that is known.
    of: Option<(AccountId, MetricSlug)>,
    slice: SliceId,
    at: Timestamp,
}

/// Slices of which this replica does not know whether they were carved.
#[derive(Debug, Default)]
pub(super) struct Unanswered(Mutex<VecDeque<Asked>>);

impl Unanswered {
    /// Remembers the slice of an ask from when what is answered goes, unless it was answered before.
    pub(super) fn waits_for(&self, ask: &Ask, now: Timestamp) -> Waiting<'_> {
        let asked = Asked {
            of: Some((ask.account.clone(), ask.metric.clone())),
            slice: ask.id,
            at: now,
        };
        Waiting {
            unanswered: self,
            asked: Some(asked),
        }
    }

    /// Remembers slices that nobody spends, to be settled by the sweeps of the next minute.
    pub(super) fn remember(&self, slices: &[SliceId], now: Timestamp) {
        for slice in slices {
            self.push(Asked {
                of: None,
                slice: *slice,
                at: now,
            });
        }
    }

    fn push(&self, asked: Asked) {
        let mut all = self.lock();
        if all.len() >= REMEMBERED_MAX {
            all.pop_front();
        }
        all.push_back(asked);
    }

    /// Those of one metric of an account.
    pub(super) fn of_metric(&self, account: &AccountId, metric: &MetricSlug) -> Vec<SliceId> {
        let asked = self.lock();
        let is_of = |(whose, of): &(AccountId, MetricSlug)| whose == account && of == metric;
        let of_metric = asked.iter().filter(|asked| asked.of.as_ref().is_some_and(is_of));
        of_metric.map(|asked| asked.slice).collect()
    }

    /// All of them. Those that can be on their way no longer are settled for the last time.
    pub(super) fn sweep(&self, now: Timestamp) -> Vec<SliceId> {
        let mut asked = self.lock();
        let all = asked.iter().map(|asked| asked.slice).collect();
        asked.retain(|asked| now.duration_since(asked.at) < ON_ITS_WAY);
        all
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An ask that waits for its answer.
#[must_use = "its end is that no answer came"]
pub(super) struct Waiting<'u> {
    unanswered: &'u Unanswered,
    asked: Option<Asked>,
}

impl Waiting<'_> {
    /// The answer is here.
    pub(super) fn answered(mut self) {
        self.asked = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            self.unanswered.push(asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;
    use octroi_core::Units;
    use uuid::Uuid;

    use super::{super::Terms, *};
    use crate::domain::{holding::Revision, slice::SliceKind};

    fn ask(number: u128) -> Ask {
        Ask {
            account: AccountId::parse("acme").expect("an id"),
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            kind: SliceKind::Replica,
            kept: false,
            need: Units::ZERO,
            want: Units::ZERO,
            windows: Vec::new(),
            revision: Revision::default(),
            terms: Terms::Natural { until: None },
            id: SliceId::new(Uuid::from_u128(number)),
            owner: Uuid::nil(),
            content_hash: None,
        }
    }

    #[test]
    fn a_slice_is_remembered_where_no_answer_came_and_for_a_minute() {
        let (unanswered, now) = (Unanswered::default(), Timestamp::UNIX_EPOCH);
        unanswered.waits_for(&ask(1), now).answered();
        drop(unanswered.waits_for(&ask(2), now));
        let lost = vec![ask(2).id];
        assert_eq!(unanswered.of_metric(&ask(2).account, &ask(2).metric), lost);
        let other = MetricSlug::parse("notes.written").expect("a slug");
        assert_eq!(unanswered.of_metric(&ask(2).account, &other), []);
        assert_eq!(unanswered.sweep(now + 59.seconds()), lost);
        assert_eq!(unanswered.sweep(now + 60.seconds()), lost, "for the last time");
        assert_eq!(unanswered.sweep(now + 61.seconds()), []);
    }

    #[test]
    fn what_could_not_be_settled_is_tried_again_for_a_minute() {
        let (unanswered, now) = (Unanswered::default(), Timestamp::UNIX_EPOCH);
        unanswered.remember(&[ask(1).id, ask(2).id], now);
        assert_eq!(unanswered.sweep(now + 59.seconds()), [ask(1).id, ask(2).id]);
        assert_eq!(unanswered.sweep(now + 60.seconds()).len(), 2, "for the last time");
        assert_eq!(unanswered.sweep(now + 61.seconds()), []);
    }
}
