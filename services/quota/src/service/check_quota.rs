//! `CheckQuota`: may this account do this now?

use std::sync::Arc;

use jiff::Timestamp;
use octroi_core::{Charge, FeaturePlans, Recording, SliceId};
use octroi_kit::db::{DatabaseError, joined};
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Service,
    holdings::ACCOUNT_FRESH,
    ledger::{LedgerAnswer, Request, surely_not_recorded},
};
use crate::{
    answers::{
        RequestKey,
        seen::{Mark, Outcome},
    },
    domain::{
        check::{Check, Item, Mode, decision_id},
        decision::{Asked, Attempt, Decision, Level, decide, deny_for_features, may_go_without_counters},
        holding::AccountLimits,
        plan::Plan,
        window::WindowKey,
    },
    error::Error,
    escrow::{Need, Taken},
};

/// How often a request is decided anew because the limits changed or slices were sealed meanwhile.
const TRIES_MAX: u32 = 16;
/// How old what a look answers may be, in milliseconds.
const LOOK_FRESH_MS: i64 = 500;

/// A decision with what it was made of, as it is remembered for repeats.
#[derive(Deserialize, Serialize)]
struct Answer {
    content_hash: [u8; 32],
    decision: Decision,
    /// A denial that the ledger knows: no attempt of the request is recorded after it.
    is_final: bool,
}

/// A check with its limits and windows, as they are at one instant.
pub(super) struct Question {
    pub(super) id: String,
    pub(super) limits: Arc<AccountLimits>,
    /// The instant that decides in which windows it counts.
    pub(super) at: Timestamp,
    pub(super) now: Timestamp,
    pub(super) asked: Vec<Asked>,
    pub(super) needs: Vec<Need>,
    /// Whether it is answered before the ledger has it.
    pub(super) buffered: bool,
    pub(super) missing_features: Vec<FeaturePlans>,
}

impl Question {
    pub(super) fn decide(&self, levels: &[Level], attempt: Attempt) -> Decision {
        if self.missing_features.is_empty() {
            return decide(self.id.clone(), &self.asked, levels, attempt, self.now);
        }
        deny_for_features(
            self.id.clone(),
            &self.asked,
            levels,
            self.missing_features.clone(),
        )
    }

    pub(super) fn keys(&self) -> Vec<WindowKey> {
        let windows = self.needs.iter().flat_map(|need| &need.windows);
        windows.map(|(key, _)| key.clone()).collect()
    }

    /// What is answered where the limits cannot be reached, if the policy of every one is to allow.
    fn decide_without_counters(&self) -> Option<Decision> {
        may_go_without_counters(&self.asked).then(|| {
            metrics::counter!("octroi_quota_degraded_total").increment(1);
            Decision {
                degraded: true,
                ..self.decide(&vec![Level::default(); self.asked.len()], Attempt::Took)
            }
        })
    }
}

