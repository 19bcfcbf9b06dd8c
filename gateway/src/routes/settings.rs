//! `/api/account/settings`.

use axum::{Json, extract::State};
use octroi_proto::account::v1::{GetAccountRequest, UpdateAccountRequest};
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::Account;
use crate::{
    access::Caller,
    body::{Body, given},
    convert::{Language, part},
    edge::Edge,
    problem::{Problem, SAME_NAMES},
};

/// What is to be changed; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsChange {
    /// The name people read: up to 200 characters.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    display_name: Option<String>,
    /// The IANA zone of hours and days; a change applies at once and moves the borders of running windows.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    zone: Option<String>,
    /// The language in which people are written to.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    language: Option<Language>,
}

/// The account's settings.
#[utoipa::path(
    get, path = "/api/account/settings", operation_id = "getSettings", tag = "account",
    responses((status = 200, description = "The settings.", body = Account))
)]
pub(crate) async fn settings(State(edge): State<Edge>, caller: Caller) -> Result<Json<Account>, Problem> {
    let request = caller.request(GetAccountRequest {
        account_id: caller.account_id(),
    });
    let answer = edge
        .account()
        .get_account(request)
        .await
        .map_err(|status| Problem::of("account", &status, SAME_NAMES))?;
    Account::from_proto(part(answer.into_inner().account, "an account")?).map(Json)
}

/// Change the account's settings.
#[utoipa::path(
    patch, path = "/api/account/settings", operation_id = "updateSettings", tag = "account",
    request_body = SettingsChange,
    responses((status = 200, description = "The settings as they are now.", body = Account))
)]
pub(crate) async fn update_settings(
    State(edge): State<Edge>,
    caller: Caller,
    Body(body): Body<SettingsChange>,
) -> Result<Json<Account>, Problem> {
    let request = caller.request(UpdateAccountRequest {
        account_id: caller.account_id(),
        display_name: body.display_name,
        zone: body.zone,
        language: body.language.map(Language::to_proto),
    });
    let answer = edge
        .account()
        .update_account(request)
        .await
        .map_err(|status| Problem::of("account", &status, SAME_NAMES))?;
    Account::from_proto(part(answer.into_inner().account, "an account")?).map(Json)
}
