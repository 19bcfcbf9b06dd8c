//! What the ledger comes to by quarters of an hour and days.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, PropertyKey, Units, Window};
use octroi_kit::db::{DatabaseError, corrupt, from_sql, to_sql};
use sqlx::{PgConnection, types::Decimal};
use time::OffsetDateTime;

use super::{
    distinct::{self, Width},
    recount,
};
use crate::domain::{
    buckets::{day_of, whole_days},
    distinct::Salt,
    figures::{Figures, Latest},
};

/// The statement that adds buckets to a table of the rollups.
macro_rules! add_to {
    ($table:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " AS r (account_id, metric, bucket_at, amount, events, max_amount, latest_at, latest_amount)
             SELECT * FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[], $6::bigint[],
                                  $7::timestamptz[], $8::bigint[])
             ON CONFLICT (account_id, metric, bucket_at) DO UPDATE
             SET amount = r.amount + excluded.amount, events = r.events + excluded.events,
                 max_amount = greatest(r.max_amount, excluded.max_amount),
                 (latest_at, latest_amount) = (SELECT latest_at, latest_amount
                     FROM (VALUES (r.latest_at, r.latest_amount), (excluded.latest_at, excluded.latest_amount))
                          AS both_of (latest_at, latest_amount)
                     ORDER BY latest_at DESC NULLS LAST, latest_amount DESC LIMIT 1)"
        )
    };
}

/// One metric of one account in one stretch of time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket {
    /// The account.
    pub account: String,
    /// The metric.
    pub metric: String,
    /// Where the quarter of an hour, or the day, begins.
    pub start_at: Timestamp,
}

/// Adds what quarters of an hour come to: to them, and to their days.
///
/// Whoever adds to a quarter holds its row until the transaction ends, and so has its distinct values, and in turn those
/// of its day, alone. One of the `events`, with their quarters and times, may have been corrected before it comes here: what
/// cannot be taken off again is then found anew.
pub async fn add_to_rollups(
    connection: &mut PgConnection,
    quarters: &BTreeMap<Bucket, Figures>,
    events: &[(Bucket, Timestamp)],
) -> Result<(), DatabaseError> {
    let mut days: BTreeMap<Bucket, Figures> = BTreeMap::new();
    for (bucket, figures) in quarters {
        let day = Bucket {
            start_at: day_of(bucket.start_at),
            ..bucket.clone()
        };
        days.entry(day).or_default().add(figures);
    }
    for (width, buckets) in [(Width::Quarter, quarters), (Width::Day, &days)] {
        add(connection, width, buckets).await?;
        distinct::add(connection, width, buckets).await?;
    }
    let corrected = recount::list_corrected(connection, events).await?;
    recount::recount(connection, &corrected.into_iter().collect::<Vec<_>>()).await
}

