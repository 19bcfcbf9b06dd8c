//! `/api/account/api-keys`.

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
    http::StatusCode,
};
use jiff::Timestamp;
use octroi_proto::{
    account::v1::{self as account, CreateApiKeyRequest, ListApiKeysRequest, RevokeApiKeyRequest},
    errors::v1::ErrorReason,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access::Caller,
    body::Body,
    convert::{cursor, optional_time, part, time},
    edge::Edge,
    problem::{Problem, SAME_NAMES},
    query::{PAGE_NAMES, Query},
};

/// A key without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct ApiKey {
    key_id: String,
    /// What people call it.
    label: String,
    /// The first characters of the secret, to tell keys apart.
    prefix: String,
    /// What it may be used for.
    scopes: Vec<String>,
    create_time: Timestamp,
    /// When it was revoked; null while it works.
    revoke_time: Option<Timestamp>,
}

/// A page of keys, newest first; revoked ones are among them.
#[derive(Serialize, ToSchema)]
pub(crate) struct ApiKeys {
    api_keys: Vec<ApiKey>,
    /// Where to go on; null at the end.
    next_cursor: Option<String>,
}

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewApiKey {
    /// What people call it: 1 to 100 characters.
    label: String,
    /// At least one of `quota.check`, `usage.write`, `usage.read`.
    #[schema(min_items = 1)]
    scopes: Vec<String>,
}

/// The key, with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedApiKey {
    api_key: ApiKey,
    /// Shown once and never again.
    secret: String,
}

fn to_json_api_key(key: account::ApiKey) -> Result<ApiKey, Problem> {
    Ok(ApiKey {
        key_id: key.key_id,
        label: key.label,
        prefix: key.prefix,
        scopes: key.scopes,
        create_time: time(key.create_time.as_ref())?,
        revoke_time: optional_time(key.revoke_time.as_ref())?,
    })
}

/// The account's API keys, newest first.
#[utoipa::path(
    get, path = "/api/account/api-keys", operation_id = "listApiKeys", tag = "account",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, description = "How many; absent means 50, above 100 counts as 100."),
        ("cursor" = Option<String>, Query, description = "Where to go on, from the page before.")
    ),
    responses((status = 200, description = "A page.", body = ApiKeys))
)]
pub(crate) async fn api_keys(
    State(edge): State<Edge>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<ApiKeys>, Problem> {
    let (page_size, page_token) = query.page();
    query.finish()?;
    let request = ListApiKeysRequest {
        account_id: caller.account_id(),
        page_size,
        page_token,
    };
    let answer = edge
        .account()
        .list_api_keys(caller.request(request))
        .await
        .map_err(|status| Problem::of("account", &status, PAGE_NAMES))?
        .into_inner();
    let api_keys = answer
        .api_keys
        .into_iter()
        .map(to_json_api_key)
        .collect::<Result<_, _>>()?;
    Ok(Json(ApiKeys {
        api_keys,
        next_cursor: cursor(answer.next_page_token),
    }))
}

/// Make an API key. Its secret is shown once.
#[utoipa::path(
    post, path = "/api/account/api-keys", operation_id = "createApiKey", tag = "account",
    request_body = NewApiKey,
    responses((status = 201, description = "The key.", body = CreatedApiKey))
)]
pub(crate) async fn create_api_key(
    State(edge): State<Edge>,
    caller: Caller,
    Body(body): Body<NewApiKey>,
) -> Result<(StatusCode, Json<CreatedApiKey>), Problem> {
    let request = CreateApiKeyRequest {
        account_id: caller.account_id(),
        label: body.label,
        scopes: body.scopes,
        member_id: caller.actor.clone(),
    };
    let answer = edge
        .account()
        .create_api_key(caller.request(request))
        .await
        .map_err(|status| Problem::of("account", &status, SAME_NAMES))?
        .into_inner();
    let api_key = to_json_api_key(part(answer.api_key, "an API key")?)?;
    Ok((
        StatusCode::CREATED,
        Json(CreatedApiKey {
            api_key,
            secret: answer.secret,
        }),
    ))
}

/// End an API key at once. Doing it again is no error.
#[utoipa::path(
    delete, path = "/api/account/api-keys/{key_id}", operation_id = "revokeApiKey", tag = "account",
    params(("key_id" = String, Path, description = "The key's id.")),
    responses((status = 200, description = "The key has ended.", body = ApiKey))
)]
pub(crate) async fn revoke_api_key(
    State(edge): State<Edge>,
    caller: Caller,
    key_id: Result<Path<String>, PathRejection>,
) -> Result<Json<ApiKey>, Problem> {
    let not_found = || Problem::new(ErrorReason::ApiKeyNotFound, "the account has no such API key");
    let Ok(Path(key_id)) = key_id else {
        return Err(not_found());
    };
    let request = RevokeApiKeyRequest {
        account_id: caller.account_id(),
        key_id,
        member_id: caller.actor.clone(),
    };
    let answer = edge
        .account()
        .revoke_api_key(caller.request(request))
        .await
        .map_err(|status| {
            let problem = Problem::of("account", &status, SAME_NAMES);
            // An id that cannot be one is, for a path, an id that does not exist.
            if problem.reason() == ErrorReason::FieldInvalid.name() {
                not_found()
            } else {
                problem
            }
        })?;
    to_json_api_key(part(answer.into_inner().api_key, "an API key")?).map(Json)
}
