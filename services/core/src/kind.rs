//! The kinds of errors, with the gRPC code and the HTTP status of each side by side.

/// What an error means to whoever called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request breaks a rule; sending it again will not help.
    Invalid,
    /// Nobody known is calling.
    Unauthenticated,
    /// Who is calling may not do this.
    Forbidden,
    /// What is named does not exist, or not for this caller.
    NotFound,
    /// What is to be made exists already, with another content.
    AlreadyExists,
    /// The state does not allow it now.
    Precondition,
    /// Somebody else changed it in the meantime.
    Conflict,
    /// A limit stands in the way.
    OverLimit,
    /// Something that is needed does not answer; trying again may help.
    Unavailable,
    /// It did not end in time.
    Timeout,
    /// A fault on our side.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::AlreadyExists,
        Self::Precondition,
        Self::Conflict,
        Self::OverLimit,
        Self::Unavailable,
        Self::Timeout,
        Self::Internal,
    ];

    /// The number of the gRPC status code.
    #[must_use]
    pub const fn grpc_code(self) -> i32 {
        match self {
            Self::Invalid => 3,          // INVALID_ARGUMENT
            Self::Unauthenticated => 16, // UNAUTHENTICATED
            Self::Forbidden => 7,        // PERMISSION_DENIED
            Self::NotFound => 5,         // NOT_FOUND
            Self::AlreadyExists => 6,    // ALREADY_EXISTS
            Self::Precondition => 9,     // FAILED_PRECONDITION
            Self::Conflict => 10,        // ABORTED
            Self::OverLimit => 8,        // RESOURCE_EXHAUSTED
            Self::Unavailable => 14,     // UNAVAILABLE
            Self::Timeout => 4,          // DEADLINE_EXCEEDED
            Self::Internal => 13,        // INTERNAL
        }
    }

    /// The HTTP status where no reason has one of its own.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid | Self::Precondition => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::AlreadyExists | Self::Conflict => 409,
            Self::OverLimit => 429,
            Self::Unavailable => 503,
            Self::Timeout => 504,
            Self::Internal => 500,
        }
    }

    /// The kind of a gRPC code. Codes that we never send count as faults.
    #[must_use]
    pub fn from_grpc_code(code: i32) -> Self {
        Self::ALL
            .into_iter()
            .find(|kind| kind.grpc_code() == code)
            .unwrap_or(Self::Internal)
    }
}

/// One field that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The path of the field, such as `items[1].amount`.
    pub field: String,
    /// The rule, as the end of the sentence "the field …".
    pub rule: String,
}

impl FieldViolation {
    /// A violation of `rule` by `field`.
    pub fn new(field: impl Into<String>, rule: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            rule: rule.into(),
        }
    }
}

/// The violations found while a request is read; all of them are told at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", sentence(.0))]
pub struct Violations(pub Vec<FieldViolation>);

fn sentence(violations: &[FieldViolation]) -> String {
    let all: Vec<String> = violations
        .iter()
        .map(|one| format!("{} {}", one.field, one.rule))
        .collect();
    all.join("; ")
}

impl Violations {
    /// Notes that `field` breaks `rule`.
    pub fn add(&mut self, field: impl Into<String>, rule: impl Into<String>) {
        self.0.push(FieldViolation::new(field, rule));
    }

    /// The value, or none and a note of why: the error's sentence is the rule.
    pub fn take<T, E: std::fmt::Display>(
        &mut self,
        field: impl Into<String>,
        value: Result<T, E>,
    ) -> Option<T> {
        value.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// The first field that breaks a rule.
    #[must_use]
    pub fn first_field(&self) -> Option<&str> {
        self.0.first().map(|violation| violation.field.as_str())
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Itself where anything was noted.
    pub fn finish(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl ServiceError for Violations {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    fn reason(&self) -> &'static str {
        "FIELD_INVALID"
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        self.first_field()
            .map(|field| ("field", field.to_owned()))
            .into_iter()
            .collect()
    }

    fn violations(&self) -> Vec<FieldViolation> {
        self.0.clone()
    }
}

/// What every service's error can say about itself; one place turns it into a gRPC status.
///
/// Its `Display` is a sentence for people, without secrets and without SQL.
pub trait ServiceError: std::error::Error {
    /// What it means to the caller.
    fn kind(&self) -> ErrorKind;

    /// The name of its reason in the closed list of `octroi.errors.v1.ErrorReason`, without prefix.
    fn reason(&self) -> &'static str;

    /// Every dynamic part of the sentence.
    fn metadata(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The fields that break rules.
    fn violations(&self) -> Vec<FieldViolation> {
        Vec::new()
    }

    /// When trying again may help, in seconds from now.
    fn retry_after_s(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_code_of_its_own() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_grpc_code(kind.grpc_code()), kind);
            assert!((400..=504).contains(&kind.http_status()));
        }
        assert_eq!(ErrorKind::from_grpc_code(2), ErrorKind::Internal);
    }
}
