//! Which passwords are accepted: long ones, exactly as given, that are not the first a guesser tries.
//!
//! Length instead of composition, and a block list, after NIST SP 800-63B-4.

use super::email::Email;

/// The fewest bytes of a password that is the only factor.
pub const BYTES_MIN: usize = 15;
/// The most bytes; more would only be work for the hash.
pub const BYTES_MAX: usize = 1024;

/// Passwords that are long enough and still among the first guesses, in lower case. What only repeats
/// itself or counts is found by rule.
const COMMON: &[&str] = &[
    "adminadminadmin",
    "administrator123",
    "changemechangeme",
    "correct horse battery staple",
    "correcthorsebatterystaple",
    "iloveyouiloveyou",
    "jetaimejetaimejetaime",
    "letmeinletmeinletmein",
    "motdepasse12345",
    "motdepasse123456",
    "password1234567",
    "password12345678",
    "password123456789",
    "passwordpassword",
    "q1w2e3r4t5y6u7i8",
    "q1w2e3r4t5y6u7i8o9p0",
    "qwertyuiopasdfgh",
    "qwertyuiopasdfghjkl",
    "azertyuiopqsdfgh",
    "azertyuiopqsdfghjklm",
    "1q2w3e4r5t6y7u8i",
    "1q2w3e4r5t6y7u8i9o0p",
    "thisismypassword",
    "trustno1trustno1",
    "welcome123456789",
];

/// Why a password is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// Too short or too long.
    #[error("must be {BYTES_MIN} to {BYTES_MAX} bytes")]
    Length,
    /// Among the first guesses.
    #[error("must not be a common password")]
    Common,
    /// The member's own address.
    #[error("must not be the e-mail address")]
    OwnEmail,
}

/// Whether a member with this address may choose this password.
///
/// # Errors
/// [`WeakPassword`].
pub fn check(password: &str, email: &Email) -> Result<(), WeakPassword> {
    if !(BYTES_MIN..=BYTES_MAX).contains(&password.len()) {
        return Err(WeakPassword::Length);
    }
    let lowered = password.to_lowercase();
    if lowered.trim() == email.normalized() {
        return Err(WeakPassword::OwnEmail);
    }
    if COMMON.contains(&lowered.as_str()) || repeats(lowered.as_bytes()) || counts(lowered.as_bytes()) {
        return Err(WeakPassword::Common);
    }
    Ok(())
}

/// Whether it is one run of at most 4 bytes over and over: `aaaaaaaaaaaaaaa`, `abcabcabcabcabc`.
fn repeats(password: &[u8]) -> bool {
    (1..=4).any(|period| {
        password
            .iter()
            .zip(password.iter().skip(period))
            .all(|(before, after)| before == after)
    })
}

/// Whether each byte follows the one before: `123456789012345`, `abcdefghijklmnop`, and backwards.
fn counts(password: &[u8]) -> bool {
    let steps = |by: u8| {
        password
            .iter()
            .zip(password.iter().skip(1))
            .all(|(&before, &after)| {
                after == before.wrapping_add(by)
                    || matches!((before, after, by), (b'9', b'0', 1) | (b'0', b'9', 255))
            })
    };
    steps(1) || steps(u8::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_all(cases: &[(&str, Result<(), WeakPassword>)]) {
        let email = Email::parse("Lea.Martin@AtelierNord.fr").expect("an address");
        for (password, expected) in cases {
            assert_eq!(check(password, &email), *expected, "{password:?}");
        }
    }

    #[test]
    fn length_is_counted_in_bytes() {
        let longest = "aB3".repeat(341) + "x";
        let too_long = longest.clone() + "y";
        check_all(&[
            ("fourteen bytes", Err(WeakPassword::Length)),
            ("fifteen bytes..", Ok(())),
            ("éàùçèêîö", Ok(())),
            ("", Err(WeakPassword::Length)),
            (&longest, Ok(())),
            (&too_long, Err(WeakPassword::Length)),
        ]);
    }

    #[test]
    fn nothing_but_length_and_the_block_list_is_asked_for() {
        check_all(&[
            ("nul \0 inside is fine", Ok(())),
            ("    blanks around    ", Ok(())),
            ("only lower case letters", Ok(())),
            ("鍵がかかった部屋の中で", Ok(())),
        ]);
    }

    #[test]
    fn the_first_guesses_are_refused_in_any_case() {
        check_all(&[
            ("passwordPASSWORD", Err(WeakPassword::Common)),
            ("Correct Horse Battery Staple", Err(WeakPassword::Common)),
            ("aaaaaaaaaaaaaaaa", Err(WeakPassword::Common)),
            ("abcdabcdabcdabcdab", Err(WeakPassword::Common)),
            ("123456789012345", Err(WeakPassword::Common)),
            ("098765432109876", Err(WeakPassword::Common)),
            ("abcdefghijklmnop", Err(WeakPassword::Common)),
            ("lea.martin@ATELIERNORD.fr", Err(WeakPassword::OwnEmail)),
            (" lea.martin@ateliernord.fr ", Err(WeakPassword::OwnEmail)),
        ]);
    }

    #[test]
    fn the_block_list_holds_only_what_would_be_accepted_otherwise() {
        for common in COMMON {
            assert!(common.len() >= BYTES_MIN, "{common}");
            assert_eq!(common.to_lowercase(), *common);
        }
    }

    proptest! {
        #[test]
        fn no_password_makes_the_rules_fail(password in ".*") {
            let email = Email::parse("a@b.fr").expect("an address");
            let answer = check(&password, &email);
            let fits = (BYTES_MIN..=BYTES_MAX).contains(&password.len());
            prop_assert_eq!(answer == Err(WeakPassword::Length), !fits);
        }
    }
}
