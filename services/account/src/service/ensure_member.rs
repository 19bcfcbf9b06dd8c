//! Accounts and members that a deployment begins with, such as its operator.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::{config::Secret, db::Scope};
use uuid::Uuid;

use super::{
    Service,
    accounts::{NewAccount, create_account},
    sign_up::{check_password, create_member, name_of},
};
use crate::{
    domain::{
        account::AccountSettings,
        audit::Actor,
        email::Email,
        id::MemberId,
        member::{Member, Role},
    },
    error::Error,
    store,
};

/// A member that must be there, in an account that must be there.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The account.
    pub account_id: AccountId,
    /// The account's name, where the account is created.
    pub account_name: String,
    /// Zone and language, where the account is created.
    pub settings: AccountSettings,
    /// The member's address.
    pub email: Email,
    /// The member's password, where the member is created.
    pub password: Secret,
    /// What the member may do, where the member is created.
    pub role: Role,
}

impl Service {
    /// The member with this address in this account; both are created where they are missing, and left as
    /// they are where they are there. There is no other way to make an operator.
    ///
    /// # Errors
    /// [`Error::EmailTaken`] where the address belongs to a member of another account, [`Error::Fields`]
    /// where the password is not accepted, or what the database answers.
    pub async fn ensure_member(&self, seed: Seed, now: Timestamp) -> Result<Member, Error> {
        check_password(&seed.password, &seed.email)?;
        let actor = Actor {
            caller: crate::NAME.to_owned(),
            on_behalf_of: None,
        };
        let account_id = seed.account_id.clone();
        if let Some(member) = self.find_seeded(&account_id, &seed.email).await? {
            return Ok(member);
        }
        // Nothing is hashed where the member is there already, which is every start but the first.
        let password_hash = self
            .passwords
            .hash(self.passwords.sign_up_place()?, seed.password)
            .await?;
        let member = Member {
            member_id: MemberId::from_uuid(Uuid::new_v4()),
            account_id: account_id.clone(),
            display_name: name_of(&seed.email),
            email: seed.email.clone(),
            role: seed.role,
            language: seed.settings.language,
            created_at: now,
        };
        let account = NewAccount {
            account_id: Some(account_id.clone()),
            display_name: Some(seed.account_name),
            settings: seed.settings,
        }
        .at(now);
        let created = self
            .db
            .transaction(Scope::Account(account_id.clone()), move |connection| {
                Box::pin(async move {
                    create_account(connection, &account, &actor, now).await?;
                    create_member(connection, &member, &password_hash, &actor, now).await?;
                    Ok::<_, Error>(member)
                })
            })
            .await;
        self.wake.wake();
        match created {
            // Another process that starts at the same time was first.
            Err(Error::EmailTaken) => self
                .find_seeded(&account_id, &seed.email)
                .await?
                .ok_or(Error::EmailTaken),
            answer => answer,
        }
    }

    async fn find_seeded(&self, account_id: &AccountId, email: &Email) -> Result<Option<Member>, Error> {
        let (account_id, email) = (account_id.clone(), email.clone());
        self.db
            .transaction(Scope::Account(account_id.clone()), move |connection| {
                Box::pin(async move {
                    Ok::<_, Error>(
                        store::members::find_member_by_email(connection, &account_id, &email).await?,
                    )
                })
            })
            .await
    }
}
