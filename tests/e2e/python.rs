//! A program in another language that knows nothing of the contracts but what reflection tells.

use std::{ffi::OsString, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use octroi_tests::harness::fleet::{APPLICATION, Fleet, OPERATOR, roomy_hour};
use serde_json::Value;

use crate::{
    asks::{ledger_total, upsert_account},
    story::both_topologies,
};

both_topologies!(a_python_program_checks_a_quota_by_reflection);

const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// `deploy/scripts/test.sh` gives an interpreter that has what the script needs.
pub(crate) fn interpreter() -> OsString {
    let given = std::env::var_os("TEST_PYTHON").filter(|path| !path.is_empty());
    given.unwrap_or_else(|| OsString::from("python3"))
}

/// The checkout.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Runs the words of a command line that begins with `python3 <script>`, in the checkout.
async fn run(words: &[String]) -> Result<Value> {
    let (program, arguments) = words.split_first().context("no command")?;
    ensure!(program == "python3", "{words:?}");
    let interpreter = interpreter();
    let mut command = tokio::process::Command::new(&interpreter);
    command
        .current_dir(root())
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
    let said = String::from_utf8(output.stdout)?;
    serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))
}

/// The words of the one command of the README that begins so.
fn words_of_the_readme(begin: &str) -> Result<Vec<String>> {
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    let commands = readme.replace("\\\n", " ");
    let mut found = commands.lines().filter(|line| line.starts_with(begin));
    let (Some(command), None) = (found.next(), found.next()) else {
        bail!("not one command of the README begins with {begin}");
    };
    Ok(command.split_ascii_whitespace().map(str::to_owned).collect())
}

/// The same words with this value behind that option.
fn with(words: &[String], option: &str, value: &str) -> Result<Vec<String>> {
    let mut words = words.to_vec();
    let at = words.iter().position(|word| word == option);
    let old = at.and_then(|at| words.get_mut(at + 1));
    value.clone_into(old.with_context(|| format!("without {option}"))?);
    Ok(words)
}

async fn a_python_program_checks_a_quota_by_reflection(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    for account in ["demo", "acme"] {
        upsert_account(&app, account).await?;
    }
    let token_file = fleet.token_file(APPLICATION);
    let token_file = token_file.to_str().context("a path that is not text")?;
    let words = words_of_the_readme("python3 tests/python/check_quota.py")?;
    let words = with(&words, "--address", &fleet.address("quota").to_string())?;
    let words = with(&words, "--token-file", token_file)?;
    let operator = fleet.clients(OPERATOR)?;
    let before = ledger_total(&operator, "demo", "api.requests").await?;
    for _ in 0..2 {
        let allowed = run(&words).await?;
        ensure!(
            allowed["allowed"] == true && allowed["repeated_request"] == false,
            "{allowed}"
        );
    }
    let after = ledger_total(&operator, "demo", "api.requests").await?;
    ensure!(
        after.decided_amount == before.decided_amount + 2,
        "each run is a request of its own: {before:?} {after:?}"
    );

    let words = with(&words, "--account", "acme")?;
    let words = with(&words, "--metric", "exports.run")?;
    let words = with(&words, "--amount", "2")?;
    let check = async |request_id: &str| {
        let more = ["--request-id".to_owned(), request_id.to_owned()];
        run(&[&words[..], &more].concat()).await
    };
    let allowed = check("py-1").await?;
    ensure!(
        allowed["allowed"] == true && allowed["limits"][0]["metric"] == "exports.run",
        "{allowed}"
    );
    let repeated = check("py-1").await?;
    ensure!(
        repeated["allowed"] == true && repeated["repeated_request"] == true,
        "{repeated}"
    );
    let denied = check("py-2").await?;
    ensure!(
        denied["allowed"] == false && denied["reason"] == "DENIAL_REASON_QUOTA_EXCEEDED",
        "{denied}"
    );
    let total = ledger_total(&operator, "acme", "exports.run").await?;
    ensure!(total.decided_amount == 2, "{total:?}");
    Ok(())
}
