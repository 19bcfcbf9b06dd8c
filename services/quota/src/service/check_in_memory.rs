//! `CheckQuota` where everything that it needs is in the memory of this replica.

use super::Service;
use crate::{
    domain::{check::decision_id, decision::Decision},
    escrow::{Quick, QuickCheck},
};

impl Service {
    /// Decides a check of `caller` from memory. Where that cannot be done, or the request came before,
    /// [`Service::check_quota`] decides.
    #[must_use]
    pub fn check_in_memory(&self, check: &QuickCheck<'_>, caller: &str) -> Quick<Decision> {
        let Some(request) = check.request else {
            // A look has no request that it could be the answer to.
            let id = || uuid::Uuid::new_v4().simple().to_string();
            let made = self.escrow.decide_from_memory(check, id);
            return made.map(|made| self.decisions.note_quick(check, caller, made));
        };
        let mark = self.seen.mark(check.account, caller, request);
        let content = self.seen.content(check.items.iter().copied());
        if self.seen.begin(mark, content).is_err() {
            return Quick::Elsewhere;
        }
        let id = || decision_id(check.account, caller, request);
        let made = self.escrow.decide_from_memory(check, id);
        match &made {
            Quick::Made(made) => self.seen.end(mark, content, made.decision.allowed),
            Quick::Carving(_) | Quick::Elsewhere => self.seen.forget(mark),
        }
        made.map(|made| self.decisions.note_quick(check, caller, made))
    }
}
