//! Who may use which route: one table, one layer.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, Method, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use octroi_core::AccountId;
use octroi_kit::auth::{PRINCIPAL_HEADER, Principal};
use octroi_proto::{
    account::v1::{ApiKey, GetSessionRequest, Session, VerifyApiKeyRequest},
    errors::v1::ErrorReason,
};
use tonic::metadata::{Ascii, MetadataValue};

use crate::{
    convert::{Role, part},
    edge::Edge,
    key::{self, Scope},
    problem::{Problem, SAME_NAMES},
    session,
};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody; the route finds out by itself what it needs to know.
    Public,
    /// Whoever is signed in.
    Member,
    /// Whoever is signed in as an owner of the account.
    Owner,
    /// Whoever is signed in, and keys with the scope.
    MemberOrKey(Scope),
    /// Keys with the scope.
    Key(Scope),
}

use Access::{Key, Member, MemberOrKey, Owner, Public};
use Scope::{QuotaCheck, UsageRead, UsageWrite};

/// Who may use what. A route that is not listed answers nobody.
#[rustfmt::skip]
pub(crate) const TABLE: &[(&str, &str, Access)] = &[
    ("GET",    "/",                                Public),
    ("GET",    "/errors/{page}",                   Public),
    ("GET",    "/openapi.json",                    Public),
    ("POST",   "/api/auth/sign-up",                Public),
    ("POST",   "/api/auth/sign-in",                Public),
    ("POST",   "/api/auth/sign-out",               Public),
    ("GET",    "/api/auth/session",                Member),
    ("GET",    "/api/account/settings",            Member),
    ("PATCH",  "/api/account/settings",            Owner),
    ("GET",    "/api/account/usage",               MemberOrKey(UsageRead)),
    ("GET",    "/api/account/usage/events",        MemberOrKey(UsageRead)),
    ("GET",    "/api/account/usage/report",        MemberOrKey(UsageRead)),
    ("GET",    "/api/account/usage/reports",       MemberOrKey(UsageRead)),
    ("POST",   "/api/account/usage/reports",       MemberOrKey(UsageRead)),
    ("GET",    "/api/account/usage/reports/{job_id}", MemberOrKey(UsageRead)),
    ("DELETE", "/api/account/usage/reports/{job_id}", MemberOrKey(UsageRead)),
    ("GET",    "/api/account/usage/reports/{job_id}/download", MemberOrKey(UsageRead)),
    ("GET",    "/api/account/usage/anomalies",     MemberOrKey(UsageRead)),
    ("GET",    "/api/account/usage/forecast",      MemberOrKey(UsageRead)),
    ("GET",    "/api/account/quotas",              MemberOrKey(UsageRead)),
    ("GET",    "/api/account/decisions/{decision_id}", MemberOrKey(UsageRead)),
    ("GET",    "/api/account/notifications",       Member),
    ("POST",   "/api/account/notifications/read",  Member),
    ("GET",    "/api/account/api-keys",            Member),
    ("POST",   "/api/account/api-keys",            Owner),
    ("DELETE", "/api/account/api-keys/{key_id}",   Owner),
    ("GET",    "/api/billing/plans",               Public),
    ("GET",    "/api/billing/subscription",        Member),
    ("POST",   "/api/quota/check",                 Key(QuotaCheck)),
    ("POST",   "/api/usage/events",                Key(UsageWrite)),
];

/// The line of the table for a request; HEAD asks for what GET answers.
pub(crate) fn access(method: &Method, path: &str) -> Option<Access> {
    let method = if method == Method::HEAD {
        "GET"
    } else {
        method.as_str()
    };
    TABLE
        .iter()
        .find(|(one, route, _)| *one == method && *route == path)
        .map(|(_, _, access)| *access)
}

/// For whom a request is made; only [`layer`] makes one.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The account: a route has no other.
    pub(crate) account: AccountId,
    /// The member or the API key.
    pub(crate) actor: String,
    /// The session, where a member is signed in.
    pub(crate) session: Option<Arc<Session>>,
    principal: MetadataValue<Ascii>,
}

impl Caller {
    fn new(
        edge: &Edge,
        account_id: &str,
        actor: &str,
        session: Option<Arc<Session>>,
    ) -> Result<Self, Problem> {
        let account = AccountId::parse(account_id)
            .map_err(|_| Problem::fault("account: an account id that is none"))?;
        let principal = Principal {
            account: account.clone(),
            actor: actor.to_owned(),
        };
        let principal = MetadataValue::try_from(edge.auth().sign_principal(&principal))
            .map_err(|_| Problem::fault("account: an actor's id that no header can carry"))?;
        Ok(Self {
            account,
            actor: actor.to_owned(),
            session,
            principal,
        })
    }

