//! What must be true of what was seen, whatever broke: each rule is a function of the log and of what was found.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::oracle::{Entry, Event, Fate, Found, Log, Threshold, Told, event_id, place};
use crate::chaos::rules::{SETTLES_WITHIN, Verdict};

const MISSING: &str = "what was acknowledged is in the ledger";
const DOUBLE: &str = "nothing is in the ledger twice";
const INVENTED: &str = "the ledger has nothing that was not sent, and nothing with other content";
const NEW_ONCE: &str = "an event is told once that it is new";
const REFUSED: &str = "no event is refused";
const FORGED: &str = "an id that was used is refused with other content";
const KEYS: &str = "every event has its key, and every key its event";
const ROLLUPS: &str = "the rollups have what the ledger has";
const WINDOWS: &str = "quota's windows have what the ledger has";
const THRESHOLDS: &str = "what was reached is noted, and told once";
const BACKLOG: &str = "nothing is left to be done";
const DEAD: &str = "what cannot be handled is a dead letter, and nothing else is";
const SETTLED: &str = "all is as it should within a minute";

/// The rules that it may take a while to keep.
pub const IN_TIME: [&str; 5] = [ROLLUPS, WINDOWS, THRESHOLDS, BACKLOG, DEAD];

/// The shares of a limit at which people are told where it lists none, in percent.
const PERCENTS: [u32; 3] = [80, 95, 100];
/// The queues that hear `usage.recorded` in a fleet whose books are read here.
pub const QUEUES: [&str; 2] = ["usage.rollup", "quota.usage"];

/// Every rule.
#[must_use]
pub fn judge(log: &Log, found: &Found) -> Vec<Verdict> {
    vec![
        missing(log, found),
        double(found),
        invented(log, found),
        new_once(log),
        refused(log),
        forged(log),
        keys(found),
        rollups(found),
        windows(found),
        thresholds(found),
        backlog(found),
        dead(log, found),
        settled(found),
    ]
}

/// How many events break the three rules about what the ledger has: missing, double, invented.
#[must_use]
pub fn counts(verdicts: &[Verdict]) -> [usize; 3] {
    let of = |rule| {
        let verdict = verdicts.iter().find(|verdict| verdict.invariant == rule);
        verdict.map_or(0, |verdict| verdict.violations.len())
    };
    [of(MISSING), of(DOUBLE), of(INVENTED)]
}

fn verdict(invariant: &'static str, checked: usize, violations: Vec<String>) -> Verdict {
    Verdict {
        invariant,
        checked,
        violations,
    }
}

fn missing(log: &Log, found: &Found) -> Verdict {
    let there: BTreeSet<usize> = found
        .ledger
        .iter()
        .filter_map(|entry| place(&entry.event_id))
        .collect();
    let acknowledged: Vec<(usize, &Fate)> = log
        .fates
        .iter()
        .enumerate()
        .filter(|(_, fate)| fate.is_acknowledged())
        .collect();
    let missing = acknowledged.iter().filter(|(place, _)| !there.contains(place));
    let violations = missing
        .map(|(place, fate)| format!("{}: {fate:?}", event_id(*place)))
        .collect();
    verdict(MISSING, acknowledged.len(), violations)
}

fn double(found: &Found) -> Verdict {
    // One account has an id once; that another account has it is for the rule about content.
    let mut rows: HashMap<(&str, &str), u64> = HashMap::new();
    for entry in &found.ledger {
        *rows.entry((&entry.account, &entry.event_id)).or_default() += 1;
    }
    let twice = rows.iter().filter(|(_, rows)| **rows > 1);
    let violations = twice
        .map(|((account, id), rows)| format!("{id} of {account} is there {rows} times"))
        .collect();
    verdict(DOUBLE, found.ledger.len(), violations)
}

fn invented(log: &Log, found: &Found) -> Verdict {
    let is_sent = |entry: &Entry| {
        let place = place(&entry.event_id)?;
        let (event, fate) = log.events.get(place).zip(log.fates.get(place))?;
        let account = log.accounts.get(event.account)?;
        (fate.sent > 0 && is_as_sent(entry, event, account)).then_some(())
    };
    let invented = found.ledger.iter().filter(|entry| is_sent(entry).is_none());
    let violations = invented.map(|entry| format!("{entry:?}")).collect();
    verdict(INVENTED, found.ledger.len(), violations)
}

fn is_as_sent(entry: &Entry, event: &Event, account: &str) -> bool {
    entry.account == account
        && entry.metric == event.metric
        && entry.amount == event.amount
        && entry.at_ms == event.at_ms
        && entry.region.as_deref() == event.region
}

fn new_once(log: &Log) -> Verdict {
    let twice = log.fates.iter().enumerate().filter(|(_, fate)| fate.new > 1);
    let violations = twice
        .map(|(place, fate)| format!("{}: {fate:?}", event_id(place)))
        .collect();
    verdict(NEW_ONCE, log.fates.len(), violations)
}

fn refused(log: &Log) -> Verdict {
    let refused = |(place, fate): (usize, &Fate)| {
        let why = fate.refused.as_ref()?;
        Some(format!("{}: {why}", event_id(place)))
    };
    let violations = log.fates.iter().enumerate().filter_map(refused).collect();
    verdict(REFUSED, log.fates.len(), violations)
}

