//! Carves slices. Asks that come together share one transaction, over many accounts.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, SliceId, Units};
use octroi_kit::{
    db::{DatabaseError, Db, Scope},
    gather::{Bounds, Gather},
};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::{
    domain::{
        carve::{self, Granted},
        holding::Revision,
        slice::{Slice, SliceKind, common, terms},
        window::WindowKey,
    },
    error::Error,
    store::{self, AccountWindow, NewSlice},
};

/// How long a slice lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terms {
    /// As long as its windows, or until something else ends.
    Natural {
        /// What ends before, where something does.
        until: Option<Timestamp>,
    },
    /// As long as a hold.
    Given {
        /// Until when it may be spent.
        spend_until: Timestamp,
        /// From when on nothing is charged to it.
        hard_end_at: Timestamp,
    },
}

/// One slice that is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Of whose limit.
    pub account: AccountId,
    /// Of which metric.
    pub metric: MetricSlug,
    /// Who will spend it.
    pub kind: SliceKind,
    /// Whether only its owner settles it, because decisions that it pays for may be answered before the ledger has them.
    pub kept: bool,
    /// How much it must have.
    pub need: Units,
    /// How much it may have.
    pub want: Units,
    /// The windows that must have room, with the most that each may grant.
    pub windows: Vec<(WindowKey, Option<Units>)>,
    /// The state of the limits that the windows and the most were read from.
    pub revision: Revision,
    /// How long it lives.
    pub terms: Terms,
    /// Its id.
    pub id: SliceId,
    /// Whose it is: a process, or a hold.
    pub owner: Uuid,
    /// What the request of a hold asked for.
    pub content_hash: Option<[u8; 32]>,
}

/// What became of an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carved {
    /// The slice.
    Slice(Slice),
    /// A window has no room; this is what they have granted.
    Full(Vec<(WindowKey, Granted)>),
    /// The limits have changed since they were read, and are of this revision now.
    Stale(Revision),
    /// A slice of this id was carved before.
    Exists,
    /// There was room, but not for the others of the same call.
    Withheld,
}

/// What became of an ask, with what its windows have granted now.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) carved: Carved,
    pub(super) granted: Vec<(WindowKey, Granted)>,
}

/// Asks that belong together.
#[derive(Debug)]
struct Call {
    asks: Vec<Ask>,
    /// Either every one of them is carved or none.
    all_or_nothing: bool,
}

/// Calls that share a transaction, and transactions that run at the same time.
const BOUNDS: Bounds = Bounds {
    batches: 2,
    jobs: 500,
    waiting: 20_000,
};

/// Carves slices.
pub(super) struct Carver(Gather<Call, Result<Vec<Answer>, DatabaseError>>);

impl Carver {
    pub(super) fn start(db: &Db) -> Self {
        let db = db.clone();
        Self(Gather::start(BOUNDS, move |calls| {
            carve_together(db.clone(), calls)
        }))
    }

    /// Carves what is asked for, and answers an ask each, in their order.
    ///
    /// # Errors
    /// [`Error`] where nothing was carved, or it is not known.
    pub(super) async fn carve(&self, asks: Vec<Ask>, all_or_nothing: bool) -> Result<Vec<Answer>, Error> {
        let call = Call { asks, all_or_nothing };
        Ok(self.0.ask(call).await??)
    }
}

/// How windows that nobody has written down yet are dealt with.
#[derive(Clone, Copy, Debug)]
enum Unwritten {
    /// They are taken for empty, and written with what they grant. Where others write them meanwhile, nothing is carved.
    Empty,
    /// They are written first, so that they can be locked: a statement more.
    Locked,
}

