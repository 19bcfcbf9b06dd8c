//! What programs are answered: decisions, and the results of their events.

use axum::http::{StatusCode, header};
use octroi_kit::auth::PRINCIPAL_HEADER;
use octroi_proto::{common, quota::v1 as quota, usage::v1 as usage};
use serde_json::json;

use super::JSON;
use crate::testing::{Gateway, by_key};

const CHECK: &str = "/octroi.quota.v1.QuotaService/CheckQuota";
const TRACK: &str = "/octroi.usage.v1.UsageService/TrackUsage";
const TRACK_BATCH: &str = "/octroi.usage.v1.UsageService/TrackUsageBatch";

fn a_time() -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp {
        seconds: 1_772_366_400,
        nanos: 0,
    })
}

fn decision(allowed: bool, reason: quota::DenialReason) -> quota::CheckQuotaResponse {
    let limit = |metric: &str, remaining: u64| quota::LimitStatus {
        metric: metric.into(),
        period: common::v1::Period::Hour.into(),
        limit: 9_007_199_254_740_991,
        used: 9_007_199_254_740_991 - remaining,
        remaining,
        window_start_time: a_time(),
        window_end_time: Some(prost_types::Timestamp {
            seconds: 1_772_370_000,
            nanos: 0,
        }),
        mode: common::v1::LimitMode::Hard.into(),
        ..Default::default()
    };
    quota::CheckQuotaResponse {
        allowed,
        decision_id: "d1".into(),
        reason: reason.into(),
        limits: vec![limit("api.requests", 7), limit("exports.run", 0)],
        binding_limit: (!allowed).then_some(1),
        retry_after: (!allowed).then_some(prost_types::Duration {
            seconds: 12,
            nanos: 1,
        }),
        ..Default::default()
    }
}

const CHECK_BODY: &str =
    "{\"mode\":\"consume\",\"items\":[{\"metric\":\"api.requests\",\"amount\":1}],\"request_id\":\"r1\"}";

#[tokio::test]
async fn a_check_is_made_for_the_key_s_account_whatever_the_client_says() {
    let gateway = Gateway::start().await;
    gateway.answers(CHECK, |request: quota::CheckQuotaRequest| {
        assert_eq!(
            (request.account_id.as_str(), request.request_id.as_str()),
            ("acme", "r1")
        );
        assert_eq!(request.mode, i32::from(quota::CheckMode::Consume));
        Ok(decision(true, quota::DenialReason::Unspecified))
    });
    let mut request = by_key("POST", "/api/quota/check", JSON, CHECK_BODY);
    for name in ["x-tenant-id", "x-user-id", "x-account-id", PRINCIPAL_HEADER] {
        request
            .headers_mut()
            .insert(name, "other".parse().expect("a header"));
    }
    let response = gateway.send(request).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers().contains_key("ratelimit"));
    let calls = gateway.calls(CHECK);
    let principal = calls[0][PRINCIPAL_HEADER].to_str().expect("ASCII");
    assert!(principal.starts_with("acme|key-1|"), "{principal}");
    assert!(
        calls[0]["authorization"]
            .to_str()
            .expect("ASCII")
            .starts_with("Bearer ")
    );
    assert!(calls[0].values().all(|value| value != "other"));
    let (status, body) = gateway
        .json(by_key(
            "POST",
            "/api/quota/check",
            JSON,
            "{\"mode\":\"peek\",\"account_id\":\"other\"}",
        ))
        .await;
    assert_eq!(
        (status.as_u16(), &body["errors"][0]["field"]),
        (400, &json!("account_id"))
    );
}

#[tokio::test]
async fn over_quota_is_429_with_everything_that_a_client_needs() {
    let gateway = Gateway::start().await;
    gateway.answers(CHECK, |_: quota::CheckQuotaRequest| {
        Ok(decision(false, quota::DenialReason::QuotaExceeded))
    });
    let response = gateway
        .send(by_key("POST", "/api/quota/check", JSON, CHECK_BODY))
        .await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let headers = response.headers();
    assert_eq!(headers[header::RETRY_AFTER], "13");
    assert_eq!(
        headers["ratelimit-policy"],
        "\"api.requests/hour\";q=999999999999999;w=3600, \"exports.run/hour\";q=999999999999999;w=3600"
    );
    assert_eq!(
        headers["ratelimit"],
        "\"api.requests/hour\";r=7, \"exports.run/hour\";r=0;t=13"
    );
    let (_, body) = gateway
        .json(by_key("POST", "/api/quota/check", JSON, CHECK_BODY))
        .await;
    assert_eq!(
        (&body["reason"], &body["type"]),
        (&json!("QUOTA_EXCEEDED"), &json!("/errors/quota-exceeded"))
    );
    assert_eq!(body["decision"]["binding_limit"], 1);
    assert_eq!(
        body["decision"]["limits"][0]["limit"],
        json!(9_007_199_254_740_991_u64)
    );

    gateway.answers(CHECK, |_: quota::CheckQuotaRequest| {
        let missing = common::v1::FeaturePlans {
            feature: "premium.templates".into(),
            plans: vec!["pro".into()],
        };
        Ok(quota::CheckQuotaResponse {
            reason: quota::DenialReason::SubscriptionRequired.into(),
            missing_features: vec![missing],
            ..Default::default()
        })
    });
    let (status, body) = gateway
        .json(by_key("POST", "/api/quota/check", JSON, CHECK_BODY))
        .await;
    assert_eq!(
        (status.as_u16(), &body["reason"]),
        (402, &json!("SUBSCRIPTION_REQUIRED"))
    );
    assert_eq!(body["decision"]["missing_features"][0]["plans"], json!(["pro"]));
}

