//! Between the contract's words and the domain's.

mod charges;
mod explain;
mod holds;
mod overrides;

use octroi_core::{AccountId, FeatureSlug, MetricSlug, RequestId, ServiceError, Units, Violations};
use octroi_kit::convert::{
    from_proto_entitlements, from_proto_feature_plans, from_proto_metric, from_proto_stage, from_proto_time,
    to_proto_entitlements, to_proto_feature_plans, to_proto_mode, to_proto_period, to_proto_policy,
    to_proto_stage, to_proto_time,
};
use octroi_kit::db::as_stored;
use octroi_proto::quota::v1 as proto;

pub use self::{
    charges::{from_proto_charge, to_proto_charge},
    explain::{from_proto_explain, to_proto_explanation},
    holds::{
        from_proto_commit, from_proto_hold, from_proto_record, from_proto_renewal, from_proto_reserve,
        from_proto_return, to_proto_commit, to_proto_reservation,
    },
    overrides::{from_proto_clear_override, from_proto_set_override, to_proto_limit_source},
};
use crate::domain::{
    check::{Check, FEATURES_MAX, ITEMS_MAX, Item, Mode},
    decision::{Decision, DenialReason, LimitStatus},
    holding::{AccountEntitlements, AccountLimits, Catalog},
};
use crate::escrow::QuickCheck;

/// Reads a check that asks for amounts of now and nothing else, as it stands in the request; none where it asks for
/// more, or breaks a rule.
pub fn from_proto_quick_check(request: &proto::CheckQuotaRequest) -> Option<QuickCheck<'_>> {
    let plain = request.features.is_empty()
        && request.event_time.is_none()
        && !request.repeat
        && !request.backfill
        && (1..=ITEMS_MAX).contains(&request.items.len());
    let takes = match proto::CheckMode::try_from(request.mode).ok()? {
        proto::CheckMode::Peek => false,
        proto::CheckMode::Consume => true,
        proto::CheckMode::Unspecified => return None,
    };
    if !plain || takes && !RequestId::is_valid(&request.request_id) {
        return None;
    }
    let mut items: Vec<(&str, Units)> = Vec::with_capacity(request.items.len());
    for item in &request.items {
        if items.iter().any(|(metric, _)| *metric == item.metric) {
            return None;
        }
        items.push((&item.metric, Units::positive(item.amount).ok()?));
    }
    Some(QuickCheck {
        account: &request.account_id,
        items,
        request: takes.then_some(request.request_id.as_str()),
    })
}

/// Reads a check.
///
/// # Errors
/// Every violation found.
pub fn from_proto_check(request: &proto::CheckQuotaRequest) -> Result<Check, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    let items = from_proto_items(&request.items, &mut violations);
    let features = from_proto_features(&request.features, &mut violations);
    if request.items.is_empty() && request.features.is_empty() {
        violations.add(
            "items",
            "must name at least one metric, or features must name at least one feature",
        );
    }
    let mode = from_proto_mode(request, &mut violations);
    let event_at = request
        .event_time
        .as_ref()
        .and_then(|time| from_proto_time("event_time", time, &mut violations));
    if request.backfill && event_at.is_none() {
        violations.add("backfill", "needs an event_time");
    }
    violations.clone().finish()?;
    let (account, mode) = account.zip(mode).ok_or(violations)?;
    Ok(Check {
        account,
        items,
        features,
        mode,
        event_at,
        backfill: request.backfill,
        repeat: request.repeat,
    })
}

fn from_proto_items(items: &[proto::CheckItem], violations: &mut Violations) -> Vec<Item> {
    if items.len() > ITEMS_MAX {
        violations.add("items", format!("must hold at most {ITEMS_MAX} metrics"));
        return Vec::new();
    }
    let mut read: Vec<Item> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let metric = violations.take(format!("items[{index}].metric"), MetricSlug::parse(&item.metric));
        let amount = violations.take(format!("items[{index}].amount"), Units::positive(item.amount));
        if metric
            .as_ref()
            .is_some_and(|metric| read.iter().any(|other| other.metric == *metric))
        {
            violations.add(format!("items[{index}].metric"), "must not be named twice");
        }
        if let Some((metric, amount)) = metric.zip(amount) {
            read.push(Item { metric, amount });
        }
    }
    read
}

fn from_proto_features(features: &[String], violations: &mut Violations) -> Vec<FeatureSlug> {
    if features.len() > FEATURES_MAX {
        violations.add("features", format!("must hold at most {FEATURES_MAX} features"));
        return Vec::new();
    }
    let mut read = Vec::with_capacity(features.len());
    for (index, feature) in features.iter().enumerate() {
        read.extend(violations.take(format!("features[{index}]"), FeatureSlug::parse(feature)));
    }
    read
}

