//! Carves slices. Asks that come together share one transaction, over many accounts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, SliceId, Units};
use octroi_kit::{
    db::{DatabaseError, Db, Scope, again_if_busy},
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
    store::{self, AccountWindow, Change, NewSlice},
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
    pub(super) async fn carve(
        &self,
        asks: Vec<Ask>,
        all_or_nothing: bool,
    ) -> Result<Vec<Answer>, DatabaseError> {
        let call = Call { asks, all_or_nothing };
        self.0.ask(call).await?
    }
}

async fn carve_together(db: Db, calls: Vec<Call>) -> Vec<Result<Vec<Answer>, DatabaseError>> {
    let calls = Arc::new(calls);
    match again_if_busy(|| carve(&db, &calls)).await {
        Ok(carved) => carved.into_iter().map(Ok).collect(),
        Err(error) => {
            tracing::warn!(error = %error, error.source = ?std::error::Error::source(&error), "slices cannot be carved");
            calls.iter().map(|_| Err(error.shared())).collect()
        }
    }
}

async fn carve(db: &Db, calls: &Arc<Vec<Call>>) -> Result<Vec<Vec<Answer>>, DatabaseError> {
    let (calls, now) = (calls.clone(), db.clock().now());
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move { carve_in(connection, &calls, now).await })
    })
    .await
}

/// One transaction: no limit of these accounts changes meanwhile, and every window is locked before its room is
/// looked at.
async fn carve_in(
    connection: &mut PgConnection,
    calls: &[Call],
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
    let granted = store::lock_windows(connection, &windows).await?;
    let plan = plan(calls, granted, current, now);

    let inserted: HashSet<SliceId> = if plan.slices.is_empty() {
        HashSet::new()
    } else {
        store::insert_slices(connection, &plan.slices, now).await?
    };
    let mut changes: BTreeMap<AccountWindow, Change> = BTreeMap::new();
    let carved = plan.slices.iter().map(|new| &new.slice);
    for slice in carved.filter(|slice| inserted.contains(&slice.id)) {
        for key in &slice.windows {
            let change = changes.entry((slice.account.clone(), key.clone())).or_default();
            change.open_cap += slice.cap.as_i64();
            change.held += if slice.kind == SliceKind::Hold {
                slice.cap.as_i64()
            } else {
                0
            };
        }
    }
    if !changes.is_empty() {
        store::change_windows(connection, &changes).await?;
    }
    Ok(plan.answers(calls, &inserted))
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
    current: impl Fn(&Ask) -> Revision,
    now: Timestamp,
) -> Plan {
    let mut slices = Vec::new();
    let mut carved = Vec::with_capacity(calls.len());
    for call in calls {
        let before = call.all_or_nothing.then(|| granted.clone());
        let slices_before = slices.len();
        let mut outcomes: Vec<Carved> = (call.asks.iter())
            .map(|ask| {
                let revision = current(ask);
                if revision != ask.revision {
                    return Carved::Stale(revision);
                }
                let outcome = cut(ask, &mut granted, now);
                if let Carved::Slice(slice) = &outcome {
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
        if let Some(before) = before
            && !whole
        {
            granted = before;
            slices.truncate(slices_before);
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
    fn answers(self, calls: &[Call], inserted: &HashSet<SliceId>) -> Vec<Vec<Answer>> {
        let granted = self.granted;
        let answer = |(ask, carved): (&Ask, Carved)| {
            let seen = ask.windows.iter().map(|(key, _)| {
                let window = (ask.account.clone(), key.clone());
                (key.clone(), granted.get(&window).copied().unwrap_or_default())
            });
            let carved = match carved {
                Carved::Slice(slice) if !inserted.contains(&slice.id) => Carved::Exists,
                other => other,
            };
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
