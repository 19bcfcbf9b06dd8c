//! `CheckQuota`: may this account do this now?

use std::collections::HashMap;

use jiff::Timestamp;
use octroi_core::{AccountId, Aggregation, FeaturePlans, RequestId, UnreachablePolicy, Violations};
use octroi_kit::{
    convert::to_proto_time,
    status::{Upstream, reason_of},
};
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        GetUsageEventRequest, Origin, TrackUsageBatchRequest, UsageEvent, track_usage_result::Outcome,
    },
};
use serde::{Deserialize, Serialize};
use tonic::Code;
use uuid::Uuid;

use super::{AccountLimits, Catalog, Service};
use crate::{
    counters::{Ask, RequestKey, Taken, WindowKey},
    domain::{
        check::{Check, Item, Mode},
        decision::{self, Asked, Decision, Level, decide, deny_for_features},
    },
    error::Error,
};

/// A decision with what it was made of, as it is remembered for repeats.
#[derive(Deserialize, Serialize)]
struct Answer {
    content_hash: [u8; 32],
    decision: Decision,
}

/// What the ledger said of the units that were taken.
enum Recording {
    /// They are there now.
    Recorded,
    /// They were there before: the request is a repeat.
    Repeated,
}

impl Service {
    /// Decides over every limit of every metric named, all or nothing. CONSUME is answered once the ledger
    /// has what was taken.
    ///
    /// # Errors
    /// [`Error`] where it cannot be decided; a denial is none.
    pub async fn check_quota(&self, check: &Check, caller: &str) -> Result<Decision, Error> {
        let now = self.db.clock().now();
        let limits = self.holdings.of(&check.account).await?;
        let catalog = self.holdings.catalog().await?;
        check_metrics(check, &catalog)?;
        let key = match &check.mode {
            Mode::Consume(request) => Some(RequestKey {
                caller: caller.to_owned(),
                request: request.clone(),
            }),
            Mode::Peek => None,
        };
        if let Some(key) = &key
            && let Some(decision) = self.recall(check, key).await?
        {
            return Ok(decision);
        }
        let decision = self.decide(check, &limits, &catalog, key.as_ref(), now).await?;
        if let Some(key) = &key {
            self.remember(check, key, &decision).await;
        }
        Ok(decision)
    }

    async fn decide(
        &self,
        check: &Check,
        limits: &AccountLimits,
        catalog: &Catalog,
        key: Option<&RequestKey>,
        now: Timestamp,
    ) -> Result<Decision, Error> {
        let at = check.event_at.unwrap_or(now);
        let asked = asked(check, limits, at);
        let keys: Vec<WindowKey> = asked
            .iter()
            .map(|one| limits.window_key(&one.effective, at))
            .collect();
        let id = Uuid::new_v4().simple().to_string();
        let missing = missing_features(check, limits, catalog);
        if !missing.is_empty() {
            let levels = self.levels(&check.account, &keys, now).await?;
            return Ok(deny_for_features(id, &asked, &levels, missing));
        }
        let Some(key) = key else {
            let levels = self.levels(&check.account, &keys, now).await?;
            return Ok(decide(id, &asked, &levels, false, now));
        };
        let asks: Vec<Ask> = asked
            .iter()
            .zip(keys)
            .map(|(one, key)| Ask {
                key,
                amount: one.amount,
                max: one.max(),
            })
            .collect();
        match self.take(&check.account, &asks, now).await {
            Ok(Taken::Yes(levels)) => {
                self.record(check, key, &asks, at, decide(id, &asked, &levels, true, now))
                    .await
            }
            Ok(Taken::No(levels)) if self.was_allowed(check, key).await? => {
                // The counters have its units already; that there is no room for them again is no denial.
                let decision = decide(id, &asked, &levels, true, now);
                Ok(Decision {
                    repeated_request: true,
                    ..decision
                })
            }
            Ok(Taken::No(levels)) => Ok(decide(id, &asked, &levels, false, now)),
            Ok(Taken::Cold(_)) => Err(Error::NoCatalog),
            Err(Error::Counters(error)) if may_go_without_counters(&asked) => {
                tracing::warn!(error = %error, "decided without the counters, by the limits' policy");
                metrics::counter!("octroi_quota_degraded_total").increment(1);
                let levels = vec![Level::default(); asked.len()];
                let decision = Decision {
                    degraded: true,
                    ..decide(id, &asked, &levels, true, now)
                };
                self.record(check, key, &[], at, decision).await
            }
            Err(error) => Err(error),
        }
    }

