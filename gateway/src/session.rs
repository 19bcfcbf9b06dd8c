//! The session of a browser: its cookie, and the proof that a request that changes something was sent by
//! our own pages.

use axum::http::{HeaderMap, HeaderValue, header};
use jiff::{Timestamp, tz::TimeZone};
use octroi_proto::errors::v1::ErrorReason;

use crate::problem::Problem;

/// The prefix makes browsers refuse it without Secure, from another path or for a whole domain.
pub(crate) const COOKIE: &str = "__Host-octroi_session";
/// The header that repeats the session's `csrf_token`.
pub(crate) const CSRF_HEADER: &str = "x-csrf-token";

const ATTRIBUTES: &str = "Path=/; Secure; HttpOnly; SameSite=Lax";
/// Longer than any token; a longer value was not made here.
const TOKEN_LENGTH_MAX: usize = 512;

/// The token that the request's cookie carries. Two such cookies are none: one of them is planted.
pub(crate) fn token(headers: &HeaderMap) -> Option<String> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value);
    let token = found.next()?;
    let usable = found.next().is_none() && !token.is_empty() && token.len() <= TOKEN_LENGTH_MAX;
    usable.then(|| token.to_owned())
}

/// The cookie that opens a session in the browser; it goes when the session does.
pub(crate) fn opened(token: &str, expires_at: Timestamp) -> Result<HeaderValue, Problem> {
    let expires = expires_at
        .to_zoned(TimeZone::UTC)
        .strftime("%a, %d %b %Y %H:%M:%S GMT")
        .to_string();
    HeaderValue::try_from(format!("{COOKIE}={token}; {ATTRIBUTES}; Expires={expires}"))
        .map(|mut value| {
            value.set_sensitive(true);
            value
        })
        .map_err(|_| Problem::fault("a session token that no cookie can carry"))
}

/// The cookie that takes the session out of the browser.
pub(crate) fn closed() -> HeaderValue {
    HeaderValue::from_static("__Host-octroi_session=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0")
}

/// What a request says about the page that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// Our own page, or the user's own hand.
    Ours,
    /// Another page.
    Other,
    /// Not said: no browser of the last years, or a program.
    Unsaid,
}

/// Browsers write `Sec-Fetch-Site` and pages cannot; where it is absent, `Origin` decides.
fn sender(headers: &HeaderMap, origin: &str) -> Sender {
    if let Some(site) = headers.get("sec-fetch-site") {
        return if site == "same-origin" || site == "none" {
            Sender::Ours
        } else {
            Sender::Other
        };
    }
    match headers.get(header::ORIGIN) {
        Some(given) if given.as_bytes().eq_ignore_ascii_case(origin.as_bytes()) => Sender::Ours,
        Some(_) => Sender::Other,
        None => Sender::Unsaid,
    }
}

fn refused(detail: &str) -> Problem {
    Problem::new(ErrorReason::OriginRefused, detail)
}

/// A request with a session that changes something: sent by our page, with the session's token.
pub(crate) fn check_change(headers: &HeaderMap, origin: &str, csrf_token: &str) -> Result<(), Problem> {
    if sender(headers, origin) != Sender::Ours {
        return Err(refused(
            "a change needs Sec-Fetch-Site: same-origin, or the Origin of this server",
        ));
    }
    let given = headers
        .get(CSRF_HEADER)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    if csrf_token.is_empty() || !same(given, csrf_token.as_bytes()) {
        return Err(refused(
            "a change needs the session's csrf_token in the header x-csrf-token",
        ));
    }
    Ok(())
}

/// A request that opens or closes a session: other sites may not sign somebody in or out. A program says
/// nothing and may.
pub(crate) fn check_page(headers: &HeaderMap, origin: &str) -> Result<(), Problem> {
    match sender(headers, origin) {
        Sender::Ours | Sender::Unsaid => Ok(()),
        Sender::Other => Err(refused("the request comes from the page of another site")),
    }
}

