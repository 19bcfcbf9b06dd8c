//! Somebody read what they were told.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::Scope;
use uuid::Uuid;

use super::Service;
use crate::{error::Error, store};

/// Which notices were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkNoticesRead {
    /// Whose.
    pub account: AccountId,
    /// The notices.
    pub notice_ids: Vec<Uuid>,
}

impl Service {
    /// Marks notices as read, all or none, and answers how many were not read before.
    ///
    /// # Errors
    /// [`Error::NoticeNotFound`] where one is not the account's.
    pub async fn mark_notices_read(&self, request: MarkNoticesRead, now: Timestamp) -> Result<u64, Error> {
        let MarkNoticesRead { account, notice_ids } = request;
        self.db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    let found = store::lock_notices(connection, &account, &notice_ids).await?;
                    if let Some(unknown) = notice_ids.iter().find(|id| !found.contains(id)) {
                        return Err(Error::NoticeNotFound(*unknown));
                    }
                    Ok(store::update_notices_read(connection, &account, &found, now).await?)
                })
            })
            .await
    }
}
