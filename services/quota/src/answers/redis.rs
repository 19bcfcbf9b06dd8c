//! Answers in Redis, for all replicas.

use fred::{
    prelude::{Expiration, KeysInterface as _},
    types::{SetOptions, Value},
};
use octroi_core::AccountId;

use super::{ANSWER_TTL_S, DENIAL_TTL_S, RequestKey};
use crate::redis::{Redis, RedisError};

fn key_of(redis: &Redis, account: &AccountId, key: &RequestKey) -> String {
    redis.key(account, format_args!("r:{}:{}", key.caller, key.request))
}

pub(super) async fn remember(
    redis: &Redis,
    account: &AccountId,
    key: &RequestKey,
    answer: Vec<u8>,
    allowed: bool,
) -> Result<(), RedisError> {
    let (ttl_s, options) = if allowed {
        (ANSWER_TTL_S, None)
    } else {
        (DENIAL_TTL_S, Some(SetOptions::NX))
    };
    let expiration = Some(Expiration::EX(i64::try_from(ttl_s).unwrap_or(i64::MAX)));
    let answer = Value::Bytes(answer.into());
    // What was there before is answered where the option stands in the way; it does not matter.
    let key = key_of(redis, account, key);
    let call = redis.pool().set(key, answer, expiration, options, false);
    let _: Value = redis.reach(call).await?;
    Ok(())
}

pub(super) async fn recall(
    redis: &Redis,
    account: &AccountId,
    key: &RequestKey,
) -> Result<Option<Vec<u8>>, RedisError> {
    let call = redis.pool().get(key_of(redis, account, key));
    let answer: Value = redis.reach(call).await?;
    Ok(answer.into_bytes().map(|bytes| bytes.to_vec()))
}
