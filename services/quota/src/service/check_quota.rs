//! `CheckQuota`: may this account do this now?

use octroi_core::{AccountId, Charge, SliceId};
use octroi_kit::{
    db::{DatabaseError, joined},
    status::Upstream,
};
use tonic::Status;
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Service,
    degraded::{PATIENCE, is_away},
    ledger::{LedgerAnswer, Request, surely_not_recorded},
    question::Question,
};
use crate::{
    answers::{RequestKey, seen::Claim},
    domain::{
        check::{Check, Mode, decision_id},
        decision::{Attempt, Decision, Level, decide},
    },
    error::Error,
    escrow::Taken,
};

/// How often a request is decided anew because the limits changed or slices were sealed meanwhile.
const TRIES_MAX: u32 = 16;
/// How old what a look answers may be, in milliseconds.
const LOOK_FRESH_MS: i64 = 500;

pub(super) fn degraded(decision: Decision) -> Decision {
    Decision {
        degraded: true,
        ..decision
    }
}

/// What became of the units that were taken.
enum Charged {
    /// What the ledger says.
    Told(LedgerAnswer),
    /// The ledger is away, and the journal has them.
    WrittenDown,
}

pub(super) fn repeated(decision: Decision) -> Decision {
    Decision {
        repeated_request: true,
        ..decision
    }
}

impl Service {
    /// Decides over every limit of every metric named, all or nothing. CONSUME is answered once the ledger
    /// has what was taken.
    ///
    /// # Errors
    /// [`Error`] where it cannot be decided; a denial is none.
    pub async fn check_quota(&self, check: Check, caller: &str) -> Result<Decision, Error> {
        let Mode::Consume(request) = &check.mode else {
            let question = self.question(&check, Uuid::new_v4().simple().to_string()).await?;
            let decision = self.peek(&check, &question).await?;
            self.note(&check, caller, &decision);
            return Ok(decision);
        };
        let key = RequestKey {
            caller: caller.to_owned(),
            request: request.clone(),
        };
        let turn = self.turns.turn((check.account.clone(), key.clone())).await;
        // In a task of its own, which has the turn: who took must record, also where nobody waits for the answer any more,
        // and no other attempt of the request is decided meanwhile.
        let service = self.clone();
        let task = async move {
            let _turn = turn;
            service.consume_once(&check, &key).await
        };
        joined(tokio::spawn(task.in_current_span()).await)
    }

    async fn peek(&self, check: &Check, question: &Question) -> Result<Decision, Error> {
        let since = question.now - jiff::SignedDuration::from_millis(LOOK_FRESH_MS);
        let all = question.limits.window_keys(question.now);
        match (self.escrow)
            .look(&check.account, &question.keys(), &all, since)
            .await
        {
            Ok(levels) => Ok(question.decide(&levels, Attempt::Looked)),
            // The counters are there, and what they say is not known: no policy is about that.
            Err(Error::Overloaded) => Err(Error::Overloaded),
            Err(error) => question
                .decide_without_counters()
                .ok_or_else(|| unreachable(error)),
        }
    }

    /// The remembered answer, or a decision that is remembered from now on.
    async fn consume_once(&self, check: &Check, key: &RequestKey) -> Result<Decision, Error> {
        if let Some(allowed) = self.check_seen(check, key).await? {
            return self.answer_again(check, key, allowed).await;
        }
        if let Some(decision) = self.recall(check, key).await? {
            self.note(check, &key.caller, &decision);
            return Ok(decision);
        }
        let decision = self.consume(check, key).await?;
        self.note(check, &key.caller, &decision);
        self.remember(check, key, &decision).await;
        Ok(decision)
    }

