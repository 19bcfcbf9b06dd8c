//! One contract, run over every provider; and what only Stripe's wire can show.

use octroi_kit::config::Secret;
use serde_json::json;
use wiremock::{
    Mock, MockServer, ResponseTemplate,
    matchers::{header, method, path, query_param},
};

use super::*;

fn account() -> AccountId {
    AccountId::parse("org_1:eu").expect("an id")
}

fn call(may_be_forgotten: bool) -> CallKey {
    CallKey {
        key: "customer-0199a1b2".into(),
        may_be_forgotten,
    }
}

fn manual() -> Payments {
    let config = PaymentsConfig {
        provider: PaymentsProvider::Manual,
        stripe_secret_key: Secret::default(),
        stripe_api_base: String::new(),
    };
    Payments::new(&config).expect("good settings")
}

fn stripe(base: &str) -> Payments {
    let config = PaymentsConfig {
        provider: PaymentsProvider::Stripe,
        stripe_secret_key: Secret::new("sk_test_contract"),
        stripe_api_base: base.to_owned(),
    };
    Payments::new(&config).expect("good settings")
}

fn customer() -> serde_json::Value {
    json!({ "id": "cus_1", "object": "customer", "created": 1_767_225_600, "livemode": false })
}

/// The form of a request, whichever of its marks are escaped.
fn form_of(request: &wiremock::Request) -> String {
    let body = String::from_utf8_lossy(&request.body);
    body.replace("%5B", "[").replace("%5D", "]").replace("%3A", ":")
}

fn created() -> wiremock::MockBuilder {
    Mock::given(method("POST"))
        .and(path("/v1/customers"))
        .and(header("idempotency-key", "customer-0199a1b2"))
        .and(header("authorization", "Bearer sk_test_contract"))
        .and(|request: &wiremock::Request| form_of(request) == "metadata[octroi_account_id]=org_1:eu")
}

async fn answering(template: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .respond_with(template)
        .mount(&server)
        .await;
    server
}

#[tokio::test]
async fn a_customer_is_the_same_however_often_it_is_made() {
    let server = MockServer::start().await;
    created()
        .respond_with(ResponseTemplate::new(200).set_body_json(customer()))
        .expect(2)
        .mount(&server)
        .await;
    for (payments, expected) in [(manual(), "manual_org_1:eu"), (stripe(&server.uri()), "cus_1")] {
        for _ in 0..2 {
            let id = payments
                .ensure_customer(&account(), &call(false))
                .await
                .expect("a customer");
            assert_eq!(id, expected, "{payments:?}");
        }
    }
}

#[test]
fn only_a_configured_provider_can_be_asked_for() {
    let (manual, stripe) = (manual(), stripe("http://127.0.0.1:9"));
    for (configured, asked, expected) in [
        (&manual, None, Some(Provider::Manual)),
        (&manual, Some(Provider::Manual), Some(Provider::Manual)),
        (&manual, Some(Provider::Stripe), None),
        (&stripe, None, Some(Provider::Stripe)),
        (&stripe, Some(Provider::Manual), Some(Provider::Manual)),
        (&stripe, Some(Provider::Stripe), Some(Provider::Stripe)),
    ] {
        assert_eq!(
            configured.choose(asked).map(|chosen| chosen.provider()),
            expected,
            "{configured:?} {asked:?}"
        );
    }
}

#[tokio::test]
async fn a_customer_whose_key_may_be_forgotten_is_looked_for_first() {
    let server = MockServer::start().await;
    let found = json!({
        "object": "search_result", "url": "/v1/customers/search", "has_more": false, "data": [customer()],
    });
    Mock::given(method("GET"))
        .and(path("/v1/customers/search"))
        .and(query_param("query", "metadata['octroi_account_id']:'org_1:eu'"))
        .respond_with(ResponseTemplate::new(200).set_body_json(found))
        .expect(1)
        .mount(&server)
        .await;
    let id = stripe(&server.uri())
        .ensure_customer(&account(), &call(true))
        .await
        .expect("a customer");
    assert_eq!(id, "cus_1");
}

#[tokio::test]
async fn looking_for_a_customer_and_making_one_share_one_budget() {
    let server = MockServer::start().await;
    let nobody = json!({
        "object": "search_result", "url": "/v1/customers/search", "has_more": false, "data": [],
    });
    let pause = std::time::Duration::from_millis(600);
    Mock::given(method("GET"))
        .respond_with(ResponseTemplate::new(200).set_body_json(nobody).set_delay(pause))
        .expect(2)
        .mount(&server)
        .await;
    created()
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_json(customer())
                .set_delay(pause),
        )
        .mount(&server)
        .await;
    for (call_max, in_time) in [(pause + pause / 2, false), (8 * pause, true)] {
        let Payments::Stripe(mut stripe) = stripe(&server.uri()) else {
            panic!("another provider")
        };
        stripe.call_max = call_max;
        // Each request alone would fit.
        let answer = Payments::Stripe(stripe)
            .ensure_customer(&account(), &call(true))
            .await;
        match answer {
            Ok(id) => assert!(in_time && id == "cus_1"),
            Err(error) => assert!(!in_time && matches!(error, PaymentsError::Unreachable)),
        }
    }
}

#[tokio::test]
async fn a_refusal_carries_the_provider_s_code_and_not_its_sentence() {
    let refused = json!({ "error": { "type": "invalid_request_error", "code": "parameter_invalid_empty",
        "message": "You passed hunter2" } });
    let server = answering(ResponseTemplate::new(400).set_body_json(refused)).await;
    let error = stripe(&server.uri())
        .ensure_customer(&account(), &call(false))
        .await
        .expect_err("a refusal");
    assert_eq!(
        (error.kind(), error.reason()),
        (ErrorKind::Precondition, "PAYMENT_PROVIDER_FAILED")
    );
    assert_eq!(
        error.metadata(),
        [
            ("status", "400".to_owned()),
            ("code", "parameter_invalid_empty".to_owned())
        ]
    );
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn what_may_pass_is_told_as_unavailable() {
    let busy = json!({ "error": { "type": "api_error", "message": "try again" } });
    let away = stripe("http://127.0.0.1:9")
        .ensure_customer(&account(), &call(false))
        .await;
    let mut outcomes = vec![away];
    for template in [
        ResponseTemplate::new(500).set_body_json(&busy),
        ResponseTemplate::new(429).set_body_json(&busy),
        ResponseTemplate::new(200).set_body_string("no json"),
    ] {
        let server = answering(template).await;
        outcomes.push(
            stripe(&server.uri())
                .ensure_customer(&account(), &call(false))
                .await,
        );
    }
    for outcome in outcomes {
        let error = outcome.expect_err("a failure");
        assert_eq!(
            (error.kind(), error.reason()),
            (ErrorKind::Unavailable, "PAYMENT_PROVIDER_FAILED")
        );
    }
}
