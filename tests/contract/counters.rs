//! The counters of quota: one contract, both variants.

use octroi_core::{AccountId, MetricSlug, Period, RequestId, Units, Window};
use octroi_kit::config::Secret;
use octroi_quota::{
    Backend, CountersConfig,
    counters::{Ask, Counters, RequestKey, Taken, WindowKey},
    domain::decision::Level,
};
use octroi_tests::harness::backends;

fn at(text: &str) -> jiff::Timestamp {
    text.parse().expect("an instant")
}

fn now() -> jiff::Timestamp {
    at("2026-03-01T10:30:00Z")
}

fn units(amount: u64) -> Units {
    Units::new(amount).expect("an amount")
}

fn account(name: &str) -> AccountId {
    AccountId::parse(name).expect("an id")
}

fn key(metric: &str, period: Period) -> WindowKey {
    let window = match period {
        Period::Hour => Window {
            start: at("2026-03-01T10:00:00Z"),
            end: at("2026-03-01T11:00:00Z"),
        },
        Period::Day => Window {
            start: at("2026-03-01T00:00:00Z"),
            end: at("2026-03-02T00:00:00Z"),
        },
        Period::Month => Window {
            start: at("2026-03-01T00:00:00Z"),
            end: at("2026-04-01T00:00:00Z"),
        },
        Period::Lifetime => Window::LIFETIME,
    };
    WindowKey::new(&MetricSlug::parse(metric).expect("a slug"), period, window)
}

fn ask(metric: &str, period: Period, amount: u64, max: Option<u64>) -> Ask {
    Ask {
        key: key(metric, period),
        amount: units(amount),
        max: max.map(units),
    }
}

fn level(decided: u64, direct: u64) -> Level {
    Level {
        decided: units(decided),
        direct: units(direct),
    }
}

