//! Counters in this process, under one lock.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use octroi_core::{AccountId, Units};

use super::{ANSWER_TTL_S, Ask, RequestKey, Taken, WindowKey};
use crate::domain::decision::Level;

/// The most windows that are remembered of one account; the oldest go first and are seeded again.
const WINDOWS_MAX: usize = 256;
/// The most answers that are remembered; the oldest go first.
const ANSWERS_MAX: usize = 200_000;

type AnswerKey = (AccountId, RequestKey);

#[derive(Debug, Default)]
struct State {
    levels: HashMap<AccountId, HashMap<WindowKey, Level>>,
    answers: HashMap<AnswerKey, (Instant, Vec<u8>)>,
    answers_by_age: VecDeque<(Instant, AnswerKey)>,
}

/// Counters in this process, under one lock. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct InProcess {
    state: Arc<Mutex<State>>,
}

impl InProcess {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, account: &AccountId, asks: &[Ask]) -> Taken {
        let mut state = self.state();
        let levels = state.levels.entry(account.clone()).or_default();
        let keys = asks.iter().map(|ask| &ask.key);
        let mut found = match found(levels, keys) {
            Ok(found) => found,
            Err(cold) => return Taken::Cold(cold),
        };
        if asks
            .iter()
            .zip(&found)
            .any(|(ask, level)| !level.has_room_for(ask.amount, ask.max))
        {
            return Taken::No(found);
        }
        for (ask, level) in asks.iter().zip(&mut found) {
            // There is room, so the sum can be counted.
            level.decided = level.decided.checked_add(ask.amount).unwrap_or(Units::MAX);
            levels.insert(ask.key.clone(), *level);
        }
        Taken::Yes(found)
    }

    pub(super) fn look(&self, account: &AccountId, keys: &[WindowKey]) -> Taken {
        let state = self.state();
        let empty = HashMap::new();
        match found(state.levels.get(account).unwrap_or(&empty), keys.iter()) {
            Ok(found) => Taken::No(found),
            Err(cold) => Taken::Cold(cold),
        }
    }

    pub(super) fn give_back(&self, account: &AccountId, asks: &[Ask]) {
        let mut state = self.state();
        let Some(levels) = state.levels.get_mut(account) else {
            return;
        };
        for ask in asks {
            if let Some(level) = levels.get_mut(&ask.key) {
                level.decided = level.decided.saturating_sub(ask.amount);
            }
        }
    }

    pub(super) fn seed(&self, account: &AccountId, seeds: &[(WindowKey, Level)]) {
        let mut state = self.state();
        let levels = state.levels.entry(account.clone()).or_default();
        for (key, level) in seeds {
            levels.entry(key.clone()).or_insert(*level);
        }
        while levels.len() > WINDOWS_MAX {
            let oldest = levels.keys().min_by_key(|key| (key.end, key.start)).cloned();
            let Some(oldest) = oldest else { break };
            levels.remove(&oldest);
        }
    }

    pub(super) fn raise_direct(&self, account: &AccountId, totals: &[(WindowKey, Units)]) {
        let mut state = self.state();
        let Some(levels) = state.levels.get_mut(account) else {
            return;
        };
        for (key, total) in totals {
            if let Some(level) = levels.get_mut(key) {
                level.direct = level.direct.max(*total);
            }
        }
    }

    pub(super) fn remember(&self, account: &AccountId, key: &RequestKey, answer: Vec<u8>) {
        let mut state = self.state();
        let now = Instant::now();
        let key = (account.clone(), key.clone());
        state.answers.insert(key.clone(), (now, answer));
        state.answers_by_age.push_back((now, key));
        loop {
            let too_many = state.answers.len() > ANSWERS_MAX;
            let Some((at, _)) = state.answers_by_age.front() else {
                break;
            };
            if !too_many && !is_old(*at) {
                break;
            }
            let Some((at, key)) = state.answers_by_age.pop_front() else {
                break;
            };
            if state.answers.get(&key).is_some_and(|(kept_at, _)| *kept_at == at) {
                state.answers.remove(&key);
                if too_many {
                    metrics::counter!("octroi_quota_answers_evicted_total").increment(1);
                }
            }
        }
    }

    pub(super) fn recall(&self, account: &AccountId, key: &RequestKey) -> Option<Vec<u8>> {
        let state = self.state();
        let (at, answer) = state.answers.get(&(account.clone(), key.clone()))?;
        (!is_old(*at)).then(|| answer.clone())
    }
}

fn is_old(at: Instant) -> bool {
    at.elapsed() > Duration::from_secs(ANSWER_TTL_S)
}

/// The levels of all windows, or the indices of those that are cold.
fn found<'k>(
    levels: &HashMap<WindowKey, Level>,
    keys: impl Iterator<Item = &'k WindowKey>,
) -> Result<Vec<Level>, Vec<usize>> {
    let (mut found, mut cold) = (Vec::new(), Vec::new());
    for (index, key) in keys.enumerate() {
        match levels.get(key) {
            Some(level) => found.push(*level),
            None => cold.push(index),
        }
    }
    if cold.is_empty() { Ok(found) } else { Err(cold) }
}
