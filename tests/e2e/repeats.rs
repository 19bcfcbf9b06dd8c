//! One request takes once and is recorded once, however often it comes and whatever is away meanwhile.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use octroi_proto::{
    common::v1::Period,
    errors::v1::ErrorReason,
    quota::v1::{
        CheckQuotaRequest, CheckQuotaResponse, DenialReason, LimitOverride, SetLimitOverrideRequest,
    },
};
use octroi_tests::harness::fleet::{
    APPLICATION, Clients, Fleet, OPERATOR, Topology, eventually, roomy_hour, tell,
};
use tonic::{Code, Status};

use crate::{
    asks::{check_refusal, consume, ledger_total, refusal, standing, upsert_account},
    story::both_topologies,
};

both_topologies!(
    a_decision_is_repeated_after_the_quota_service_was_killed,
    a_denial_of_a_repeat_is_final,
    a_request_id_with_another_content_records_nothing_of_it,
    callers_that_go_away_leave_nothing_behind,
    of_fifty_attempts_at_once_one_is_the_first,
);

const ACCOUNT: &str = "acme";
const METRIC: &str = "api.requests";

async fn decide(
    app: &Clients,
    request_id: &str,
    items: &[(&str, i64)],
) -> Result<CheckQuotaResponse, Status> {
    let request = consume(ACCOUNT, request_id, items);
    Ok(app.quota.clone().check_quota(request).await?.into_inner())
}

/// The windows and the ledger both have this much of the metric.
async fn is_taken(app: &Clients, operator: &Clients, metric: &str, amount: u64) -> Result<()> {
    let total = ledger_total(operator, ACCOUNT, metric).await?;
    ensure!(
        (total.decided_amount, total.direct_amount) == (amount, 0),
        "{amount} of {metric}: {total:?}"
    );
    let hour = standing(app, ACCOUNT, metric, Period::Hour).await?;
    ensure!(hour.used == amount, "{amount} of {metric}: {hour:?}");
    Ok(())
}

/// The same, where the windows may still learn from the bus what the ledger has, as they do after a kill.
async fn exactly_is_taken(app: &Clients, operator: &Clients, metric: &str, amount: u64) -> Result<()> {
    eventually("the windows have what the ledger has", async || {
        is_taken(app, operator, metric, amount).await
    })
    .await
}

async fn a_decision_is_repeated_after_the_quota_service_was_killed(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    // The whole hour at once, so that no repeat can pass as a new request.
    let first = decide(&app, "r-1", &[(METRIC, 60)]).await?;
    ensure!(first.allowed, "{first:?}");
    let denied = decide(&app, "r-2", &[(METRIC, 1)]).await?;
    ensure!(!denied.allowed, "{denied:?}");

    fleet.kill("quota").await?;
    fleet.restart("quota").await?;

    let repeated = decide(&app, "r-1", &[(METRIC, 60)]).await?;
    ensure!(
        repeated.allowed && repeated.repeated_request,
        "what was taken is not taken back: {repeated:?}"
    );
    let denied = decide(&app, "r-2", &[(METRIC, 1)]).await?;
    ensure!(!denied.allowed, "the hour is full: {denied:?}");
    exactly_is_taken(&app, &operator, METRIC, 60).await
}

/// Its caller was told no, and an attempt that is still on its way must not be charged after that.
async fn a_denial_of_a_repeat_is_final(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let attempt = async |request_id: &str, repeat: bool, allowed: bool| -> Result<()> {
        let request = CheckQuotaRequest {
            repeat,
            ..consume(ACCOUNT, request_id, &[(METRIC, 1), ("llm.requests", 1)])
        };
        let answer = app.quota.clone().check_quota(request).await?.into_inner();
        ensure!(answer.allowed == allowed, "{request_id}: {answer:?}");
        ensure!(
            allowed || answer.reason() == DenialReason::QuotaExceeded,
            "{request_id}: {answer:?}"
        );
        Ok(())
    };
    attempt("allowed", false, true).await?;
    let full = decide(&app, "r-1", &[(METRIC, 59)]).await?;
    ensure!(full.allowed, "{full:?}");
    attempt("marked", true, false).await?;
    attempt("unmarked", false, false).await?;
    // What was allowed before the hour was full stays so, whoever asks again.
    attempt("allowed", true, true).await?;

    let more = SetLimitOverrideRequest {
        account_id: ACCOUNT.to_owned(),
        metric: METRIC.to_owned(),
        period: Period::Hour.into(),
        r#override: Some(LimitOverride {
            amount: 100,
            ..LimitOverride::default()
        }),
    };
    operator.quota.clone().set_limit_override(more).await?;
    for forgotten in [false, true] {
        if forgotten {
            fleet.kill("quota").await?;
            fleet.restart("quota").await?;
        }
        attempt("marked", false, false).await?;
        attempt("marked", true, false).await?;
        attempt("allowed", false, true).await?;
        attempt(&format!("new-{forgotten}"), false, true).await?;
    }
    // Its denial was only an answer, and the answer is forgotten.
    attempt("unmarked", false, true).await?;
    // What the killed process had spent is told once it was followed.
    eventually("the limits have what the ledger has", async || {
        exactly_is_taken(&app, &operator, METRIC, 63).await?;
        exactly_is_taken(&app, &operator, "llm.requests", 4).await
    })
    .await
}

