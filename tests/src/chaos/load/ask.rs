//! One call, and what was told.

use std::time::Duration;

use octroi_kit::status::reason_of;
use octroi_proto::{
    common::v1::Period,
    errors::v1::ErrorReason,
    quota::v1::{
        CheckItem, CheckMode, CheckQuotaRequest, CommitHoldRequest, LimitStatus, RecordUsageRequest,
        ReleaseHoldRequest, ReserveQuotaRequest,
    },
    usage::v1::{TrackUsageRequest, UsageEvent},
};
use tonic::Status;

use super::{
    super::oracle::{Attempt, Hold, Kind, Request, Told},
    Target,
};
use crate::harness::fleet::Clients;

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// The answer to an attempt.
struct Answer {
    told: Told,
    window: Option<i64>,
    hold: Option<Hold>,
}

impl Answer {
    fn recorded() -> Self {
        Self {
            told: Told::Yes,
            window: None,
            hold: None,
        }
    }

    fn decided(allowed: bool, limits: &[LimitStatus]) -> Self {
        let hour = limits.iter().find(|limit| limit.period() == Period::Hour);
        Self {
            told: if allowed { Told::Yes } else { Told::No },
            window: hour.and_then(|hour| Some(hour.window_start_time?.seconds)),
            hold: None,
        }
    }
}

/// The answer to the end of a hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    pub(super) overrun: u64,
    pub(super) late: bool,
}

impl Target {
    fn client(&self, replica: usize, request: &str) -> Clients {
        let channels = &self.replicas[replica];
        let spread: usize = request.bytes().map(usize::from).sum();
        channels[spread % channels.len()].clone()
    }

    fn items(&self, amount: u64) -> Vec<CheckItem> {
        vec![CheckItem {
            metric: self.metric.clone(),
            amount: i64::try_from(amount).unwrap_or(i64::MAX),
        }]
    }

    /// Tries a request once, writes down what it was told, and answers why it was told nothing.
    pub(super) async fn ask(
        &self,
        request: &mut Request,
        replica: usize,
        sent: Duration,
        now: impl Fn() -> Duration,
    ) -> Result<(), Status> {
        let answer = tokio::time::timeout(PATIENCE, self.call(request, replica)).await;
        let answer = answer.map_err(|_| nobody_waited()).flatten();
        let mut told = Told::Nothing;
        let failure = match answer {
            Ok(answer) => {
                told = answer.told;
                request.window = answer.window;
                request.hold = answer.hold;
                Ok(())
            }
            Err(failure) => Err(failure),
        };
        request.attempts.push(Attempt {
            replica: replica + 1,
            sent,
            answered: now(),
            told,
        });
        failure
    }

    async fn call(&self, request: &Request, replica: usize) -> Result<Answer, Status> {
        let mut clients = self.client(replica, &request.id);
        match request.kind {
            Kind::Consume => {
                let check = CheckQuotaRequest {
                    account_id: self.account.clone(),
                    items: self.items(request.amount),
                    mode: CheckMode::Consume.into(),
                    request_id: request.id.clone(),
                    repeat: !request.attempts.is_empty(),
                    ..CheckQuotaRequest::default()
                };
                let decision = clients.quota.check_quota(check).await?.into_inner();
                Ok(Answer::decided(decision.allowed, &decision.limits))
            }
            Kind::Reserve => self.reserve(clients, request).await,
            Kind::Record => {
                let record = RecordUsageRequest {
                    account_id: self.account.clone(),
                    items: self.items(request.amount),
                    request_id: request.id.clone(),
                    ..RecordUsageRequest::default()
                };
                clients.quota.record_usage(record).await?;
                Ok(Answer::recorded())
            }
            Kind::Track => {
                let event = UsageEvent {
                    account_id: self.account.clone(),
                    event_id: request.id.clone(),
                    metric: self.metric.clone(),
                    amount: i64::try_from(request.amount).unwrap_or(i64::MAX),
                    ..UsageEvent::default()
                };
                let track = TrackUsageRequest {
                    event: Some(event),
                    ..TrackUsageRequest::default()
                };
                clients.usage.track_usage(track).await?;
                Ok(Answer::recorded())
            }
        }
    }

    async fn reserve(&self, mut clients: Clients, request: &Request) -> Result<Answer, Status> {
        let reserve = ReserveQuotaRequest {
            account_id: self.account.clone(),
            items: self.items(request.amount),
            request_id: request.id.clone(),
            ttl: Some(prost_types::Duration {
                seconds: i64::try_from(self.hold_s).unwrap_or(i64::MAX),
                nanos: 0,
            }),
            ..ReserveQuotaRequest::default()
        };
        let reserved = clients.quota.reserve_quota(reserve).await?.into_inner();
        let decision = reserved.decision.unwrap_or_default();
        let mut answer = Answer::decided(decision.allowed, &decision.limits);
        answer.hold = decision.allowed.then_some(Hold {
            id: reserved.hold_id,
            ttl: Duration::from_secs(self.hold_s),
            end: None,
        });
        Ok(answer)
    }

    /// Ends a hold of which so much was used, once.
    pub(super) async fn end(&self, hold: &str, used: u64, replica: usize) -> Result<Ended, Status> {
        let mut quota = self.client(replica, hold).quota;
        let ending = async {
            if used == 0 {
                let release = ReleaseHoldRequest {
                    account_id: self.account.clone(),
                    hold_id: hold.to_owned(),
                };
                return match quota.release_hold(release).await {
                    // It had expired: nothing of it was used, which is what was meant.
                    Err(status) if reason_of(&status) == Some(ErrorReason::HoldEnded) => Ok(Ended::default()),
                    answer => answer.map(|_| Ended::default()),
                };
            }
            let commit = CommitHoldRequest {
                account_id: self.account.clone(),
                hold_id: hold.to_owned(),
                items: self.items(used),
            };
            let committed = quota.commit_hold(commit).await?.into_inner();
            Ok(Ended {
                overrun: committed.items.iter().map(|item| item.overrun).sum(),
                late: committed.late,
            })
        };
        let ended = tokio::time::timeout(PATIENCE, ending).await;
        ended.map_err(|_| nobody_waited()).flatten()
    }
}

fn nobody_waited() -> Status {
    Status::deadline_exceeded("nobody waited any longer")
}
