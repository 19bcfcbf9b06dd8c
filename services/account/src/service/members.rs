//! Members of an account.

use octroi_core::AccountId;
use octroi_kit::db::Scope;

use super::Service;
use crate::{
    domain::{id::MemberId, member::Member},
    error::Error,
    store,
};

impl Service {
    /// The account's members by id, at most `limit`, after `after`.
    pub(crate) async fn list_members(
        &self,
        account_id: AccountId,
        after: Option<MemberId>,
        limit: i64,
    ) -> Result<Vec<Member>, Error> {
        self.db
            .transaction(Scope::Account(account_id.clone()), move |connection| {
                Box::pin(async move {
                    store::accounts::get_account(connection, &account_id).await?;
                    Ok(store::members::list_members(connection, &account_id, after.as_ref(), limit).await?)
                })
            })
            .await
    }
}
