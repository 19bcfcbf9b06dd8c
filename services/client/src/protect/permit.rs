//! What a request was allowed, until it is known what became of it.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Extensions, HeaderMap};
use octroi_proto::quota::v1::{
    CheckItem, CheckQuotaResponse, CommitHoldRequest, ReleaseHoldRequest, RenewHoldRequest,
    ReserveQuotaRequest,
};
use rand::Rng as _;
use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
    time::Instant,
};

use super::{
    Quota,
    admit::is_away,
    ask::Ask,
    journal::{Entry, Room},
    rate_limit::rate_limit,
    rule::Measure,
    settle::is_final,
};
use crate::Refusal as _;

/// How often it is tried to give back what nobody waits for, at the least; twice as seldom at the most.
const FORGET_EVERY: Duration = Duration::from_secs(1);
/// Of how many questions at once it is found out what became of them; beyond that, what they got expires.
pub(super) const FORGETTING_MAX: usize = 256;

/// The request was counted before: it has come again with the same id, which the layer takes from it (`request_id_by`). It
/// is in the request's extensions, so that the handler can answer as it did then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated;

/// What a handler tells how much was used; it is in the request's extensions where the layer has `amount_by_meter`.
///
/// Cloning shares it, so that it can go on into the body of a response.
#[derive(Clone, Debug)]
pub struct Meter(Arc<[(String, AtomicU64)]>);

impl Meter {
    fn of(ask: &Ask) -> Option<Self> {
        let metered = ask
            .rule
            .items
            .iter()
            .filter(|item| matches!(item.measure, Measure::Meter));
        let meter: Arc<[_]> = metered
            .map(|item| (item.metric.clone(), AtomicU64::new(0)))
            .collect();
        (!meter.is_empty()).then_some(Self(meter))
    }

    /// So much more was used of the metric, or of the first one that is metered.
    pub fn add(&self, amount: u64) {
        if let Some((_, counted)) = self.0.first() {
            counted.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// So much more was used of `metric`; nothing where that is not metered here.
    pub fn add_to(&self, metric: &str, amount: u64) {
        if let Some((_, counted)) = self.0.iter().find(|(name, _)| name == metric) {
            counted.fetch_add(amount, Ordering::Relaxed);
        }
    }

    /// What was used of each metric by now.
    pub(super) fn read(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0
            .iter()
            .map(|(metric, counted)| (metric.as_str(), counted.load(Ordering::Relaxed)))
    }
}

/// What is to be done once it is known what became of the request.
enum State {
    /// Nothing.
    Closed,
    /// Units are held.
    Held { ask: Ask, hold: String },
    /// Nobody could be asked, and the limits go on without: what was used is recorded.
    Owed { ask: Ask, room: Room },
}

/// What a request was allowed. Dropping it gives back what it holds; committing it records what was used.
#[must_use = "dropping a permit gives back what it holds"]
pub(super) struct Permit {
    quota: Quota,
    state: State,
    meter: Option<Meter>,
    decision: Option<CheckQuotaResponse>,
    counted_before: bool,
    renewing: Option<AbortHandle>,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl Permit {
    fn new(quota: Quota, state: State, decision: Option<CheckQuotaResponse>) -> Self {
        let meter = match &state {
            State::Closed => None,
            State::Held { ask, .. } | State::Owed { ask, .. } => Meter::of(ask),
        };
        Self {
            quota,
            state,
            meter,
            decision,
            counted_before: false,
            renewing: None,
        }
    }

    /// Nothing is left to do.
    pub(super) fn closed(quota: Quota, decision: Option<CheckQuotaResponse>) -> Self {
        Self::new(quota, State::Closed, decision)
    }

    /// Units are held by `hold`.
    pub(super) fn held(quota: Quota, ask: Ask, hold: String, decision: CheckQuotaResponse) -> Self {
        Self::new(quota, State::Held { ask, hold }, Some(decision))
    }

    /// Nobody could be asked.
    pub(super) fn owed(quota: Quota, ask: Ask, room: Room) -> Self {
        Self::new(quota, State::Owed { ask, room }, None)
    }

    /// It was counted when it came before.
    pub(super) fn counted_before(quota: Quota, decision: CheckQuotaResponse) -> Self {
        let mut permit = Self::closed(quota, Some(decision));
        permit.counted_before = true;
        permit
    }

    /// Gives the handler what it needs to know.
    pub(super) fn tell_handler(&self, extensions: &mut Extensions) {
        if let Some(meter) = &self.meter {
            extensions.insert(meter.clone());
        }
        if self.counted_before {
            extensions.insert(Repeated);
        }
    }

    /// Whether it matters what becomes of the request.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    pub(super) fn meter(&self) -> Option<&Meter> {
        self.meter.as_ref()
    }

    /// Says in an answer what is left.
    pub(super) fn tell(&self, headers: &mut HeaderMap) {
        for (name, value) in self.decision.iter().flat_map(rate_limit) {
            headers.insert(name, value);
        }
    }

    /// Waits for `serve`, and lets what is held live as long.
    pub(super) async fn renewed_while<F: Future>(&mut self, serve: F) -> F::Output {
        let Some(half_life) = self.half_life() else {
            return serve.await;
        };
        let mut serve = pin!(serve);
        tokio::select! {
            biased;
            output = &mut serve => return output,
            () = tokio::time::sleep(half_life) => self.renew(Duration::ZERO),
        }
        serve.await
    }

    /// After how long what is held is to be renewed; none where nothing is.
    pub(super) fn half_life(&self) -> Option<Duration> {
        match &self.state {
            State::Held { ask, .. } if self.renewing.is_none() => Some(ask.rule.ttl / 2),
            _ => None,
        }
    }

    /// Renews what is held, first after a while, until it is committed or given back.
    pub(super) fn renew(&mut self, first_after: Duration) {
        let State::Held { ask, hold } = &self.state else {
            return;
        };
        let request = RenewHoldRequest {
            account_id: ask.account.clone(),
            hold_id: hold.clone(),
            ttl: prost_types::Duration::try_from(ask.rule.ttl).ok(),
        };
        let (quota, half_life) = (self.quota.clone(), ask.rule.ttl / 2);
        let renewing = tokio::spawn(async move {
            tokio::time::sleep(first_after).await;
            loop {
                let begun = Instant::now();
                if let Err(status) = quota.0.client.clone().renew_hold(request.clone()).await {
                    // What has expired meanwhile is recorded late, as an overrun where there is no room.
                    tracing::warn!(error = %status, reason = ?status.reason(), "a hold is not renewed");
                }
                tokio::time::sleep_until(begun + half_life).await;
            }
        });
        self.renewing = Some(renewing.abort_handle());
    }

    /// Frees what is held: nothing was used.
    pub(super) fn give_back(&mut self) {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
        }
        if let State::Held { ask, hold } = std::mem::replace(&mut self.state, State::Closed) {
            give_back(self.quota.clone(), ask.account, hold);
        }
    }

    /// Records that as much was used as was asked for, but for what `used` says. Answers once the ledger has it, or the
    /// journal where the fleet cannot be told.
    pub(super) async fn commit_as(mut self, used: Vec<CheckItem>) {
        let Some(committing) = self.commit(used) else {
            return;
        };
        // Also where nobody waits for it any more.
        if let Err(error) = committing.await {
            tracing::error!(error = %error, "what was used is not recorded");
        }
    }

    /// The same in a task of its own; none where there is nothing to record.
    pub(super) fn commit(&mut self, used: Vec<CheckItem>) -> Option<JoinHandle<()>> {
        let (entry, room) = match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => return None,
            State::Held { ask, hold } => {
                let held = ask.items();
                let is_held = |item: &CheckItem| held.iter().any(|held| held.metric == item.metric);
                let commit = Entry::Commit(CommitHoldRequest {
                    account_id: ask.account,
                    hold_id: hold,
                    items: used.into_iter().filter(is_held).collect(),
                });
                (commit, None)
            }
            State::Owed { ask, room } => {
                let record = ask.to_record(used, now());
                if record.items.is_empty() {
                    return None;
                }
                (Entry::Record(record), Some(room))
            }
        };
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
        }
        let quota = self.quota.clone();
        let tasks = self.quota.0.tasks.clone();
        Some(tasks.spawn(async move { quota.settle_or_keep(entry, room).await }))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Frees what is held, in a task of its own. Where that fails it expires.
fn give_back(quota: Quota, account: String, hold: String) {
    // A program that ends without a runtime leaves it to expire.
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    let tasks = quota.0.tasks.clone();
    let give_back = async move {
        let request = ReleaseHoldRequest {
            account_id: account,
            hold_id: hold,
        };
        if let Err(status) = quota.0.client.clone().release_hold(request).await {
            tracing::warn!(error = %status, reason = ?status.reason(), "a hold is not released, and expires");
        }
    };
    tasks.spawn_on(give_back, &runtime);
}

/// A question that is asked. Whoever goes away before it is answered may have got a hold of which nobody knows: the same
/// question again has the same answer, so it is asked again and given back.
pub(super) struct Asking {
    quota: Quota,
    ask: Option<Ask>,
}

impl Asking {
    pub(super) fn new(quota: Quota, ask: Ask) -> Self {
        Self {
            quota,
            ask: Some(ask),
        }
    }

