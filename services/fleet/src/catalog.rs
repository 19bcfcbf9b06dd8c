//! `octroi catalog`: reads, compares and applies the catalog.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Subcommand;
use octroi_kit::link::Link;
use octroi_proto::billing::v1::{
    ApplyCatalogRequest, CheckCatalogRequest, billing_service_client::BillingServiceClient,
};
use tonic_types::StatusExt as _;

use crate::{cli::Service, config, operator, output};

/// What to do with it.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Say what is wrong with the file; needs no fleet.
    Check {
        /// The catalog.
        file: PathBuf,
    },
    /// Say what applying the file would change in a running fleet.
    Diff {
        /// The catalog.
        file: PathBuf,
    },
    /// Make the file the catalog in force.
    Apply {
        /// The catalog.
        file: PathBuf,
    },
}

/// Does it.
///
/// # Errors
/// Where the file cannot be read or the fleet refuses it.
pub async fn execute(config_file: Option<&Path>, command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Check { file } => check(file),
        Command::Diff { file } => {
            let request = CheckCatalogRequest {
                document: read(file)?,
            };
            let answer = client(config_file)?
                .check_catalog(request)
                .await
                .map_err(|status| explained(&status))?
                .into_inner();
            print_lines(&answer.changes, "nothing would change");
            for warning in answer.warnings {
                output::say(&format!("warning: {warning}"));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Apply { file } => {
            let request = ApplyCatalogRequest {
                document: read(file)?,
            };
            let answer = client(config_file)?
                .apply_catalog(request)
                .await
                .map_err(|status| explained(&status))?
                .into_inner();
            print_lines(&answer.changes, "nothing changed");
            output::say(&format!("version {} is in force", answer.version));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(file: &Path) -> anyhow::Result<ExitCode> {
    match octroi_billing::domain::catalog::check(&read(file)?) {
        Ok(catalog) => {
            for warning in octroi_billing::domain::catalog::warnings(&catalog) {
                output::say(&format!("warning: {warning}"));
            }
            output::say(&format!("{}: good", file.display()));
            Ok(ExitCode::SUCCESS)
        }
        Err(violations) => {
            for violation in &violations.0 {
                output::complain(&format!(
                    "{}: {} {}",
                    file.display(),
                    violation.field,
                    violation.rule
                ));
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn read(file: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn client(config_file: Option<&Path>) -> anyhow::Result<BillingServiceClient<Link>> {
    let loader = config::load(config_file)?;
    let link = operator::link(&loader, Service::Billing)?;
    Ok(BillingServiceClient::new(link))
}

/// The refusal with every field that breaks a rule.
fn explained(status: &tonic::Status) -> anyhow::Error {
    let mut text = status.message().to_owned();
    if let Some(bad) = status.get_details_bad_request() {
        for violation in bad.field_violations {
            text.push_str(&format!("\n  {} {}", violation.field, violation.description));
        }
    }
    anyhow::anyhow!(text)
}

fn print_lines(lines: &[String], none: &str) {
    if lines.is_empty() {
        output::say(none);
    }
    for line in lines {
        output::say(line);
    }
}
