//! Over HTTP.

use anyhow::{Context, Result, ensure};
use octroi_tests::harness::fleet::{Answer, Fleet, Rest};
use reqwest::Method;
use serde_json::{Value, json};

use super::{ABOVE, nothing_was_written};
use crate::rest::{new_key, signed_up};

pub(super) async fn bad_requests_are_told_the_field_and_the_rule(fleet: &mut Fleet) -> Result<()> {
    let ann = signed_up(fleet, "ann@example.com").await?;
    let (_, program) = new_key(&ann, &["quota.check", "usage.write", "usage.read"]).await?;
    bad_check_bodies(&program).await?;
    bad_event_bodies(&program).await?;
    bad_bodies(&program).await?;
    bad_pages_and_keys(&ann, &program).await?;
    nothing_was_written(fleet).await
}

async fn bad_check_bodies(program: &Rest) -> Result<()> {
    let item = |metric: &str, amount: Value| json!({ "metric": metric, "amount": amount });
    let good = |changes: Value| -> Value {
        let mut body = json!({ "mode": "consume", "request_id": "r-1", "items": [{ "metric": "exports.run", "amount": 1 }] });
        for (name, value) in changes.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    };
    for (body, status, reason, field) in [
        (
            good(json!({ "items": [item("api.nothing", json!(1))] })),
            404,
            "METRIC_NOT_FOUND",
            "items[0].metric",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(0))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(-1))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(1.5))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(1.0))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(ABOVE))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(u64::MAX))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!("1"))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", Value::Null)] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [{ "metric": "exports.run" }] })),
            400,
            "FIELD_REQUIRED",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(1)), item("exports.run", json!(1))] })),
            400,
            "FIELD_INVALID",
            "items[1].metric",
        ),
        (
            good(json!({ "items": vec![item("exports.run", json!(1)); 17] })),
            400,
            "FIELD_INVALID",
            "items",
        ),
        (
            good(json!({ "items": "exports.run" })),
            400,
            "FIELD_INVALID",
            "items",
        ),
        (good(json!({ "mode": "take" })), 400, "FIELD_INVALID", "mode"),
        (good(json!({ "mode": 1 })), 400, "FIELD_INVALID", "mode"),
        (
            good(json!({ "request_id": "" })),
            400,
            "FIELD_INVALID",
            "request_id",
        ),
        (
            good(json!({ "request_id": "a b" })),
            400,
            "FIELD_INVALID",
            "request_id",
        ),
        (
            good(json!({ "request_id": Value::Null })),
            400,
            "FIELD_INVALID",
            "request_id",
        ),
        (
            good(json!({ "account_id": "acme" })),
            400,
            "FIELD_INVALID",
            "account_id",
        ),
        (json!({ "items": [] }), 400, "FIELD_REQUIRED", "mode"),
        (json!([]), 400, "FIELD_INVALID", "body"),
    ] {
        let answer = program.post("/api/quota/check", &body).await?;
        check_problem(&body.to_string(), &answer, status, reason, field)?;
    }
    Ok(())
}

fn check_problem(what: &str, answer: &Answer, status: u16, reason: &str, field: &str) -> Result<()> {
    let found = answer.refusal(status).with_context(|| what.to_owned())?;
    let fields = answer.fields()?;
    let (first, rule) = fields.first().cloned().unwrap_or_default();
    ensure!(
        found == reason && first == field,
        "{what}: expected {reason} {field}, got {found} {fields:?}"
    );
    ensure!(
        first.is_empty() || !rule.is_empty(),
        "{what}: {first} breaks no rule"
    );
    Ok(())
}

async fn bad_event_bodies(program: &Rest) -> Result<()> {
    let good = |changes: Value| -> Value {
        let mut body = json!({ "event_id": "e-1", "metric": "exports.run", "amount": 1 });
        for (name, value) in changes.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    };
    for (body, status, reason, field) in [
        (
            good(json!({ "metric": "api.nothing" })),
            404,
            "METRIC_NOT_FOUND",
            "metric",
        ),
        (good(json!({ "event_id": "" })), 400, "FIELD_INVALID", "event_id"),
        (
            good(json!({ "source": "decision:x" })),
            400,
            "FIELD_INVALID",
            "source",
        ),
        (good(json!({ "amount": 0 })), 400, "FIELD_INVALID", "amount"),
        (good(json!({ "amount": 0.5 })), 400, "FIELD_INVALID", "amount"),
        (
            good(json!({ "event_time": "yesterday" })),
            400,
            "FIELD_INVALID",
            "event_time",
        ),
        (
            good(json!({ "event_time": "2001-09-09T01:46:40Z" })),
            400,
            "EVENT_TIME_OUT_OF_RANGE",
            "event_time",
        ),
        (
            good(json!({ "properties": { "k": 1 } })),
            400,
            "FIELD_INVALID",
            "properties.k",
        ),
        (
            good(json!({ "origin": "decision" })),
            400,
            "FIELD_INVALID",
            "origin",
        ),
        (
            json!({ "event_id": "e-1", "amount": 1 }),
            400,
            "FIELD_REQUIRED",
            "metric",
        ),
        (json!({ "events": [] }), 400, "FIELD_INVALID", "events"),
        (
            json!({ "events": vec![json!({}); 10_001] }),
            400,
            "FIELD_INVALID",
            "events",
        ),
    ] {
        let answer = program.post("/api/usage/events", &body).await?;
        let what: String = body.to_string().chars().take(200).collect();
        check_problem(&what, &answer, status, reason, field)?;
    }
    // Of many, each has a refusal of its own.
    let many =
        json!({ "events": [good(json!({ "amount": 0 })), good(json!({ "metric": "api.nothing" })), {}] });
    let answer = program.post("/api/usage/events", &many).await?.expect(200)?;
    ensure!(
        answer["refused_count"] == 3 && answer["recorded_count"] == 0,
        "{answer}"
    );
    let result = |index: usize| answer["results"][index]["error"].clone();
    ensure!(result(0)["errors"][0]["field"] == "events[0].amount", "{answer}");
    ensure!(result(1)["reason"] == "METRIC_NOT_FOUND", "{answer}");
    ensure!(
        result(2)["errors"][0]["field"] == "events[2].event_id",
        "{answer}"
    );
    Ok(())
}

