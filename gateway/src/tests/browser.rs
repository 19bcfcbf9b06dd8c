//! What browsers are answered: headers, cookies, and whose pages may change something.

use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use octroi_proto::{account::v1 as account, notification::v1 as notification};

use super::JSON;
use crate::testing::{COOKIE, Gateway, ORIGIN, session};

#[tokio::test]
async fn every_answer_is_safe_for_browsers_and_has_a_name() {
    let gateway = Gateway::start().await;
    for path in ["/", "/openapi.json", "/api/nothing", "/api/auth/session"] {
        let request = Request::builder()
            .uri(path)
            .header("x-request-id", "mine-1")
            .body(Body::empty());
        let response = gateway.send(request.expect("a request")).await;
        let headers = response.headers();
        assert_eq!(headers["x-request-id"], "mine-1");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(
            headers["content-security-policy"]
                .to_str()
                .expect("ASCII")
                .contains("default-src 'none'")
        );
        assert_eq!(
            path.starts_with("/api/"),
            headers
                .get(header::CACHE_CONTROL)
                .is_some_and(|one| one == "no-store")
        );
    }
    let request = Request::builder()
        .uri("/")
        .header("x-request-id", "a b\"c")
        .body(Body::empty())
        .expect("a request");
    assert_ne!(gateway.send(request).await.headers()["x-request-id"], "a b\"c");
}

#[tokio::test]
async fn a_change_with_a_session_needs_our_origin_and_the_csrf_token() {
    let gateway = Gateway::start().await;
    let mark = "/octroi.notification.v1.NotificationService/MarkNoticesRead";
    gateway.answers(mark, |_: notification::MarkNoticesReadRequest| {
        Ok(notification::MarkNoticesReadResponse { marked_count: 1 })
    });
    for (pairs, expected) in [
        (
            &[("sec-fetch-site", "same-origin"), ("x-csrf-token", "csrf")][..],
            200,
        ),
        (&[("origin", ORIGIN), ("x-csrf-token", "csrf")], 200),
        (&[("sec-fetch-site", "cross-site"), ("x-csrf-token", "csrf")], 403),
        (
            &[("origin", "https://evil.example.com"), ("x-csrf-token", "csrf")],
            403,
        ),
        (
            &[("sec-fetch-site", "same-origin"), ("x-csrf-token", "guess")],
            403,
        ),
        (&[("sec-fetch-site", "same-origin")], 403),
        (&[("x-csrf-token", "csrf")], 403),
    ] {
        let mut request = Request::post("/api/account/notifications/read").header("cookie", COOKIE);
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let body = Body::from("{\"notice_ids\":[\"n1\"]}");
        let request = request
            .header("content-type", JSON)
            .body(body)
            .expect("a request");
        let (status, body) = gateway.json(request).await;
        assert_eq!(status.as_u16(), expected, "{pairs:?} {body}");
        assert_eq!(body["reason"] == "ORIGIN_REFUSED", expected == 403);
    }
    // A refused change reached no service.
    assert_eq!(gateway.calls(mark).len(), 2);
}

#[tokio::test]
async fn another_site_can_sign_nobody_in_and_a_program_can() {
    let gateway = Gateway::start().await;
    gateway.answers(
        "/octroi.account.v1.AccountService/SignIn",
        |request: account::SignInRequest| {
            assert_eq!(
                (request.email.as_str(), request.password.as_str()),
                ("ada@example.com", "correct horse battery")
            );
            let session = Some(session(account::Role::Owner));
            Ok(account::SignInResponse {
                session,
                session_token: "fresh".into(),
            })
        },
    );
    let body = "{\"email\":\"ada@example.com\",\"password\":\"correct horse battery\"}";
    let request = |site: Option<&str>| {
        let mut request = Request::post("/api/auth/sign-in").header("content-type", JSON);
        if let Some(site) = site {
            request = request.header("sec-fetch-site", site);
        }
        request.body(Body::from(body)).expect("a request")
    };
    assert_eq!(
        gateway.send(request(Some("cross-site"))).await.status(),
        StatusCode::FORBIDDEN
    );
    let response = gateway.send(request(None)).await;
    assert_eq!(response.status(), StatusCode::OK);
    let cookie = response.headers()[header::SET_COOKIE]
        .to_str()
        .expect("ASCII")
        .to_owned();
    assert!(
        cookie.starts_with("__Host-octroi_session=fresh; Path=/; Secure; HttpOnly; SameSite=Lax; Expires=")
    );
    let (_, json) = gateway.json(request(Some("same-origin"))).await;
    assert_eq!(json["csrf_token"], "csrf");
    assert!(
        !json.to_string().contains("fresh"),
        "the token is in the cookie alone"
    );
}

#[tokio::test]
async fn another_site_can_sign_nobody_out() {
    let gateway = Gateway::start().await;
    let sign_out = "/octroi.account.v1.AccountService/SignOut";
    gateway.answers(sign_out, |_: account::SignOutRequest| {
        Ok(account::SignOutResponse {})
    });
    let ours = ("sec-fetch-site", "same-origin");
    let cookie = ("cookie", COOKIE);
    for (pairs, expected) in [
        // A form of another site: the browser keeps the SameSite cookie to itself.
        (&[("sec-fetch-site", "cross-site")][..], 403),
        (&[("sec-fetch-site", "same-site")], 403),
        (&[("origin", "https://evil.example.com")], 403),
        (&[("origin", "null")], 403),
        (
            &[
                ("sec-fetch-site", "cross-site"),
                ("cookie", "__Host-octroi_session=old"),
            ],
            403,
        ),
        (
            &[("sec-fetch-site", "cross-site"), cookie, ("x-csrf-token", "csrf")],
            403,
        ),
        (&[ours, cookie], 403),
        (&[ours, cookie, ("x-csrf-token", "csrf")], 204),
        (&[ours], 204),
        (&[], 204),
    ] {
        let mut request = Request::post("/api/auth/sign-out");
        for (name, value) in pairs {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = gateway.send(request).await;
        assert_eq!(response.status().as_u16(), expected, "{pairs:?}");
        for header in ["set-cookie", "clear-site-data"] {
            assert_eq!(
                response.headers().contains_key(header),
                expected == 204,
                "{pairs:?} {header}"
            );
        }
    }
    assert_eq!(gateway.calls(sign_out).len(), 1);
}

#[tokio::test]
async fn a_session_that_has_ended_is_taken_out_of_the_browser() {
    let gateway = Gateway::start().await;
    let request = |method: &str, path: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("cookie", "__Host-octroi_session=old");
        request.body(Body::empty()).expect("a request")
    };
    let response = gateway.send(request("GET", "/api/auth/session")).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(
        response.headers()[header::SET_COOKIE]
            .to_str()
            .expect("ASCII")
            .contains("Max-Age=0")
    );
    // Signing out of what has ended is no error.
    let response = gateway.send(request("POST", "/api/auth/sign-out")).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert!(
        response.headers()[header::SET_COOKIE]
            .to_str()
            .expect("ASCII")
            .contains("Max-Age=0")
    );
}
