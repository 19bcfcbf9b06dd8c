//! Routes under requests that nobody thought of: a fuzzer reads the OpenAPI document and holds the gateway to it.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use octroi_tests::harness::fleet::{Fleet, OPERATOR, Topology, tell};
use serde_json::json;

use crate::{
    asks::ledger_total,
    python::{interpreter, root},
    rest::signed_up,
};

/// The routes about usage, whichever there are by now.
const ROUTES: &str = "^/api/(usage|account/usage)(/|$)";
/// The least that there are: fewer would mean that the expression finds nothing.
const OPERATIONS_MIN: usize = 3;
/// What the fuzzer chooses by, so that it finds the same in every run.
const SEED: &str = "1";
const ENDS_WITHIN: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_about_usage_keep_to_their_document_whatever_they_are_sent() -> Result<()> {
    tell(
        Fleet::builder(Topology::OneProcess),
        routes_about_usage_keep_to_their_document,
    )
    .await
}

async fn routes_about_usage_keep_to_their_document(fleet: &mut Fleet) -> Result<()> {
    let ann = signed_up(fleet, "ann@example.com").await?;
    let session = ann.get("/api/auth/session").await?.expect(200)?;
    let account = session["account"]["account_id"].as_str().context("no account")?;
    let body = json!({ "label": "a fuzzer", "scopes": ["usage.write", "usage.read"] });
    let made = ann.post("/api/account/api-keys", &body).await?.expect(201)?;
    let key = made["secret"].as_str().context("no secret")?;
    let program = ann.with_key(key);
    // Lists and figures have something to show.
    let used = json!({ "event_id": "before", "metric": "api.requests", "amount": 7 });
    program.post("/api/usage/events", &used).await?.expect(200)?;

    let said = fuzz(fleet, key).await?;
    let tested = said.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    let tested: usize = tested.context("it does not say what it tested")?.parse()?;
    ensure!(tested >= OPERATIONS_MIN, "{tested} operations: {said}");

    // Whatever came, the fleet goes on, and what was recorded before stays.
    let total = ledger_total(&fleet.clients(OPERATOR)?, account, "api.requests").await?;
    ensure!(total.direct_amount >= 7, "{total:?}");
    program.post("/api/usage/events", &used).await?.expect(200)?;
    Ok(())
}

/// Runs the fuzzer to its end and answers what it said, where it found nothing.
async fn fuzz(fleet: &Fleet, key: &str) -> Result<String> {
    let interpreter = interpreter();
    let settings = root().join("tests/schemathesis/usage.toml");
    let document = format!("http://{}/openapi.json", fleet.address("gateway"));
    let mut command = tokio::process::Command::new(&interpreter);
    command
        .current_dir(fleet.dir())
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(&settings)
        .args(["run", &document, "--include-path-regex", ROUTES, "--seed", SEED])
        .env("SCHEMATHESIS_KEY", key)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(ENDS_WITHIN, command.output()).await;
    let output = output.context("the fuzzer does not end")?;
    let output = output.with_context(|| format!("{} cannot be run", Path::new(&interpreter).display()))?;
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr),
    );
    ensure!(
        !errors.contains("No module named"),
        "{} lacks schemathesis: run `make test`, or set TEST_PYTHON to an interpreter with what deploy/tools/test.txt names",
        Path::new(&interpreter).display()
    );
    ensure!(
        output.status.success(),
        "the fuzzer ended with {}: {said}{errors}",
        output.status
    );
    Ok(said)
}
