//! The use cases of billing, one file each.

mod apply_catalog;
mod check_catalog;
mod create_customer;
mod create_subscription;
mod get_subscription;
mod list_plans;

use std::sync::Arc;

use octroi_core::{AccountId, RequestId};
use octroi_kit::{db::Db, directory::Directory, outbox::Wake};
use sha2::{Digest as _, Sha256};

pub use self::{
    apply_catalog::Applied,
    check_catalog::Checked,
    create_customer::{CreateCustomer, Customer},
    create_subscription::CreateSubscription,
    list_plans::OfferedPlans,
};
use crate::{payments::Payments, push::Push, store::request::Request};

/// Who asks for a change, and the id that makes it repeatable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The account.
    pub account: AccountId,
    /// The calling service; request ids are its own.
    pub caller: String,
    /// The id.
    pub request_id: RequestId,
}

impl RequestKey {
    /// The key with what was asked for, part by part.
    fn of(&self, method: &'static str, content: &[&str]) -> Request {
        let mut hash = Sha256::new();
        for part in content {
            // With its length, so that no two contents read the same.
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        Request {
            account: self.account.clone(),
            caller: self.caller.clone(),
            request_id: self.request_id.clone(),
            method,
            content_hash: hash.finalize().into(),
        }
    }
}

/// The use cases of billing.
#[derive(Clone, Debug)]
pub struct Service {
    db: Db,
    wake: Wake,
    directory: Directory,
    payments: Payments,
    push: Arc<Push>,
    catalog: list_plans::Remembered,
}

impl Service {
    /// A service over its database and the ways to others.
    #[must_use]
    pub fn new(db: Db, wake: Wake, directory: Directory, payments: Payments, push: Arc<Push>) -> Self {
        Self {
            db,
            wake,
            directory,
            payments,
            push,
            catalog: list_plans::Remembered::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_of_a_request_is_told_apart_part_by_part() {
        let key = RequestKey {
            account: AccountId::parse("acme").expect("an id"),
            caller: "gateway".into(),
            request_id: RequestId::parse("r-1").expect("an id"),
        };
        let hash = |content: &[&str]| key.of("create_subscription", content).content_hash;
        assert_eq!(hash(&["pro", ""]), hash(&["pro", ""]));
        assert_ne!(hash(&["pro", ""]), hash(&["", "pro"]));
        assert_ne!(hash(&["pro", "x"]), hash(&["prox"]));
    }
}
