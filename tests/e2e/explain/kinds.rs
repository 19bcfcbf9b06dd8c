//! Holds, features, overrides, decisions without counters and decisions from memory.

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use octroi_proto::{
    common::v1::{Entitlements, Limit, LimitMode, Period, Stage, UnreachablePolicy},
    quota::v1::{
        ApplyEntitlementsRequest, CheckQuotaRequest, CommitHoldRequest, GetEntitlementsRequest,
        LimitOverride, ReleaseHoldRequest, SetLimitOverrideRequest,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, roomy_hour};
use sqlx::{Connection as _, PgConnection};

use super::{ACCOUNT, METRIC, agrees, by_id, by_request, explain, first};
use crate::asks::{consume, decide, items, peek, reserve, upsert_account};

pub(super) async fn what_became_of_a_hold_is_told(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let mut quota = app.quota.clone();
    let first_hold = quota
        .reserve_quota(reserve(ACCOUNT, "h-1", &[(METRIC, 10)]))
        .await?
        .into_inner();
    let second_hold = quota
        .reserve_quota(reserve(ACCOUNT, "h-2", &[(METRIC, 45)]))
        .await?
        .into_inner();
    let denied = quota
        .reserve_quota(reserve(ACCOUNT, "h-3", &[(METRIC, 10)]))
        .await?
        .into_inner();
    let answer = first_hold.decision.clone().context("no decision")?;
    let open = explain(&app, by_id(&answer.decision_id)).await?;
    agrees(&open, &answer)?;
    ensure!(
        open.action().as_str_name() == "DECISION_ACTION_RESERVE"
            && open
                .hold
                .as_ref()
                .is_some_and(|hold| hold.end == 0 && hold.expire_time == first_hold.expire_time),
        "{open:?}"
    );
    let answer = denied.decision.context("no decision")?;
    let found = explain(&app, by_id(&answer.decision_id)).await?;
    agrees(&found, &answer)?;
    ensure!(
        found.reason().as_str_name() == "DENIAL_REASON_HELD"
            && found.sentence.contains("only holds stand in the way")
            && found.hold.is_none(),
        "{found:?}"
    );
    let commit = CommitHoldRequest {
        account_id: ACCOUNT.to_owned(),
        hold_id: first_hold.hold_id,
        items: items(&[(METRIC, 12)]),
    };
    quota.commit_hold(commit).await?;
    let release = ReleaseHoldRequest {
        account_id: ACCOUNT.to_owned(),
        hold_id: second_hold.hold_id,
    };
    quota.release_hold(release).await?;
    let ends = async || {
        let committed = explain(&app, by_request(ACCOUNT, APPLICATION, "h-1")).await?;
        let hold = committed.hold.as_ref().context("no hold")?;
        let used: Vec<(u64, u64)> = hold
            .items
            .iter()
            .map(|item| (item.amount, item.overrun))
            .collect();
        ensure!(
            hold.end().as_str_name() == "HOLD_END_STATE_COMMITTED" && used == [(12, 0)] && !hold.late,
            "{hold:?}"
        );
        ensure!(
            committed.sentence.contains("with 12 of api.requests"),
            "{}",
            committed.sentence
        );
        let released = explain(&app, by_request(ACCOUNT, APPLICATION, "h-2")).await?;
        let hold = released.hold.as_ref().context("no hold")?;
        ensure!(hold.end().as_str_name() == "HOLD_END_STATE_RELEASED", "{hold:?}");
        Ok(())
    };
    ends().await?;
    // They are written down, and so another process tells them.
    fleet.stop("quota").await?;
    fleet.restart("quota").await?;
    eventually("the service tells the same again", ends).await
}

pub(super) async fn a_missing_feature_is_named_with_the_plans_that_have_it(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let request = CheckQuotaRequest {
        features: vec!["premium.templates".to_owned()],
        ..consume(ACCOUNT, "r-1", &[(METRIC, 1)])
    };
    let denied = decide(&app, request).await?;
    let found = explain(&app, by_id(&denied.decision_id)).await?;
    agrees(&found, &denied)?;
    ensure!(
        found.sentence == "Denied because the plan free lacks premium.templates, which starter and pro have.",
        "{}",
        found.sentence
    );
    Ok(())
}

pub(super) async fn an_override_in_force_is_told_with_its_note(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let replaced = LimitOverride {
        amount: 100,
        expire_time: None,
        note: "goodwill; ticket 7".to_owned(),
    };
    let request = SetLimitOverrideRequest {
        account_id: ACCOUNT.to_owned(),
        metric: METRIC.to_owned(),
        period: Period::Hour.into(),
        r#override: Some(replaced.clone()),
    };
    operator.quota.clone().set_limit_override(request).await?;
    let allowed = decide(&app, consume(ACCOUNT, "r-1", &[(METRIC, 80)])).await?;
    ensure!(allowed.allowed, "{allowed:?}");
    let check = async || {
        let found = explain(&app, by_id(&allowed.decision_id)).await?;
        agrees(&found, &allowed)?;
        let hour = first(&found)?;
        ensure!(
            (hour.amount, hour.plan_amount, hour.r#override.as_ref()) == (80, 60, Some(&replaced)),
            "{hour:?}"
        );
        let words = "An override of 100 (\"goodwill; ticket 7\") replaced the plan's limit of 60.";
        ensure!(found.sentence.ends_with(words), "{}", found.sentence);
        Ok(())
    };
    check().await?;
    // An override is asked about for weeks, so it is written down although it was allowed.
    fleet.stop("quota").await?;
    fleet.restart("quota").await?;
    eventually("the service tells the same again", check).await
}

pub(super) async fn a_decision_without_counters_says_so(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let held = app
        .quota
        .clone()
        .get_entitlements(GetEntitlementsRequest {
            account_id: ACCOUNT.to_owned(),
        })
        .await?
        .into_inner()
        .entitlements
        .context("no entitlements")?;
    allow_unreachable(&fleet.clients("billing")?, held).await?;
    eventually("the limits hold", async || {
        let looked = decide(&app, peek(ACCOUNT, &[("llm.tokens_in", 1)])).await?;
        ensure!(
            looked.limits.first().is_some_and(|limit| limit.limit == 77),
            "{looked:?}"
        );
        Ok(())
    })
    .await?;
    // Nothing can be carved where the slices are away.
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    sqlx::query("ALTER TABLE quota.slice RENAME TO slice_away")
        .execute(&mut session)
        .await?;
    let degraded = decide(&app, consume(ACCOUNT, "r-1", &[("llm.tokens_in", 9)])).await;
    sqlx::query("ALTER TABLE quota.slice_away RENAME TO slice")
        .execute(&mut session)
        .await?;
    let degraded = degraded?;
    ensure!(degraded.allowed && degraded.degraded, "{degraded:?}");
    let check = async || {
        let found = explain(&app, by_id(&degraded.decision_id)).await?;
        agrees(&found, &degraded)?;
        ensure!(
            found.degraded
                && found
                    .sentence
                    .starts_with("Allowed without knowing what was used"),
            "{found:?}"
        );
        Ok(())
    };
    check().await?;
    fleet.stop("quota").await?;
    fleet.restart("quota").await?;
    eventually("the service tells the same again", check).await
}

/// Billing pushes a SOFT limit that allows while its counters are away.
async fn allow_unreachable(billing: &Clients, held: Entitlements) -> Result<()> {
    let soft = Limit {
        metric: "llm.tokens_in".to_owned(),
        period: Period::Month.into(),
        amount: 77,
        mode: LimitMode::Soft.into(),
        ceiling: None,
        unreachable_policy: UnreachablePolicy::Allow.into(),
        thresholds: Vec::new(),
    };
    let anchor_at: Timestamp = "2026-01-01T00:00:00Z".parse()?;
    let request = ApplyEntitlementsRequest {
        account_id: ACCOUNT.to_owned(),
        version: 1,
        entitlements: Some(Entitlements {
            limits: vec![soft],
            ..held
        }),
        anchor_time: Some(prost_types::Timestamp {
            seconds: anchor_at.as_second(),
            nanos: 0,
        }),
        stage: Stage::Current.into(),
    };
    billing.quota.clone().apply_entitlements(request).await?;
    Ok(())
}

pub(super) async fn a_decision_from_memory_is_explained(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, _) = crate::buffered::apply_catalog(fleet).await?;
    // The first carves; those after it are decided from what is there.
    for number in 0..20 {
        let request_id = format!("r-{number}");
        let answer = decide(&app, consume(ACCOUNT, &request_id, &[("clicks", 2)])).await?;
        ensure!(answer.allowed, "{answer:?}");
        let found = explain(&app, by_id(&answer.decision_id)).await?;
        agrees(&found, &answer)?;
        ensure!(
            found.recording().as_str_name() == "RECORDING_BUFFERED"
                && found.detail().as_str_name() == "EXPLANATION_DETAIL_FULL"
                && found.request_id == request_id
                && found.caller == APPLICATION
                && found.plan == "free"
                && first(&found)?.amount == 2,
            "{found:?}"
        );
        ensure!(
            found
                .sentence
                .ends_with("and 2 were asked for. It was answered before the ledger had it."),
            "{}",
            found.sentence
        );
        let looked = decide(&app, peek(ACCOUNT, &[("clicks", 1)])).await?;
        let found = explain(&app, by_id(&looked.decision_id)).await?;
        agrees(&found, &looked)?;
    }
    let denied = decide(&app, consume(ACCOUNT, "r-all", &[("clicks", 200)])).await?;
    ensure!(!denied.allowed, "{denied:?}");
    agrees(&explain(&app, by_id(&denied.decision_id)).await?, &denied)
}
