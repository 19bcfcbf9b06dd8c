//! Counters in this process, under one lock.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use octroi_core::{AccountId, Units};
use uuid::Uuid;

use super::{ANSWER_TTL_S, Ask, Mark, Receipt, RequestKey, Taken, expiring::Expiring};
use crate::domain::{decision::Level, window::WindowKey};

/// The most windows that are remembered of one account; those that ended go first, then those that nobody
/// used for longest. They are seeded again when they are needed.
const WINDOWS_MAX: usize = 256;
/// From so many accounts on, those that nobody used for [`IDLE_MAX`] are forgotten.
const ACCOUNTS_MAX: usize = 100_000;
const IDLE_MAX: Duration = Duration::from_secs(3_600);
/// The most memory for answers, and for marks, in bytes; the oldest go first.
const BYTES_MAX: usize = 64 << 20;

type AccountRequest = (AccountId, RequestKey);

#[derive(Debug)]
struct Account {
    windows: HashMap<WindowKey, Slot>,
    used_at: Instant,
}

/// What is known of a request that took.
#[derive(Debug)]
struct Marked {
    content_hash: [u8; 32],
    attempt: Uuid,
    receipt: Receipt,
}

/// What is known of one window.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// None while it is cold.
    decided: Option<Units>,
    direct: Units,
    used_at: Instant,
}

#[derive(Debug)]
struct State {
    accounts: HashMap<AccountId, Account>,
    /// The account count at which idle ones are looked for next.
    sweep_at: usize,
    marks: Expiring<AccountRequest, Marked>,
    answers: Expiring<AccountRequest, Vec<u8>>,
}

/// Counters in this process, under one lock. Cloning shares them.
#[derive(Clone, Debug)]
pub struct InProcess {
    state: Arc<Mutex<State>>,
}

impl Default for InProcess {
    fn default() -> Self {
        let life = Duration::from_secs(ANSWER_TTL_S);
        let state = State {
            accounts: HashMap::new(),
            sweep_at: ACCOUNTS_MAX,
            marks: Expiring::new(life, BYTES_MAX),
            answers: Expiring::new(life, BYTES_MAX),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }
}

impl InProcess {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing below panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take(&self, account: &AccountId, mark: &Mark, receipt: &Receipt) -> Taken {
        let now = Instant::now();
        let asks = &receipt.asks;
        let mut state = self.state();
        let state = &mut *state;
        let request = (account.clone(), mark.key.clone());
        if let Some(marked) = state.marks.get(&request, now) {
            if marked.content_hash != mark.content_hash {
                return Taken::Reused;
            }
            let taken = marked.receipt.clone();
            state.set_mark(request, mark, taken.clone(), now);
            return Taken::Before(taken);
        }
        let keys: Vec<&WindowKey> = asks.iter().map(|ask| &ask.key).collect();
        let mut levels = match state.levels(account, &keys, now) {
            Ok(levels) => levels,
            Err(cold) => return Taken::Cold(cold),
        };
        if (asks.iter().zip(&levels)).any(|(ask, level)| !level.has_room_for(ask.amount, ask.max)) {
            return Taken::No(levels);
        }
        for (ask, level) in asks.iter().zip(&mut levels) {
            // There is room, so the sum can be counted.
            level.decided = level.decided.checked_add(ask.amount).unwrap_or(Units::MAX);
            if let Some(slot) = state.slot(account, &ask.key) {
                slot.decided = Some(level.decided);
            }
        }
        state.set_mark(request, mark, receipt.clone(), now);
        Taken::Yes(levels)
    }

    pub(super) fn look(&self, account: &AccountId, keys: &[WindowKey]) -> Result<Vec<Level>, Vec<usize>> {
        let keys: Vec<&WindowKey> = keys.iter().collect();
        self.state().levels(account, &keys, Instant::now())
    }

    pub(super) fn give_back(&self, account: &AccountId, mark: &Mark, asks: &[Ask]) -> bool {
        let mut state = self.state();
        let request = (account.clone(), mark.key.clone());
        let ours = state.marks.get(&request, Instant::now());
        if ours.is_none_or(|marked| marked.attempt != mark.attempt) {
            return false;
        }
        state.marks.remove(&request);
        for ask in asks {
            if let Some(slot) = state.slot(account, &ask.key) {
                slot.decided = slot.decided.map(|decided| decided.saturating_sub(ask.amount));
            }
        }
        true
    }

    pub(super) fn seed(&self, account: &AccountId, seeds: &[(WindowKey, Level)], now: Timestamp) {
        let used_at = Instant::now();
        let mut state = self.state();
        let windows = state.windows(account, used_at);
        for (key, level) in seeds {
            let slot = windows.entry(key.clone()).or_insert(Slot::cold(used_at));
            if slot.decided.is_none() {
                slot.decided = Some(level.decided);
                slot.direct = slot.direct.max(level.direct);
            }
        }
        forget_windows(windows, |key| seeds.iter().any(|(seeded, _)| seeded == key), now);
    }

