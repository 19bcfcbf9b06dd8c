//! `ExplainDecision`: why was this request allowed or denied? And what is noted when one is.

use std::sync::Arc;

use jiff::Timestamp;
use octroi_core::{AccountId, Recording, RequestId};

use super::{Commit, Reservation, Service, question::Question};
use crate::{
    answers::{RequestKey, seen::Outcome},
    decisions::action,
    domain::{
        check::{Check, Mode, decision_id},
        decision::Decision,
        explained::{self, Action, Basis, EndState, Explained, HoldEnd, Terms, Used},
        hold::{Hold, hold_number},
    },
    error::Error,
};

/// Which decision is asked for.
#[derive(Clone, Debug)]
pub enum Named {
    /// The one of this id; where an account is given, only if it is that account's.
    Id {
        /// The id.
        id: String,
        /// The account.
        account: Option<AccountId>,
    },
    /// The one about this request.
    Request {
        /// Whose limits.
        account: AccountId,
        /// Who asked, and how it named the request.
        key: RequestKey,
    },
}

/// What is still known of a decision.
#[derive(Clone, Debug)]
pub enum Explanation {
    /// All, and how its hold ended.
    Whole(Box<Explained>, Option<HoldEnd>),
    /// Only whether it was allowed.
    Outcome {
        /// The decision's id.
        id: String,
        /// Whose limits.
        account: AccountId,
        /// Who asked, and how it named the request.
        key: RequestKey,
        /// Whether the account might.
        allowed: bool,
    },
}

impl Question {
    /// The decision with what it was made of.
    pub(super) fn explained(&self, decision: Decision) -> Decision {
        let recording = if self.buffered {
            Recording::Buffered
        } else {
            Recording::Durable
        };
        let basis = Basis {
            terms: Terms::of(&self.limits),
            asked: self.asked.clone(),
            decided_at: self.now,
            counts_at: self.at,
            recording,
        };
        Decision {
            basis: Some(Arc::new(basis)),
            ..decision
        }
    }
}

impl Service {
    /// Why a request was allowed or denied, from memory, or else from what was written down.
    ///
    /// # Errors
    /// [`Error::DecisionExpired`] where it is not known any more, or is another account's.
    pub async fn explain_decision(&self, named: &Named) -> Result<Explanation, Error> {
        let now = self.db.clock().now();
        let (id, account) = match named {
            Named::Id { id, account } => (id.clone(), account.as_ref()),
            Named::Request { account, key } => {
                let id = decision_id(account.as_str(), &key.caller, key.request.as_str());
                (id, Some(account))
            }
        };
        if let Some(explained) = self.decisions.find(&id, account, now).await? {
            let end = self.find_end(&explained, now).await?;
            return Ok(Explanation::Whole(Box::new(explained), end));
        }
        self.outcome_only(id, named).ok_or(Error::DecisionExpired)
    }

    /// What is left of a request that was answered from memory, where so many came after it that the rest is forgotten.
    fn outcome_only(&self, id: String, named: &Named) -> Option<Explanation> {
        let Named::Request { account, key } = named else {
            return None;
        };
        let mark = self
            .seen
            .mark(account.as_str(), &key.caller, key.request.as_str());
        let allowed = match self.seen.find(mark)?.outcome {
            Outcome::Deciding => return None,
            Outcome::Allowed => true,
            Outcome::Denied => false,
        };
        Some(Explanation::Outcome {
            id,
            account: account.clone(),
            key: key.clone(),
            allowed,
        })
    }

    async fn find_end(&self, explained: &Explained, now: Timestamp) -> Result<Option<HoldEnd>, Error> {
        let question = &explained.question;
        let held = question.action == Action::Reserve && explained.decision.allowed;
        let Some(request) = question.request.as_ref().filter(|_| held) else {
            return Ok(None);
        };
        let hold = hold_number(&question.account, &question.caller, request.as_str());
        Ok(self.decisions.find_end(hold, &question.account, now).await?)
    }

    /// Remembers the decision about a check.
    pub(super) fn note(&self, check: &Check, caller: &str, decision: &Decision) {
        let request = match &check.mode {
            Mode::Peek => None,
            Mode::Consume(request) => Some(request),
        };
        let action = action(request.map(RequestId::as_str));
        self.decisions
            .note(asked(check, caller, request, action), decision, None);
    }

    /// Remembers the decision about a reservation.
    pub(super) fn note_reservation(&self, check: &Check, key: &RequestKey, reserved: &Reservation) {
        let question = asked(check, &key.caller, Some(&key.request), Action::Reserve);
        let expires_at = reserved.hold.as_ref().map(|(_, expires_at)| *expires_at);
        self.decisions.note(question, &reserved.decision, expires_at);
    }

    /// Remembers the commit of a hold.
    pub(super) fn note_commit(&self, account: &AccountId, hold: &Hold, commit: &Commit) {
        let items = commit.items.iter().map(|item| Used {
            metric: item.metric.clone(),
            amount: item.amount,
            overrun: item.overrun,
        });
        if !commit.repeated {
            self.note_end(account, hold, EndState::Committed, (items.collect(), commit.late));
        }
    }

    /// Remembers the release of a hold, where it had not ended before.
    pub(super) fn note_release(&self, account: &AccountId, hold: &Hold, repeated: bool) {
        if !repeated {
            self.note_end(account, hold, EndState::Released, (Vec::new(), false));
        }
    }

    fn note_end(&self, account: &AccountId, hold: &Hold, state: EndState, (items, late): (Vec<Used>, bool)) {
        self.decisions.note_end(HoldEnd {
            account: account.clone(),
            hold: hold.id,
            state,
            at: self.db.clock().now(),
            items,
            late,
        });
    }
}

fn asked(check: &Check, caller: &str, request: Option<&RequestId>, action: Action) -> explained::Question {
    explained::Question {
        account: check.account.clone(),
        caller: caller.to_owned(),
        request: request.cloned(),
        action,
        items: check.items.clone(),
    }
}
