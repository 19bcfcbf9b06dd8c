//! Decisions that were made from memory: more than 100,000 a second, so each costs a lock that nobody else has and a
//! copy, and nothing is allocated or written out. What explains them is put together when somebody asks.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, RequestId, Units};

use super::action;
use crate::{
    domain::{
        check::Item,
        decision::{Decision, DenialReason, Level, LimitStatus, status},
        explained::{Explained, FromMemory, Question, REMEMBERED, id_of, number},
        plan::Plan,
    },
    escrow::QuickCheck,
};

/// Parts with a lock of their own.
const SHARDS: usize = 16;
/// The most metrics of a decision that is kept here.
const ITEMS: usize = 4;
/// The most limits of one.
const LIMITS: usize = 8;

/// The last decisions, each in as many bytes as any other.
#[derive(Debug)]
pub(super) struct Ring {
    shards: Vec<Mutex<Shard>>,
    evicted: metrics::Counter,
}

#[derive(Debug)]
struct Shard {
    size: usize,
    /// Where the next one goes.
    next: usize,
    /// Apart from the rest, because looking for one reads them all.
    numbers: Vec<u128>,
    entries: Vec<Entry>,
    /// Few, and each once.
    callers: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Entry {
    account: AccountId,
    plan: Arc<Plan>,
    at: Timestamp,
    request: Text,
    /// Its place among the callers.
    caller: usize,
    items: [(usize, Units); ITEMS],
    items_count: usize,
    levels: [Level; LIMITS],
    levels_count: usize,
    /// A bit a limit.
    would_deny: u8,
    reason: Option<DenialReason>,
    binding: Option<usize>,
    retry_after: Option<SignedDuration>,
}

/// A request's id, where there is one.
#[derive(Debug)]
struct Text {
    length: u8,
    bytes: [u8; RequestId::LENGTH_MAX],
}

impl Text {
    const EMPTY: Self = Self {
        length: 0,
        bytes: [0; RequestId::LENGTH_MAX],
    };

    fn write(&mut self, text: Option<&str>) {
        let text = text.unwrap_or_default().as_bytes();
        // What is longer is no request id.
        for (to, from) in self.bytes.iter_mut().zip(text) {
            *to = *from;
        }
        self.length = u8::try_from(text.len()).unwrap_or(0);
    }

    fn read(&self) -> Option<&str> {
        let bytes = self.bytes.get(..usize::from(self.length))?;
        std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())
    }
}

impl Ring {
    pub(super) fn new(size: usize) -> Self {
        let size = (size / SHARDS).max(1);
        let shard = || Shard {
            size,
            next: 0,
            numbers: Vec::with_capacity(size),
            entries: Vec::with_capacity(size),
            callers: Vec::new(),
        };
        Self {
            shards: (0..SHARDS).map(|_| Mutex::new(shard())).collect(),
            evicted: metrics::counter!("octroi_quota_explanations_evicted_total"),
        }
    }

    /// Whether a decision is small enough.
    pub(super) fn fits(&self, check: &QuickCheck<'_>, made: &FromMemory) -> bool {
        check.items.len() <= ITEMS && made.decision.limits.len() <= LIMITS
    }

    /// Keeps a decision that fits, over the oldest of its part, and gives it back.
    pub(super) fn push(&self, check: &QuickCheck<'_>, caller: &str, made: FromMemory) -> Decision {
        let FromMemory {
            decision,
            account,
            plan,
            at,
        } = made;
        let Some(number) = number(&decision.id) else {
            return decision;
        };
        let mut shard = self.shard(number);
        let caller = shard.caller(caller);
        let (entry, over) = shard.place(number, account, plan, at);
        entry.caller = caller;
        entry.write(check, &decision);
        drop(shard);
        if over.is_some_and(|over| at.duration_since(over) <= REMEMBERED) {
            self.evicted.increment(1);
        }
        decision
    }

    /// The newest decision of this number, of one account where one is named.
    pub(super) fn find(
        &self,
        number: u128,
        account: Option<&AccountId>,
        now: Timestamp,
    ) -> Option<Explained> {
        let shard = self.shard(number);
        let is_meant = |(one, entry): &(&u128, &Entry)| {
            **one == number
                && now.duration_since(entry.at) <= REMEMBERED
                && account.is_none_or(|account| entry.account == *account)
        };
        let (_, entry) = (shard.numbers.iter().zip(&shard.entries))
            .filter(is_meant)
            .max_by_key(|(_, entry)| entry.at)?;
        let caller = shard.callers.get(entry.caller)?;
        Some(entry.explained(number, caller))
    }

    fn shard(&self, number: u128) -> std::sync::MutexGuard<'_, Shard> {
        let place = usize::try_from(number % SHARDS as u128).unwrap_or(0);
        // There are SHARDS of them.
        let shard = self
            .shards
            .get(place)
            .unwrap_or_else(|| unreachable!("a place below SHARDS"));
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    fn caller(&mut self, name: &str) -> usize {
        let found = self.callers.iter().position(|one| **one == *name);
        found.unwrap_or_else(|| {
            self.callers.push(Arc::from(name));
            self.callers.len() - 1
        })
    }

