//! Accounts: create, look up, change.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::{db::Scope, outbox};
use octroi_proto::events::v1::{AccountCreated, AccountZoneChanged};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Service, audit_entry};
use crate::{
    domain::{
        account::{Account, AccountChange, AccountSettings, AccountState, NAME_CHARACTERS_MAX},
        audit::{Action, Actor},
        id::minted_account_id,
    },
    error::Error,
    store,
};

/// An account to be created.
#[derive(Clone, Debug)]
pub(crate) struct NewAccount {
    /// The caller's id; none has one minted.
    pub(crate) account_id: Option<AccountId>,
    /// The name people read; none takes the id.
    pub(crate) display_name: Option<String>,
    pub(crate) settings: AccountSettings,
}

impl NewAccount {
    /// The account as it is from now on.
    pub(super) fn at(self, now: Timestamp) -> Account {
        let account_id = self
            .account_id
            .unwrap_or_else(|| minted_account_id(Uuid::new_v4()));
        let display_name = self
            .display_name
            .unwrap_or_else(|| account_id.as_str().chars().take(NAME_CHARACTERS_MAX).collect());
        Account {
            account_id,
            display_name,
            settings: self.settings,
            state: AccountState::Active,
            created_at: now,
        }
    }
}

/// Creates the account where it is not there, with its audit entry and its event; whether it did.
pub(super) async fn create_account(
    connection: &mut PgConnection,
    account: &Account,
    actor: &Actor,
    now: Timestamp,
) -> Result<bool, Error> {
    if !store::accounts::insert_account(connection, account).await? {
        return Ok(false);
    }
    let id = &account.account_id;
    let entry = audit_entry(id, Action::AccountCreated, actor, id.as_str(), now);
    store::audit::insert_audit_entry(connection, &entry).await?;
    let event = AccountCreated {
        account_id: id.to_string(),
        zone: account.settings.zone.clone(),
    };
    outbox::enqueue(connection, &event, now).await?;
    Ok(true)
}

impl Service {
    /// The account of this id, created where it was not there; and whether it was.
    pub(crate) async fn upsert_account(
        &self,
        new: NewAccount,
        actor: Actor,
        now: Timestamp,
    ) -> Result<(Account, bool), Error> {
        let account = new.at(now);
        let answer = self
            .db
            .transaction(Scope::Account(account.account_id.clone()), move |connection| {
                Box::pin(async move {
                    if create_account(connection, &account, &actor, now).await? {
                        return Ok::<_, Error>((account, true));
                    }
                    Ok((
                        store::accounts::get_account(connection, &account.account_id).await?,
                        false,
                    ))
                })
            })
            .await?;
        if answer.1 {
            self.wake.wake();
        }
        Ok(answer)
    }

    /// The account of this id, closed or not.
    pub(crate) async fn get_account(&self, account_id: AccountId) -> Result<Account, Error> {
        self.db
            .transaction(Scope::Account(account_id.clone()), move |connection| {
                Box::pin(async move { store::accounts::get_account(connection, &account_id).await })
            })
            .await
    }

    /// Those of these accounts that exist, closed or not.
    pub(crate) async fn list_accounts(&self, accounts: Vec<AccountId>) -> Result<Vec<Account>, Error> {
        let listed = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { store::accounts::list_accounts(connection, &accounts).await })
            })
            .await?;
        Ok(listed)
    }

    /// Changes an account that is in use. What stays as it was leaves no trace.
    pub(crate) async fn update_account(
        &self,
        account_id: AccountId,
        change: AccountChange,
        actor: Actor,
        now: Timestamp,
    ) -> Result<Account, Error> {
        let account = self
            .db
            .transaction(Scope::Account(account_id.clone()), move |connection| {
                Box::pin(async move {
                    let before = store::accounts::lock_account(connection, &account_id).await?;
                    if before.state == AccountState::Closed {
                        return Err(Error::AccountClosed(account_id));
                    }
                    let (after, changed) = before.changed(change);
                    if !changed.is_empty() {
                        write_change(connection, &after, &changed, &actor, now).await?;
                    }
                    Ok::<_, Error>(after)
                })
            })
            .await?;
        self.wake.wake();
        Ok(account)
    }
}

async fn write_change(
    connection: &mut PgConnection,
    after: &Account,
    changed: &[&'static str],
    actor: &Actor,
    now: Timestamp,
) -> Result<(), Error> {
    let zone_version = store::accounts::update_account(connection, after, now).await?;
    let id = &after.account_id;
    let mut entry = audit_entry(id, Action::AccountUpdated, actor, id.as_str(), now);
    entry.details.push(("changed", changed.join(" ")));
    store::audit::insert_audit_entry(connection, &entry).await?;
    if changed.contains(&"zone") {
        let event = AccountZoneChanged {
            account_id: id.to_string(),
            zone: after.settings.zone.clone(),
            version: zone_version,
        };
        outbox::enqueue(connection, &event, now).await?;
    }
    Ok(())
}
