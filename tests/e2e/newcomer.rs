//! `octroi all` on a machine where nobody prepared anything.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use octroi_fleet::{postgres::running_in, seed};
use octroi_proto::billing::v1::GetSubscriptionRequest;
use octroi_tests::harness::{
    fleet::{APPLICATION, Call, Clients, OPERATOR, PATIENCE, Program, Rest, eventually, is_ready, open_dir},
    port::Port,
};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::{
    asks::{consume, event, ledger_total, upsert_account},
    operations::text,
};

/// `octroi all` as a newcomer runs it: nothing is given but where to listen.
struct Newcomer {
    program: Program,
    call: Call,
    grpc: Port,
    admin: Port,
    gateway: Port,
    data: PathBuf,
    _dir: TempDir,
}

impl Newcomer {
    async fn start() -> Result<Self> {
        let mut this = Self::launch(open_dir()?)?;
        this.becomes_ready().await?;
        Ok(this)
    }

    /// Starts it without waiting for anything.
    fn launch(dir: TempDir) -> Result<Self> {
        let data = dir.path().join("data");
        let (grpc, admin, gateway) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
        let addresses = dir.path().join("addresses.json");
        let mut call = Call::new(dir.path(), "all", &["all", "--addresses-file", text(&addresses)?])
            .set("data_dir", text(&data)?)
            .set("grpc.listen", grpc.address().to_string())
            .set("admin.listen", admin.address().to_string())
            .set("gateway.listen", gateway.address().to_string());
        if let Some(bin) = std::env::var_os("PG_BIN") {
            call = call.set("database.bin", text(Path::new(&bin))?);
        }
        Ok(Self {
            program: call.start()?,
            call,
            grpc,
            admin,
            gateway,
            data,
            _dir: dir,
        })
    }

    async fn becomes_ready(&mut self) -> Result<()> {
        let file = self.call.addresses_file();
        let ready = self
            .program
            .becomes_ready(self.admin.address(), file.as_deref())
            .await;
        ready.with_context(|| format!("it is not ready; the end of its log:\n{}", self.call.log_tail()))
    }

    async fn kill(&mut self) -> Result<()> {
        self.program.signal(Signal::SIGKILL)?;
        self.program.ended().await?;
        Ok(())
    }

    /// Starts it again without waiting for anything.
    fn launch_again(&mut self) -> Result<()> {
        if let Some(file) = self.call.addresses_file() {
            // Where it was killed early it is not there.
            let _ = std::fs::remove_file(file);
        }
        self.program = self.call.start()?;
        Ok(())
    }

