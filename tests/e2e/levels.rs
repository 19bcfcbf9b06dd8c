//! What an account holds of LEVEL metrics: it is taken and given back, and is never below 0.

use std::time::Duration;

use anyhow::{Result, ensure};
use octroi_proto::{
    billing::v1::ApplyCatalogRequest,
    common::v1::Period,
    errors::v1::ErrorReason,
    quota::v1::{
        CheckQuotaResponse, CommitHoldRequest, RecordUsageRequest, ReturnQuotaRequest, ReturnQuotaResponse,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, within};
use tonic::{Code, Response, Status};

use crate::{
    asks::{
        check_refusal, consume, decide, invalid, items, ledger_total, peek, refusal, reserve, standing,
        upsert_account,
    },
    story::both_topologies,
};

both_topologies!(
    what_is_given_back_can_be_taken_again_at_once,
    a_level_is_never_below_0,
    a_level_is_the_sum_of_all_that_moves_it,
    what_was_held_while_nothing_limited_it_counts_in_a_limit_that_comes_later,
);

const ACCOUNT: &str = "acme";
/// 25, where nothing was bought.
const STORED: &str = "personas.stored";
/// Another level: 100 MiB.
const BYTES: &str = "storage.bytes";

async fn take(app: &Clients, request_id: &str, amount: i64) -> Result<CheckQuotaResponse, Status> {
    decide(app, consume(ACCOUNT, request_id, &[(STORED, amount)])).await
}

async fn give_back(
    app: &Clients,
    request_id: &str,
    asked: &[(&str, i64)],
) -> Result<Response<ReturnQuotaResponse>, Status> {
    let request = ReturnQuotaRequest {
        account_id: ACCOUNT.to_owned(),
        items: items(asked),
        request_id: request_id.to_owned(),
    };
    app.quota.clone().return_quota(request).await
}

/// So much is held, and the rest of 25 may still be taken.
async fn stored_is(app: &Clients, used: u64) -> Result<()> {
    let level = standing(app, ACCOUNT, STORED, Period::Lifetime).await?;
    ensure!(
        (level.used, level.remaining) == (used, 25 - used) && level.window_end_time.is_none(),
        "{used} are held: {level:?}"
    );
    Ok(())
}

async fn what_is_given_back_can_be_taken_again_at_once(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let taken = take(&app, "t-1", 25).await?;
    ensure!(taken.allowed, "{taken:?}");
    let denied = take(&app, "t-2", 1).await?;
    ensure!(
        !denied.allowed && denied.retry_after.is_none(),
        "no time helps: {denied:?}"
    );

    for round in 0_u32..5 {
        let id = format!("b-{round}");
        for repeated in [false, true, true] {
            let answer = give_back(&app, &id, &[(STORED, 10)]).await?.into_inner();
            ensure!(answer.repeated_request == repeated, "{answer:?}");
            stored_is(&app, 15).await?;
        }
        // Neither a look nor a take waits for anything.
        let looked = decide(&app, peek(ACCOUNT, &[(STORED, 10)])).await?;
        ensure!(looked.allowed, "{looked:?}");
        let over = take(&app, &format!("o-{round}"), 11).await?;
        ensure!(!over.allowed, "{over:?}");
        let again = take(&app, &format!("a-{round}"), 10).await?;
        ensure!(again.allowed, "{again:?}");
        stored_is(&app, 25).await?;
    }
    let other = give_back(&app, "b-1", &[(STORED, 9)]).await;
    let expected = refusal(Code::AlreadyExists, ErrorReason::RequestIdReused);
    check_refusal("another amount", other, expected)?;

    fleet.kill("quota").await?;
    fleet.restart("quota").await?;
    let answer = give_back(&app, "b-1", &[(STORED, 10)]).await?.into_inner();
    ensure!(answer.repeated_request, "{answer:?}");
    let total = ledger_total(&operator, ACCOUNT, STORED).await?;
    ensure!(
        (total.decided_amount, total.returned_amount) == (75, 50),
        "{total:?}"
    );
    // However late the bus tells of what was known already.
    eventually("the limit has what the ledger has", async || {
        stored_is(&app, 25).await
    })
    .await?;
    let denied = take(&app, "t-3", 1).await?;
    ensure!(!denied.allowed, "{denied:?}");
    Ok(())
}

async fn what_was_held_while_nothing_limited_it_counts_in_a_limit_that_comes_later(
    fleet: &mut Fleet,
) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let limit = "      - { metric: personas.stored, period: lifetime, amount: 25, mode: hard }\n";
    let unlimited = octroi_fleet::seed::CATALOG.replacen(limit, "", 1);
    ensure!(
        unlimited.len() < octroi_fleet::seed::CATALOG.len(),
        "no such limit"
    );
    apply(&operator, &unlimited).await?;
    limits_are(&app, 0).await?;
    let taken = take(&app, "t-1", 40).await?;
    ensure!(taken.allowed && taken.limits.is_empty(), "{taken:?}");
    give_back(&app, "b-1", &[(STORED, 10)]).await?;

    apply(&operator, octroi_fleet::seed::CATALOG).await?;
    limits_are(&app, 1).await?;
    eventually("the limit knows of the 30 that are held", async || {
        let level = standing(&app, ACCOUNT, STORED, Period::Lifetime).await?;
        ensure!((level.used, level.remaining) == (30, 0), "{level:?}");
        Ok(())
    })
    .await?;
    let denied = take(&app, "t-2", 1).await?;
    ensure!(!denied.allowed, "{denied:?}");
    give_back(&app, "b-2", &[(STORED, 30)]).await?;
    let over = take(&app, "t-3", 26).await?;
    ensure!(!over.allowed, "{over:?}");
    let again = take(&app, "t-4", 25).await?;
    ensure!(again.allowed, "{again:?}");
    Ok(())
}

