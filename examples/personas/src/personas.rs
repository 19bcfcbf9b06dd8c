//! Personas: made, listed, read, deleted.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};
use futures::TryStreamExt as _;
use serde::Deserialize;
use uuid::Uuid;

use crate::{
    Account, App, NewId, places,
    problem::{self, Problem},
    store::{self, Persona},
};

/// What a persona is made of.
#[derive(Debug, Deserialize)]
pub(crate) struct NewPersona {
    name: String,
}

/// Makes a persona of nothing.
pub(crate) async fn create(
    State(app): State<App>,
    Extension(id): Extension<NewId>,
    account: Account,
    Json(new): Json<NewPersona>,
) -> Result<(StatusCode, Json<Persona>), Problem> {
    insert(&app, id, &account, &new, "blank").await
}

pub(crate) async fn insert(
    app: &App,
    id: NewId,
    account: &Account,
    new: &NewPersona,
    template: &str,
) -> Result<(StatusCode, Json<Persona>), Problem> {
    if !(1..=200).contains(&new.name.chars().count()) || new.name.contains('\0') {
        return Err(problem::name_missing());
    }
    let persona = store::insert_persona(&app.database, id.0, &account.0, &new.name, template).await?;
    Ok((StatusCode::CREATED, Json(persona)))
}

/// All of them.
pub(crate) async fn list(State(app): State<App>, account: Account) -> Result<Json<Vec<Persona>>, Problem> {
    let personas = store::list_personas(&app.database, &account.0)
        .try_collect()
        .await?;
    Ok(Json(personas))
}

/// One of them.
pub(crate) async fn read(
    State(app): State<App>,
    account: Account,
    Path(id): Path<Uuid>,
) -> Result<Json<Persona>, Problem> {
    let persona = store::find_persona(&app.database, &account.0, id).await?;
    persona.map(Json).ok_or_else(problem::no_persona)
}

/// Deletes one, and gives its place back.
pub(crate) async fn delete(
    State(app): State<App>,
    account: Account,
    Path(id): Path<Uuid>,
) -> Result<StatusCode, Problem> {
    let deleted = store::delete_persona(&app.database, &account.0, id).await?;
    let place = deleted.ok_or_else(problem::no_persona)?;
    // With the answer where Octroi answers, and later where it does not.
    places::return_one(&app, &place).await;
    Ok(StatusCode::NO_CONTENT)
}