    async fn kill_and_restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.launch_again()?;
        self.becomes_ready().await
    }

    /// Kills it as soon as its database has something.
    async fn kill_once(&mut self, question: &'static str) -> Result<()> {
        let seen = tokio::time::timeout(PATIENCE, async {
            while !self.has(question).await.unwrap_or(false) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        seen.await.with_context(|| {
            format!(
                "waited in vain for {question}; the end of its log:\n{}",
                self.call.log_tail()
            )
        })?;
        self.kill().await
    }

    /// Asks over one session again and again, to be as quick as it is; an error means that there is no
    /// database yet, or another one by now.
    async fn has(&self, question: &'static str) -> Result<bool> {
        let (url, _) = running_in(&self.data).context("no PostgreSQL")?;
        let mut session = PgConnection::connect(&url.replace("/postgres?", "/octroi?")).await?;
        while !sqlx::query_scalar::<_, bool>(question)
            .fetch_one(&mut session)
            .await?
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(true)
    }

    fn clients(&self, caller: &str) -> Result<Clients> {
        let token = std::fs::read_to_string(self.data.join(format!("tokens/{caller}.token")))?;
        Clients::new(|_| format!("http://{}", self.grpc.address()), token.trim())
    }

    fn rest(&self) -> Rest {
        Rest::new(self.gateway.address())
    }

    /// The first process of its PostgreSQL.
    fn postgres(&self) -> Option<Pid> {
        let content = std::fs::read_to_string(self.data.join("postgres/postmaster.pid")).ok()?;
        content.lines().next()?.parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        // A PostgreSQL whose octroi was killed runs on; both fail only where it has ended already.
        let _ = self.program.signal(Signal::SIGKILL);
        if let Some(postgres) = self.postgres() {
            let _ = kill(postgres, Signal::SIGQUIT);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_finds_a_demo_that_survives_kills() -> Result<()> {
    let mut octroi = Newcomer::start().await?;
    let password = std::fs::read_to_string(octroi.data.join("password"))?;
    for email in ["demo@octroi.example", "operator@octroi.example"] {
        octroi.rest().sign_in(email, password.trim()).await?;
        ensure!(octroi.call.log().contains(email), "{email} is not told");
    }
    let mut demo = octroi.rest();
    demo.sign_in("demo@octroi.example", password.trim()).await?;
    let seeded = ledger_total(&octroi.clients(OPERATOR)?, "demo", "api.requests").await?;
    ensure!(seeded.direct_amount > 1_000, "two weeks of use: {seeded:?}");

    let app = octroi.clients(APPLICATION)?;
    upsert_account(&app, "acme").await?;
    let decided = app
        .quota
        .clone()
        .check_quota(consume("acme", "r-1", &[("exports.run", 2)]))
        .await?
        .into_inner();
    ensure!(decided.allowed && !decided.repeated_request, "{decided:?}");

    octroi.kill_and_restart().await?;
    let quotas = demo.get("/api/account/quotas").await?.expect(200)?;
    ensure!(
        quotas["plan"] == "starter",
        "the session and the subscription are there: {quotas}"
    );
    let kept = ledger_total(&octroi.clients(OPERATOR)?, "demo", "api.requests").await?;
    ensure!(
        (kept.events, kept.direct_amount) == (seeded.events, seeded.direct_amount),
        "seeded again: {kept:?} {seeded:?}"
    );
    let app = octroi.clients(APPLICATION)?;
    let repeated = app
        .quota
        .clone()
        .check_quota(consume("acme", "r-1", &[("exports.run", 2)]))
        .await?
        .into_inner();
    ensure!(
        repeated.allowed && repeated.repeated_request,
        "what was decided before the kill is decided still: {repeated:?}"
    );
    let total = ledger_total(&octroi.clients(OPERATOR)?, "acme", "exports.run").await?;
    ensure!(total.decided_amount == 2, "{total:?}");

    its_postgres_comes_back(&octroi).await?;
    octroi.program.signal(Signal::SIGTERM)?;
    let status = octroi.program.ended().await?;
    ensure!(
        status.code() == Some(0),
        "it ended with {status}: {}",
        octroi.call.log_tail()
    );
    ensure!(octroi.postgres().is_none(), "its PostgreSQL outlived it");
    Ok(())
}

async fn its_postgres_comes_back(octroi: &Newcomer) -> Result<()> {
    let app = octroi.clients(APPLICATION)?;
    let first = octroi.postgres().context("no PostgreSQL")?;
    kill(first, Signal::SIGKILL)?;
    let sentence = eventually("it says so", async || {
        let log = octroi.call.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("PostgreSQL is started again"))
            .collect();
        let [only] = lines[..] else {
            anyhow::bail!("{lines:?}")
        };
        Ok(only.to_owned())
    })
    .await?;
    ensure!(sentence.contains("WARN"), "{sentence}");
    eventually("events are recorded again", async || {
        let request = octroi_proto::usage::v1::TrackUsageRequest {
            event: Some(event("acme", "after", "llm.requests", 1)),
            backfill: false,
        };
        app.usage.clone().track_usage(request).await?;
        let second = octroi.postgres().context("no PostgreSQL")?;
        ensure!(second != first, "it is the same process");
        is_ready(octroi.admin.address()).await
    })
    .await
    .with_context(|| octroi.call.log_tail())?;
    let body: Value = json!({ "email": "demo@octroi.example", "password": "wrong wrong wrong" });
    let answer = octroi.rest().post("/api/auth/sign-in", &body).await?;
    ensure!(answer.refusal(401)? == "CREDENTIALS_INVALID", "{answer:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demo_that_was_cut_off_is_made_whole_and_counted_once() -> Result<()> {
    let dir = open_dir()?;
    // What a start leaves that was killed between making the file and writing it.
    std::fs::create_dir(dir.path().join("data"))?;
    std::fs::write(dir.path().join("data/password"), "")?;
    let mut octroi = Newcomer::launch(dir)?;
    for question in [
        "SELECT EXISTS (SELECT FROM account.account)",
        "SELECT EXISTS (SELECT FROM billing.subscription)",
        "SELECT EXISTS (SELECT FROM usage.ledger WHERE source = 'seed')",
    ] {
        octroi.kill_once(question).await?;
        octroi.launch_again()?;
    }
    octroi.becomes_ready().await?;
    let password = std::fs::read_to_string(octroi.data.join("password"))?;
    its_demo_is_whole(&octroi, &password).await?;

    // The directory that tells what was done is lost, and the database is not.
    octroi.kill().await?;
    std::fs::remove_file(octroi.data.join("seeded"))?;
    octroi.launch_again()?;
    octroi.becomes_ready().await?;
    its_demo_is_whole(&octroi, &password).await?;

    octroi.kill().await?;
    for file in ["seeded", "password"] {
        std::fs::remove_file(octroi.data.join(file))?;
    }
    octroi.launch_again()?;
    octroi.becomes_ready().await?;
    its_demo_is_whole(&octroi, &password).await?;
    ensure!(
        octroi
            .call
            .log()
            .contains("the password that this database was first filled with")
            && !octroi.data.join("password").exists(),
        "a password is told that is none: {}",
        octroi.call.log_tail()
    );
    Ok(())
}

/// Everybody can sign in, the account has its plan, and the ledger has each of the two weeks' events once.
async fn its_demo_is_whole(octroi: &Newcomer, password: &str) -> Result<()> {
    octroi
        .rest()
        .sign_in("operator@octroi.example", password.trim())
        .await?;
    let mut demo = octroi.rest();
    demo.sign_in("demo@octroi.example", password.trim()).await?;
    let quotas = demo.get("/api/account/quotas").await?.expect(200)?;
    ensure!(quotas["plan"] == "starter", "{quotas}");
    ensure!(octroi.data.join("seeded").exists(), "it is not noted as done");

    let operator = octroi.clients(OPERATOR)?;
    let request = GetSubscriptionRequest {
        account_id: "demo".to_owned(),
    };
    let answer = operator.billing.clone().get_subscription(request).await?;
    let subscription = answer.into_inner().subscription.context("no subscription")?;
    let anchor = subscription.anchor_time.context("no anchor")?;
    let mut expected: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for event in seed::usage_events(Timestamp::new(anchor.seconds, anchor.nanos)?) {
        let (events, amount) = expected.entry(event.metric).or_default();
        *events += 1;
        *amount += event.amount.unsigned_abs();
    }
    ensure!(expected.len() == 5, "{expected:?}");
    eventually("the sums have caught up", async || {
        for (metric, (events, amount)) in &expected {
            let total = ledger_total(&operator, "demo", metric).await?;
            ensure!(
                (total.events, total.direct_amount, total.rollup_amount) == (*events, *amount, *amount),
                "{events} events of {amount}: {total:?}"
            );
        }
        Ok(())
    })
    .await
}
