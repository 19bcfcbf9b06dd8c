//! The road that every request of a customer's program takes.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use octroi_proto::{
    account::v1::{Language, SignUpRequest, UpsertAccountRequest},
    billing::v1::CreateSubscriptionRequest,
    common::v1::Period,
    errors::v1::ErrorReason,
    notification::v1::{EmailStatus, ListEmailsRequest, ListNoticesRequest, Severity},
    quota::v1::{CheckQuotaRequest, CheckQuotaResponse, DenialReason, GetEntitlementsRequest},
    usage::v1::{GetUsageStatsRequest, Granularity},
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, roomy_hour, within};
use tonic::Code;

use crate::{
    asks::{check_refusal, consume, decide, ledger_total, limit_of, peek, refusal, standing},
    story::both_topologies,
};

both_topologies!(
    an_account_takes_what_its_limits_allow,
    thresholds_are_told_once_each,
    owners_are_written_to_in_their_language,
);

/// The caller's own id, with every character that one may have.
const ACCOUNT: &str = "Org_17:eu-west.acme";

async fn an_account_takes_what_its_limits_allow(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    create_the_account_twice(&app).await?;

    let looked = decide(&app, peek(ACCOUNT, &[("api.requests", 10), ("exports.run", 1)])).await?;
    ensure!(
        looked.allowed && looked.limits.len() == 6,
        "three periods of two metrics: {looked:?}"
    );
    ensure!(
        looked.limits.iter().all(|limit| limit.used == 0),
        "a look took something: {looked:?}"
    );

    let first = decide(
        &app,
        consume(ACCOUNT, "r-1", &[("api.requests", 47), ("exports.run", 1)]),
    )
    .await?;
    ensure!(first.allowed && !first.repeated_request, "{first:?}");
    let hour = limit_of(&first.limits, "api.requests", Period::Hour)?;
    ensure!(
        (hour.limit, hour.used, hour.remaining) == (60, 47, 13),
        "{hour:?}"
    );

    denied_items_take_nothing_from_the_others(&app).await?;
    repeats_count_once(&app, &operator, &first).await?;
    the_ledger_and_its_sums_agree(&operator, &app, &first).await?;
    a_plan_with_the_feature_is_told_and_bought(&app).await
}

async fn create_the_account_twice(app: &Clients) -> Result<()> {
    for created in [true, false] {
        let request = UpsertAccountRequest {
            account_id: ACCOUNT.to_owned(),
            display_name: "Acme".to_owned(),
            ..UpsertAccountRequest::default()
        };
        let answer = app.account.clone().upsert_account(request).await?.into_inner();
        ensure!(answer.created == created, "{answer:?}");
        let account = answer.account.context("no account")?;
        ensure!(
            (account.account_id.as_str(), account.zone.as_str()) == (ACCOUNT, "UTC"),
            "{account:?}"
        );
    }
    Ok(())
}

/// One of two exports is left in this hour; the requests would fit.
async fn denied_items_take_nothing_from_the_others(app: &Clients) -> Result<()> {
    let denied = decide(
        app,
        consume(ACCOUNT, "r-2", &[("api.requests", 1), ("exports.run", 2)]),
    )
    .await?;
    ensure!(
        !denied.allowed && denied.reason() == DenialReason::QuotaExceeded,
        "{denied:?}"
    );
    let binding = denied
        .binding_limit
        .and_then(|index| denied.limits.get(usize::try_from(index).ok()?));
    let binding = binding.context("no binding limit")?;
    ensure!(
        (binding.metric.as_str(), binding.period()) == ("exports.run", Period::Hour),
        "{binding:?}"
    );
    let wait_s = denied.retry_after.context("no time to wait")?.seconds;
    ensure!((1..=3_600).contains(&wait_s), "{wait_s} s to the end of an hour");

    for (metric, used) in [("api.requests", 47), ("exports.run", 1)] {
        for period in [Period::Hour, Period::Day, Period::Month] {
            let limit = standing(app, ACCOUNT, metric, period).await?;
            ensure!(
                limit.used == used,
                "{metric} {} has {limit:?}",
                period.as_str_name()
            );
        }
    }
    Ok(())
}

