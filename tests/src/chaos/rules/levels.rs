//! How much was allowed and not released at every instant, as somebody sees it who is told the answers.
//!
//! Units count from when the answer came, and no longer once it was asked to release them, or their hold could have
//! expired: what is counted here was counted by the fleet at that instant, so it must be within the limit. Which limit:
//! any that can have been in force between when a request was sent and when it was answered. The fleet decided in
//! between, and whatever it allowed after that was allowed under a limit of that time as well.

use std::{collections::HashMap, fmt, time::Duration};

use super::super::oracle::{End, Found, Hold, Kind, Limit, Log, Request};

/// More than the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    request: String,
    at: Duration,
    window: i64,
    level: i128,
    bound: u64,
}

impl Over {
    fn units(&self) -> u64 {
        u64::try_from(self.level - i128::from(self.bound)).unwrap_or(0)
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} at {:?} in the window from {} with {}",
            self.level, self.bound, self.at, self.window, self.request
        )
    }
}

/// A change of how much is allowed.
struct Change<'r> {
    at: Duration,
    /// No earlier than this it was decided.
    since: Duration,
    units: i128,
    request: &'r str,
}

/// The most units above the limit in force that were allowed at any instant.
#[must_use]
pub fn over_admission(log: &Log, found: &Found) -> u64 {
    let (_, over) = over(log, found);
    over.iter().map(Over::units).max().unwrap_or(0)
}

/// How many instants were looked at, and where there was more than the limit.
pub(super) fn over(log: &Log, found: &Found) -> (usize, Vec<Over>) {
    let mut windows: HashMap<i64, Vec<Change<'_>>> = HashMap::new();
    let recorded: HashMap<&str, i64> = (found.ledger.iter())
        .map(|entry| (entry.request.as_str(), entry.window))
        .collect();
    for request in log.requests.iter().filter(|one| one.kind.is_permitted()) {
        // A repeat is told of the hour that runs then; the ledger knows in which the request counts.
        let window = recorded.get(request.id.as_str()).copied().or(request.window);
        if !recorded.contains_key(request.id.as_str()) && is_between_windows(log, request) {
            continue;
        }
        let changes = changes(log, request);
        windows
            .entry(window.unwrap_or_default())
            .or_default()
            .extend(changes);
    }
    let (mut checked, mut over) = (0, Vec::new());
    for (window, mut changes) in windows {
        // What is given back at an instant makes room for what is allowed at the same.
        changes.sort_by_key(|change| (change.at, change.units > 0));
        let mut level = 0;
        for change in changes {
            level += change.units;
            if change.units <= 0 {
                continue;
            }
            checked += 1;
            let bound = bound(&log.limits, change.since, change.at);
            if level > i128::from(bound) {
                over.push(Over {
                    request: change.request.to_owned(),
                    at: change.at,
                    window,
                    level,
                    bound,
                });
            }
        }
    }
    (checked, over)
}

/// The greatest limit that can have been in force between two instants.
fn bound(limits: &[Limit], since: Duration, at: Duration) -> u64 {
    let in_force = limits.iter().enumerate().filter(|(number, limit)| {
        let replaced = limits.get(number + 1).map_or(Duration::MAX, |next| next.holds);
        limit.sent <= at && replaced >= since
    });
    in_force.map(|(_, limit)| limit.amount).max().unwrap_or(0)
}

fn changes<'r>(log: &Log, request: &'r Request) -> Vec<Change<'r>> {
    let Some(allowed) = request.allowed_at() else {
        return Vec::new();
    };
    let change = |at: Duration, since: Duration, units: i128| Change {
        at,
        since,
        units,
        request: &request.id,
    };
    let amount = i128::from(request.amount);
    let mut changes = vec![change(allowed, request.sent(), amount)];
    if let (Kind::Reserve, Some(hold)) = (request.kind, &request.hold) {
        let expires = expires(log, request, hold).max(allowed);
        match &hold.end {
            None => changes.push(change(expires, expires, -amount)),
            Some(end) => {
                let (released_at, kept, extra) = ended(end, expires, request.amount);
                let released_at = released_at.max(allowed);
                changes.push(change(released_at, released_at, i128::from(kept) - amount));
                if extra > 0 {
                    let answered = end.answered.unwrap_or(Duration::MAX);
                    changes.push(change(answered, end.sent, i128::from(extra)));
                }
            }
        }
    }
    changes
}

/// The earliest that a hold can have expired.
fn expires(log: &Log, request: &Request, hold: &Hold) -> Duration {
    let expires = request.sent().saturating_add(hold.ttl);
    let moved = (log.clock_moved.iter())
        .filter(|(_, until)| *until >= request.sent())
        .map(|(from, _)| *from.max(&request.sent()));
    moved.fold(expires, Duration::min)
}

/// Whether it cannot be told in which window a hold counts: of one that was asked for before and after the end of an
/// hour the answer may speak of either.
fn is_between_windows(log: &Log, request: &Request) -> bool {
    let answered = request.allowed_at().unwrap_or(Duration::MAX);
    let moved = |(from, until): &(Duration, Duration)| *from <= answered && *until >= request.sent();
    request.attempts.len() > 1 && log.clock_moved.iter().any(moved)
}

/// When the units of a hold that was ended count no more as they did, how many of them go on to count, and how many
/// others that were found in the limit for it.
fn ended(end: &End, expires: Duration, amount: u64) -> (Duration, u64, u64) {
    let paid = end.used.saturating_sub(end.overrun);
    if end.late {
        (end.sent.min(expires), 0, paid)
    } else if end.used == 0 {
        (end.sent.min(expires), 0, 0)
    } else {
        let kept = paid.min(amount);
        (end.sent, kept, paid - kept)
    }
}
