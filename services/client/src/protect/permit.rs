//! What a request was allowed, until it is known what became of it.

use std::{fmt, pin::pin, time::Duration};

use http::{Extensions, HeaderMap};
use octroi_proto::quota::v1::{
    CheckItem, CheckQuotaResponse, CommitHoldRequest, ReleaseHoldRequest, RenewHoldRequest,
};
use tokio::{
    runtime::Handle,
    task::{AbortHandle, JoinHandle},
    time::Instant,
};

use super::{
    Quota,
    ask::Ask,
    journal::{Entry, Record, Room},
    meter::Meter,
    rate_limit::rate_limit,
    rule::Rule,
    settle::is_final,
};
use crate::Refusal as _;

/// How long a renewal that failed waits for the next, at the most.
const RENEW_AGAIN: Duration = Duration::from_secs(1);

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
    /// Since when what is held lives.
    since: Instant,
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
    fn new(quota: Quota, meter: Option<Meter>, state: State, decision: Option<CheckQuotaResponse>) -> Self {
        Self {
            quota,
            state,
            meter,
            decision,
            since: Instant::now(),
            renewing: None,
        }
    }

    /// Nothing is left to do.
    pub(super) fn closed(quota: Quota, rule: &Rule, decision: Option<CheckQuotaResponse>) -> Self {
        Self::new(quota, Meter::of(rule), State::Closed, decision)
    }

    /// Units are held by `hold`.
    pub(super) fn held(quota: Quota, ask: Ask, hold: String, decision: CheckQuotaResponse) -> Self {
        let meter = Meter::of(&ask.rule);
        Self::new(quota, meter, State::Held { ask, hold }, Some(decision))
    }

    /// Nobody could be asked.
    pub(super) fn owed(quota: Quota, ask: Ask, room: Room) -> Self {
        let meter = Meter::of(&ask.rule);
        Self::new(quota, meter, State::Owed { ask, room }, None)
    }

    /// Gives the handler what it needs.
    pub(super) fn tell_handler(&self, extensions: &mut Extensions) {
        if let Some(meter) = &self.meter {
            extensions.insert(meter.clone());
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
        let Some(renewal) = self.renewal() else {
            return serve.await;
        };
        let mut serve = pin!(serve);
        tokio::select! {
            biased;
            output = &mut serve => return output,
            () = tokio::time::sleep_until(renewal) => self.renew(),
        }
        serve.await
    }

    /// When what is held is to be renewed first; none where nothing is, or it is renewed already.
    fn renewal(&self) -> Option<Instant> {
        match &self.state {
            State::Held { ask, .. } if self.renewing.is_none() => Some(self.since + ask.rule.ttl / 2),
            _ => None,
        }
    }

    /// Renews what is held when half of its time has passed, until it is committed or given back.
    pub(super) fn renew(&mut self) {
        let (Some(first), State::Held { ask, hold }) = (self.renewal(), &self.state) else {
            return;
        };
        let request = RenewHoldRequest {
            account_id: ask.account.clone(),
            hold_id: hold.clone(),
            ttl: prost_types::Duration::try_from(ask.rule.ttl).ok(),
        };
        let renewing = tokio::spawn(renew(self.quota.clone(), request, first, ask.rule.ttl));
        self.renewing = Some(renewing.abort_handle());
    }

    /// Frees what is held, because nothing was used, and waits until it is free: whoever asks after the answer has it. It waits
    /// as long as for a decision, and then it is freed while nobody waits.
    pub(super) async fn release(mut self) {
        if let Some(giving_back) = self.give_back() {
            drop(tokio::time::timeout(self.quota.0.deadline, giving_back).await);
        }
    }

    /// As [`Permit::release`], in a task of its own.
    pub(super) fn release_soon(&mut self) -> Option<JoinHandle<()>> {
        let (giving_back, deadline) = (self.give_back()?, self.quota.0.deadline);
        Some(tokio::spawn(async move {
            drop(tokio::time::timeout(deadline, giving_back).await)
        }))
    }

    /// Frees what is held, because nothing was used, in a task of its own.
    fn give_back(&mut self) -> Option<JoinHandle<()>> {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
        }
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Held { ask, hold } => give_back(self.quota.clone(), ask.account, hold),
            State::Closed | State::Owed { .. } => None,
        }
    }

    /// Records that as much was used as was asked for, but for what `used` says, in a task of its own: also where nobody waits
    /// for it any more. It ends once the ledger has it, or the journal where the fleet cannot be told. None where there is
    /// nothing to record.
    pub(super) fn commit(&mut self, used: Vec<CheckItem>) -> Option<JoinHandle<()>> {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
        }
        let (entry, room) = match std::mem::replace(&mut self.state, State::Closed) {
            State::Closed => return None,
            // Under its name it counts once, whatever it was held for.
            State::Held { ask, hold } if ask.has_name() => {
                let record = ask.to_record(used, now());
                if record.used.is_none() {
                    return give_back(self.quota.clone(), ask.account, hold);
                }
                let release = ReleaseHoldRequest {
                    account_id: ask.account,
                    hold_id: hold,
                };
                let record = Record {
                    release: Some(release),
                    ..record
                };
                (Entry::Record(record), None)
            }
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
                record.used.as_ref()?;
                (Entry::Record(record), Some(room))
            }
        };
        let quota = self.quota.clone();
        let tasks = self.quota.0.tasks.clone();
        Some(tasks.spawn(async move { quota.settle_or_keep(entry, room).await }))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        drop(self.give_back());
    }
}

/// Renews a hold from an instant on. What has ended is not renewed; what is used then is recorded late, as an overrun where
/// there is no room.
async fn renew(quota: Quota, request: RenewHoldRequest, first: Instant, ttl: Duration) {
    let mut next = first;
    loop {
        tokio::time::sleep_until(next).await;
        let begun = Instant::now();
        next = match quota.0.client.clone().renew_hold(request.clone()).await {
            Ok(_) => begun + ttl / 2,
            Err(status) => {
                tracing::warn!(error = %status, reason = ?status.reason(), "a hold is not renewed");
                if is_final(&status) {
                    return;
                }
                begun + (ttl / 8).min(RENEW_AGAIN)
            }
        };
    }
}

/// Frees what is held, in a task of its own. Where that fails it expires.
pub(super) fn give_back(quota: Quota, account: String, hold: String) -> Option<JoinHandle<()>> {
    // A program that ends without a runtime leaves it to expire.
    let runtime = Handle::try_current().ok()?;
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
    Some(tasks.spawn_on(give_back, &runtime))
}

/// When something is used: what is recorded later must say.
#[expect(
    clippy::disallowed_methods,
    reason = "this crate is for programs that have no clock of the fleet's"
)]
pub(super) fn now() -> prost_types::Timestamp {
    std::time::SystemTime::now().into()
}
