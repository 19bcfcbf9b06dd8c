//! The memory of quota's answers: one contract, both variants.

use octroi_core::{AccountId, RequestId};
use octroi_kit::config::Secret;
use octroi_quota::{
    AnswersConfig, Backend,
    answers::{Answers, RequestKey},
};
use octroi_tests::harness::backends;

fn account(name: &str) -> AccountId {
    AccountId::parse(name).expect("an id")
}

fn request(caller: &str, request: &str) -> RequestKey {
    RequestKey {
        caller: caller.into(),
        request: RequestId::parse(request).expect("an id"),
    }
}

async fn variants() -> Vec<(&'static str, Answers)> {
    let redis = backends::redis().await;
    let namespace = redis.namespace().await.expect("a namespace of Redis");
    let config = |backend| AnswersConfig {
        backend,
        url: Secret::new(namespace.url.as_str()),
        namespace: "contract".into(),
        command_timeout_ms: 5_000,
        connections: 2,
    };
    let mut variants = Vec::new();
    for (name, backend) in [("in process", Backend::InProcess), ("redis", Backend::Redis)] {
        variants.push((name, Answers::connect(&config(backend)).await.expect("a memory")));
    }
    variants
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_remembered_for_its_account_caller_and_request() {
    for (name, answers) in variants().await {
        let acme = account("acme");
        answers
            .remember(&acme, &request("app", "r1"), b"answer".to_vec(), true)
            .await
            .expect("remembered");
        // Told late, a denial does not take back what was allowed.
        answers
            .remember(&acme, &request("app", "r1"), b"denial".to_vec(), false)
            .await
            .expect("remembered");
        for (account_name, caller, id, expected) in [
            ("acme", "app", "r1", Some(b"answer".to_vec())),
            ("acme", "app", "r2", None),
            ("acme", "other", "r1", None),
            ("other", "app", "r1", None),
        ] {
            let recalled = answers
                .recall(&account(account_name), &request(caller, id))
                .await
                .expect("an answer");
            assert_eq!(recalled, expected, "{name} {account_name} {caller} {id}");
        }
    }
}
