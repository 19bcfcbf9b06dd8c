//! Copies in Redis, with the leases of those who make them.

use std::sync::LazyLock;

use fred::{
    prelude::KeysInterface as _,
    types::{Value, scripts::Script},
};
use octroi_core::AccountId;

use super::{Found, Part};
use crate::redis::{Redis, RedisError};

/// How long whoever makes a copy has for it, in milliseconds.
const LEASE_MS: u32 = 1_000;

/// The copy, or else the lease where nobody has it: 1 with the copy, 2 with the lease, 3 where another has it.
static FIND_OR_LEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "
local copy = redis.call('GET', KEYS[1])
if copy then return {1, copy} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {2, ''} end
return {3, ''}",
    )
});

/// Keeps a copy where the lease is still one's own: nothing has changed since it was given.
static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::from_lua(
        "
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1",
    )
});

fn keys(redis: &Redis, account: &AccountId, part: Part) -> Vec<String> {
    let name = part.name();
    vec![
        redis.key(account, format_args!("c:{name}")),
        redis.key(account, format_args!("l:{name}")),
    ]
}

pub(super) async fn find(
    redis: &Redis,
    account: &AccountId,
    part: Part,
) -> Result<Option<Vec<u8>>, RedisError> {
    let key = redis.key(account, format_args!("c:{}", part.name()));
    let copy: Value = redis.reach(redis.pool().get(key)).await?;
    Ok(copy.into_bytes().map(|bytes| bytes.to_vec()))
}

pub(super) async fn find_or_lease(
    redis: &Redis,
    account: &AccountId,
    part: Part,
    token: &str,
) -> Result<Found, RedisError> {
    let arguments = vec![token.to_owned(), LEASE_MS.to_string()];
    let call = FIND_OR_LEASE.evalsha_with_reload(redis.pool().next(), keys(redis, account, part), arguments);
    let (outcome, copy): (i64, Value) = redis.reach(call).await?;
    Ok(match outcome {
        1 => Found::Copy(copy.into_bytes().map(|bytes| bytes.to_vec()).unwrap_or_default()),
        2 => Found::Lease,
        _ => Found::Busy,
    })
}

pub(super) async fn fill(
    redis: &Redis,
    account: &AccountId,
    part: Part,
    token: &str,
    copy: Vec<u8>,
    ttl_ms: u64,
) -> Result<(), RedisError> {
    let arguments = vec![
        Value::from(token),
        Value::Bytes(copy.into()),
        Value::from(ttl_ms.to_string()),
    ];
    let call = FILL.evalsha_with_reload(redis.pool().next(), keys(redis, account, part), arguments);
    let _: i64 = redis.reach(call).await?;
    Ok(())
}

/// Forgets copies and leases. One command a name: in a cluster they are on several nodes.
pub(super) async fn forget(redis: &Redis, accounts: &[AccountId], parts: &[Part]) -> Result<(), RedisError> {
    let pipeline = redis.pool().next().pipeline();
    for account in accounts {
        for part in parts {
            let _: () = pipeline.unlink(keys(redis, account, *part)).await?;
        }
    }
    let _: Vec<i64> = redis.reach(pipeline.all()).await?;
    Ok(())
}
