//! When something that failed is tried again, and when no more.

use core::time::Duration;

use uuid::Uuid;

/// The tries that an e-mail has.
pub const TRIES_MAX: u32 = 8;

/// What an e-mail waits after its first, second, … try, before jitter: each about three times the last.
const EMAIL_WAITS_S: [u64; TRIES_MAX as usize - 1] = [30, 90, 270, 810, 2_430, 7_290, 17_280];

/// The longest that a mailing waits for the account service to answer.
const MAILING_WAIT_S_MAX: u64 = 300;

/// After this long without an answer of the account service, a mailing is of no use to anybody.
pub const MAILING_AGE_MAX: Duration = Duration::from_secs(3 * 24 * 3_600);

/// What an e-mail waits after its try number `tries`, from 30 s to 6 h; none where that was the last.
///
/// The jitter comes from the e-mail's own random id: e-mails that failed together do not come back
/// together, and the answer is the same however often it is asked for.
#[must_use]
pub fn after_failed_delivery(id: Uuid, tries: u32) -> Option<Duration> {
    let index = usize::try_from(tries.max(1) - 1).ok()?;
    EMAIL_WAITS_S
        .get(index)
        .map(|wait_s| with_jitter(*wait_s, id, tries))
}

/// What a mailing waits after its try number `tries`, from 2 s to about 6 min.
#[must_use]
pub fn after_failed_addressing(id: Uuid, tries: u32) -> Duration {
    let wait_s = 1_u64
        .checked_shl(tries)
        .map_or(MAILING_WAIT_S_MAX, |wait_s| wait_s.min(MAILING_WAIT_S_MAX));
    with_jitter(wait_s.max(2), id, tries)
}

/// `wait_s` and up to a quarter more.
fn with_jitter(wait_s: u64, id: Uuid, tries: u32) -> Duration {
    let (high, low) = id.as_u64_pair();
    let share = (high ^ low).rotate_left(tries) % 1_000;
    Duration::from_millis(wait_s * 1_000 + wait_s * share / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_grow_from_30_s_to_6_h_and_end(bits: u128) {
            let id = Uuid::from_u128(bits);
            let waits: Vec<Duration> = (1..=TRIES_MAX).map_while(|tries| after_failed_delivery(id, tries)).collect();
            prop_assert_eq!(waits.len(), TRIES_MAX as usize - 1);
            prop_assert!(waits.iter().all(|wait| (30..=6 * 3_600).contains(&wait.as_secs())));
            prop_assert!(waits.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(after_failed_delivery(id, TRIES_MAX), None);
            prop_assert_eq!(after_failed_delivery(id, u32::MAX), None);
        }

        #[test]
        fn a_mailing_waits_minutes_at_the_most(bits: u128, tries: u32) {
            let wait = after_failed_addressing(Uuid::from_u128(bits), tries);
            prop_assert!((2..=375).contains(&wait.as_secs()));
        }
    }

    #[test]
    fn emails_that_failed_together_come_back_apart() {
        let waits: std::collections::BTreeSet<_> = (0..100_u128)
            .map(|n| after_failed_delivery(Uuid::from_u128(n * 0x9e37_79b9_7f4a_7c15), 1))
            .collect();
        assert!(waits.len() > 50, "{}", waits.len());
    }
}
