//! PostgreSQL: a database of its own for each test, copied from a template that was migrated once.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use octroi_fleet::postgres::{prepare, service_url};
use sha2::{Digest, Sha256};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::{Backend, unique};

/// Every service that has a schema.
pub const SERVICES: [&str; 5] = ["account", "quota", "usage", "billing", "notification"];

/// What the passwords of the services' roles derive from: the same in every process, since roles
/// belong to the whole server.
const SECRET: &[u8] = b"the tests of octroi";

/// Serialises the making of templates on one server. The number is arbitrary.
const TEMPLATE_LOCK: i64 = 0x7465_6d70_6c61;

/// The PostgreSQL of this test run.
#[derive(Clone, Debug)]
pub struct Postgres {
    backend: Backend,
}

/// What a test's database begins as.
#[derive(Clone, Debug)]
pub struct Template {
    name: String,
    services: Vec<&'static str>,
}

impl Template {
    /// A template for `services`, made anew when `version` differs from what it was made with.
    #[must_use]
    pub fn new(services: &[&'static str], version: &[u8]) -> Self {
        let mut digest = Sha256::new();
        for service in services {
            digest.update(service);
            digest.update([0]);
        }
        let digest = hex::encode(digest.chain_update(version).finalize());
        let name = format!("octroi_template_{}", digest.get(..16).unwrap_or_default());
        Self {
            name,
            services: services.to_vec(),
        }
    }

    /// A template that changes with the migrations it is made of.
    #[must_use]
    pub fn of_migrations(migrators: &[(&'static str, &Migrator)]) -> Self {
        let services: Vec<&'static str> = migrators.iter().map(|(service, _)| *service).collect();
        let mut version = Vec::new();
        for migration in migrators.iter().flat_map(|(_, migrator)| migrator.iter()) {
            version.extend_from_slice(&migration.version.to_be_bytes());
            version.extend_from_slice(&migration.checksum);
        }
        Self::new(&services, &version)
    }
}

impl Postgres {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }

    /// The superuser's URL, at the maintenance database.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.backend.url
    }

    /// A database for one test. `migrate` is given a URL a service and runs only when the template is
    /// not there yet.
    ///
    /// # Errors
    /// When `migrate` fails or the server refuses.
    pub async fn create_database<M>(
        &self,
        template: &Template,
        migrate: impl FnOnce(HashMap<String, String>) -> M,
    ) -> Result<TestDatabase>
    where
        M: Future<Output = Result<()>>,
    {
        let mut session = connect(&self.backend.url).await?;
        self.ensure_template(&mut session, template, migrate).await?;
        let name = unique("octroi_test_");
        execute(
            &mut session,
            format!(r#"CREATE DATABASE "{name}" TEMPLATE "{}""#, template.name),
        )
        .await?;
        // Who may connect belongs to a database and is not copied with it.
        let mut grants = format!(r#"REVOKE ALL ON DATABASE "{name}" FROM PUBLIC;"#);
        for service in &template.services {
            write!(
                grants,
                r#"GRANT CONNECT, TEMPORARY ON DATABASE "{name}" TO "octroi_{service}";"#
            )?;
        }
        execute(&mut session, grants).await?;
        session.close().await?;
        TestDatabase::new(&self.backend.url, name, &template.services)
    }

    /// A database for one test with the migrations of these services.
    ///
    /// # Errors
    /// When a migration fails or the server refuses.
    pub async fn create_migrated(&self, migrators: &[(&'static str, &Migrator)]) -> Result<TestDatabase> {
        let template = Template::of_migrations(migrators);
        self.create_database(
            &template,
            |urls| async move { migrate_all(migrators, &urls).await },
        )
        .await
    }

    /// Makes the template once a server: it appears under its name only when it is whole.
    async fn ensure_template<M>(
        &self,
        session: &mut PgConnection,
        template: &Template,
        migrate: impl FnOnce(HashMap<String, String>) -> M,
    ) -> Result<()>
    where
        M: Future<Output = Result<()>>,
    {
        if exists(session, &template.name).await? {
            return Ok(());
        }
        sqlx::query("SELECT pg_advisory_lock($1)")
            .bind(TEMPLATE_LOCK)
            .execute(&mut *session)
            .await?;
        if !exists(session, &template.name).await? {
            let building = format!("{}_new", template.name);
            execute(
                session,
                format!(r#"DROP DATABASE IF EXISTS "{building}" WITH (FORCE)"#),
            )
            .await?;
            let urls = prepare(&self.backend.url, &building, &template.services, SECRET).await?;
            migrate(urls)
                .await
                .context("the template of the tests' databases")?;
            // A pool that `migrate` left open would keep the database from being copied.
            let end = format!(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{building}'"
            );
            execute(session, end).await?;
            execute(
                session,
                format!(r#"ALTER DATABASE "{building}" RENAME TO "{}""#, template.name),
            )
            .await?;
        }
        sqlx::query("SELECT pg_advisory_unlock($1)")
            .bind(TEMPLATE_LOCK)
            .execute(&mut *session)
            .await?;
        Ok(())
    }
}

async fn migrate_all(migrators: &[(&'static str, &Migrator)], urls: &HashMap<String, String>) -> Result<()> {
    for (service, migrator) in migrators {
        let url = urls.get(*service).context("a service without a URL")?;
        let mut session = connect(url).await?;
        let migrating = migrator.run_direct(None, &mut session, false).await;
        migrating.with_context(|| format!("the migrations of {service}"))?;
        session.close().await?;
    }
    Ok(())
}

/// A database that only one test uses. It is dropped with this value.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    maintenance_url: String,
    superuser_url: String,
    urls: HashMap<String, String>,
}

impl TestDatabase {
    fn new(maintenance_url: &str, name: String, services: &[&'static str]) -> Result<Self> {
        let mut urls = HashMap::new();
        for service in services {
            urls.insert(
                (*service).to_owned(),
                service_url(maintenance_url, &name, service, SECRET)?,
            );
        }
        let superuser_url = PgConnectOptions::from_str(maintenance_url)?
            .database(&name)
            .to_url_lossy()
            .to_string();
        Ok(Self {
            name,
            maintenance_url: maintenance_url.to_owned(),
            superuser_url,
            urls,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL for a service, as that service's own role.
    ///
    /// # Panics
    /// When the template has no such service, which is a mistake of the test.
    #[must_use]
    pub fn url(&self, service: &str) -> &str {
        match self.urls.get(service) {
            Some(url) => url,
            None => panic!("the template of this database has no service {service}"),
        }
    }

    /// Its URL for a service by the service's name.
    #[must_use]
    pub fn urls(&self) -> &HashMap<String, String> {
        &self.urls
    }

    /// Its URL as the superuser, who sees every schema.
    #[must_use]
    pub fn superuser_url(&self) -> &str {
        &self.superuser_url
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let url = self.maintenance_url.clone();
        let name = self.name.clone();
        // On a thread and a runtime of its own, as the test's may be on its way out. What fails here
        // ends with the server, or lies on a server that was given and says what it is by its name.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .ok()?;
            let dropped =
                async { tokio::time::timeout(Duration::from_secs(10), drop_database(&url, &name)).await };
            runtime.block_on(dropped).ok()?.ok()
        });
        drop(dropping.join());
    }
}

async fn drop_database(url: &str, name: &str) -> Result<()> {
    let mut session = connect(url).await?;
    execute(
        &mut session,
        format!(r#"DROP DATABASE IF EXISTS "{name}" WITH (FORCE)"#),
    )
    .await?;
    session.close().await?;
    Ok(())
}

/// Whether a PostgreSQL lets us in there.
pub(super) async fn check(url: &str) -> Result<()> {
    connect(url).await?.close().await?;
    Ok(())
}

async fn connect(url: &str) -> Result<PgConnection> {
    let connecting = PgConnection::connect(url);
    Ok(tokio::time::timeout(Duration::from_secs(10), connecting).await??)
}

async fn exists(session: &mut PgConnection, database: &str) -> Result<bool> {
    let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(database)
        .fetch_optional(session)
        .await?;
    Ok(found.is_some())
}

/// Runs a statement whose names come from this file or the services' own.
async fn execute(session: &mut PgConnection, sql: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(session).await?;
    Ok(())
}
