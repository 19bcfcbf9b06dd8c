//! A fleet in one struct: it keeps a ledger in memory, has one limit an account, and goes away on demand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    body::{Body, to_bytes},
    extract::{Request, State as Shared},
    response::Response,
};
use octroi_core::{ErrorKind, FieldViolation};
use octroi_kit::{
    config::Secret,
    grpc::BATCH_BYTES_MAX,
    link::Link,
    status::{refusal, status},
};
use octroi_proto::{
    account::v1 as account,
    billing::v1 as billing,
    errors::v1::ErrorReason,
    notification::v1 as notification,
    quota::v1 as quota,
    usage::v1::{self as usage, track_usage_result::Outcome},
};
use prost::Message;
use tonic::{Status, service::Routes, transport::server::TcpIncoming};

/// What identifies an event: account, source, id.
type Identity = (String, String, String);

/// The metric that has a limit.
const LIMITED: &str = "llm.requests";

/// Before this second, which is in 2016, no subscription begins.
const ANCHOR_MIN: i64 = 1_480_000_000;

/// What the fake keeps.
#[derive(Debug, Default)]
pub struct State {
    /// The accounts with their plans.
    pub plans: BTreeMap<String, String>,
    /// The ledger: metric, amount, seconds, nanoseconds.
    pub ledger: BTreeMap<Identity, (String, i64, i64, i32)>,
    /// In the order of their arrival: account and request id of each CONSUME that was decided.
    pub asked: Vec<(String, String)>,
    /// How many units of `llm.requests` an account may have.
    pub limit: u64,
    /// How many events an account has, of every metric and of `llm.requests`.
    pub events: BTreeMap<String, (u64, u64)>,
    /// How many notices an account has: one for each fifth event.
    pub notices: BTreeMap<String, u64>,
    /// So many calls from now on are answered before the fleet goes away.
    pub answers_left: Option<u32>,
    /// So many calls are refused as UNAVAILABLE before the fleet comes back.
    pub refusals_left: u32,
    /// Events of this account are refused for good.
    pub refused_account: Option<String>,
    /// The largest batch that came.
    pub batch_max: usize,
    /// How many calls are on their way.
    pub at_once: u32,
    /// How many were at most.
    pub at_once_max: u32,
}

/// The fake.
#[derive(Clone, Debug, Default)]
pub struct Fake(Arc<Mutex<State>>);

impl Fake {
    /// A fleet that allows an account this much.
    pub fn with_limit(limit: u64) -> Self {
        let fake = Self::default();
        fake.state().limit = limit;
        fake
    }

    /// What it keeps.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves on a port of its own; answers the way to it.
    pub fn link(&self) -> Link {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        let address = incoming.local_addr().expect("a bound port");
        let router = axum::Router::new().fallback(serve_call).with_state(self.clone());
        let server = tonic::transport::Server::builder().add_routes(Routes::from(router));
        tokio::spawn(server.serve_with_incoming(incoming));
        Link::remote(&format!("http://{address}"), &Secret::new("token")).expect("a link")
    }

    /// Answers the methods that a replay needs. It knows them by name, so that a contract may grow.
    fn answer(&self, path: &str, message: &[u8]) -> Result<Vec<u8>, Status> {
        match path {
            "/octroi.account.v1.AccountService/UpsertAccount" => self.with(message, Self::upsert_account),
            "/octroi.billing.v1.BillingService/CreateSubscription" => {
                self.with(message, Self::create_subscription)
            }
            "/octroi.billing.v1.BillingService/GetSubscription" => self.with(message, Self::get_subscription),
            "/octroi.notification.v1.NotificationService/ListNotices" => {
                self.with(message, Self::list_notices)
            }
            "/octroi.quota.v1.QuotaService/CheckQuota" => self.with(message, Self::check_quota),
            "/octroi.usage.v1.UsageService/TrackUsageBatch" => self.with(message, Self::track_usage_batch),
            "/octroi.usage.v1.UsageService/GetLedgerTotals" => self.with(message, Self::get_ledger_totals),
            other => Err(Status::unimplemented(other)),
        }
    }

    fn with<Q: Message + Default, A: Message>(
        &self,
        message: &[u8],
        method: fn(&Self, &Q) -> Result<A, Status>,
    ) -> Result<Vec<u8>, Status> {
        let request = Q::decode(message).map_err(|error| Status::internal(error.to_string()))?;
        method(self, &request).map(|answer| answer.encode_to_vec())
    }