fn forged(log: &Log) -> Verdict {
    let answered = log
        .forgeries
        .iter()
        .filter(|forgery| !matches!(forgery.told, Told::Nothing(_)));
    let is_right = |told: &Told| matches!(told, Told::Refused(why) if why.contains("EVENT_ID_REUSED"));
    let wrong = answered.clone().filter(|forgery| !is_right(&forgery.told));
    let violations = wrong
        .map(|forgery| format!("{}: {:?}", event_id(forgery.event), forgery.told))
        .collect();
    verdict(FORGED, answered.count(), violations)
}

fn keys(found: &Found) -> Verdict {
    let (without_event, without_key) = found.keys_apart;
    let wrong = without_event + without_key > 0;
    let violation = format!("{without_event} keys have no event, and {without_key} events no key");
    verdict(
        KEYS,
        found.ledger.len(),
        wrong.then_some(violation).into_iter().collect(),
    )
}

fn rollups(found: &Found) -> Verdict {
    let apart = found.rollups.iter().filter(|one| one.ledger != one.rollup);
    let violations = apart.map(|one| format!("{one:?}")).collect();
    verdict(ROLLUPS, found.rollups.len(), violations)
}

/// Each window has what the ledger has of its time, and all of them what the ledger has.
fn windows(found: &Found) -> Verdict {
    let apart = |one: &&super::oracle::Window| one.used != one.ledger || one.overrun != one.ledger;
    let mut violations: Vec<String> = found
        .windows
        .iter()
        .filter(apart)
        .map(|one| format!("{one:?}"))
        .collect();
    for limit in &found.limits {
        let of_metric = found
            .totals
            .iter()
            .filter(|((_, metric), _)| *metric == limit.metric);
        for ((account, metric), total) in of_metric {
            let of_period = found
                .windows
                .iter()
                .filter(|one| (&one.account, &one.metric, &one.period) == (account, metric, &limit.period));
            let used: u64 = of_period.map(|one| one.used).sum();
            if used != *total {
                violations.push(format!(
                    "{used} of {total} units of {metric} of {account} are in some {}",
                    limit.period
                ));
            }
        }
    }
    verdict(WINDOWS, found.windows.len(), violations)
}

/// What windows reached is noted and nothing else; of each step the highest was told, nothing twice.
fn thresholds(found: &Found) -> Verdict {
    let reached = reached(found);
    let mut violations = Vec::new();
    let mut say = |what: &str, which: &Threshold| violations.push(format!("{what}: {which:?}"));
    for one in reached.difference(&found.crossed) {
        say("reached and not noted", one);
    }
    for one in found.crossed.difference(&reached) {
        say("noted and not reached", one);
    }
    let mut told: BTreeMap<&Threshold, u64> = BTreeMap::new();
    for one in &found.told {
        *told.entry(one).or_default() += 1;
    }
    for (one, times) in &told {
        if *times > 1 {
            say("told more than once", one);
        }
        if !found.fired.contains(one) {
            say("told and not fired", one);
        }
    }
    for one in &found.fired {
        if !told.contains_key(one) {
            say("fired and not told", one);
        }
    }
    let is_highest = |one: &&Threshold| {
        let at = |percent| Threshold {
            percent,
            ..(*one).clone()
        };
        let higher = at(one.percent + 1)..=at(u32::MAX);
        found.crossed.range(higher).next().is_none()
    };
    for one in found.crossed.iter().filter(is_highest) {
        if !found.fired.contains(one) {
            say("the highest of its window and not told", one);
        }
    }
    verdict(THRESHOLDS, found.crossed.len(), violations)
}

fn reached(found: &Found) -> BTreeSet<Threshold> {
    let mut reached = BTreeSet::new();
    for window in &found.windows {
        let limit = found
            .limits
            .iter()
            .find(|limit| limit.metric == window.metric && limit.period == window.period);
        let amount = limit.map_or(0, |limit| limit.amount);
        let is_reached = |percent: &u32| amount > 0 && window.used * 100 >= u64::from(*percent) * amount;
        reached.extend(PERCENTS.into_iter().filter(is_reached).map(|percent| Threshold {
            account: window.account.clone(),
            metric: window.metric.clone(),
            period: window.period.clone(),
            start: window.start,
            percent,
        }));
    }
    reached
}

fn backlog(found: &Found) -> Verdict {
    let backlog = &found.backlog;
    let left = (!backlog.is_empty()).then(|| format!("{backlog:?}"));
    verdict(BACKLOG, 3, left.into_iter().collect())
}

fn dead(log: &Log, found: &Found) -> Verdict {
    let mut violations = Vec::new();
    let none = BTreeSet::new();
    for queue in QUEUES {
        let dead = found.dead.get(queue).unwrap_or(&none);
        let lost = log.poison.difference(dead);
        violations
            .extend(lost.map(|one| format!("{queue} took {one}, which nobody can handle, and lost it")));
        let wrong = dead.difference(&log.poison);
        violations.extend(wrong.map(|one| format!("{queue} gave up {one}")));
    }
    verdict(DEAD, log.poison.len() * QUEUES.len(), violations)
}

fn settled(found: &Found) -> Verdict {
    let late = found.settled.is_none_or(|settled| settled > SETTLES_WITHIN);
    verdict(
        SETTLED,
        1,
        late.then(|| "it did not settle".to_owned()).into_iter().collect(),
    )
}

#[cfg(test)]
mod tests;
