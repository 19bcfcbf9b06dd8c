//! Figures over a range are those of the events in it, whatever a metric counts, and whichever zone cuts the range.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp, ToSpan as _, Unit, Zoned, tz::TimeZone};
use octroi_kit::convert::to_proto_time;
use octroi_proto::{
    billing::v1::ApplyCatalogRequest,
    usage::v1::{
        GetUsageStatsRequest, Granularity, MetricStats, TrackUsageBatchRequest, UsageBucket, UsageEvent,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, now};

use crate::{
    asks::{event, upsert_account},
    story::both_topologies,
};

both_topologies!(
    figures_are_those_of_the_events_in_every_zone,
    many_distinct_values_are_estimated,
);

pub(crate) const ACCOUNT: &str = "acme";
/// The metrics of the story, by what they count.
pub(crate) const METRICS: [&str; 5] = ["a.sum", "a.count", "a.max", "a.latest", "a.unique"];

/// One event of each metric at one instant.
#[derive(Clone, Debug)]
pub(crate) struct Used {
    pub(crate) at: Timestamp,
    pub(crate) amount: u64,
    pub(crate) user: String,
}

/// What counts, by metric.
pub(crate) type Counted = HashMap<&'static str, Vec<Used>>;

pub(crate) async fn with_all_aggregations(fleet: &Fleet) -> Result<Clients> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    let mut metrics = "metrics:\n".to_owned();
    for metric in METRICS {
        let aggregation = metric.trim_start_matches("a.");
        let property = if aggregation == "unique" {
            "property: user, "
        } else {
            ""
        };
        metrics += &format!(
            "  - {{ slug: {metric}, kind: flow, aggregation: {aggregation}, {property}unit: one, name: {{ en: A, fr: A }} }}\n"
        );
    }
    let document = octroi_fleet::seed::CATALOG.replacen("metrics:\n", &metrics, 1);
    operator
        .billing
        .clone()
        .apply_catalog(ApplyCatalogRequest { document })
        .await?;
    upsert_account(&app, ACCOUNT).await?;
    Ok(app)
}

/// Events of some days, in no order of time, that fall on quarters of an hour as often as into them.
pub(crate) fn some_days(until: Timestamp) -> Vec<Used> {
    let until = Timestamp::from_second(until.as_second() / 900 * 900).unwrap_or(until);
    let used = |number: i64| {
        let back_s = number * 7_919 % (5 * 86_400);
        let back_s = if number % 3 == 0 {
            back_s / 900 * 900
        } else {
            back_s
        };
        Used {
            at: until - back_s.seconds(),
            amount: 1 + (number * 31 % 97).unsigned_abs(),
            user: format!("user-{}", number * 17 % 61),
        }
    };
    (1..=400).map(used).collect()
}

pub(crate) async fn record(app: &Clients, all: &[Used]) -> Result<()> {
    let mut events = Vec::new();
    for (number, used) in all.iter().enumerate() {
        for metric in METRICS {
            let amount = if metric == "a.count" { 1 } else { used.amount };
            events.push(UsageEvent {
                event_time: Some(to_proto_time(used.at)),
                properties: HashMap::from([("user".to_owned(), used.user.clone())]),
                ..event(
                    ACCOUNT,
                    &format!("{metric}-{number}"),
                    metric,
                    i64::try_from(amount)?,
                )
            });
        }
    }
    let answer = app
        .usage
        .clone()
        .track_usage_batch(TrackUsageBatchRequest {
            events,
            all_or_nothing: true,
            ..TrackUsageBatchRequest::default()
        })
        .await?
        .into_inner();
    ensure!(answer.results.len() == all.len() * METRICS.len());
    Ok(())
}

/// What the story's own arithmetic makes of events.
fn figure(metric: &str, used: &[&Used]) -> u64 {
    match metric {
        "a.sum" => used.iter().map(|one| one.amount).sum(),
        "a.count" => used.len() as u64,
        "a.max" => used.iter().map(|one| one.amount).max().unwrap_or(0),
        "a.latest" => used
            .iter()
            .max_by_key(|one| (one.at, one.amount))
            .map_or(0, |one| one.amount),
        _ => used.iter().map(|one| &one.user).collect::<BTreeSet<_>>().len() as u64,
    }
}

