//! The OpenAPI document: what the routes say about themselves, and what the table of access and the layers
//! add to each of them.

use std::collections::BTreeSet;

use axum::{
    Extension,
    http::{Method, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use octroi_proto::errors::v1::ErrorReason;
use utoipa::{
    PartialSchema as _, ToSchema as _,
    openapi::{
        Components, ComponentsBuilder, Content, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
        Required, Response, ResponseBuilder, SecurityRequirement,
        header::HeaderBuilder,
        path::{Operation, ParameterBuilder, ParameterIn, PathItem},
        schema::{ObjectBuilder, SchemaType, Type},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::{
    access::{self, Access},
    convert::{AskedAnomalyKind, Granularity, ReportGranularity},
    problem::{self, Document},
    reason, session,
};

const SESSION: &str = "session";
const KEY: &str = "api_key";

/// The document before any route is added.
pub(crate) fn base() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Octroi")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Quotas, usage and billing over HTTP. Every refusal is problem+json (RFC 9457); its `type` is a page \
             of this server. Lists have cursors. Amounts are integers.",
        ))
        .license(Some(LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0")).build()))
        .build();
    let tags = [
        ("auth", "Signing up, in and out."),
        ("account", "The account of whoever is signed in."),
        ("billing", "Plans and subscriptions."),
        ("programs", "For programs without gRPC, with an API key."),
        ("about", "About this server."),
    ];
    let tags = tags.map(|(name, text)| TagBuilder::new().name(name).description(Some(text)).build());
    OpenApiBuilder::new()
        .info(info)
        .tags(Some(tags))
        .components(Some(components()))
        .build()
}

fn components() -> Components {
    // Parameters refer to their schemas without adding them, and refusals are added further below.
    let mut schemas = vec![
        (Granularity::name().into_owned(), Granularity::schema()),
        (
            ReportGranularity::name().into_owned(),
            ReportGranularity::schema(),
        ),
        (AskedAnomalyKind::name().into_owned(), AskedAnomalyKind::schema()),
    ];
    Document::schemas(&mut schemas);
    let cookie = ApiKey::Cookie(ApiKeyValue::with_description(
        session::COOKIE,
        "Signing in sets it.",
    ));
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key of the account: `oct_…`."))
        .build();
    ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .schema(Document::name(), Document::schema())
        .security_scheme(SESSION, SecurityScheme::ApiKey(cookie))
        .security_scheme(KEY, SecurityScheme::Http(key))
        .build()
}

/// Adds what every route has in common with others: who may use it and how it refuses.
pub(crate) fn complete(mut document: OpenApi) -> OpenApi {
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            if let Some(access) = access::access(&method, path) {
                complete_operation(operation, &method, path, access);
            }
        }
    }
    document
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::PATCH, &mut item.patch),
        (Method::PUT, &mut item.put),
        (Method::DELETE, &mut item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

fn complete_operation(operation: &mut Operation, method: &Method, path: &str, access: Access) {
    let by_session = matches!(access, Access::Member | Access::Owner | Access::MemberOrKey(_));
    let mut security = Vec::new();
    if by_session {
        security.push(SecurityRequirement::new(SESSION, [""; 0]));
    }
    if matches!(access, Access::Key(_) | Access::MemberOrKey(_)) {
        security.push(SecurityRequirement::new(KEY, [""; 0]));
    }
    if !security.is_empty() {
        operation.security = Some(security);
    }
    if by_session && !method.is_safe() {
        let parameter = ParameterBuilder::new()
            .name(session::CSRF_HEADER)
            .parameter_in(ParameterIn::Header)
            .required(Required::True)
            .description(Some("The session's `csrf_token`."))
            .schema(Some(
                ObjectBuilder::new().schema_type(SchemaType::new(Type::String)),
            ))
            .build();
        operation
            .parameters
            .get_or_insert_default()
            .push(parameter.into());
    }
    for status in refusals(operation, path, access) {
        let responses = &mut operation.responses.responses;
        responses
            .entry(status.as_u16().to_string())
            .or_insert_with(|| refusal(status).into());
    }
}

/// The statuses with which a route may refuse.
fn refusals(operation: &Operation, path: &str, access: Access) -> BTreeSet<StatusCode> {
    if !path.starts_with("/api/") {
        let not_found = path.contains('{').then_some(StatusCode::NOT_FOUND);
        return not_found
            .into_iter()
            .chain([StatusCode::INTERNAL_SERVER_ERROR])
            .collect();
    }
    let mut statuses = BTreeSet::from([
        StatusCode::BAD_REQUEST,
        StatusCode::TOO_MANY_REQUESTS,
        StatusCode::INTERNAL_SERVER_ERROR,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ]);
    if operation.request_body.is_some() {
        statuses.extend([
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            StatusCode::CONFLICT,
        ]);
    }
    if access != Access::Public {
        statuses.extend([
            StatusCode::UNAUTHORIZED,
            StatusCode::FORBIDDEN,
            StatusCode::NOT_FOUND,
        ]);
    }
    if path.starts_with("/api/auth/") {
        statuses.extend([StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN]);
    }
    if path == "/api/quota/check" {
        statuses.insert(StatusCode::PAYMENT_REQUIRED);
    }
    statuses
}

fn refusal(status: StatusCode) -> Response {
    let reasons: Vec<&str> = reason::ALL
        .iter()
        .filter(|reason| reason::entry(**reason).status == status && !reason::is_distrust(**reason))
        .map(|reason| ErrorReason::name(*reason))
        .collect();
    let schema = Ref::from_schema_name(Document::name());
    let mut response = ResponseBuilder::new()
        .description(format!("Refused: {}.", reasons.join(", ")))
        .content(problem::CONTENT_TYPE, Content::new(Some(schema)));
    if matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        let seconds = HeaderBuilder::new()
            .schema(Some(
                ObjectBuilder::new().schema_type(SchemaType::new(Type::Integer)),
            ))
            .description(Some(
                "After how many seconds trying again may help, where it may.",
            ))
            .build();
        response = response.header("Retry-After", seconds);
    }
    response.build()
}

/// The document as it is served.
pub(crate) fn to_json(document: &OpenApi) -> Vec<u8> {
    // It was made of plain values, which always can be written.
    serde_json::to_vec(document).unwrap_or_default()
}

/// The document, written once.
#[derive(Clone, Debug)]
pub(crate) struct Written(pub(crate) Bytes);

/// This document.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getOpenApi", tag = "about",
    responses((status = 200, description = "The OpenAPI document.", content_type = "application/json"))
)]
pub(crate) async fn openapi(Extension(Written(document)): Extension<Written>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], document)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::routes;

    fn document() -> Value {
        serde_json::from_slice(&to_json(&routes::document())).expect("JSON")
    }

    fn routes_of(document: &Value) -> Vec<(String, String)> {
        let paths = document["paths"].as_object().expect("paths");
        let mut found = Vec::new();
        for (path, item) in paths {
            found.extend(
                item.as_object()
                    .expect("an item")
                    .keys()
                    .map(|method| (method.to_uppercase(), path.clone())),
            );
        }
        found.sort();
        found
    }

    #[test]
    fn the_document_and_the_table_of_access_list_the_same_routes() {
        let mut listed: Vec<(String, String)> = access::TABLE
            .iter()
            .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        listed.sort();
        assert_eq!(routes_of(&document()), listed);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(reference)) = map.get("$ref") {
                        let pointer = reference.strip_prefix('#').expect("a local reference");
                        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
                    }
                    map.values().for_each(|value| walk(value, document));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, document)),
                _ => {}
            }
        }
        let document = document();
        walk(&document, &document);
    }

    #[test]
    fn every_operation_has_an_id_of_its_own_and_typed_refusals() {
        let document = document();
        let mut ids = BTreeSet::new();
        for (method, path) in routes_of(&document) {
            let operation = &document["paths"][&path][method.to_lowercase()];
            let id = operation["operationId"].as_str().expect("an id").to_owned();
            assert!(ids.insert(id.clone()), "{id} is used twice");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                if status.starts_with('2') {
                    continue;
                }
                let schema = &response["content"][problem::CONTENT_TYPE]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{method} {path} {status}");
            }
        }
    }

    #[test]
    fn the_document_knows_what_the_edge_refuses() {
        let document = document();
        let amount = &document["components"]["schemas"]["Amount"];
        assert_eq!(
            (&amount["type"], &amount["minimum"]),
            (&"integer".into(), &1.into())
        );
        let check = &document["components"]["schemas"]["QuotaCheck"];
        assert_eq!(check["additionalProperties"], false);
        let statuses: Vec<&String> = document["paths"]["/api/quota/check"]["post"]["responses"]
            .as_object()
            .expect("responses")
            .keys()
            .collect();
        for status in [
            "200", "400", "401", "402", "403", "404", "413", "415", "429", "500", "503", "504",
        ] {
            assert!(statuses.iter().any(|one| *one == status), "{status}");
        }
    }
}