fn from_proto_mode(request: &proto::CheckQuotaRequest, violations: &mut Violations) -> Option<Mode> {
    match proto::CheckMode::try_from(request.mode) {
        Ok(proto::CheckMode::Peek) => Some(Mode::Peek),
        Ok(proto::CheckMode::Consume) if request.request_id.is_empty() => {
            violations.add("request_id", "must be given to CONSUME");
            None
        }
        Ok(proto::CheckMode::Consume) => violations
            .take("request_id", RequestId::parse(&request.request_id))
            .map(Mode::Consume),
        Ok(proto::CheckMode::Unspecified) | Err(_) => {
            violations.add("mode", "must be PEEK or CONSUME");
            None
        }
    }
}

/// A decision, on the wire.
pub fn to_proto_decision(decision: Decision) -> proto::CheckQuotaResponse {
    let reason = match decision.reason {
        None => proto::DenialReason::Unspecified,
        Some(DenialReason::QuotaExceeded) => proto::DenialReason::QuotaExceeded,
        Some(DenialReason::SubscriptionRequired) => proto::DenialReason::SubscriptionRequired,
        Some(DenialReason::Held) => proto::DenialReason::Held,
    };
    proto::CheckQuotaResponse {
        allowed: decision.allowed,
        decision_id: decision.id,
        reason: reason.into(),
        limits: decision.limits.iter().map(to_proto_limit_status).collect(),
        binding_limit: decision.binding_limit.and_then(|index| u32::try_from(index).ok()),
        retry_after: decision.retry_after.map(|wait| prost_types::Duration {
            seconds: wait.as_secs(),
            nanos: wait.subsec_nanos(),
        }),
        missing_features: decision
            .missing_features
            .iter()
            .map(to_proto_feature_plans)
            .collect(),
        degraded: decision.degraded,
        repeated_request: decision.repeated_request,
    }
}

/// Where an account stands at a limit, on the wire.
pub fn to_proto_limit_status(status: &LimitStatus) -> proto::LimitStatus {
    proto::LimitStatus {
        // Not written by way of a formatter: there is one of these for each limit of each answer.
        metric: status.metric.as_str().to_owned(),
        period: to_proto_period(status.period),
        limit: status.limit.get(),
        used: status.used.get(),
        held: status.held.get(),
        remaining: status.remaining.get(),
        window_start_time: Some(to_proto_time(status.start)),
        window_end_time: status.end.map(to_proto_time),
        mode: to_proto_mode(status.mode),
        overage: status.overage.get(),
        would_deny: status.would_deny,
        stage_factor_percent: status.stage_factor_percent,
        unreachable_policy: to_proto_policy(status.unreachable_policy),
    }
}

/// Why one check of a batch has no decision.
pub fn to_proto_item_error<E: ServiceError>(error: &E) -> proto::ItemError {
    proto::ItemError {
        code: error.kind().grpc_code(),
        reason: error.reason().to_owned(),
        message: error.to_string(),
        field: error
            .violations()
            .into_iter()
            .next()
            .map(|violation| violation.field)
            .unwrap_or_default(),
    }
}

/// The refusal of one check of a stream that a status says.
pub fn to_proto_status_error(status: &tonic::Status) -> proto::ItemError {
    let reason = octroi_kit::status::reason_of(status);
    proto::ItemError {
        code: status.code().into(),
        reason: reason.map(|reason| reason.name().to_owned()).unwrap_or_default(),
        message: status.message().to_owned(),
        field: String::new(),
    }
}

/// Reads whose use is asked for, of which metrics.
///
/// # Errors
/// Every violation found.
pub fn from_proto_current_usage(
    request: &proto::GetCurrentUsageRequest,
) -> Result<(AccountId, Vec<MetricSlug>), Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    let mut metrics = Vec::with_capacity(request.metrics.len());
    for (index, metric) in request.metrics.iter().enumerate() {
        metrics.extend(violations.take(format!("metrics[{index}]"), MetricSlug::parse(metric)));
    }
    violations.clone().finish()?;
    Ok((account.ok_or(violations)?, metrics))
}

/// Reads an account's id.
///
/// # Errors
/// The violation found.
pub fn from_proto_account(account_id: &str) -> Result<AccountId, Violations> {
    let mut violations = Violations::default();
    violations
        .take("account_id", AccountId::parse(account_id))
        .ok_or(violations)
}

/// What holds for an account, on the wire.
pub fn to_proto_entitlements_response(limits: &AccountLimits) -> proto::GetEntitlementsResponse {
    let anchor = limits.calendar.last().anchor;
    proto::GetEntitlementsResponse {
        entitlements: Some(to_proto_entitlements(&limits.entitlements)),
        stage: to_proto_stage(limits.stage),
        version: limits.version,
        anchor_day: anchor.day(),
    }
}

