//! Sessions: who they stand for, how they end.

use std::time::Duration;

use jiff::Timestamp;
use octroi_kit::{
    config::Secret,
    db::{DatabaseError, Db, Scope},
};
use tokio_util::sync::CancellationToken;

use super::{OpenSession, Service, audit_entry, secrets};
use crate::{
    domain::{
        account::AccountState,
        audit::{Action, Actor},
        session::{self, IDLE_MAX, Standing},
        throttle,
    },
    error::Error,
    store,
};

/// How often what has ended is deleted.
const CLEAN_INTERVAL: Duration = Duration::from_secs(3_600);
/// How many rows one transaction deletes, so that none is long.
const CLEAN_ROWS: i64 = 5_000;

impl Service {
    /// Ends a session at once. An unknown one is no error.
    pub(crate) async fn sign_out(&self, token: Secret, actor: Actor, now: Timestamp) -> Result<(), Error> {
        if !session::is_token(token.expose()) {
            return Ok(());
        }
        let token_hash = secrets::token_hash(&token);
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let Some((account, member)) =
                        store::sessions::delete_session(connection, &token_hash).await?
                    else {
                        return Ok(());
                    };
                    let actor = actor.acting_for(member.as_str());
                    let entry = audit_entry(&account, Action::SessionEnded, &actor, member.as_str(), now);
                    Ok::<_, Error>(store::audit::insert_audit_entry(connection, &entry).await?)
                })
            })
            .await
    }

    /// Who the session stands for. Its use is noted, at most once a minute.
    pub(crate) async fn get_session(&self, token: Secret, now: Timestamp) -> Result<OpenSession, Error> {
        if !session::is_token(token.expose()) {
            return Err(Error::SessionExpired);
        }
        let token_hash = secrets::token_hash(&token);
        let signed_in = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let found = store::sessions::find_session(connection, &token_hash).await?;
                    let signed_in = found
                        .filter(|signed_in| signed_in.account.state == AccountState::Active)
                        .ok_or(Error::SessionExpired)?;
                    match signed_in.lifetime.standing(now) {
                        Standing::Expired => return Err(Error::SessionExpired),
                        Standing::Live => {}
                        Standing::LiveToNote => {
                            store::sessions::update_session_seen(connection, &token_hash, now).await?;
                        }
                    }
                    Ok(signed_in)
                })
            })
            .await?;
        Ok(self.open_session(signed_in, &token))
    }
}

/// Deletes sessions that have ended, and counts of failures that are forgotten, every hour until `stop`.
pub(crate) async fn clean_sessions(db: Db, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(CLEAN_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match clean(&db, &stop).await {
            Ok(deleted) => tracing::debug!(sessions.deleted = deleted, "ended sessions were deleted"),
            Err(error) => tracing::warn!(error = %error, "ended sessions could not be deleted"),
        }
    }
}

async fn clean(db: &Db, stop: &CancellationToken) -> Result<u64, DatabaseError> {
    let mut total = 0;
    while !stop.is_cancelled() {
        let now = db.clock().now();
        let deleted = db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let idle_since = now.saturating_sub(IDLE_MAX).unwrap_or(Timestamp::MIN);
                    let sessions =
                        store::sessions::delete_ended_sessions(connection, now, idle_since, CLEAN_ROWS)
                            .await?;
                    let forgotten_since = now.saturating_sub(throttle::MEMORY).unwrap_or(Timestamp::MIN);
                    let counts =
                        store::throttle::delete_old_counts(connection, forgotten_since, CLEAN_ROWS).await?;
                    Ok::<_, DatabaseError>(sessions + counts)
                })
            })
            .await?;
        if deleted == 0 {
            break;
        }
        total += deleted;
    }
    Ok(total)
}