    /// The entry that is written next, and when the one was made that it had before. It is written over where it is,
    /// because most of it stays empty.
    fn place(
        &mut self,
        number: u128,
        account: AccountId,
        plan: Arc<Plan>,
        at: Timestamp,
    ) -> (&mut Entry, Option<Timestamp>) {
        let place = self.next;
        self.next = (place + 1) % self.size;
        if place >= self.entries.len() {
            self.numbers.push(number);
            self.entries.push(Entry::new(account, plan, at));
            let last = self.entries.last_mut();
            return (last.unwrap_or_else(|| unreachable!("it was just pushed")), None);
        }
        let (one, entry) = (self.numbers.get_mut(place))
            .zip(self.entries.get_mut(place))
            .unwrap_or_else(|| unreachable!("a place below the length of both"));
        *one = number;
        (entry.account, entry.plan) = (account, plan);
        let before = std::mem::replace(&mut entry.at, at);
        (entry, Some(before))
    }
}

impl Entry {
    fn new(account: AccountId, plan: Arc<Plan>, at: Timestamp) -> Self {
        Self {
            account,
            plan,
            at,
            request: Text::EMPTY,
            caller: 0,
            items: [(usize::MAX, Units::ZERO); ITEMS],
            items_count: 0,
            levels: [Level::default(); LIMITS],
            levels_count: 0,
            would_deny: 0,
            reason: None,
            binding: None,
            retry_after: None,
        }
    }

    /// Writes what was asked and answered over what was before.
    fn write(&mut self, check: &QuickCheck<'_>, decision: &Decision) {
        self.request.write(check.request);
        for (to, item) in self.items.iter_mut().zip(&check.items) {
            *to = place_of(item, &self.plan);
        }
        self.items_count = check.items.len();
        for (to, limit) in self.levels.iter_mut().zip(&decision.limits) {
            *to = Level {
                used: limit.used,
                held: limit.held,
            };
        }
        self.levels_count = decision.limits.len();
        self.would_deny = would_deny(decision);
        self.reason = decision.reason;
        self.binding = decision.binding_limit;
        self.retry_after = decision.retry_after;
    }

    fn explained(&self, number: u128, caller: &str) -> Explained {
        let items = self.items();
        let named: Vec<(&str, Units)> = items
            .iter()
            .map(|item| (item.metric.as_str(), item.amount))
            .collect();
        let request = self.request.read();
        let made = FromMemory {
            decision: Decision {
                id: id_of(number),
                allowed: self.reason.is_none(),
                reason: self.reason,
                limits: self.limits(),
                binding_limit: self.binding,
                retry_after: self.retry_after,
                missing_features: Vec::new(),
                degraded: false,
                repeated_request: false,
                basis: None,
            },
            account: self.account.clone(),
            plan: Arc::clone(&self.plan),
            at: self.at,
        };
        let decision = made.with_basis(&named);
        Explained::new(question(made.account, caller, request, items), &decision, self.at)
    }

    fn items(&self) -> Vec<Item> {
        let items = self.items.iter().take(self.items_count);
        let item = |(place, amount): &(usize, Units)| {
            let metric = self.plan.metrics.get(*place)?.metric.clone();
            Some(Item {
                metric,
                amount: *amount,
            })
        };
        items.filter_map(item).collect()
    }

    fn limits(&self) -> Vec<LimitStatus> {
        let items = self.items.iter().take(self.items_count);
        let planned = items.filter_map(|(place, _)| self.plan.metrics.get(*place));
        let asked = planned.flat_map(|planned| &planned.asked);
        let levels = self.levels.iter().take(self.levels_count).enumerate();
        asked
            .zip(levels)
            .map(|(asked, (index, level))| status(asked, *level, self.would_deny & (1 << index) != 0))
            .collect()
    }
}

/// The place of an item's metric among those of the plan, with its amount.
fn place_of((name, amount): &(&str, Units), plan: &Plan) -> (usize, Units) {
    let mut metrics = plan.metrics.iter();
    let place = metrics.position(|planned| planned.metric.as_str() == *name);
    (place.unwrap_or(usize::MAX), *amount)
}

fn would_deny(decision: &Decision) -> u8 {
    let limits = decision.limits.iter().take(LIMITS).enumerate();
    limits.fold(0, |bits, (index, limit)| {
        bits | u8::from(limit.would_deny) << index
    })
}

/// What a check that may have a request asks.
pub(super) fn question(
    account: AccountId,
    caller: &str,
    request: Option<&str>,
    items: Vec<Item>,
) -> Question {
    Question {
        account,
        caller: caller.to_owned(),
        request: request.and_then(|request| RequestId::parse(request).ok()),
        action: action(request),
        items,
    }
}

#[cfg(test)]
mod tests;
