//! The routes, one file a group.

mod anomalies;
mod api_keys;
mod auth;
mod billing;
mod check;
mod decisions;
mod forecast;
mod notifications;
mod quotas;
mod settings;
mod usage;
mod usage_events;
mod usage_report;
mod usage_reports;

use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware::from_fn_with_state,
    response::IntoResponse,
};
use bytes::Bytes;
use octroi_proto::errors::v1::ErrorReason;
use utoipa::openapi::OpenApi;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use crate::{access, body, edge::Edge, layers, openapi, page, problem::Problem};

fn all() -> OpenApiRouter<Edge> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(page::home))
        .routes(routes!(page::error_page))
        .routes(routes!(openapi::openapi))
        .routes(routes!(auth::sign_up))
        .routes(routes!(auth::sign_in))
        .routes(routes!(auth::sign_out))
        .routes(routes!(auth::session))
        .routes(routes!(settings::settings, settings::update_settings))
        .routes(routes!(usage::usage))
        .routes(routes!(usage_events::list_usage_events))
        .routes(routes!(usage_report::usage_report))
        .routes(routes!(
            usage_reports::usage_reports,
            usage_reports::create_usage_report
        ))
        .routes(routes!(
            usage_reports::usage_report_job,
            usage_reports::cancel_usage_report
        ))
        .routes(routes!(usage_reports::download_usage_report))
        .routes(routes!(usage_events::track_usage).layer(DefaultBodyLimit::max(body::EVENTS_BYTES_MAX)))
        .routes(routes!(anomalies::list_anomalies))
        .routes(routes!(forecast::forecast))
        .routes(routes!(quotas::quotas))
        .routes(routes!(decisions::explain_decision))
        .routes(routes!(notifications::notifications))
        .routes(routes!(notifications::mark_notifications_read))
        .routes(routes!(api_keys::api_keys, api_keys::create_api_key))
        .routes(routes!(api_keys::revoke_api_key))
        .routes(routes!(billing::plans))
        .routes(routes!(billing::subscription))
        .routes(routes!(check::check_quota))
}

/// The OpenAPI document of all routes.
pub(crate) fn document() -> OpenApi {
    openapi::complete(all().into_openapi())
}

/// Every route, behind every layer.
pub(crate) fn router(edge: &Edge) -> Router {
    let document = Bytes::from(openapi::to_json(&document()));
    let (routes, _) = all().split_for_parts();
    let routes = routes
        .layer(Extension(openapi::Written(document)))
        // The one place that decides who may use a route.
        .route_layer(from_fn_with_state(edge.clone(), access::layer))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(edge.clone());
    layers::stack(routes, edge.config().over_tls())
}

async fn no_route(uri: Uri) -> impl IntoResponse {
    // The path is not repeated: it is whatever somebody typed.
    let kind = if uri.path().starts_with("/api/") {
        "API route"
    } else {
        "page"
    };
    Problem::new(ErrorReason::RouteNotFound, format!("there is no such {kind}"))
}

async fn no_method(method: Method) -> impl IntoResponse {
    Problem::new(
        ErrorReason::MethodNotAllowed,
        format!("the route does not serve {method}"),
    )
}