    async fn consume(&self, check: &Check, key: &RequestKey) -> Result<Decision, Error> {
        let id = decision_id(check.account.as_str(), &key.caller, key.request.as_str());
        let mut claim: Option<Claim<'_>> = None;
        for _ in 0..TRIES_MAX {
            let question = self.question(check, id.clone()).await?;
            if question.buffered && claim.is_none() {
                let (mark, content) = self.mark(check, key);
                match self.seen.claim(mark, content).await {
                    Ok(claimed) => claim = Some(claimed),
                    // It was answered from memory between the look at it and now.
                    Err(before) => return self.answer_as_before(check, key, before).await,
                }
            }
            let request = Request::decided(check, key, question.at);
            if !question.missing_features.is_empty() {
                let levels = self.levels(check, &question).await?;
                return self.deny(check, &request, &question, &levels).await;
            }
            let untold = self.is_untold(&question)?;
            let (account, revision) = (&check.account, question.limits.revision);
            let taken = (self.escrow)
                .take(account, &question.needs, revision, question.at)
                .await;
            let decision = match taken {
                Ok(Taken::Stale(current)) => {
                    self.holdings.outdated(account, current);
                    continue;
                }
                Ok(Taken::No { levels }) => self.deny(check, &request, &question, &levels).await?,
                Ok(Taken::Yes { levels, .. }) if question.buffered => {
                    let decision = question.decide(&levels, Attempt::Took);
                    if untold { degraded(decision) } else { decision }
                }
                Ok(Taken::Yes { charges, levels }) => {
                    match self
                        .charge_taken(check, &request, &question, &charges, &levels)
                        .await?
                    {
                        Some(decision) => decision,
                        None => continue,
                    }
                }
                Err(Error::Overloaded) => return Err(Error::Overloaded),
                Err(error) => self.consume_without_counters(&request, &question, error).await?,
            };
            if let Some(claim) = claim.filter(|_| question.buffered) {
                claim.end(decision.allowed);
            }
            return Ok(decision);
        }
        Err(Error::Database(DatabaseError::Aborted))
    }

    /// Where the account stands in every window that the question is about.
    async fn levels(&self, check: &Check, question: &Question) -> Result<Vec<Level>, Error> {
        (self.escrow)
            .levels(&check.account, &question.keys(), question.now)
            .await
    }

    /// Whether what is answered from memory now waits for a ledger that is away.
    ///
    /// # Errors
    /// [`Error::Upstream`] where that has been away for longer than the limits go on without it.
    fn is_untold(&self, question: &Question) -> Result<bool, Error> {
        if !question.buffered {
            return Ok(false);
        }
        match self.escrow.untold_for(question.now) {
            None => Ok(false),
            Some(away_for) if question.may_wait(away_for, self.lease()) => Ok(true),
            Some(_) => {
                let away = Status::unavailable("the ledger cannot be told what is decided");
                Err(Upstream::new("usage", away).into())
            }
        }
    }

    /// What the request was answered before, with what is left now that nothing was taken for it.
    async fn answered_before(
        &self,
        check: &Check,
        question: &Question,
        attempt: Attempt,
    ) -> Result<Decision, Error> {
        let levels = self.levels(check, question).await?;
        Ok(repeated(question.decide(&levels, attempt)))
    }

    /// Decides what was taken, by what the ledger says of it; none where slices were sealed meanwhile: others will pay.
    async fn charge_taken(
        &self,
        check: &Check,
        request: &Request,
        question: &Question,
        charges: &[Vec<Charge>],
        levels: &[Level],
    ) -> Result<Option<Decision>, Error> {
        let charged = self.charge(check, request, question, charges).await;
        self.escrow.finish(&check.account, charges);
        let decision = match charged? {
            Charged::Told(LedgerAnswer::Recorded) => question.decide(levels, Attempt::Took),
            Charged::Told(LedgerAnswer::Repeated) => {
                self.answered_before(check, question, Attempt::Took).await?
            }
            Charged::Told(LedgerAnswer::Denied) => {
                self.answered_before(check, question, Attempt::Refused).await?
            }
            Charged::Told(LedgerAnswer::Unpaid(_)) => return Ok(None),
            Charged::WrittenDown => degraded(question.decide(levels, Attempt::Took)),
        };
        Ok(Some(decision))
    }

