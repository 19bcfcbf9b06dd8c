//! Decisions that cost a call anyway, whole, within a budget of memory.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use octroi_core::AccountId;

use crate::domain::explained::{REMEMBERED, Record};

/// Decisions and ends of holds of the last minutes. The oldest go first where memory ends.
#[derive(Debug)]
pub(super) struct Recent {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By number; one has several where a request was decided anew, or where accounts have the same by design of
    /// somebody, since the numbers are no secret.
    by_number: HashMap<u128, Vec<Arc<Record>>>,
    by_age: VecDeque<(u128, Arc<Record>)>,
    bytes: usize,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            kept: Mutex::default(),
        }
    }

    pub(super) fn push(&self, record: Arc<Record>, now: Timestamp) {
        let Some(number) = record.number() else {
            return;
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += record.bytes();
        kept.by_age.push_back((number, Arc::clone(&record)));
        kept.by_number.entry(number).or_default().push(record);
        let mut early = 0;
        while let Some((_, oldest)) = kept.by_age.front() {
            let old = now.duration_since(oldest.at()) > REMEMBERED;
            if !old && kept.bytes <= self.bytes_max {
                break;
            }
            kept.drop_oldest();
            early += u64::from(!old);
        }
        drop(kept);
        if early > 0 {
            metrics::counter!("octroi_quota_explanations_evicted_total").increment(early);
        }
    }

    /// Whether the last decision of this number, where there is one, was allowed.
    pub(super) fn was_allowed(&self, number: u128, account: &AccountId) -> Option<bool> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let all = kept.by_number.get(&number)?.iter().rev();
        let mut decisions = all.filter_map(|record| match record.as_ref() {
            Record::Decision(explained) if explained.question.account == *account => {
                Some(explained.decision.allowed)
            }
            Record::Decision(_) | Record::HoldEnd(_) => None,
        });
        decisions.next()
    }

    /// All of this number, the oldest first.
    pub(super) fn find(&self, number: u128, account: Option<&AccountId>, now: Timestamp) -> Vec<Arc<Record>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let all = kept.by_number.get(&number).map(Vec::as_slice).unwrap_or_default();
        let is_meant = |record: &&Arc<Record>| {
            now.duration_since(record.at()) <= REMEMBERED && account.is_none_or(|one| record.account() == one)
        };
        all.iter().filter(is_meant).cloned().collect()
    }
}

impl Kept {
    fn drop_oldest(&mut self) {
        let Some((number, oldest)) = self.by_age.pop_front() else {
            return;
        };
        self.bytes -= oldest.bytes();
        if let Some(all) = self.by_number.get_mut(&number) {
            all.retain(|one| !Arc::ptr_eq(one, &oldest));
            if all.is_empty() {
                self.by_number.remove(&number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use uuid::Uuid;

    use super::*;
    use crate::domain::explained::{EndState, HoldEnd};

    fn end(account: &str, number: u128, at: Timestamp) -> Arc<Record> {
        Arc::new(Record::HoldEnd(HoldEnd {
            account: AccountId::parse(account).expect("an id"),
            hold: Uuid::from_u128(number),
            state: EndState::Released,
            at,
            items: Vec::new(),
            late: false,
        }))
    }

    #[test]
    fn a_record_is_found_by_its_number_and_account_for_its_time() {
        let (recent, start) = (Recent::new(usize::MAX), Timestamp::UNIX_EPOCH);
        recent.push(end("acme", 1, start), start);
        recent.push(end("other", 1, start), start);
        let acme = AccountId::parse("acme").expect("an id");
        assert_eq!(recent.find(1, Some(&acme), start).len(), 1);
        assert_eq!(recent.find(1, None, start).len(), 2);
        assert!(recent.find(2, None, start).is_empty());
        let later = start + REMEMBERED + SignedDuration::from_secs(1);
        assert!(recent.find(1, None, later).is_empty());
        recent.push(end("acme", 2, later), later);
        let kept = recent.kept.lock().expect("nobody panicked");
        assert_eq!(
            (kept.by_age.len(), kept.by_number.len()),
            (1, 1),
            "what is old takes no memory"
        );
    }

    #[test]
    fn the_oldest_go_where_memory_ends() {
        let start = Timestamp::UNIX_EPOCH;
        let recent = Recent::new(2 * end("acme", 1, start).bytes());
        for number in 1..=3 {
            recent.push(end("acme", number, start), start);
        }
        assert!(recent.find(1, None, start).is_empty());
        assert_eq!(recent.find(3, None, start).len(), 1);
    }
}