    /// Hands what was taken to the ledger. Units of a request that the ledger knew already are given back.
    async fn record(
        &self,
        check: &Check,
        key: &RequestKey,
        asks: &[Ask],
        at: Timestamp,
        decision: Decision,
    ) -> Result<Decision, Error> {
        match self.track(check, key, at).await {
            Ok(Recording::Recorded) => Ok(decision),
            Ok(Recording::Repeated) => {
                self.give_back(&check.account, asks).await;
                Ok(Decision {
                    repeated_request: true,
                    ..decision
                })
            }
            Err(error) => {
                // Where the ledger may have it all the same, the units stay taken: at worst too little is
                // allowed until the window is read again.
                if refuses_for_good(&error) {
                    self.give_back(&check.account, asks).await;
                }
                Err(error)
            }
        }
    }

    /// Whether the ledger has this request, whose answer nobody remembers any more.
    async fn was_allowed(&self, check: &Check, key: &RequestKey) -> Result<bool, Error> {
        let Some(item) = check.items.first() else {
            return Ok(false);
        };
        let request = GetUsageEventRequest {
            account_id: check.account.to_string(),
            source: source(key),
            event_id: event_id(item, key),
        };
        let found = match self.usage.clone().get_usage_event(request).await {
            Ok(found) => found.into_inner().event.and_then(|recorded| recorded.event),
            Err(status) if reason_of(&status) == Some(ErrorReason::UsageEventNotFound) => return Ok(false),
            Err(status) => return Err(Upstream::new("usage", status).into()),
        };
        if found.is_some_and(|event| event.amount != item.amount.as_i64()) {
            return Err(Error::RequestIdReused {
                request_id: key.request.clone(),
            });
        }
        Ok(true)
    }

    async fn track(&self, check: &Check, key: &RequestKey, at: Timestamp) -> Result<Recording, Error> {
        if check.items.is_empty() {
            return Ok(Recording::Recorded);
        }
        let events = check
            .items
            .iter()
            .map(|item| event(check, item, key, at))
            .collect();
        let request = TrackUsageBatchRequest {
            events,
            backfill: check.backfill,
        };
        let results = self.usage.clone().track_usage_batch(request).await;
        let results = results
            .map_err(|status| Upstream::new("usage", status))?
            .into_inner()
            .results;
        let mut repeated = false;
        for result in results {
            match result.outcome {
                Some(Outcome::Recorded(recorded)) => repeated |= recorded.duplicate,
                Some(Outcome::Error(error)) => return Err(refusal(&error, &key.request)),
                None => {
                    return Err(
                        Upstream::new("usage", tonic::Status::internal("a result without outcome")).into(),
                    );
                }
            }
        }
        Ok(if repeated {
            Recording::Repeated
        } else {
            Recording::Recorded
        })
    }

    async fn give_back(&self, account: &AccountId, asks: &[Ask]) {
        if let Err(error) = self.counters.give_back(account, asks).await {
            tracing::warn!(error = %error, "units could not be given back and stay taken");
        }
    }

    async fn recall(&self, check: &Check, key: &RequestKey) -> Result<Option<Decision>, Error> {
        let Ok(Some(bytes)) = self.counters.recall(&check.account, key).await else {
            return Ok(None);
        };
        let Ok(answer) = serde_json::from_slice::<Answer>(&bytes) else {
            return Ok(None);
        };
        if answer.content_hash != check.content_hash() {
            return Err(Error::RequestIdReused {
                request_id: key.request.clone(),
            });
        }
        Ok(Some(Decision {
            repeated_request: true,
            ..answer.decision
        }))
    }

