//! Holds: amounts that are reserved until they are committed, released, or the hold expires. A hold is a slice of each
//! limited metric, and its id says all that is needed to honour it.

use jiff::{Timestamp, ToSpan as _};
use octroi_core::{AccountId, MetricSlug, SliceId, Units};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::check::Item;

/// How long a hold lives where nobody says, in seconds.
pub const TTL_S_DEFAULT: i64 = 60;
/// The longest that a hold is made for at a time, in seconds.
pub const TTL_S_MAX: i64 = 24 * 3_600;
/// The longest that a hold lives, however often it is renewed, in days.
const LIFE_DAYS_MAX: i64 = 7;
/// How long after that its commit is still charged to it, in days.
const CHARGE_DAYS: i64 = 1;
/// The most open holds of an account.
pub const OPEN_MAX: u64 = 10_000;

/// What a hold holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The hold, of one account, caller and request.
    pub id: Uuid,
    /// When it was made: what it pays for counts then.
    pub reserved_at: Timestamp,
    /// Who made it.
    pub caller: String,
    /// What it holds, in the order of the request.
    pub items: Vec<Item>,
}

/// The number of the hold that a request makes: the same each time.
#[must_use]
pub fn hold_number(account: &AccountId, caller: &str, request: &str) -> Uuid {
    digest(&[
        b"hold",
        account.as_str().as_bytes(),
        caller.as_bytes(),
        request.as_bytes(),
    ])
}

fn digest(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(hash.split_at(16).0);
    Uuid::from_bytes(bytes)
}

/// The slice of a metric that is part of a hold.
#[must_use]
pub fn slice_of(hold: Uuid, metric: &MetricSlug) -> SliceId {
    SliceId::new(digest(&[b"slice", hold.as_bytes(), metric.as_str().as_bytes()]))
}

impl Hold {
    /// When a hold was made to which nothing is charged any more from `hard_end_at` on.
    #[must_use]
    pub fn made_at(hard_end_at: Timestamp) -> Timestamp {
        hard_end_at - (24 * (LIFE_DAYS_MAX + CHARGE_DAYS)).hours()
    }

    /// From when on nothing is charged to it, however often it was renewed.
    #[must_use]
    pub fn hard_end_at(&self) -> Timestamp {
        self.reserved_at + (24 * (LIFE_DAYS_MAX + CHARGE_DAYS)).hours()
    }

    /// Until when it lives that is renewed `now` for so many seconds.
    #[must_use]
    pub fn renewed_until(&self, now: Timestamp, ttl_s: i64) -> Timestamp {
        (now + ttl_s.seconds()).min(self.reserved_at + (24 * LIFE_DAYS_MAX).hours())
    }

    /// Writes it down in bytes, as [`Hold::read`] reads them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.id.as_bytes());
        bytes.extend(self.reserved_at.as_microsecond().to_be_bytes());
        push_text(&mut bytes, &self.caller);
        for item in &self.items {
            push_text(&mut bytes, item.metric.as_str());
            bytes.extend(item.amount.get().to_be_bytes());
        }
        bytes
    }

    /// The hold of these bytes; none where they are none.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let [VERSION] = take::<1>(&mut rest)? else {
            return None;
        };
        let id = Uuid::from_bytes(take::<16>(&mut rest)?);
        let reserved_at = Timestamp::from_microsecond(i64::from_be_bytes(take::<8>(&mut rest)?)).ok()?;
        let caller = take_text(&mut rest)?;
        let mut items = Vec::new();
        while !rest.is_empty() {
            let metric = MetricSlug::parse(&take_text(&mut rest)?).ok()?;
            let amount = Units::new(u64::from_be_bytes(take::<8>(&mut rest)?)).ok()?;
            items.push(Item { metric, amount });
        }
        Some(Self {
            id,
            reserved_at,
            caller,
            items,
        })
    }
}

/// The form of the bytes.
const VERSION: u8 = 1;

/// Texts in a hold are names, none of them longer than 255 bytes.
fn push_text(bytes: &mut Vec<u8>, text: &str) {
    let text = text.as_bytes().get(..255).unwrap_or(text.as_bytes());
    bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
    bytes.extend(text);
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>()?;
    *rest = left;
    Some(*taken)
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let [length] = take::<1>(rest)?;
    let (text, left) = rest.split_at_checked(length.into())?;
    *rest = left;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hold(items: &[(&str, u64)]) -> Hold {
        let item = |(metric, amount): &(&str, u64)| Item {
            metric: MetricSlug::parse(metric).expect("a slug"),
            amount: Units::new(*amount).expect("an amount"),
        };
        Hold {
            id: hold_number(&AccountId::parse("acme").expect("an id"), "app", "r-1"),
            reserved_at: "2026-03-01T10:00:00.000001Z".parse().expect("an instant"),
            caller: "app".into(),
            items: items.iter().map(item).collect(),
        }
    }

    #[test]
    fn a_hold_is_read_as_it_was_written() {
        for items in [
            &[][..],
            &[("api.requests", 1)],
            &[("a", 0), ("b.c", Units::MAX.get())],
        ] {
            let hold = hold(items);
            assert_eq!(Hold::read(&hold.to_bytes()), Some(hold));
        }
    }

    #[test]
    fn a_hold_is_of_one_account_caller_and_request() {
        let number = |account: &str, caller: &str, request: &str| {
            hold_number(&AccountId::parse(account).expect("an id"), caller, request)
        };
        let first = number("acme", "app", "r-1");
        assert_eq!(first, number("acme", "app", "r-1"));
        for other in [
            number("acm", "eapp", "r-1"),
            number("acme", "app", "r-2"),
            number("acme", "ap", "pr-1"),
        ] {
            assert_ne!(first, other);
        }
        let metric = |name| MetricSlug::parse(name).expect("a slug");
        assert_ne!(slice_of(first, &metric("a")), slice_of(first, &metric("b")));
    }

    #[test]
    fn a_hold_lives_seven_days_at_the_most() {
        let hold = hold(&[]);
        let late = hold.reserved_at + 167.hours();
        assert_eq!(hold.renewed_until(late, 60), late + 1.minute());
        assert_eq!(
            hold.renewed_until(late, TTL_S_MAX),
            hold.reserved_at + 168.hours()
        );
        assert!(hold.hard_end_at() > hold.renewed_until(late, TTL_S_MAX));
        assert_eq!(Hold::made_at(hold.hard_end_at()), hold.reserved_at);
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_hold_are_refused_and_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(hold) = Hold::read(&bytes) {
                prop_assert_eq!(hold.to_bytes(), bytes);
            }
        }
    }
}