async fn a_request_id_with_another_content_records_nothing_of_it(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let first = decide(&app, "r-1", &[(METRIC, 3)]).await?;
    ensure!(first.allowed, "{first:?}");
    for forgotten in [false, true] {
        if forgotten {
            fleet.kill("quota").await?;
            fleet.restart("quota").await?;
        }
        for items in [
            &[(METRIC, 4), ("exports.run", 1)][..],
            &[(METRIC, 3), ("exports.run", 1)],
            &[("exports.run", 1)],
        ] {
            let request = consume(ACCOUNT, "r-1", items);
            let answer = app.quota.clone().check_quota(request).await;
            let expected = refusal(Code::AlreadyExists, ErrorReason::RequestIdReused);
            check_refusal(&format!("{items:?}, forgotten: {forgotten}"), answer, expected)?;
        }
        let repeated = decide(&app, "r-1", &[(METRIC, 3)]).await?;
        ensure!(repeated.allowed && repeated.repeated_request, "{repeated:?}");
        exactly_is_taken(&app, &operator, METRIC, 3).await?;
        exactly_is_taken(&app, &operator, "exports.run", 0).await?;
    }
    Ok(())
}

async fn callers_that_go_away_leave_nothing_behind(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let impatient = (0_u32..50).map(async |index| {
        let patience = Duration::from_micros(u64::from(index) * 200);
        let id = format!("r-{index}");
        // Whether there was an answer does not matter.
        let _ = tokio::time::timeout(patience, decide(&app, &id, &[(METRIC, 1)])).await;
    });
    futures::future::join_all(impatient).await;
    eventually("the counters have what the ledger has", async || {
        let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
        is_taken(&app, &operator, METRIC, total.decided_amount).await
    })
    .await?;
    // Each comes once more, and nobody is charged twice.
    for index in 0..50 {
        let answer = decide(&app, &format!("r-{index}"), &[(METRIC, 1)]).await?;
        ensure!(answer.allowed, "{answer:?}");
    }
    exactly_is_taken(&app, &operator, METRIC, 50).await
}

async fn of_fifty_attempts_at_once_one_is_the_first(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let attempts = (0..50).map(async |_| decide(&app, "r-1", &[(METRIC, 3)]).await);
    let answers = futures::future::try_join_all(attempts).await?;
    ensure!(answers.iter().all(|answer| answer.allowed), "{answers:?}");
    let ids: BTreeSet<&str> = (answers.iter())
        .map(|answer| answer.decision_id.as_str())
        .collect();
    ensure!(ids.len() == 1, "{ids:?}");
    let first = answers.iter().filter(|answer| !answer.repeated_request).count();
    ensure!(first == 1, "{first} are the first");
    exactly_is_taken(&app, &operator, METRIC, 3).await
}

#[tokio::test]
async fn a_request_that_waits_for_the_ledger_takes_once() -> Result<()> {
    tell(Fleet::builder(Topology::Split), async |fleet| {
        roomy_hour().await;
        let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
        upsert_account(&app, ACCOUNT).await?;
        let warm = decide(&app, "r-1", &[(METRIC, 1)]).await?;
        ensure!(warm.allowed, "{warm:?}");

        fleet.kill("usage").await?;
        for _ in 0..10 {
            let away = decide(&app, "r-2", &[(METRIC, 50)]).await;
            ensure!(
                away.as_ref()
                    .is_err_and(|status| status.code() == Code::Unavailable),
                "{away:?}"
            );
        }
        fleet.restart("usage").await?;

        // Taken twice, it would not fit.
        let answer = eventually("the ledger answers", async || {
            Ok(decide(&app, "r-2", &[(METRIC, 50)]).await?)
        })
        .await?;
        ensure!(answer.allowed, "{answer:?}");
        exactly_is_taken(&app, &operator, METRIC, 51).await
    })
    .await
}

#[tokio::test]
async fn units_whose_recording_is_not_known_are_given_back_once_it_is() -> Result<()> {
    // Nothing of ours is on its way for longer than a moment.
    let fleet = Fleet::builder(Topology::Split);
    tell(fleet, async |fleet| {
        roomy_hour().await;
        let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
        upsert_account(&app, ACCOUNT).await?;
        let warm = decide(&app, "r-1", &[(METRIC, 1)]).await?;
        ensure!(warm.allowed, "{warm:?}");

        // It takes calls and answers none of them.
        let usage = Pid::from_raw(fleet.pid("usage")?.try_into()?);
        kill(usage, Signal::SIGSTOP)?;
        let unknown = decide(&app, "r-2", &[(METRIC, 59)]).await;
        ensure!(unknown.is_err(), "{unknown:?}");
        // What was taken stays taken as long as nobody knows.
        let full = standing(&app, ACCOUNT, METRIC, Period::Hour).await?;
        ensure!(full.used == 60, "{full:?}");
        fleet.kill("usage").await?;
        fleet.restart("usage").await?;

        eventually("the units are given back", async || {
            exactly_is_taken(&app, &operator, METRIC, 1).await
        })
        .await?;
        let other = decide(&app, "r-3", &[(METRIC, 59)]).await?;
        ensure!(other.allowed, "{other:?}");
        exactly_is_taken(&app, &operator, METRIC, 60).await
    })
    .await
}