pub(crate) async fn stats(
    app: &Clients,
    range: (Timestamp, Timestamp),
    granularity: Granularity,
    zone: &str,
) -> Result<Vec<MetricStats>> {
    stats_by(app, range, granularity, zone, "").await
}

async fn stats_by(
    app: &Clients,
    (start, end): (Timestamp, Timestamp),
    granularity: Granularity,
    zone: &str,
    group_by: &str,
) -> Result<Vec<MetricStats>> {
    let request = GetUsageStatsRequest {
        account_id: ACCOUNT.to_owned(),
        metrics: METRICS.map(str::to_owned).to_vec(),
        start_time: Some(to_proto_time(start)),
        end_time: Some(to_proto_time(end)),
        granularity: granularity.into(),
        zone: zone.to_owned(),
        compare: true,
        group_by: group_by.to_owned(),
    };
    Ok(app
        .usage
        .clone()
        .get_usage_stats(request)
        .await?
        .into_inner()
        .stats)
}

/// Where the local hour or day of an instant begins, as the calendar of the zone says.
fn starts_at(at: Timestamp, zone: &TimeZone, unit: Unit) -> Result<Zoned> {
    let local = at.to_zoned(zone.clone());
    Ok(match unit {
        Unit::Day => local.start_of_day()?,
        _ => local.round(
            jiff::ZonedRound::new()
                .smallest(unit)
                .mode(jiff::RoundMode::Trunc),
        )?,
    })
}

async fn figures_are_those_of_the_events_in_every_zone(fleet: &mut Fleet) -> Result<()> {
    let app = with_all_aggregations(fleet).await?;
    let all = some_days(now());
    eventually("usage has the catalog", async || record(&app, &all).await).await?;
    let end = Timestamp::from_second(now().as_second() / 900 * 900 + 900)?;
    let whole = (end - SignedDuration::from_hours(24 * 6), end);
    eventually("the rollups have everything", async || {
        let found = stats(&app, whole, Granularity::Day, "UTC").await?;
        ensure!(found.iter().all(|metric| metric.total_events == 400), "{found:?}");
        Ok(())
    })
    .await?;
    let counted: Counted = METRICS.iter().map(|metric| (*metric, all.clone())).collect();
    check_figures(&app, end, &counted).await?;
    groups_are_those_of_the_values(&app, &counted, whole).await
}

/// The figures before `end` are those of what counts, however the range is cut.
pub(crate) async fn check_figures(app: &Clients, end: Timestamp, counted: &Counted) -> Result<()> {
    for (zone, granularity, unit, hours, off_s) in [
        ("UTC", Granularity::Day, Unit::Day, 24 * 6, 0),
        ("Asia/Kathmandu", Granularity::Day, Unit::Day, 24 * 2, 433),
        ("Asia/Kolkata", Granularity::Hour, Unit::Hour, 48, 0),
        ("America/New_York", Granularity::Hour, Unit::Hour, 30, 433),
        ("UTC", Granularity::Hour, Unit::Hour, 1, 1_700),
    ] {
        let range = (
            end - SignedDuration::from_hours(hours) + off_s.seconds(),
            end - off_s.seconds(),
        );
        let calendar = TimeZone::get(zone)?;
        for found in stats(app, range, granularity, zone).await? {
            let metric = found.metric.as_str();
            let all = counted.get(metric).context("another metric")?;
            let inside: Vec<&Used> = all
                .iter()
                .filter(|one| (range.0..range.1).contains(&one.at))
                .collect();
            ensure!(found.total_value == figure(metric, &inside), "{zone}: {found:?}");
            ensure!(!found.total_estimated, "{found:?}");
            for bucket in &found.buckets {
                let of_bucket = starts_at(start_of(bucket)?, &calendar, unit)?;
                let mut used = Vec::new();
                for one in &inside {
                    if starts_at(one.at, &calendar, unit)? == of_bucket {
                        used.push(*one);
                    }
                }
                let expected = (figure(metric, &used), used.len() as u64);
                ensure!(
                    (bucket.value, bucket.events) == expected,
                    "{zone} {metric} {bucket:?}: {expected:?}"
                );
            }
            let previous = found.previous.context("nothing of the period before")?;
            ensure!(previous.buckets.len() == found.buckets.len(), "{previous:?}");
            for bucket in &previous.buckets {
                let range = start_of(bucket)?..end_of(bucket)?;
                let used: Vec<&Used> = all.iter().filter(|one| range.contains(&one.at)).collect();
                let expected = (figure(metric, &used), used.len() as u64);
                ensure!(
                    (bucket.value, bucket.events) == expected,
                    "{metric} {bucket:?}: {expected:?}"
                );
            }
        }
    }
    Ok(())
}

