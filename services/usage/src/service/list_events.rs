//! `ListUsageEvents`: the events of an account, newest first.

use octroi_kit::db::Scope;

use super::Service;
use crate::{
    domain::{event::RecordedEvent, events::EventsQuery},
    error::Error,
    store,
};

impl Service {
    /// Up to `limit` of the events that are asked for, the newest first.
    ///
    /// # Errors
    /// [`Error`] where account or metric do not exist.
    pub async fn list_usage_events(
        &self,
        query: EventsQuery,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, Error> {
        self.directory.get(&query.account).await?;
        if let Some(metric) = &query.metric {
            self.catalog.check(metric).await?;
        }
        self.db
            .transaction(Scope::Account(query.account.clone()), move |connection| {
                Box::pin(async move { store::list_events(connection, &query, limit).await })
            })
            .await
    }
}
