//! Secrets: how they are made, and what is kept of them. The one room with randomness of its own.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use octroi_kit::{auth::Auth, config::Secret};
use rand::{Rng as _, RngCore as _, distr::Alphanumeric};
use sha2::{Digest as _, Sha256};

use crate::{
    domain::{api_key, session, throttle::Subject},
    store::{api_keys::SecretHash, sessions::TokenHash},
};

/// The keys of this service's hashes.
#[derive(Clone)]
pub(crate) struct Keys {
    csrf: Vec<u8>,
    api_key: Vec<u8>,
    throttle: Vec<u8>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    pub(crate) fn derive(auth: &Auth) -> Self {
        Self {
            csrf: auth.derived_key("csrf"),
            api_key: auth.derived_key("account api keys"),
            throttle: auth.derived_key("account throttle"),
        }
    }

    /// What a request must repeat that comes with this session: only who can read the answer knows it.
    pub(crate) fn csrf_token(&self, session_token: &Secret) -> String {
        hex::encode(mac(&self.csrf, session_token.expose().as_bytes()))
    }

    /// What is kept of an API key's secret. Keyed, so that a copy of the table alone cannot be searched.
    pub(crate) fn api_key_hash(&self, secret: &Secret) -> SecretHash {
        mac(&self.api_key, secret.expose().as_bytes())
    }

    /// What is kept of an address that somebody typed, which may be nobody's or a mistyped password.
    pub(crate) fn throttle_hash(&self, subject: Subject, address: &str) -> [u8; 32] {
        mac(
            &self.throttle,
            format!("{} {address}", subject.as_str()).as_bytes(),
        )
    }
}

/// A new session's token.
pub(crate) fn session_token() -> Secret {
    let mut bytes = [0; session::TOKEN_DIGITS / 2];
    rand::rng().fill_bytes(&mut bytes);
    Secret::new(format!("{}{}", session::TOKEN_PREFIX, hex::encode(bytes)))
}

/// What is kept of a session's token: it has 256 random bits, so a plain hash cannot be searched.
pub(crate) fn token_hash(token: &Secret) -> TokenHash {
    Sha256::digest(token.expose().as_bytes()).into()
}

/// A new API key's secret.
pub(crate) fn api_key_secret() -> Secret {
    let random = rand::rng()
        .sample_iter(Alphanumeric)
        .take(api_key::SECRET_RANDOM_CHARACTERS)
        .map(char::from);
    Secret::new(api_key::SECRET_PREFIX.chars().chain(random).collect::<String>())
}

fn mac(key: &[u8], text: &[u8]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(seed: u8) -> Keys {
        Keys {
            csrf: vec![seed, 1],
            api_key: vec![seed, 2],
            throttle: vec![seed, 3],
        }
    }

    #[test]
    fn secrets_have_their_shape_and_never_repeat() {
        let (first, second) = (session_token(), session_token());
        assert!(session::is_token(first.expose()) && first != second);
        let (first, second) = (api_key_secret(), api_key_secret());
        assert!(api_key::is_secret(first.expose()) && first != second);
    }

    #[test]
    fn hashes_depend_on_key_purpose_and_text() {
        let secret = Secret::new("oct_live_x");
        assert_ne!(keys(1).api_key_hash(&secret), keys(2).api_key_hash(&secret));
        assert_ne!(
            hex::encode(keys(1).api_key_hash(&secret)),
            keys(1).csrf_token(&secret)
        );
        let by = |subject| keys(1).throttle_hash(subject, "203.0.113.7");
        assert_ne!(by(Subject::Email), by(Subject::Address));
    }
}
