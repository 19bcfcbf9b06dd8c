//! Premium templates: personas that are made of something.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::StatusCode,
};

use crate::{
    Account, App, NewId,
    personas::{self, NewPersona},
    problem::{self, Problem},
    store::Persona,
};

const TEMPLATES: [&str; 3] = ["early-adopter", "night-owl", "power-user"];

/// Makes a persona of a template.
pub(crate) async fn create(
    State(app): State<App>,
    Extension(id): Extension<NewId>,
    account: Account,
    Path(template): Path<String>,
    Json(new): Json<NewPersona>,
) -> Result<(StatusCode, Json<Persona>), Problem> {
    if !TEMPLATES.contains(&template.as_str()) {
        return Err(problem::no_template());
    }
    personas::insert(&app, id, &account, &new, &template).await
}
