//! `CheckQuota`: may this account do this now?

use jiff::Timestamp;
use octroi_kit::db::DatabaseError;
use serde::{Deserialize, Serialize};
use tracing::Instrument as _;
use uuid::Uuid;

use super::{
    Service,
    ledger::{Recording, refuses_for_good},
    levels::cold_again,
};
use crate::{
    counters::{Ask, Mark, Receipt, RequestKey, Taken},
    domain::{
        check::{Check, Mode},
        decision::{Asked, Decision, Level, decide, deny_for_features, may_go_without_counters},
        window::WindowKey,
    },
    error::Error,
};

/// A decision with what it was made of, as it is remembered for repeats.
#[derive(Deserialize, Serialize)]
struct Answer {
    content_hash: [u8; 32],
    decision: Decision,
}

/// A check with its limits and windows.
struct Question {
    id: String,
    check: Check,
    /// The instant that decides in which windows it counts.
    at: Timestamp,
    now: Timestamp,
    asked: Vec<Asked>,
    keys: Vec<WindowKey>,
}

impl Question {
    fn decide(&self, levels: &[Level], took: bool) -> Decision {
        decide(self.id.clone(), &self.asked, levels, took, self.now)
    }

    /// What is answered where the counters are away, if every limit's policy is to allow.
    fn decide_without_counters(&self) -> Option<Decision> {
        may_go_without_counters(&self.asked).then(|| {
            metrics::counter!("octroi_quota_degraded_total").increment(1);
            Decision {
                degraded: true,
                ..self.decide(&vec![Level::default(); self.asked.len()], true)
            }
        })
    }
}

/// What one attempt of a request takes from the counters and records in the ledger.
#[derive(Clone, Debug)]
pub(super) struct Consumption {
    pub(super) check: Check,
    pub(super) mark: Mark,
    pub(super) receipt: Receipt,
}

impl Service {
    /// Decides over every limit of every metric named, all or nothing. CONSUME is answered once the ledger
    /// has what was taken.
    ///
    /// # Errors
    /// [`Error`] where it cannot be decided; a denial is none.
    pub async fn check_quota(&self, check: Check, caller: &str) -> Result<Decision, Error> {
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
        let request = match &check.mode {
            Mode::Consume(request) => Some(RequestKey {
                caller: caller.to_owned(),
                request: request.clone(),
            }),
            Mode::Peek => None,
        };
        if let Some(key) = &request
            && let Some(decision) = self.recall(&check, key).await?
        {
            return Ok(decision);
        }
        let missing = check.missing_features(&limits, &catalog);
        let at = check.event_at.unwrap_or(now);
        let asked = check.asked(&limits, at);
        let key = |one: &Asked| limits.window_key(&one.effective, at);
        let question = Question {
            id: match &request {
                Some(key) => check.decision_id(&key.caller, &key.request),
                None => Uuid::new_v4().simple().to_string(),
            },
            keys: asked.iter().map(key).collect(),
            asked,
            check,
            at,
            now,
        };
        if !missing.is_empty() {
            let levels = self.levels(&question.check.account, &question.keys, now).await?;
            let decision = deny_for_features(question.id, &question.asked, &levels, missing);
            if let Some(key) = &request {
                self.remember(&question.check, key, &decision).await;
            }
            return Ok(decision);
        }
        match request {
            None => self.peek(&question).await,
            Some(key) => self.consume_to_the_end(question, key).await,
        }
    }

    async fn peek(&self, question: &Question) -> Result<Decision, Error> {
        let account = &question.check.account;
        match self.levels(account, &question.keys, question.now).await {
            Ok(levels) => Ok(question.decide(&levels, false)),
            Err(Error::Counters(error)) => question.decide_without_counters().ok_or(Error::Counters(error)),
            Err(error) => Err(error),
        }
    }

    /// In a task of its own: who took must record or give back, also where nobody waits for the answer any
    /// more.
    async fn consume_to_the_end(&self, question: Question, key: RequestKey) -> Result<Decision, Error> {
        let service = self.clone();
        let task = async move {
            let decision = service.consume(&question, &key).await?;
            service.remember(&question.check, &key, &decision).await;
            Ok(decision)
        };
        match tokio::spawn(task.in_current_span()).await {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(DatabaseError::Stopping.into()),
        }
    }

