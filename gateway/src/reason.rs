//! Every error reason with its HTTP status, its page and its title, side by side.

use axum::http::StatusCode;
use octroi_proto::errors::v1::ErrorReason;

/// What the edge says about a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) status: StatusCode,
    /// The reference that `type` carries; the page is served there.
    pub(crate) page: &'static str,
    pub(crate) title: &'static str,
    /// The page itself, in Markdown.
    pub(crate) text: &'static str,
}

macro_rules! entries {
    ($($reason:ident => $status:ident, $page:literal, $title:literal;)*) => {
        /// What the edge says about `reason`. A reason without a line here does not compile.
        pub(crate) const fn entry(reason: ErrorReason) -> Entry {
            match reason {
                // It is never sent; whoever sends it has a fault.
                ErrorReason::Unspecified => entry(ErrorReason::Internal),
                $(ErrorReason::$reason => Entry {
                    status: StatusCode::$status,
                    page: concat!("/errors/", $page),
                    title: $title,
                    text: include_str!(concat!("../../docs/errors/", $page, ".md")),
                },)*
            }
        }

        /// Every reason.
        pub(crate) const ALL: &[ErrorReason] = &[$(ErrorReason::$reason),*];
    };
}

entries! {
    FieldInvalid => BAD_REQUEST, "field-invalid", "A field breaks a rule";
    FieldRequired => BAD_REQUEST, "field-required", "A field is missing";
    BodyMalformed => BAD_REQUEST, "body-malformed", "The body cannot be read";
    BodyTooLarge => PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large";
    ContentTypeUnsupported => UNSUPPORTED_MEDIA_TYPE, "content-type-unsupported", "The content type is not served";
    TokenInvalid => UNAUTHORIZED, "token-invalid", "The service token is not known";
    CallerForbidden => FORBIDDEN, "caller-forbidden", "The caller may not use this method";
    PrincipalMismatch => FORBIDDEN, "principal-mismatch", "The principal belongs to another account";
    SessionExpired => UNAUTHORIZED, "session-expired", "Nobody is signed in";
    CredentialsInvalid => UNAUTHORIZED, "credentials-invalid", "E-mail address or password is wrong";
    ApiKeyInvalid => UNAUTHORIZED, "api-key-invalid", "The API key is not valid";
    ScopeRequired => FORBIDDEN, "scope-required", "The API key lacks a scope";
    RoleRequired => FORBIDDEN, "role-required", "The member's role does not allow this";
    OriginRefused => FORBIDDEN, "origin-refused", "The request came from elsewhere";
    AccountNotFound => NOT_FOUND, "account-not-found", "There is no such account";
    AccountClosed => BAD_REQUEST, "account-closed", "The account is closed";
    MetricNotFound => NOT_FOUND, "metric-not-found", "There is no such metric";
    PlanNotFound => NOT_FOUND, "plan-not-found", "There is no such plan";
    SubscriptionNotFound => NOT_FOUND, "subscription-not-found", "There is no such subscription";
    ApiKeyNotFound => NOT_FOUND, "api-key-not-found", "There is no such API key";
    UsageEventNotFound => NOT_FOUND, "usage-event-not-found", "There is no such usage event";
    NoticeNotFound => NOT_FOUND, "notice-not-found", "There is no such notice";
    RouteNotFound => NOT_FOUND, "route-not-found", "There is no such route";
    MethodNotAllowed => METHOD_NOT_ALLOWED, "method-not-allowed", "The route does not serve this method";
    EmailTaken => CONFLICT, "email-taken", "The e-mail address is taken";
    EventIdReused => CONFLICT, "event-id-reused", "The event id came before with another content";
    RequestIdReused => CONFLICT, "request-id-reused", "The request id came before with another content";
    SubscriptionExists => CONFLICT, "subscription-exists", "The account has a subscription already";
    QuotaExceeded => TOO_MANY_REQUESTS, "quota-exceeded", "A limit stands in the way";
    SubscriptionRequired => PAYMENT_REQUIRED, "subscription-required", "The plan lacks a feature";
    AmountOutOfRange => BAD_REQUEST, "amount-out-of-range", "An amount is out of range";
    EventTimeOutOfRange => BAD_REQUEST, "event-time-out-of-range", "The event's time is not accepted";
    CatalogInvalid => BAD_REQUEST, "catalog-invalid", "The catalog breaks a rule";
    VersionStale => CONFLICT, "version-stale", "A newer version was applied before";
    RateLimited => TOO_MANY_REQUESTS, "rate-limited", "Too many tries";
    // Not the caller's doing, so not the caller's 429.
    Overloaded => SERVICE_UNAVAILABLE, "overloaded", "The service has too much work";
    CountersUnreachable => SERVICE_UNAVAILABLE, "counters-unreachable", "The counters cannot be reached";
    DependencyUnavailable => SERVICE_UNAVAILABLE, "dependency-unavailable", "A service does not answer";
    DatabaseUnavailable => SERVICE_UNAVAILABLE, "database-unavailable", "The database cannot be reached";
    NotReady => SERVICE_UNAVAILABLE, "not-ready", "The service is starting or stopping";
    DeadlinePassed => GATEWAY_TIMEOUT, "deadline-passed", "It took too long";
    MethodNotFound => NOT_IMPLEMENTED, "method-not-found", "The method is not served here";
    Internal => INTERNAL_SERVER_ERROR, "internal", "A fault on our side";
    PageTokenInvalid => BAD_REQUEST, "page-token-invalid", "The cursor is not valid";
    BatchRefused => CONFLICT, "batch-refused", "Another event of the batch stands in the way";
    SliceRefused => CONFLICT, "slice-refused", "A slice of the limit pays for it no more";
    RequestDenied => BAD_REQUEST, "request-denied", "The request was denied before";
    LevelBelowZero => BAD_REQUEST, "level-below-zero", "More would be given back than is held";
    HoldNotFound => NOT_FOUND, "hold-not-found", "There is no such hold";
    HoldEnded => BAD_REQUEST, "hold-ended", "The hold ended in another way";
    TooManyHolds => TOO_MANY_REQUESTS, "too-many-holds", "The account has too many open holds";
    DecisionExpired => NOT_FOUND, "decision-expired", "The decision is not remembered";
    LimitNotFound => NOT_FOUND, "limit-not-found", "There is no such limit";
    CorrectionIdReused => CONFLICT, "correction-id-reused", "The correction id came before with another content";
    EventCorrectedSince => CONFLICT, "event-corrected-since", "The event was corrected since";
    ReportNotFound => NOT_FOUND, "report-not-found", "There is no such report";
    TooManyReports => TOO_MANY_REQUESTS, "too-many-reports", "The account has too many open reports";
    ReportWithoutFile => BAD_REQUEST, "report-without-file", "The report has no file";

    PaymentProviderFailed => SERVICE_UNAVAILABLE, "payment-provider-failed", "The payment provider failed";
}

