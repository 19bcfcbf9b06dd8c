//! `/api/account/usage/forecast`: when the account's limits will be reached. Quota knows the limits and what their windows
//! have used, usage how the metrics are used.

use axum::{Json, extract::State};
use jiff::Timestamp;
use octroi_proto::{
    quota::v1::{GetCurrentUsageRequest, LimitStatus},
    usage::v1::{self as proto, ForecastTarget, ForecastUsageRequest},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    convert::{ForecastMethod, LimitState, optional_time, time},
    edge::Edge,
    problem::{Problem, SAME_NAMES},
    query::Query,
};

/// When a limit will be reached, or what its window will have used by its end.
#[derive(Serialize, ToSchema)]
pub(crate) struct Forecast {
    method: ForecastMethod,
    /// How many weeks it is made from; 0 for an average.
    weeks: u32,
    /// The limit is reached already.
    reached: bool,
    /// When the limit will be reached, most likely; null where it will not be before the horizon.
    reach_time: Option<Timestamp>,
    /// The earliest of the instants at which it may be; null where there is none.
    reach_time_low: Option<Timestamp>,
    /// The latest of them; null where the limit may not be reached at all.
    reach_time_high: Option<Timestamp>,
    /// Until when it looks: the window's end, or 92 days ahead where that is later or there is none.
    horizon_time: Timestamp,
    /// What will be used by the horizon, most likely, as if nothing were refused.
    end_value: u64,
    /// The least that may be used by then.
    end_value_low: u64,
    /// The most.
    end_value_high: u64,
}

/// Where the account stands at a limit, and when it will be reached.
#[derive(Serialize, ToSchema)]
pub(crate) struct LimitForecast {
    limit: LimitState,
    /// Null where there is too little use to go by, or the metric is no flow.
    forecast: Option<Forecast>,
}

/// When limits will be reached.
#[derive(Serialize, ToSchema)]
pub(crate) struct Forecasts {
    /// Ordered by metric and period.
    limits: Vec<LimitForecast>,
    /// The instant the limits stood so.
    as_of_time: Timestamp,
}

fn to_target(limit: &LimitStatus) -> ForecastTarget {
    ForecastTarget {
        metric: limit.metric.clone(),
        limit_amount: limit.limit,
        used_amount: limit.used,
        window_start_time: limit.window_start_time,
        window_end_time: limit.window_end_time,
    }
}

fn to_json_forecast(forecast: &proto::Forecast) -> Result<Option<Forecast>, Problem> {
    let method = ForecastMethod::from_proto(forecast.method);
    if forecast.method() == proto::ForecastMethod::None {
        return Ok(None);
    }
    Ok(Some(Forecast {
        method,
        weeks: forecast.weeks,
        reached: forecast.reached,
        reach_time: optional_time(forecast.reach_time.as_ref())?,
        reach_time_low: optional_time(forecast.reach_time_low.as_ref())?,
        reach_time_high: optional_time(forecast.reach_time_high.as_ref())?,
        horizon_time: time(forecast.horizon_time.as_ref())?,
        end_value: forecast.end_value,
        end_value_low: forecast.end_value_low,
        end_value_high: forecast.end_value_high,
    }))
}

/// When the account's limits will be reached.
#[utoipa::path(
    get, path = "/api/account/usage/forecast", operation_id = "forecastUsage", tag = "account",
    params(("metrics" = String, Query, description = "1 to 16 metrics, separated by commas.")),
    responses((status = 200, description = "The forecasts.", body = Forecasts))
)]
pub(crate) async fn forecast(
    State(edge): State<Edge>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<Forecasts>, Problem> {
    let metrics = query.required_list("metrics");
    query.finish()?;
    let request = GetCurrentUsageRequest {
        account_id: caller.account_id(),
        metrics,
    };
    let standing = edge
        .quota()
        .get_current_usage(caller.request(request))
        .await
        .map_err(|status| Problem::of("quota", &status, SAME_NAMES))?
        .into_inner();
    let forecasts = if standing.limits.is_empty() {
        Vec::new()
    } else {
        let request = ForecastUsageRequest {
            account_id: caller.account_id(),
            targets: standing.limits.iter().map(to_target).collect(),
        };
        edge.usage()
            .forecast_usage(caller.request(request))
            .await
            .map_err(|status| Problem::of("usage", &status, SAME_NAMES))?
            .into_inner()
            .forecasts
    };
    let limits = standing
        .limits
        .into_iter()
        .zip(forecasts)
        .map(|(limit, forecast)| {
            Ok(LimitForecast {
                limit: LimitState::from_proto(limit)?,
                forecast: to_json_forecast(&forecast)?,
            })
        });
    Ok(Json(Forecasts {
        limits: limits.collect::<Result<_, Problem>>()?,
        as_of_time: time(standing.as_of_time.as_ref())?,
    }))
}
