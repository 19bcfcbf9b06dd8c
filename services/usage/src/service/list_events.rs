//! `ListUsageEvents`: the events of an account, newest first.

use octroi_core::{AccountId, MetricSlug};
use octroi_kit::db::Scope;

use super::Service;
use crate::{domain::event::RecordedEvent, error::Error, store};

impl Service {
    /// Up to `limit` events before the place `before`, the newest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_usage_events(
        &self,
        account: AccountId,
        metric: Option<MetricSlug>,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, Error> {
        self.directory.get(&account).await?;
        self.db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    store::list_events(connection, &account, metric.as_ref(), before, limit).await
                })
            })
            .await
    }
}
