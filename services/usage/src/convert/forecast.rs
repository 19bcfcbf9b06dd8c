//! Forecasts, between the wire and the domain.

use std::collections::BTreeSet;

use octroi_core::{AccountId, MetricSlug, Units, Violations, Window};
use octroi_kit::convert::{from_proto_time, to_proto_time};
use octroi_proto::usage::v1 as proto;

use super::METRICS_MAX;
use crate::{
    domain::forecast::{Forecast, Method, Target},
    service::Forecasts,
};

/// The most limits of one question.
const TARGETS_MAX: usize = 64;

/// Reads which limits are asked for.
///
/// # Errors
/// Every violation found.
pub fn from_proto_forecast(
    request: &proto::ForecastUsageRequest,
) -> Result<(AccountId, Vec<Target>), Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    if request.targets.is_empty() || request.targets.len() > TARGETS_MAX {
        violations.add("targets", format!("must hold 1 to {TARGETS_MAX} limits"));
    }
    let mut targets = Vec::with_capacity(request.targets.len());
    for (index, target) in request.targets.iter().take(TARGETS_MAX).enumerate() {
        targets.extend(from_proto_target(
            &format!("targets[{index}]"),
            target,
            &mut violations,
        ));
    }
    let metrics: BTreeSet<&MetricSlug> = targets.iter().map(|target| &target.metric).collect();
    if metrics.len() > METRICS_MAX {
        violations.add("targets", format!("must be of at most {METRICS_MAX} metrics"));
    }
    violations.clone().finish()?;
    Ok((account.ok_or(violations)?, targets))
}

fn from_proto_target(
    field: &str,
    target: &proto::ForecastTarget,
    violations: &mut Violations,
) -> Option<Target> {
    let metric = violations.take(format!("{field}.metric"), MetricSlug::parse(&target.metric));
    let limit = violations.take(format!("{field}.limit_amount"), Units::new(target.limit_amount));
    let used = violations.take(format!("{field}.used_amount"), Units::new(target.used_amount));
    let mut time = |name: &str, time: Option<&prost_types::Timestamp>, default| match time {
        Some(time) => from_proto_time(&format!("{field}.{name}"), time, violations),
        None => Some(default),
    };
    let start = time(
        "window_start_time",
        target.window_start_time.as_ref(),
        Window::LIFETIME.start,
    );
    let end = time(
        "window_end_time",
        target.window_end_time.as_ref(),
        Window::LIFETIME.end,
    );
    let window = Window {
        start: start?,
        end: end?,
    };
    if window.end <= window.start {
        violations.add(
            format!("{field}.window_end_time"),
            "must be after window_start_time",
        );
    }
    Some(Target {
        metric: metric?,
        limit: limit?,
        used: used?,
        window,
    })
}

/// Forecasts, on the wire.
pub fn to_proto_forecasts(forecasts: Forecasts) -> proto::ForecastUsageResponse {
    let made = forecasts.forecasts.into_iter();
    proto::ForecastUsageResponse {
        forecasts: made
            .map(|(metric, forecast)| to_proto_forecast(&metric, forecast.as_ref()))
            .collect(),
        as_of_time: Some(to_proto_time(forecasts.as_of)),
    }
}

fn to_proto_forecast(metric: &MetricSlug, forecast: Option<&Forecast>) -> proto::Forecast {
    let Some(forecast) = forecast else {
        return proto::Forecast {
            metric: metric.to_string(),
            method: proto::ForecastMethod::None.into(),
            ..proto::Forecast::default()
        };
    };
    let (method, weeks) = match forecast.method {
        Method::Weeks(weeks) => (proto::ForecastMethod::Weeks, weeks),
        Method::Average => (proto::ForecastMethod::Average, 0),
    };
    proto::Forecast {
        metric: metric.to_string(),
        method: method.into(),
        weeks,
        reached: forecast.is_reached,
        reach_time: forecast.reach_at.map(to_proto_time),
        reach_time_low: forecast.reach_at_low.map(to_proto_time),
        reach_time_high: forecast.reach_at_high.map(to_proto_time),
        horizon_time: Some(to_proto_time(forecast.horizon)),
        end_value: forecast.end_value.get(),
        end_value_low: forecast.end_value_low.get(),
        end_value_high: forecast.end_value_high.get(),
    }
}
