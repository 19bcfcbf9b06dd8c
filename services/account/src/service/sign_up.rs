//! Signing up: an account, its owner, a session.
//!
//! That an address belongs to a member is told: whoever signs up is let in at once, so an address that is
//! taken cannot look like one that is free. How many addresses somebody can ask for is bounded by the
//! throttle.

use jiff::Timestamp;
use octroi_kit::{config::Secret, db::Scope};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    NewSession, Service,
    accounts::{NewAccount, create_account},
    audit_entry, secrets,
    sign_in::count_try,
};
use crate::{
    domain::{
        account::{AccountSettings, NAME_CHARACTERS_MAX},
        audit::{Action, Actor},
        email::Email,
        id::MemberId,
        member::{Member, Role},
        password,
        session::{Lifetime, SignedIn},
        throttle::{self, ClientAddress},
    },
    error::{Error, field},
    store,
};

/// Somebody who signs up.
#[derive(Clone, Debug)]
pub(crate) struct SignUp {
    pub(crate) email: Email,
    pub(crate) password: Secret,
    /// The name of the account; none takes the address.
    pub(crate) display_name: Option<String>,
    pub(crate) settings: AccountSettings,
    pub(crate) client_address: Option<ClientAddress>,
}

/// The name of whoever has told nothing but an address.
pub(super) fn name_of(email: &Email) -> String {
    email.as_given().chars().take(NAME_CHARACTERS_MAX).collect()
}

/// Refuses a password that is not accepted.
pub(super) fn check_password(password: &Secret, email: &Email) -> Result<(), Error> {
    password::check(password.expose(), email).map_err(|weak| field("password", weak))
}

/// Adds a member with a password, and the audit entry.
pub(super) async fn create_member(
    connection: &mut PgConnection,
    member: &Member,
    password_hash: &str,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), Error> {
    if !store::members::insert_member(connection, member).await? {
        return Err(Error::EmailTaken);
    }
    store::members::insert_password(connection, member, password_hash, now).await?;
    let mut entry = audit_entry(
        &member.account_id,
        Action::MemberCreated,
        actor,
        member.member_id.as_str(),
        now,
    );
    entry.details.push(("role", member.role.as_str().to_owned()));
    Ok(store::audit::insert_audit_entry(connection, &entry).await?)
}

impl Service {
    /// Creates an account with its owner and opens a session.
    pub(crate) async fn sign_up(
        &self,
        new: SignUp,
        actor: Actor,
        now: Timestamp,
    ) -> Result<NewSession, Error> {
        let SignUp {
            email,
            password,
            display_name,
            settings,
            client_address,
        } = new;
        check_password(&password, &email)?;
        let place = self.passwords.sign_up_place()?;
        self.begin_sign_up(client_address.as_ref(), now).await?;
        let password_hash = self.passwords.hash(place, password).await?;
        let display_name = Some(display_name.unwrap_or_else(|| name_of(&email)));
        let account = NewAccount {
            account_id: None,
            display_name,
            settings,
        }
        .at(now);
        let member = Member {
            member_id: MemberId::from_uuid(Uuid::new_v4()),
            account_id: account.account_id.clone(),
            display_name: name_of(&email),
            email,
            role: Role::Owner,
            language: account.settings.language,
            created_at: now,
        };
        let actor = actor.acting_for(member.member_id.as_str());
        let signed_in = SignedIn {
            member,
            account,
            lifetime: Lifetime::beginning(now),
        };
        let token = secrets::session_token();
        let (token_hash, row) = (secrets::token_hash(&token), signed_in.clone());
        self.db
            .transaction(
                Scope::Account(row.account.account_id.clone()),
                move |connection| {
                    Box::pin(async move {
                        create_account(connection, &row.account, &actor, now).await?;
                        create_member(connection, &row.member, &password_hash, &actor, now).await?;
                        open_session(connection, &token_hash, &row, &actor, now).await
                    })
                },
            )
            .await?;
        self.wake.wake();
        Ok(NewSession {
            session: self.open_session(signed_in, &token),
            token,
        })
    }

    /// Counts the sign-up by where it comes from, whatever becomes of it.
    async fn begin_sign_up(&self, client: Option<&ClientAddress>, now: Timestamp) -> Result<(), Error> {
        let keys = self.throttle_keys(throttle::sign_up_subject(client));
        if keys.is_empty() {
            return Ok(());
        }
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { count_try(connection, &keys, now).await })
            })
            .await
    }
}

/// Adds a session, and the audit entry.
pub(super) async fn open_session(
    connection: &mut PgConnection,
    token_hash: &store::sessions::TokenHash,
    signed_in: &SignedIn,
    actor: &Actor,
    now: Timestamp,
) -> Result<(), Error> {
    let SignedIn { member, lifetime, .. } = signed_in;
    store::sessions::insert_session(connection, token_hash, member, *lifetime).await?;
    let entry = audit_entry(
        &member.account_id,
        Action::SessionOpened,
        actor,
        member.member_id.as_str(),
        now,
    );
    Ok(store::audit::insert_audit_entry(connection, &entry).await?)
}