fn recorded() -> usage::TrackUsageResponse {
    usage::TrackUsageResponse {
        duplicate: false,
        record_time: a_time(),
    }
}

#[tokio::test]
async fn one_event_is_recorded_for_the_key_s_account() {
    let gateway = Gateway::start().await;
    gateway.answers(TRACK, |request: usage::TrackUsageRequest| {
        let event = request.event.expect("an event");
        assert_eq!(
            (event.account_id.as_str(), event.amount, request.backfill),
            ("acme", 3, false)
        );
        Ok(recorded())
    });
    let body =
        "{\"event_id\":\"e1\",\"metric\":\"api.requests\",\"amount\":3,\"properties\":{\"region\":\"eu\"}}";
    let (status, json) = gateway
        .json(by_key("POST", "/api/usage/events", JSON, body))
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        json,
        json!({"event_id": "e1", "duplicate": false, "record_time": "2026-03-01T12:00:00Z"})
    );
    let cloud =
        "{\"specversion\":\"1.0\",\"id\":\"e1\",\"source\":\"shop\",\"type\":\"m\",\"data\":{\"amount\":3}}";
    let (status, json) = gateway
        .json(by_key(
            "POST",
            "/api/usage/events",
            "application/cloudevents+json",
            cloud,
        ))
        .await;
    assert_eq!((status, &json["event_id"]), (StatusCode::OK, &json!("e1")));
}

#[tokio::test]
async fn each_of_many_events_has_a_result_of_its_own() {
    let gateway = Gateway::start().await;
    gateway.answers(TRACK_BATCH, |request: usage::TrackUsageBatchRequest| {
        let results = request.events.iter().enumerate().map(|(index, event)| {
            let outcome = if event.event_id == "reused" {
                usage::track_usage_result::Outcome::Error(usage::ItemError {
                    code: 6,
                    reason: "EVENT_ID_REUSED".into(),
                    message: format!("events[{index}].event_id came before"),
                    field: format!("events[{index}].event_id"),
                })
            } else {
                usage::track_usage_result::Outcome::Recorded(recorded())
            };
            usage::TrackUsageResult {
                outcome: Some(outcome),
                ..usage::TrackUsageResult::default()
            }
        });
        Ok(usage::TrackUsageBatchResponse {
            results: results.collect(),
        })
    });
    let event =
        |id: &str, amount: &str| format!("{{\"event_id\":\"{id}\",\"metric\":\"m\",\"amount\":{amount}}}");
    let body = format!(
        "{{\"events\":[{},{},{}]}}",
        event("e1", "1.5"),
        event("reused", "1"),
        event("e3", "1")
    );
    let (status, json) = gateway
        .json(by_key("POST", "/api/usage/events", JSON, &body))
        .await;
    assert_eq!(status, StatusCode::OK, "{json}");
    assert_eq!(
        (&json["recorded_count"], &json["refused_count"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(
        json["results"][0]["error"]["errors"][0]["field"],
        "events[0].amount"
    );
    assert_eq!(json["results"][1]["error"]["reason"], "EVENT_ID_REUSED");
    assert_eq!(
        json["results"][1]["error"]["errors"][0]["field"],
        "events[1].event_id"
    );
    assert_eq!(
        json["results"][1]["error"]["detail"],
        "events[1].event_id came before"
    );
    assert_eq!(json["results"][2]["recorded"]["event_id"], "e3");

    let cloud = |id: &str| {
        format!(
            "{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"s\",\"type\":\"m\",\"data\":{{\"amount\":1}}}}"
        )
    };
    let body = format!("[{},{}]", cloud("e1"), cloud("reused"));
    let (_, json) = gateway
        .json(by_key(
            "POST",
            "/api/usage/events",
            "application/cloudevents-batch+json",
            &body,
        ))
        .await;
    assert_eq!(json["results"][1]["error"]["errors"][0]["field"], "[1].id");
}

#[tokio::test]
async fn a_bad_batch_is_refused_whole_before_any_service_is_asked() {
    let gateway = Gateway::start().await;
    let many = format!("{{\"events\":[{}]}}", vec!["{}"; 10_001].join(","));
    for (body, field) in [
        ("{\"events\":[]}", "events"),
        ("{\"events\":{}}", "events"),
        ("{\"events\":[{}],\"backfill\":true}", "events"),
        ("{}", "event_id"),
        ("[]", "body"),
        (many.as_str(), "events"),
    ] {
        let (status, json) = gateway
            .json(by_key("POST", "/api/usage/events", JSON, body))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(json["errors"][0]["field"], field, "{json}");
    }
    let (_, json) = gateway
        .json(by_key("POST", "/api/usage/events", JSON, "{\"events\":["))
        .await;
    assert_eq!(json["reason"], "BODY_MALFORMED");
    assert!(gateway.calls(TRACK).is_empty() && gateway.calls(TRACK_BATCH).is_empty());
}
