//! `/api/account/usage`: figures over a range.

use axum::{Json, extract::State};
use jiff::Timestamp;
use octroi_proto::usage::v1::{GetUsageStatsRequest, MetricStats, PreviousStats, UsageBucket, UsageGroup};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    convert::{Aggregation, Granularity, time},
    edge::Edge,
    problem::{Names, Problem},
    query::Query,
};

const NAMES: Names = &[("start_time", "from"), ("end_time", "to")];

/// The use in one bucket.
#[derive(Serialize, ToSchema)]
pub(crate) struct Bucket {
    start_time: Timestamp,
    /// The first instant after the bucket.
    end_time: Timestamp,
    /// The sum of amounts.
    amount: u64,
    /// The number of events.
    events: u64,
    /// The figure by the metric's aggregation; 0 without events.
    value: u64,
    /// The figure is an estimate, with a standard error of 1.6 %: only of `unique`, from 4,096 values on.
    estimated: bool,
}

/// The use of one metric.
#[derive(Serialize, ToSchema)]
pub(crate) struct MetricUsage {
    /// The metric's slug.
    metric: String,
    /// The sum over the range.
    total_amount: u64,
    /// The number of events in the range.
    total_events: u64,
    /// How its amounts become one figure.
    aggregation: Aggregation,
    /// The figure of the whole range.
    total_value: u64,
    /// The figure of the whole range is an estimate.
    total_estimated: bool,
    /// They tile the range; empty ones are among them.
    buckets: Vec<Bucket>,
    /// The period before; null where it was not asked for.
    previous: Option<PreviousUsage>,
    /// The same by the values of a property, where that was asked for, those with most events first.
    groups: Vec<GroupUsage>,
    /// How many more groups there are.
    groups_left_off: u64,
}

/// The use of one metric by events that have one value of a property.
#[derive(Serialize, ToSchema)]
pub(crate) struct GroupUsage {
    /// The value; null for events that do not have the property.
    value: Option<String>,
    /// The sum over the range.
    total_amount: u64,
    /// The number of events in the range.
    total_events: u64,
    /// The figure of the whole range.
    total_value: u64,
    /// The figure of the whole range is an estimate.
    total_estimated: bool,
    /// They tile the range; empty ones are among them.
    buckets: Vec<Bucket>,
}

/// The use of one metric over the period before.
#[derive(Serialize, ToSchema)]
pub(crate) struct PreviousUsage {
    /// The sum over the period.
    total_amount: u64,
    /// The number of events in the period.
    total_events: u64,
    /// The figure of the whole period.
    total_value: u64,
    /// The figure of the whole period is an estimate.
    total_estimated: bool,
    /// The counterpart of each bucket.
    buckets: Vec<Bucket>,
}

/// Figures over a range.
#[derive(Serialize, ToSchema)]
pub(crate) struct Usage {
    /// The IANA zone whose hours, days and months are meant.
    zone: String,
    /// One a metric, in the order asked.
    metrics: Vec<MetricUsage>,
}

fn to_json_bucket(bucket: UsageBucket) -> Result<Bucket, Problem> {
    Ok(Bucket {
        start_time: time(bucket.start_time.as_ref())?,
        end_time: time(bucket.end_time.as_ref())?,
        amount: bucket.amount,
        events: bucket.events,
        value: bucket.value,
        estimated: bucket.estimated,
    })
}

fn to_json_metric(stats: MetricStats) -> Result<MetricUsage, Problem> {
    Ok(MetricUsage {
        metric: stats.metric,
        total_amount: stats.total_amount,
        total_events: stats.total_events,
        aggregation: Aggregation::from_proto(stats.aggregation),
        total_value: stats.total_value,
        total_estimated: stats.total_estimated,
        buckets: to_json_buckets(stats.buckets)?,
        previous: stats.previous.map(to_json_previous).transpose()?,
        groups: stats
            .groups
            .into_iter()
            .map(to_json_group)
            .collect::<Result<_, _>>()?,
        groups_left_off: stats.groups_left_off,
    })
}

fn to_json_group(group: UsageGroup) -> Result<GroupUsage, Problem> {
    Ok(GroupUsage {
        value: group.value,
        total_amount: group.total_amount,
        total_events: group.total_events,
        total_value: group.total_value,
        total_estimated: group.total_estimated,
        buckets: to_json_buckets(group.buckets)?,
    })
}

fn to_json_previous(previous: PreviousStats) -> Result<PreviousUsage, Problem> {
    Ok(PreviousUsage {
        total_amount: previous.total_amount,
        total_events: previous.total_events,
        total_value: previous.total_value,
        total_estimated: previous.total_estimated,
        buckets: to_json_buckets(previous.buckets)?,
    })
}

fn to_json_buckets(buckets: Vec<UsageBucket>) -> Result<Vec<Bucket>, Problem> {
    buckets.into_iter().map(to_json_bucket).collect()
}

/// What was used, by metric and time.
#[utoipa::path(
    get, path = "/api/account/usage", operation_id = "getUsage", tag = "account",
    params(
        ("metrics" = String, Query, description = "1 to 16 metrics, separated by commas."),
        ("from" = Timestamp, Query, description = "The first instant (RFC 3339)."),
        ("to" = Timestamp, Query, description = "The first instant after the range."),
        ("granularity" = Option<Granularity>, Query, description = "How wide a bucket is; absent means a day."),
        ("zone" = Option<String>, Query, description = "The IANA zone of hours, days and months; absent means the account's."),
        ("compare" = Option<bool>, Query, description = "Answer the period before as well."),
        ("group_by" = Option<String>, Query, description = "Answer the same by the values of this property as well.")
    ),
    responses((status = 200, description = "The figures.", body = Usage))
)]
pub(crate) async fn usage(
    State(edge): State<Edge>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<Usage>, Problem> {
    let request = GetUsageStatsRequest {
        account_id: caller.account_id(),
        metrics: query.required_list("metrics"),
        start_time: query.required_instant("from"),
        end_time: query.required_instant("to"),
        granularity: query.granularity("granularity"),
        zone: query.text("zone").unwrap_or_default(),
        compare: query.flag("compare"),
        group_by: query.text("group_by").unwrap_or_default(),
    };
    query.finish()?;
    let answer = edge
        .usage()
        .get_usage_stats(caller.request(request))
        .await
        .map_err(|status| Problem::of("usage", &status, NAMES))?
        .into_inner();
    let metrics = answer
        .stats
        .into_iter()
        .map(to_json_metric)
        .collect::<Result<_, _>>()?;
    Ok(Json(Usage {
        zone: answer.zone,
        metrics,
    }))
}