/// Compares in a time that does not tell how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |differences, (a, b)| differences | (a ^ b))
            == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &str = "https://octroi.example.com";

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn a_cookie_is_read_among_others_and_never_twice() {
        for (cookies, expected) in [
            (&["__Host-octroi_session=abc"][..], Some("abc")),
            (&["theme=dark; __Host-octroi_session=abc; x=y"], Some("abc")),
            (&["theme=dark", "__Host-octroi_session=abc"], Some("abc")),
            (&["__Host-octroi_session=abc; __Host-octroi_session=def"], None),
            (&["__Host-octroi_session=abc", "__Host-octroi_session=abc"], None),
            (&["octroi_session=abc"], None),
            (&["__Host-octroi_session="], None),
            (&[], None),
        ] {
            let pairs: Vec<_> = cookies.iter().map(|cookie| ("cookie", *cookie)).collect();
            assert_eq!(token(&headers(&pairs)).as_deref(), expected, "{cookies:?}");
        }
    }

    #[test]
    fn a_cookie_is_for_this_host_and_for_http_only() {
        let expires_at = "2026-03-01T12:00:00Z".parse().expect("an instant");
        let cookie = opened("abc", expires_at).expect("a cookie");
        let text = cookie.to_str().expect("ASCII");
        assert_eq!(
            text,
            "__Host-octroi_session=abc; Path=/; Secure; HttpOnly; SameSite=Lax; Expires=Sun, 01 Mar 2026 12:00:00 GMT"
        );
        assert!(opened("a\nb", expires_at).is_err());
        let closed = closed();
        assert!(closed.to_str().expect("ASCII").starts_with(COOKIE));
        assert!(closed.to_str().expect("ASCII").contains(ATTRIBUTES));
    }

    #[track_caller]
    fn check(pairs: &[(&'static str, &str)], change: bool, opening: bool) {
        let headers = headers(pairs);
        assert_eq!(
            check_change(&headers, ORIGIN, "token").is_ok(),
            change,
            "change {pairs:?}"
        );
        assert_eq!(check_page(&headers, ORIGIN).is_ok(), opening, "opening {pairs:?}");
    }

    #[test]
    fn a_change_comes_from_our_page_with_the_session_s_token() {
        let csrf = (CSRF_HEADER, "token");
        check(&[("sec-fetch-site", "same-origin"), csrf], true, true);
        check(&[("sec-fetch-site", "none"), csrf], true, true);
        check(&[("origin", ORIGIN), csrf], true, true);
        check(&[("origin", "HTTPS://Octroi.example.com"), csrf], true, true);
        check(
            &[("sec-fetch-site", "same-origin"), (CSRF_HEADER, "tokem")],
            false,
            true,
        );
        check(
            &[("sec-fetch-site", "same-origin"), (CSRF_HEADER, "")],
            false,
            true,
        );
        check(&[("sec-fetch-site", "same-origin")], false, true);
        check(&[("sec-fetch-site", "same-site"), csrf], false, false);
        check(&[("sec-fetch-site", "cross-site"), csrf], false, false);
        // A page cannot write Sec-Fetch-Site, so it holds against an Origin that agrees.
        check(
            &[("sec-fetch-site", "cross-site"), ("origin", ORIGIN), csrf],
            false,
            false,
        );
        check(&[("origin", "https://evil.example.com"), csrf], false, false);
        check(
            &[("origin", "https://octroi.example.com.evil.com"), csrf],
            false,
            false,
        );
        check(&[("origin", "http://octroi.example.com"), csrf], false, false);
        check(&[("origin", "null"), csrf], false, false);
        check(&[csrf], false, true);
        check(&[], false, true);
    }

    #[test]
    fn a_session_without_a_csrf_token_changes_nothing() {
        let headers = headers(&[("sec-fetch-site", "same-origin"), (CSRF_HEADER, "")]);
        assert!(check_change(&headers, ORIGIN, "").is_err());
    }
}