async fn apply(operator: &Clients, document: &str) -> Result<()> {
    let request = ApplyCatalogRequest {
        document: document.to_owned(),
    };
    operator.billing.clone().apply_catalog(request).await?;
    Ok(())
}

/// So many limits of what is stored hold by now.
async fn limits_are(app: &Clients, count: usize) -> Result<()> {
    eventually("quota has the catalog", async || {
        let looked = decide(app, peek(ACCOUNT, &[(STORED, 1)])).await?;
        ensure!(looked.limits.len() == count, "{looked:?}");
        Ok(())
    })
    .await
}

async fn a_level_is_never_below_0(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let below = refusal(Code::FailedPrecondition, ErrorReason::LevelBelowZero);
    let answer = give_back(&app, "b-1", &[(STORED, 1)]).await;
    check_refusal("of nothing", answer, below.of("items[0].amount"))?;
    let taken = decide(&app, consume(ACCOUNT, "t-1", &[(STORED, 7), (BYTES, 100)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    let answer = give_back(&app, "b-2", &[(STORED, 8)]).await;
    check_refusal("more than is held", answer, below.of("items[0].amount"))?;
    // In whatever order they are named, neither is given back.
    let answer = give_back(&app, "b-3", &[(STORED, 7), (BYTES, 101)]).await;
    check_refusal("more of the second", answer, below.of("items[1].amount"))?;
    let answer = give_back(&app, "b-4", &[(BYTES, 101), (STORED, 7)]).await;
    check_refusal("more of the first", answer, below.of("items[0].amount"))?;
    let answer = give_back(&app, "b-5", &[(STORED, 1), ("api.requests", 1)]).await;
    check_refusal("what adds up", answer, invalid("items[1].metric"))?;
    stored_is(&app, 7).await?;
    for metric in [STORED, BYTES] {
        let total = ledger_total(&operator, ACCOUNT, metric).await?;
        ensure!(total.returned_amount == 0, "{total:?}");
    }

    // Of what is asked for at the same time, as much succeeds as is there.
    let attempts = (0..10).map(async |number| give_back(&app, &format!("c-{number}"), &[(STORED, 2)]).await);
    let answers = futures::future::join_all(attempts).await;
    let given = answers.into_iter().filter(Result::is_ok).count();
    ensure!(given == 3, "{given} times 2 of 7");
    stored_is(&app, 1).await?;
    let answer = give_back(&app, "b-6", &[(STORED, 1), (BYTES, 100)]).await?;
    ensure!(!answer.get_ref().repeated_request, "{answer:?}");
    stored_is(&app, 0).await?;

    // A refusal is the answer to a request for good, also where there would be enough by now.
    let taken = decide(&app, consume(ACCOUNT, "t-2", &[(STORED, 20)])).await?;
    ensure!(taken.allowed, "{taken:?}");
    for _ in 0..2 {
        let answer = give_back(&app, "b-2", &[(STORED, 8)]).await;
        check_refusal("what was refused", answer, below)?;
    }
    let answer = give_back(&app, "b-2", &[(STORED, 9)]).await;
    let reused = refusal(Code::AlreadyExists, ErrorReason::RequestIdReused);
    check_refusal("another amount", answer, reused)?;
    stored_is(&app, 20).await
}

/// Whether it was asked for, held, or recorded afterwards.
async fn a_level_is_the_sum_of_all_that_moves_it(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let taken = take(&app, "t-1", 5).await?;
    ensure!(taken.allowed, "{taken:?}");
    let reserved = app
        .quota
        .clone()
        .reserve_quota(reserve(ACCOUNT, "h-1", &[(STORED, 6)]))
        .await?;
    let hold_id = reserved.into_inner().hold_id;
    let commit = CommitHoldRequest {
        account_id: ACCOUNT.to_owned(),
        hold_id,
        items: items(&[(STORED, 4)]),
    };
    app.quota.clone().commit_hold(commit).await?;
    let record = RecordUsageRequest {
        account_id: ACCOUNT.to_owned(),
        items: items(&[(STORED, 20)]),
        request_id: "r-1".to_owned(),
        ..RecordUsageRequest::default()
    };
    app.quota.clone().record_usage(record).await?;
    eventually("the commit is settled", async || {
        let level = standing(&app, ACCOUNT, STORED, Period::Lifetime).await?;
        ensure!(
            (level.used, level.held, level.remaining) == (29, 0, 0),
            "{level:?}"
        );
        Ok(())
    })
    .await?;
    give_back(&app, "b-1", &[(STORED, 4)]).await?;
    stored_is(&app, 25).await?;
    give_back(&app, "b-2", &[(STORED, 25)]).await?;
    stored_is(&app, 0).await?;
    within(Duration::from_secs(1), "all of it may be taken", async || {
        let taken = take(&app, "t-2", 25).await?;
        ensure!(taken.allowed, "{taken:?}");
        Ok(())
    })
    .await
}
