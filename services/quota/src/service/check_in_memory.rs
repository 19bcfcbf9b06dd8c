//! `CheckQuota` where everything that it needs is in the memory of this replica.

use super::Service;
use crate::{
    domain::{check::decision_id, decision::Decision},
    escrow::QuickCheck,
};

impl Service {
    /// Decides a check of `caller` from memory; none where that cannot be done, or the request came before: then
    /// [`Service::check_quota`] decides.
    #[must_use]
    pub fn check_in_memory(&self, check: &QuickCheck<'_>, caller: &str) -> Option<Decision> {
        let Some(request) = check.request else {
            // A look has no request that it could be the answer to.
            let id = || uuid::Uuid::new_v4().simple().to_string();
            return self.escrow.decide_from_memory(check, id);
        };
        let mark = self.seen.mark(check.account, caller, request);
        let content = self.seen.content(check.items.iter().copied());
        self.seen.begin(mark, content).ok()?;
        let id = || decision_id(check.account, caller, request);
        let decision = self.escrow.decide_from_memory(check, id);
        match &decision {
            Some(decision) => self.seen.end(mark, content, decision.allowed),
            None => self.seen.forget(mark),
        }
        decision
    }
}