    /// A call to a service, made for this caller.
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request
            .metadata_mut()
            .insert(PRINCIPAL_HEADER, self.principal.clone());
        request
    }

    /// The account's id as the contracts carry it.
    pub(crate) fn account_id(&self) -> String {
        self.account.to_string()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Problem::fault("a route that needs a caller is open to everybody"))
    }
}

/// The layer: finds out who asks and whether the table lets them.
pub(crate) async fn layer(
    State(edge): State<Edge>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    // A method that the route does not serve goes on to the answer that says so.
    let Some(access) = access(request.method(), path.as_str()) else {
        return next.run(request).await;
    };
    let (mut parts, body) = request.into_parts();
    match caller(&edge, access, &parts).await {
        Ok(Some(caller)) => drop(parts.extensions.insert(caller)),
        Ok(None) => {}
        Err(problem) => return problem.into_response(),
    }
    next.run(Request::from_parts(parts, body)).await
}

async fn caller(edge: &Edge, access: Access, parts: &Parts) -> Result<Option<Caller>, Problem> {
    if access == Public {
        return Ok(None);
    }
    if let Some(secret) = key::secret(&parts.headers, &parts.uri)? {
        let scope = match access {
            Key(scope) | MemberOrKey(scope) => scope,
            Public | Member | Owner => {
                let detail = "this route is for people who are signed in, not for API keys";
                return Err(Problem::new(ErrorReason::ScopeRequired, detail));
            }
        };
        return by_key(edge, secret, scope).await.map(Some);
    }
    if matches!(access, Key(_)) {
        return Err(Problem::new(
            ErrorReason::ApiKeyInvalid,
            "this route needs an API key",
        ));
    }
    let caller = by_session(edge, &parts.headers, &parts.method).await?;
    if access == Owner {
        check_owner(&caller)?;
    }
    Ok(Some(caller))
}

async fn by_key(edge: &Edge, secret: String, scope: Scope) -> Result<Caller, Problem> {
    let answer = edge
        .account()
        .verify_api_key(VerifyApiKeyRequest { secret })
        .await
        .map_err(|status| Problem::of("account", &status, SAME_NAMES))?;
    let ApiKey {
        key_id,
        account_id,
        scopes,
        revoke_time,
        ..
    } = part(answer.into_inner().api_key, "an API key")?;
    if revoke_time.is_some() {
        return Err(Problem::new(
            ErrorReason::ApiKeyInvalid,
            "the API key was revoked",
        ));
    }
    if !scopes.iter().any(|given| given == scope.name()) {
        let detail = format!("the API key lacks the scope {}", scope.name());
        return Err(Problem::new(ErrorReason::ScopeRequired, detail));
    }
    Caller::new(edge, &account_id, &key_id, None)
}

async fn by_session(edge: &Edge, headers: &HeaderMap, method: &Method) -> Result<Caller, Problem> {
    let Some(token) = session::token(headers) else {
        return Err(Problem::new(ErrorReason::SessionExpired, "nobody is signed in"));
    };
    let session = current_session(edge, token).await?;
    if !method.is_safe() {
        session::check_change(headers, edge.origin(), &session.csrf_token)?;
    }
    let account = part(session.account.as_ref(), "the session's account")?;
    let member = part(session.member.as_ref(), "the session's member")?;
    Caller::new(
        edge,
        &account.account_id,
        &member.member_id,
        Some(session.clone()),
    )
}

/// The session that a token stands for; one that has ended is taken out of the browser too.
pub(crate) async fn current_session(edge: &Edge, session_token: String) -> Result<Arc<Session>, Problem> {
    let answer = edge
        .account()
        .get_session(GetSessionRequest { session_token })
        .await
        .map_err(|status| {
            let problem = Problem::of("account", &status, SAME_NAMES);
            if problem.reason() == ErrorReason::SessionExpired.name() {
                return problem.with_header(header::SET_COOKIE, session::closed());
            }
            problem
        })?;
    part(answer.into_inner().session, "a session").map(Arc::new)
}

fn check_owner(caller: &Caller) -> Result<(), Problem> {
    let member = caller
        .session
        .as_ref()
        .and_then(|session| session.member.as_ref());
    match member.map(|member| Role::from_proto(member.role)) {
        Some(Role::Owner) => Ok(()),
        _ => Err(Problem::new(
            ErrorReason::RoleRequired,
            "only an owner of the account may do this",
        )),
    }
}
