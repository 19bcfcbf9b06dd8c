//! Requests that were answered from memory, told to the other replicas through Redis a moment later: a repeat that reaches
//! another replica is known there. They are many and each is small, so those of a minute are fields of one hash.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use fred::{
    prelude::{HashesInterface as _, KeysInterface as _},
    types::Value,
};
use octroi_core::Clock;
use tokio_util::sync::CancellationToken;

use super::{
    ANSWER_TTL_S,
    seen::{Before, Mark, Outcome},
};
use crate::redis::{Redis, RedisError};

/// How long an answer waits before others are told.
const TELL_EVERY: Duration = Duration::from_millis(50);
/// The seconds of one hash.
const HASH_S: i64 = 60;
/// The most fields of one command.
const FIELDS_MAX: usize = 2_000;
/// The length of a field's value: the hash of the content, and whether it was allowed.
const VALUE_BYTES: usize = 9;

/// What others are told. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Behind(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    redis: Redis,
    clock: Clock,
    /// How many are told each second; of those beyond, others know nothing.
    per_second_max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    answers: Vec<(Mark, Before)>,
    /// How many may still be told in this turn.
    left: usize,
    /// How many were not.
    untold: u64,
}

impl Behind {
    /// Nothing to tell yet.
    #[must_use]
    pub fn new(redis: Redis, clock: Clock, per_second_max: usize) -> Self {
        Self(Arc::new(Inner {
            redis,
            clock,
            per_second_max,
            waiting: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Others are told in a moment.
    pub(super) fn note(&self, mark: Mark, answer: Before) {
        let mut waiting = self.lock();
        if waiting.left == 0 {
            waiting.untold += 1;
            return;
        }
        waiting.left -= 1;
        waiting.answers.push((mark, answer));
    }

    /// Tells others until `stop`, and then what is left.
    pub async fn tell(self, stop: CancellationToken) {
        let turns_per_second = 1_000 / TELL_EVERY.as_millis().max(1);
        let per_turn = self.0.per_second_max / usize::try_from(turns_per_second).unwrap_or(1);
        while !stop.is_cancelled() {
            self.tell_waiting(per_turn.max(1)).await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(TELL_EVERY) => {}
            }
        }
        self.tell_waiting(0).await;
    }

    async fn tell_waiting(&self, next: usize) {
        let (answers, untold) = {
            let mut waiting = self.lock();
            waiting.left = next;
            (
                std::mem::take(&mut waiting.answers),
                std::mem::take(&mut waiting.untold),
            )
        };
        metrics::counter!("octroi_quota_answers_untold_total").increment(untold);
        for some in answers.chunks(FIELDS_MAX) {
            if let Err(error) = self.write(some).await {
                tracing::debug!(error = %error, "other replicas are not told what was answered");
            }
        }
    }

    async fn write(&self, answers: &[(Mark, Before)]) -> Result<(), RedisError> {
        let key = self.key(self.minute());
        let fields: HashMap<Bytes, Value> = answers
            .iter()
            .map(|(mark, answer)| (field(*mark), Value::Bytes(to_bytes(*answer))))
            .collect();
        let lives = i64::try_from(ANSWER_TTL_S).unwrap_or(i64::MAX) + 2 * HASH_S;
        let pipeline = self.0.redis.pool().next().pipeline();
        let call = async {
            pipeline.hset::<(), _, _>(&key, fields).await?;
            pipeline.expire::<(), _>(&key, lives, None).await?;
            pipeline.last::<()>().await
        };
        self.0.redis.reach(call).await
    }

    /// What another replica answered to a request, where that is known.
    ///
    /// # Errors
    /// [`RedisError`].
    pub(super) async fn find(&self, mark: Mark) -> Result<Option<Before>, RedisError> {
        let now = self.minute();
        let hashes = i64::try_from(ANSWER_TTL_S).unwrap_or(i64::MAX) / HASH_S;
        let pipeline = self.0.redis.pool().next().pipeline();
        let call = async {
            // A minute ahead as well: the clocks of replicas differ.
            for minute in now - hashes..=now + 1 {
                pipeline.hget::<(), _, _>(self.key(minute), field(mark)).await?;
            }
            pipeline.all::<Vec<Option<Bytes>>>().await
        };
        let found = self.0.redis.reach(call).await?;
        Ok(found
            .into_iter()
            .rev()
            .flatten()
            .find_map(|bytes| from_bytes(&bytes)))
    }

    fn minute(&self) -> i64 {
        self.0.clock.now().as_second().div_euclid(HASH_S)
    }

    fn key(&self, minute: i64) -> String {
        self.0.redis.key_of_all(format_args!("seen:{minute}"))
    }
}

fn field(mark: Mark) -> Bytes {
    Bytes::copy_from_slice(&mark.0.to_be_bytes())
}

fn to_bytes(answer: Before) -> Bytes {
    let mut bytes = Vec::with_capacity(VALUE_BYTES);
    bytes.extend(answer.content.to_be_bytes());
    bytes.push(u8::from(answer.outcome == Outcome::Allowed));
    bytes.into()
}

fn from_bytes(bytes: &[u8]) -> Option<Before> {
    let (content, allowed) = bytes.split_first_chunk::<8>()?;
    let outcome = match allowed {
        [0] => Outcome::Denied,
        [1] => Outcome::Allowed,
        _ => return None,
    };
    Some(Before {
        content: u64::from_be_bytes(*content),
        outcome,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_written_and_anything_else_is_none() {
        for outcome in [Outcome::Allowed, Outcome::Denied] {
            let answer = Before {
                content: 0x0102_0304_0506_0708,
                outcome,
            };
            let bytes = to_bytes(answer);
            assert_eq!(bytes.len(), VALUE_BYTES);
            assert_eq!(from_bytes(&bytes), Some(answer));
        }
        for bytes in [&[][..], &[0; 8], &[2; 9], &[0; 10]] {
            assert_eq!(from_bytes(bytes), None);
        }
    }
}