    /// Goes away and comes back as it was told.
    fn enter(&self) -> Result<(), Status> {
        let mut state = self.state();
        if state.refusals_left > 0 && state.answers_left.is_none_or(|left| left == 0) {
            state.refusals_left -= 1;
            return Err(Status::unavailable("away"));
        }
        if let Some(left) = &mut state.answers_left {
            *left = left.saturating_sub(1);
        }
        Ok(())
    }

    fn upsert_account(
        &self,
        request: &account::UpsertAccountRequest,
    ) -> Result<account::UpsertAccountResponse, Status> {
        let created = !self.state().notices.contains_key(&request.account_id);
        self.state()
            .notices
            .entry(request.account_id.clone())
            .or_default();
        Ok(account::UpsertAccountResponse {
            account: None,
            created,
        })
    }

    fn create_subscription(
        &self,
        request: &billing::CreateSubscriptionRequest,
    ) -> Result<billing::CreateSubscriptionResponse, Status> {
        let anchor = request.anchor_time.as_ref().map(|time| time.seconds);
        if anchor.is_some_and(|anchor| anchor < ANCHOR_MIN) {
            let violation =
                FieldViolation::new("anchor_time", "must be at most 5 minutes ahead and 10 years back");
            let reason = ErrorReason::FieldInvalid.name();
            let kind = ErrorKind::Invalid;
            return Err(status(kind, reason, "a field", Vec::new(), &[violation], None));
        }
        if self.state().plans.contains_key(&request.account_id) {
            return Err(refusal(
                ErrorKind::AlreadyExists,
                ErrorReason::SubscriptionExists,
                "it has one",
            ));
        }
        self.state()
            .plans
            .insert(request.account_id.clone(), request.plan.clone());
        Ok(billing::CreateSubscriptionResponse::default())
    }

    fn get_subscription(
        &self,
        request: &billing::GetSubscriptionRequest,
    ) -> Result<billing::GetSubscriptionResponse, Status> {
        let plan = self
            .state()
            .plans
            .get(&request.account_id)
            .cloned()
            .unwrap_or_default();
        let subscription = billing::Subscription {
            plan,
            ..billing::Subscription::default()
        };
        Ok(billing::GetSubscriptionResponse {
            subscription: Some(subscription),
        })
    }

    fn record(&self, event: usage::UsageEvent) -> Outcome {
        let mut state = self.state();
        let at = event.event_time.unwrap_or_default();
        let refused = |code: i32, reason: &str| {
            Outcome::Error(usage::ItemError {
                code,
                reason: reason.to_owned(),
                ..usage::ItemError::default()
            })
        };
        if state.refused_account.as_ref() == Some(&event.account_id) {
            return refused(9, "ACCOUNT_CLOSED");
        }
        let requests = u64::from(event.metric == LIMITED);
        let content = (event.metric, event.amount, at.seconds, at.nanos);
        let identity = (event.account_id.clone(), event.source, event.event_id);
        match state.ledger.get(&identity) {
            Some(known) if *known != content => return refused(6, "EVENT_ID_REUSED"),
            Some(_) => {
                return Outcome::Recorded(usage::TrackUsageResponse {
                    duplicate: true,
                    record_time: None,
                });
            }
            None => drop(state.ledger.insert(identity, content)),
        }
        let counts = state.events.entry(event.account_id.clone()).or_default();
        *counts = (counts.0 + 1, counts.1 + requests);
        if counts.0.is_multiple_of(5) {
            *state.notices.entry(event.account_id).or_default() += 1;
        }
        Outcome::Recorded(usage::TrackUsageResponse::default())
    }

    fn track_usage_batch(
        &self,
        request: &usage::TrackUsageBatchRequest,
    ) -> Result<usage::TrackUsageBatchResponse, Status> {
        assert!(request.backfill, "recorded traffic is explicit backfill");
        let batch_max = self.state().batch_max.max(request.events.len());
        self.state().batch_max = batch_max;
        let results = request
            .events
            .iter()
            .cloned()
            .map(|event| usage::TrackUsageResult {
                outcome: Some(self.record(event)),
                ..usage::TrackUsageResult::default()
            });
        Ok(usage::TrackUsageBatchResponse {
            results: results.collect(),
        })
    }