    pub(super) fn request(&self) -> ReserveQuotaRequest {
        self.ask.as_ref().map(Ask::to_reserve).unwrap_or_default()
    }

    /// It is answered.
    pub(super) fn end(mut self) -> Option<Ask> {
        self.ask.take()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(ask) = self.ask.take() {
            self.quota.forget(ask);
        }
    }
}

impl Quota {
    /// Gives back what a question got that nobody waits for, once it is known whether it got anything. Where that is not
    /// known in time, or too many are asked about, it expires.
    pub(super) fn forget(&self, ask: Ask) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let Ok(one) = self.0.forgetting.clone().try_acquire_owned() else {
            return;
        };
        let quota = self.clone();
        runtime.spawn(async move {
            let _one = one;
            let until = Instant::now() + ask.rule.ttl;
            while Instant::now() < until {
                if quota.0.breaker.lets_through() {
                    match quota.0.client.clone().reserve_quota(ask.to_reserve()).await {
                        Ok(answer) => {
                            quota.0.breaker.answered();
                            let hold = answer.into_inner().hold_id;
                            if !hold.is_empty() {
                                give_back(quota.clone(), ask.account, hold);
                            }
                            return;
                        }
                        // It is refused, so it got nothing.
                        Err(status) if is_final(&status) => return,
                        Err(status) if is_away(&status) => quota.0.breaker.failed(),
                        Err(_) => quota.0.breaker.answered(),
                    }
                }
                tokio::time::sleep(FORGET_EVERY + jitter()).await;
            }
        });
    }
}

/// Those who were disappointed together do not come back together.
fn jitter() -> Duration {
    let most_ms = u64::try_from(FORGET_EVERY.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rand::rng().random_range(0..most_ms))
}

/// When something is used: what is recorded later must say.
#[expect(
    clippy::disallowed_methods,
    reason = "this crate is for programs that have no clock of the fleet's"
)]
pub(super) fn now() -> prost_types::Timestamp {
    std::time::SystemTime::now().into()
}
