//! Ids that this service mints: a prefix that says of what, and 32 hexadecimal digits.

use std::fmt;

use octroi_core::AccountId;
use uuid::Uuid;

macro_rules! minted_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The id made of this random value.
            #[must_use]
            pub fn from_uuid(value: Uuid) -> Self {
                Self(format!(concat!($prefix, "{}"), value.simple()))
            }

            /// The id that `text` is; none where it was never minted.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let digits = text.strip_prefix($prefix)?;
                let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                (digits.len() == 32 && digits.bytes().all(hexadecimal)).then(|| Self(text.to_owned()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

minted_id!(
    /// A person in an account.
    MemberId, "mem_"
);
minted_id!(
    /// An API key.
    KeyId, "key_"
);

/// The id of an account whose caller chose none.
#[must_use]
pub fn minted_account_id(value: Uuid) -> AccountId {
    #[expect(
        clippy::expect_used,
        reason = "letters, digits and one underscore are an account's id"
    )]
    AccountId::parse(&format!("acc_{}", value.simple())).expect("an account's id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minted_id_is_read_back_and_nothing_else_is() {
        let value = Uuid::from_u128(0x0199_abcd);
        let minted = MemberId::from_uuid(value);
        assert_eq!(MemberId::parse(minted.as_str()), Some(minted.clone()));
        assert_eq!(KeyId::parse(minted.as_str()), None);
        for text in [
            "",
            "mem_",
            "mem_0199",
            &minted.as_str().to_uppercase(),
            &format!("{minted}0"),
            "mem_g",
        ] {
            assert_eq!(MemberId::parse(text), None, "{text:?}");
        }
        assert_eq!(
            minted_account_id(value).as_str(),
            "acc_0000000000000000000000000199abcd"
        );
    }
}