    async fn consume(&self, question: &Question, key: &RequestKey) -> Result<Decision, Error> {
        let asks = question.asked.iter().zip(&question.keys).map(|(one, key)| Ask {
            key: key.clone(),
            amount: one.amount,
            max: one.max(),
        });
        let consumption = Consumption {
            receipt: Receipt {
                at: question.at,
                asks: asks.collect(),
            },
            check: question.check.clone(),
            mark: Mark {
                key: key.clone(),
                content_hash: question.check.content_hash(),
                attempt: Uuid::new_v4(),
            },
        };
        let repeated = |decision| Decision {
            repeated_request: true,
            ..decision
        };
        match self.take(&consumption, question.now).await {
            Ok(Taken::Yes(levels)) => {
                let decision = question.decide(&levels, true);
                Ok(match self.record(&consumption).await? {
                    Recording::Recorded => decision,
                    // The ledger has its units since before, and so had the counters.
                    Recording::Repeated if self.give_back(&consumption).await => repeated(decision),
                    // A later attempt of ours recorded what this one took.
                    Recording::Repeated => decision,
                })
            }
            Ok(Taken::Before(receipt)) => {
                let consumption = Consumption {
                    receipt,
                    ..consumption
                };
                self.record_again(&consumption).await?;
                let account = &question.check.account;
                let levels = self.levels(account, &question.keys, question.now).await?;
                Ok(repeated(question.decide(&levels, true)))
            }
            Ok(Taken::Reused) => Err(Error::RequestIdReused {
                request_id: key.request.clone(),
            }),
            Ok(Taken::No(levels)) => match self.find_recording(&consumption).await {
                // The counters have its units already; that there is no room for them again is no denial.
                Ok(true) => Ok(repeated(question.decide(&levels, true))),
                // Whoever is denied need not wait for the ledger, and may ask again.
                Ok(false) | Err(Error::Upstream(_)) => Ok(question.decide(&levels, false)),
                Err(error) => Err(error),
            },
            Ok(Taken::Cold(_)) => Err(cold_again()),
            Err(Error::Counters(error)) => {
                let Some(decision) = question.decide_without_counters() else {
                    // They may have taken it before they went away.
                    self.find_out_later(consumption);
                    return Err(Error::Counters(error));
                };
                match self.record_in_ledger(&consumption).await {
                    Ok(Recording::Recorded) => {
                        self.charge_later(consumption);
                        Ok(decision)
                    }
                    Ok(Recording::Repeated) => Ok(repeated(decision)),
                    Err(error) => {
                        self.find_out_later(consumption);
                        Err(error)
                    }
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Hands what this attempt took to the ledger.
    async fn record(&self, consumption: &Consumption) -> Result<Recording, Error> {
        let recorded = self.record_in_ledger(consumption).await;
        match &recorded {
            Err(error) if refuses_for_good(error) => {
                self.give_back(consumption).await;
            }
            // The ledger may have it all the same.
            Err(_) => self.find_out_later(consumption.clone()),
            Ok(_) => {}
        }
        recorded
    }

    /// Hands what an earlier attempt took to the ledger, which may have it.
    async fn record_again(&self, consumption: &Consumption) -> Result<Recording, Error> {
        let recorded = self.record_in_ledger(consumption).await;
        if recorded.is_err() {
            self.find_out_later(consumption.clone());
        }
        recorded
    }

    /// Whether the units were still this attempt's to give back.
    async fn give_back(&self, consumption: &Consumption) -> bool {
        let Consumption { check, mark, receipt } = consumption;
        let given_back = self.counters.give_back(&check.account, mark, &receipt.asks).await;
        given_back.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "units could not be given back at once");
            self.give_back_later(consumption.clone());
            true
        })
    }

    async fn recall(&self, check: &Check, key: &RequestKey) -> Result<Option<Decision>, Error> {
        let Ok(Some(bytes)) = self.counters.recall(&check.account, key).await else {
            return Ok(None);
        };
        let Ok(answer) = serde_json::from_slice::<Answer>(&bytes) else {
            return Ok(None);
        };
        if answer.content_hash != check.content_hash() {
            return Err(Error::RequestIdReused {
                request_id: key.request.clone(),
            });
        }
        Ok(Some(Decision {
            repeated_request: true,
            ..answer.decision
        }))
    }

    async fn remember(&self, check: &Check, key: &RequestKey, decision: &Decision) {
        let answer = Answer {
            content_hash: check.content_hash(),
            decision: decision.clone(),
        };
        let Ok(bytes) = serde_json::to_vec(&answer) else {
            return;
        };
        let remembered = self
            .counters
            .remember(&check.account, key, bytes, decision.allowed)
            .await;
        if let Err(error) = remembered {
            tracing::debug!(error = %error, "an answer is not remembered; the ledger still counts it once");
        }
    }
}