async fn add(
    connection: &mut PgConnection,
    width: Width,
    buckets: &BTreeMap<Bucket, Figures>,
) -> Result<(), DatabaseError> {
    let statement = match width {
        Width::Quarter => add_to!("rollup_quarter"),
        Width::Day => add_to!("rollup_day"),
    };
    let amounts: Result<Vec<Decimal>, DatabaseError> = (buckets.values())
        .map(|figures| {
            let amount = i128::try_from(figures.amount).map_err(corrupt("amount"))?;
            Decimal::try_from_i128_with_scale(amount, 0).map_err(corrupt("amount"))
        })
        .collect();
    let events: Result<Vec<i64>, _> = buckets
        .values()
        .map(|figures| i64::try_from(figures.events))
        .collect();
    let latest = || buckets.values().map(|figures| figures.latest);
    let latest_at: Vec<Option<OffsetDateTime>> = latest()
        .map(|latest| latest.map(|latest| to_sql(latest.event_at)))
        .collect();
    let latest_amounts: Vec<Option<i64>> = latest()
        .map(|latest| latest.map(|latest| latest.amount.as_i64()))
        .collect();
    sqlx::query(statement)
        .bind(
            buckets
                .keys()
                .map(|bucket| bucket.account.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            buckets
                .keys()
                .map(|bucket| bucket.metric.as_str())
                .collect::<Vec<_>>(),
        )
        .bind(
            buckets
                .keys()
                .map(|bucket| to_sql(bucket.start_at))
                .collect::<Vec<_>>(),
        )
        .bind(amounts?)
        .bind(events.map_err(corrupt("number of events"))?)
        .bind(
            buckets
                .values()
                .map(|figures| figures.max.map(Units::as_i64))
                .collect::<Vec<_>>(),
        )
        .bind(latest_at)
        .bind(latest_amounts)
        .execute(connection)
        .await?;
    Ok(())
}

/// A window by its metric and its place, and what it comes to.
pub(super) type WindowRow = (
    String,
    i64,
    Decimal,
    i64,
    Option<i64>,
    Option<OffsetDateTime>,
    Option<i64>,
);

/// What is counted of an account.
#[derive(Clone, Debug)]
pub struct Counted {
    /// The account.
    pub account: AccountId,
    /// The metrics.
    pub metrics: Vec<MetricSlug>,
    /// Those of the metrics that count the distinct values of a property, and the property.
    pub unique: Vec<(MetricSlug, PropertyKey)>,
    /// What these values are hashed with.
    pub salt: Salt,
}

/// What windows of quarters of an hour come to, by metric and place of the window; one without events is not there.
pub async fn sum_windows(
    connection: &mut PgConnection,
    counted: &Counted,
    windows: &[Window],
) -> Result<HashMap<(MetricSlug, usize), Figures>, DatabaseError> {
    let bounds = Bounds::of(windows);
    let rows: Vec<WindowRow> = sqlx::query_as(
        "SELECT r.metric, b.place, greatest(sum(r.amount), 0), greatest(sum(r.events)::bigint, 0), max(r.max_amount), max(r.latest_at),
                (array_agg(r.latest_amount ORDER BY r.latest_at DESC NULLS LAST, r.latest_amount DESC))[1]
         FROM unnest($3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::timestamptz[]) WITH ORDINALITY
              AS b (start_at, days_start_at, days_end_at, end_at, place)
         CROSS JOIN LATERAL (
             SELECT metric, amount, events, max_amount, latest_at, latest_amount FROM rollup_quarter
             WHERE account_id = $1 AND metric = ANY($2) AND bucket_at >= b.start_at AND bucket_at < b.days_start_at
             UNION ALL
             SELECT metric, amount, events, max_amount, latest_at, latest_amount FROM rollup_day
             WHERE account_id = $1 AND metric = ANY($2) AND bucket_at >= b.days_start_at AND bucket_at < b.days_end_at
             UNION ALL
             SELECT metric, amount, events, max_amount, latest_at, latest_amount FROM rollup_quarter
             WHERE account_id = $1 AND metric = ANY($2) AND bucket_at >= b.days_end_at AND bucket_at < b.end_at
             OFFSET 0) AS r
         GROUP BY r.metric, b.place",
    )
    .bind(counted.account.as_str())
    .bind(counted.metrics.iter().map(MetricSlug::as_str).collect::<Vec<_>>())
    .bind(&bounds.start_at)
    .bind(&bounds.days_start_at)
    .bind(&bounds.days_end_at)
    .bind(&bounds.end_at)
    .fetch_all(&mut *connection)
    .await?;
    let mut sums = HashMap::with_capacity(rows.len());
    for row in rows {
        let (key, figures) = window_figures(row)?;
        sums.insert(key, figures);
    }
    if !counted.unique.is_empty() {
        for (key, values) in distinct::list(connection, counted, &bounds).await? {
            let figures: &mut Figures = sums.entry(key).or_default();
            figures.distinct.add(&values);
        }
    }
    Ok(sums)
}

/// Where windows begin and end, and the whole days of UTC in each.
pub(super) struct Bounds {
    pub(super) start_at: Vec<OffsetDateTime>,
    pub(super) days_start_at: Vec<OffsetDateTime>,
    pub(super) days_end_at: Vec<OffsetDateTime>,
    pub(super) end_at: Vec<OffsetDateTime>,
}

impl Bounds {
    fn of(windows: &[Window]) -> Self {
        let days: Vec<Window> = windows.iter().map(|window| whole_days(*window)).collect();
        let starts = |windows: &[Window]| windows.iter().map(|window| to_sql(window.start)).collect();
        let ends = |windows: &[Window]| windows.iter().map(|window| to_sql(window.end)).collect();
        Self {
            start_at: starts(windows),
            days_start_at: starts(&days),
            days_end_at: ends(&days),
            end_at: ends(windows),
        }
    }
}

pub(super) fn window_figures(row: WindowRow) -> Result<((MetricSlug, usize), Figures), DatabaseError> {
    let (metric, place, amount, events, max, latest_at, latest_amount) = row;
    let units = |amount: Option<i64>| amount.map(Units::try_from).transpose().map_err(corrupt("amount"));
    let latest = latest_at.zip(units(latest_amount)?);
    let figures = Figures {
        amount: u128::try_from(amount.mantissa()).map_err(corrupt("sum"))?,
        events: u64::try_from(events).map_err(corrupt("number of events"))?,
        max: units(max)?,
        latest: latest.map(|(at, amount)| Latest {
            event_at: from_sql(at),
            amount,
        }),
        ..Figures::default()
    };
    Ok((window_key(&metric, place)?, figures))
}

/// The metric and the place, counted from 0, of a window that the database counts from 1.
pub(super) fn window_key(metric: &str, place: i64) -> Result<(MetricSlug, usize), DatabaseError> {
    let metric = MetricSlug::parse(metric).map_err(corrupt("metric"))?;
    let place = usize::try_from(place - 1).map_err(corrupt("place"))?;
    Ok((metric, place))
}

/// Events that the rollups do not have yet, over all accounts: what `rollup_lag` counts up with each commit of
/// the ledger and down with each of the rollups.
pub async fn count_rollup_lag(connection: &mut PgConnection) -> Result<u64, DatabaseError> {
    let lag: i64 = sqlx::query_scalar("SELECT coalesce(sum(events), 0)::bigint FROM rollup_lag")
        .fetch_one(connection)
        .await?;
    u64::try_from(lag).map_err(corrupt("rollup lag"))
}
