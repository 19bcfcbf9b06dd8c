//! Places of personas: each is taken once and given back once, whatever crashes in between.
//!
//! What is made is counted under the persona's id, so that it counts once however often that is said: by the layer of its
//! route, and where the program died before it heard of that, by the next one ([`settle_all`]). What is to be given back is
//! written with the deletion, and the id of the return is the persona's, with how often it was refused.
//!
//! What an account has too much of after a downgrade would be chosen and deleted here as well: it is one more reason to
//! call [`store::delete_persona`].

use std::time::{Duration, SystemTime};

use octroi_client::{
    Client, Refusal as _,
    proto::{
        errors::v1::ErrorReason,
        quota::v1::{CheckItem, RecordUsageRequest, ReturnQuotaRequest},
    },
};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    App,
    store::{self, Place},
};

/// One persona more in this month.
pub(crate) const CREATED: &str = "personas.created";
/// One persona more among those that are there.
pub(crate) const STORED: &str = "personas.stored";
/// How often what is left is looked for.
const EVERY: Duration = Duration::from_secs(1);
/// Why a place is never taken or given back.
const NEVER: [Option<ErrorReason>; 3] = [
    Some(ErrorReason::AccountClosed),
    Some(ErrorReason::AccountNotFound),
    Some(ErrorReason::MetricNotFound),
];
/// The most that is settled at a time.
const AT_ONCE: i64 = 100;

/// The name under which a persona is counted.
pub(crate) fn name_of(persona: Uuid) -> String {
    persona.to_string()
}

/// Gives back one place now. Where that fails, [`settle_all`] does it.
pub(crate) async fn return_one(app: &App, place: &Place) {
    try_return(&app.database, &app.client, place).await;
}

/// Counts what was left uncounted and gives back what was left, for as long as the program runs.
pub async fn settle_all(database: PgPool, client: Client) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = settle(&database, &client).await {
            tracing::warn!(error = %error, "places that are left cannot be read");
        }
    }
}

async fn settle(database: &PgPool, client: &Client) -> Result<(), sqlx::Error> {
    for place in store::list_uncounted(database, AT_ONCE).await? {
        if let Err(error) = count(database, client, &place).await {
            tracing::warn!(error = %error, persona.id = %place.persona_id, "a persona is counted later");
        }
    }
    for place in store::list_places_to_return(database, AT_ONCE).await? {
        try_return(database, client, &place).await;
    }
    Ok(())
}

/// Has a persona counted that is there already, unless it was.
async fn count(database: &PgPool, client: &Client, place: &Place) -> anyhow::Result<()> {
    let one = |metric: &str| CheckItem {
        metric: metric.to_owned(),
        amount: 1,
    };
    let request = RecordUsageRequest {
        account_id: place.account_id.clone(),
        items: vec![one(CREATED), one(STORED)],
        request_id: name_of(place.persona_id),
        event_time: Some(SystemTime::from(place.created_at).into()),
        backfill: true,
    };
    match client.quota().record_usage(request).await {
        Ok(_) => {}
        // The layer of its route had it counted, at another instant.
        Err(status) if status.reason() == Some(ErrorReason::RequestIdReused) => {}
        Err(status) if NEVER.contains(&status.reason()) => {
            tracing::error!(error = %status, persona.id = %place.persona_id, "a persona is not counted");
        }
        Err(status) => return Err(status.into()),
    }
    Ok(store::set_counted(database, place.persona_id).await?)
}

async fn try_return(database: &PgPool, client: &Client, place: &Place) {
    if let Err(error) = return_place(database, client, place).await {
        tracing::warn!(error = %error, persona.id = %place.persona_id, "a place is given back later");
    }
}

async fn return_place(database: &PgPool, client: &Client, place: &Place) -> anyhow::Result<()> {
    if !place.counted {
        count(database, client, place).await?;
    }
    let request = ReturnQuotaRequest {
        account_id: place.account_id.clone(),
        items: vec![CheckItem {
            metric: STORED.to_owned(),
            amount: 1,
        }],
        request_id: format!("{}.{}", place.persona_id, place.refusals),
    };
    match client.quota().return_quota(request).await {
        Ok(_) => {}
        Err(status) if NEVER.contains(&status.reason()) => {
            tracing::error!(error = %status, persona.id = %place.persona_id, "a place is not given back");
        }
        // What was taken for it waits in the journal: this request is refused for good, and the next is another.
        Err(status) if status.reason() == Some(ErrorReason::LevelBelowZero) => {
            store::count_refusal(database, place.persona_id).await?;
            return Err(status.into());
        }
        Err(status) => return Err(status.into()),
    }
    Ok(store::delete_place_to_return(database, place.persona_id).await?)
}
