//! The embedded provider: our own invoices, paid by transfer. It keeps nothing elsewhere.

use octroi_core::AccountId;

/// The embedded provider.
#[derive(Clone, Copy, Debug)]
pub struct Manual;

impl Manual {
    pub(super) fn customer_id(self, account: &AccountId) -> String {
        format!("manual_{account}")
    }
}
