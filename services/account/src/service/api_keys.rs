//! API keys: make, list, revoke, verify.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::{config::Secret, db::Scope};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Service, audit_entry, secrets};
use crate::{
    domain::{
        account::AccountState,
        api_key::{self, ApiKey, Cursor},
        audit::{Action, Actor},
        id::{KeyId, MemberId},
    },
    error::Error,
    store,
};

/// A key to be made.
#[derive(Clone, Debug)]
pub(crate) struct NewApiKey {
    pub(crate) account_id: AccountId,
    pub(crate) label: String,
    pub(crate) scopes: Vec<api_key::Scope>,
}

/// Refuses a member who may not manage keys, and whoever is no member at all. A service that acts for
/// nobody was let through by the table of callers.
async fn check_may_manage_keys(
    connection: &mut PgConnection,
    account_id: &AccountId,
    actor: &Actor,
) -> Result<(), Error> {
    let Some(member) = &actor.on_behalf_of else {
        return Ok(());
    };
    let member_id = MemberId::parse(member).ok_or(Error::RoleRequired)?;
    let member = store::members::find_member(connection, account_id, &member_id).await?;
    if member.is_some_and(|member| member.role.may_manage_keys()) {
        Ok(())
    } else {
        Err(Error::RoleRequired)
    }
}

impl Service {
    /// Makes a key. Its secret is answered once and never again.
    pub(crate) async fn create_api_key(
        &self,
        new: NewApiKey,
        actor: Actor,
        now: Timestamp,
    ) -> Result<(ApiKey, Secret), Error> {
        let secret = secrets::api_key_secret();
        let secret_hash = self.keys.api_key_hash(&secret);
        let key = ApiKey {
            key_id: KeyId::from_uuid(Uuid::new_v4()),
            account_id: new.account_id,
            label: new.label,
            prefix: api_key::shown_prefix(secret.expose()),
            scopes: new.scopes,
            created_at: now,
            revoked_at: None,
        };
        let key = self
            .db
            .transaction(Scope::Account(key.account_id.clone()), move |connection| {
                Box::pin(async move {
                    let account = store::accounts::get_account(connection, &key.account_id).await?;
                    if account.state == AccountState::Closed {
                        return Err(Error::AccountClosed(account.account_id));
                    }
                    check_may_manage_keys(connection, &key.account_id, &actor).await?;
                    store::api_keys::insert_api_key(connection, &key, &secret_hash).await?;
                    audit_key(connection, &key, Action::ApiKeyCreated, &actor, now).await?;
                    Ok::<_, Error>(key)
                })
            })
            .await?;
        Ok((key, secret))
    }

    /// The account's keys, newest first, revoked ones included.
    pub(crate) async fn list_api_keys(
        &self,
        account_id: AccountId,
        after: Option<Cursor>,
        limit: i64,
    ) -> Result<Vec<ApiKey>, Error> {
        self.db
            .transaction(Scope::Account(account_id.clone()), move |connection| {
                Box::pin(async move {
                    store::accounts::get_account(connection, &account_id).await?;
                    Ok(
                        store::api_keys::list_api_keys(connection, &account_id, after.as_ref(), limit)
                            .await?,
                    )
                })
            })
            .await
    }

    /// Ends a key. Doing it again changes nothing.
    pub(crate) async fn revoke_api_key(
        &self,
        account_id: AccountId,
        key_id: KeyId,
        actor: Actor,
        now: Timestamp,
    ) -> Result<ApiKey, Error> {
        self.db
            .transaction(Scope::Account(account_id.clone()), move |connection| {
                Box::pin(async move {
                    store::accounts::get_account(connection, &account_id).await?;
                    check_may_manage_keys(connection, &account_id, &actor).await?;
                    let found = store::api_keys::lock_api_key(connection, &account_id, &key_id).await?;
                    let mut key = found.ok_or_else(|| Error::ApiKeyNotFound(Some(key_id.clone())))?;
                    if key.revoked_at.is_none() {
                        store::api_keys::update_api_key_revoked(connection, &account_id, &key_id, now)
                            .await?;
                        audit_key(connection, &key, Action::ApiKeyRevoked, &actor, now).await?;
                        key.revoked_at = Some(now);
                    }
                    Ok(key)
                })
            })
            .await
    }

    /// The key with this secret, where it works and its account is in use.
    pub(crate) async fn verify_api_key(&self, secret: Secret) -> Result<ApiKey, Error> {
        if !api_key::is_secret(secret.expose()) {
            return Err(Error::ApiKeyInvalid);
        }
        let secret_hash = self.keys.api_key_hash(&secret);
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let found = store::api_keys::find_working_api_key(connection, &secret_hash).await?;
                    found.ok_or(Error::ApiKeyInvalid)
                })
            })
            .await
    }
}

async fn audit_key(
    connection: &mut PgConnection,
    key: &ApiKey,
    action: Action,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), Error> {
    let mut entry = audit_entry(&key.account_id, action, actor, key.key_id.as_str(), now);
    let scopes: Vec<&str> = key.scopes.iter().copied().map(api_key::Scope::as_str).collect();
    entry.details = vec![
        ("label", key.label.clone()),
        ("prefix", key.prefix.clone()),
        ("scopes", scopes.join(" ")),
    ];
    Ok(store::audit::insert_audit_entry(connection, &entry).await?)
}