    pub(super) fn raise_direct(&self, account: &AccountId, totals: &[(WindowKey, Units)], now: Timestamp) {
        let used_at = Instant::now();
        let mut state = self.state();
        let windows = state.windows(account, used_at);
        for (key, total) in totals {
            let slot = windows.entry(key.clone()).or_insert(Slot::cold(used_at));
            slot.direct = slot.direct.max(*total);
        }
        forget_windows(windows, |_| false, now);
    }

    pub(super) fn remember(&self, account: &AccountId, key: &RequestKey, answer: Vec<u8>, allowed: bool) {
        let (request, bytes, now) = ((account.clone(), key.clone()), answer.len(), Instant::now());
        let mut state = self.state();
        if !allowed && state.answers.get(&request, now).is_some() {
            return;
        }
        let early = state.answers.set(request, answer, bytes, now);
        metrics::counter!("octroi_quota_answers_evicted_total").increment(early);
    }

    pub(super) fn recall(&self, account: &AccountId, key: &RequestKey) -> Option<Vec<u8>> {
        let request = (account.clone(), key.clone());
        self.state().answers.get(&request, Instant::now()).cloned()
    }
}

impl Slot {
    fn cold(used_at: Instant) -> Self {
        Self {
            decided: None,
            direct: Units::ZERO,
            used_at,
        }
    }
}

impl State {
    /// The levels of all windows, or the indices of those that are cold.
    fn levels(
        &mut self,
        account: &AccountId,
        keys: &[&WindowKey],
        now: Instant,
    ) -> Result<Vec<Level>, Vec<usize>> {
        let (mut levels, mut cold) = (Vec::new(), Vec::new());
        let mut account = self.accounts.get_mut(account);
        if let Some(account) = &mut account {
            account.used_at = now;
        }
        for (index, key) in keys.iter().enumerate() {
            let slot = account.as_mut().and_then(|account| account.windows.get_mut(*key));
            match slot.and_then(|slot| slot.decided.map(|decided| (slot, decided))) {
                Some((slot, decided)) => {
                    slot.used_at = now;
                    levels.push(Level {
                        decided,
                        direct: slot.direct,
                    });
                }
                None => cold.push(index),
            }
        }
        if cold.is_empty() { Ok(levels) } else { Err(cold) }
    }

    fn slot(&mut self, account: &AccountId, key: &WindowKey) -> Option<&mut Slot> {
        self.accounts.get_mut(account)?.windows.get_mut(key)
    }

    fn set_mark(&mut self, request: AccountRequest, mark: &Mark, receipt: Receipt, now: Instant) {
        let bytes = receipt.asks.len() * size_of::<Ask>();
        let marked = Marked {
            content_hash: mark.content_hash,
            attempt: mark.attempt,
            receipt,
        };
        let early = self.marks.set(request, marked, bytes, now);
        metrics::counter!("octroi_quota_marks_evicted_total").increment(early);
    }

    fn windows(&mut self, account: &AccountId, now: Instant) -> &mut HashMap<WindowKey, Slot> {
        if self.accounts.len() >= self.sweep_at {
            self.accounts
                .retain(|_, account| now.duration_since(account.used_at) < IDLE_MAX);
            // Where all are busy, looking at each of them again at once would find the same.
            self.sweep_at = ACCOUNTS_MAX.max(self.accounts.len() * 2);
        }
        let account = self.accounts.entry(account.clone()).or_insert_with(|| Account {
            windows: HashMap::new(),
            used_at: now,
        });
        account.used_at = now;
        &mut account.windows
    }
}

/// Forgets windows until no more than [`WINDOWS_MAX`] are left, but none that `needed` speaks for.
fn forget_windows(
    windows: &mut HashMap<WindowKey, Slot>,
    needed: impl Fn(&WindowKey) -> bool,
    now: Timestamp,
) {
    let Some(surplus) = windows
        .len()
        .checked_sub(WINDOWS_MAX)
        .filter(|surplus| *surplus > 0)
    else {
        return;
    };
    let mut candidates: Vec<(bool, Instant, WindowKey)> = windows
        .iter()
        .filter(|(key, _)| !needed(key))
        .map(|(key, slot)| (key.end > now, slot.used_at, key.clone()))
        .collect();
    candidates.sort_by_key(|(open, used_at, _)| (*open, *used_at));
    for (_, _, key) in candidates.into_iter().take(surplus) {
        windows.remove(&key);
    }
}
