//! Why was this request allowed, or denied?

mod kinds;

use anyhow::{Context as _, Result, ensure};
use octroi_proto::{
    errors::v1::ErrorReason,
    quota::v1::{
        CheckQuotaResponse, DecisionExplanation, ExplainDecisionRequest, ExplainDecisionResponse,
        ExplainedLimit,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, roomy_hour};
use tonic::{Code, Response, Status};

use self::kinds::{
    a_decision_from_memory_is_explained, a_decision_without_counters_says_so,
    a_missing_feature_is_named_with_the_plans_that_have_it, an_override_in_force_is_told_with_its_note,
    what_became_of_a_hold_is_told,
};
use crate::{
    asks::{check_refusal, consume, decide, invalid, not_found, peek, refusal, upsert_account},
    story::both_topologies,
};

both_topologies!(
    a_decision_from_memory_is_explained,
    a_decision_without_counters_says_so,
    a_denial_outlives_the_quota_service_and_what_was_allowed_does_not,
    a_missing_feature_is_named_with_the_plans_that_have_it,
    an_override_in_force_is_told_with_its_note,
    nobody_sees_the_decisions_of_another_account,
    what_became_of_a_hold_is_told,
    what_was_allowed_and_what_was_denied_is_explained,
);

const ACCOUNT: &str = "acme";
/// 60 an hour, 500 a day, 5,000 a month, where nothing was bought.
const METRIC: &str = "api.requests";

fn by_id(decision_id: &str) -> ExplainDecisionRequest {
    ExplainDecisionRequest {
        decision_id: decision_id.to_owned(),
        ..ExplainDecisionRequest::default()
    }
}

fn by_request(account: &str, caller: &str, request_id: &str) -> ExplainDecisionRequest {
    ExplainDecisionRequest {
        account_id: account.to_owned(),
        caller: caller.to_owned(),
        request_id: request_id.to_owned(),
        ..ExplainDecisionRequest::default()
    }
}

async fn ask(
    clients: &Clients,
    request: ExplainDecisionRequest,
) -> Result<Response<ExplainDecisionResponse>, Status> {
    clients.quota.clone().explain_decision(request).await
}

async fn explain(clients: &Clients, request: ExplainDecisionRequest) -> Result<DecisionExplanation> {
    let answer = ask(clients, request).await?.into_inner();
    answer.explanation.context("no explanation")
}

fn first(explanation: &DecisionExplanation) -> Result<&ExplainedLimit> {
    explanation.limits.first().context("no limits")
}

/// The explanation says what the answer said.
fn agrees(explanation: &DecisionExplanation, answer: &CheckQuotaResponse) -> Result<()> {
    let statuses: Vec<_> = (explanation.limits.iter())
        .filter_map(|limit| limit.status.clone())
        .collect();
    ensure!(
        explanation.decision_id == answer.decision_id
            && explanation.allowed == answer.allowed
            && explanation.reason == answer.reason
            && explanation.binding_limit == answer.binding_limit
            && explanation.missing_features == answer.missing_features
            && statuses == answer.limits,
        "{explanation:?} explains {answer:?}"
    );
    Ok(())
}

const EXPIRED: crate::asks::Refusal = not_found(ErrorReason::DecisionExpired);

async fn what_was_allowed_and_what_was_denied_is_explained(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let allowed = decide(&app, consume(ACCOUNT, "r-1", &[(METRIC, 58)])).await?;
    ensure!(allowed.allowed, "{allowed:?}");
    let denied = decide(&app, consume(ACCOUNT, "r-2", &[(METRIC, 5)])).await?;
    ensure!(!denied.allowed, "{denied:?}");
    let looked = decide(&app, peek(ACCOUNT, &[(METRIC, 2)])).await?;

    let found = explain(&operator, by_id(&allowed.decision_id)).await?;
    agrees(&found, &allowed)?;
    ensure!(
        (
            found.account_id.as_str(),
            found.caller.as_str(),
            found.request_id.as_str()
        ) == (ACCOUNT, APPLICATION, "r-1"),
        "{found:?}"
    );
    ensure!(
        found.detail().as_str_name() == "EXPLANATION_DETAIL_FULL"
            && found.action().as_str_name() == "DECISION_ACTION_CONSUME"
            && found.recording().as_str_name() == "RECORDING_DURABLE"
            && found.stage().as_str_name() == "STAGE_CURRENT"
            && found.plan == "free"
            && found.plan_version >= 1
            && found.catalog_version >= 1
            && found.account_revision >= 1
            && found.decide_time.is_some()
            && found.effective_time == found.decide_time,
        "{found:?}"
    );
    let hour = first(&found)?;
    ensure!(
        (hour.amount, hour.plan_amount, &hour.r#override) == (58, 60, &None),
        "{hour:?}"
    );
    ensure!(
        found.items == consume(ACCOUNT, "", &[(METRIC, 58)]).items,
        "{found:?}"
    );
    let sentence =
        "Allowed: with these 58 of 60 units of api.requests were used this hour, and 58 were asked for.";
    ensure!(found.sentence == sentence, "{}", found.sentence);

    // Who asked may leave out its own name.
    for (clients, caller) in [(&operator, APPLICATION), (&app, "")] {
        let found = explain(clients, by_request(ACCOUNT, caller, "r-2")).await?;
        agrees(&found, &denied)?;
        let sentence = "Denied because the limit of an hour would be passed: 58 of 60 units of api.requests were used \
                        this hour, and 5 were asked for.";
        ensure!(found.sentence.starts_with(sentence), "{}", found.sentence);
    }
    let found = explain(&app, by_id(&looked.decision_id)).await?;
    agrees(&found, &looked)?;
    ensure!(
        found.action().as_str_name() == "DECISION_ACTION_PEEK",
        "{found:?}"
    );
    it_is_refused(&app, &operator, &allowed.decision_id).await
}

async fn it_is_refused(app: &Clients, operator: &Clients, decision_id: &str) -> Result<()> {
    let both = ExplainDecisionRequest {
        decision_id: decision_id.to_owned(),
        ..by_request(ACCOUNT, "", "r-1")
    };
    for (what, request, expected) in [
        ("no name", by_id(""), invalid("decision_id")),
        ("no id", by_id("r-1"), invalid("decision_id")),
        ("two names", both, invalid("decision_id")),
        ("no account", by_request("", "", "r-1"), invalid("account_id")),
        (
            "no request",
            by_request(ACCOUNT, APPLICATION, ""),
            invalid("request_id"),
        ),
        ("an unknown id", by_id(&"0".repeat(32)), EXPIRED),
        ("an unknown request", by_request(ACCOUNT, "", "r-none"), EXPIRED),
        ("another caller", by_request(ACCOUNT, "other", "r-1"), EXPIRED),
    ] {
        check_refusal(what, ask(app, request).await, expected)?;
    }
    // The operator did not ask itself.
    check_refusal(
        "its own",
        ask(operator, by_request(ACCOUNT, "", "r-1")).await,
        EXPIRED,
    )
}

async fn nobody_sees_the_decisions_of_another_account(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    for account in [ACCOUNT, "other"] {
        upsert_account(&app, account).await?;
    }
    let denied = decide(&app, consume(ACCOUNT, "r-1", &[(METRIC, 61)])).await?;
    let looked = decide(&app, peek(ACCOUNT, &[(METRIC, 1)])).await?;
    for answer in [&denied, &looked] {
        let of = |account: &str| ExplainDecisionRequest {
            account_id: account.to_owned(),
            ..by_id(&answer.decision_id)
        };
        agrees(&explain(&app, of(ACCOUNT)).await?, answer)?;
        check_refusal("another account", ask(&app, of("other")).await, EXPIRED)?;
    }
    check_refusal(
        "another account",
        ask(&app, by_request("other", "", "r-1")).await,
        EXPIRED,
    )?;
    let forbidden = refusal(Code::PermissionDenied, ErrorReason::CallerForbidden);
    let billing = fleet.clients("billing")?;
    check_refusal(
        "billing",
        ask(&billing, by_id(&denied.decision_id)).await,
        forbidden,
    )?;
    the_gateway_shows_the_account_s_own(fleet).await
}

async fn the_gateway_shows_the_account_s_own(fleet: &Fleet) -> Result<()> {
    let ann = crate::rest::signed_up(fleet, "ann@example.com").await?;
    let eve = crate::rest::signed_up(fleet, "eve@example.com").await?;
    let (_, program) = crate::rest::new_key(&ann, &["quota.check", "usage.read"]).await?;
    let check = serde_json::json!({
        "mode": "consume", "request_id": "r-1", "items": [{ "metric": "exports.run", "amount": 3 }]
    });
    let denied = program.post("/api/quota/check", &check).await?;
    ensure!(denied.refusal(429)? == "QUOTA_EXCEEDED", "{denied:?}");
    let id = denied.json()?["decision"]["decision_id"]
        .as_str()
        .context("no id")?
        .to_owned();
    let path = format!("/api/account/decisions/{id}");
    for reader in [&ann, &program] {
        let found = reader.get(&path).await?.expect(200)?;
        ensure!(
            found["allowed"] == false
                && found["reason"] == "quota_exceeded"
                && found["request_id"] == "r-1"
                && found["limits"][0]["amount"] == 3
                && found["limits"][0]["state"]["limit"] == 2
                && found["plan"] == "free",
            "{found}"
        );
        let sentence = found["sentence"].as_str().unwrap_or_default();
        ensure!(sentence.contains("3 were asked for"), "{sentence}");
    }
    for path in [
        path.as_str(),
        "/api/account/decisions/none",
        "/api/account/decisions/a%20b",
    ] {
        let answer = eve.get(path).await?;
        ensure!(answer.refusal(404)? == "DECISION_EXPIRED", "{path}: {answer:?}");
    }
    Ok(())
}

async fn a_denial_outlives_the_quota_service_and_what_was_allowed_does_not(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let allowed = decide(&app, consume(ACCOUNT, "r-1", &[(METRIC, 60)])).await?;
    let denied = decide(&app, consume(ACCOUNT, "r-2", &[(METRIC, 1)])).await?;
    ensure!(allowed.allowed && !denied.allowed, "{allowed:?} {denied:?}");
    let before = explain(&app, by_id(&denied.decision_id)).await?;
    agrees(&explain(&app, by_id(&allowed.decision_id)).await?, &allowed)?;
    // What waits to be written down is written before the end.
    fleet.stop("quota").await?;
    fleet.restart("quota").await?;
    eventually("the service answers again", async || {
        let found = explain(&app, by_id(&denied.decision_id)).await?;
        ensure!(found == before, "{found:?} was {before:?}");
        Ok(())
    })
    .await?;
    check_refusal(
        "what was allowed",
        ask(&app, by_id(&allowed.decision_id)).await,
        EXPIRED,
    )?;
    // A repeat is answered by the ledger; what it was made of then is not known.
    let again = decide(&app, consume(ACCOUNT, "r-1", &[(METRIC, 60)])).await?;
    ensure!(again.allowed && again.repeated_request, "{again:?}");
    let found = explain(&app, by_id(&allowed.decision_id)).await?;
    ensure!(found.allowed && found.repeated_request, "{found:?}");
    Ok(())
}
