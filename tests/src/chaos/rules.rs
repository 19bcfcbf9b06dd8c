//! What must be true of what was seen, whatever broke: each rule is a function of a log and of what was found after it.

mod levels;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::oracle::{Entry, Found, Log, Request, Told};
pub use levels::over_admission;

/// Within how long everything must be as it should after the fault.
pub const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// What one rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The rule.
    pub invariant: &'static str,
    /// How many things it looked at.
    pub checked: usize,
    /// What is not so.
    pub violations: Vec<String>,
}

/// The rule about limits, in `rules/levels.rs`.
pub const ABOVE: &str = "allowed units never pass the limit in force";
const DENIED: &str = "what was denied is not charged";
const RECORDED: &str = "what was acknowledged is in the ledger once";
const INVENTED: &str = "the ledger has nothing that was not asked for";
const SUMS: &str = "the ledger has what was answered, but for what died";
const WINDOWS: &str = "the windows have what the ledger has";
const STANDING: &str = "every replica says what the ledger says";
const STRANDED: &str = "no unit is stranded";
const OVERDUE: &str = "no hold is overdue";
const SETTLED: &str = "all is as it should within a minute";

/// The rules that it may take a while to keep.
pub const IN_TIME: [&str; 3] = [WINDOWS, STANDING, OVERDUE];

/// Every rule.
#[must_use]
pub fn judge(log: &Log, found: &Found) -> Vec<Verdict> {
    let mut verdicts = vec![above(log, found)];
    if log.buffered {
        verdicts.push(sums(log, found));
    } else {
        verdicts.extend([denied(log, found), recorded(log, found), invented(log, found)]);
    }
    verdicts.extend([
        windows(log, found),
        standing(found),
        stranded(found),
        overdue(found),
        settled(found),
    ]);
    verdicts
}

fn above(log: &Log, found: &Found) -> Verdict {
    let (checked, over) = levels::over(log, found);
    let violations = over.into_iter().map(|one| one.to_string()).collect();
    Verdict {
        invariant: ABOVE,
        checked,
        violations,
    }
}

/// The ledger's rows of each request.
fn by_request(found: &Found) -> HashMap<&str, Vec<&Entry>> {
    let mut rows: HashMap<&str, Vec<&Entry>> = HashMap::new();
    for entry in &found.ledger {
        rows.entry(&entry.request).or_default().push(entry);
    }
    rows
}

/// What was denied for good is not charged.
fn denied(log: &Log, found: &Found) -> Verdict {
    let ledger = by_request(found);
    let denied: Vec<&Request> = (log.requests.iter())
        .filter(|request| request.told() == Told::No)
        .collect();
    let charged = denied
        .iter()
        .filter(|request| ledger.contains_key(request.id.as_str()));
    Verdict {
        invariant: DENIED,
        checked: denied.len(),
        violations: charged
            .map(|request| {
                format!(
                    "{} was denied and is in the ledger: {:?}",
                    request.id, request.attempts
                )
            })
            .collect(),
    }
}

/// What was acknowledged is in the ledger, with its amount, once; and nothing is there twice.
fn recorded(log: &Log, found: &Found) -> Verdict {
    let ledger = by_request(found);
    let mut checked = 0;
    let mut violations = Vec::new();
    for request in &log.requests {
        let rows = ledger.get(request.id.as_str()).map_or(&[][..], Vec::as_slice);
        if rows.len() > 1 {
            violations.push(format!("{} is there {} times", request.id, rows.len()));
        }
        if request.told() != Told::Yes {
            continue;
        }
        checked += 1;
        let sum: u64 = rows.iter().map(|row| row.amount).sum();
        if sum != request.used() {
            violations.push(format!(
                "{} units of {} are recorded of {}: {request:?}",
                sum,
                request.id,
                request.used()
            ));
        }
    }
    Verdict {
        invariant: RECORDED,
        checked,
        violations,
    }
}

/// The ledger has nothing that nobody asked for, and no more of it.
fn invented(log: &Log, found: &Found) -> Verdict {
    let asked: HashMap<&str, &Request> = (log.requests.iter())
        .map(|request| (request.id.as_str(), request))
        .collect();
    let is_asked = |entry: &Entry| {
        let request = asked.get(entry.request.as_str());
        request.is_some_and(|request| request.used() == entry.amount)
    };
    let invented = found.ledger.iter().filter(|entry| !is_asked(entry));
    Verdict {
        invariant: INVENTED,
        checked: found.ledger.len(),
        violations: invented
            .map(|entry| format!("{} units of {}", entry.amount, entry.request))
            .collect(),
    }
}

