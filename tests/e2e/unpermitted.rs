//! What is used without asking: it is always recorded, and counts against the limit.

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use octroi_proto::{
    common::v1::Period,
    errors::v1::ErrorReason,
    quota::v1::{CheckQuotaResponse, DenialReason, LimitStatus, RecordUsageRequest, RecordUsageResponse},
    usage::v1::TrackUsageRequest,
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, now, roomy_hour};
use tonic::{Code, Response, Status};

use crate::{
    asks::{
        check_refusal, consume, decide, event, items, ledger_total, peek, refusal, standing, upsert_account,
    },
    story::both_topologies,
};

both_topologies!(
    what_is_recorded_counts_before_the_answer,
    what_is_tracked_counts_soon,
    amounts_reach_2_to_the_53_less_1_and_no_sum_goes_beyond,
);

const ACCOUNT: &str = "acme";
/// 60 an hour, where nothing was bought.
const METRIC: &str = "api.requests";
/// The largest amount.
const MOST: i64 = (1 << 53) - 1;

fn record(request_id: &str, asked: &[(&str, i64)]) -> RecordUsageRequest {
    RecordUsageRequest {
        account_id: ACCOUNT.to_owned(),
        items: items(asked),
        request_id: request_id.to_owned(),
        ..RecordUsageRequest::default()
    }
}

async fn recorded(
    app: &Clients,
    request: RecordUsageRequest,
) -> Result<Response<RecordUsageResponse>, Status> {
    app.quota.clone().record_usage(request).await
}

async fn ask(app: &Clients, request_id: &str, amount: i64) -> Result<CheckQuotaResponse, Status> {
    decide(app, consume(ACCOUNT, request_id, &[(METRIC, amount)])).await
}

async fn hour(app: &Clients) -> Result<LimitStatus> {
    standing(app, ACCOUNT, METRIC, Period::Hour).await
}

fn check_denied(denied: &CheckQuotaResponse) -> Result<()> {
    ensure!(
        !denied.allowed && denied.reason() == DenialReason::QuotaExceeded,
        "{denied:?}"
    );
    ensure!(
        denied.limits.iter().all(|limit| limit.remaining <= limit.limit),
        "{denied:?}"
    );
    Ok(())
}

async fn what_is_recorded_counts_before_the_answer(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    // From here on a replica has a part of the limit in its memory.
    let taken = ask(&app, "r-1", 5).await?;
    ensure!(taken.allowed, "{taken:?}");
    recorded(&app, record("u-1", &[(METRIC, 10)])).await?;
    let left = hour(&app).await?;
    ensure!((left.used, left.remaining) == (15, 45), "{left:?}");

    let request = record("u-2", &[(METRIC, 60), ("exports.run", 1)]);
    for repeated in [false, true, true] {
        let answer = recorded(&app, request.clone()).await?.into_inner();
        ensure!(answer.repeated_request == repeated, "{answer:?}");
        let full = hour(&app).await?;
        ensure!(
            (full.used, full.remaining, full.overage) == (75, 0, 15),
            "{full:?}"
        );
        check_denied(&decide(&app, peek(ACCOUNT, &[(METRIC, 1)])).await?)?;
    }
    check_denied(&ask(&app, "r-2", 1).await?)?;
    let other = recorded(&app, record("u-2", &[(METRIC, 59), ("exports.run", 1)])).await;
    let expected = refusal(Code::AlreadyExists, ErrorReason::RequestIdReused);
    check_refusal("another amount", other, expected)?;

    fleet.kill("quota").await?;
    fleet.restart("quota").await?;
    let answer = recorded(&app, request).await?.into_inner();
    ensure!(answer.repeated_request, "{answer:?}");
    check_denied(&ask(&app, "r-3", 1).await?)?;
    let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
    ensure!(
        (total.decided_amount, total.direct_amount) == (5, 70),
        "{total:?}"
    );
    // The bus tells of it later, and it is not counted again.
    eventually("the sums have caught up", async || {
        let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
        ensure!(total.rollup_amount == 75, "{total:?}");
        let full = hour(&app).await?;
        ensure!((full.used, full.held, full.remaining) == (75, 0, 0), "{full:?}");
        Ok(())
    })
    .await?;
    of_another_time_it_counts_there(&app).await
}

