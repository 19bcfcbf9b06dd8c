//! What browsers and programs without gRPC see of the fleet.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use octroi_tests::harness::fleet::{Answer, Fleet, Rest, eventually, roomy_hour, within};
use reqwest::Method;
use serde_json::{Value, json};

use crate::story::both_topologies;

both_topologies!(
    people_sign_up_and_in_and_out,
    programs_check_quotas_with_a_key,
    another_account_does_not_exist,
    the_api_describes_itself,
);

const PASSWORD: &str = "plinth orbit walnut sails";

/// Somebody who has just signed up.
pub(crate) async fn signed_up(fleet: &Fleet, email: &str) -> Result<Rest> {
    let mut rest = fleet.rest();
    rest.sign_up(&json!({ "email": email, "password": PASSWORD, "display_name": "Acme" }))
        .await?;
    Ok(rest)
}

/// A new key's id, and a program that holds its secret.
pub(crate) async fn new_key(member: &Rest, scopes: &[&str]) -> Result<(String, Rest)> {
    let body = json!({ "label": "a program", "scopes": scopes });
    let made = member.post("/api/account/api-keys", &body).await?.expect(201)?;
    let secret = made["secret"].as_str().context("no secret")?;
    ensure!(secret.starts_with("oct_"), "it cannot be found by its prefix");
    let key_id = made["api_key"]["key_id"].as_str().context("no id")?;
    Ok((key_id.to_owned(), member.with_key(secret)))
}

async fn people_sign_up_and_in_and_out(fleet: &mut Fleet) -> Result<()> {
    let nobody = fleet.rest();
    let answer = nobody.get("/api/auth/session").await?;
    ensure!(answer.refusal(401)? == "SESSION_EXPIRED", "{answer:?}");

    let body = json!({ "email": "ann@example.com", "password": PASSWORD, "language": "french" });
    let answer = nobody.post("/api/auth/sign-up", &body).await?;
    ensure!(answer.status == 201, "{answer:?}");
    let cookie = answer.header("set-cookie");
    ensure!(cookie.starts_with("__Host-octroi_session="), "{cookie}");
    for attribute in ["Secure", "HttpOnly", "SameSite=", "Path=/"] {
        ensure!(cookie.contains(attribute), "a cookie without {attribute}");
    }
    ensure!(
        answer.header("cache-control") == "no-store",
        "a cache may keep a session"
    );
    let taken = nobody.post("/api/auth/sign-up", &body).await?;
    ensure!(taken.refusal(409)? == "EMAIL_TAKEN", "{taken:?}");

    for (email, password) in [
        ("ann@example.com", "plinth orbit walnut sailed"),
        ("eve@example.com", PASSWORD),
    ] {
        let answer = nobody
            .post(
                "/api/auth/sign-in",
                &json!({ "email": email, "password": password }),
            )
            .await?;
        ensure!(answer.refusal(401)? == "CREDENTIALS_INVALID", "{answer:?}");
        ensure!(
            answer.header("set-cookie").is_empty(),
            "a session without a password"
        );
    }

    let mut ann = nobody.clone();
    ann.sign_in("Ann@example.com", PASSWORD).await?;
    let session = ann.get("/api/auth/session").await?.expect(200)?;
    ensure!(
        session["member"]["role"] == "owner" && session["account"]["language"] == "french",
        "{session}"
    );

    changes_need_proof(&ann).await?;

    let left = ann
        .send(Method::POST, "/api/auth/sign-out", |request| request)
        .await?;
    ensure!(left.status == 204, "{left:?}");
    let answer = ann.get("/api/auth/session").await?;
    ensure!(
        answer.refusal(401)? == "SESSION_EXPIRED",
        "the session outlived its end: {answer:?}"
    );
    Ok(())
}

/// A change is made by our own page, which knows the session's token.
async fn changes_need_proof(ann: &Rest) -> Result<()> {
    let body = json!({ "display_name": "Ann & Co" });
    let patch = async |rest: &Rest| -> Result<Answer> {
        rest.send(Method::PATCH, "/api/account/settings", |request| {
            request.json(&body)
        })
        .await
    };
    for elsewhere in [
        ann.without_csrf_token(),
        ann.from_site("cross-site"),
        ann.from_site("same-site"),
    ] {
        let answer = patch(&elsewhere).await?;
        ensure!(answer.refusal(403)? == "ORIGIN_REFUSED", "{answer:?}");
    }
    let changed = patch(ann).await?.expect(200)?;
    ensure!(changed["display_name"] == "Ann & Co", "{changed}");
    Ok(())
}

