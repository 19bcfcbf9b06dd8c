//! Answers in the memory of this process.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use octroi_core::AccountId;

use super::{ANSWER_TTL_S, RequestKey, expiring::Expiring};

/// The most memory for answers, in bytes; the oldest go first.
const BYTES_MAX: usize = 64 << 20;

/// Answers in the memory of this process. Cloning shares them.
#[derive(Clone, Debug)]
pub struct InProcess(Arc<Mutex<Remembered>>);

/// Answers by the request of an account.
type Remembered = Expiring<(AccountId, RequestKey), Vec<u8>>;

impl Default for InProcess {
    fn default() -> Self {
        let life = Duration::from_secs(ANSWER_TTL_S);
        Self(Arc::new(Mutex::new(Expiring::new(life, BYTES_MAX))))
    }
}

impl InProcess {
    /// Remembers the answer to a request. A denial never takes the place of another answer.
    pub fn remember(&self, account: &AccountId, key: &RequestKey, answer: Vec<u8>, allowed: bool) {
        let (request, bytes, now) = ((account.clone(), key.clone()), answer.len(), Instant::now());
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !allowed && answers.get(&request, now).is_some() {
            return;
        }
        let early = answers.set(request, answer, bytes, now);
        metrics::counter!("octroi_quota_answers_evicted_total").increment(early);
    }

    /// The answer to a request, where it is remembered.
    #[must_use]
    pub fn recall(&self, account: &AccountId, key: &RequestKey) -> Option<Vec<u8>> {
        let request = (account.clone(), key.clone());
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        answers.get(&request, Instant::now()).cloned()
    }
}
