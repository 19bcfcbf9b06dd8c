//! The programs of `docs/api/protect-a-service.md` in other languages, run as they stand there.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use octroi_proto::common::v1::Period;
use octroi_tests::harness::fleet::{APPLICATION, Fleet, Topology, roomy_hour, tell};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{
    asks::{standing, upsert_account},
    python::{interpreter, root},
};

const PAGE: &str = "docs/api/protect-a-service.md";
const ENDS_WITHIN: Duration = Duration::from_secs(120);
/// `exports.run` has 2 an hour, and each program asks three times.
const SAID: &str = "exported\nexported\nDENIAL_REASON_QUOTA_EXCEEDED\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_program_protects_itself_as_the_page_says() -> Result<()> {
    tell(Fleet::builder(Topology::Split), in_python).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_typescript_program_protects_itself_as_the_page_says() -> Result<()> {
    tell(Fleet::builder(Topology::Split), in_typescript).await
}

async fn in_python(fleet: &mut Fleet) -> Result<()> {
    let page = Page::read("Python")?;
    let checkout = Checkout::new()?;
    // It may have another name here.
    let interpreter = interpreter();
    let interpreter = interpreter.to_str().context("a path that is not text")?;
    checkout.write("protect.py", page.block("python")?)?;
    std::fs::create_dir(checkout.path().join("gen"))?;
    checkout
        .run(&page.block("sh")?.replace("python3", interpreter), &[])
        .await?;
    let run = format!("{interpreter} protect.py");
    let said = checkout.protect(fleet, &run, &[("PYTHONPATH", "gen")]).await?;
    ensure!(said == SAID, "{said}");
    Ok(())
}

async fn in_typescript(fleet: &mut Fleet) -> Result<()> {
    let page = Page::read("TypeScript")?;
    let checkout = Checkout::new()?;
    let modules = std::env::var_os("TEST_NODE_MODULES")
        .map_or_else(|| root().join(".tools/node-test/node_modules"), PathBuf::from);
    ensure!(
        modules.join("@connectrpc/connect").exists(),
        "{} lacks packages: run `make test`, or set TEST_NODE_MODULES to a directory with what \
         deploy/tools/test-node.txt names",
        modules.display()
    );
    std::os::unix::fs::symlink(modules, checkout.path().join("node_modules"))?;
    checkout.write("protect.mts", page.block("typescript")?)?;
    checkout.run(page.block("sh")?, &[]).await?;
    let said = checkout.protect(fleet, "npx tsx protect.mts", &[]).await?;
    // An enumeration has short names there.
    ensure!(said == SAID.replace("DENIAL_REASON_", ""), "{said}");
    Ok(())
}

/// A section of the page.
struct Page(String);

impl Page {
    fn read(section: &str) -> Result<Self> {
        let page = std::fs::read_to_string(root().join(PAGE))?;
        let mut sections = page.split("\n## ");
        let found = sections.find(|found| found.lines().next() == Some(section));
        Ok(Self(
            found
                .with_context(|| format!("{PAGE} has no {section}"))?
                .to_owned(),
        ))
    }

    /// The one block of code in this language.
    fn block(&self, language: &str) -> Result<&str> {
        let fence = format!("\n```{language}\n");
        let mut blocks = self.0.split(fence.as_str()).skip(1);
        let (Some(block), None) = (blocks.next(), blocks.next()) else {
            bail!("{PAGE} has not one block of {language} in a section");
        };
        Ok(block.split_once("\n```").context("a block does not end")?.0)
    }
}

/// A directory that has the contracts, as a checkout of somebody's program might.
struct Checkout(TempDir);

impl Checkout {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        std::os::unix::fs::symlink(root().join("proto"), dir.path().join("proto"))?;
        Ok(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.path().join(name), format!("{text}\n"))?)
    }

    /// Runs a command of the page.
    async fn run(&self, line: &str, variables: &[(&str, OsString)]) -> Result<String> {
        let mut command = Command::new("sh");
        command
            .args(["-euc", line])
            .current_dir(self.path())
            .envs(variables.iter().cloned())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(ENDS_WITHIN, command.output())
            .await
            .with_context(|| format!("{line} does not end"))??;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{line} ended with {}: {errors}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs a program that protects itself, and looks what is counted then.
    async fn protect(&self, fleet: &Fleet, line: &str, variables: &[(&str, &str)]) -> Result<String> {
        roomy_hour().await;
        let app = fleet.clients(APPLICATION)?;
        upsert_account(&app, "acme").await?;
        let mut all = vec![
            (
                "OCTROI_ADDRESS",
                OsString::from(fleet.address("quota").to_string()),
            ),
            (
                "OCTROI_TOKEN_FILE",
                fleet.token_file(APPLICATION).into_os_string(),
            ),
        ];
        all.extend(
            variables
                .iter()
                .map(|(name, value)| (*name, OsString::from(value))),
        );
        let said = self.run(line, &all).await?;
        let hour = standing(&app, "acme", "exports.run", Period::Hour).await?;
        ensure!((hour.used, hour.held) == (2, 0), "{hour:?}");
        Ok(said)
    }
}