    async fn remember(&self, check: &Check, key: &RequestKey, decision: &Decision) {
        let answer = Answer {
            content_hash: check.content_hash(),
            decision: decision.clone(),
        };
        let Ok(bytes) = serde_json::to_vec(&answer) else {
            return;
        };
        if let Err(error) = self.counters.remember(&check.account, key, bytes).await {
            tracing::debug!(error = %error, "an answer is not remembered; the ledger still counts it once");
        }
    }
}

/// The limits of the check's metrics, with their windows at `at`.
fn asked(check: &Check, limits: &AccountLimits, at: Timestamp) -> Vec<Asked> {
    let of_item = |item: &Item| -> Vec<Asked> {
        limits
            .of_metric(&item.metric)
            .map(|effective| Asked {
                window: limits.window_key(effective, at).window(),
                effective: effective.clone(),
                amount: item.amount,
            })
            .collect()
    };
    check.items.iter().flat_map(of_item).collect()
}

fn check_metrics(check: &Check, catalog: &Catalog) -> Result<(), Error> {
    let mut violations = Violations::default();
    for (index, item) in check.items.iter().enumerate() {
        let Some(metric) = catalog.metrics.get(&item.metric) else {
            return Err(Error::MetricNotFound {
                metric: item.metric.clone(),
            });
        };
        if metric.aggregation == Aggregation::Count && item.amount.get() != 1 {
            violations.add(
                format!("items[{index}].amount"),
                "must be 1 for a metric that counts events",
            );
        }
    }
    Ok(violations.finish()?)
}

fn missing_features(check: &Check, limits: &AccountLimits, catalog: &Catalog) -> Vec<FeaturePlans> {
    let plans: HashMap<_, _> = catalog
        .feature_plans
        .iter()
        .map(|one| (&one.feature, &one.plans))
        .collect();
    check
        .features
        .iter()
        .filter(|feature| !limits.has_feature(feature))
        .map(|feature| FeaturePlans {
            feature: feature.clone(),
            plans: plans
                .get(feature)
                .map(|plans| (*plans).clone())
                .unwrap_or_default(),
        })
        .collect()
}

fn may_go_without_counters(asked: &[Asked]) -> bool {
    asked
        .iter()
        .all(|one| one.effective.limit.unreachable_policy == UnreachablePolicy::Allow)
}

/// The event's id follows from the request, so that the ledger counts a repeat once.
fn event_id(item: &Item, key: &RequestKey) -> String {
    format!("{}/{}", key.request, item.metric)
}

fn source(key: &RequestKey) -> String {
    format!("decision:{}", key.caller)
}

fn event(check: &Check, item: &Item, key: &RequestKey, at: Timestamp) -> UsageEvent {
    UsageEvent {
        account_id: check.account.to_string(),
        event_id: event_id(item, key),
        source: source(key),
        metric: item.metric.to_string(),
        amount: item.amount.as_i64(),
        event_time: Some(to_proto_time(at)),
        properties: HashMap::new(),
        origin: Origin::Decision.into(),
    }
}

fn refusal(error: &octroi_proto::usage::v1::ItemError, request_id: &RequestId) -> Error {
    if ErrorReason::from_name(&error.reason) == Some(ErrorReason::EventIdReused) {
        return Error::RequestIdReused {
            request_id: request_id.clone(),
        };
    }
    let mut violations = Violations::default();
    if ErrorReason::from_name(&error.reason) == Some(ErrorReason::EventTimeOutOfRange) {
        violations.add(
            "event_time",
            "must be from 35 days back to 5 minutes ahead; a backfill may go further back",
        );
        return violations.into();
    }
    Upstream::new(
        "usage",
        tonic::Status::new(Code::from_i32(error.code), error.message.clone()),
    )
    .into()
}

fn refuses_for_good(error: &Error) -> bool {
    use octroi_core::{ErrorKind, ServiceError as _};
    !matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Internal
    )
}

/// Where the account stands at one limit, for answers that decide nothing.
pub(super) fn standing(
    effective: &crate::domain::limits::EffectiveLimit,
    key: &WindowKey,
    level: Level,
) -> decision::LimitStatus {
    let asked = Asked {
        effective: effective.clone(),
        window: key.window(),
        amount: octroi_core::Units::ZERO,
    };
    decision::status(&asked, level, false)
}
