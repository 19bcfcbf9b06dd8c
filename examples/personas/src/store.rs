//! Personas in PostgreSQL, in a schema of their own.

use std::str::FromStr as _;

use anyhow::Context as _;
use futures::{StreamExt as _, stream::BoxStream};
use serde::Serialize;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use time::OffsetDateTime;
use uuid::Uuid;

static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();

/// Somebody who was made up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Persona {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// What it was made of.
    pub template: String,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// Connects, and makes the schema what this program expects.
///
/// # Errors
/// Where the database cannot be reached or changed.
pub async fn connect(url: &str) -> anyhow::Result<PgPool> {
    let options = PgConnectOptions::from_str(url)?.options([("search_path", "personas")]);
    let pool = PgPoolOptions::new()
        .max_connections(8)
        .connect_with(options)
        .await?;
    sqlx::query("CREATE SCHEMA IF NOT EXISTS personas")
        .execute(&pool)
        .await?;
    MIGRATOR
        .run(&pool)
        .await
        .context("the schema cannot be changed")?;
    Ok(pool)
}

/// Makes a persona, which is not counted yet.
///
/// # Errors
/// [`sqlx::Error`].
pub async fn insert_persona(
    pool: &PgPool,
    id: Uuid,
    account: &str,
    name: &str,
    template: &str,
) -> Result<Persona, sqlx::Error> {
    sqlx::query_as(
        "INSERT INTO persona (id, account_id, name, template, counted) VALUES ($1, $2, $3, $4, false)
         RETURNING id, name, template, created_at",
    )
    .bind(id)
    .bind(account)
    .bind(name)
    .bind(template)
    .fetch_one(pool)
    .await
}

/// The personas of an account, the oldest first.
pub fn list_personas<'p>(pool: &'p PgPool, account: &'p str) -> BoxStream<'p, Result<Persona, sqlx::Error>> {
    sqlx::query_as(
        "SELECT id, name, template, created_at FROM persona WHERE account_id = $1 ORDER BY created_at, id",
    )
    .bind(account)
    .fetch(pool)
    .boxed()
}

/// One persona of an account.
///
/// # Errors
/// [`sqlx::Error`].
pub async fn find_persona(pool: &PgPool, account: &str, id: Uuid) -> Result<Option<Persona>, sqlx::Error> {
    sqlx::query_as("SELECT id, name, template, created_at FROM persona WHERE account_id = $1 AND id = $2")
        .bind(account)
        .bind(id)
        .fetch_optional(pool)
        .await
}

/// Deletes a persona and writes down that its place is to be given back, both or neither. None where there was none.
///
/// # Errors
/// [`sqlx::Error`].
pub async fn delete_persona(pool: &PgPool, account: &str, id: Uuid) -> Result<Option<Place>, sqlx::Error> {
    sqlx::query_as(
        "WITH gone AS (DELETE FROM persona WHERE account_id = $1 AND id = $2 RETURNING id, account_id, counted, created_at)
         INSERT INTO place_to_return (persona_id, account_id, counted, created_at)
         SELECT id, account_id, counted, created_at FROM gone
         RETURNING persona_id, account_id, created_at, counted, refusals",
    )
    .bind(account)
    .bind(id)
    .fetch_optional(pool)
    .await
}

/// The place of a persona.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Place {
    /// The persona that has it, or had it.
    pub persona_id: Uuid,
    /// Whose it is.
    pub account_id: String,
    /// When it was taken.
    pub created_at: OffsetDateTime,
    /// Whether Octroi knows that it was taken.
    pub counted: bool,
    /// How often giving it back was refused for good.
    pub refusals: i32,
}

/// Places of personas that are not counted although they were made a while ago.
///
/// # Errors
/// [`sqlx::Error`].
pub async fn list_uncounted(pool: &PgPool, max: i64) -> Result<Vec<Place>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id AS persona_id, account_id, created_at, counted, 0 AS refusals FROM persona
         WHERE NOT counted AND created_at < now() - interval '10 seconds' ORDER BY created_at LIMIT $1",
    )
    .bind(max)
    .fetch_all(pool)
    .await
}

/// Notes that Octroi knows of a persona, whether it is still there or deleted by now.
///
/// # Errors
/// [`sqlx::Error`].
pub async fn set_counted(pool: &PgPool, persona: Uuid) -> Result<(), sqlx::Error> {
    for statement in [
        "UPDATE persona SET counted = true WHERE id = $1",
        "UPDATE place_to_return SET counted = true WHERE persona_id = $1",
    ] {
        sqlx::query(statement).bind(persona).execute(pool).await?;
    }
    Ok(())
}

/// Places that are to be given back, those first that were refused least often.
///
/// # Errors
/// [`sqlx::Error`].
pub async fn list_places_to_return(pool: &PgPool, max: i64) -> Result<Vec<Place>, sqlx::Error> {
    sqlx::query_as(
        "SELECT persona_id, account_id, created_at, counted, refusals FROM place_to_return ORDER BY refusals, persona_id LIMIT $1",
    )
    .bind(max)
    .fetch_all(pool)
    .await
}

/// Notes that giving a place back was refused.
///
/// # Errors
/// [`sqlx::Error`].
pub async fn count_refusal(pool: &PgPool, persona: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE place_to_return SET refusals = refusals + 1 WHERE persona_id = $1")
        .bind(persona)
        .execute(pool)
        .await?;
    Ok(())
}

/// Notes that a place was given back.
///
/// # Errors
/// [`sqlx::Error`].
pub async fn delete_place_to_return(pool: &PgPool, persona: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM place_to_return WHERE persona_id = $1")
        .bind(persona)
        .execute(pool)
        .await?;
    Ok(())
}
