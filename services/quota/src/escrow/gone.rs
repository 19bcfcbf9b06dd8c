//! Slices of this replica and the others: which of them somebody else settled, so that what was spent of them is in
//! their windows and must not count here as well, and which of them wait for the ledger.

use std::collections::HashSet;

use octroi_core::{AccountId, Charge, SliceId};

use super::{Escrow, purse::Purses};

impl Escrow {
    /// Forgets slices that the ledger refused, and has them settled where nobody did it to the end.
    pub fn refused(&self, account: &AccountId, slices: &[SliceId]) {
        self.0.purses.forget(account, slices);
        self.settle_later(slices.to_vec());
    }
}

impl Purses {
    /// The slices that this replica has of an account and that others may settle.
    pub(super) fn own(&self, account: &AccountId) -> Vec<SliceId> {
        let own = self.read(account, |purse| {
            let slices = purse.pockets.values().flat_map(|pocket| pocket.wallet.slices());
            let durable = slices.filter(|held| !held.slice.kept);
            durable.map(|held| held.slice.id).collect()
        });
        own.unwrap_or_default()
    }

    /// Notes what the journal has of an account for the ledger, or has no longer.
    pub(super) fn owe(&self, account: &AccountId, charges: &[Charge], owed: bool) {
        self.read(account, |purse| {
            for pocket in purse.pockets.values_mut() {
                if owed {
                    pocket.wallet.owe(charges);
                } else {
                    pocket.wallet.paid(charges);
                }
            }
        });
    }

    /// Whether this replica has slices of an account.
    pub(super) fn has_slices(&self, account: &AccountId) -> bool {
        let has = self.read(account, |purse| {
            purse.pockets.values().any(|pocket| !pocket.wallet.is_empty())
        });
        has.unwrap_or_default()
    }

    /// Forgets slices of an account.
    pub(super) fn forget(&self, account: &AccountId, slices: &[SliceId]) {
        if slices.is_empty() {
            return;
        }
        self.read(account, |purse| {
            for pocket in purse.pockets.values_mut() {
                pocket.wallet.forget(slices);
            }
        });
    }

    /// Forgets those of an account's slices `own` that are not among `open`.
    pub(super) fn keep(&self, account: &AccountId, own: &[SliceId], open: &HashSet<SliceId>) {
        let gone = own.iter().filter(|slice| !open.contains(slice));
        self.forget(account, &gone.copied().collect::<Vec<SliceId>>());
    }
}
