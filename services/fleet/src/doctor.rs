//! `octroi doctor`: looks for what is wrong with a fleet's databases and changes nothing.

use std::{collections::BTreeSet, process::ExitCode};

use octroi_kit::{
    config::Loader,
    db::{self, Db, Scope},
};
use sqlx::AssertSqlSafe;

use crate::{all, cli::Service, config, migrate, output};

/// An event that waits longer than this is stuck.
const OUTBOX_AGE_S_MAX: f64 = 60.0;

/// How long one table may be looked through; a ledger is large.
const LOOK_MAX: &str = "SET LOCAL statement_timeout = '5min'";

/// Every table of the service's schema that keeps ids of accounts, and whether an index has them in order.
/// Asked of the database, so that no table is forgotten.
const ACCOUNT_TABLES: &str = "
    SELECT c.relname::text, EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum AND i.indpred IS NULL)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'account_id'
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    ORDER BY 1";

/// Prints what it finds; the exit code is 1 where anything is wrong.
///
/// # Errors
/// Where a database cannot be asked at all.
pub async fn execute(loader: &Loader) -> anyhow::Result<ExitCode> {
    config::validate(loader)?;
    let loader = &all::addressed(loader)?;
    let (mut findings, mut named, mut accounts) = (Vec::new(), Vec::new(), None);
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
        if service == Service::Account {
            accounts = Some(db);
        } else {
            named.extend(accounts_by_table(&db, service).await?);
        }
    }
    // Asked last: an account is there before anybody names it, also while the fleet works.
    match accounts {
        Some(db) => findings.extend(orphans(&named, &accounts_of(&db, "account", true).await?)),
        None => {
            findings.push("whether all accounts exist is not known without the account service".to_owned())
        }
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
    let stuck: i64 =
        sqlx::query_scalar("SELECT count(*) FROM outbox WHERE occurred_at < $1 - make_interval(secs => $2)")
            .bind(db::to_sql(db.clock().now()))
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
        findings.push(format!(
            "{}: {dead} dead letters; see `octroi dead-letters list`",
            service.name()
        ));
    }
    Ok(findings)
}

/// The accounts that a table of a service names.
struct Named {
    service: Service,
    table: String,
    accounts: BTreeSet<String>,
}

async fn accounts_by_table(db: &Db, service: Service) -> anyhow::Result<Vec<Named>> {
    let tables: Vec<(String, bool)> = sqlx::query_as(ACCOUNT_TABLES).fetch_all(db.pool()).await?;
    let mut named = Vec::new();
    for (table, in_order) in tables {
        let accounts = accounts_of(db, &table, in_order).await?;
        named.push(Named {
            service,
            table,
            accounts,
        });
    }
    Ok(named)
}

/// Accounts that the account service does not have. There are no foreign keys between services, so this is
/// what finds an id that leads nowhere.
fn orphans(named: &[Named], known: &BTreeSet<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for Named {
        service,
        table,
        accounts,
    } in named
    {
        let mut orphans = accounts.difference(known);
        if let Some(first) = orphans.next() {
            findings.push(format!(
                "{}: {} accounts of {table} are not known to the account service, such as {first}",
                service.name(),
                1 + orphans.count()
            ));
        }
    }
    findings
}

/// The accounts that a table names. Where an index has them in order, each is one step however many rows it
/// has; otherwise the whole table is read.
async fn accounts_of(db: &Db, table: &str, in_order: bool) -> Result<BTreeSet<String>, db::DatabaseError> {
    let statement = if in_order {
        format!(
            "WITH RECURSIVE step AS (
                (SELECT account_id FROM \"{table}\" ORDER BY account_id LIMIT 1)
                UNION ALL
                SELECT (SELECT next.account_id FROM \"{table}\" next WHERE next.account_id > step.account_id
                        ORDER BY next.account_id LIMIT 1)
                FROM step WHERE step.account_id IS NOT NULL)
             SELECT account_id FROM step WHERE account_id IS NOT NULL"
        )
    } else {
        format!("SELECT DISTINCT account_id FROM \"{table}\" WHERE account_id IS NOT NULL")
    };
    db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            sqlx::query(LOOK_MAX).execute(&mut *connection).await?;
            // The table's name comes from PostgreSQL's own list.
            let ids: Vec<String> = sqlx::query_scalar(AssertSqlSafe(statement))
                .fetch_all(connection)
                .await?;
            Ok::<_, db::DatabaseError>(ids.into_iter().collect())
        })
    })
    .await
}