/// Reads what billing pushes for an account.
///
/// # Errors
/// Every violation found.
pub fn from_proto_apply(
    request: &proto::ApplyEntitlementsRequest,
) -> Result<(AccountId, AccountEntitlements), Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    check_version(request.version, &mut violations);
    let entitlements = match &request.entitlements {
        Some(entitlements) => from_proto_entitlements("entitlements", entitlements, &mut violations),
        None => violations.take("entitlements", Err("must be given")),
    };
    let anchor_at = match &request.anchor_time {
        Some(time) => from_proto_time("anchor_time", time, &mut violations),
        None => violations.take("anchor_time", Err("must be given")),
    };
    let stage = violations.take(
        "stage",
        from_proto_stage(request.stage).ok_or("must be one of the named values"),
    );
    violations.clone().finish()?;
    let ((account, entitlements), (anchor_at, stage)) = account
        .zip(entitlements)
        .zip(anchor_at.zip(stage))
        .ok_or(violations)?;
    Ok((
        account,
        AccountEntitlements {
            version: request.version,
            entitlements,
            // Windows begin there, and are found by their beginning.
            anchor_at: as_stored(anchor_at),
            stage,
        },
    ))
}

fn check_version(version: u64, violations: &mut Violations) {
    if version == 0 || i64::try_from(version).is_err() {
        violations.add("version", "must be at least 1");
    }
}

/// Reads the catalog that billing pushes.
///
/// # Errors
/// Every violation found.
pub fn from_proto_catalog(request: &proto::ApplyCatalogRequest) -> Result<Catalog, Violations> {
    let mut violations = Violations::default();
    check_version(request.version, &mut violations);
    let mut metrics = std::collections::HashMap::with_capacity(request.metrics.len());
    for (index, metric) in request.metrics.iter().enumerate() {
        if let Some(metric) = from_proto_metric(&format!("metrics[{index}]"), metric, &mut violations) {
            metrics.insert(metric.slug.clone(), metric);
        }
    }
    let default_entitlements = match &request.default_entitlements {
        Some(entitlements) => from_proto_entitlements("default_entitlements", entitlements, &mut violations),
        None => violations.take("default_entitlements", Err("must be given")),
    };
    let mut feature_plans = Vec::with_capacity(request.feature_plans.len());
    for (index, feature) in request.feature_plans.iter().enumerate() {
        feature_plans.extend(from_proto_feature_plans(
            &format!("feature_plans[{index}]"),
            feature,
            &mut violations,
        ));
    }
    if request.restricted_percent > 100 {
        violations.add("restricted_percent", "must be 0 to 100");
    }
    violations.clone().finish()?;
    let default_entitlements = default_entitlements.ok_or(violations)?;
    let (version, restricted_percent) = (request.version, request.restricted_percent);
    Ok(Catalog {
        version,
        metrics,
        default_entitlements,
        feature_plans,
        restricted_percent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> proto::CheckQuotaRequest {
        proto::CheckQuotaRequest {
            account_id: "acme".into(),
            items: vec![proto::CheckItem {
                metric: "api.requests".into(),
                amount: 1,
            }],
            features: vec!["premium.templates".into()],
            mode: proto::CheckMode::Consume.into(),
            request_id: "r-1".into(),
            event_time: None,
            backfill: false,
            repeat: false,
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut proto::CheckQuotaRequest), field: &str) {
        let mut request = request();
        change(&mut request);
        let violations = from_proto_check(&request).expect_err("a bad request");
        assert_eq!(violations.first_field(), Some(field), "{violations}");
    }

    #[test]
    fn a_good_check_is_read() {
        assert!(from_proto_check(&request()).is_ok());
    }

    #[test]
    fn each_bad_check_names_its_field() {
        let item = |metric: &str, amount| proto::CheckItem {
            metric: metric.into(),
            amount,
        };
        check(|r| r.account_id = String::new(), "account_id");
        check(|r| r.account_id = "a b".into(), "account_id");
        for amount in [0, -1, i64::MIN, 1 << 53] {
            check(
                |r| r.items = vec![item("api.requests", amount)],
                "items[0].amount",
            );
        }
        check(|r| r.items = vec![item("API", 1)], "items[0].metric");
        check(
            |r| r.items = vec![item("a", 1), item("b", 1), item("a", 1)],
            "items[2].metric",
        );
        check(
            |r| r.items = (0..17).map(|n| item(&format!("m{n}"), 1)).collect(),
            "items",
        );
        check(|r| (r.items, r.features) = (vec![], vec![]), "items");
        check(|r| r.features = vec!["Premium".into()], "features[0]");
        check(|r| r.features = vec!["f".into(); 17], "features");
        check(|r| r.mode = 0, "mode");
        check(|r| r.mode = 99, "mode");
        check(|r| r.request_id = String::new(), "request_id");
        check(|r| r.request_id = "é".into(), "request_id");
        check(
            |r| {
                r.event_time = Some(prost_types::Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                })
            },
            "event_time",
        );
        check(|r| r.backfill = true, "backfill");
    }
}
