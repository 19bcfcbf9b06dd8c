//! Places of personas that were deleted: given back to Octroi exactly once, whatever crashes in between, because what is to
//! be given back is written with the deletion, and the id of the return is the persona's, with how often it was refused.
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

use crate::{
    App,
    store::{self, Place},
};

/// How often what is left is looked for.
const EVERY: Duration = Duration::from_secs(1);
/// Why a place is never given back.
const NEVER: [Option<ErrorReason>; 3] = [
    Some(ErrorReason::AccountClosed),
    Some(ErrorReason::AccountNotFound),
    Some(ErrorReason::MetricNotFound),
];
/// The most that is given back at a time.
const AT_ONCE: i64 = 100;

/// Gives back one place now. Where that fails, [`return_all`] does it.
pub(crate) async fn return_one(app: &App, persona: Uuid, account: &str) {
    let place = Place {
        persona_id: persona,
        account_id: account.to_owned(),
        refusals: 0,
    };
    try_return(&app.database, &app.client, &place).await;
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
        for place in left {
            try_return(&database, &client, &place).await;
        }
    }
}

async fn try_return(database: &PgPool, client: &Client, place: &Place) {
    if let Err(error) = return_place(database, client, place).await {
        tracing::warn!(error = %error, persona.id = %place.persona_id, "a place is given back later");
    }
}

async fn return_place(database: &PgPool, client: &Client, place: &Place) -> anyhow::Result<()> {
    let request = ReturnQuotaRequest {
        account_id: place.account_id.clone(),
        items: vec![CheckItem {
            metric: "personas.stored".to_owned(),
            amount: 1,
        }],
        request_id: format!("{}.{}", place.persona_id, place.refusals),
    };
    match client.quota().return_quota(request).await {
        Ok(_) => {}
        Err(status) if NEVER.contains(&status.reason()) => {
            tracing::error!(error = %status, persona.id = %place.persona_id, "a place is not given back");
        }
        // What was taken for it is not recorded yet: this request is refused for good, and the next is another.
        Err(status) if status.reason() == Some(ErrorReason::LevelBelowZero) => {
            store::count_refusal(database, place.persona_id).await?;
            return Err(status.into());
        }
        Err(status) => return Err(status.into()),
    }
    Ok(store::delete_place_to_return(database, place.persona_id).await?)
}
