//! An amount that replaces a plan's, raised or lowered, for a time or until it is cleared.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use octroi_proto::{
    common::v1::{LimitMode, Period, Stage},
    errors::v1::ErrorReason,
    quota::v1::{
        ApplyEntitlementsRequest, CheckQuotaRequest, CommitHoldRequest, GetEntitlementsRequest,
        LimitOverride, LimitStatus, SetLimitOverrideRequest,
    },
};
use octroi_tests::harness::fleet::{
    APPLICATION, Clients, Fleet, OPERATOR, eventually, now, roomy_hour, within,
};
use tonic::Code;

use super::{ACCOUNT, METRIC, clear, list, made, made_of, set, to};
use crate::asks::{
    check_refusal, consume, decide, not_found, peek, refusal, reserve, standing, upsert_account,
};

/// Within how long a change acts everywhere: a second, and one more for a machine that does other things as well.
const EVERYWHERE: Duration = Duration::from_secs(2);

async fn takes(app: &Clients, request_id: &str, amount: i64, allowed: bool) -> Result<()> {
    let answer = decide(app, consume(ACCOUNT, request_id, &[(METRIC, amount)])).await?;
    ensure!(answer.allowed == allowed, "{amount}: {answer:?}");
    Ok(())
}

async fn hour(app: &Clients) -> Result<LimitStatus> {
    standing(app, ACCOUNT, METRIC, Period::Hour).await
}

pub(super) async fn hour_is(app: &Clients, limit: u64, used: u64, remaining: u64) -> Result<()> {
    let hour = hour(app).await?;
    let found = (hour.limit, hour.used, hour.remaining);
    ensure!(found == (limit, used, remaining), "{hour:?}");
    Ok(())
}

pub(super) async fn an_override_holds_at_once_until_it_is_cleared(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let limits = list(&app).await?;
    ensure!(limits.len() == 16, "{limits:?}");
    for source in &limits {
        let (amount, plan, replaced, percent) = made(source)?;
        ensure!((amount, replaced, percent) == (plan, None, 100), "{source:?}");
    }
    raised_and_lowered(&app, &operator).await?;
    what_was_set_aside_before_is_not_spent(&app, &operator).await?;
    the_stage_leaves_its_share_of_it(fleet, &app, &operator).await?;

    let no_limit = not_found(ErrorReason::LimitNotFound);
    let no_metric = not_found(ErrorReason::MetricNotFound).of("metric");
    for (metric, period, expected) in [
        (METRIC, Period::Lifetime, no_limit),
        ("api.bytes", Period::Hour, no_limit),
        ("api.nothing", Period::Hour, no_metric),
    ] {
        check_refusal(metric, set(&operator, to(metric, period, 1)).await, expected)?;
        let cleared = clear(&operator, metric, period).await?.into_inner().cleared;
        ensure!(!cleared, "{metric} had no override");
    }
    let forbidden = refusal(Code::PermissionDenied, ErrorReason::CallerForbidden);
    let answer = set(&app, to(METRIC, Period::Hour, 1_000)).await;
    check_refusal("a program of a customer", answer, forbidden)
}

async fn raised_and_lowered(app: &Clients, operator: &Clients) -> Result<()> {
    takes(app, "r-1", 60, true).await?;
    takes(app, "r-2", 1, false).await?;
    let request = SetLimitOverrideRequest {
        r#override: Some(LimitOverride {
            amount: 100,
            expire_time: None,
            note: "goodwill; ticket 7".to_owned(),
        }),
        ..to(METRIC, Period::Hour, 0)
    };
    let answer = set(operator, request)
        .await?
        .into_inner()
        .limit
        .context("no limit")?;
    ensure!(made(&answer)? == (100, 60, Some(100), 100), "{answer:?}");
    ensure!(
        (answer.r#override.as_ref()).is_some_and(|one| one.note == "goodwill; ticket 7"),
        "{answer:?}"
    );
    hour_is(app, 100, 60, 40).await?;
    takes(app, "r-3", 41, false).await?;
    takes(app, "r-4", 40, true).await?;

    // Below what is used already: nothing is left, and nothing is taken back.
    for amount in [30, 0] {
        set(operator, to(METRIC, Period::Hour, amount)).await?;
        takes(app, &format!("r-below-{amount}"), 1, false).await?;
        let looked = decide(app, peek(ACCOUNT, &[(METRIC, 1)])).await?;
        ensure!(!looked.allowed, "{looked:?}");
        hour_is(app, amount, 100, 0).await?;
    }
    ensure!(
        made_of(app, METRIC, Period::Hour).await? == (0, 60, Some(0), 100),
        "{:?}",
        list(app).await?
    );
    for expected in [true, false] {
        let cleared = clear(operator, METRIC, Period::Hour).await?.into_inner().cleared;
        ensure!(cleared == expected);
        hour_is(app, 60, 100, 0).await?;
        takes(app, &format!("r-cleared-{expected}"), 1, false).await?;
    }
    // The other periods kept their limits all the while.
    let day = standing(app, ACCOUNT, METRIC, Period::Day).await?;
    ensure!((day.limit, day.used) == (500, 100), "{day:?}");
    Ok(())
}

