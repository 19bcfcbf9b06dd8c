//! `/api/auth`: signing up, in and out, and who is signed in.

use std::net::{IpAddr, SocketAddr};

use axum::{
    Json,
    extract::{ConnectInfo, FromRequestParts, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts},
    response::{AppendHeaders, IntoResponse},
};
use jiff::Timestamp;
use octroi_proto::{
    account::v1::{self as account, SignInRequest, SignOutRequest, SignUpRequest},
    errors::v1::ErrorReason,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access::{Caller, current_session},
    body::{Body, given},
    convert::{AccountState, Language, Role, part, time},
    edge::Edge,
    problem::{Problem, SAME_NAMES},
    session,
};

/// Who signs up.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignUp {
    /// The owner's e-mail address.
    email: String,
    /// The password: 15 to 1,024 bytes, taken as given.
    #[schema(format = Password)]
    password: String,
    /// The name of the account; absent means the e-mail address.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    display_name: Option<String>,
    /// The IANA zone; absent means UTC.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    zone: Option<String>,
    /// The language; absent means English.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    language: Option<Language>,
}

/// Who signs in.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    /// The e-mail address.
    email: String,
    /// The password.
    #[schema(format = Password)]
    password: String,
}

/// A person in an account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Member {
    member_id: String,
    email: String,
    display_name: String,
    role: Role,
    language: Language,
}

/// Who consumes and pays.
#[derive(Serialize, ToSchema)]
pub(crate) struct Account {
    account_id: String,
    display_name: String,
    /// The IANA zone of hours and days.
    zone: String,
    language: Language,
    state: AccountState,
    create_time: Timestamp,
}

impl Account {
    pub(super) fn from_proto(account: account::Account) -> Result<Self, Problem> {
        Ok(Self {
            account_id: account.account_id,
            display_name: account.display_name,
            zone: account.zone,
            language: Language::from_proto(account.language),
            state: AccountState::from_proto(account.state),
            create_time: time(account.create_time.as_ref())?,
        })
    }
}

/// A member who is signed in.
#[derive(Serialize, ToSchema)]
pub(crate) struct Session {
    member: Member,
    account: Account,
    /// What a request that changes something repeats in the header `x-csrf-token`.
    csrf_token: String,
    /// When the session ends at the latest.
    expire_time: Timestamp,
}

impl Session {
    fn from_proto(session: account::Session) -> Result<Self, Problem> {
        let member = part(session.member, "the session's member")?;
        Ok(Self {
            member: Member {
                member_id: member.member_id,
                email: member.email,
                display_name: member.display_name,
                role: Role::from_proto(member.role),
                language: Language::from_proto(member.language),
            },
            account: Account::from_proto(part(session.account, "the session's account")?)?,
            csrf_token: session.csrf_token,
            expire_time: time(session.expire_time.as_ref())?,
        })
    }
}

/// The address of whoever sent the request, for throttling.
pub(crate) struct ClientAddress(String);

impl FromRequestParts<Edge> for ClientAddress {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let peer = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map(|info| info.0.ip());
        let forwarded = forwarded_for(&parts.headers, edge.config().proxies);
        Ok(Self(
            forwarded
                .or(peer)
                .map(|address| address.to_string())
                .unwrap_or_default(),
        ))
    }
}

/// The address that the outermost of our proxies saw: each appends one, what stands before is the client's
/// own invention.
fn forwarded_for(headers: &HeaderMap, proxies: usize) -> Option<IpAddr> {
    let lines = headers
        .get_all("x-forwarded-for")
        .iter()
        .filter_map(|line| line.to_str().ok());
    let addresses: Vec<&str> = lines.flat_map(|line| line.split(',')).map(str::trim).collect();
    let index = addresses.len().checked_sub(proxies)?;
    addresses.get(index)?.parse().ok()
}

type SignedIn = (
    StatusCode,
    AppendHeaders<[(HeaderName, HeaderValue); 1]>,
    Json<Session>,
);

fn signed_in(
    status: StatusCode,
    session: Option<account::Session>,
    token: &str,
) -> Result<SignedIn, Problem> {
    let session = Session::from_proto(part(session, "a session")?)?;
    let cookie = session::opened(token, session.expire_time)?;
    Ok((
        status,
        AppendHeaders([(header::SET_COOKIE, cookie)]),
        Json(session),
    ))
}

