//! The program: an HTTP server beside the fleet.

use std::{io::IsTerminal as _, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use octroi_client::{Client, Quota};
use octroi_personas::{App, places, store};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Personas, behind Octroi. Where Octroi is and as whom it is called, `OCTROI_CLIENT__ADDRESS` and
/// `OCTROI_CLIENT__TOKEN_FILE` say.
#[derive(Debug, Parser)]
#[command(name = "octroi-personas", version)]
struct Arguments {
    /// Where to listen.
    #[arg(long, env = "PERSONAS_LISTEN", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// The database, in which the schema `personas` is ours.
    #[arg(long, env = "PERSONAS_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Where decisions wait that were made while Octroi was away.
    #[arg(long, env = "PERSONAS_JOURNAL_DIR")]
    journal_dir: Option<PathBuf>,
}

/// How long the end waits for requests that have begun, and then for what is not recorded yet.
const CLOSE_MAX: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let to_people = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(to_people)
        .init();
    let arguments = Arguments::parse();
    let client = Client::from_env()?;
    let mut quota = Quota::builder(&client).account_from_header("x-account-id");
    if let Some(dir) = arguments.journal_dir {
        quota = quota.journal_dir(dir);
    }
    let quota = quota.build().context("the journal cannot be opened")?;
    let database = store::connect(&arguments.database_url).await?;
    tokio::spawn(places::settle_all(database.clone(), client.clone()));
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("cannot listen on {}", arguments.listen))?;
    tracing::info!(address = %listener.local_addr()?, "personas are served");
    let app = App {
        database,
        client,
        tasks: TaskTracker::new(),
    };
    let stop = CancellationToken::new();
    let mut serving = tokio::spawn({
        let (quota, stop) = (quota.clone(), stop.clone());
        async move { app.serve(listener, &quota, stop.cancelled_owned()).await }
    });
    tokio::select! {
        served = &mut serving => return served?,
        _ = tokio::signal::ctrl_c() => {}
        () = terminated() => {}
    }
    stop.cancel();
    // What has begun is ended, and what was done is recorded, before this ends.
    if tokio::time::timeout(CLOSE_MAX, serving).await.is_err() {
        tracing::warn!("some requests have not ended");
    }
    let left = quota.close(CLOSE_MAX).await;
    tracing::info!(left, "the application ended");
    Ok(())
}

/// Waits until somebody ends the process in the usual way.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => drop(signal.recv().await),
        Err(error) => {
            tracing::warn!(error = %error, "a request to end is not noticed");
            std::future::pending().await
        }
    }
}