    fn get_ledger_totals(
        &self,
        request: &usage::GetLedgerTotalsRequest,
    ) -> Result<usage::GetLedgerTotalsResponse, Status> {
        let state = self.state();
        let start = request.start_time.map(|time| time.seconds);
        let end = request.end_time.map(|time| time.seconds);
        let total = |metric: &String| {
            let meant = state
                .ledger
                .iter()
                .filter(|((account, source, _), (of, _, at, _))| {
                    of == metric
                        && (request.account_id.is_empty() || *account == request.account_id)
                        && (request.source.is_empty() || *source == request.source)
                        && start.is_none_or(|start| start <= *at)
                        && end.is_none_or(|end| *at <= end)
                });
            let amounts: Vec<u64> = meant.map(|(_, (_, amount, ..))| amount.unsigned_abs()).collect();
            usage::LedgerTotal {
                metric: metric.clone(),
                direct_amount: amounts.iter().sum(),
                events: amounts.len() as u64,
                ..usage::LedgerTotal::default()
            }
        };
        let unknown = request.metrics.iter().any(|metric| metric.starts_with("unknown"));
        if unknown {
            return Err(refusal(
                ErrorKind::NotFound,
                ErrorReason::MetricNotFound,
                "there is no such metric",
            ));
        }
        Ok(usage::GetLedgerTotalsResponse {
            totals: request.metrics.iter().map(total).collect(),
            ..usage::GetLedgerTotalsResponse::default()
        })
    }

    fn check_quota(&self, request: &quota::CheckQuotaRequest) -> Result<quota::CheckQuotaResponse, Status> {
        assert!(request.backfill, "recorded traffic is explicit backfill");
        let account = request.account_id.clone();
        let used = {
            let mut state = self.state();
            state.asked.push((account.clone(), request.request_id.clone()));
            state.events.get(&account).map_or(0, |counts| counts.1)
        };
        let id = |item: &quota::CheckItem| format!("{}/{}", request.request_id, item.metric);
        let source = "decision:operator";
        let repeated = request.items.first().is_some_and(|item| {
            self.state()
                .ledger
                .contains_key(&(account.clone(), source.to_owned(), id(item)))
        });
        if !repeated && used >= self.state().limit {
            let limits = vec![quota::LimitStatus {
                metric: LIMITED.to_owned(),
                ..quota::LimitStatus::default()
            }];
            return Ok(quota::CheckQuotaResponse {
                limits,
                binding_limit: Some(0),
                ..Default::default()
            });
        }
        for item in &request.items {
            drop(self.record(usage::UsageEvent {
                account_id: account.clone(),
                event_id: id(item),
                source: source.to_owned(),
                metric: item.metric.clone(),
                amount: item.amount,
                event_time: request.event_time,
                ..usage::UsageEvent::default()
            }));
        }
        Ok(quota::CheckQuotaResponse {
            allowed: true,
            repeated_request: repeated,
            ..Default::default()
        })
    }

    fn list_notices(
        &self,
        request: &notification::ListNoticesRequest,
    ) -> Result<notification::ListNoticesResponse, Status> {
        let total = self
            .state()
            .notices
            .get(&request.account_id)
            .copied()
            .unwrap_or_default();
        let first: u64 = request.page_token.parse().unwrap_or_default();
        let size = u64::from(request.page_size.unsigned_abs());
        let last = total.min(first + size);
        let notice = |_| notification::Notice {
            kind: "quota.threshold_crossed".to_owned(),
            ..Default::default()
        };
        Ok(notification::ListNoticesResponse {
            notices: (first..last).map(notice).collect(),
            next_page_token: if last < total {
                last.to_string()
            } else {
                String::new()
            },
            unread_count: total,
            total_count: total,
        })
    }

    fn count_calls(&self, change: i32) {
        let mut state = self.state();
        state.at_once = state.at_once.saturating_add_signed(change);
        state.at_once_max = state.at_once_max.max(state.at_once);
    }

    /// The accounts of the ledger.
    pub fn accounts(&self) -> BTreeSet<String> {
        self.state()
            .ledger
            .keys()
            .map(|(account, ..)| account.clone())
            .collect()
    }
}

/// One unary call: a message with five bytes of head before it, each way.
async fn serve_call(Shared(fake): Shared<Fake>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let body = to_bytes(request.into_body(), BATCH_BYTES_MAX)
        .await
        .expect("a small body");
    fake.count_calls(1);
    // Calls overlap only where each takes a moment.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    fake.count_calls(-1);
    let answer = fake.enter().and_then(|()| fake.answer(&path, &body[5..]));
    match answer {
        Err(status) => status.into_http(),
        Ok(message) => {
            let mut framed = vec![0];
            framed.extend(
                u32::try_from(message.len())
                    .expect("a small answer")
                    .to_be_bytes(),
            );
            framed.extend(message);
            let head = Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", "0");
            head.body(Body::from(framed)).expect("a response")
        }
    }
}