fn repeated(decision: Decision) -> Decision {
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
            return self.peek(&check, &question).await;
        };
        let key = RequestKey {
            caller: caller.to_owned(),
            request: request.clone(),
        };
        let attempt = self.consume_once(&check, &key);
        self.turns.one_at_a_time(&check.account, &key, attempt).await
    }

    /// What holds for the check now.
    pub(super) async fn question(&self, check: &Check, id: String) -> Result<Question, Error> {
        let now = self.db.clock().now();
        let limits = self.holdings.of(&check.account).await?;
        let catalog = self.holdings.catalog().await?;
        if let Some((index, metric)) = check.unknown_metric(&catalog) {
            return Err(Error::MetricNotFound {
                metric: metric.clone(),
                field: format!("items[{index}].metric"),
            });
        }
        check.validate(&catalog, now)?;
        let at = check.event_at.unwrap_or(now);
        if check.event_at.is_none() {
            let until = now + ACCOUNT_FRESH;
            self.escrow
                .plan(&check.account, Plan::new(&limits, &catalog, now, until));
        }
        let is_buffered = |item: &Item| {
            let metric = catalog.metrics.get(&item.metric);
            metric.is_some_and(|metric| metric.recording == Recording::Buffered)
        };
        // A request is answered before the ledger has it where all of it may be.
        let is_limited = |item: &Item| limits.of_metric(&item.metric).next().is_some();
        let buffered = !self.escrow.is_closing()
            && !check.items.is_empty()
            && check
                .items
                .iter()
                .all(|item| is_buffered(item) && is_limited(item));
        let needs = (check.items.iter()).map(|item| Need {
            buffered,
            ..need(&limits, item, at, now)
        });
        Ok(Question {
            id,
            at,
            now,
            asked: check.asked(&limits, at),
            needs: needs.collect(),
            buffered,
            missing_features: check.missing_features(&limits, &catalog),
            limits,
        })
    }

    async fn peek(&self, check: &Check, question: &Question) -> Result<Decision, Error> {
        let since = question.now - jiff::SignedDuration::from_millis(LOOK_FRESH_MS);
        match self.escrow.levels(&check.account, &question.keys(), since).await {
            Ok(levels) => Ok(question.decide(&levels, Attempt::Looked)),
            Err(error) => question
                .decide_without_counters()
                .ok_or_else(|| unreachable(error)),
        }
    }

    /// The remembered answer, or a decision that is remembered from now on.
    async fn consume_once(&self, check: &Check, key: &RequestKey) -> Result<Decision, Error> {
        if let Some(allowed) = self.check_seen(check, key)? {
            return self.answer_again(check, key, allowed).await;
        }
        if let Some(decision) = self.recall(check, key).await? {
            return Ok(decision);
        }
        // In a task of its own: who took must record, also where nobody waits for the answer any more.
        let (service, check, key) = (self.clone(), check.clone(), key.clone());
        let task = async move {
            let decision = service.consume(&check, &key).await?;
            service.remember(&check, &key, &decision).await;
            Ok(decision)
        };
        joined(tokio::spawn(task.in_current_span()).await)
    }

    async fn consume(&self, check: &Check, key: &RequestKey) -> Result<Decision, Error> {
        let id = decision_id(check.account.as_str(), &key.caller, key.request.as_str());
        for _ in 0..TRIES_MAX {
            let question = self.question(check, id.clone()).await?;
            let request = Request::decided(check, key, question.at);
            if !question.missing_features.is_empty() {
                let levels = self
                    .escrow
                    .levels(&check.account, &question.keys(), question.now)
                    .await?;
                return self.deny(check, &request, &question, &levels).await;
            }
            let revision = question.limits.revision;
            let taken = self
                .escrow
                .take(&check.account, &question.needs, revision, question.at)
                .await;
            match taken {
                Ok(Taken::Stale) => self.holdings.forget(&check.account),
                Ok(Taken::No { levels }) => {
                    if question.buffered {
                        let (mark, content) = self.mark(check, key);
                        self.seen.end(mark, content, false);
                    }
                    return self.deny(check, &request, &question, &levels).await;
                }
                Ok(Taken::Yes { levels, .. }) if question.buffered => {
                    let (mark, content) = self.mark(check, key);
                    self.seen.end(mark, content, true);
                    return Ok(question.decide(&levels, Attempt::Took));
                }
                Ok(Taken::Yes { charges, levels }) => {
                    let recorded = self.charge(check, &request, &question, &charges).await?;
                    let decision = |attempt| question.decide(&levels, attempt);
                    match recorded {
                        Some(LedgerAnswer::Recorded) => return Ok(decision(Attempt::Took)),
                        Some(LedgerAnswer::Repeated) => return Ok(repeated(decision(Attempt::Took))),
                        Some(LedgerAnswer::Denied) => return Ok(repeated(decision(Attempt::Refused))),
                        // Slices were sealed meanwhile; others will pay.
                        Some(LedgerAnswer::Unpaid(_)) | None => {}
                    }
                }
                Err(error) => return self.consume_without_counters(&request, &question, error).await,
            }
        }
        Err(Error::Database(DatabaseError::Aborted))
    }

    /// Hands what was taken to the ledger, and what it did not charge back to the slices.
    async fn charge(
        &self,
        check: &Check,
        request: &Request,
        question: &Question,
        charges: &[Vec<Charge>],
    ) -> Result<Option<LedgerAnswer>, Error> {
        let account = &check.account;
        let put_back = || self.escrow.put_back(account, &question.needs, charges);
        match self.record(&request.charged(&question.needs, charges)).await {
            Ok(LedgerAnswer::Recorded) => Ok(Some(LedgerAnswer::Recorded)),
            Ok(recording) => {
                put_back();
                if let LedgerAnswer::Unpaid(slices) = &recording {
                    self.escrow.retire(account, slices);
                }
                Ok(Some(recording))
            }
            Err(error) if surely_not_recorded(&error) => {
                put_back();
                Err(error)
            }
            Err(error) => {
                // The ledger may have charged them or may do so yet; once they are sealed it is known.
                let slices: Vec<SliceId> = charges.iter().flatten().map(|charge| charge.slice).collect();
                self.escrow.retire(account, &slices);
                Err(error)
            }
        }
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
        let recorded = if question.buffered {
            // The ledger knows sums of them only.
            false
        } else if check.repeat {
            self.record_denial(request).await?
        } else {
            match self.find_recording(request).await {
                Ok(recorded) => recorded,
                // Whoever is denied the first time need not wait for the ledger.
                Err(Error::Upstream(_)) => false,
                Err(error) => return Err(error),
            }
        };
        if recorded {
            let id = question.id.clone();
            return Ok(repeated(decide(
                id,
                &question.asked,
                levels,
                Attempt::Took,
                question.now,
            )));
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
        match self.record(request).await? {
            LedgerAnswer::Recorded => Ok(decision),
            LedgerAnswer::Repeated => Ok(repeated(decision)),
            LedgerAnswer::Denied | LedgerAnswer::Unpaid(_) => Err(unreachable(error)),
        }
    }

    async fn recall(&self, check: &Check, key: &RequestKey) -> Result<Option<Decision>, Error> {
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

    fn mark(&self, check: &Check, key: &RequestKey) -> (Mark, u64) {
        let mark = self
            .seen
            .mark(check.account.as_str(), &key.caller, key.request.as_str());
        let items = check.items.iter().map(|item| (item.metric.as_str(), item.amount));
        (mark, self.seen.content(items))
    }

    /// What was answered from memory is known by its mark.
    fn check_seen(&self, check: &Check, key: &RequestKey) -> Result<Option<bool>, Error> {
        let (mark, content) = self.mark(check, key);
        match self.seen.find(mark) {
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
    async fn answer_again(&self, check: &Check, key: &RequestKey, allowed: bool) -> Result<Decision, Error> {
        let id = decision_id(check.account.as_str(), &key.caller, key.request.as_str());
        let question = self.question(check, id).await?;
        let levels = self
            .escrow
            .levels(&check.account, &question.keys(), question.now)
            .await?;
        let attempt = if allowed { Attempt::Took } else { Attempt::Refused };
        Ok(repeated(question.decide(&levels, attempt)))
    }

    async fn remember(&self, check: &Check, key: &RequestKey, decision: &Decision) {
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

/// What must be taken of a metric: from every window of its limits.
pub(super) fn need(limits: &AccountLimits, item: &Item, at: Timestamp, now: Timestamp) -> Need {
    let of_metric = || limits.of_metric(&item.metric);
    let windows = of_metric().map(|effective| {
        let max = crate::domain::limits::hard_max(&effective.limit);
        (limits.window_key(effective, at), max)
    });
    // Where an override ends, another limit begins.
    let ends = of_metric().filter_map(|effective| effective.replaced_by.as_ref()?.expires_at);
    Need {
        metric: item.metric.clone(),
        amount: item.amount,
        windows: windows.collect(),
        until: ends.filter(|end| *end > now).min(),
        buffered: false,
    }
}

fn unreachable(error: Error) -> Error {
    match error {
        Error::Database(error) => Error::CountersUnreachable(error),
        other => other,
    }
}
