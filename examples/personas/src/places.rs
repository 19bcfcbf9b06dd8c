//! Places of personas that were deleted: given back to Octroi exactly once, whatever crashes in between, because what is to
//! be given back is written with the deletion, and the id of the return is the persona's.
//!
//! What an account has too much of after a downgrade would be chosen and deleted here as well: it is one more reason to
//! call [`store::delete_persona`].

use std::time::Duration;

use octroi_client::{
    Client, Refusal as _,
    proto::{
        errors::v1::ErrorReason,
        quota::v1::{CheckItem, ReturnQuotaRequest},
    },
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{App, store};

/// How often what is left is looked for.
const EVERY: Duration = Duration::from_secs(1);
/// Why a place is never given back.
const NEVER: [Option<ErrorReason>; 3] = [
    Some(ErrorReason::AccountClosed),
    Some(ErrorReason::AccountNotFound),
    Some(ErrorReason::LevelBelowZero),
];
/// The most that is given back at a time.
const AT_ONCE: i64 = 100;

/// Gives back one place now. Where that fails, [`return_all`] does it.
pub(crate) async fn return_one(app: &App, persona: Uuid, account: &str) {
    if let Err(error) = try_return(&app.database, &app.client, persona, account).await {
        tracing::warn!(error = %error, persona.id = %persona, "a place is given back later");
    }
}

/// Gives back what is left, for as long as the program runs.
pub async fn return_all(database: PgPool, client: Client) {
    loop {
        tokio::time::sleep(EVERY).await;
        let left = match store::list_places_to_return(&database, AT_ONCE).await {
            Ok(left) => left,
            Err(error) => {
                tracing::warn!(error = %error, "places that are to be given back cannot be read");
                continue;
            }
        };
        for (persona, account) in left {
            if let Err(error) = try_return(&database, &client, persona, &account).await {
                tracing::warn!(error = %error, persona.id = %persona, "a place is given back later");
            }
        }
    }
}

async fn try_return(database: &PgPool, client: &Client, persona: Uuid, account: &str) -> anyhow::Result<()> {
    let request = ReturnQuotaRequest {
        account_id: account.to_owned(),
        items: vec![CheckItem {
            metric: "personas.stored".to_owned(),
            amount: 1,
        }],
        request_id: persona.to_string(),
    };
    match client.quota().return_quota(request).await {
        Ok(_) => {}
        // It would be refused again, and others wait behind it.
        Err(status) if NEVER.contains(&status.reason()) => {
            tracing::error!(error = %status, persona.id = %persona, "a place is not given back");
        }
        Err(status) => return Err(status.into()),
    }
    Ok(store::delete_place_to_return(database, persona).await?)
}
