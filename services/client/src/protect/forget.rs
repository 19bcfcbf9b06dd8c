//! Questions whose answers nobody waits for: what they got is given back.

use std::time::Duration;

use octroi_proto::quota::v1::ReserveQuotaRequest;
use rand::Rng as _;
use tokio::{runtime::Handle, time::Instant};

use super::{Quota, admit::is_away, ask::Ask, permit::give_back, settle::is_final};

/// How often it is tried to give back what nobody waits for, at the least; twice as seldom at the most.
const FORGET_EVERY: Duration = Duration::from_secs(1);
/// Of how many questions at once it is found out what became of them; beyond that, what they got expires.
pub(super) const FORGETTING_MAX: usize = 256;

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
        let tasks = self.0.tasks.clone();
        let forget = async move {
            let _one = one;
            let until = Instant::now() + ask.rule.ttl;
            while Instant::now() < until {
                if quota.0.breaker.lets_through() {
                    match quota.0.client.clone().reserve_quota(ask.to_reserve()).await {
                        Ok(answer) => {
                            quota.0.breaker.answered();
                            let hold = answer.into_inner().hold_id;
                            if !hold.is_empty() {
                                drop(give_back(quota.clone(), ask.account, hold));
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
        };
        tasks.spawn_on(forget, &runtime);
    }
}

/// Those who were disappointed together do not come back together.
fn jitter() -> Duration {
    let most_ms = u64::try_from(FORGET_EVERY.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(rand::rng().random_range(0..most_ms))
}