/// A replica that has taken one request has set more of the limit aside.
async fn what_was_set_aside_before_is_not_spent(app: &Clients, operator: &Clients) -> Result<()> {
    let take =
        async |request_id: &str| decide(app, consume(ACCOUNT, request_id, &[("llm.requests", 1)])).await;
    let taken = take("l-1").await?;
    ensure!(taken.allowed, "{taken:?}");
    set(operator, to("llm.requests", Period::Hour, 1)).await?;
    let denied = take("l-2").await?;
    ensure!(!denied.allowed, "{denied:?}");
    set(operator, to("llm.requests", Period::Hour, 3)).await?;
    for (request_id, allowed) in [("l-3", true), ("l-4", true), ("l-5", false)] {
        let answer = take(request_id).await?;
        ensure!(answer.allowed == allowed, "{request_id}: {answer:?}");
    }
    Ok(())
}

async fn the_stage_leaves_its_share_of_it(fleet: &Fleet, app: &Clients, operator: &Clients) -> Result<()> {
    let billing = fleet.clients("billing")?;
    set(operator, to(METRIC, Period::Hour, 1_000)).await?;
    for (version, stage, percent) in [(1, Stage::Restricted, 25), (2, Stage::Current, 100)] {
        apply(app, &billing, version, stage, |_| {}).await?;
        let expected = (10 * u64::from(percent), 60, Some(1_000), percent);
        let found = made_of(app, METRIC, Period::Hour).await?;
        ensure!(found == expected, "{stage:?}: {found:?}");
        hour_is(app, expected.0, 100, expected.0 - 100).await?;
    }
    Ok(())
}

/// Billing pushes what the account has already, with another stage and what `change` makes of its limits.
pub(crate) async fn apply(
    app: &Clients,
    billing: &Clients,
    version: u64,
    stage: Stage,
    change: impl FnOnce(&mut Vec<octroi_proto::common::v1::Limit>),
) -> Result<()> {
    let request = GetEntitlementsRequest {
        account_id: ACCOUNT.to_owned(),
    };
    let held = app.quota.clone().get_entitlements(request).await?.into_inner();
    let mut entitlements = held.entitlements.context("no entitlements")?;
    change(&mut entitlements.limits);
    // A day on which no MONTH window changes.
    let anchor_at: Timestamp = "2026-01-01T00:00:00Z".parse()?;
    let request = ApplyEntitlementsRequest {
        account_id: ACCOUNT.to_owned(),
        version,
        entitlements: Some(entitlements),
        anchor_time: Some(at(anchor_at)),
        stage: stage.into(),
    };
    billing.quota.clone().apply_entitlements(request).await?;
    Ok(())
}

fn at(instant: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: instant.as_second(),
        nanos: instant.subsec_nanosecond(),
    }
}

/// A SOFT limit lets through what is beyond its amount, up to its ceiling.
pub(super) async fn a_ceiling_gives_way_to_an_override_above_it(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let billing = fleet.clients("billing")?;
    apply(&app, &billing, 1, Stage::Current, |limits| {
        for limit in limits.iter_mut().filter(|limit| limit.metric == METRIC) {
            limit.mode = LimitMode::Soft.into();
            limit.ceiling = Some(limit.amount + 10);
        }
    })
    .await?;
    takes(&app, "r-1", 70, true).await?;
    takes(&app, "r-2", 1, false).await?;
    set(&operator, to(METRIC, Period::Hour, 65)).await?;
    takes(&app, "r-3", 1, false).await?;
    set(&operator, to(METRIC, Period::Hour, 90)).await?;
    takes(&app, "r-4", 21, false).await?;
    takes(&app, "r-5", 20, true).await?;
    takes(&app, "r-6", 1, false).await?;
    hour_is(&app, 90, 90, 0).await
}

