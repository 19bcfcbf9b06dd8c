//! The memory of quota's answers: one contract, both variants.

use octroi_core::{AccountId, RequestId};
use octroi_kit::config::Secret;
use octroi_quota::{
    AnswersConfig, Backend, RedisConfig,
    answers::{Answers, RequestKey},
    redis::Redis,
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
    let redis = a_redis().await;
    let config = |backend| AnswersConfig {
        backend,
        told_per_second_max: 1_000,
    };
    [("in process", Backend::InProcess), ("redis", Backend::Redis)]
        .map(|(name, backend)| (name, Answers::new(config(backend), Some(&redis))))
        .into()
}

/// Connections to a corner of Redis that nobody else uses.
pub(crate) async fn a_redis() -> Redis {
    let namespace = backends::redis().await.namespace().await;
    let namespace = namespace.expect("a namespace of Redis");
    let config = RedisConfig {
        url: Secret::new(namespace.url.as_str()),
        namespace: namespace.prefix.clone(),
        command_timeout_ms: 5_000,
        connections: 2,
    };
    Redis::connect(&config).await.expect("a Redis")
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