async fn carve_together(db: Db, calls: Vec<Call>) -> Vec<Result<Vec<Answer>, DatabaseError>> {
    let calls = Arc::new(calls);
    let mut carved = carve(&db, &calls, Unwritten::Empty).await;
    if let Err(DatabaseError::Busy(_) | DatabaseError::Corrupt { .. }) = carved {
        carved = carve(&db, &calls, Unwritten::Locked).await;
    }
    match carved {
        Ok(carved) => carved.into_iter().map(Ok).collect(),
        Err(error) => {
            tracing::warn!(error = %error, error.source = ?std::error::Error::source(&error), "slices cannot be carved");
            calls.iter().map(|_| Err(error.shared())).collect()
        }
    }
}

async fn carve(
    db: &Db,
    calls: &Arc<Vec<Call>>,
    unwritten: Unwritten,
) -> Result<Vec<Vec<Answer>>, DatabaseError> {
    let (calls, now) = (calls.clone(), db.clock().now());
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move { carve_in(connection, &calls, unwritten, now).await })
    })
    .await
}

/// One transaction: no limit of these accounts changes meanwhile, and every window that is written down is locked before
/// its room is looked at.
async fn carve_in(
    connection: &mut PgConnection,
    calls: &[Call],
    unwritten: Unwritten,
    now: Timestamp,
) -> Result<Vec<Vec<Answer>>, DatabaseError> {
    let asks = || calls.iter().flat_map(|call| &call.asks);
    store::share_gates(connection, asks().map(|ask| &ask.account)).await?;
    let accounts: BTreeSet<&AccountId> = asks().map(|ask| &ask.account).collect();
    let accounts: Vec<&AccountId> = accounts.into_iter().collect();
    let revisions = store::list_revisions(connection, &accounts).await?;
    let current = |ask: &Ask| store::revision_of(&ask.account, &revisions);

    let fresh = asks().filter(|ask| current(ask) == ask.revision);
    let windows: BTreeSet<AccountWindow> = fresh
        .flat_map(|ask| {
            ask.windows
                .iter()
                .map(|(key, _)| (ask.account.clone(), key.clone()))
        })
        .collect();
    let granted = match unwritten {
        Unwritten::Empty => store::lock_written_windows(connection, &windows).await?,
        Unwritten::Locked => store::lock_windows(connection, &windows).await?,
    };
    // Only the slices of holds have ids that may come again.
    let holds = asks().filter(|ask| ask.kind == SliceKind::Hold);
    let holds: Vec<SliceId> = holds.map(|ask| ask.id).collect();
    let known = if holds.is_empty() {
        HashSet::new()
    } else {
        store::list_written(connection, &holds).await?
    };
    let plan = plan(calls, granted, known, current, now);
    if !plan.slices.is_empty() {
        let written = store::write_carved(connection, &plan.slices, now).await?;
        // What was locked cannot have changed.
        let as_planned = written.is_some_and(|windows| {
            (windows.iter()).all(|(window, granted)| plan.granted.get(window) == Some(granted))
        });
        if !as_planned {
            let others = "others carved from windows that were not written down yet, or for the same hold";
            return Err(DatabaseError::Busy(sqlx::Error::Protocol(others.to_owned())));
        }
    }
    Ok(plan.answers(calls))
}

/// What is carved of what.
struct Plan {
    slices: Vec<NewSlice>,
    carved: Vec<Vec<Carved>>,
    granted: HashMap<AccountWindow, Granted>,
}

