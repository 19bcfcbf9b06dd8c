//! An account that moves to another zone: its windows end as they began, and those after them follow the new one.

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp, ToSpan as _, tz::TimeZone};
use octroi_proto::{
    account::v1::UpdateAccountRequest,
    common::v1::Period,
    quota::v1::{CheckQuotaResponse, LimitStatus},
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, Topology, eventually, roomy_hour, tell};
use sqlx::{Connection as _, PgConnection};

use crate::{
    asks::{consume, decide, standing, upsert_account},
    clock::in_the_sandbox,
};

mod one_process {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn windows_end_as_they_began_and_the_next_follow_the_new_zone() -> Result<()> {
        let sandbox = Fleet::builder(Topology::OneProcess).set("sandbox", "true");
        tell(
            sandbox,
            super::windows_end_as_they_began_and_the_next_follow_the_new_zone,
        )
        .await
    }
}

mod split {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn windows_end_as_they_began_and_the_next_follow_the_new_zone() -> Result<()> {
        let sandbox = Fleet::builder(Topology::Split).set("sandbox", "true");
        tell(
            sandbox,
            super::windows_end_as_they_began_and_the_next_follow_the_new_zone,
        )
        .await
    }
}

const ACCOUNT: &str = "acme";
/// 2 an hour and 5 a day, where nothing was bought.
const METRIC: &str = "exports.run";
/// 5 hours and 45 minutes ahead of UTC, all year: its hours begin a quarter past ours.
const ZONE: &str = "Asia/Kathmandu";

/// The first instant of a window, and the first after it.
type Borders = (Timestamp, Timestamp);

fn borders(limit: &LimitStatus) -> Result<Borders> {
    let instant = |time: Option<prost_types::Timestamp>| -> Result<Timestamp> {
        Ok(Timestamp::from_second(
            time.context("a window without end")?.seconds,
        )?)
    };
    Ok((instant(limit.window_start_time)?, instant(limit.window_end_time)?))
}

async fn window(app: &Clients, period: Period) -> Result<(Borders, u64)> {
    let limit = standing(app, ACCOUNT, METRIC, period).await?;
    Ok((borders(&limit)?, limit.used))
}

async fn take(app: &Clients, request_id: &str) -> Result<CheckQuotaResponse> {
    Ok(decide(app, consume(ACCOUNT, request_id, &[(METRIC, 1)])).await?)
}

async fn windows_end_as_they_began_and_the_next_follow_the_new_zone(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    for request_id in ["r-1", "r-2"] {
        let taken = take(&app, request_id).await?;
        ensure!(taken.allowed, "{taken:?}");
    }
    let (hour, day) = (
        window(&app, Period::Hour).await?,
        window(&app, Period::Day).await?,
    );
    ensure!(
        lasts(hour.0) == SignedDuration::from_hours(1) && lasts(day.0) == SignedDuration::from_hours(24),
        "{hour:?} {day:?}"
    );

    move_to_the_zone(fleet, &app).await?;
    for (period, before) in [(Period::Hour, hour), (Period::Day, day)] {
        let after = window(&app, period).await?;
        ensure!(after == before, "{before:?} became {after:?}");
    }
    let denied = take(&app, "r-3").await?;
    ensure!(!denied.allowed, "the hour is still full: {denied:?}");

    // The first hour of the new zone is what it leaves of our quarter.
    clock_moves_to(fleet, hour.0.1 + 1.minute()).await?;
    let first = becomes(&app, Period::Hour, hour.0.1).await?;
    ensure!(lasts(first) == SignedDuration::from_mins(15), "{first:?}");
    take_at_the_new_time(&app, "r-4").await?;
    ensure!(
        window(&app, Period::Hour).await?.1 == 1,
        "the new hour began with nothing"
    );
    clock_moves_to(fleet, first.1 + 1.minute()).await?;
    let second = becomes(&app, Period::Hour, first.1).await?;
    ensure!(lasts(second) == SignedDuration::from_hours(1), "{second:?}");

    // The day ends at our midnight, and the next at theirs.
    if second.0 < day.0.1 {
        ensure!(
            window(&app, Period::Day).await? == (day.0, 3),
            "the day goes on as it began"
        );
    }
    clock_moves_to(fleet, day.0.1 + 1.minute()).await?;
    let next = becomes(&app, Period::Day, day.0.1).await?;
    let midnight = next.1.to_zoned(TimeZone::get(ZONE)?).time();
    ensure!(
        midnight == jiff::civil::Time::midnight() && lasts(next) < SignedDuration::from_hours(24),
        "{next:?}"
    );
    clock_moves_to(fleet, next.1 + 1.minute()).await?;
    let after = becomes(&app, Period::Day, next.1).await?;
    ensure!(lasts(after) == SignedDuration::from_hours(24), "{after:?}");
    take_at_the_new_time(&app, "r-5").await?;
    Ok(())
}

fn lasts((start, end): Borders) -> SignedDuration {
    end.duration_since(start)
}

/// Waits until quota has heard of it: a move that it hears of late would act from a later window on.
async fn move_to_the_zone(fleet: &Fleet, app: &Clients) -> Result<()> {
    let request = UpdateAccountRequest {
        account_id: ACCOUNT.to_owned(),
        zone: Some(ZONE.to_owned()),
        ..UpdateAccountRequest::default()
    };
    app.account.clone().update_account(request).await?;
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    eventually("quota has heard of the zone", async || {
        let known: bool = sqlx::query_scalar(
            "SELECT calendar::text LIKE '%' || $2 || '%' FROM quota.account_state WHERE account_id = $1",
        )
        .bind(ACCOUNT)
        .bind(ZONE)
        .fetch_one(&mut session)
        .await?;
        ensure!(known);
        Ok(())
    })
    .await?;
    Ok(session.close().await?)
}

/// For about a second, some services have the time of before.
async fn clock_moves_to(fleet: &Fleet, instant: Timestamp) -> Result<()> {
    in_the_sandbox(fleet, &["move", &instant.to_string()]).await?;
    Ok(())
}

/// Until the ledger has heard of the new time, it refuses what is sent to it from the future.
async fn take_at_the_new_time(app: &Clients, request_id: &str) -> Result<()> {
    let taken = eventually("the ledger is at the new time", async || {
        take(app, request_id).await
    })
    .await?;
    ensure!(taken.allowed, "{taken:?}");
    Ok(())
}

/// Waits until the present window of `period` begins at this instant, and answers where it ends.
async fn becomes(app: &Clients, period: Period, start: Timestamp) -> Result<Borders> {
    eventually("the next window begins where the last has ended", async || {
        let (borders, _) = window(app, period).await?;
        ensure!(borders.0 == start, "{borders:?} begins not at {start}");
        Ok(borders)
    })
    .await
}
