//! The command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

use crate::{all, catalog, clock, config, dead_letters, doctor, migrate, operator, output, process, replay};

/// Quotas, usage, billing and notifications for a SaaS: a fleet of gRPC services in one program.
#[derive(Debug, Parser)]
#[command(name = "octroi", version)]
pub struct Cli {
    /// A TOML file over the compiled-in defaults; the environment comes above it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Run every service in this process, with a PostgreSQL of its own unless one is given.
    All(RunArgs),
    /// Run some services in this process.
    Run {
        /// Which.
        #[arg(required = true)]
        services: Vec<Service>,
        #[command(flatten)]
        args: RunArgs,
    },
    /// Change the schemas.
    #[command(subcommand)]
    Migrate(migrate::Command),
    /// Read or change the catalog.
    #[command(subcommand)]
    Catalog(catalog::Command),
    /// Show or move the test clock of a sandbox, for all services.
    #[command(subcommand)]
    Clock(clock::Command),
    /// Send recorded traffic from a file into a running fleet.
    Replay(replay::Args),
    /// Show the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make service tokens.
    #[command(subcommand)]
    Tokens(TokensCommand),
    /// Show the messages that nobody could handle, or put them back.
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    /// Look for what is wrong with a fleet's databases.
    Doctor,
}

/// How a process is run.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Write the addresses that were bound into this file, as JSON, once the process serves.
    #[arg(long, value_name = "FILE")]
    pub addresses_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the merged configuration, without secrets.
    Print,
}

#[derive(Debug, Subcommand)]
enum TokensCommand {
    /// Make a token for every caller and the file with their hashes; what exists is left as it is.
    Mint {
        /// Where to.
        #[arg(long)]
        dir: PathBuf,
    },
}

/// What can run in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Service {
    /// Accounts, members, sessions, API keys.
    Account,
    /// Decisions.
    Quota,
    /// The ledger.
    Usage,
    /// Plans and subscriptions.
    Billing,
    /// Notices and e-mails.
    Notification,
    /// The edge.
    Gateway,
}

impl Service {
    /// All of them, in the order in which they are built.
    pub const ALL: [Self; 6] = [
        Self::Account,
        Self::Usage,
        Self::Quota,
        Self::Billing,
        Self::Notification,
        Self::Gateway,
    ];

    /// Those that have a database.
    pub const WITH_DATABASE: [Self; 5] = [
        Self::Account,
        Self::Usage,
        Self::Quota,
        Self::Billing,
        Self::Notification,
    ];

    /// Its name, which is also its schema's and its caller's.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Quota => "quota",
            Self::Usage => "usage",
            Self::Billing => "billing",
            Self::Notification => "notification",
            Self::Gateway => "gateway",
        }
    }
}

/// Does what the command line says.
///
/// # Errors
/// A sentence that says what went wrong.
pub async fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = cli.config.as_deref();
    match cli.command {
        Command::All(args) => all::run(&config::load(file)?, &args).await,
        Command::Run { services, args } => process::run(&config::load(file)?, &services, &args).await,
        Command::Migrate(command) => migrate::execute(&config::load(file)?, &command)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::Catalog(command) => catalog::execute(file, &command).await,
        Command::Clock(command) => clock::execute(&config::load(file)?, &command)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::Replay(args) => replay(file, args).await,
        Command::Config(ConfigCommand::Print) => {
            output::say(&config::print(&config::load(file)?)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Tokens(TokensCommand::Mint { dir }) => {
            octroi_kit::auth::mint(&dir)?;
            output::say(&format!("tokens and their hashes are in {}", dir.display()));
            Ok(ExitCode::SUCCESS)
        }
        Command::DeadLetters(command) => dead_letters::execute(&config::load(file)?, &command)
            .await
            .map(|()| ExitCode::SUCCESS),
        Command::Doctor => doctor::execute(&config::load(file)?).await,
    }
}

async fn replay(file: Option<&Path>, args: replay::Args) -> anyhow::Result<ExitCode> {
    let link = if args.dry_run {
        None
    } else {
        Some(operator::link_to_any(&config::load(file)?)?)
    };
    let stop = CancellationToken::new();
    cancel_on_interrupt(&stop);
    let json = args.json;
    let report = replay::run(args, link, stop).await?;
    report.print(json)?;
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn cancel_on_interrupt(stop: &CancellationToken) {
    let stop = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
}
