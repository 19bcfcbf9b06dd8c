//! Requests that are decided as they come, over one stream, or all at once in a batch.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use futures::{SinkExt as _, StreamExt as _, channel::mpsc, stream};
use octroi_proto::{
    common::v1::Period,
    quota::v1::{
        CheckQuotaBatchRequest, CheckQuotaRequest, CheckQuotaResponse, CheckQuotaResult,
        CheckQuotaStreamRequest, check_quota_result::Outcome,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, roomy_hour};
use tokio::time::Instant;

use crate::{
    asks::{consume, peek, standing, upsert_account},
    story::both_topologies,
};

both_topologies!(
    each_request_of_a_stream_has_an_answer_of_its_own,
    a_stream_goes_on_for_as_long_as_its_caller_asks,
);

const ACCOUNT: &str = "acme";
/// 60 an hour, where nothing was bought.
const METRIC: &str = "api.requests";

/// What became of a request: whether it was allowed, or the reason and the field of its refusal.
type Became = Result<CheckQuotaResponse, (String, String)>;

fn became(result: Option<CheckQuotaResult>) -> Result<Became> {
    Ok(
        match result.and_then(|result| result.outcome).context("no outcome")? {
            Outcome::Decision(decision) => Ok(decision),
            Outcome::Error(error) => {
                ensure!(!error.message.is_empty(), "no sentence: {error:?}");
                Err((error.reason, error.field))
            }
        },
    )
}

/// Two hundred requests: 80 that take one, 80 that look, and 40 that are refused.
fn requests(prefix: &str) -> Vec<CheckQuotaRequest> {
    let request = |number: u32| match number % 5 {
        0 | 1 => consume(ACCOUNT, &format!("{prefix}-{number}"), &[(METRIC, 1)]),
        2 | 3 => peek(ACCOUNT, &[(METRIC, 1)]),
        _ if number.is_multiple_of(2) => consume("nobody", &format!("{prefix}-{number}"), &[(METRIC, 1)]),
        _ => CheckQuotaRequest::default(),
    };
    (0..200).map(request).collect()
}

/// Each refused one says why, looks took nothing, and of those that took as many were allowed as there was room for.
fn check_all(asked: &[CheckQuotaRequest], became: &[Became], room: usize) -> Result<()> {
    ensure!(became.len() == asked.len(), "{} answers", became.len());
    let mut taken = 0;
    for (request, became) in asked.iter().zip(became) {
        let expected = match request.account_id.as_str() {
            ACCOUNT => None,
            "nobody" => Some(("ACCOUNT_NOT_FOUND", "account_id")),
            _ => Some(("FIELD_INVALID", "account_id")),
        };
        match (became, expected) {
            (Ok(decision), None) => {
                taken += usize::from(decision.allowed && !request.request_id.is_empty());
                ensure!(!decision.repeated_request, "{decision:?}");
            }
            (Err((reason, field)), Some(expected)) => {
                ensure!((reason.as_str(), field.as_str()) == expected, "{reason} {field}");
            }
            (other, _) => bail!("{request:?} became {other:?}"),
        }
    }
    ensure!(taken == room, "{taken} were taken");
    Ok(())
}

async fn each_request_of_a_stream_has_an_answer_of_its_own(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let asked = requests("s");
    // The caller's own numbers, in no order.
    let id = |number: usize| u64::MAX - (number as u64).wrapping_mul(7_919) % 1_000;
    let all: Vec<CheckQuotaStreamRequest> = (asked.iter().enumerate())
        .map(|(number, request)| CheckQuotaStreamRequest {
            correlation_id: id(number),
            request: Some(request.clone()),
        })
        .collect();
    let mut answers = app
        .quota
        .clone()
        .check_quota_stream(stream::iter(all))
        .await?
        .into_inner();
    let mut found = BTreeMap::new();
    while let Some(answer) = answers.message().await? {
        let twice = found.insert(answer.correlation_id, became(answer.result)?);
        ensure!(twice.is_none(), "{} was answered twice", answer.correlation_id);
    }
    let in_order: Option<Vec<Became>> = (0..asked.len()).map(|number| found.remove(&id(number))).collect();
    check_all(&asked, &in_order.context("one has no answer")?, 60)?;
    ensure!(found.is_empty(), "nobody asked {found:?}");
    let hour = standing(&app, ACCOUNT, METRIC, Period::Hour).await?;
    ensure!((hour.used, hour.remaining) == (60, 0), "{hour:?}");

    // A batch answers in the order of its requests, and the same.
    let request = CheckQuotaBatchRequest {
        requests: requests("b"),
    };
    let results = app
        .quota
        .clone()
        .check_quota_batch(request.clone())
        .await?
        .into_inner()
        .results;
    let results: Result<Vec<Became>> = results.into_iter().map(|result| became(Some(result))).collect();
    check_all(&request.requests, &results?, 0)?;

    let nothing = CheckQuotaStreamRequest {
        correlation_id: 5,
        request: None,
    };
    let answers = app
        .quota
        .clone()
        .check_quota_stream(stream::iter([nothing]))
        .await?
        .into_inner();
    let answers: Vec<_> = answers.collect().await;
    let [Ok(answer)] = answers.as_slice() else {
        bail!("{answers:?}")
    };
    let refused = became(answer.result.clone())?;
    ensure!(
        answer.correlation_id == 5 && refused.is_err_and(|(reason, _)| reason == "FIELD_INVALID"),
        "{answer:?}"
    );
    Ok(())
}

/// Longer than any single call may take.
const GOES_ON: Duration = Duration::from_secs(3);

async fn a_stream_goes_on_for_as_long_as_its_caller_asks(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let (mut asks, asked) = mpsc::channel(1);
    // The call itself is answered once something was asked.
    asks.send(number(0)).await?;
    let mut answers = app.quota.clone().check_quota_stream(asked).await?.into_inner();
    let since = Instant::now();
    let mut next = 0;
    while next < 60 || since.elapsed() < GOES_ON {
        let answer = answers.message().await?.context("the stream ended")?;
        ensure!(answer.correlation_id == next, "{answer:?} instead of {next}");
        let decision = became(answer.result)?;
        let allowed = decision.is_ok_and(|decision| decision.allowed);
        ensure!(allowed == (next < 60), "{next} was allowed: {allowed}");
        next += 1;
        asks.send(number(next)).await?;
    }
    drop(asks);
    // What was asked last is answered still.
    answers.message().await?.context("the last has no answer")?;
    ensure!(answers.message().await?.is_none(), "nobody asked for more");
    the_same_id_takes_once(&app).await
}

fn number(number: u64) -> CheckQuotaStreamRequest {
    CheckQuotaStreamRequest {
        correlation_id: number,
        request: Some(consume(ACCOUNT, &format!("r-{number}"), &[(METRIC, 1)])),
    }
}

async fn the_same_id_takes_once(app: &Clients) -> Result<()> {
    let request = |correlation_id| CheckQuotaStreamRequest {
        correlation_id,
        request: Some(consume(ACCOUNT, "once", &[("exports.run", 1)])),
    };
    let asked = stream::iter((0..50).map(request));
    let answers = app.quota.clone().check_quota_stream(asked).await?.into_inner();
    let answers: Vec<_> = answers.collect().await;
    let mut first = 0;
    for answer in answers {
        let decision = became(answer?.result)?;
        let decision = decision.map_err(|refused| anyhow::anyhow!("{refused:?}"))?;
        ensure!(decision.allowed, "{decision:?}");
        first += usize::from(!decision.repeated_request);
    }
    ensure!(first == 1, "{first} are the first");
    let hour = standing(app, ACCOUNT, "exports.run", Period::Hour).await?;
    ensure!(hour.used == 1, "{hour:?}");
    Ok(())
}
