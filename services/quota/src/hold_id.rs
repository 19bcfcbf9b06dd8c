//! The ids of holds: they say all that a replica needs to honour them, and are signed with the account, so that nobody
//! makes one up or uses another account's.

use hmac::{Hmac, KeyInit as _, Mac as _};
use octroi_core::AccountId;
use sha2::Sha256;

use crate::domain::hold::Hold;

/// How many bytes of the signature an id has.
const TAG_BYTES: usize = 16;

/// Makes and reads ids of holds.
#[derive(Clone)]
pub struct HoldIds(Vec<u8>);

impl HoldIds {
    /// Signs with this key, which every replica has.
    pub fn new(key: Vec<u8>) -> Self {
        Self(key)
    }

    /// The id of a hold of an account.
    #[must_use]
    pub fn make(&self, account: &AccountId, hold: &Hold) -> String {
        let mut bytes = hold.to_bytes();
        bytes.extend(self.tag(account, &bytes));
        hex::encode(bytes)
    }

    /// The hold of an id, where it is one of the account.
    #[must_use]
    pub fn read(&self, account: &AccountId, id: &str) -> Option<Hold> {
        let bytes = hex::decode(id).ok()?;
        let (hold, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        self.mac(account, hold).verify_truncated_left(tag).ok()?;
        Hold::read(hold)
    }

    fn tag(&self, account: &AccountId, hold: &[u8]) -> Vec<u8> {
        let tag = self.mac(account, hold).finalize().into_bytes();
        tag.iter().copied().take(TAG_BYTES).collect()
    }

    fn mac(&self, account: &AccountId, hold: &[u8]) -> Hmac<Sha256> {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(&account.as_str().len().to_be_bytes());
        mac.update(account.as_str().as_bytes());
        mac.update(hold);
        mac
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use octroi_core::{MetricSlug, Units};

    use super::*;
    use crate::domain::{check::Item, hold::hold_number};

    #[test]
    fn an_id_is_honoured_for_its_account_and_as_it_was_made_only() {
        let account = |name: &str| AccountId::parse(name).expect("an id");
        let (acme, other) = (account("acme"), account("acm"));
        let hold = Hold {
            id: hold_number(&acme, "app", "r-1"),
            reserved_at: Timestamp::UNIX_EPOCH,
            caller: "app".into(),
            items: vec![Item {
                metric: MetricSlug::parse("api.requests").expect("a slug"),
                amount: Units::new(5).expect("an amount"),
            }],
        };
        let ids = HoldIds::new(b"key".to_vec());
        let id = ids.make(&acme, &hold);
        assert_eq!(ids.read(&acme, &id), Some(hold));
        assert_eq!(ids.read(&other, &id), None);
        assert_eq!(HoldIds::new(b"another".to_vec()).read(&acme, &id), None);
        for place in 0..id.len() {
            let mut forged = id.clone();
            let digit = if forged.remove(place) == '0' { '1' } else { '0' };
            forged.insert(place, digit);
            assert_eq!(ids.read(&acme, &forged), None, "{place}");
        }
        for text in ["", "00", "no hexadecimal", &id[2..]] {
            assert_eq!(ids.read(&acme, text), None, "{text}");
        }
    }
}
