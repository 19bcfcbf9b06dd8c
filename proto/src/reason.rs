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
    use prost::Message as _;

    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name() {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).expect("descriptors");
        let enums = set.file.iter().flat_map(|file| &file.enum_type);
        let reasons = enums
            .filter(|one| one.name() == "ErrorReason")
            .flat_map(|one| &one.value)
            .filter(|value| value.number() != 0);
        let mut count = 0;
        for value in reasons {
            let reason = ErrorReason::try_from(value.number()).expect("generated from the same list");
            assert_eq!(value.name(), format!("{PREFIX}{}", reason.name()));
            assert_eq!(ErrorReason::from_name(reason.name()), Some(reason));
            count += 1;
        }
        assert!(count > 40, "{count} reasons were found");
        assert_eq!(ErrorReason::from_name("NO_SUCH_REASON"), None);
    }
}
