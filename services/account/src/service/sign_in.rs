//! Signing in. Whoever does not know the password learns nothing: not by what is said, not by how long
//! it takes, not by what is counted.

use jiff::Timestamp;
use octroi_kit::{config::Secret, db::Scope};
use sqlx::PgConnection;

use super::{NewSession, Service, secrets, sign_up::open_session};
use crate::{
    domain::{
        account::AccountState,
        audit::Actor,
        email::Email,
        session::{Lifetime, SignedIn},
        throttle::{self, ClientAddress, Subject},
    },
    error::Error,
    store::{self, members::Credentials, throttle::Key},
};

/// Somebody who signs in.
#[derive(Clone, Debug)]
pub(crate) struct SignIn {
    pub(crate) email: Email,
    pub(crate) password: Secret,
    pub(crate) client_address: Option<ClientAddress>,
}

impl Service {
    /// Opens a session for a member.
    pub(crate) async fn sign_in(
        &self,
        try_: SignIn,
        actor: Actor,
        now: Timestamp,
    ) -> Result<NewSession, Error> {
        let answer = self.try_sign_in(try_, actor, now).await;
        let outcome = match &answer {
            Ok(_) => "opened",
            Err(Error::CredentialsInvalid) => "refused",
            Err(Error::TooEarly(_)) => "throttled",
            Err(_) => "failed",
        };
        metrics::counter!("octroi_account_sign_ins_total", "outcome" => outcome).increment(1);
        answer
    }

    async fn try_sign_in(&self, try_: SignIn, actor: Actor, now: Timestamp) -> Result<NewSession, Error> {
        let place = self.passwords.sign_in_place()?;
        let keys = self.throttle_keys(throttle::subjects(&try_.email, try_.client_address.as_ref()));
        let found = self.begin_try(keys.clone(), try_.email, now).await?;
        let hash = found
            .as_ref()
            .map(|credentials| credentials.password_hash.clone());
        let right = self.passwords.verify(place, try_.password, hash).await?;
        let Some(Credentials { member, account, .. }) = found.filter(|_| right) else {
            return Err(Error::CredentialsInvalid);
        };
        // Only who knows the password is told.
        if account.state == AccountState::Closed {
            return Err(Error::AccountClosed(account.account_id));
        }
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
                        take_back(connection, &keys, now).await?;
                        open_session(connection, &token_hash, &row, &actor, now).await
                    })
                },
            )
            .await?;
        Ok(NewSession {
            session: self.open_session(signed_in, &token),
            token,
        })
    }

    /// Counts the try as failed and looks for whoever has the address. A try that comes too early leaves
    /// no trace.
    async fn begin_try(
        &self,
        keys: Vec<Key>,
        email: Email,
        now: Timestamp,
    ) -> Result<Option<Credentials>, Error> {
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    count_try(connection, &keys, now).await?;
                    Ok::<_, Error>(store::members::find_credentials(connection, &email).await?)
                })
            })
            .await
    }

    /// What tries are counted by, as the store keeps it.
    pub(super) fn throttle_keys(&self, subjects: impl IntoIterator<Item = (Subject, String)>) -> Vec<Key> {
        let hashed = |(subject, address): (Subject, String)| {
            let hash = self.keys.throttle_hash(subject, &address);
            (subject, hash)
        };
        subjects.into_iter().map(hashed).collect()
    }
}

/// Counts a try as failed by each of these. Where one of them says that it comes too early, the caller's
/// transaction ends and nothing was counted.
pub(super) async fn count_try(
    connection: &mut PgConnection,
    keys: &[Key],
    now: Timestamp,
) -> Result<(), Error> {
    for key in keys {
        let before = store::throttle::lock_count(connection, key, now).await?;
        let after = throttle::after_try(key.0, before, now)?;
        store::throttle::upsert_count(connection, key, after).await?;
    }
    Ok(())
}

/// Undoes the count of a try that succeeded. An address keeps its other failures: else an attacker with a
/// password of their own could start anew at will.
async fn take_back(connection: &mut PgConnection, keys: &[Key], now: Timestamp) -> Result<(), Error> {
    for key in keys {
        match key.0 {
            Subject::EmailAtAddress | Subject::Email => {
                store::throttle::delete_count(connection, key).await?
            }
            Subject::Address => store::throttle::update_count_less_one(connection, key, now).await?,
            // Counted by signing up only.
            Subject::SignUp => {}
        }
    }
    Ok(())
}