async fn variants() -> Vec<(&'static str, Counters)> {
    let redis = backends::redis().await;
    let namespace = redis.namespace().await.expect("a namespace of Redis");
    let config = |backend| CountersConfig {
        backend,
        url: Secret::new(namespace.url.as_str()),
        namespace: "contract".into(),
        command_timeout_ms: 5_000,
        connections: 2,
    };
    let mut variants = Vec::new();
    for (name, backend) in [("in process", Backend::InProcess), ("redis", Backend::Redis)] {
        variants.push((name, Counters::connect(&config(backend)).await.expect("counters")));
    }
    variants
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_is_cold_until_it_is_seeded_and_a_second_seed_changes_nothing() {
    for (name, counters) in variants().await {
        let (acme, hour) = (account("acme"), ask("api.requests", Period::Hour, 1, Some(10)));
        let day = ask("api.requests", Period::Day, 1, Some(10));
        let asks = [hour.clone(), day.clone()];
        assert_eq!(
            counters.take(&acme, &asks, now()).await.expect("an answer"),
            Taken::Cold(vec![0, 1]),
            "{name}"
        );
        counters
            .seed(&acme, &[(hour.key.clone(), level(3, 2))], now())
            .await
            .expect("seeded");
        assert_eq!(
            counters.take(&acme, &asks, now()).await.expect("an answer"),
            Taken::Cold(vec![1]),
            "{name}"
        );
        counters
            .seed(&acme, &[(day.key, level(0, 0)), (hour.key, level(9, 9))], now())
            .await
            .expect("seeded");
        let taken = counters.take(&acme, &asks, now()).await.expect("an answer");
        assert_eq!(taken, Taken::Yes(vec![level(4, 2), level(1, 0)]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_windows_are_taken_from_or_none() {
    for (name, counters) in variants().await {
        let acme = account("acme");
        let asks = [
            ask("api.requests", Period::Hour, 5, Some(100)),
            ask("api.requests", Period::Month, 5, None),
            ask("exports.run", Period::Day, 2, Some(3)),
        ];
        let seeds: Vec<_> = asks.iter().map(|ask| (ask.key.clone(), level(0, 0))).collect();
        counters.seed(&acme, &seeds, now()).await.expect("seeded");
        let first = counters.take(&acme, &asks, now()).await.expect("an answer");
        assert_eq!(
            first,
            Taken::Yes(vec![level(5, 0), level(5, 0), level(2, 0)]),
            "{name}"
        );
        let second = counters.take(&acme, &asks, now()).await.expect("an answer");
        assert_eq!(
            second,
            Taken::No(vec![level(5, 0), level(5, 0), level(2, 0)]),
            "{name}"
        );
        let keys: Vec<_> = asks.iter().map(|ask| ask.key.clone()).collect();
        let looked = counters.look(&acme, &keys).await.expect("an answer");
        assert_eq!(
            looked,
            Taken::No(vec![level(5, 0), level(5, 0), level(2, 0)]),
            "{name}"
        );
        let other = counters.look(&account("other"), &keys).await.expect("an answer");
        assert_eq!(
            other,
            Taken::Cold(vec![0, 1, 2]),
            "{name}: accounts do not share windows"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_can_be_taken_again_and_never_falls_below_nothing() {
    for (name, counters) in variants().await {
        let (acme, asks) = (
            account("acme"),
            [ask("api.requests", Period::Lifetime, 4, Some(4))],
        );
        let [one] = &asks;
        counters
            .seed(&acme, &[(one.key.clone(), level(0, 0))], now())
            .await
            .expect("seeded");
        for _ in 0..2 {
            assert_eq!(
                counters.take(&acme, &asks, now()).await.expect("an answer"),
                Taken::Yes(vec![level(4, 0)]),
                "{name}"
            );
            assert_eq!(
                counters.take(&acme, &asks, now()).await.expect("an answer"),
                Taken::No(vec![level(4, 0)]),
                "{name}"
            );
            counters.give_back(&acme, &asks).await.expect("given back");
        }
        counters.give_back(&acme, &asks).await.expect("given back");
        let looked = counters
            .look(&acme, std::slice::from_ref(&one.key))
            .await
            .expect("an answer");
        assert_eq!(looked, Taken::No(vec![level(0, 0)]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_after_the_fact_only_grows_and_leaves_less_to_take() {
    for (name, counters) in variants().await {
        let (acme, asks) = (account("acme"), [ask("api.requests", Period::Day, 5, Some(10))]);
        let [one] = &asks;
        counters
            .raise_direct(&acme, &[(one.key.clone(), units(7))])
            .await
            .expect("a cold window stays cold");
        assert_eq!(
            counters.take(&acme, &asks, now()).await.expect("an answer"),
            Taken::Cold(vec![0]),
            "{name}"
        );
        counters
            .seed(&acme, &[(one.key.clone(), level(0, 0))], now())
            .await
            .expect("seeded");
        for (total, expected) in [(6, 6), (4, 6), (8, 8)] {
            counters
                .raise_direct(&acme, &[(one.key.clone(), units(total))])
                .await
                .expect("raised");
            let taken = counters.take(&acme, &asks, now()).await.expect("an answer");
            assert_eq!(taken, Taken::No(vec![level(0, expected)]), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_end_at_what_json_carries() {
    for (name, counters) in variants().await {
        let (acme, most) = (account("acme"), Units::MAX.get());
        let asks = [ask("storage.bytes", Period::Lifetime, most, None)];
        let [one] = &asks;
        counters
            .seed(&acme, &[(one.key.clone(), level(0, 0))], now())
            .await
            .expect("seeded");
        assert_eq!(
            counters.take(&acme, &asks, now()).await.expect("an answer"),
            Taken::Yes(vec![level(most, 0)]),
            "{name}"
        );
        let more = [ask("storage.bytes", Period::Lifetime, 1, None)];
        assert_eq!(
            counters.take(&acme, &more, now()).await.expect("an answer"),
            Taken::No(vec![level(most, 0)]),
            "{name}"
        );
        counters.give_back(&acme, &more).await.expect("given back");
        let looked = counters
            .look(&acme, std::slice::from_ref(&one.key))
            .await
            .expect("an answer");
        assert_eq!(looked, Taken::No(vec![level(most - 1, 0)]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_callers_take_exactly_the_limit() {
    for (name, counters) in variants().await {
        let (acme, asks) = (
            account("acme"),
            vec![ask("api.requests", Period::Hour, 3, Some(100))],
        );
        counters
            .seed(&acme, &[(asks[0].key.clone(), level(0, 0))], now())
            .await
            .expect("seeded");
        let callers = (0..64).map(|_| {
            let (counters, acme, asks) = (counters.clone(), acme.clone(), asks.clone());
            tokio::spawn(async move { counters.take(&acme, &asks, now()).await.expect("an answer") })
        });
        let answers = futures::future::join_all(callers).await;
        let allowed = answers
            .into_iter()
            .filter(|answer| matches!(answer, Ok(Taken::Yes(_))))
            .count();
        assert_eq!(allowed, 33, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_remembered_for_its_account_caller_and_request() {
    for (name, counters) in variants().await {
        let key = |caller: &str, request: &str| RequestKey {
            caller: caller.into(),
            request: RequestId::parse(request).expect("an id"),
        };
        let acme = account("acme");
        counters
            .remember(&acme, &key("app", "r1"), b"answer".to_vec())
            .await
            .expect("remembered");
        for (account_name, caller, request, expected) in [
            ("acme", "app", "r1", Some(b"answer".to_vec())),
            ("acme", "app", "r2", None),
            ("acme", "other", "r1", None),
            ("other", "app", "r1", None),
        ] {
            let recalled = counters
                .recall(&account(account_name), &key(caller, request))
                .await
                .expect("an answer");
            assert_eq!(recalled, expected, "{name} {account_name} {caller} {request}");
        }
    }
}