async fn repeats_count_once(app: &Clients, operator: &Clients, first: &CheckQuotaResponse) -> Result<()> {
    let again = decide(
        app,
        consume(ACCOUNT, "r-1", &[("exports.run", 1), ("api.requests", 47)]),
    )
    .await?;
    ensure!(again.allowed && again.repeated_request, "{again:?}");
    ensure!(
        again.decision_id == first.decision_id,
        "another decision: {again:?}"
    );
    let hour = standing(app, ACCOUNT, "api.requests", Period::Hour).await?;
    ensure!(hour.used == 47, "a repeat counted: {hour:?}");

    let other = consume(ACCOUNT, "r-1", &[("api.requests", 46), ("exports.run", 1)]);
    let answer = app.quota.clone().check_quota(other).await;
    check_refusal(
        "another content",
        answer,
        refusal(Code::AlreadyExists, ErrorReason::RequestIdReused),
    )?;

    // Another program has request ids of its own.
    let theirs = decide(operator, consume(ACCOUNT, "r-1", &[("llm.requests", 1)])).await?;
    ensure!(theirs.allowed && !theirs.repeated_request, "{theirs:?}");

    let full = decide(app, consume(ACCOUNT, "r-3", &[("api.requests", 13)])).await?;
    ensure!(full.allowed, "{full:?}");
    let denied = decide(app, consume(ACCOUNT, "r-4", &[("api.requests", 1)])).await?;
    ensure!(
        !denied.allowed && denied.reason() == DenialReason::QuotaExceeded,
        "{denied:?}"
    );
    Ok(())
}

async fn the_ledger_and_its_sums_agree(
    operator: &Clients,
    app: &Clients,
    first: &CheckQuotaResponse,
) -> Result<()> {
    let hour = limit_of(&first.limits, "api.requests", Period::Hour)?;
    let total = ledger_total(operator, ACCOUNT, "api.requests").await?;
    ensure!(
        (total.decided_amount, total.direct_amount, total.events) == (60, 0, 2),
        "{total:?}"
    );
    let request = GetUsageStatsRequest {
        account_id: ACCOUNT.to_owned(),
        metrics: vec!["api.requests".to_owned(), "exports.run".to_owned()],
        start_time: hour.window_start_time,
        end_time: hour.window_end_time,
        granularity: Granularity::Hour.into(),
        zone: String::new(),
        compare: false,
        group_by: String::new(),
    };
    eventually("the sums have what the ledger has", async || {
        let stats = app
            .usage
            .clone()
            .get_usage_stats(request.clone())
            .await?
            .into_inner()
            .stats;
        let sums: Vec<(u64, u64)> = stats
            .iter()
            .map(|one| (one.total_amount, one.total_events))
            .collect();
        ensure!(sums == [(60, 2), (1, 1)], "{sums:?}");
        Ok(())
    })
    .await
}

async fn a_plan_with_the_feature_is_told_and_bought(app: &Clients) -> Result<()> {
    let with_feature = |request_id: &str| CheckQuotaRequest {
        features: vec!["premium.templates".to_owned()],
        ..consume(ACCOUNT, request_id, &[("llm.requests", 1)])
    };
    let denied = decide(app, with_feature("r-5")).await?;
    ensure!(
        !denied.allowed && denied.reason() == DenialReason::SubscriptionRequired,
        "{denied:?}"
    );
    let missing = denied.missing_features.first().context("no missing feature")?;
    ensure!(
        missing.feature == "premium.templates" && missing.plans == ["starter", "pro"],
        "{missing:?}"
    );

    let request = CreateSubscriptionRequest {
        account_id: ACCOUNT.to_owned(),
        plan: "starter".to_owned(),
        request_id: "s-1".to_owned(),
        ..CreateSubscriptionRequest::default()
    };
    let subscription = app
        .billing
        .clone()
        .create_subscription(request.clone())
        .await?
        .into_inner()
        .subscription;
    let again = app
        .billing
        .clone()
        .create_subscription(request)
        .await?
        .into_inner()
        .subscription;
    ensure!(
        subscription == again,
        "the same request made another subscription"
    );
    within(
        Duration::from_secs(2),
        "the new limits are in force",
        async || {
            let hour = standing(app, ACCOUNT, "api.requests", Period::Hour).await?;
            ensure!((hour.limit, hour.used) == (2_000, 60), "{hour:?}");
            Ok(())
        },
    )
    .await?;
    let allowed = decide(app, with_feature("r-6")).await?;
    ensure!(allowed.allowed, "{allowed:?}");
    let request = GetEntitlementsRequest {
        account_id: ACCOUNT.to_owned(),
    };
    let entitlements = app
        .quota
        .clone()
        .get_entitlements(request)
        .await?
        .into_inner()
        .entitlements;
    let entitlements = entitlements.context("no entitlements")?;
    ensure!(entitlements.plan == "starter", "{entitlements:?}");
    Ok(())
}

