//! The same layer before a service on tonic.

use std::{pin::Pin, time::Duration};

use anyhow::{Context as _, Result, ensure};
use futures::{Stream, StreamExt as _, stream};
use octroi_proto::errors::v1::ErrorReason;
use octroi_tests::harness::fleet::{Fleet, OPERATOR, roomy_hour};
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tonic_types::StatusExt as _;

use super::site::{EXPORTS, Site};
use crate::asks::{check_refusal, ledger_total, refusal};

/// Fails for what is called `fails`, answers to `slow` only after a while, and watches with three answers.
struct Probe;

#[tonic::async_trait]
impl Health for Probe {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.get_ref().service.as_str() {
            "fails" => Err(Status::internal("it failed")),
            "slow" => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                Ok(Response::new(HealthCheckResponse::default()))
            }
            _ => Ok(Response::new(HealthCheckResponse::default())),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let end = (request.get_ref().service == "fails").then(|| Err(Status::internal("it failed")));
        let answers = stream::iter((0..3).map(|_| Ok(HealthCheckResponse::default())).chain(end));
        Ok(Response::new(answers.boxed()))
    }
}

fn asked(service: &str, account: &str) -> Result<Request<HealthCheckRequest>> {
    let mut request = Request::new(HealthCheckRequest {
        service: service.to_owned(),
    });
    request.metadata_mut().insert("x-account-id", account.parse()?);
    Ok(request)
}

async fn serve(site: &Site) -> Result<HealthClient<Channel>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = tonic::transport::Server::builder()
        .layer(site.quota.metric(EXPORTS))
        .add_service(HealthServer::new(Probe));
    tokio::spawn(server.serve_with_incoming(incoming));
    Ok(HealthClient::new(Channel::from_shared(address)?.connect().await?))
}

impl Site {
    /// The ledger has as much before the answer ends.
    async fn is_recorded(&self, fleet: &Fleet, exports: u64) -> Result<()> {
        let total = ledger_total(&fleet.clients(OPERATOR)?, &self.account, EXPORTS).await?;
        ensure!(total.decided_amount == exports, "{total:?}");
        Ok(())
    }
}

pub(super) async fn a_tonic_service_is_protected_as_a_route_is(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let site = Site::start(fleet).await?;
    let mut probe = serve(&site).await?;
    let failed = probe.check(asked("fails", &site.account)?).await;
    ensure!(failed.is_err_and(|status| status.message() == "it failed"));
    site.comes_to(EXPORTS, (0, 0)).await?;
    let mut answers = probe.watch(asked("fails", &site.account)?).await?.into_inner();
    while let Ok(Some(_)) = answers.message().await {}
    site.comes_to(EXPORTS, (0, 0)).await?;
    let left = tokio::time::timeout(
        Duration::from_millis(500),
        probe.check(asked("slow", &site.account)?),
    )
    .await;
    ensure!(left.is_err(), "{left:?}");
    site.comes_to(EXPORTS, (0, 0)).await?;

    let answer = probe.check(asked("", &site.account)?).await?;
    let left = answer
        .metadata()
        .get("ratelimit")
        .context("nothing is said of the limit")?;
    ensure!(left.to_str()?.contains("exports.run/hour"), "{answer:?}");
    site.is_recorded(fleet, 1).await?;
    let mut answers = probe.watch(asked("", &site.account)?).await?.into_inner();
    while answers.message().await?.is_some() {}
    site.is_recorded(fleet, 2).await?;

    let denied = probe.check(asked("", &site.account)?).await;
    let status = denied.as_ref().err().context("there was room")?;
    let failure = status.get_details_quota_failure().context("no quota failure")?;
    ensure!(
        failure.violations.iter().any(|one| one.subject == EXPORTS),
        "{failure:?}"
    );
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    ensure!(retry.is_some(), "{status:?}");
    check_refusal(
        "over quota",
        denied,
        refusal(Code::ResourceExhausted, ErrorReason::QuotaExceeded),
    )
}
