//! Rollups and figures.

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use octroi_kit::convert::to_proto_time;
use octroi_proto::usage::v1::{GetWatermarkRequest, Granularity, TrackUsageRequest, UsageEvent};
use octroi_tests::harness::fleet::{Clients, Fleet, OPERATOR, eventually, now};

use super::{amend, amend_all, made, undo, void, void_all};
use crate::{
    aggregations::{
        ACCOUNT, Counted, METRICS, Used, check_figures, groups_are_those_of_the_values, record, some_days,
        stats, with_all_aggregations,
    },
    asks::{event, ledger_total},
};

/// The end of the running quarter of an hour.
fn end_of_quarter() -> Result<Timestamp> {
    Ok(Timestamp::from_second(now().as_second() / 900 * 900 + 900)?)
}

/// What an event is amended to, where it is.
fn amended(number: usize) -> Option<u64> {
    number.is_multiple_of(3).then_some(number as u64 * 7 % 200)
}

fn is_voided(number: usize) -> bool {
    number.is_multiple_of(5)
}

/// What counts once every third event is amended and every fifth is voided.
fn counted(all: &[Used]) -> Counted {
    let of_metric = |metric: &'static str| {
        let left = all.iter().enumerate().filter(|(number, _)| !is_voided(*number));
        let used = left.map(|(number, used)| Used {
            amount: match amended(number) {
                Some(amount) if metric != "a.count" => amount,
                _ => used.amount,
            },
            ..used.clone()
        });
        (metric, used.collect())
    };
    METRICS.iter().map(|metric| of_metric(metric)).collect()
}

pub(super) async fn figures_are_those_of_the_corrected_events(fleet: &mut Fleet) -> Result<()> {
    let app = with_all_aggregations(fleet).await?;
    let operator = fleet.clients(OPERATOR)?;
    let all = some_days(now());
    eventually("usage has the catalog", async || record(&app, &all).await).await?;
    for metric in METRICS {
        let numbers = || 0..all.len();
        let of = |number: usize| format!("{metric}-{number}");
        if metric != "a.count" {
            let amendments = numbers().filter_map(|number| {
                let amount = i64::try_from(amended(number)?).ok()?;
                Some(amend(&format!("{metric}-a{number}"), &of(number), amount))
            });
            made(amend_all(&app, amendments.collect(), false).await?)?;
        }
        let voidings = numbers().filter(|number| is_voided(*number));
        let voidings = voidings.map(|number| void(&format!("{metric}-v{number}"), "", &of(number)));
        made(void_all(&app, voidings.collect()).await?)?;
    }
    let (end, counted) = (end_of_quarter()?, counted(&all));
    eventually("the rollups have everything", async || caught_up(&operator).await).await?;
    check_figures(&app, end, &counted).await?;
    groups_are_those_of_the_values(&app, &counted, (end - SignedDuration::from_hours(24 * 6), end)).await?;
    let sum: u64 = counted
        .get("a.sum")
        .into_iter()
        .flatten()
        .map(|one| one.amount)
        .sum();
    let total = ledger_total(&operator, ACCOUNT, "a.sum").await?;
    ensure!(
        (total.direct_amount, total.rollup_amount, total.events) == (sum, sum, 320),
        "{sum}: {total:?}"
    );
    taken_back(&app, &operator, &all, end).await
}

/// Every voiding is undone, and every amendment after it: everything counts as it was recorded.
async fn taken_back(app: &Clients, operator: &Clients, all: &[Used], end: Timestamp) -> Result<()> {
    for metric in METRICS {
        let of = |number: usize| format!("{metric}-{number}");
        let voided = (0..all.len()).filter(|number| is_voided(*number)).map(|number| {
            undo(
                &format!("{metric}-uv{number}"),
                &of(number),
                &format!("{metric}-v{number}"),
            )
        });
        made(amend_all(app, voided.collect(), false).await?)?;
        if metric == "a.count" {
            continue;
        }
        // One that was voided after it was amended has the undoing of that as its newest correction.
        let again = (0..all.len()).filter(|number| amended(*number).is_some());
        let again = again.filter_map(|number| {
            let recorded = i64::try_from(all.get(number)?.amount).ok()?;
            Some(amend(&format!("{metric}-b{number}"), &of(number), recorded))
        });
        made(amend_all(app, again.collect(), false).await?)?;
    }
    eventually("the rollups have everything", async || caught_up(operator).await).await?;
    let counted: Counted = METRICS.iter().map(|metric| (*metric, all.to_vec())).collect();
    check_figures(app, end, &counted).await
}

/// Nothing waits to be added to the rollups.
async fn caught_up(operator: &Clients) -> Result<()> {
    let watermark = operator
        .usage
        .clone()
        .get_watermark(GetWatermarkRequest {})
        .await?;
    let lag = watermark.into_inner().rollup_lag_events;
    ensure!(lag == 0, "{lag} are not in the rollups");
    Ok(())
}

/// The bus may bring what corrects an event before the event.
pub(super) async fn corrections_that_overtake_their_events_count_all_the_same(
    fleet: &mut Fleet,
) -> Result<()> {
    let app = with_all_aggregations(fleet).await?;
    let operator = fleet.clients(OPERATOR)?;
    let at = now() - 3.hours();
    let mut counted: Counted = METRICS.iter().map(|metric| (*metric, Vec::new())).collect();
    for number in 0..40_u64 {
        for metric in METRICS {
            let amount = if metric == "a.count" { 1 } else { number + 1 };
            let id = format!("{metric}-{number}");
            let recorded = UsageEvent {
                event_time: Some(to_proto_time(at)),
                properties: [("user".to_owned(), format!("user-{number}"))].into(),
                ..event(ACCOUNT, &id, metric, i64::try_from(amount)?)
            };
            let request = TrackUsageRequest {
                event: Some(recorded),
                backfill: false,
            };
            eventually("usage has the catalog", async || {
                Ok(app.usage.clone().track_usage(request.clone()).await?)
            })
            .await?;
            // At once, and each of them is the largest and the newest until then.
            if number % 2 == 1 {
                made(void_all(&app, vec![void(&format!("v-{id}"), "", &id)]).await?)?;
            } else if let Some(used) = counted.get_mut(metric) {
                used.push(Used {
                    at,
                    amount,
                    user: format!("user-{number}"),
                });
            }
        }
    }
    eventually("the rollups have everything", async || caught_up(&operator).await).await?;
    let end = end_of_quarter()?;
    for found in stats(&app, (end - 24.hours(), end), Granularity::Day, "UTC").await? {
        ensure!(found.total_events == 20, "{found:?}");
    }
    check_figures(&app, end, &counted).await
}
