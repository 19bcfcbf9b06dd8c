//! API keys: `Authorization: Bearer oct_…`, and nowhere else.

use axum::http::{HeaderMap, Uri, header};
use octroi_proto::errors::v1::ErrorReason;

use crate::problem::Problem;

/// What every secret begins with, so that scanners of source code find one that leaked.
pub(crate) const PREFIX: &str = "oct_";

const LENGTH_MAX: usize = 512;

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Ask whether something may be done, and take it.
    QuotaCheck,
    /// Record use.
    UsageWrite,
    /// Read use and quotas.
    UsageRead,
}

impl Scope {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::QuotaCheck => "quota.check",
            Self::UsageWrite => "usage.write",
            Self::UsageRead => "usage.read",
        }
    }
}

/// The secret that the request carries; none where it carries no `Authorization`.
///
/// # Errors
/// API_KEY_INVALID where it carries something else, or a key in its address: addresses end up in logs.
pub(crate) fn secret(headers: &HeaderMap, uri: &Uri) -> Result<Option<String>, Problem> {
    let invalid = |detail: &str| Err(Problem::new(ErrorReason::ApiKeyInvalid, detail));
    if uri.query().is_some_and(is_key_in) {
        return invalid("an API key goes into the Authorization header, never into the address");
    }
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let Some(first) = given.next() else {
        return Ok(None);
    };
    if given.next().is_some() {
        return invalid("Authorization must be given once");
    }
    let (scheme, secret) = first
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") || !secret.starts_with(PREFIX) || secret.len() > LENGTH_MAX {
        return invalid("Authorization must be Bearer and an API key");
    }
    Ok(Some(secret.to_owned()))
}

fn is_key_in(query: &str) -> bool {
    query.split('&').any(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = name.to_ascii_lowercase();
        value.starts_with(PREFIX)
            || matches!(
                name.as_str(),
                "api_key" | "apikey" | "api-key" | "key" | "access_token"
            )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str, authorization: &[&str]) -> Result<Option<String>, &'static str> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, value.parse().expect("a header"));
        }
        secret(&headers, &uri.parse().expect("an address")).map_err(|problem| problem.reason())
    }

    #[test]
    fn a_key_comes_in_the_header_and_nowhere_else() {
        let good = Ok(Some("oct_abc".to_owned()));
        let bad = Err("API_KEY_INVALID");
        for (uri, authorization, expected) in [
            ("/api", &["Bearer oct_abc"][..], &good),
            ("/api?limit=1", &["bearer oct_abc"], &good),
            ("/api", &[], &Ok(None)),
            ("/api", &["Bearer sk_live_abc"], &bad),
            ("/api", &["Basic b2N0X2FiYw=="], &bad),
            ("/api", &["oct_abc"], &bad),
            ("/api", &["Bearer"], &bad),
            ("/api", &["Bearer oct_abc", "Bearer oct_def"], &bad),
            ("/api?api_key=oct_abc", &[], &bad),
            ("/api?api_key=oct_abc", &["Bearer oct_abc"], &bad),
            ("/api?x=1&cursor=oct_abc", &["Bearer oct_abc"], &bad),
            ("/api?access_token=x", &[], &bad),
        ] {
            assert_eq!(&read(uri, authorization), expected, "{uri} {authorization:?}");
        }
    }
}
