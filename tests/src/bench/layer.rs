//! A route behind a layer, and the call that it makes: what somebody else's program pays for being protected.
//!
//! One request is in flight, and the route is called without a server before it, so that nothing but the layer is
//! between the two.

use std::{
    io::Write as _,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use octroi_client::{Channel, Client, Quota};
use octroi_proto::quota::v1::{
    CheckItem, CheckMode, CheckQuotaRequest, CommitHoldRequest, ReserveQuotaRequest,
    quota_service_client::QuotaServiceClient,
};
use tower::Service as _;
use uuid::Uuid;

use super::counted;

/// The argument that makes a program count what a layer asks for.
const ARGUMENT: &str = "--count-layer";
/// How many requests are counted.
const COUNTED: u32 = 400;
const ACCOUNT_HEADER: &str = "x-account-id";

/// What can be done again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// The route without a layer.
    Bare,
    /// A check that takes.
    Call,
    /// A route that takes before its handler runs.
    Route,
    /// A hold, and its commit.
    Calls,
    /// A route that holds before and commits after.
    HeldRoute,
}

/// A program that asks quota about one account.
pub struct Program {
    account: String,
    /// A metric that is answered from memory, and one that is answered once it is in the ledger.
    metrics: [String; 2],
    quota: QuotaServiceClient<Channel>,
    bare: Router,
    route: Router,
    held_route: Router,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl Program {
    /// A program beside the quota service at `address`; within the runtime that it will use.
    ///
    /// # Errors
    /// When the address or the token are none.
    pub fn new(address: &str, token: &str, account: &str, metrics: [&str; 2]) -> Result<Self> {
        let client = Client::builder(format!("http://{address}"))
            .token(token)
            .build()?;
        let quota = Quota::builder(&client)
            .account_from_header(ACCOUNT_HEADER)
            .build()?;
        let routed = |layer| Router::new().route("/", get(ok).route_layer(layer));
        Ok(Self {
            account: account.to_owned(),
            metrics: metrics.map(str::to_owned),
            quota: client.quota(),
            bare: Router::new().route("/", get(ok)),
            route: routed(quota.metric(metrics[0]).before()),
            held_route: routed(quota.metric(metrics[1])),
        })
    }

    /// Does it so many times, one after the other.
    ///
    /// # Errors
    /// When it is not done, or not allowed.
    pub async fn run(&mut self, work: Work, times: u32) -> Result<Duration> {
        let since = Instant::now();
        for _ in 0..times {
            match work {
                Work::Bare => get_from(&mut self.bare, &self.account).await?,
                Work::Call => self.call().await?,
                Work::Route => get_from(&mut self.route, &self.account).await?,
                Work::Calls => self.calls().await?,
                Work::HeldRoute => get_from(&mut self.held_route, &self.account).await?,
            }
        }
        Ok(since.elapsed())
    }

    async fn call(&mut self) -> Result<()> {
        let request = CheckQuotaRequest {
            account_id: self.account.clone(),
            items: one_of(&self.metrics[0]),
            mode: CheckMode::Consume.into(),
            request_id: Uuid::new_v4().to_string(),
            ..CheckQuotaRequest::default()
        };
        let decision = self.quota.check_quota(request).await?.into_inner();
        ensure!(decision.allowed, "{decision:?}");
        Ok(())
    }

    async fn calls(&mut self) -> Result<()> {
        let request = ReserveQuotaRequest {
            account_id: self.account.clone(),
            items: one_of(&self.metrics[1]),
            request_id: Uuid::new_v4().to_string(),
            ttl: Some(prost_types::Duration {
                seconds: 60,
                nanos: 0,
            }),
            ..ReserveQuotaRequest::default()
        };
        let reserved = self.quota.reserve_quota(request).await?.into_inner();
        ensure!(!reserved.hold_id.is_empty(), "{reserved:?}");
        let commit = CommitHoldRequest {
            account_id: self.account.clone(),
            hold_id: reserved.hold_id,
            ..CommitHoldRequest::default()
        };
        self.quota.commit_hold(commit).await?;
        Ok(())
    }
}

fn one_of(metric: &str) -> Vec<CheckItem> {
    vec![CheckItem {
        metric: metric.to_owned(),
        amount: 1,
    }]
}

async fn ok() -> &'static str {
    "done"
}

async fn get_from(router: &mut Router, account: &str) -> Result<()> {
    let request = Request::get("/")
        .header(ACCOUNT_HEADER, account)
        .body(Body::empty())?;
    let answer = router.call(request).await?;
    ensure!(answer.status() == StatusCode::OK, "{answer:?}");
    axum::body::to_bytes(answer.into_body(), 1_024).await?;
    Ok(())
}

/// The arguments with which [`counted::PROGRAM`] says what each request asks for, in [`read_counts`]' words.
#[must_use]
pub fn arguments(address: SocketAddr, token_file: &str, account: &str, metrics: [&str; 2]) -> Vec<String> {
    let [buffered, durable] = metrics;
    [
        ARGUMENT,
        &address.to_string(),
        token_file,
        account,
        buffered,
        durable,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// Where this process was started to count, counts, says so, and answers that it was.
///
/// # Errors
/// When it cannot do what is counted.
pub fn count_if_asked() -> Result<bool> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [argument, address, token_file, account, buffered, durable] = arguments.as_slice() else {
        return Ok(false);
    };
    if argument != ARGUMENT {
        return Ok(false);
    }
    let token = std::fs::read_to_string(token_file)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut program = Program::new(address, token.trim(), account, [buffered, durable])?;
        for work in [Work::Bare, Work::Call, Work::Route, Work::Calls, Work::HeldRoute] {
            // The first ones fill tables.
            program.run(work, COUNTED / 2).await?;
            let before = counted::so_far();
            program.run(work, COUNTED).await?;
            let counted = counted::so_far() - before;
            writeln!(std::io::stdout(), "{counted}")?;
        }
        Ok(true)
    })
}

/// What a counting process said: pieces of memory a request, of each kind of [`Work`] in its order, of as many requests as
/// were made in all.
///
/// # Errors
/// When it said something else.
#[expect(clippy::float_arithmetic, reason = "a mean is a quotient, for people")]
pub fn read_counts(output: &str) -> Result<[f64; 5]> {
    let counts: Vec<f64> = output
        .lines()
        .map(|line| Ok(line.parse::<u64>()? as f64 / f64::from(COUNTED)))
        .collect::<Result<_>>()?;
    counts
        .try_into()
        .ok()
        .with_context(|| format!("it said {output:?}"))
}

/// How many requests a counting process made of each kind.
#[must_use]
pub fn counted_requests() -> u64 {
    u64::from(COUNTED + COUNTED / 2)
}
