//! The name of each error reason, as `google.rpc.ErrorInfo.reason` carries it.

use crate::errors::v1::ErrorReason;

/// What `google.rpc.ErrorInfo.domain` says in every error of the fleet.
pub const REASON_DOMAIN: &str = "octroi";

const PREFIX: &str = "ERROR_REASON_";

impl ErrorReason {
    /// The name without its prefix, such as `QUOTA_EXCEEDED`.
    #[must_use]
    pub fn name(self) -> &'static str {
        let full = self.as_str_name();
        full.strip_prefix(PREFIX).unwrap_or(full)
    }

    /// The reason of this name, or none where the list has no such name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::from_str_name(&format!("{PREFIX}{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name() {
        for number in 1..=45 {
            let reason = ErrorReason::try_from(number).expect("the list has no gap");
            assert_eq!(ErrorReason::from_name(reason.name()), Some(reason));
            assert!(!reason.name().starts_with(PREFIX));
        }
        assert_eq!(ErrorReason::from_name("NO_SUCH_REASON"), None);
    }
}