/// Make an account with its owner, and sign in.
#[utoipa::path(
    post, path = "/api/auth/sign-up", operation_id = "signUp", tag = "auth",
    request_body = SignUp,
    responses((status = 201, description = "Signed up and signed in; the session is in the cookie.", body = Session))
)]
pub(crate) async fn sign_up(
    State(edge): State<Edge>,
    ClientAddress(client_address): ClientAddress,
    headers: HeaderMap,
    Body(body): Body<SignUp>,
) -> Result<impl IntoResponse, Problem> {
    session::check_page(&headers, edge.origin())?;
    let request = SignUpRequest {
        email: body.email,
        password: body.password,
        display_name: body.display_name.unwrap_or_default(),
        zone: body.zone.unwrap_or_default(),
        language: body.language.map_or(0, Language::to_proto),
        client_address,
    };
    let answer = edge
        .account()
        .sign_up(request)
        .await
        .map_err(|status| Problem::of("account", &status, SAME_NAMES))?;
    let answer = answer.into_inner();
    signed_in(StatusCode::CREATED, answer.session, &answer.session_token)
}

/// Sign in.
#[utoipa::path(
    post, path = "/api/auth/sign-in", operation_id = "signIn", tag = "auth",
    request_body = SignIn,
    responses((status = 200, description = "Signed in; the session is in the cookie.", body = Session))
)]
pub(crate) async fn sign_in(
    State(edge): State<Edge>,
    ClientAddress(client_address): ClientAddress,
    headers: HeaderMap,
    Body(body): Body<SignIn>,
) -> Result<impl IntoResponse, Problem> {
    session::check_page(&headers, edge.origin())?;
    let request = SignInRequest {
        email: body.email,
        password: body.password,
        client_address,
    };
    let answer = edge
        .account()
        .sign_in(request)
        .await
        .map_err(|status| Problem::of("account", &status, SAME_NAMES))?;
    let answer = answer.into_inner();
    signed_in(StatusCode::OK, answer.session, &answer.session_token)
}

/// Sign out. A session that has ended already is no error.
#[utoipa::path(
    post, path = "/api/auth/sign-out", operation_id = "signOut", tag = "auth",
    params(("x-csrf-token" = Option<String>, Header, description = "The session's `csrf_token`.")),
    responses((status = 204, description = "Signed out; the cookie is gone."))
)]
pub(crate) async fn sign_out(
    State(edge): State<Edge>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    // A page of another site sends no cookie along, but the answer would take it out of the browser.
    session::check_page(&headers, edge.origin())?;
    if let Some(session_token) = session::token(&headers) {
        match current_session(&edge, session_token.clone()).await {
            Ok(session) => {
                session::check_change(&headers, edge.origin(), &session.csrf_token)?;
                let request = SignOutRequest { session_token };
                edge.account()
                    .sign_out(request)
                    .await
                    .map_err(|status| Problem::of("account", &status, SAME_NAMES))?;
            }
            Err(problem) if problem.reason() == ErrorReason::SessionExpired.name() => {}
            Err(problem) => return Err(problem),
        }
    }
    let headers = AppendHeaders([
        (header::SET_COOKIE, session::closed()),
        (
            HeaderName::from_static("clear-site-data"),
            HeaderValue::from_static("\"cache\", \"storage\""),
        ),
    ]);
    Ok((StatusCode::NO_CONTENT, headers))
}

/// Who is signed in.
#[utoipa::path(
    get, path = "/api/auth/session", operation_id = "getSession", tag = "auth",
    responses((status = 200, description = "The session.", body = Session))
)]
pub(crate) async fn session(caller: Caller) -> Result<Json<Session>, Problem> {
    let session = part(caller.session, "a session")?;
    Session::from_proto(session.as_ref().clone()).map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_our_own_proxies_wrote_is_believed() {
        for (lines, proxies, expected) in [
            (&["203.0.113.7"][..], 0, None),
            (&["203.0.113.7"], 1, Some("203.0.113.7")),
            (&["10.0.0.1, 203.0.113.7"], 1, Some("203.0.113.7")),
            (&["10.0.0.1, 203.0.113.7, 192.0.2.1"], 2, Some("203.0.113.7")),
            (&["10.0.0.1", "2001:db8::1"], 1, Some("2001:db8::1")),
            (&["203.0.113.7"], 2, None),
            (&["nonsense"], 1, None),
            (&[], 1, None),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", line.parse().expect("a header"));
            }
            let found = forwarded_for(&headers, proxies).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{lines:?} {proxies}");
        }
    }
}
