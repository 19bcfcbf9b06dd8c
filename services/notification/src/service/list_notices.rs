//! What an account was told in the app.

use octroi_core::AccountId;
use octroi_kit::db::Scope;

use super::{Service, page::Paging};
use crate::{
    channels::in_app::{self, ShownNotice},
    error::Error,
    store::{self, Counts},
    templates::Reader,
};

/// Which notices are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListNotices {
    /// Whose.
    pub account: AccountId,
    /// Only those that were not read.
    pub unread_only: bool,
    /// How many at most.
    pub page_size: i64,
    /// Where to go on.
    pub page_token: String,
}

/// A page of notices, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticePage {
    /// The notices.
    pub notices: Vec<ShownNotice>,
    /// Where to go on; empty at the end.
    pub next_page_token: String,
    /// Over all pages, read or not.
    pub counts: Counts,
}

impl Service {
    /// Lists an account's notices, newest first, in its language.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_notices(&self, request: ListNotices) -> Result<NoticePage, Error> {
        let ListNotices {
            account,
            unread_only,
            page_size,
            page_token,
        } = request;
        let paging = Paging {
            list: if unread_only { "notices.unread" } else { "notices" },
            account: &account,
            size: page_size,
        };
        let after = self.page_begin(paging, &page_token)?;
        let manner = self.manner(&account).await?;
        let (owner, count) = (account.clone(), paging.looked_for());
        let (mut notices, counts) = self
            .db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    let notices = store::find_notices(connection, &owner, unread_only, after, count).await?;
                    let counts = store::count_notices(connection, &owner).await?;
                    Ok::<_, Error>((notices, counts))
                })
            })
            .await?;
        let next_page_token = self.page_end(paging, &mut notices, usize::MAX);
        let reader = Reader {
            language: manner.language,
            zone: &manner.zone,
            account_name: &manner.name,
            console: None,
        };
        let notices: Result<_, Error> = notices
            .into_iter()
            .map(|notice| in_app::show(notice, &self.templates, &reader))
            .collect();
        Ok(NoticePage {
            notices: notices?,
            next_page_token,
            counts,
        })
    }
}
