//! `GetUsageEvent`: one event of the ledger.

use octroi_kit::db::Scope;

use super::Service;
use crate::{
    domain::event::{Identity, PayloadHash, RecordedEvent},
    error::Error,
    store,
};

impl Service {
    /// The event of this identity, and the hash of its content.
    ///
    /// # Errors
    /// [`Error::UsageEventNotFound`] where the ledger has none.
    pub async fn get_usage_event(&self, identity: Identity) -> Result<(RecordedEvent, PayloadHash), Error> {
        self.db
            .transaction(Scope::Account(identity.account.clone()), move |connection| {
                Box::pin(async move {
                    let found = store::find_event(connection, &identity).await?;
                    found.ok_or_else(|| Error::UsageEventNotFound {
                        event_id: identity.event_id.to_string(),
                        source_name: identity.source.to_string(),
                    })
                })
            })
            .await
    }
}
