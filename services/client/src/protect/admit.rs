//! May this request be served? The fleet is asked, and where it does not answer the limits' policies are.

use octroi_proto::quota::v1::CheckQuotaResponse;
use tonic::{Code, Status};

use super::{
    Quota,
    ask::Ask,
    forget::Asking,
    journal::{Entry, Unanswered},
    permit::{Permit, now},
    refusal::Refused,
    settle::within,
};
use crate::Refusal as _;

/// Whether a refusal says that nobody decides, rather than what the decision is.
pub(super) fn is_away(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => true,
        // What the transport says has no reason: nobody answered.
        Code::Unknown | Code::Cancelled | Code::Internal => status.reason().is_none(),
        _ => false,
    }
}

impl Quota {
    /// Asks, and answers with what may be done and what is to be done after.
    pub(super) async fn admit(&self, ask: Ask) -> Result<Permit, Refused> {
        if ask.is_empty() {
            return Ok(Permit::closed(self.clone(), &ask.rule, None));
        }
        if !self.0.breaker.lets_through() {
            return self.decide_alone(ask, false).await;
        }
        let (ask, answer) = self.ask(ask).await?;
        match answer {
            Ok((decision, hold)) => {
                self.0.breaker.answered();
                let features = &ask.rule.features;
                (self.0.policies).learn(&ask.account, ask.metrics(), features, &decision);
                if !decision.allowed {
                    return Err(Refused::Denied(Box::new(decision)));
                }
                Ok(if hold.is_empty() {
                    Permit::closed(self.clone(), &ask.rule, Some(decision))
                } else {
                    Permit::held(self.clone(), ask, hold, decision)
                })
            }
            Err(status) if is_away(&status) => {
                self.0.breaker.failed();
                tracing::debug!(error = %status, "nobody decides");
                if ask.holds() {
                    // It may arrive yet.
                    self.forget(ask.clone());
                }
                self.decide_alone(ask, true).await
            }
            Err(status) => {
                self.0.breaker.answered();
                Err(Refused::Failed(status))
            }
        }
    }

    /// The decision, and the hold where there is one.
    async fn ask(&self, ask: Ask) -> Result<(Ask, Result<(CheckQuotaResponse, String), Status>), Refused> {
        if ask.holds() {
            let asking = Asking::new(self.clone(), ask);
            let answer = self
                .0
                .client
                .clone()
                .reserve_quota(within(asking.request(), Some(self.0.deadline)))
                .await;
            let ask = asking.end().ok_or(Refused::Away)?;
            let answer = answer.map(|answer| {
                let answer = answer.into_inner();
                (answer.decision.unwrap_or_default(), answer.hold_id)
            });
            return Ok((ask, answer));
        }
        let answer = self
            .0
            .client
            .clone()
            .check_quota(within(ask.to_check(), Some(self.0.deadline)))
            .await;
        Ok((ask, answer.map(|answer| (answer.into_inner(), String::new()))))
    }

    /// Decides by what is known of the limits. `asked` says whether the question may have arrived.
    async fn decide_alone(&self, ask: Ask, asked: bool) -> Result<Permit, Refused> {
        let known = self
            .0
            .policies
            .go_on(&ask.account, ask.metrics(), &ask.rule.features);
        if !known.unwrap_or(ask.rule.soft) {
            return Err(Refused::Away);
        }
        self.count_alone();
        if !ask.takes() {
            return Ok(Permit::closed(self.clone(), &ask.rule, None));
        }
        // What is done is recorded, so there must be room for it.
        let room = self.0.journal.reserve().ok_or(Refused::Away)?;
        if ask.holds() {
            return Ok(Permit::owed(self.clone(), ask, room));
        }
        let at = now();
        let entry = if asked {
            Entry::Consume(Unanswered {
                check: Some(ask.to_check()),
                at: Some(at),
            })
        } else {
            Entry::Record(ask.to_record(Vec::new(), at))
        };
        match self.0.journal.append(entry, Some(room)).await {
            Ok(()) => Ok(Permit::closed(self.clone(), &ask.rule, None)),
            Err(error) => {
                tracing::error!(error = %error, "a decision cannot be written down, so nothing is allowed");
                Err(Refused::Away)
            }
        }
    }
}