async fn programs_check_quotas_with_a_key(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let ann = signed_up(fleet, "ann@example.com").await?;
    let (key_id, program) = new_key(&ann, &["quota.check", "usage.read"]).await?;
    let check = |request_id: &str, amount: u32| json!({ "mode": "consume", "request_id": request_id, "items": [{ "metric": "exports.run", "amount": amount }] });

    let allowed = program.post("/api/quota/check", &check("r-1", 2)).await?;
    let policy = allowed.header("ratelimit-policy").to_owned();
    ensure!(policy.contains("\"exports.run/hour\";q=2;w=3600"), "{policy}");
    ensure!(
        allowed.header("ratelimit").contains("\"exports.run/hour\";r=0"),
        "{allowed:?}"
    );
    let decision = allowed.expect(200)?;
    ensure!(
        decision["allowed"] == true && decision["repeated_request"] == false,
        "{decision}"
    );

    let denied = program.post("/api/quota/check", &check("r-2", 1)).await?;
    ensure!(denied.refusal(429)? == "QUOTA_EXCEEDED", "{denied:?}");
    let wait_s: u32 = denied.header("retry-after").parse().context("no Retry-After")?;
    ensure!((1..=3_600).contains(&wait_s), "{wait_s}");
    ensure!(
        denied.header("ratelimit").contains(&format!(";t={wait_s}")),
        "{denied:?}"
    );
    ensure!(
        denied.json()?["decision"]["reason"] == "quota_exceeded",
        "{}",
        denied.text
    );

    let premium = json!({ "mode": "peek", "features": ["premium.templates"] });
    let denied = program.post("/api/quota/check", &premium).await?;
    ensure!(denied.refusal(402)? == "SUBSCRIPTION_REQUIRED", "{denied:?}");
    let missing = denied.json()?["decision"]["missing_features"].clone();
    ensure!(
        missing == json!([{ "feature": "premium.templates", "plans": ["starter", "pro"] }]),
        "{missing}"
    );

    let foreign = program
        .post(
            "/api/usage/events",
            &json!({ "event_id": "e", "metric": "exports.run", "amount": 1 }),
        )
        .await?;
    ensure!(foreign.refusal(403)? == "SCOPE_REQUIRED", "{foreign:?}");
    account_pages_show_the_use(&ann, &program, &decision).await?;

    ann.delete(&format!("/api/account/api-keys/{key_id}"))
        .await?
        .expect(200)?;
    within(Duration::from_secs(5), "the revoked key is refused", async || {
        let answer = program.post("/api/quota/check", &premium).await?;
        ensure!(answer.refusal(401)? == "API_KEY_INVALID", "{answer:?}");
        Ok(())
    })
    .await
}

async fn account_pages_show_the_use(ann: &Rest, program: &Rest, decision: &Value) -> Result<()> {
    for reader in [ann, program] {
        let quotas = reader
            .get("/api/account/quotas?metrics=exports.run")
            .await?
            .expect(200)?;
        let limits = quotas["limits"].as_array().context("no limits")?;
        ensure!(quotas["plan"] == "free" && limits.len() == 3, "{quotas}");
        ensure!(limits.iter().all(|limit| limit["used"] == 2), "{quotas}");
    }
    let hour = &decision["limits"][0];
    let (from, to) = (
        hour["window_start_time"].as_str(),
        hour["window_end_time"].as_str(),
    );
    let (from, to) = from.zip(to).context("no window")?;
    let range = format!("/api/account/usage?metrics=exports.run&granularity=hour&from={from}&to={to}");
    eventually("the sums have it", async || {
        let usage = program.get(&range).await?.expect(200)?;
        ensure!(usage["metrics"][0]["total_amount"] == 2, "{usage}");
        Ok(())
    })
    .await?;
    let events = program.get("/api/account/usage/events").await?.expect(200)?;
    ensure!(events["events"][0]["origin"] == "decision", "{events}");
    eventually("the notice is there", async || {
        let page = ann
            .get("/api/account/notifications?unread_only=true")
            .await?
            .expect(200)?;
        ensure!(
            page["unread_count"] == 1 && page["notifications"][0]["severity"] == "critical",
            "{page}"
        );
        let read = json!({ "notice_ids": [page["notifications"][0]["notice_id"]] });
        let marked = ann
            .post("/api/account/notifications/read", &read)
            .await?
            .expect(200)?;
        ensure!(marked["marked_count"] == 1, "{marked}");
        Ok(())
    })
    .await?;
    let not_for_keys = program.get("/api/account/notifications").await?;
    ensure!(not_for_keys.refusal(403)? == "SCOPE_REQUIRED", "{not_for_keys:?}");
    Ok(())
}