async fn of_another_time_it_counts_there(app: &Clients) -> Result<()> {
    let before = hour(app).await?;
    let at = now() - 2.hours();
    let earlier = RecordUsageRequest {
        event_time: Some(at_second(at)),
        ..record("u-earlier", &[(METRIC, 60)])
    };
    for repeated in [false, true] {
        let answer = recorded(app, earlier.clone()).await?.into_inner();
        ensure!(answer.repeated_request == repeated, "{answer:?}");
        let after = hour(app).await?;
        ensure!(after.used == before.used, "{before:?} became {after:?}");
    }
    let later = RecordUsageRequest {
        event_time: Some(at_second(at + 1.second())),
        ..earlier
    };
    let expected = refusal(Code::AlreadyExists, ErrorReason::RequestIdReused);
    check_refusal("another time", recorded(app, later).await, expected)?;
    let then = octroi_proto::quota::v1::CheckQuotaRequest {
        event_time: Some(at_second(at)),
        ..consume(ACCOUNT, "r-earlier", &[(METRIC, 1)])
    };
    check_denied(&decide(app, then).await?)
}

fn at_second(at: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: 0,
    }
}

async fn what_is_tracked_counts_soon(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let taken = ask(&app, "r-1", 5).await?;
    ensure!(taken.allowed, "{taken:?}");
    let request = TrackUsageRequest {
        event: Some(event(ACCOUNT, "e-1", METRIC, 100)),
        ..TrackUsageRequest::default()
    };
    for _ in 0..2 {
        app.usage.clone().track_usage(request.clone()).await?;
    }
    eventually("the limit knows", async || {
        let full = hour(&app).await?;
        ensure!((full.used, full.remaining) == (105, 0), "{full:?}");
        Ok(())
    })
    .await?;
    // A look and a take say the same, whatever a replica had set aside before.
    eventually("nobody takes any more", async || {
        check_denied(&decide(&app, peek(ACCOUNT, &[(METRIC, 1)])).await?)?;
        check_denied(&ask(&app, &format!("r-{}", now()), 1).await?)
    })
    .await?;
    let full = hour(&app).await?;
    ensure!(full.used - 100 <= 60 && full.remaining == 0, "{full:?}");
    Ok(())
}

async fn amounts_reach_2_to_the_53_less_1_and_no_sum_goes_beyond(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let beyond = refusal(Code::InvalidArgument, ErrorReason::AmountOutOfRange);
    // What adds up, and what is held.
    for (metric, period) in [(METRIC, Period::Hour), ("storage.bytes", Period::Lifetime)] {
        let id = |name: &str| format!("{metric}-{name}");
        let most = record(&id("u-1"), &[(metric, MOST)]);
        let answer = recorded(&app, most.clone()).await?.into_inner();
        ensure!(!answer.repeated_request, "{answer:?}");
        let answer = recorded(&app, record(&id("u-2"), &[(metric, 1)])).await;
        check_refusal("one more", answer, beyond)?;
        let answer = recorded(&app, record(&id("u-3"), &[("exports.run", 1), (metric, MOST)])).await;
        check_refusal("as much again, beside another", answer, beyond)?;
        // What was recorded is a repeat all the same.
        let answer = recorded(&app, most).await?.into_inner();
        ensure!(answer.repeated_request, "{answer:?}");

        let full = standing(&app, ACCOUNT, metric, period).await?;
        ensure!(
            (full.used, full.remaining) == (MOST.cast_unsigned(), 0),
            "{full:?}"
        );
        let total = ledger_total(&operator, ACCOUNT, metric).await?;
        ensure!(total.direct_amount == MOST.cast_unsigned(), "{total:?}");
        let denied = decide(&app, consume(ACCOUNT, &id("r-1"), &[(metric, 1)])).await?;
        check_denied(&denied)?;
        let overage = denied.limits.first().context("no limit")?.overage;
        ensure!(overage == full.used - full.limit, "{denied:?}");
    }
    let exports = standing(&app, ACCOUNT, "exports.run", Period::Hour).await?;
    ensure!(exports.used == 0, "{exports:?}");
    Ok(())
}
