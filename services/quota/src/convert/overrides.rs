//! The words of limits and of what replaces them.

use octroi_core::{AccountId, MetricSlug, Period, Units, Violations};
use octroi_kit::convert::{from_proto_period, from_proto_time, to_proto_limit, to_proto_time};
use octroi_proto::quota::v1 as proto;

use crate::domain::limits::{EffectiveLimit, LimitOverride};

/// The most bytes of a note.
const NOTE_BYTES_MAX: usize = 500;

/// A limit with what it is made of, on the wire.
pub fn to_proto_limit_source(effective: &EffectiveLimit) -> proto::LimitSource {
    proto::LimitSource {
        limit: Some(to_proto_limit(&effective.limit)),
        plan_amount: effective.plan_amount.get(),
        r#override: effective.replaced_by.as_ref().map(to_proto_override),
        stage_factor_percent: effective.stage_factor_percent,
    }
}

/// What replaces the amount of a plan's limit, on the wire.
pub fn to_proto_override(replaced: &LimitOverride) -> proto::LimitOverride {
    proto::LimitOverride {
        amount: replaced.amount.get(),
        expire_time: replaced.expires_at.map(to_proto_time),
        note: replaced.note.clone(),
    }
}

/// Reads which limit is meant.
fn from_proto_named(
    (account, metric, period): (&str, &str, i32),
    violations: &mut Violations,
) -> Option<(AccountId, MetricSlug, Period)> {
    let account = violations.take("account_id", AccountId::parse(account));
    let metric = violations.take("metric", MetricSlug::parse(metric));
    let period = from_proto_period(period).ok_or("must be one of the named values");
    let period = violations.take("period", period);
    Some((account?, metric?, period?))
}

/// Reads what replaces which limit.
///
/// # Errors
/// Every violation found.
pub fn from_proto_set_override(
    request: &proto::SetLimitOverrideRequest,
) -> Result<(AccountId, MetricSlug, Period, LimitOverride), Violations> {
    let mut violations = Violations::default();
    let named = (
        request.account_id.as_str(),
        request.metric.as_str(),
        request.period,
    );
    let named = from_proto_named(named, &mut violations);
    let Some(given) = &request.r#override else {
        violations.add("override", "must be given");
        return Err(violations);
    };
    let amount = violations.take("override.amount", Units::new(given.amount));
    let time = given.expire_time.as_ref();
    let expires_at = time.and_then(|time| from_proto_time("override.expire_time", time, &mut violations));
    if given.note.len() > NOTE_BYTES_MAX || given.note.contains('\0') {
        let rule = format!("must be at most {NOTE_BYTES_MAX} bytes and hold no NUL");
        violations.add("override.note", rule);
    }
    violations.clone().finish()?;
    let ((account, metric, period), amount) = named.zip(amount).ok_or(violations)?;
    let replaced = LimitOverride {
        amount,
        expires_at,
        note: given.note.clone(),
    };
    Ok((account, metric, period, replaced))
}

/// Reads which override is to end.
///
/// # Errors
/// Every violation found.
pub fn from_proto_clear_override(
    request: &proto::ClearLimitOverrideRequest,
) -> Result<(AccountId, MetricSlug, Period), Violations> {
    let mut violations = Violations::default();
    let named = (
        request.account_id.as_str(),
        request.metric.as_str(),
        request.period,
    );
    let named = from_proto_named(named, &mut violations);
    violations.clone().finish()?;
    named.ok_or(violations)
}
