//! What is sent, in which calls and when: all of it follows from the seed.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::oracle::Event;

/// A metric whose limits have windows of an hour, a day and a month.
pub const REQUESTS: &str = "api.requests";
/// A metric whose limit has windows of a month.
pub const TOKENS: &str = "llm.tokens_in";

/// Of the events, in percent: sent once more than need be, by whichever way.
const REPEATED: u32 = 10;
/// How many others may come between an event and its repetition.
const REPEATED_WITHIN: usize = 2_000;
/// How far back events lie: as many hours have windows of their own.
const BACK_MS: i64 = 6 * 3_600_000;
const REGIONS: [&str; 3] = ["eu", "us", "ap"];

/// A way into the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// `TrackUsage`.
    Unary,
    /// `TrackUsageBatch`.
    Batch,
    /// `TrackUsageStream`.
    Stream,
    /// `POST /api/usage/events` with an API key.
    Rest,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unary, Self::Batch, Self::Stream, Self::Rest];

    /// Of the events, in percent.
    fn share(self) -> u32 {
        match self {
            Self::Unary => 5,
            Self::Batch => 45,
            Self::Stream => 35,
            Self::Rest => 15,
        }
    }

    /// The most events of one call.
    fn events_max(self) -> usize {
        match self {
            Self::Unary => 1,
            Self::Batch => 400,
            Self::Stream => 200,
            Self::Rest => 80,
        }
    }
}

/// The events of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The number of the call.
    pub number: u64,
    /// Places of events in the log.
    pub events: Vec<usize>,
    /// Not before this.
    pub due: Duration,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The events, each once.
    pub events: Vec<Event>,
    /// The calls of each way, in their order.
    pub parcels: BTreeMap<Way, Vec<Parcel>>,
}

/// What a plan is made for.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// What it chooses by.
    pub seed: u64,
    /// How many events there are.
    pub events: usize,
    /// Over how long they are spread.
    pub lasts: Duration,
    /// How many accounts there are.
    pub accounts: usize,
    /// How many of them have a key, which are the first.
    pub with_key: usize,
    /// Events lie before this, in milliseconds since 1970.
    pub now_ms: i64,
}

/// A call that is not full yet.
#[derive(Debug, Default)]
struct Open {
    events: Vec<usize>,
    size: usize,
}

/// Makes the plan.
#[must_use]
pub fn plan(order: Order) -> Plan {
    let mut random = StdRng::seed_from_u64(order.seed);
    let events: Vec<Event> = (0..order.events).map(|_| event(order, &mut random)).collect();
    let sends = sends(order.events, &mut random);
    let mut plan = Plan {
        events,
        parcels: BTreeMap::new(),
    };
    // Whoever has a key can only record for the account of it, so these calls have one account each.
    let mut open: BTreeMap<(Way, usize), Open> = BTreeMap::new();
    let mut number = 0;
    for (position, place) in sends.iter().enumerate() {
        let account = plan.events.get(*place).map_or(0, |event| event.account);
        let way = way(&mut random, account < order.with_key);
        let of = if way == Way::Rest { account } else { 0 };
        let call = open.entry((way, of)).or_default();
        if call.size == 0 {
            call.size = random.random_range(1..=way.events_max());
        }
        call.events.push(*place);
        if call.events.len() == call.size {
            let due = due(order.lasts, position, sends.len());
            let events = std::mem::take(call).events;
            plan.parcels
                .entry(way)
                .or_default()
                .push(Parcel { number, events, due });
            number += 1;
        }
    }
    for ((way, _), call) in open.into_iter().filter(|(_, call)| !call.events.is_empty()) {
        let (events, due) = (call.events, order.lasts);
        plan.parcels
            .entry(way)
            .or_default()
            .push(Parcel { number, events, due });
        number += 1;
    }
    plan
}

fn event(order: Order, random: &mut StdRng) -> Event {
    let (metric, amount) = if random.random_ratio(2, 3) {
        (REQUESTS, random.random_range(1..=9))
    } else {
        (TOKENS, random.random_range(1..=4_000))
    };
    let region = random.random_range(0..=REGIONS.len());
    Event {
        account: random.random_range(0..order.accounts),
        metric,
        amount,
        at_ms: order.now_ms - random.random_range(0..BACK_MS),
        region: REGIONS.get(region).copied(),
    }
}

/// Places of events in the order in which they are sent.
fn sends(events: usize, random: &mut StdRng) -> Vec<usize> {
    let mut sends = Vec::with_capacity(events + events / 10);
    for place in 0..events {
        sends.push((place, place));
        if random.random_ratio(REPEATED, 100) {
            sends.push((place + random.random_range(0..REPEATED_WITHIN), place));
        }
    }
    sends.sort_by_key(|(position, _)| *position);
    sends.into_iter().map(|(_, place)| place).collect()
}

fn way(random: &mut StdRng, has_key: bool) -> Way {
    let mut draw = random.random_range(0..100);
    for way in Way::ALL {
        if draw < way.share() {
            let allowed = way != Way::Rest || has_key;
            return if allowed { way } else { Way::Batch };
        }
        draw -= way.share();
    }
    Way::Batch
}

fn due(lasts: Duration, position: usize, all: usize) -> Duration {
    let all = u128::try_from(all.max(1)).unwrap_or(1);
    let position = u128::try_from(position).unwrap_or(0);
    let us = lasts.as_micros() * position / all;
    Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ORDER: Order = Order {
        seed: 7,
        events: 20_000,
        lasts: Duration::from_secs(10),
        accounts: 4,
        with_key: 2,
        now_ms: 1_800_000_000_000,
    };

    #[test]
    fn every_event_is_sent_and_a_tenth_twice_over_every_way() {
        let plan = plan(ORDER);
        let mut sent = vec![0; ORDER.events];
        for (way, parcels) in &plan.parcels {
            let mut events = 0;
            for parcel in parcels {
                assert!((1..=way.events_max()).contains(&parcel.events.len()));
                assert!(parcel.due <= ORDER.lasts);
                events += parcel.events.len();
                parcel.events.iter().for_each(|place| sent[*place] += 1);
            }
            assert!(events > ORDER.events / 50, "{way:?} has {events}");
        }
        assert_eq!(plan.parcels.len(), Way::ALL.len());
        assert!(sent.iter().all(|times| *times == 1 || *times == 2));
        let twice = sent.iter().filter(|times| **times == 2).count();
        assert!((1_800..2_200).contains(&twice), "{twice}");
    }

    #[test]
    fn a_call_with_a_key_is_about_the_account_of_a_key() {
        let plan = plan(ORDER);
        for parcel in &plan.parcels[&Way::Rest] {
            let accounts: BTreeSet<usize> = parcel
                .events
                .iter()
                .map(|place| plan.events[*place].account)
                .collect();
            assert_eq!(accounts.len(), 1);
            assert!(accounts.iter().all(|account| *account < ORDER.with_key));
        }
    }

    #[test]
    fn a_plan_follows_from_its_seed() {
        let (one, again) = (plan(ORDER), plan(ORDER));
        assert_eq!((one.events.clone(), one.parcels), (again.events, again.parcels));
        let other = plan(Order { seed: 8, ..ORDER });
        assert_ne!(one.events, other.events);
    }
}
