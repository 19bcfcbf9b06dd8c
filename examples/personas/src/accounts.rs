//! Signing up: whoever is a customer here is an account there.

use axum::{Json, extract::State, http::StatusCode};
use octroi_client::proto::account::v1::UpsertAccountRequest;
use serde::Deserialize;

use crate::{
    App,
    problem::{self, Problem},
};

/// A customer.
#[derive(Debug, Deserialize)]
pub(crate) struct NewAccount {
    id: String,
}

/// Makes an account under an id of ours; again changes nothing.
pub(crate) async fn create(
    State(app): State<App>,
    Json(new): Json<NewAccount>,
) -> Result<StatusCode, Problem> {
    if new.id.is_empty() {
        return Err(problem::account_missing());
    }
    let request = UpsertAccountRequest {
        account_id: new.id,
        ..UpsertAccountRequest::default()
    };
    app.client.account().upsert_account(request).await?;
    Ok(StatusCode::CREATED)
}
