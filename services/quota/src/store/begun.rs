//! Since when limits count.

use std::collections::HashMap;

use jiff::Timestamp;
use octroi_core::{AccountId, Entitlements, MetricSlug, Period};
use octroi_kit::db::{DatabaseError, corrupt, expect_rows};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};

use super::accounts::stage_from_name;
use crate::domain::begun::Begun;

/// When a limit began, as it is written down.
#[derive(Deserialize, Serialize)]
pub(super) struct StoredBegun {
    metric: MetricSlug,
    period: Period,
    at: Timestamp,
}

pub(super) fn to_stored(begun: &Begun) -> Json<Vec<StoredBegun>> {
    let stored = |(metric, period, at): (&MetricSlug, Period, Timestamp)| StoredBegun {
        metric: metric.clone(),
        period,
        at,
    };
    Json(begun.iter().map(stored).collect())
}

fn from_stored(stored: Json<Vec<StoredBegun>>) -> Begun {
    let begun = stored.0.into_iter().map(|one| ((one.metric, one.period), one.at));
    Begun::new(begun.collect())
}

/// The default plan, with when its limits began; none where there is no catalog.
pub async fn find_default_plan(
    connection: &mut PgConnection,
) -> Result<Option<(Entitlements, Begun)>, DatabaseError> {
    let found: Option<(Json<Entitlements>, Json<Vec<StoredBegun>>)> =
        sqlx::query_as("SELECT default_entitlements, begun FROM catalog")
            .fetch_optional(connection)
            .await?;
    Ok(found.map(|(plan, begun)| (plan.0, from_stored(begun))))
}

/// Writes down when the limits began that are in force for an account which something was pushed for.
pub async fn update_begun(
    connection: &mut PgConnection,
    account: &AccountId,
    begun: &Begun,
) -> Result<(), DatabaseError> {
    let done = sqlx::query("UPDATE entitlement SET begun = $2 WHERE account_id = $1")
        .bind(account.as_str())
        .bind(to_stored(begun))
        .execute(connection)
        .await?;
    expect_rows(1, done.rows_affected())
}

/// When the limits began that are in force for accounts.
pub async fn list_begun(
    connection: &mut PgConnection,
    accounts: &[&AccountId],
) -> Result<HashMap<AccountId, Begun>, DatabaseError> {
    type Row = (String, Option<String>, Option<Json<Vec<StoredBegun>>>);
    let default_plan = find_default_plan(&mut *connection).await?;
    let of_default = default_plan.map(|(_, begun)| begun).unwrap_or_default();
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT k.account_id, e.stage, e.begun FROM unnest($1::text[]) AS k (account_id)
         LEFT JOIN LATERAL (SELECT stage, begun FROM entitlement AS e WHERE e.account_id = k.account_id OFFSET 0) AS e ON true",
    )
    .bind(accounts.iter().map(|account| account.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    (rows.into_iter())
        .map(|(account, stage, begun)| {
            let account = AccountId::parse(&account).map_err(corrupt("account id"))?;
            let own = (stage.zip(begun))
                .map(|(stage, begun)| Ok::<_, DatabaseError>((stage_from_name(&stage)?, from_stored(begun))))
                .transpose()?;
            Ok((account, Begun::in_force(own, &of_default)))
        })
        .collect()
}
