//! Statistics, between the wire and the domain.

use jiff::tz::TimeZone;
use octroi_core::{AccountId, Aggregation, Period, PropertyKey, Units, Violations, Window};
use octroi_kit::convert::{to_proto_aggregation, to_proto_time};
use octroi_proto::usage::v1 as proto;

use super::{from_proto_metrics, required_time};
use crate::{
    domain::{
        figures::{Figure, Figures},
        sums::{MetricStats, total},
    },
    error::Error,
    service::{StatsQuery, UsageStats},
};

/// Reads what statistics are asked for.
///
/// # Errors
/// Every violation found.
pub fn from_proto_stats_query(request: &proto::GetUsageStatsRequest) -> Result<StatsQuery, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    let metrics = from_proto_metrics(&request.metrics, &mut violations);
    let start = required_time("start_time", request.start_time.as_ref(), &mut violations);
    let end = required_time("end_time", request.end_time.as_ref(), &mut violations);
    let granularity = match proto::Granularity::try_from(request.granularity) {
        Ok(proto::Granularity::Hour) => Some(Period::Hour),
        Ok(proto::Granularity::Day) => Some(Period::Day),
        Ok(proto::Granularity::Month) => Some(Period::Month),
        Ok(proto::Granularity::Unspecified) | Err(_) => {
            violations.add("granularity", "must be HOUR, DAY or MONTH");
            None
        }
    };
    let zone = if request.zone.is_empty() {
        None
    } else {
        violations.take(
            "zone",
            TimeZone::get(&request.zone).map_err(|_| "must be an IANA zone"),
        )
    };
    let group_by = (!request.group_by.is_empty())
        .then(|| violations.take("group_by", PropertyKey::parse(&request.group_by)))
        .flatten();
    let read = account.zip(start.zip(end)).zip(granularity);
    violations.clone().finish()?;
    let ((account, (start, end)), granularity) = read.ok_or(violations)?;
    Ok(StatsQuery {
        account,
        metrics,
        range: Window { start, end },
        granularity,
        zone,
        compare: request.compare,
        group_by,
    })
}

/// Statistics, on the wire.
///
/// # Errors
/// [`Error::SumOutOfRange`] where a figure is more than can be counted.
pub fn to_proto_stats(stats: UsageStats) -> Result<proto::GetUsageStatsResponse, Error> {
    let metrics: Result<Vec<proto::MetricStats>, Error> = stats.metrics.iter().map(to_proto_metric).collect();
    Ok(proto::GetUsageStatsResponse {
        stats: metrics?,
        zone: stats.zone,
    })
}

fn to_proto_metric(metric: &MetricStats) -> Result<proto::MetricStats, Error> {
    let (sum, figure) = totals(&metric.buckets, metric.aggregation);
    let previous = if metric.previous.is_empty() {
        None
    } else {
        Some(to_proto_previous(metric)?)
    };
    let groups = metric.groups.iter().map(|group| {
        let (sum, figure) = totals(&group.buckets, metric.aggregation);
        Ok(proto::UsageGroup {
            value: group.value.clone(),
            buckets: to_proto_buckets(&group.buckets, metric.aggregation)?,
            total_amount: amount(&sum, metric.aggregation)?,
            total_events: sum.events,
            total_value: counted(figure.value)?,
            total_estimated: figure.is_estimated,
        })
    });
    Ok(proto::MetricStats {
        metric: metric.metric.to_string(),
        aggregation: to_proto_aggregation(metric.aggregation),
        total_amount: amount(&sum, metric.aggregation)?,
        total_events: sum.events,
        total_value: counted(figure.value)?,
        total_estimated: figure.is_estimated,
        buckets: to_proto_buckets(&metric.buckets, metric.aggregation)?,
        previous,
        groups: groups.collect::<Result<_, Error>>()?,
        groups_left_off: metric.groups_left_off,
    })
}

fn to_proto_previous(metric: &MetricStats) -> Result<proto::PreviousStats, Error> {
    let (sum, figure) = totals(&metric.previous, metric.aggregation);
    Ok(proto::PreviousStats {
        buckets: to_proto_buckets(&metric.previous, metric.aggregation)?,
        total_amount: amount(&sum, metric.aggregation)?,
        total_events: sum.events,
        total_value: counted(figure.value)?,
        total_estimated: figure.is_estimated,
    })
}

fn totals(buckets: &[(Window, Figures)], aggregation: Aggregation) -> (Figures, Figure) {
    let sum = total(buckets);
    let figure = sum.figure(aggregation);
    (sum, figure)
}

fn to_proto_buckets(
    buckets: &[(Window, Figures)],
    aggregation: Aggregation,
) -> Result<Vec<proto::UsageBucket>, Error> {
    let buckets = buckets.iter().map(|(window, figures)| {
        let figure = figures.figure(aggregation);
        Ok(proto::UsageBucket {
            start_time: Some(to_proto_time(window.start)),
            end_time: Some(to_proto_time(window.end)),
            amount: amount(figures, aggregation)?,
            events: figures.events,
            value: counted(figure.value)?,
            estimated: figure.is_estimated,
        })
    });
    buckets.collect()
}

/// The sum of amounts; of a metric that is no sum it may be more than can be counted, and is then the most that can.
fn amount(figures: &Figures, aggregation: Aggregation) -> Result<u64, Error> {
    match aggregation {
        Aggregation::Sum | Aggregation::Count => counted(figures.amount),
        Aggregation::Max | Aggregation::Unique | Aggregation::Latest => {
            Ok(counted(figures.amount).unwrap_or(Units::MAX.get()))
        }
    }
}

fn counted(figure: u128) -> Result<u64, Error> {
    u64::try_from(figure)
        .ok()
        .and_then(|figure| Units::new(figure).ok())
        .map(Units::get)
        .ok_or(Error::SumOutOfRange)
}