/// Whether a service that gives this reason distrusts this gateway, or is of another version. The client
/// cannot mend it, so it reads INTERNAL instead.
pub(crate) const fn is_distrust(reason: ErrorReason) -> bool {
    matches!(
        reason,
        ErrorReason::TokenInvalid
            | ErrorReason::CallerForbidden
            | ErrorReason::PrincipalMismatch
            | ErrorReason::MethodNotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_page_named_after_it_that_states_its_status() {
        assert!(
            ErrorReason::try_from(i32::try_from(ALL.len()).expect("few") + 1).is_err(),
            "a reason is not listed"
        );
        for reason in ALL {
            let entry = entry(*reason);
            let expected = format!("/errors/{}", reason.name().to_lowercase().replace('_', "-"));
            assert_eq!(entry.page, expected);
            let heading = format!("# {}\n", reason.name());
            assert!(
                entry.text.starts_with(&heading),
                "{}: the page begins with the reason",
                entry.page
            );
            let status = format!("HTTP {}", entry.status.as_u16());
            assert!(
                entry.text.contains(&status),
                "{}: the page says {status}",
                entry.page
            );
        }
    }

    #[test]
    fn the_folder_of_pages_has_no_page_without_a_reason() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors");
        let index = std::fs::read_to_string(format!("{folder}/README.md")).expect("an index");
        for file in std::fs::read_dir(folder).expect("the folder") {
            let name = file.expect("an entry").file_name().into_string().expect("a name");
            if name == "README.md" {
                continue;
            }
            let page = format!("/errors/{}", name.trim_end_matches(".md"));
            assert!(
                ALL.iter().any(|reason| entry(*reason).page == page),
                "{name} belongs to no reason"
            );
            assert!(index.contains(&format!("({name})")), "{name} is not in the index");
        }
    }
}
