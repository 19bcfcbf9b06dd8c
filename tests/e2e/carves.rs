//! Windows that others write down while slices are carved from them.

use anyhow::{Result, ensure};
use octroi_tests::harness::fleet::{APPLICATION, Fleet, eventually};
use sqlx::{Connection as _, PgConnection};

use crate::{
    asks::{consume, decide, reserve, upsert_account},
    story::both_topologies,
};

both_topologies!(
    a_check_looks_again_at_a_window_that_others_wrote_meanwhile,
    a_hold_looks_again_at_a_window_that_others_wrote_meanwhile,
);

const ACCOUNT: &str = "acme";
/// 25, where nothing was bought.
const STORED: &str = "personas.stored";

async fn a_check_looks_again_at_a_window_that_others_wrote_meanwhile(fleet: &mut Fleet) -> Result<()> {
    beside_others(fleet, async |request_id: &str, amount| {
        let app = fleet.clients(APPLICATION)?;
        let check = consume(ACCOUNT, request_id, &[(STORED, amount)]);
        Ok(decide(&app, check).await?.allowed)
    })
    .await
}

async fn a_hold_looks_again_at_a_window_that_others_wrote_meanwhile(fleet: &mut Fleet) -> Result<()> {
    beside_others(fleet, async |request_id: &str, amount| {
        let app = fleet.clients(APPLICATION)?;
        let hold = reserve(ACCOUNT, request_id, &[(STORED, amount)]);
        let answer = app.quota.clone().reserve_quota(hold).await?.into_inner();
        Ok(!answer.hold_id.is_empty())
    })
    .await
}

/// Two are asked for while others, unseen until they commit, have 24 of 25.
async fn beside_others(fleet: &Fleet, take: impl AsyncFn(&str, i64) -> Result<bool>) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    for account in [ACCOUNT, "other"] {
        upsert_account(&app, account).await?;
    }
    let other = decide(&app, consume("other", "t-1", &[(STORED, 1)])).await?;
    ensure!(other.allowed, "{other:?}");

    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let mut others = session.begin().await?;
    let written = sqlx::query(
        "INSERT INTO quota.quota_window (account_id, metric, period, start_at, end_at, charged)
         SELECT $1, metric, period, start_at, end_at, 24 FROM quota.quota_window WHERE account_id = 'other'",
    )
    .bind(ACCOUNT)
    .execute(&mut *others)
    .await?;
    ensure!(written.rows_affected() == 1, "{written:?}");
    let commit = async {
        waits_for_others(fleet).await?;
        Ok(others.commit().await?)
    };
    let (taken, ()) = futures::try_join!(take("t-2", 2), commit)?;
    ensure!(!taken, "only one is left");
    ensure!(take("t-3", 1).await?, "one is left");
    ensure!(!take("t-4", 1).await?, "none is left");
    session.close().await?;
    Ok(())
}

/// Somebody waits for a row that is not committed.
async fn waits_for_others(fleet: &Fleet) -> Result<()> {
    let mut looker = PgConnection::connect(fleet.database().superuser_url()).await?;
    eventually("a carve waits for the window", async || {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(&mut looker)
        .await?;
        ensure!(waiting > 0, "nobody waits");
        Ok(())
    })
    .await?;
    looker.close().await?;
    Ok(())
}