pub(crate) async fn groups_are_those_of_the_values(
    app: &Clients,
    counted: &Counted,
    whole: (Timestamp, Timestamp),
) -> Result<()> {
    for found in stats_by(app, whole, Granularity::Day, "Asia/Kathmandu", "user").await? {
        let metric = found.metric.as_str();
        let all = counted.get(metric).context("another metric")?;
        let users: BTreeSet<&str> = all.iter().map(|one| one.user.as_str()).collect();
        ensure!(
            (found.groups.len(), found.groups_left_off) == (users.len(), 0),
            "{metric}"
        );
        let events: Vec<u64> = found.groups.iter().map(|group| group.total_events).collect();
        ensure!(events.is_sorted_by(|many, few| many >= few), "{events:?}");
        for group in &found.groups {
            let user = group.value.as_deref().context("no user")?;
            let of_user: Vec<&Used> = all.iter().filter(|one| one.user == user).collect();
            let expected = (figure(metric, &of_user), of_user.len() as u64);
            ensure!(
                (group.total_value, group.total_events) == expected,
                "{metric} {user}: {group:?}"
            );
            for bucket in &group.buckets {
                let range = start_of(bucket)?..end_of(bucket)?;
                let used: Vec<&Used> = of_user
                    .iter()
                    .copied()
                    .filter(|one| range.contains(&one.at))
                    .collect();
                ensure!(
                    bucket.value == figure(metric, &used),
                    "{metric} {user}: {bucket:?}"
                );
            }
        }
    }
    // Nobody has said that.
    for found in stats_by(app, whole, Granularity::Month, "UTC", "region").await? {
        let [group] = &found.groups[..] else {
            anyhow::bail!("{found:?}");
        };
        ensure!(
            group.value.is_none() && group.total_value == found.total_value,
            "{found:?}"
        );
    }
    Ok(())
}

fn start_of(bucket: &UsageBucket) -> Result<Timestamp> {
    let start = bucket.start_time.as_ref().context("no start")?;
    Ok(Timestamp::new(start.seconds, start.nanos)?)
}

fn end_of(bucket: &UsageBucket) -> Result<Timestamp> {
    let end = bucket.end_time.as_ref().context("no end")?;
    Ok(Timestamp::new(end.seconds, end.nanos)?)
}

async fn many_distinct_values_are_estimated(fleet: &mut Fleet) -> Result<()> {
    let app = with_all_aggregations(fleet).await?;
    let at = now() - 1.hour();
    let user = |number: u32| UsageEvent {
        event_time: Some(to_proto_time(at)),
        properties: HashMap::from([("user".to_owned(), format!("user-{number}"))]),
        ..event(ACCOUNT, &format!("e-{number}"), "a.unique", 1)
    };
    let batch = |numbers: std::ops::Range<u32>| TrackUsageBatchRequest {
        events: numbers.map(user).collect(),
        ..TrackUsageBatchRequest::default()
    };
    eventually("usage has the catalog", async || {
        let answer = app
            .usage
            .clone()
            .track_usage_batch(batch(0..4_095))
            .await?
            .into_inner();
        ensure!(
            answer
                .results
                .iter()
                .all(|one| format!("{one:?}").contains("Recorded"))
        );
        Ok(())
    })
    .await?;
    let end = Timestamp::from_second(now().as_second() / 900 * 900 + 900)?;
    let unique = async || -> Result<MetricStats> {
        let found = stats(&app, (end - 24.hours(), end), Granularity::Day, "UTC").await?;
        found
            .into_iter()
            .find(|one| one.metric == "a.unique")
            .context("no figure")
    };
    eventually("all are counted exactly", async || {
        let found = unique().await?;
        ensure!(
            (found.total_value, found.total_estimated) == (4_095, false),
            "{found:?}"
        );
        Ok(())
    })
    .await?;
    app.usage.clone().track_usage_batch(batch(4_000..14_000)).await?;
    eventually("more are estimated", async || {
        let found = unique().await?;
        // Five standard errors.
        ensure!(
            found.total_estimated && found.total_value.abs_diff(14_000) <= 1_120,
            "{found:?}"
        );
        Ok(())
    })
    .await
}
