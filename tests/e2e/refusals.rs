//! What is not accepted: each bad request is told which field breaks which rule, and leaves nothing behind.

/// A table of cases, each of them a line: what is wrong, what makes a good request so, what it is told.
macro_rules! cases {
    ($($what:literal => $change:expr => $expected:expr;)*) => {
        [$(($what, $change, $expected)),*]
    };
}

mod calls;
mod limits;
mod requests;

use anyhow::{Result, ensure};
use octroi_tests::harness::fleet::Fleet;
use sqlx::{Connection as _, PgConnection};

use crate::{asks::Refusal, story::both_topologies};
use calls::bad_calls_are_told_the_field_and_the_rule;
use limits::bad_calls_about_limits_are_told_the_field_and_the_rule;
use requests::bad_requests_are_told_the_field_and_the_rule;

both_topologies!(
    bad_calls_about_limits_are_told_the_field_and_the_rule,
    bad_calls_are_told_the_field_and_the_rule,
    bad_requests_are_told_the_field_and_the_rule
);

/// What is wrong with a request, what makes a good one so, and what it is told.
type Case<R> = (&'static str, fn(&mut R), Refusal);

/// The smallest amount that is too large.
const ABOVE: i64 = 1 << 53;

/// Nothing of any account is in the ledger but the demo's seed.
async fn nothing_was_written(fleet: &Fleet) -> Result<()> {
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM usage.ledger WHERE source <> 'seed'")
        .fetch_one(&mut session)
        .await?;
    ensure!(
        events == 0,
        "{events} events of refused requests are in the ledger"
    );
    let windows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM quota.quota_window WHERE account_id <> 'demo'")
            .fetch_one(&mut session)
            .await?;
    ensure!(windows == 0, "{windows} windows of refused requests are counted");
    Ok(session.close().await?)
}
