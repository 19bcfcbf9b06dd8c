//! May this request be served? The fleet is asked, and where it does not answer the limits' policies are.

use octroi_proto::{
    errors::v1::ErrorReason,
    quota::v1::{CheckQuotaResponse, RenewHoldRequest},
};
use tonic::{Code, Extensions, Request, Status};

use super::{
    Quota,
    ask::Ask,
    journal::{Entry, Unanswered},
    permit::{Asking, Permit, now},
    refusal::Refused,
    rule::Mode,
};
use crate::{Refusal as _, channel::SentAgain};

/// Whether a refusal says that nobody decides, rather than what the decision is.
pub(super) fn is_away(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => true,
        // What the transport says has no reason: nobody answered.
        Code::Unknown | Code::Cancelled | Code::Internal => status.reason().is_none(),
        _ => false,
    }
}

/// What the fleet said.
struct Answer {
    decision: CheckQuotaResponse,
    /// The hold; empty where nothing is held.
    hold: String,
    /// An earlier answer to the same request may be ours as well, and was lost.
    sent_again: bool,
}

impl Quota {
    /// Asks, and answers with what may be done and what is to be done after.
    pub(super) async fn admit(&self, mut ask: Ask) -> Result<Permit, Refused> {
        loop {
            if ask.is_empty() {
                return Ok(Permit::closed(self.clone(), None));
            }
            if !self.0.breaker.lets_through() {
                return self.decide_alone(ask, false).await;
            }
            let (asked, answer) = self.ask(ask).await?;
            ask = match answer {
                Ok(answer) => {
                    self.0.breaker.answered();
                    let features = &asked.rule.features;
                    (self.0.policies).learn(&asked.account, asked.metrics(), features, &answer.decision);
                    if !answer.decision.allowed {
                        return Err(Refused::Denied(Box::new(answer.decision)));
                    }
                    if answer.decision.repeated_request && asked.may_come_again() && !answer.sent_again {
                        match self.come_again(&asked, answer).await? {
                            Some(permit) => return Ok(permit),
                            None => asked.next_try().ok_or(Refused::Served)?,
                        }
                    } else if answer.hold.is_empty() {
                        return Ok(Permit::closed(self.clone(), Some(answer.decision)));
                    } else {
                        return Ok(Permit::held(self.clone(), asked, answer.hold, answer.decision));
                    }
                }
                Err(status) if is_away(&status) => {
                    self.0.breaker.failed();
                    tracing::debug!(error = %status, "nobody decides");
                    if asked.rule.mode == Mode::Reserve && asked.takes() {
                        // It may arrive yet.
                        self.forget(asked.clone());
                    }
                    return self.decide_alone(asked, true).await;
                }
                Err(status) => {
                    self.0.breaker.answered();
                    return Err(Refused::Failed(status));
                }
            };
        }
    }

    async fn ask(&self, ask: Ask) -> Result<(Ask, Result<Answer, Status>), Refused> {
        let sent_again = |extensions: &Extensions| extensions.get::<SentAgain>().is_some();
        if ask.takes() && ask.rule.mode == Mode::Reserve {
            let asking = Asking::new(self.clone(), ask);
            let answer = self
                .0
                .client
                .clone()
                .reserve_quota(self.in_time(asking.request()))
                .await;
            let ask = asking.end().ok_or(Refused::Away)?;
            let answer = answer.map(|answer| {
                let sent_again = sent_again(answer.extensions());
                let answer = answer.into_inner();
                Answer {
                    decision: answer.decision.unwrap_or_default(),
                    hold: answer.hold_id,
                    sent_again,
                }
            });
            return Ok((ask, answer));
        }
        let answer = self
            .0
            .client
            .clone()
            .check_quota(self.in_time(ask.to_check()))
            .await;
        let answer = answer.map(|answer| Answer {
            sent_again: sent_again(answer.extensions()),
            decision: answer.into_inner(),
            hold: String::new(),
        });
        Ok((ask, answer))
    }

    /// What becomes of a request that came before: where it was counted it is served and not counted again, and where it is
    /// being served now it is not served a second time. None where it came to nothing, so that it is asked for anew.
    async fn come_again(&self, ask: &Ask, answer: Answer) -> Result<Option<Permit>, Refused> {
        let counted = |decision| Ok(Some(Permit::counted_before(self.clone(), decision)));
        if answer.hold.is_empty() {
            return counted(answer.decision);
        }
        let renewal = RenewHoldRequest {
            account_id: ask.account.clone(),
            hold_id: answer.hold,
            ttl: prost_types::Duration::try_from(ask.rule.ttl).ok(),
        };
        match self.0.client.clone().renew_hold(self.in_time(renewal)).await {
            Ok(_) => Err(Refused::Served),
            Err(status) if status.reason() == Some(ErrorReason::HoldEnded) => {
                match status.facts().get("state").map(String::as_str) {
                    Some("committed") => counted(answer.decision),
                    _ => Ok(None),
                }
            }
            Err(status) if is_away(&status) => Err(Refused::Away),
            Err(status) => Err(Refused::Failed(status)),
        }
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
            return Ok(Permit::closed(self.clone(), None));
        }
        // What is done is recorded, so there must be room for it.
        let room = self.0.journal.reserve().ok_or(Refused::Away)?;
        if ask.rule.mode == Mode::Reserve {
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
            Ok(()) => Ok(Permit::closed(self.clone(), None)),
            Err(error) => {
                tracing::error!(error = %error, "a decision cannot be written down, so nothing is allowed");
                Err(Refused::Away)
            }
        }
    }

    pub(super) fn in_time<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.0.deadline);
        request
    }
}
