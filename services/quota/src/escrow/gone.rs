//! Slices of this replica and the others: which of them somebody else settled, so that what was spent of them is in
//! their windows and must not count here as well, and which of them wait for the ledger.

use std::collections::HashSet;

use octroi_core::{AccountId, Charge, SliceId};

use super::{Escrow, pocket::Purse, purse::Purses};

impl Escrow {
    /// Forgets slices that the ledger refused, and has them settled where nobody did it to the end.
    pub fn refused(&self, account: &AccountId, slices: &[SliceId]) {
        self.0.purses.forget(account, slices);
        self.settle_later(slices.to_vec());
    }
}

impl Purses {
    /// The slices that this replica has of an account.
    pub(super) fn own(&self, account: &AccountId) -> HashSet<SliceId> {
        self.read(account, |purse| purse.own()).unwrap_or_default()
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
    pub(super) fn keep(&self, account: &AccountId, own: &HashSet<SliceId>, open: &HashSet<SliceId>) {
        let gone = own.difference(open);
        self.forget(account, &gone.copied().collect::<Vec<SliceId>>());
    }
}

impl Purse {
    fn own(&self) -> HashSet<SliceId> {
        let slices = self.pockets.values().flat_map(|pocket| pocket.wallet.slices());
        slices.map(|held| held.slice.id).collect()
    }

    /// Whether no slice came since there were `own`, and none of those that were `open` went.
    pub(super) fn has_still(&self, own: &HashSet<SliceId>, open: &HashSet<SliceId>) -> bool {
        let now = self.own();
        now.is_subset(own) && open.is_subset(&now)
    }
}