async fn bad_bodies(program: &Rest) -> Result<()> {
    let check = "/api/quota/check";
    let send = async |path: &str, content_type: &'static str, body: String| {
        program
            .send(Method::POST, path, |request| {
                request.header("content-type", content_type).body(body)
            })
            .await
    };
    let json = "application/json";
    let deep = "[".repeat(200) + &"]".repeat(200);
    for (what, content_type, body, status, reason) in [
        ("not JSON", json, "{".to_owned(), 400, "BODY_MALFORMED"),
        ("nothing", json, String::new(), 400, "BODY_MALFORMED"),
        (
            "two values",
            json,
            "{\"mode\":\"peek\"} {}".to_owned(),
            400,
            "BODY_MALFORMED",
        ),
        (
            "deep nesting",
            json,
            format!("{{\"mode\":\"peek\",\"items\":{deep}}}"),
            400,
            "FIELD_INVALID",
        ),
        (
            "a field twice",
            json,
            "{\"mode\":\"peek\",\"mode\":\"peek\"}".to_owned(),
            400,
            "FIELD_INVALID",
        ),
        (
            "a form",
            "application/x-www-form-urlencoded",
            "mode=peek".to_owned(),
            415,
            "CONTENT_TYPE_UNSUPPORTED",
        ),
        (
            "text",
            "text/plain",
            "{\"mode\":\"peek\"}".to_owned(),
            415,
            "CONTENT_TYPE_UNSUPPORTED",
        ),
        (
            "more than 256 KiB",
            json,
            " ".repeat(256 * 1_024 + 1),
            413,
            "BODY_TOO_LARGE",
        ),
    ] {
        let answer = send(check, content_type, body).await?;
        ensure!(
            answer.refusal(status).with_context(|| what.to_owned())? == reason,
            "{what}: {answer:?}"
        );
    }
    let answer = send("/api/usage/events", json, " ".repeat(4 * 1_024 * 1_024 + 1)).await?;
    ensure!(
        answer.refusal(413)? == "BODY_TOO_LARGE",
        "more than 4 MiB: {answer:?}"
    );
    let answer = send("/api/usage/events", json, " ".repeat(3 * 1_024 * 1_024)).await?;
    ensure!(
        answer.refusal(400)? == "BODY_MALFORMED",
        "3 MiB of nothing: {answer:?}"
    );
    Ok(())
}

async fn bad_pages_and_keys(ann: &Rest, program: &Rest) -> Result<()> {
    let usage = "/api/account/usage?metrics=exports.run&from=2026-03-01T00:00:00Z&to=2026-03-02T00:00:00Z";
    for (path, reason, field) in [
        ("/api/account/usage".to_owned(), "FIELD_INVALID", "metrics"),
        (
            format!("{usage}&granularity=week"),
            "FIELD_INVALID",
            "granularity",
        ),
        (format!("{usage}&zone=Mars/Olympus"), "FIELD_INVALID", "zone"),
        (format!("{usage}&extra=1"), "FIELD_INVALID", "extra"),
        (usage.replace("2026-03-02T", "2026-03-01T"), "FIELD_INVALID", "to"),
        (format!("{usage}&compare=perhaps"), "FIELD_INVALID", "compare"),
        (
            "/api/account/usage/events?from=yesterday".to_owned(),
            "FIELD_INVALID",
            "from",
        ),
        (
            "/api/account/usage/events?property[a%20b]=c".to_owned(),
            "FIELD_INVALID",
            "property",
        ),
        (
            "/api/account/usage/events?limit=0".to_owned(),
            "FIELD_INVALID",
            "limit",
        ),
        (
            "/api/account/usage/events?cursor=made-up".to_owned(),
            "PAGE_TOKEN_INVALID",
            "cursor",
        ),
    ] {
        let answer = program.get(&path).await?;
        check_problem(&path, &answer, 400, reason, field)?;
    }
    for (body, reason, field) in [
        (
            json!({ "label": "", "scopes": ["quota.check"] }),
            "FIELD_INVALID",
            "label",
        ),
        (json!({ "label": "a", "scopes": [] }), "FIELD_INVALID", "scopes"),
        (
            json!({ "label": "a", "scopes": ["quota.chek"] }),
            "FIELD_INVALID",
            "scopes",
        ),
        (json!({ "label": "a" }), "FIELD_REQUIRED", "scopes"),
    ] {
        let answer = ann.post("/api/account/api-keys", &body).await?;
        check_problem(&body.to_string(), &answer, 400, reason, field)?;
    }
    for key in ["oct_0", "sk_live_1", ""] {
        let answer = ann.with_key(key).get("/api/account/quotas").await?;
        ensure!(answer.refusal(401)? == "API_KEY_INVALID", "{key}: {answer:?}");
    }
    Ok(())
}