/// Of a buffered metric the ledger has sums. What was answered is in them, but for what died with a replica, which its
/// slices keep counted; and they have no more than what all attempts asked for together.
fn sums(log: &Log, found: &Found) -> Verdict {
    let ledger: u64 = found.ledger.iter().map(|entry| entry.amount).sum();
    let answered: u64 = (log.requests.iter())
        .filter(|request| request.allowed_at().is_some())
        .map(|request| request.amount)
        .sum();
    let attempted: u64 = (log.requests.iter())
        .map(|request| {
            let attempts = u64::try_from(request.attempts.len()).unwrap_or(u64::MAX);
            request.amount.saturating_mul(attempts)
        })
        .sum();
    let mut violations = Vec::new();
    if answered > ledger + found.stranded {
        violations.push(format!(
            "{answered} units were answered, {ledger} are in the ledger and {} in slices of the dead",
            found.stranded
        ));
    }
    if ledger > attempted {
        violations.push(format!(
            "{ledger} units are in the ledger of {attempted} asked for"
        ));
    }
    Verdict {
        invariant: SUMS,
        checked: log.requests.len(),
        violations,
    }
}

/// Each window has what the ledger has of its time, and no slice is open but those of dead replicas of a buffered
/// metric; nothing is outside of every window.
fn windows(log: &Log, found: &Found) -> Verdict {
    let mut violations = Vec::new();
    for row in &found.windows {
        let counted = (row.charged + row.overrun).checked_sub(row.returned);
        let is_right = if log.buffered {
            // What the slices of the dead were charged is in the ledger, and in their caps.
            counted.is_some_and(|counted| {
                counted <= row.ledger && counted + row.open_cap == row.ledger + found.stranded
            })
        } else {
            counted == Some(row.ledger) && row.open_cap == 0
        };
        if !is_right || row.held != 0 || row.used != row.ledger {
            violations.push(format!("{row:?}, with {} units stranded", found.stranded));
        }
    }
    let hours = found.windows.iter().filter(|row| row.period == "hour");
    let in_hours: u64 = hours.map(|row| row.ledger).sum();
    let all: u64 = found.ledger.iter().map(|entry| entry.amount).sum();
    if in_hours != all {
        violations.push(format!(
            "{in_hours} units are in some hour's time of {all} in the ledger"
        ));
    }
    Verdict {
        invariant: WINDOWS,
        checked: found.windows.len(),
        violations,
    }
}

/// Every replica says of the hour that runs what the ledger says, and nothing is held.
/// What the slices of the dead keep is not used while they are open: it is only out of reach.
fn standing(found: &Found) -> Verdict {
    let wrong: BTreeSet<String> = (found.standing.iter())
        .filter(|(used, held)| (*used, *held) != (found.used_now, 0))
        .map(|(used, held)| {
            format!(
                "used {used}, held {held}; the ledger has {}, and {} are stranded",
                found.used_now, found.stranded
            )
        })
        .collect();
    Verdict {
        invariant: STANDING,
        checked: found.standing.len(),
        violations: wrong.into_iter().collect(),
    }
}

/// What the ledger does not have can be consumed, to the last unit, and no more; only what the slices of dead replicas
/// of a buffered metric keep cannot.
fn stranded(found: &Found) -> Verdict {
    let expected = found.limit.saturating_sub(found.used_now + found.stranded);
    let mut violations = Vec::new();
    if found.rest != expected {
        violations.push(format!(
            "{} could be consumed of {expected} that the limit of {} leaves beside {} used and {} stranded",
            found.rest, found.limit, found.used_now, found.stranded
        ));
    }
    if found.stranded > found.stranded_max {
        violations.push(format!(
            "{} units are stranded; replicas that were killed may strand {}",
            found.stranded, found.stranded_max
        ));
    }
    Verdict {
        invariant: STRANDED,
        checked: usize::try_from(found.limit).unwrap_or(usize::MAX),
        violations,
    }
}

fn overdue(found: &Found) -> Verdict {
    let overdue = (found.overdue_holds > 0).then(|| format!("{} holds are overdue", found.overdue_holds));
    Verdict {
        invariant: OVERDUE,
        checked: usize::try_from(found.holds).unwrap_or(usize::MAX),
        violations: overdue.into_iter().collect(),
    }
}

fn settled(found: &Found) -> Verdict {
    let late = found.settled.is_none_or(|settled| settled > SETTLES_WITHIN);
    Verdict {
        invariant: SETTLED,
        checked: 1,
        violations: late.then(|| "it did not settle".to_owned()).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests;