async fn another_account_does_not_exist(fleet: &mut Fleet) -> Result<()> {
    let (ann, eve) = (
        signed_up(fleet, "ann@example.com").await?,
        signed_up(fleet, "eve@example.com").await?,
    );
    let (key_id, program) = new_key(&ann, &["usage.write"]).await?;
    for id in [
        key_id.as_str(),
        "00000000-0000-4000-8000-000000000000",
        "none",
        "a%20b",
    ] {
        let answer = eve.delete(&format!("/api/account/api-keys/{id}")).await?;
        ensure!(answer.refusal(404)? == "API_KEY_NOT_FOUND", "{id}: {answer:?}");
    }
    let keys = eve.get("/api/account/api-keys").await?.expect(200)?;
    ensure!(keys["api_keys"] == json!([]), "{keys}");
    let keys = ann.get("/api/account/api-keys").await?.expect(200)?;
    ensure!(
        keys["api_keys"][0]["key_id"] == key_id.as_str() && keys["api_keys"][0]["revoke_time"].is_null(),
        "{keys}"
    );

    // An account in the body or the query is no field of any route.
    let event = json!({ "event_id": "e-1", "metric": "exports.run", "amount": 1, "account_id": "demo" });
    let answer = program.post("/api/usage/events", &event).await?;
    ensure!(answer.refusal(400)? == "FIELD_INVALID", "{answer:?}");
    let answer = eve.get("/api/account/quotas?account_id=demo").await?;
    ensure!(answer.refusal(400)? == "FIELD_INVALID", "{answer:?}");
    Ok(())
}

async fn the_api_describes_itself(fleet: &mut Fleet) -> Result<()> {
    let rest = fleet.rest();
    let home = rest.get("/").await?;
    ensure!(
        home.status == 200 && home.header("content-type").starts_with("text/html"),
        "{home:?}"
    );
    ensure!(
        home.header("content-security-policy")
            .contains("default-src 'none'"),
        "{home:?}"
    );

    let document = rest.get("/openapi.json").await?.expect(200)?;
    for (path, method) in [
        ("/api/auth/sign-up", "post"),
        ("/api/auth/sign-in", "post"),
        ("/api/auth/session", "get"),
        ("/api/account/settings", "patch"),
        ("/api/account/usage", "get"),
        ("/api/account/usage/events", "get"),
        ("/api/account/quotas", "get"),
        ("/api/account/notifications", "get"),
        ("/api/account/api-keys", "post"),
        ("/api/account/api-keys/{key_id}", "delete"),
        ("/api/billing/plans", "get"),
        ("/api/billing/subscription", "get"),
        ("/api/quota/check", "post"),
        ("/api/usage/events", "post"),
    ] {
        ensure!(
            document["paths"][path][method].is_object(),
            "{method} {path} is not described"
        );
    }

    let missing = rest.get("/api/nothing").await?;
    ensure!(missing.refusal(404)? == "ROUTE_NOT_FOUND", "{missing:?}");
    let page = missing.json()?["type"].as_str().unwrap_or_default().to_owned();
    let page = rest.get(&page).await?;
    ensure!(
        page.status == 200 && page.text.contains("ROUTE_NOT_FOUND"),
        "{page:?}"
    );
    let wrong = rest.delete("/api/quota/check").await?;
    ensure!(wrong.refusal(405)? == "METHOD_NOT_ALLOWED", "{wrong:?}");
    let plans = rest.get("/api/billing/plans").await?.expect(200)?;
    ensure!(
        plans.to_string().contains("starter") && !plans.to_string().contains("replay"),
        "{plans}"
    );
    Ok(())
}
