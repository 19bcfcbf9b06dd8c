//! Pages for people: what runs here, and what each error means.

use axum::{
    extract::{Path, rejection::PathRejection},
    http::{HeaderName, HeaderValue, header},
    response::{Html, IntoResponse, Response},
};
use octroi_proto::errors::v1::ErrorReason;
use rand::RngCore as _;

use crate::{problem::Problem, reason};

const HOME: &str = include_str!("home.html");

/// What runs here.
#[utoipa::path(
    get, path = "/", operation_id = "getHome", tag = "about",
    responses((status = 200, description = "A page.", body = String, content_type = "text/html"))
)]
pub(crate) async fn home() -> Response {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    let nonce = hex::encode(bytes);
    let page = HOME
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{nonce}", &nonce);
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut response = Html(page).into_response();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

const LANGUAGE: HeaderName = header::CONTENT_LANGUAGE;

/// What an error reason means, in Markdown: the page that a problem's `type` leads to.
#[utoipa::path(
    get, path = "/errors/{page}", operation_id = "getErrorPage", tag = "about",
    params(("page" = String, Path, description = "The reason in lower case with hyphens, such as `quota-exceeded`.")),
    responses((status = 200, description = "The page.", body = String, content_type = "text/plain"))
)]
pub(crate) async fn error_page(page: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    let found = page.ok().and_then(|Path(page)| {
        reason::ALL
            .iter()
            .map(|reason| reason::entry(*reason))
            .find(|entry| entry.page.strip_prefix("/errors/") == Some(&page))
    });
    let entry = found.ok_or_else(|| Problem::new(ErrorReason::RouteNotFound, "there is no such reason"))?;
    Ok((
        [
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (LANGUAGE, "en"),
        ],
        entry.text,
    )
        .into_response())
}
