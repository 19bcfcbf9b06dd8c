//! Bodies, read strictly: what the contract does not name is refused, and the refusal names the field.

use std::{fmt, marker::PhantomData};

use axum::{
    extract::{FromRequest, Request},
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use octroi_proto::errors::v1::ErrorReason;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};

use crate::problem::Problem;

/// The largest body, in bytes.
pub(crate) const BYTES_MAX: usize = 256 * 1024;
/// The largest body that carries usage events, in bytes.
pub(crate) const EVENTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The content type of plain JSON.
pub(crate) const JSON: &str = "application/json";

/// A JSON body of type `T`.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        content_type(request.headers(), &[JSON])?;
        let bytes = bytes(request, state).await?;
        parse(&bytes, "").map(Self)
    }
}

/// The body as it came, up to the route's limit.
pub(crate) async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Problem::new(
                ErrorReason::BodyTooLarge,
                "the body is larger than this route accepts",
            );
        }
        Problem::new(ErrorReason::BodyMalformed, "the body ended early")
    })
}

/// Which of the accepted content types the body has.
///
/// JSON without its content type is refused: a form of another site can send `text/plain`, but not this.
pub(crate) fn content_type(headers: &HeaderMap, accepted: &[&'static str]) -> Result<&'static str, Problem> {
    let unsupported = |detail: String| Problem::new(ErrorReason::ContentTypeUnsupported, detail);
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity")
    {
        return Err(unsupported("compressed bodies are not accepted".to_owned()));
    }
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (essence, parameters) = given.split_once(';').unwrap_or((given, ""));
    let parameters = parameters.trim().to_ascii_lowercase();
    let found = accepted
        .iter()
        .find(|one| essence.trim().eq_ignore_ascii_case(one));
    match found {
        Some(found) if matches!(parameters.as_str(), "" | "charset=utf-8" | "charset=\"utf-8\"") => Ok(found),
        _ => Err(unsupported(format!(
            "the content type must be {}",
            accepted.join(" or ")
        ))),
    }
}

/// Reads one JSON object; `prefix` is where it stands in the whole body.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8], prefix: &str) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value: Object<T> = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        refused(
            error.inner(),
            &joined(prefix, if path == "." { "" } else { &path }),
        )
    })?;
    deserializer.end().map_err(|error| refused(&error, prefix))?;
    Ok(value.0)
}

/// The problem that an error of the JSON reader is. What the client sent is not repeated: it may be a
/// password in the wrong place.
pub(crate) fn refused(error: &serde_json::Error, path: &str) -> Problem {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let full = error.to_string();
    let message = full.strip_suffix(&place).unwrap_or(&full);
    if !error.is_data() {
        let mut detail = format!("the body is not JSON: {message}{place}");
        if !path.is_empty() {
            detail = format!("{detail}, in {path}");
        }
        return Problem::new(ErrorReason::BodyMalformed, detail);
    }
    let named = |start: &str| message.strip_prefix(start)?.split('`').next();
    if let Some(name) = named("missing field `") {
        return Problem::field(ErrorReason::FieldRequired, joined(path, name), "is required");
    }
    let field = if path.is_empty() { "body" } else { path };
    let rule = if message.starts_with("unknown field `") {
        "is not a field of this route".to_owned()
    } else if message.starts_with("duplicate field `") {
        "must be given once".to_owned()
    } else if let Some((_, expected)) = message.rsplit_once(", expected ") {
        format!("must be {expected}")
    } else {
        message.to_owned()
    };
    Problem::field(ErrorReason::FieldInvalid, field, rule)
}

fn joined(prefix: &str, path: &str) -> String {
    match (prefix.is_empty(), path.is_empty()) {
        (true, _) => path.to_owned(),
        (_, true) => prefix.to_owned(),
        _ if path.starts_with('[') => format!("{prefix}{path}"),
        _ => format!("{prefix}.{path}"),
    }
}

/// A `T` that is written as an object. Without it serde would read an array as a struct, field by field.
#[derive(Clone, Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}

