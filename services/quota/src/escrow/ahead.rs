//! Carves the next slice of a metric whose decisions are not waited for before the last one is spent, so that no check
//! finds the memory empty.

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, Units};

use super::{Carved, Escrow, Need, REFUSAL_FRESH, need::Want};
use crate::domain::holding::Revision;

/// How soon it is tried again where the ledger must be told of something before.
const ROOM_SOON: SignedDuration = SignedDuration::from_millis(5);

impl Escrow {
    /// Carves a slice beside whatever goes on. Whoever calls has claimed it ([`super::pocket::Pocket::claim_ahead`]).
    pub(super) fn carve_ahead(&self, account: AccountId, need: Need, revision: Revision) {
        let escrow = self.clone();
        self.0.carving.spawn(async move {
            let again_at = escrow.carve_one_ahead(&account, &need, revision).await;
            (escrow.0.purses).with_pocket(&account, &need.metric, |pocket| {
                pocket.carves().ahead_from = again_at
            });
        });
    }

    /// Answers from when on the next may be carved.
    async fn carve_one_ahead(&self, account: &AccountId, need: &Need, revision: Revision) -> Timestamp {
        let turn = self.0.purses.turn(account, &need.metric);
        let _turn = turn.lock.lock().await;
        if self.is_closing() {
            return Timestamp::MAX;
        }
        if !self.has_room(account, need, self.least_ahead(need)) {
            return self.0.db.clock().now() + ROOM_SOON;
        }
        let for_later = Want {
            account,
            needs: &[],
            revision,
            at: self.0.db.clock().now(),
        };
        let carved = self.carve_for(&for_later, need, Units::ONE).await;
        let now = self.0.db.clock().now();
        match carved {
            Ok((Carved::Slice(_), _)) => now,
            // Whoever needs more than there is left finds out why.
            Ok(_) | Err(_) => now + REFUSAL_FRESH,
        }
    }
}
