//! The counters of quota: one contract, both variants.

use octroi_core::{AccountId, MetricSlug, Period, RequestId, Units, Window};
use octroi_kit::config::Secret;
use octroi_quota::{
    Backend, CountersConfig,
    counters::{Ask, Counters, Mark, Receipt, RequestKey, Taken},
    domain::{decision::Level, window::WindowKey},
};
use octroi_tests::harness::backends;
use uuid::Uuid;

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

fn request(caller: &str, request: &str) -> RequestKey {
    RequestKey {
        caller: caller.into(),
        request: RequestId::parse(request).expect("an id"),
    }
}

/// What an attempt takes.
fn receipt(asks: &[Ask]) -> Receipt {
    Receipt {
        at: now(),
        asks: asks.to_vec(),
    }
}

/// An attempt of a request of its own.
fn mark() -> Mark {
    let attempt = Uuid::new_v4();
    Mark {
        key: request("app", &attempt.to_string()),
        content_hash: [7; 32],
        attempt,
    }
}

/// Another attempt of the same request.
fn again(mark: &Mark) -> Mark {
    Mark {
        attempt: Uuid::new_v4(),
        ..mark.clone()
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
            counters
                .take(&acme, &mark(), &receipt(&asks), now())
                .await
                .expect("an answer"),
            Taken::Cold(vec![0, 1]),
            "{name}"
        );
        counters
            .seed(&acme, &[(hour.key.clone(), level(3, 2))], now())
            .await
            .expect("seeded");
        assert_eq!(
            counters
                .take(&acme, &mark(), &receipt(&asks), now())
                .await
                .expect("an answer"),
            Taken::Cold(vec![1]),
            "{name}"
        );
        counters
            .seed(&acme, &[(day.key, level(0, 0)), (hour.key, level(9, 9))], now())
            .await
            .expect("seeded");
        let taken = counters
            .take(&acme, &mark(), &receipt(&asks), now())
            .await
            .expect("an answer");
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
        let first = counters
            .take(&acme, &mark(), &receipt(&asks), now())
            .await
            .expect("an answer");
        assert_eq!(
            first,
            Taken::Yes(vec![level(5, 0), level(5, 0), level(2, 0)]),
            "{name}"
        );
        let second = counters
            .take(&acme, &mark(), &receipt(&asks), now())
            .await
            .expect("an answer");
        assert_eq!(
            second,
            Taken::No(vec![level(5, 0), level(5, 0), level(2, 0)]),
            "{name}"
        );
        let keys: Vec<_> = asks.iter().map(|ask| ask.key.clone()).collect();
        let looked = counters.look(&acme, &keys).await.expect("an answer");
        assert_eq!(looked, Ok(vec![level(5, 0), level(5, 0), level(2, 0)]), "{name}");
        let other = counters.look(&account("other"), &keys).await.expect("an answer");
        assert_eq!(other, Err(vec![0, 1, 2]), "{name}: accounts do not share windows");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_can_be_taken_again_and_is_given_back_once() {
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
            let mark = mark();
            let taken = counters
                .take(&acme, &mark, &receipt(&asks), now())
                .await
                .expect("an answer");
            assert_eq!(taken, Taken::Yes(vec![level(4, 0)]), "{name}");
            let other = counters
                .take(&acme, &self::mark(), &receipt(&asks), now())
                .await
                .expect("an answer");
            assert_eq!(other, Taken::No(vec![level(4, 0)]), "{name}");
            for _ in 0..2 {
                counters.give_back(&acme, &mark, &asks).await.expect("given back");
            }
        }
        let looked = counters
            .look(&acme, std::slice::from_ref(&one.key))
            .await
            .expect("an answer");
        assert_eq!(looked, Ok(vec![level(0, 0)]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_again_takes_nothing_and_its_last_attempt_answers_for_the_units() {
    for (name, counters) in variants().await {
        let (acme, asks) = (account("acme"), [ask("api.requests", Period::Day, 3, Some(4))]);
        let [one] = &asks;
        counters
            .seed(&acme, &[(one.key.clone(), level(0, 0))], now())
            .await
            .expect("seeded");
        let first = mark();
        let (second, others) = (again(&first), again(&mark()));
        let reused = Mark {
            content_hash: [8; 32],
            ..again(&first)
        };
        // The repeat comes in another window, and asks for less there.
        let elsewhere = [ask("api.requests", Period::Hour, 1, Some(4))];
        for (attempt, asks, expected) in [
            (&first, &asks, Taken::Yes(vec![level(3, 0)])),
            (&second, &elsewhere, Taken::Before(receipt(&asks))),
            (&others, &asks, Taken::No(vec![level(3, 0)])),
            (&reused, &asks, Taken::Reused),
        ] {
            let taken = counters
                .take(&acme, attempt, &receipt(asks), now())
                .await
                .expect("an answer");
            assert_eq!(taken, expected, "{name}");
        }
        for (attempt, left) in [(&first, 3), (&reused, 3), (&second, 0), (&second, 0)] {
            counters
                .give_back(&acme, attempt, &asks)
                .await
                .expect("an answer");
            let keys = std::slice::from_ref(&one.key);
            let looked = counters.look(&acme, keys).await.expect("an answer");
            assert_eq!(looked, Ok(vec![level(left, 0)]), "{name}");
        }
        // Nothing is known of the request any more.
        let taken = counters
            .take(&acme, &reused, &receipt(&asks), now())
            .await
            .expect("an answer");
        assert_eq!(taken, Taken::Yes(vec![level(3, 0)]), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_in_use_stays_warm_however_many_others_are_looked_at() {
    for (name, counters) in variants().await {
        let acme = account("acme");
        let open = ask("api.requests", Period::Hour, 1, Some(1_000));
        let past = |hour: i64| {
            let start = at("2026-02-01T00:00:00Z") + jiff::SignedDuration::from_hours(hour);
            let end = start + jiff::SignedDuration::from_hours(1);
            WindowKey::new(&open.key.metric, Period::Hour, Window { start, end })
        };
        counters
            .seed(&acme, &[(open.key.clone(), level(0, 0))], now())
            .await
            .expect("seeded");
        for hour in 0..400 {
            let asks = [Ask {
                key: past(hour),
                ..open.clone()
            }];
            counters
                .seed(&acme, &[(past(hour), level(0, 0))], now())
                .await
                .expect("seeded");
            let taken = counters
                .take(&acme, &mark(), &receipt(&asks), now())
                .await
                .expect("an answer");
            assert_eq!(
                taken,
                Taken::Yes(vec![level(1, 0)]),
                "{name}: a seed holds, hour {hour}"
            );
        }
        let taken = counters
            .take(&acme, &mark(), &receipt(&[open]), now())
            .await
            .expect("an answer");
        assert_eq!(taken, Taken::Yes(vec![level(1, 0)]), "{name}: the open hour");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_recorded_after_the_fact_only_grows_and_leaves_less_to_take() {
    for (name, counters) in variants().await {
        let (acme, asks) = (account("acme"), [ask("api.requests", Period::Day, 5, Some(10))]);
        let [one] = &asks;
        counters
            .raise_direct(&acme, &[(one.key.clone(), units(6))], now())
            .await
            .expect("a cold window stays cold");
        let taken = counters
            .take(&acme, &mark(), &receipt(&asks), now())
            .await
            .expect("an answer");
        assert_eq!(taken, Taken::Cold(vec![0]), "{name}");
        // The seed read the ledger before what raised it.
        counters
            .seed(&acme, &[(one.key.clone(), level(0, 4))], now())
            .await
            .expect("seeded");
        for (total, expected) in [(0, 6), (4, 6), (8, 8)] {
            counters
                .raise_direct(&acme, &[(one.key.clone(), units(total))], now())
                .await
                .expect("raised");
            let taken = counters
                .take(&acme, &mark(), &receipt(&asks), now())
                .await
                .expect("an answer");
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
            counters
                .take(&acme, &mark(), &receipt(&asks), now())
                .await
                .expect("an answer"),
            Taken::Yes(vec![level(most, 0)]),
            "{name}"
        );
        let more = [ask("storage.bytes", Period::Lifetime, 1, None)];
        assert_eq!(
            counters
                .take(&acme, &mark(), &receipt(&more), now())
                .await
                .expect("an answer"),
            Taken::No(vec![level(most, 0)]),
            "{name}"
        );
        let looked = counters
            .look(&acme, std::slice::from_ref(&one.key))
            .await
            .expect("an answer");
        assert_eq!(looked, Ok(vec![level(most, 0)]), "{name}");
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
            tokio::spawn(async move {
                counters
                    .take(&acme, &mark(), &receipt(&asks), now())
                    .await
                    .expect("an answer")
            })
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
        let acme = account("acme");
        counters
            .remember(&acme, &request("app", "r1"), b"answer".to_vec(), true)
            .await
            .expect("remembered");
        // Told late, a denial does not take back what was allowed.
        counters
            .remember(&acme, &request("app", "r1"), b"denial".to_vec(), false)
            .await
            .expect("remembered");
        for (account_name, caller, id, expected) in [
            ("acme", "app", "r1", Some(b"answer".to_vec())),
            ("acme", "app", "r2", None),
            ("acme", "other", "r1", None),
            ("other", "app", "r1", None),
        ] {
            let recalled = counters
                .recall(&account(account_name), &request(caller, id))
                .await
                .expect("an answer");
            assert_eq!(recalled, expected, "{name} {account_name} {caller} {id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_allowed_without_the_counters_is_charged_once_where_the_ledger_did_not_tell() {
    // The variant in this process is never away.
    let (_, counters) = variants().await.pop().expect("the variant in Redis");
    let acme = account("acme");
    let [before, after, cold] =
        [Period::Hour, Period::Day, Period::Month].map(|period| ask("api.requests", period, 5, Some(4)));
    let recorded_at = now();
    for (ask, seeded_at) in [
        (&before, recorded_at - jiff::SignedDuration::from_secs(1)),
        (&after, recorded_at),
    ] {
        counters
            .seed(&acme, &[(ask.key.clone(), level(2, 0))], seeded_at)
            .await
            .expect("seeded");
    }
    let mark = mark();
    let receipt = receipt(&[before.clone(), after.clone(), cold.clone()]);
    for _ in 0..2 {
        counters
            .charge(&acme, &again(&mark), &receipt, recorded_at)
            .await
            .expect("charged");
    }
    let warm = counters
        .look(&acme, &[before.key, after.key])
        .await
        .expect("an answer");
    assert_eq!(warm, Ok(vec![level(7, 0), level(2, 0)]), "over the limit, once");
    let cold = counters.look(&acme, &[cold.key]).await.expect("an answer");
    assert_eq!(cold, Err(vec![0]));
    let repeat = counters
        .take(&acme, &again(&mark), &receipt, now())
        .await
        .expect("an answer");
    assert_eq!(repeat, Taken::Before(receipt.clone()));
}
