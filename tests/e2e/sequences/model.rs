//! What the rules say of limits, in as few words as they can be said: nothing is set aside, nothing fails.

use std::collections::BTreeMap;

use anyhow::Result;
use octroi_proto::common::v1::Period;
use octroi_tests::harness::catalog;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

/// Answered once the ledger has it.
pub(super) const CALLS: &str = "seq.calls";
/// Answered before.
pub(super) const CLICKS: &str = "seq.clicks";
/// What is held until it is given back.
pub(super) const SEATS: &str = "seq.seats";
pub(super) const METRICS: [&str; 3] = [CALLS, CLICKS, SEATS];

/// Metrics, and how much of each.
pub(super) type Amounts = Vec<(&'static str, i64)>;

/// A limit of the account.
#[derive(Debug)]
pub(super) struct Limit {
    pub(super) metric: &'static str,
    pub(super) period: Period,
    amount: u64,
    mode: &'static str,
    /// What it may never go beyond.
    most: Option<u64>,
}

const fn limit(
    metric: &'static str,
    period: Period,
    amount: u64,
    mode: &'static str,
    most: Option<u64>,
) -> Limit {
    Limit {
        metric,
        period,
        amount,
        mode,
        most,
    }
}

/// No window of them ends while a sequence goes on.
pub(super) const LIMITS: [Limit; 6] = [
    limit(CALLS, Period::Hour, 90, "hard", Some(90)),
    limit(CALLS, Period::Month, 60, "soft", Some(80)),
    limit(CALLS, Period::Lifetime, 20, "shadow", None),
    limit(CLICKS, Period::Hour, 70, "hard", Some(70)),
    limit(CLICKS, Period::Month, 95, "soft", None),
    limit(SEATS, Period::Lifetime, 25, "hard", Some(25)),
];

/// The demo's catalog, with these limits for those who have bought nothing.
pub(super) fn catalog() -> Result<String> {
    let metrics = [
        (CALLS, "flow", "durable"),
        (CLICKS, "flow", "buffered"),
        (SEATS, "level", "durable"),
    ]
    .map(|(slug, kind, recording)| {
        format!(
            "{{ slug: {slug}, kind: {kind}, aggregation: sum, recording: {recording}, unit: unit, \
             name: {{ en: {slug}, fr: {slug} }} }}"
        )
    });
    let limits = LIMITS.each_ref().map(|one| {
        let ceiling = match one.most {
            Some(most) if one.mode == "soft" => format!(", ceiling: {most}"),
            _ => String::new(),
        };
        let period = one.period.as_str_name().trim_start_matches("PERIOD_");
        let (metric, period) = (one.metric, period.to_lowercase());
        let (amount, mode) = (one.amount, one.mode);
        format!("{{ metric: {metric}, period: {period}, amount: {amount}, mode: {mode}{ceiling} }}")
    });
    catalog::with(&metrics, &limits)
}

/// What is asked for next.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Look(Amounts),
    Consume(Amounts),
    /// What was allowed before, and with which amounts.
    Repeat(String, Amounts),
    Reserve(Amounts),
    /// A hold, and what was used of it.
    Commit(String, Amounts),
    Release(String),
    Record(Amounts),
    Return(i64),
}

/// Where the account stands.
#[derive(Debug, Default)]
pub(super) struct Model {
    used: BTreeMap<&'static str, u64>,
    holds: BTreeMap<String, Amounts>,
    taken: Vec<(String, Amounts)>,
    /// The last step but looks made room.
    pub(super) was_freed: bool,
}

impl Model {
    pub(super) fn choose(&self, random: &mut StdRng) -> Step {
        let mut amounts = |most: i64| -> Amounts {
            let count = random.random_range(1..=2);
            let named: Vec<&&'static str> = METRICS.choose_multiple(random, count).collect();
            let mut named: Vec<&'static str> = named.into_iter().copied().collect();
            named.sort_unstable();
            named
                .into_iter()
                .map(|metric| (metric, random.random_range(1..=most)))
                .collect()
        };
        let (few, many) = (amounts(6), amounts(30));
        let a_hold = |random: &mut StdRng| -> Option<(String, Amounts)> {
            let holds: Vec<(&String, &Amounts)> = self.holds.iter().collect();
            let (id, held) = holds.choose(random)?;
            Some(((*id).clone(), (*held).clone()))
        };
        match random.random_range(0..100) {
            0..15 => Step::Look(many),
            15..45 => Step::Consume(few),
            45..52 => Step::Consume(many),
            52..58 => match self.taken.choose(random) {
                Some((id, asked)) => Step::Repeat(id.clone(), asked.clone()),
                None => Step::Consume(few),
            },
            58..72 => Step::Reserve(few),
            72..80 => match a_hold(random) {
                Some((id, held)) => {
                    let used = held
                        .iter()
                        .map(|(metric, held)| (*metric, random.random_range(0..=*held)));
                    Step::Commit(id, used.collect())
                }
                None => Step::Reserve(few),
            },
            80..86 => match a_hold(random) {
                Some((id, _)) => Step::Release(id),
                None => Step::Look(few),
            },
            86..90 => Step::Record(few),
            _ => Step::Return(random.random_range(1..=12)),
        }
    }

    pub(super) fn used(&self, metric: &str) -> u64 {
        self.used.get(metric).copied().unwrap_or_default()
    }

    fn held(&self, metric: &str) -> u64 {
        let amounts = self.holds.values().flatten();
        let held = amounts.filter(|(held, _)| *held == metric);
        held.map(|(_, amount)| amount.unsigned_abs()).sum()
    }

    /// Used, held, and left of a limit.
    pub(super) fn standing(&self, limit: &Limit) -> (u64, u64, u64) {
        let (used, held) = (self.used(limit.metric), self.held(limit.metric));
        (used, held, limit.amount.saturating_sub(used + held))
    }

    /// Whether every limit of every metric has room.
    pub(super) fn has_room(&self, asked: &Amounts) -> bool {
        let fits = |metric: &str, amount: i64| {
            let sum = self.used(metric) + self.held(metric) + amount.unsigned_abs();
            let limits = LIMITS.iter().filter(|limit| limit.metric == metric);
            limits.filter_map(|limit| limit.most).all(|most| sum <= most)
        };
        asked.iter().all(|(metric, amount)| fits(metric, *amount))
    }

    fn add(&mut self, amounts: &Amounts) {
        for (metric, amount) in amounts {
            *self.used.entry(metric).or_default() += amount.unsigned_abs();
        }
    }

    pub(super) fn take(&mut self, id: &str, asked: &Amounts) {
        self.add(asked);
        self.taken.push((id.to_owned(), asked.clone()));
        self.was_freed = false;
    }

    pub(super) fn record(&mut self, used: &Amounts) {
        self.add(used);
    }

    pub(super) fn hold(&mut self, id: String, asked: Amounts) {
        self.holds.insert(id, asked);
    }

    pub(super) fn commit(&mut self, hold: &str, used: &Amounts) {
        self.holds.remove(hold);
        self.add(used);
        self.was_freed = true;
    }

    pub(super) fn release(&mut self, hold: &str) {
        self.holds.remove(hold);
        self.was_freed = true;
    }

    /// Gives seats back, unless these are more than are used.
    pub(super) fn give_back(&mut self, amount: i64) -> bool {
        let used = self.used.entry(SEATS).or_default();
        let left = used.checked_sub(amount.unsigned_abs());
        *used = left.unwrap_or(*used);
        left.is_some()
    }
}
