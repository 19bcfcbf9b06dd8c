//! `GetUsageEvent`: one event of the ledger, with what became of it.

use octroi_core::{Anchor, Period, Window, period::window_containing};
use octroi_kit::{db::Scope, directory::DirectoryError};

use super::Service;
use crate::{
    domain::event::Identity,
    error::Error,
    store::{self, FoundEvent},
};

/// An event, and where it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct EventView {
    /// The event with its corrections.
    pub found: FoundEvent,
    /// The hour, the day and the month of the account's zone that it counts in; none where its zone is not known.
    pub windows: Vec<(Period, Window)>,
    /// Whether the rollups have it and all its corrections.
    pub in_rollups: bool,
}

impl Service {
    /// The event of this identity as the ledger has it, with its corrections.
    ///
    /// # Errors
    /// [`Error::UsageEventNotFound`] where the ledger has none.
    pub async fn get_usage_event(&self, identity: Identity) -> Result<FoundEvent, Error> {
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

    /// The same, and where it counts.
    ///
    /// # Errors
    /// [`Error::UsageEventNotFound`] where the ledger has none.
    pub async fn view_usage_event(&self, identity: Identity) -> Result<EventView, Error> {
        let account = identity.account.clone();
        let found = self.get_usage_event(identity).await?;
        let at = found.recorded.place.event_at;
        let windows = match self.directory.get(&account).await {
            Ok(account) => [Period::Hour, Period::Day, Period::Month]
                .map(|period| {
                    let window = window_containing(period, at, &account.zone, Anchor::FIRST_OF_MONTH);
                    (period, window)
                })
                .to_vec(),
            // The event is read all the same.
            Err(DirectoryError::Closed(_) | DirectoryError::NotFound(_) | DirectoryError::Upstream(_)) => {
                Vec::new()
            }
        };
        let corrected = found.corrections.iter().map(|one| one.corrected_at);
        let written_at = corrected.fold(found.recorded.recorded_at, Ord::max);
        let in_rollups = written_at < self.get_watermark().await?.at;
        Ok(EventView {
            found,
            windows,
            in_rollups,
        })
    }
}
