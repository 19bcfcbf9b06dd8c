//! A program in another language that knows nothing of the contracts but what reflection tells.

use std::{ffi::OsString, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use octroi_tests::harness::fleet::{APPLICATION, Fleet, OPERATOR, roomy_hour};
use serde_json::Value;

use crate::{
    asks::{ledger_total, upsert_account},
    story::both_topologies,
};

both_topologies!(a_python_program_checks_a_quota_by_reflection);

const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// `deploy/scripts/test.sh` gives an interpreter that has what the script needs.
fn interpreter() -> OsString {
    let given = std::env::var_os("TEST_PYTHON").filter(|path| !path.is_empty());
    given.unwrap_or_else(|| OsString::from("python3"))
}

async fn run(arguments: &[&str]) -> Result<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/check_quota.py");
    let interpreter = interpreter();
    let mut command = tokio::process::Command::new(&interpreter);
    command
        .arg(script)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(ENDS_WITHIN, command.output())
        .await
        .context("the script does not end")?;
    let output =
        output.with_context(|| format!("{} cannot be run: install Python 3", interpreter.display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !errors.contains("ModuleNotFoundError"),
        "{} lacks grpc: run `make test`, or set TEST_PYTHON to an interpreter with what deploy/tools/test.txt names",
        interpreter.display()
    );
    ensure!(
        output.status.success(),
        "the script ended with {}: {errors}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

async fn a_python_program_checks_a_quota_by_reflection(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    upsert_account(&fleet.clients(APPLICATION)?, "acme").await?;
    let address = fleet.address("quota").to_string();
    let token_file = fleet.token_file(APPLICATION);
    let token_file = token_file.to_str().context("a path that is not text")?;
    let check = async |request_id: &str| -> Result<Value> {
        let said = run(&[&address, token_file, "acme", "exports.run", "2", request_id]).await?;
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
    };
    let allowed = check("py-1").await?;
    ensure!(
        allowed["allowed"] == true && allowed["limits"][0]["metric"] == "exports.run",
        "{allowed}"
    );
    let denied = check("py-2").await?;
    ensure!(
        denied["allowed"] == false && denied["reason"] == "DENIAL_REASON_QUOTA_EXCEEDED",
        "{denied}"
    );
    let total = ledger_total(&fleet.clients(OPERATOR)?, "acme", "exports.run").await?;
    ensure!(total.decided_amount == 2, "{total:?}");
    Ok(())
}
