//! One batch of hours: what is found in them, and what becomes of it.

use std::{cmp::Reverse, collections::HashMap};

use jiff::{SignedDuration, Timestamp};
use octroi_core::Window;
use octroi_kit::{convert::to_proto_time, outbox};
use octroi_proto::events::v1::AnomalyDetected;
use sqlx::PgConnection;

use crate::{
    convert::{to_proto_anomaly_kind, to_proto_peak},
    domain::anomaly::{Course, Finding, Kind, Rules, Step, judge, next, reach_back},
    error::Error,
    store::{self, Series},
};

/// The anomalies of an account are counted over so long.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// An hour that is looked at, and where those begin that it is compared with, the newest first.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) series: Series,
    pub(super) hour: Window,
    pub(super) samples: Vec<Timestamp>,
}

/// Something found in one series.
struct Found<'a> {
    series: &'a Series,
    finding: Finding,
}

/// Looks at hours, writes down what is found, and tells it; whether anything was told. The number of statements does not
/// depend on how many hours there are, but for those in which something is found.
pub(super) async fn look_at_batch(
    connection: &mut PgConnection,
    asked: &[Asked],
    rules: &Rules,
    account_day_max: u32,
    now: Timestamp,
) -> Result<bool, Error> {
    if asked.is_empty() {
        return Ok(false);
    }
    // Before the sums: what the rollups get in between is not missed in them.
    let lacking = store::count_rollup_lag(connection).await?;
    let found = find(connection, asked, rules).await?;
    let found = without_usual_records(connection, found, rules).await?;
    let mut found = without_late_rollups(connection, found, lacking).await?;
    if found.is_empty() {
        return Ok(false);
    }
    // Of the findings of one account the largest are first, where not all of them may begin an anomaly.
    found.sort_by_key(|one| (one.series.account.as_str(), Reverse(one.finding.score)));
    write(connection, &found, account_day_max, now).await
}

/// Judges every hour.
async fn find<'a>(
    connection: &mut PgConnection,
    asked: &'a [Asked],
    rules: &Rules,
) -> Result<Vec<Found<'a>>, Error> {
    let hours_of = |one: &'a Asked| {
        let starts = std::iter::once(one.hour.start).chain(one.samples.iter().copied());
        starts.map(move |start_at| (&one.series, start_at))
    };
    let hours: Vec<(&Series, Timestamp)> = asked.iter().flat_map(hours_of).collect();
    let mut sums = store::sum_hours(connection, &hours).await?.into_iter();
    let mut found = Vec::new();
    for one in asked {
        let actual = sums.next().unwrap_or_default().during;
        let samples: Vec<_> = sums.by_ref().take(one.samples.len()).collect();
        found.extend(judge(one.hour, actual, &samples, rules).map(|finding| Found {
            series: &one.series,
            finding,
        }));
    }
    Ok(found)
}

/// Where an hour usually has no use, only what is more than any hour of the weeks before stays.
async fn without_usual_records<'a>(
    connection: &mut PgConnection,
    found: Vec<Found<'a>>,
    rules: &Rules,
) -> Result<Vec<Found<'a>>, Error> {
    let (idle, mut kept): (Vec<_>, Vec<_>) = (found.into_iter()).partition(|one| one.finding.is_of_idle_hour);
    let Some(first) = idle.first() else {
        return Ok(kept);
    };
    let since = reach_back(first.finding.hour.start, rules.weeks);
    let largest = store::largest_hours(connection, &hours(&idle), since).await?;
    let stands = |(one, largest): (Found<'a>, u64)| one.finding.stands(largest).then_some(one);
    kept.extend(idle.into_iter().zip(largest).filter_map(stands));
    Ok(kept)
}

/// Where the rollups lack anything, less than expected only stays where the ledger itself has no more. An hour of which it has too
/// many events to add them up is none of few.
async fn without_late_rollups<'a>(
    connection: &mut PgConnection,
    found: Vec<Found<'a>>,
    lacking: u64,
) -> Result<Vec<Found<'a>>, Error> {
    let (drops, mut kept): (Vec<_>, Vec<_>) =
        (found.into_iter()).partition(|one| one.finding.kind == Kind::Drop);
    if drops.is_empty() || lacking == 0 {
        kept.extend(drops);
        return Ok(kept);
    }
    let recorded = store::sum_ledger_hours(connection, &hours(&drops)).await?;
    let stands = |(one, recorded): (Found<'a>, Option<u64>)| {
        recorded
            .is_some_and(|recorded| recorded < one.finding.low)
            .then_some(one)
    };
    kept.extend(drops.into_iter().zip(recorded).filter_map(stands));
    Ok(kept)
}

fn hours<'a>(found: &[Found<'a>]) -> Vec<(&'a Series, Timestamp)> {
    let hours = found.iter().map(|one| (one.series, one.finding.hour.start));
    hours.collect()
}

/// Writes down what findings become, and tells what begins or has become twice as large.
async fn write(
    connection: &mut PgConnection,
    found: &[Found<'_>],
    account_day_max: u32,
    now: Timestamp,
) -> Result<bool, Error> {
    let series: Vec<(&Series, Kind)> = (found.iter()).map(|one| (one.series, one.finding.kind)).collect();
    let lasts = store::list_last_courses(connection, &series).await?;
    let mut begun = begun_in_a_day(connection, found).await?;
    let mut told = false;
    for (one, last) in found.iter().zip(lasts) {
        let (course, tell, grown) = match next(last.as_ref(), &one.finding) {
            Step::Known => continue,
            Step::Grow { course, tell } => (course, tell, true),
            Step::Begin(course) => {
                let begun = begun.entry(one.series.account.clone()).or_default();
                if *begun >= i64::from(account_day_max) {
                    metrics::counter!("octroi_usage_anomalies_left_out_total").increment(1);
                    continue;
                }
                *begun += 1;
                metrics::counter!("octroi_usage_anomalies_total", "kind" => course.kind.as_str())
                    .increment(1);
                (course, true, false)
            }
        };
        let id = store::upsert_anomaly(connection, one.series, &course, now).await?;
        if tell {
            let event = detected(one.series, &id.to_string(), &course, grown);
            outbox::enqueue(connection, &event, now).await?;
            told = true;
        }
    }
    Ok(told)
}

/// How many anomalies of each account began within the day before.
async fn begun_in_a_day(
    connection: &mut PgConnection,
    found: &[Found<'_>],
) -> Result<HashMap<String, i64>, Error> {
    let Some(first) = found.first() else {
        return Ok(HashMap::new());
    };
    // They are sorted by account.
    let mut accounts: Vec<&str> = found.iter().map(|one| one.series.account.as_str()).collect();
    accounts.dedup();
    let since = first
        .finding
        .hour
        .end
        .saturating_sub(DAY)
        .unwrap_or(Timestamp::MIN);
    let begun = store::count_anomalies_since(connection, &accounts, since).await?;
    Ok(begun.into_iter().collect())
}

fn detected(series: &Series, anomaly_id: &str, course: &Course, grown: bool) -> AnomalyDetected {
    AnomalyDetected {
        account_id: series.account.clone(),
        anomaly_id: anomaly_id.to_owned(),
        metric: series.metric.clone(),
        kind: to_proto_anomaly_kind(course.kind),
        start_time: Some(to_proto_time(course.start_at)),
        end_time: Some(to_proto_time(course.end_at)),
        peak: Some(to_proto_peak(&course.peak)),
        grown,
    }
}
