//! Copies of what the database says: one contract, with Redis and without.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use octroi_core::AccountId;
use octroi_kit::config::Secret;
use octroi_quota::{
    CacheBackend, CacheConfig, RedisConfig,
    cache::{Cache, Part},
    redis::Redis,
};
use tokio::sync::Notify;

use crate::answers::a_redis;

const CONFIG: CacheConfig = CacheConfig {
    backend: CacheBackend::Redis,
    limits_ttl_ms: 60_000,
    usage_ttl_ms: 60_000,
};

fn acme() -> AccountId {
    AccountId::parse("acme").expect("an id")
}

/// What is copied, with how often it was read.
#[derive(Default)]
struct Source {
    value: AtomicU64,
    reads: AtomicU64,
}

impl Source {
    async fn read(&self) -> Result<u64, String> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let value = self.value.load(Ordering::SeqCst);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        Ok(value)
    }

    fn reads(&self) -> u64 {
        self.reads.load(Ordering::SeqCst)
    }
}

async fn get(cache: &Cache, source: &Source) -> u64 {
    let found = cache
        .get(&acme(), Part::Usage, |_: &u64| true, source.read())
        .await;
    found.expect("a value")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_read_again_and_where_copies_are_kept_nothing_else_is() {
    let redis = a_redis().await;
    for (backend, expected_reads) in [(CacheBackend::Off, 4), (CacheBackend::Redis, 2)] {
        let cache = Cache::new(CacheConfig { backend, ..CONFIG }, Some(&redis));
        let source = Source::default();
        assert_eq!([get(&cache, &source).await, get(&cache, &source).await], [0, 0]);
        source.value.store(1, Ordering::SeqCst);
        // Another part, and another account, are other copies.
        cache.forget(&[acme()], &[Part::Limits]).await;
        let other = AccountId::parse("other").expect("an id");
        cache.forget(&[other], &Part::ALL).await;
        let still = if backend == CacheBackend::Off { 1 } else { 0 };
        assert_eq!(get(&cache, &source).await, still, "{backend:?}");
        cache.forget(&[acme()], &Part::ALL).await;
        assert_eq!(get(&cache, &source).await, 1, "{backend:?}");
        assert_eq!(source.reads(), expected_reads, "{backend:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_miss_a_copy_on_several_replicas_one_reads() {
    let redis = a_redis().await;
    let replicas = [Cache::new(CONFIG, Some(&redis)), Cache::new(CONFIG, Some(&redis))];
    let source = Source::default();
    let all = (0..100).map(|number| get(&replicas[number % 2], &source));
    let values = futures::future::join_all(all).await;
    assert!(values.iter().all(|value| *value == 0));
    assert_eq!(source.reads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_before_a_change_is_not_kept_after_it() {
    let redis = a_redis().await;
    let cache = Cache::new(CONFIG, Some(&redis));
    let (has_read, may_go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (cache, has_read, may_go_on) = (cache.clone(), has_read.clone(), may_go_on.clone());
        tokio::spawn(async move {
            let read = async {
                has_read.notify_one();
                may_go_on.notified().await;
                Ok::<u64, String>(0)
            };
            cache.get(&acme(), Part::Usage, |_: &u64| true, read).await
        })
    };
    has_read.notified().await;
    let source = Source::default();
    source.value.store(1, Ordering::SeqCst);
    cache.forget(&[acme()], &[Part::Usage]).await;
    may_go_on.notify_one();
    assert_eq!(slow.await.expect("an end"), Ok(0), "it was asked before");
    assert_eq!(get(&cache, &source).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_will_not_do_is_made_anew() {
    let redis = a_redis().await;
    let cache = Cache::new(CONFIG, Some(&redis));
    let source = Source::default();
    assert_eq!(get(&cache, &source).await, 0);
    source.value.store(7, Ordering::SeqCst);
    let is_new = |value: &u64| *value >= 7;
    let found = cache.get(&acme(), Part::Usage, is_new, source.read()).await;
    assert_eq!(found, Ok(7));
    assert_eq!(get(&cache, &source).await, 7);
    assert_eq!(source.reads(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_ends_after_its_time_and_a_failure_is_none() {
    let redis = a_redis().await;
    let config = CacheConfig {
        usage_ttl_ms: 200,
        ..CONFIG
    };
    let cache = Cache::new(config, Some(&redis));
    let fails = async { Err::<u64, _>("no database".to_owned()) };
    let failed = cache.get(&acme(), Part::Usage, |_: &u64| true, fails).await;
    assert_eq!(failed, Err("no database".to_owned()));
    let source = Source::default();
    assert_eq!(get(&cache, &source).await, 0);
    source.value.store(1, Ordering::SeqCst);
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!(get(&cache, &source).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_connects_to_a_redis_that_is_not_there() {
    let config = RedisConfig {
        url: Secret::new("redis://127.0.0.1:1"),
        namespace: "octroi".into(),
        command_timeout_ms: 100,
        connections: 1,
    };
    assert!(Redis::connect(&config).await.is_err());
}
