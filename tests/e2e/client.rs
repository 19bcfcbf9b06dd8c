//! A program that uses `octroi-client`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use octroi_client::{Client, Refusal as _, new_request_id};
use octroi_proto::{account::v1::UpsertAccountRequest, common::v1::Period, errors::v1::ErrorReason};
use octroi_tests::harness::fleet::{APPLICATION, Fleet};
use tonic::Code;

use crate::{
    asks::{consume, limit_of},
    story::both_topologies,
};

both_topologies!(a_program_with_the_client_is_served_and_reads_refusals);

const ACCOUNT: &str = "acme";
const DEADLINE: Duration = Duration::from_secs(5);

async fn a_program_with_the_client_is_served_and_reads_refusals(fleet: &mut Fleet) -> Result<()> {
    let token = std::fs::read_to_string(fleet.token_file(APPLICATION))?;
    let client = |service: &str| {
        let address = format!("http://{}", fleet.address(service));
        let builder = Client::builder(address).token(token.trim()).deadline(DEADLINE);
        builder.build().map_err(anyhow::Error::from)
    };
    let account = UpsertAccountRequest {
        account_id: ACCOUNT.to_owned(),
        ..UpsertAccountRequest::default()
    };
    client("account")?.account().upsert_account(account).await?;

    let quota = client("quota")?;
    let request = consume(ACCOUNT, &new_request_id(), &[("exports.run", 1)]);
    for repeated in [false, true] {
        let decision = quota.quota().check_quota(request.clone()).await?.into_inner();
        ensure!(
            decision.allowed && decision.repeated_request == repeated,
            "{decision:?}"
        );
        let day = limit_of(&decision.limits, "exports.run", Period::Day)?;
        ensure!(day.used == 1, "{day:?}");
    }

    let refused = consume(ACCOUNT, "r-2", &[("exports.run", 0)]);
    let status = quota
        .quota()
        .check_quota(refused)
        .await
        .err()
        .context("amount 0")?;
    let fields: Vec<String> = (status.field_violations().into_iter())
        .map(|violation| violation.field)
        .collect();
    ensure!(
        (status.code(), status.reason()) == (Code::InvalidArgument, Some(ErrorReason::FieldInvalid)),
        "{status:?}"
    );
    ensure!(fields == ["items[0].amount"], "{fields:?}");

    // Whoever does not answer is not waited for.
    fleet.kill("quota").await?;
    let since = Instant::now();
    let away = quota
        .quota()
        .check_quota(request)
        .await
        .err()
        .context("nobody is there")?;
    ensure!(away.code() == Code::Unavailable, "{away:?}");
    ensure!(since.elapsed() <= DEADLINE * 2, "{:?}", since.elapsed());
    fleet.restart("quota").await
}