    /// Hands what was taken to the ledger, and what it did not charge back to the slices. Where the ledger is away and
    /// the limits allow it, the journal has it.
    async fn charge(
        &self,
        check: &Check,
        request: &Request,
        question: &Question,
        charges: &[Vec<Charge>],
    ) -> Result<Charged, Error> {
        let account = &check.account;
        let put_back = || self.escrow.put_back(account, &question.needs, charges);
        let metrics = question.needs.iter().map(|need| &need.metric);
        let charged = request.charged(metrics.zip(charges));
        if self.goes_without_ledger(question) && self.write_down(&charged).await {
            return Ok(Charged::WrittenDown);
        }
        match self.record_in_time(&charged, question).await {
            Ok(LedgerAnswer::Recorded) => Ok(Charged::Told(LedgerAnswer::Recorded)),
            Ok(answer) => {
                put_back();
                if let LedgerAnswer::Unpaid(slices) = &answer {
                    self.escrow.refused(account, slices);
                }
                Ok(Charged::Told(answer))
            }
            Err(error) if is_away(&error) && self.goes_without_ledger(question) => {
                if self.write_down(&charged).await {
                    return Ok(Charged::WrittenDown);
                }
                self.give_up(account, question, charges, error)
            }
            Err(error) => self.give_up(account, question, charges, error),
        }
    }

    /// Takes back what was taken, as far as it is known that the ledger did not charge it.
    fn give_up(
        &self,
        account: &AccountId,
        question: &Question,
        charges: &[Vec<Charge>],
        error: Error,
    ) -> Result<Charged, Error> {
        if surely_not_recorded(&error) {
            self.escrow.put_back(account, &question.needs, charges);
        } else {
            // The ledger may have charged them or may do so yet; once they are sealed it is known.
            let slices: Vec<SliceId> = charges.iter().flatten().map(|charge| charge.slice).collect();
            self.escrow.retire(account, &slices);
        }
        Err(error)
    }

    /// Denies, unless the ledger has the request from an earlier attempt. Where this may be a repeat, the denial is
    /// written down, so that no attempt that is still on its way is charged after it.
    pub(super) async fn deny(
        &self,
        check: &Check,
        request: &Request,
        question: &Question,
        levels: &[Level],
    ) -> Result<Decision, Error> {
        let recorded = if question.buffered || (!check.repeat && self.reach.away_for().is_some()) {
            // The ledger knows sums of them only; or whoever is denied the first time need not wait for it.
            false
        } else if check.repeat {
            self.record_denial(request).await?
        } else {
            match tokio::time::timeout(PATIENCE, self.find_recording(request)).await {
                Ok(Ok(recorded)) => recorded,
                // Whoever is denied the first time need not wait for the ledger.
                Ok(Err(Error::Upstream(_))) => false,
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    self.reach.is_away();
                    false
                }
            }
        };
        if recorded {
            let id = question.id.clone();
            let decision = decide(id, &question.asked, levels, Attempt::Took, question.now);
            return Ok(repeated(question.explained(decision)));
        }
        Ok(question.decide(levels, Attempt::Refused))
    }

    /// Decides by the policy of the limits, because these cannot be reached.
    async fn consume_without_counters(
        &self,
        request: &Request,
        question: &Question,
        error: Error,
    ) -> Result<Decision, Error> {
        let Some(decision) = question.decide_without_counters() else {
            return Err(unreachable(error));
        };
        if self.goes_without_ledger(question) && self.write_down(request).await {
            return Ok(decision);
        }
        match self.record_in_time(request, question).await {
            Ok(LedgerAnswer::Recorded) => Ok(decision),
            Ok(LedgerAnswer::Repeated) => Ok(repeated(decision)),
            Ok(LedgerAnswer::Denied | LedgerAnswer::Unpaid(_)) => Err(unreachable(error)),
            Err(away) if is_away(&away) && self.write_down(request).await => Ok(decision),
            Err(error) => Err(error),
        }
    }
}

pub(super) fn unreachable(error: Error) -> Error {
    match error {
        Error::Database(error) => Error::CountersUnreachable(error),
        other => other,
    }
}