/// Goes through the calls in their order; each sees what those before it were given.
fn plan(
    calls: &[Call],
    mut granted: HashMap<AccountWindow, Granted>,
    mut known: HashSet<SliceId>,
    current: impl Fn(&Ask) -> Revision,
    now: Timestamp,
) -> Plan {
    let mut slices: Vec<NewSlice> = Vec::new();
    let mut carved = Vec::with_capacity(calls.len());
    for call in calls {
        let mut before: Vec<(AccountWindow, Option<Granted>)> = Vec::new();
        let slices_before = slices.len();
        let mut outcomes: Vec<Carved> = (call.asks.iter())
            .map(|ask| {
                let revision = current(ask);
                if revision != ask.revision {
                    return Carved::Stale(revision);
                }
                if known.contains(&ask.id) {
                    return Carved::Exists;
                }
                if call.all_or_nothing {
                    before.extend(ask.windows.iter().map(|(key, _)| {
                        let window = (ask.account.clone(), key.clone());
                        let had = granted.get(&window).copied();
                        (window, had)
                    }));
                }
                let outcome = cut(ask, &mut granted, now);
                if let Carved::Slice(slice) = &outcome {
                    known.insert(slice.id);
                    slices.push(NewSlice {
                        slice: slice.clone(),
                        owner: ask.owner,
                        content_hash: ask.content_hash,
                    });
                }
                outcome
            })
            .collect();
        let whole = outcomes.iter().all(|outcome| matches!(outcome, Carved::Slice(_)));
        if call.all_or_nothing && !whole {
            for (window, had) in before.into_iter().rev() {
                match had {
                    Some(had) => granted.insert(window, had),
                    None => granted.remove(&window),
                };
            }
            for withheld in slices.drain(slices_before..) {
                known.remove(&withheld.slice.id);
            }
            for outcome in &mut outcomes {
                if matches!(outcome, Carved::Slice(_)) {
                    *outcome = Carved::Withheld;
                }
            }
        }
        carved.push(outcomes);
    }
    Plan {
        slices,
        carved,
        granted,
    }
}

fn cut(ask: &Ask, granted: &mut HashMap<AccountWindow, Granted>, now: Timestamp) -> Carved {
    let of = |key: &WindowKey| (ask.account.clone(), key.clone());
    let have = |granted: &HashMap<AccountWindow, Granted>, key: &WindowKey| {
        granted.get(&of(key)).copied().unwrap_or_default()
    };
    let rooms: Vec<Units> = (ask.windows.iter())
        .map(|(key, max)| have(granted, key).room(*max))
        .collect();
    let Some(cap) = carve::cap(rooms, ask.need, ask.want) else {
        let full = ask
            .windows
            .iter()
            .map(|(key, _)| (key.clone(), have(granted, key)));
        return Carved::Full(full.collect());
    };
    for (key, _) in &ask.windows {
        let window = granted.entry(of(key)).or_default();
        window.open_cap = window.open_cap.checked_add(cap).unwrap_or(Units::MAX);
        if ask.kind == SliceKind::Hold {
            window.held = window.held.checked_add(cap).unwrap_or(Units::MAX);
        }
    }
    let windows: Vec<WindowKey> = ask.windows.iter().map(|(key, _)| key.clone()).collect();
    let covers = common(windows.iter());
    let (spend_until, hard_end_at) = match ask.terms {
        Terms::Natural { until } => {
            let (spend_until, hard_end_at) = terms(covers, now);
            (
                until.map_or(spend_until, |until| until.min(spend_until)),
                hard_end_at,
            )
        }
        Terms::Given {
            spend_until,
            hard_end_at,
        } => (spend_until, hard_end_at),
    };
    Carved::Slice(Slice {
        id: ask.id,
        account: ask.account.clone(),
        metric: ask.metric.clone(),
        kind: ask.kind,
        kept: ask.kept,
        cap,
        windows,
        covers,
        spend_until,
        hard_end_at,
    })
}

impl Plan {
    fn answers(self, calls: &[Call]) -> Vec<Vec<Answer>> {
        let granted = self.granted;
        let answer = |(ask, carved): (&Ask, Carved)| {
            let seen = ask.windows.iter().map(|(key, _)| {
                let window = (ask.account.clone(), key.clone());
                (key.clone(), granted.get(&window).copied().unwrap_or_default())
            });
            Answer {
                carved,
                granted: seen.collect(),
            }
        };
        (calls.iter().zip(self.carved))
            .map(|(call, carved)| call.asks.iter().zip(carved).map(answer).collect())
            .collect()
    }
}

#[cfg(test)]
mod tests;