/// For an optional field: it may be absent, but where it is given it has a value, so null is refused.
pub(crate) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::{amount::Amount, convert::CheckMode, problem::Document};

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[expect(dead_code, reason = "read and not looked at")]
        metric: String,
        amount: Amount,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Check {
        #[expect(dead_code, reason = "read and not looked at")]
        mode: CheckMode,
        items: Vec<Object<Item>>,
        #[serde(default, deserialize_with = "given")]
        #[expect(dead_code, reason = "read and not looked at")]
        zone: Option<String>,
    }

    fn refusal(json: &str) -> Document {
        parse::<Check>(json.as_bytes(), "")
            .expect_err(json)
            .into_document()
    }

    #[track_caller]
    fn check(json: &str, reason: &str, field: &str) {
        let document = refusal(json);
        assert_eq!(document.reason, reason, "{json}: {}", document.detail);
        let found = document.errors.first().map_or("", |error| error.field.as_str());
        assert_eq!(found, field, "{json}: {}", document.detail);
    }

    #[track_caller]
    fn check_amount(amount: &str) {
        let json = format!("{{\"mode\":\"peek\",\"items\":[{{\"metric\":\"a\",\"amount\":{amount}}}]}}");
        let document = refusal(&json);
        let error = document.errors.first().expect("a field");
        assert_eq!(error.field, "items[0].amount", "{json}");
        assert_eq!(
            error.rule, "must be a JSON integer from 1 to 9007199254740991",
            "{json}"
        );
    }

    #[test]
    fn an_amount_is_a_json_integer_in_range() {
        for amount in ["1", "9007199254740991"] {
            let json = format!("{{\"mode\":\"peek\",\"items\":[{{\"metric\":\"a\",\"amount\":{amount}}}]}}");
            let read: Check = parse(json.as_bytes(), "").expect("good");
            assert_eq!(read.items[0].0.amount.get().to_string(), amount);
        }
        for amount in [
            "0",
            "-0",
            "-1",
            "0.1",
            "1.0",
            "1e3",
            "1E0",
            "\"1\"",
            "null",
            "true",
            "[1]",
            "{}",
            "9007199254740992",
            "9223372036854775808",
            "18446744073709551616",
            "1e308",
        ] {
            check_amount(amount);
        }
    }

    #[test]
    fn a_body_that_breaks_the_contract_is_refused_with_the_field() {
        check("{\"mode\":\"peek\"}", "FIELD_REQUIRED", "items");
        check(
            "{\"mode\":\"peek\",\"items\":[{\"metric\":\"a\"}]}",
            "FIELD_REQUIRED",
            "items[0].amount",
        );
        check(
            "{\"mode\":\"peek\",\"items\":[],\"plan\":\"pro\"}",
            "FIELD_INVALID",
            "plan",
        );
        check(
            "{\"mode\":\"peek\",\"items\":[{\"metric\":\"a\",\"amount\":1,\"x\":1}]}",
            "FIELD_INVALID",
            "items[0].x",
        );
        check("{\"mode\":\"look\",\"items\":[]}", "FIELD_INVALID", "mode");
        check("{\"mode\":{\"peek\":null},\"items\":[]}", "FIELD_INVALID", "mode");
        check("{\"mode\":\"unknown\",\"items\":[]}", "FIELD_INVALID", "mode");
        check("{\"mode\":1,\"items\":[]}", "FIELD_INVALID", "mode");
        check("{\"mode\":\"peek\",\"items\":{}}", "FIELD_INVALID", "items");
        check(
            "{\"mode\":\"peek\",\"items\":[[\"a\",1]]}",
            "FIELD_INVALID",
            "items[0]",
        );
        check(
            "{\"mode\":\"peek\",\"items\":[],\"zone\":null}",
            "FIELD_INVALID",
            "zone",
        );
        check("[\"peek\",[]]", "FIELD_INVALID", "body");
        check("null", "FIELD_INVALID", "body");
        check("\"peek\"", "FIELD_INVALID", "body");
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        let document = refusal("{\"mode\":\"peek\",\"items\":[],\"items\":[]}");
        assert_eq!(document.reason, "FIELD_INVALID");
        assert!(document.errors[0].rule.contains("once"));
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        for json in [
            "",
            " ",
            "{",
            "{\"mode\":\"peek\",\"items\":[]} x",
            "{mode:1}",
            "{\"mode\":'peek'}",
            "{\"mode\":\"peek\",\"items\":[{\"metric\":\"a\",\"amount\":NaN}]}",
            "{\"mode\":\"peek\",\"items\":[],}",
            "\u{feff}{}",
        ] {
            assert_eq!(refusal(json).reason, "BODY_MALFORMED", "{json:?}");
        }
        assert!(parse::<Check>(b"{\"mode\":\"\xff\"}", "").is_err());
        let deep = format!("{{\"mode\":\"peek\",\"items\":{}", "[".repeat(10_000));
        assert!(parse::<Check>(deep.as_bytes(), "").is_err());
    }

    #[test]
    fn what_was_sent_is_not_repeated() {
        for json in [
            "{\"mode\":\"hunter2\",\"items\":[]}",
            "{\"mode\":\"peek\",\"items\":\"hunter2\"}",
        ] {
            let text = serde_json::to_string(&refusal(json)).expect("a document");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn only_uncompressed_json_is_read() {
        for (content_type_given, encoding, good) in [
            (Some("application/json"), None, true),
            (Some("Application/JSON; charset=UTF-8"), None, true),
            (Some("application/json"), Some("identity"), true),
            (Some("application/json"), Some("gzip"), false),
            (Some("application/json; charset=latin1"), None, false),
            (Some("text/plain"), None, false),
            (Some("application/x-www-form-urlencoded"), None, false),
            (Some("application/jsonp"), None, false),
            (None, None, false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(given) = content_type_given {
                headers.insert(header::CONTENT_TYPE, given.parse().expect("a header"));
            }
            if let Some(encoding) = encoding {
                headers.insert(header::CONTENT_ENCODING, encoding.parse().expect("a header"));
            }
            let answer = content_type(&headers, &[JSON]);
            assert_eq!(answer.is_ok(), good, "{content_type_given:?} {encoding:?}");
            if let Err(problem) = answer {
                assert_eq!(problem.into_document().status, 415);
            }
        }
    }
}
