//! One database for the fleet, and in it one role and one schema a service.

use std::collections::HashMap;
use std::str::FromStr;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

use super::error::Error;

/// Serialises preparations on one server: two at once would change the same role, which PostgreSQL
/// refuses. The number is arbitrary.
const PREPARE_LOCK: i64 = 0x6f63_7472_6f69;

/// PostgreSQL cuts identifiers at 63 bytes, silently; a role adds its prefix to a service's name.
const NAME_BYTES_MAX: usize = 50;

/// Prepares `database` on the server at `superuser_url`: for each of `services` the role
/// `octroi_<service>`, which owns the schema `<service>`, sees nothing else, and is neither superuser
/// nor above row-level security. Doing it again changes nothing but brings what differs back in line.
///
/// Returns a URL a service. Passwords derive from `secret`, so whoever has it can name the same URLs.
///
/// # Errors
/// When a name cannot be an identifier, or the server refuses.
pub async fn prepare(
    superuser_url: &str,
    database: &str,
    services: &[&str],
    secret: &[u8],
) -> Result<HashMap<String, String>, Error> {
    let maintenance = parse(superuser_url)?;
    let mut urls = HashMap::new();
    for service in services {
        urls.insert(
            (*service).to_owned(),
            service_url(superuser_url, database, service, secret)?,
        );
    }
    let mut session = connect(&maintenance).await?;
    // The lock ends with this session, whichever way we leave.
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(PREPARE_LOCK)
        .execute(&mut session)
        .await
        .map_err(Error::sql("wait for other preparations"))?;
    for service in services {
        prepare_role(&mut session, service, &password(secret, service)).await?;
    }
    create_database(&mut session, database).await?;
    let mut inside = connect(&maintenance.clone().database(database)).await?;
    execute(
        &mut inside,
        "close the database to others",
        database_sql(database, services),
    )
    .await?;
    for service in services {
        execute(&mut inside, "prepare a schema", schema_sql(service)).await?;
    }
    inside.close().await.map_err(Error::sql("end a session"))?;
    session.close().await.map_err(Error::sql("end a session"))?;
    Ok(urls)
}

/// The URL under which `service` reaches `database`, once [`prepare`] has been there with the same
/// `secret`.
///
/// # Errors
/// When the superuser's URL or a name cannot be read.
pub fn service_url(
    superuser_url: &str,
    database: &str,
    service: &str,
    secret: &[u8],
) -> Result<String, Error> {
    check_name(database)?;
    check_name(service)?;
    let options = parse(superuser_url)?
        .username(&role(service))
        .password(&password(secret, service))
        .database(database);
    Ok(options.to_url_lossy().to_string())
}

async fn prepare_role(session: &mut PgConnection, service: &str, password: &str) -> Result<(), Error> {
    let role = role(service);
    let sql = format!(
        r#"
        DO $$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
                CREATE ROLE "{role}";
            END IF;
        END $$;
        ALTER ROLE "{role}" WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
            PASSWORD '{password}';
        ALTER ROLE "{role}" SET search_path = "{service}";
        "#
    );
    execute(session, "prepare a role", sql).await
}

async fn create_database(session: &mut PgConnection, database: &str) -> Result<(), Error> {
    let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
        .bind(database)
        .fetch_optional(&mut *session)
        .await
        .map_err(Error::sql("look for the database"))?;
    match found {
        Some(_) => Ok(()),
        None => {
            execute(
                session,
                "create the database",
                format!(r#"CREATE DATABASE "{database}""#),
            )
            .await
        }
    }
}

fn database_sql(database: &str, services: &[&str]) -> String {
    let mut sql = format!(
        r#"REVOKE ALL ON DATABASE "{database}" FROM PUBLIC;
        REVOKE ALL ON SCHEMA public FROM PUBLIC;"#
    );
    for service in services {
        let role = role(service);
        // Temporary tables are where bulk loads are gathered before they are merged.
        sql.push_str(&format!(
            r#"GRANT CONNECT, TEMPORARY ON DATABASE "{database}" TO "{role}";"#
        ));
    }
    sql
}

fn schema_sql(service: &str) -> String {
    let role = role(service);
    format!(
        r#"CREATE SCHEMA IF NOT EXISTS "{service}" AUTHORIZATION "{role}";
        ALTER SCHEMA "{service}" OWNER TO "{role}";
        REVOKE ALL ON SCHEMA "{service}" FROM PUBLIC;"#
    )
}

async fn execute(session: &mut PgConnection, doing: &'static str, sql: String) -> Result<(), Error> {
    // Every name in it went through `check_name`, every password is hexadecimal.
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(session)
        .await
        .map_err(Error::sql(doing))?;
    Ok(())
}

fn parse(superuser_url: &str) -> Result<PgConnectOptions, Error> {
    PgConnectOptions::from_str(superuser_url).map_err(Error::sql("read the superuser's URL"))
}

/// A session whose statements carry passwords: neither side may log them.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, Error> {
    let options = options.clone().disable_statement_logging().options([
        ("log_statement", "none"),
        ("log_min_duration_statement", "-1"),
        ("log_min_error_statement", "panic"),
        ("client_min_messages", "warning"),
    ]);
    options
        .connect()
        .await
        .map_err(Error::sql("connect as the superuser"))
}

fn role(service: &str) -> String {
    format!("octroi_{service}")
}

fn check_name(name: &str) -> Result<(), Error> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let goes_on_well = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if starts_well && goes_on_well && name.len() <= NAME_BYTES_MAX {
        Ok(())
    } else {
        Err(Error::Name {
            name: name.to_owned(),
        })
    }
}

/// HMAC-SHA256 of the role under the secret, in hexadecimal.
fn password(secret: &[u8], service: &str) -> String {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    hex::encode(mac.chain_update(role(service)).finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hmac_sha256_of_the_role() {
        fn check(secret: &[u8], service: &str, expected: &str) {
            assert_eq!(password(secret, service), expected, "{service}");
        }
        // Computed with another implementation; the second secret is longer than a block.
        check(
            b"a secret",
            "quota",
            "e254201fe477886dd9692baab7442cd800c579076363eb6aa219564f0e8aea25",
        );
        check(
            &[b'k'; 100],
            "usage",
            "36ffdb11e63b1da417a1ed40b5d247dccecbf021646e9a748b850b6a3f07f861",
        );
    }

    #[test]
    fn names_that_are_no_identifiers_are_refused() {
        fn check(name: &str, good: bool) {
            assert_eq!(check_name(name).is_ok(), good, "{name:?}");
        }
        check("octroi", true);
        check("octroi_template_00ff_new", true);
        check("", false);
        check("1st", false);
        check("Octroi", false);
        check("octroi\"; DROP ROLE x; --", false);
        check(&"a".repeat(51), false);
    }
}
