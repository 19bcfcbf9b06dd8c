//! `octroi doctor`: looks for what is wrong with a fleet's databases and changes nothing.

use std::{collections::BTreeSet, process::ExitCode};

use octroi_kit::{
    config::Loader,
    db::{self, Db, Scope},
};

use crate::{cli::Service, config, migrate, output};

/// An event that waits longer than this is stuck.
const OUTBOX_AGE_S_MAX: f64 = 60.0;

/// Where ids of accounts are kept outside of the account service; there are no foreign keys between
/// services, so this is what finds an id that leads nowhere.
const ACCOUNT_COLUMNS: [(Service, &str); 4] = [
    (Service::Quota, "SELECT account_id FROM entitlement"),
    (Service::Usage, "SELECT DISTINCT account_id FROM rollup_day"),
    (Service::Billing, "SELECT DISTINCT account_id FROM subscription"),
    (Service::Notification, "SELECT DISTINCT account_id FROM notice"),
];

/// Prints what it finds; the exit code is 1 where anything is wrong.
///
/// # Errors
/// Where a database cannot be asked at all.
pub async fn execute(loader: &Loader) -> anyhow::Result<ExitCode> {
    config::validate(loader)?;
    let mut findings = Vec::new();
    for service in Service::WITH_DATABASE {
        let (db, migrator) = migrate::schema(loader, service).await?;
        let pending = db::pending_migrations(&db, migrator).await?;
        if !pending.is_empty() {
            findings.push(format!(
                "{}: migrations {pending:?} are missing; run `octroi migrate up`",
                service.name()
            ));
            continue;
        }
        findings.extend(queues(&db, service).await?);
    }
    if findings.is_empty() {
        findings.extend(orphans(loader).await?);
    }
    for finding in &findings {
        output::say(finding);
    }
    if findings.is_empty() {
        output::say("nothing is wrong");
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

async fn queues(db: &Db, service: Service) -> anyhow::Result<Vec<String>> {
    let mut findings = Vec::new();
    let stuck: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM outbox WHERE occurred_at < clock_timestamp() - make_interval(secs => $1)",
    )
    .bind(OUTBOX_AGE_S_MAX)
    .fetch_one(db.pool())
    .await?;
    if stuck > 0 {
        findings.push(format!(
            "{}: {stuck} events wait in the outbox for more than a minute",
            service.name()
        ));
    }
    let dead: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_letter")
        .fetch_one(db.pool())
        .await?;
    if dead > 0 {
        findings.push(format!("{}: {dead} dead letters", service.name()));
    }
    Ok(findings)
}

async fn orphans(loader: &Loader) -> anyhow::Result<Vec<String>> {
    let (account, _) = migrate::schema(loader, Service::Account).await?;
    let known: BTreeSet<String> = account_ids(&account, "SELECT account_id FROM account")
        .await?
        .into_iter()
        .collect();
    let mut findings = Vec::new();
    for (service, statement) in ACCOUNT_COLUMNS {
        let (db, _) = migrate::schema(loader, service).await?;
        let orphans = account_ids(&db, statement)
            .await?
            .into_iter()
            .filter(|id| !known.contains(id))
            .count();
        if orphans > 0 {
            findings.push(format!(
                "{}: {orphans} accounts that the account service does not have",
                service.name()
            ));
        }
    }
    Ok(findings)
}

async fn account_ids(db: &Db, statement: &'static str) -> Result<Vec<String>, db::DatabaseError> {
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move { Ok(sqlx::query_scalar(statement).fetch_all(connection).await?) })
    })
    .await
}
