//! Requests through every layer, with services that answer what the test says.

mod browser;
mod programs;
mod reports;
mod unusual;

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use metrics_exporter_prometheus::PrometheusBuilder;
use octroi_core::ErrorKind;
use octroi_proto::{
    account::v1 as account, billing::v1 as billing, errors::v1::ErrorReason, usage::v1 as usage,
};
use serde_json::json;

use crate::{
    access::{self, Access},
    key::Scope,
    testing::{Gateway, by_key, by_session, refusal},
};

const JSON: &str = "application/json";

fn plain(method: &str, path: &str) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(Body::empty())
        .expect("a request")
}

fn example(path: &str) -> String {
    path.replace("{key_id}", "key-9")
        .replace("{decision_id}", "d1")
        .replace("{job_id}", "job-1")
        .replace("{page}", "quota-exceeded")
}

#[tokio::test]
async fn every_route_lets_in_whom_the_table_lets_in_and_nobody_else() {
    let gateway = Gateway::start().await;
    for (method, path, access) in access::TABLE {
        let path = example(path);
        let refused = |(status, body): &(StatusCode, serde_json::Value)| {
            matches!(*status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                && body["reason"] != "CREDENTIALS_INVALID"
        };
        let anonymous = gateway.json(plain(method, &path)).await;
        assert_eq!(
            refused(&anonymous),
            *access != Access::Public,
            "nobody: {method} {path}: {anonymous:?}"
        );

        gateway.knows(account::Role::Member, &[]);
        let member = gateway.json(by_session(method, &path, "{}")).await;
        let open = matches!(access, Access::Public | Access::Member | Access::MemberOrKey(_));
        assert_eq!(refused(&member), !open, "a member: {method} {path}: {member:?}");
        let key = gateway.json(by_key(method, &path, JSON, "{}")).await;
        assert_eq!(
            refused(&key),
            *access != Access::Public,
            "a key without scopes: {method} {path}: {key:?}"
        );

        gateway.knows(
            account::Role::Owner,
            &["quota.check", "usage.write", "usage.read"],
        );
        let owner = gateway.json(by_session(method, &path, "{}")).await;
        assert_eq!(
            refused(&owner),
            matches!(access, Access::Key(_)),
            "an owner: {method} {path}: {owner:?}"
        );
        let key = gateway.json(by_key(method, &path, JSON, "{}")).await;
        let open = matches!(access, Access::Public | Access::Key(_) | Access::MemberOrKey(_));
        assert_eq!(refused(&key), !open, "a key: {method} {path}: {key:?}");
    }
}

#[tokio::test]
async fn a_key_needs_the_scope_of_its_route_and_no_other_will_do() {
    let gateway = Gateway::start().await;
    let scopes = [Scope::QuotaCheck, Scope::UsageWrite, Scope::UsageRead];
    for (method, path, access) in access::TABLE {
        let (Access::Key(needed) | Access::MemberOrKey(needed)) = access else {
            continue;
        };
        for scope in scopes {
            gateway.knows(account::Role::Owner, &[scope.name()]);
            let (_, body) = gateway.json(by_key(method, path, JSON, "{}")).await;
            assert_eq!(
                body["reason"] == "SCOPE_REQUIRED",
                scope != *needed,
                "{path} {scope:?} {body}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_served_is_a_problem_too() {
    let gateway = Gateway::start().await;
    for (method, path, status, reason) in [
        ("GET", "/api/nothing", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/api/account/settings/", 404, "ROUTE_NOT_FOUND"),
        ("GET", "/errors/no-such-reason", 404, "ROUTE_NOT_FOUND"),
        ("DELETE", "/api/account/settings", 405, "METHOD_NOT_ALLOWED"),
        ("TRACE", "/api/quota/check", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/api/quota/check", 405, "METHOD_NOT_ALLOWED"),
    ] {
        let response = gateway.send(plain(method, path)).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        assert_eq!(
            response.headers().contains_key(header::ALLOW),
            status == 405,
            "{method} {path}"
        );
        let (_, body) = gateway.json(plain(method, path)).await;
        assert_eq!(body["reason"], reason);
        assert_eq!(body["status"], status);
        let page = body["type"].as_str().expect("a reference");
        assert_eq!(
            gateway.send(plain("GET", page)).await.status(),
            StatusCode::OK,
            "{page}"
        );
    }
}

#[tokio::test]
async fn what_clients_make_up_does_not_become_a_label() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let measured = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let gateway = Gateway::start().await;
    for number in 0..20 {
        let method = format!("BREW{number}");
        for (path, status) in [("/api/made-up", 404), ("/api/quota/check", 405)] {
            let path = if status == 404 {
                format!("{path}/{number}")
            } else {
                path.to_owned()
            };
            let answered = gateway.send(plain(&method, &path)).await.status();
            assert_eq!(answered.as_u16(), status, "{method} {path}");
        }
    }
    gateway.send(plain("GET", "/errors/quota-exceeded")).await;
    let text = measured.render();
    for labels in [
        "method=\"other\",route=\"none\",status=\"404\"",
        "method=\"other\",route=\"/api/quota/check\",status=\"405\"",
        "method=\"GET\",route=\"/errors/{page}\",status=\"200\"",
    ] {
        assert!(text.contains(labels), "{labels} is not in {text}");
    }
    assert!(!text.contains("BREW") && !text.contains("made-up"), "{text}");
}

#[tokio::test]
async fn a_body_is_read_up_to_its_limit() {
    let gateway = Gateway::start().await;
    let large = format!(
        "{{\"mode\":\"peek\",\"features\":[\"{}\"]}}",
        "a".repeat(256 * 1024)
    );
    let (status, body) = gateway
        .json(by_key("POST", "/api/quota/check", JSON, &large))
        .await;
    assert_eq!(
        (status.as_u16(), &body["reason"]),
        (413, &json!("BODY_TOO_LARGE"))
    );
    // Events may be larger, up to 4 MiB.
    let (status, body) = gateway
        .json(by_key("POST", "/api/usage/events", JSON, &large))
        .await;
    assert_eq!(
        (status.as_u16(), &body["errors"][0]["field"]),
        (400, &json!("mode"))
    );
    let huge = " ".repeat(4 * 1024 * 1024 + 1);
    let (status, _) = gateway
        .json(by_key("POST", "/api/usage/events", JSON, &huge))
        .await;
    assert_eq!(status.as_u16(), 413);
    let (status, body) = gateway
        .json(by_key("POST", "/api/quota/check", "text/plain", "{}"))
        .await;
    assert_eq!(
        (status.as_u16(), &body["reason"]),
        (415, &json!("CONTENT_TYPE_UNSUPPORTED"))
    );
}

#[tokio::test]
async fn what_a_service_refuses_has_the_names_of_the_route() {
    let gateway = Gateway::start().await;
    gateway.answers(
        "/octroi.usage.v1.UsageService/GetUsageStats",
        |_: usage::GetUsageStatsRequest| {
            let mut violations = octroi_core::Violations::default();
            violations.add("start_time", "must be before end_time");
            Err::<usage::GetUsageStatsResponse, _>(octroi_kit::status::to_status(&violations))
        },
    );
    let path = "/api/account/usage?metrics=m&from=2026-03-01T00:00:01Z&to=2026-03-02T00:00:00Z";
    let (status, body) = gateway.json(by_session("GET", path, "")).await;
    assert_eq!(
        (status.as_u16(), &body["errors"][0]["field"]),
        (400, &json!("from"))
    );

    gateway.answers(
        "/octroi.account.v1.AccountService/RevokeApiKey",
        |_: account::RevokeApiKeyRequest| {
            Err::<account::RevokeApiKeyResponse, _>(refusal(ErrorKind::NotFound, ErrorReason::ApiKeyNotFound))
        },
    );
    let (status, body) = gateway
        .json(by_session(
            "DELETE",
            "/api/account/api-keys/of-another-account",
            "",
        ))
        .await;
    assert_eq!(
        (status.as_u16(), &body["reason"]),
        (404, &json!("API_KEY_NOT_FOUND"))
    );
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_503_and_one_that_distrusts_us_is_500() {
    let gateway = Gateway::start().await;
    let plans = "/octroi.billing.v1.BillingService/ListPlans";
    for (status, code, reason) in [
        (tonic::Status::unavailable("gone"), 503, "DEPENDENCY_UNAVAILABLE"),
        (
            refusal(ErrorKind::Unauthenticated, ErrorReason::TokenInvalid),
            500,
            "INTERNAL",
        ),
        (
            refusal(ErrorKind::Unavailable, ErrorReason::DatabaseUnavailable),
            503,
            "DATABASE_UNAVAILABLE",
        ),
    ] {
        gateway.answers(plans, move |_: billing::ListPlansRequest| {
            Err::<billing::ListPlansResponse, _>(status.clone())
        });
        let response = gateway.send(plain("GET", "/api/billing/plans")).await;
        assert_eq!(response.status().as_u16(), code);
        assert_eq!(response.headers().contains_key(header::RETRY_AFTER), code == 503);
        let (_, body) = gateway.json(plain("GET", "/api/billing/plans")).await;
        assert_eq!(body["reason"], reason);
    }
}
