//! Requests that come again are told what they were told before.

use serde::{Deserialize, Serialize};

use super::{Service, check_quota::repeated};
use crate::{
    answers::{
        RequestKey,
        seen::{Before, Mark, Outcome},
    },
    domain::{
        check::{Check, decision_id},
        decision::{Attempt, Decision},
    },
    error::Error,
};

/// A decision with what it was made of, as it is remembered for repeats.
#[derive(Deserialize, Serialize)]
struct Answer {
    content_hash: [u8; 32],
    decision: Decision,
    /// A denial that the ledger knows: no attempt of the request is recorded after it.
    is_final: bool,
}

impl Service {
    pub(super) async fn recall(&self, check: &Check, key: &RequestKey) -> Result<Option<Decision>, Error> {
        let mut bytes = self.recent.recall(&check.account, key);
        if bytes.is_none() && check.repeat {
            // Another replica may have answered. What cannot be read is decided anew.
            bytes = self.answers.recall(&check.account, key).await.unwrap_or_default();
        }
        let Some(answer) = bytes.and_then(|bytes| serde_json::from_slice::<Answer>(&bytes).ok()) else {
            return Ok(None);
        };
        if answer.content_hash != check.content_hash() {
            return Err(Error::RequestIdReused {
                request_id: key.request.clone(),
            });
        }
        // One attempt may have been denied and another recorded: whoever asks again is told no only for good.
        let told = answer.decision.allowed || answer.is_final || !check.repeat;
        Ok(told.then(|| repeated(answer.decision)))
    }

    pub(super) fn mark(&self, check: &Check, key: &RequestKey) -> (Mark, u64) {
        let mark = self
            .seen
            .mark(check.account.as_str(), &key.caller, key.request.as_str());
        let items = check.items.iter().map(|item| (item.metric.as_str(), item.amount));
        (mark, self.seen.content(items))
    }

    /// The answer to a request that came before, as its mark says.
    pub(super) async fn answer_as_before(
        &self,
        check: &Check,
        key: &RequestKey,
        before: Before,
    ) -> Result<Decision, Error> {
        let (_, content) = self.mark(check, key);
        if before.content != content {
            return Err(Error::RequestIdReused {
                request_id: key.request.clone(),
            });
        }
        match before.outcome {
            // Whoever decides it has been at it for longer than any decision from memory takes.
            Outcome::Deciding => Err(Error::Overloaded),
            outcome => self.answer_again(check, key, outcome == Outcome::Allowed).await,
        }
    }

    /// What was answered from memory is known by its mark, here or, of a repeat, in another replica.
    pub(super) async fn check_seen(&self, check: &Check, key: &RequestKey) -> Result<Option<bool>, Error> {
        let (mark, content) = self.mark(check, key);
        let mut before = self.seen.find(mark);
        if before.is_none() && check.repeat {
            // Where nobody knows, it is decided anew.
            before = self.seen.find_elsewhere(mark).await.unwrap_or_default();
        }
        match before {
            Some(before) if before.content != content => Err(Error::RequestIdReused {
                request_id: key.request.clone(),
            }),
            Some(before) => Ok(match before.outcome {
                Outcome::Deciding => None,
                Outcome::Allowed => Some(true),
                Outcome::Denied => Some(false),
            }),
            None => Ok(None),
        }
    }

    /// The answer that was given from memory, with where the account stands now.
    pub(super) async fn answer_again(
        &self,
        check: &Check,
        key: &RequestKey,
        allowed: bool,
    ) -> Result<Decision, Error> {
        let id = decision_id(check.account.as_str(), &key.caller, key.request.as_str());
        let question = self.question(check, id).await?;
        let levels = self
            .escrow
            .levels(&check.account, &question.keys(), question.now)
            .await?;
        let attempt = if allowed { Attempt::Took } else { Attempt::Refused };
        Ok(repeated(question.decide(&levels, attempt)))
    }

    pub(super) async fn remember(&self, check: &Check, key: &RequestKey, decision: &Decision) {
        let answer = Answer {
            content_hash: check.content_hash(),
            decision: decision.clone(),
            is_final: check.repeat && !decision.allowed,
        };
        let Ok(bytes) = serde_json::to_vec(&answer) else {
            return;
        };
        self.recent
            .remember(&check.account, key, bytes.clone(), decision.allowed);
        let remembered = self
            .answers
            .remember(&check.account, key, bytes, decision.allowed)
            .await;
        if let Err(error) = remembered {
            tracing::debug!(error = %error, "an answer is not remembered; the ledger still counts it once");
        }
    }
}
