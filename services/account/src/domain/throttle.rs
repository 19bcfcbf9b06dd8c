//! How fast somebody may try to sign in, or sign up.
//!
//! Three counts, each with a delay that grows: an e-mail address tried from one client address, an e-mail
//! address tried from anywhere, a client address trying anything. The count from anywhere is generous and
//! its delay short, so that a stranger can slow a member down and never keep them out. A try is counted
//! as failed when it begins and taken back when it succeeds, so that tries at the same time gain nothing;
//! a try that comes too early is refused and not counted, so that impatience costs nothing.
//!
//! Sign-ups have a count of their own, by client address. One that succeeds is not taken back: what it
//! bounds is how many accounts are made, hashes are computed and addresses are asked for, not guesses.

use std::net::{IpAddr, SocketAddr};

use jiff::{SignedDuration, Timestamp};
use octroi_core::named;

use super::email::Email;

/// A count is forgotten this long after its last failure.
pub const MEMORY: SignedDuration = SignedDuration::from_hours(1);

const CLIENT_ADDRESS_CHARACTERS_MAX: usize = 64;

/// What tries are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An e-mail address, tried from one client address.
    EmailAtAddress,
    /// An e-mail address, tried from anywhere.
    Email,
    /// A client address that signs in.
    Address,
    /// A client address that signs up.
    SignUp,
}

named!(Subject {
    EmailAtAddress => "email_at_address",
    Email => "email",
    Address => "address",
    SignUp => "sign_up",
});

/// How much is allowed before the delay begins, and how it grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    failures_free: u32,
    delay_s_max: u64,
}

impl Subject {
    const fn policy(self) -> Policy {
        match self {
            Self::EmailAtAddress => Policy {
                failures_free: 5,
                delay_s_max: 300,
            },
            Self::Email => Policy {
                failures_free: 20,
                delay_s_max: 30,
            },
            // An office or a school stands behind one address.
            Self::Address | Self::SignUp => Policy {
                failures_free: 30,
                delay_s_max: 300,
            },
        }
    }

    /// How long to wait after this many failures: nothing, then 1 s, doubled by each further one.
    #[must_use]
    pub fn delay(self, failures: u32) -> SignedDuration {
        let Policy {
            failures_free,
            delay_s_max,
        } = self.policy();
        let Some(beyond) = failures.checked_sub(failures_free) else {
            return SignedDuration::ZERO;
        };
        let seconds = 1u64
            .checked_shl(beyond)
            .filter(|_| beyond < 32)
            .unwrap_or(u64::MAX)
            .min(delay_s_max);
        SignedDuration::from_secs(seconds.cast_signed())
    }
}

/// The failures of one subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// How many in a row.
    pub failures: u32,
    /// The last one.
    pub failed_at: Timestamp,
    /// When the next try may come.
    pub open_at: Timestamp,
}

/// A try that came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many tries; come back later")]
pub struct TooEarly {
    /// How long to wait, in whole seconds, at least 1.
    pub retry_after_s: u64,
}