/// The shares that the account was told of, with how much each mattered.
async fn told(operator: &Clients, account: &str) -> Result<BTreeMap<(String, String), Severity>> {
    let request = ListNoticesRequest {
        account_id: account.to_owned(),
        ..ListNoticesRequest::default()
    };
    let page = operator
        .notification
        .clone()
        .list_notices(request)
        .await?
        .into_inner();
    let mut told = BTreeMap::new();
    for notice in &page.notices {
        ensure!(notice.kind == "quota.threshold_crossed", "{notice:?}");
        ensure!(!notice.title.is_empty() && !notice.body.is_empty(), "{notice:?}");
        let fact = |name: &str| notice.facts.get(name).cloned().unwrap_or_default();
        let limit = format!("{}/{}", fact("metric"), fact("period"));
        let twice = told.insert((limit, fact("percent")), notice.severity());
        ensure!(twice.is_none(), "told twice: {notice:?}");
    }
    ensure!(
        page.total_count == u64::try_from(told.len())?,
        "{} of {}",
        told.len(),
        page.total_count
    );
    Ok(told)
}

async fn thresholds_are_told_once_each(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    crate::asks::upsert_account(&app, ACCOUNT).await?;
    // 78%, 80%, 95%, 100%, and one more that is denied.
    let mut expected = BTreeMap::new();
    for (request_id, amount, told_then) in [
        ("r-1", 47, None),
        ("r-2", 1, Some(("80", Severity::Info))),
        ("r-3", 9, Some(("95", Severity::Warning))),
        ("r-4", 3, Some(("100", Severity::Critical))),
        ("r-4", 3, None),
        ("r-5", 1, None),
    ] {
        decide(&app, consume(ACCOUNT, request_id, &[("api.requests", amount)])).await?;
        if let Some((percent, severity)) = told_then {
            expected.insert(("api.requests/hour".to_owned(), percent.to_owned()), severity);
        }
        eventually("what was crossed was told", async || {
            let told = told(&operator, ACCOUNT).await?;
            ensure!(told == expected, "{told:?}");
            Ok(())
        })
        .await?;
    }

    // From nothing to the end at once: only the highest share is told.
    let jump = "jumper";
    crate::asks::upsert_account(&app, jump).await?;
    decide(&app, consume(jump, "r-1", &[("exports.run", 2)])).await?;
    let expected = BTreeMap::from([(
        ("exports.run/hour".to_owned(), "100".to_owned()),
        Severity::Critical,
    )]);
    eventually("the jump was told", async || {
        let told = told(&operator, jump).await?;
        ensure!(told == expected, "{told:?}");
        Ok(())
    })
    .await
}

async fn owners_are_written_to_in_their_language(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    for (language, email, words) in [
        (Language::English, "ann@example.com", "hourly limit reached"),
        (Language::French, "anne@example.com", "limite horaire atteinte"),
    ] {
        let request = SignUpRequest {
            email: email.to_owned(),
            password: "plinth orbit walnut sails".to_owned(),
            display_name: "Façade & Co".to_owned(),
            zone: "Europe/Paris".to_owned(),
            language: language.into(),
            ..SignUpRequest::default()
        };
        let session = operator
            .account
            .clone()
            .sign_up(request)
            .await?
            .into_inner()
            .session;
        let account = session
            .and_then(|session| session.account)
            .context("no account")?
            .account_id;
        decide(&app, consume(&account, "r-1", &[("exports.run", 2)])).await?;
        eventually("one e-mail was written", async || {
            let request = ListEmailsRequest {
                account_id: account.clone(),
                ..ListEmailsRequest::default()
            };
            let emails = operator
                .notification
                .clone()
                .list_emails(request)
                .await?
                .into_inner()
                .emails;
            let [only] = emails.as_slice() else {
                anyhow::bail!("{} e-mails", emails.len())
            };
            ensure!(
                only.recipient == email && only.status() == EmailStatus::Kept,
                "{only:?}"
            );
            ensure!(
                only.subject.contains(words) && only.subject.contains("Façade & Co"),
                "{}",
                only.subject
            );
            ensure!(
                only.text.contains(words) && only.html.contains("<html"),
                "{only:?}"
            );
            Ok(())
        })
        .await?;
        ensure!(
            told(&operator, &account).await?.len() == 1,
            "one notice beside the e-mail"
        );
    }
    Ok(())
}