pub(super) async fn an_override_ends_at_its_time(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    takes(&app, "r-1", 50, true).await?;
    for (round, amount, while_it_holds, after) in [
        (1, 100, (100, 75, 25), (60, 75, 0)),
        (2, 80, (80, 80, 0), (60, 80, 0)),
    ] {
        let end = now() + 5.seconds();
        for_a_time(&operator, METRIC, amount, end).await?;
        let left = hour(&app).await?.remaining;
        let taken = i64::try_from(left.min(25))?;
        takes(&app, &format!("r-while-{round}"), taken, true).await?;
        let (limit, used, remaining) = while_it_holds;
        hour_is(&app, limit, used, remaining).await?;
        ends(end).await?;
        let (limit, used, remaining) = after;
        within(EVERYWHERE, "the plan's limit acts again", async || {
            hour_is(&app, limit, used, remaining).await?;
            takes(&app, &format!("r-after-{round}-{}", now()), 1, false).await
        })
        .await?;
        eventually("it is not told of any more", async || {
            let found = made_of(&app, METRIC, Period::Hour).await?;
            ensure!(found == (60, 60, None, 100), "{found:?}");
            Ok(())
        })
        .await?;
    }

    // One that lowers ends as well.
    let end = now() + 3.seconds();
    for_a_time(&operator, "llm.requests", 0, end).await?;
    let take =
        async |request_id: &str| decide(&app, consume(ACCOUNT, request_id, &[("llm.requests", 20)])).await;
    let denied = take("l-1").await?;
    ensure!(!denied.allowed, "{denied:?}");
    ends(end).await?;
    within(EVERYWHERE, "all of it may be taken", async || {
        let taken = take(&format!("l-{}", now())).await?;
        ensure!(taken.allowed, "{taken:?}");
        Ok(())
    })
    .await
}

async fn for_a_time(operator: &Clients, metric: &str, amount: u64, end: Timestamp) -> Result<()> {
    let request = SetLimitOverrideRequest {
        r#override: Some(LimitOverride {
            amount,
            expire_time: Some(at(end)),
            note: String::new(),
        }),
        ..to(metric, Period::Hour, amount)
    };
    set(operator, request).await?;
    Ok(())
}

async fn ends(end: Timestamp) -> Result<()> {
    eventually("its time has come", async || {
        ensure!(now() >= end);
        Ok(())
    })
    .await
}

pub(super) async fn replicas_share_what_was_replaced(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (one, two) = (
        fleet.clients(APPLICATION)?,
        fleet.clients_at(APPLICATION, "quota-2")?,
    );
    let operator = fleet.clients(OPERATOR)?;
    upsert_account(&one, ACCOUNT).await?;
    // Both have a part of the limit in their memory.
    takes(&one, "r-1", 5, true).await?;
    takes(&two, "r-2", 5, true).await?;

    set(&operator, to(METRIC, Period::Hour, 10)).await?;
    takes(&two, "r-3", 1, false).await?;
    takes(&one, "r-4", 1, false).await?;
    set(&operator, to(METRIC, Period::Hour, 100)).await?;
    takes(&one, "r-5", 40, true).await?;
    within(EVERYWHERE, "the other replica knows", async || {
        takes(&two, &format!("r-6-{}", now()), 50, true).await
    })
    .await?;
    for app in [&one, &two] {
        takes(app, &format!("r-{}", now()), 1, false).await?;
        eventually("both say the same", async || hour_is(app, 100, 100, 0).await).await?;
    }

    let end = now() + 3.seconds();
    for_a_time(&operator, METRIC, 120, end).await?;
    within(EVERYWHERE, "the other replica knows", async || {
        takes(&two, &format!("r-7-{}", now()), 10, true).await
    })
    .await?;
    ends(end).await?;
    within(EVERYWHERE, "it has ended everywhere", async || {
        for app in [&one, &two] {
            takes(app, &format!("r-8-{}", now()), 1, false).await?;
            hour_is(app, 60, 110, 0).await?;
        }
        Ok(())
    })
    .await?;
    requests_and_holds_are_of_both(fleet, &one, &two).await
}

async fn requests_and_holds_are_of_both(fleet: &mut Fleet, one: &Clients, two: &Clients) -> Result<()> {
    let request = consume(ACCOUNT, "l-1", &[("llm.requests", 3)]);
    let first = decide(one, request.clone()).await?;
    for marked in [false, true] {
        let again = CheckQuotaRequest {
            repeat: marked,
            ..request.clone()
        };
        let again = decide(two, again).await?;
        ensure!(
            again.allowed && again.repeated_request && again.decision_id == first.decision_id,
            "{again:?}"
        );
    }
    let reserved = one
        .quota
        .clone()
        .reserve_quota(reserve(ACCOUNT, "h-1", &[("llm.requests", 7)]))
        .await?;
    let hold_id = reserved.into_inner().hold_id;
    fleet.kill("quota").await?;
    let commit = CommitHoldRequest {
        account_id: ACCOUNT.to_owned(),
        hold_id,
        items: Vec::new(),
    };
    let committed = two.quota.clone().commit_hold(commit.clone()).await?.into_inner();
    ensure!(!committed.late && !committed.repeated_request, "{committed:?}");
    fleet.restart("quota").await?;
    let committed = one.quota.clone().commit_hold(commit).await?.into_inner();
    ensure!(!committed.late && committed.repeated_request, "{committed:?}");
    eventually("both replicas know what was used", async || {
        for app in [one, two] {
            let hour = standing(app, ACCOUNT, "llm.requests", Period::Hour).await?;
            ensure!((hour.used, hour.held) == (10, 0), "{hour:?}");
        }
        Ok(())
    })
    .await
}