/// The count after a try at `now`, taken as failed.
///
/// # Errors
/// [`TooEarly`] where the try is not to be made.
pub fn after_try(subject: Subject, before: Option<Count>, now: Timestamp) -> Result<Count, TooEarly> {
    let before = before.filter(|count| now.duration_since(count.failed_at) < MEMORY);
    if let Some(count) = before
        && now < count.open_at
    {
        // Rounded up: who waits this long is not too early again.
        let wait_ms = count.open_at.duration_since(now).as_millis().unsigned_abs();
        let retry_after_s = u64::try_from(wait_ms.div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        return Err(TooEarly { retry_after_s });
    }
    let failures = before.map_or(0, |count| count.failures).saturating_add(1);
    let open_at = now
        .saturating_add(subject.delay(failures))
        .unwrap_or(Timestamp::MAX);
    Ok(Count {
        failures,
        failed_at: now,
        open_at,
    })
}

/// Where somebody tries from: an IPv4 address, the /64 network of an IPv6 address, which one subscriber
/// has whole, or what else the edge calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAddress(String);

impl ClientAddress {
    /// Reads an address, with or without a port; none where nothing was given.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let address = text
            .parse::<IpAddr>()
            .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
        Some(Self(match address.map(|address| address.to_canonical()) {
            Ok(IpAddr::V4(address)) => address.to_string(),
            Ok(IpAddr::V6(address)) => {
                let [a, b, c, d, ..] = address.segments();
                format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
            }
            Err(_) => text.chars().take(CLIENT_ADDRESS_CHARACTERS_MAX).collect(),
        }))
    }

    /// The network as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a try to sign in counts against, in the order in which rows are locked.
#[must_use]
pub fn subjects(email: &Email, address: Option<&ClientAddress>) -> Vec<(Subject, String)> {
    let from = address.map_or("", ClientAddress::as_str);
    let mut subjects = vec![
        (Subject::EmailAtAddress, format!("{} {from}", email.normalized())),
        (Subject::Email, email.normalized().to_owned()),
    ];
    if let Some(address) = address {
        subjects.push((Subject::Address, address.as_str().to_owned()));
    }
    subjects
}

/// What a sign-up counts against; nothing where nobody says where it comes from.
#[must_use]
pub fn sign_up_subject(address: Option<&ClientAddress>) -> Option<(Subject, String)> {
    address.map(|address| (Subject::SignUp, address.as_str().to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_delay_begins_late_doubles_and_stays_bounded() {
        for (subject, failures, seconds) in [
            (Subject::EmailAtAddress, 0, 0),
            (Subject::EmailAtAddress, 4, 0),
            (Subject::EmailAtAddress, 5, 1),
            (Subject::EmailAtAddress, 6, 2),
            (Subject::EmailAtAddress, 13, 256),
            (Subject::EmailAtAddress, 14, 300),
            (Subject::EmailAtAddress, u32::MAX, 300),
            (Subject::Email, 19, 0),
            (Subject::Email, 20, 1),
            (Subject::Email, 25, 30),
            (Subject::Email, 5_000, 30),
            (Subject::Address, 29, 0),
            (Subject::Address, 30, 1),
            (Subject::Address, 100, 300),
        ] {
            assert_eq!(
                subject.delay(failures).as_secs(),
                seconds,
                "{subject:?} after {failures}"
            );
        }
    }

    #[test]
    fn a_try_within_the_delay_is_refused_and_changes_nothing() {
        let start: Timestamp = "2026-01-31T23:59:59Z".parse().expect("an instant");
        let mut count = None;
        for _ in 0..5 {
            count = Some(after_try(Subject::EmailAtAddress, count, start).expect("free"));
        }
        let refused = after_try(Subject::EmailAtAddress, count, start).expect_err("too early");
        assert_eq!(refused.retry_after_s, 1);
        let later = start + SignedDuration::from_secs(1);
        let after = after_try(Subject::EmailAtAddress, count, later).expect("waited");
        assert_eq!(
            (after.failures, after.open_at),
            (6, later + SignedDuration::from_secs(2))
        );
        let forgotten = after_try(Subject::EmailAtAddress, Some(after), later + MEMORY).expect("forgotten");
        assert_eq!(forgotten.failures, 1);
    }

    #[test]
    fn a_client_is_its_address_or_its_network() {
        for (text, expected) in [
            ("203.0.113.7", Some("203.0.113.7")),
            (" 203.0.113.7:51324 ", Some("203.0.113.7")),
            ("::ffff:203.0.113.7", Some("203.0.113.7")),
            ("2001:db8:1:2:3:4:5:6", Some("2001:db8:1:2::/64")),
            ("[2001:db8:1:2::9]:443", Some("2001:db8:1:2::/64")),
            ("somewhere", Some("somewhere")),
            ("", None),
            ("  ", None),
        ] {
            assert_eq!(
                ClientAddress::parse(text).as_ref().map(ClientAddress::as_str),
                expected,
                "{text:?}"
            );
        }
        assert_eq!(
            ClientAddress::parse(&"x".repeat(1_000)).map(|client| client.as_str().len()),
            Some(64)
        );
    }

    #[test]
    fn subjects_come_in_the_order_of_their_locks() {
        let email = Email::parse("Lea@AtelierNord.fr").expect("an address");
        let client = ClientAddress::parse("203.0.113.7");
        let all = subjects(&email, client.as_ref());
        let kinds: Vec<Subject> = all.iter().map(|(subject, _)| *subject).collect();
        assert_eq!(kinds, [Subject::EmailAtAddress, Subject::Email, Subject::Address]);
        assert!(kinds.is_sorted());
        assert_eq!(all[0].1, "lea@ateliernord.fr 203.0.113.7");
        assert_eq!(subjects(&email, None).len(), 2);
    }

    #[test]
    fn sign_ups_are_counted_apart_by_client_address() {
        let client = ClientAddress::parse("203.0.113.7");
        let (subject, address) = sign_up_subject(client.as_ref()).expect("a subject");
        assert_eq!((subject, address.as_str()), (Subject::SignUp, "203.0.113.7"));
        assert_eq!(sign_up_subject(None), None);
        assert_eq!(subject.delay(29), SignedDuration::ZERO);
        assert_eq!(subject.delay(30), SignedDuration::from_secs(1));
        assert_eq!(subject.delay(40), SignedDuration::from_secs(300));
    }

    proptest! {
        #[test]
        fn the_delay_never_shrinks_with_more_failures(failures in 0u32..1_000) {
            for subject in Subject::ALL {
                prop_assert!(subject.delay(failures) <= subject.delay(failures + 1));
                prop_assert!(subject.delay(failures) <= SignedDuration::from_secs(300));
            }
        }

        #[test]
        fn who_waits_as_told_is_never_refused_again(failures in 1u32..100, early_ms in 0i64..300_000) {
            let failed_at = Timestamp::UNIX_EPOCH;
            for subject in Subject::ALL {
                let open_at = failed_at + subject.delay(failures);
                let count = Count { failures, failed_at, open_at };
                let now = failed_at + SignedDuration::from_millis(early_ms);
                match after_try(subject, Some(count), now) {
                    Ok(after) => prop_assert_eq!(after.failures, failures + 1),
                    Err(refused) => {
                        let told = now + SignedDuration::from_secs(i64::try_from(refused.retry_after_s).expect("small"));
                        prop_assert!(after_try(subject, Some(count), told).is_ok());
                    }
                }
            }
        }
    }
}
