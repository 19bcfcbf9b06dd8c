//! When a session ends.

use jiff::{SignedDuration, Timestamp};

use super::{account::Account, member::Member};

/// A session that nobody uses ends after this.
pub const IDLE_MAX: SignedDuration = SignedDuration::from_mins(30);
/// A session ends after this however much it is used.
pub const AGE_MAX: SignedDuration = SignedDuration::from_hours(12);
/// Use of a session is noted at most this often, so that reading stays reading.
pub const SIGHT_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// What every session token begins with.
pub const TOKEN_PREFIX: &str = "ses_";
/// Hexadecimal digits of a token: 256 random bits.
pub const TOKEN_DIGITS: usize = 64;

/// Whether `text` could be a token of ours; most guesses could not.
#[must_use]
pub fn is_token(text: &str) -> bool {
    text.strip_prefix(TOKEN_PREFIX).is_some_and(|digits| {
        digits.len() == TOKEN_DIGITS
            && digits
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    })
}

/// When a session was last used, and when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When it was last seen in use.
    pub seen_at: Timestamp,
    /// When it ends at the latest.
    pub expires_at: Timestamp,
}

/// What a session is worth at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has ended.
    Expired,
    /// It is good, and was seen a moment ago.
    Live,
    /// It is good, and its use is to be noted.
    LiveToNote,
}

impl Lifetime {
    /// That of a session made now.
    #[must_use]
    pub fn beginning(now: Timestamp) -> Self {
        Self {
            seen_at: now,
            expires_at: now.saturating_add(AGE_MAX).unwrap_or(Timestamp::MAX),
        }
    }

    /// What the session is worth at `now`.
    #[must_use]
    pub fn standing(&self, now: Timestamp) -> Standing {
        let unseen = now.duration_since(self.seen_at);
        if now >= self.expires_at || unseen >= IDLE_MAX {
            Standing::Expired
        } else if unseen >= SIGHT_INTERVAL {
            Standing::LiveToNote
        } else {
            Standing::Live
        }
    }
}

/// A member who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// The member.
    pub member: Member,
    /// The account.
    pub account: Account,
    /// When the session was last used, and when it ends.
    pub lifetime: Lifetime,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_has_a_known_shape() {
        let token = format!("{TOKEN_PREFIX}{}", "0123456789abcdef".repeat(4));
        assert!(is_token(&token));
        for text in [
            "",
            "ses_",
            &token.to_uppercase(),
            &format!("{token}0"),
            &token.replace("ses_", "key_"),
        ] {
            assert!(!is_token(text), "{text:?}");
        }
    }

    #[test]
    fn a_session_ends_when_idle_or_old() {
        let start: Timestamp = "2026-03-29T00:30:00Z".parse().expect("an instant");
        let expires_at = start + AGE_MAX;
        for (seen_s, now_s, expected) in [
            (0, 0, Standing::Live),
            (0, 59, Standing::Live),
            (0, 60, Standing::LiveToNote),
            (0, 1_799, Standing::LiveToNote),
            (0, 1_800, Standing::Expired),
            (43_190, 43_199, Standing::Live),
            (43_190, 43_200, Standing::Expired),
            // A primary that took over may be a moment behind.
            (10, 0, Standing::Live),
        ] {
            let at = |seconds| start + SignedDuration::from_secs(seconds);
            let lifetime = Lifetime {
                seen_at: at(seen_s),
                expires_at,
            };
            assert_eq!(
                lifetime.standing(at(now_s)),
                expected,
                "seen {seen_s}, now {now_s}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_session_in_constant_use_lives_its_whole_age_and_no_longer(gaps in prop::collection::vec(1i64..1_740, 1..200)) {
            let start = Timestamp::UNIX_EPOCH;
            let mut lifetime = Lifetime::beginning(start);
            let mut now = start;
            for gap in gaps {
                now += SignedDuration::from_secs(gap);
                let standing = lifetime.standing(now);
                prop_assert_eq!(standing == Standing::Expired, now >= start + AGE_MAX);
                if standing == Standing::LiveToNote {
                    lifetime.seen_at = now;
                }
            }
        }
    }
}
