//! A threshold was crossed.

use jiff::Timestamp;
use octroi_core::AccountId;
use sqlx::PgConnection;

use super::tell::tell;
use crate::{
    domain::{Kind, threshold::ThresholdCrossed},
    error::Error,
    store::NewNotice,
};

/// Writes the notice, and notes that it goes out by e-mail where somebody need act.
///
/// # Errors
/// [`Error`] of the database.
pub async fn take_threshold_crossed(
    connection: &mut PgConnection,
    account: &AccountId,
    crossed: &ThresholdCrossed,
    per_account_day_max: u32,
    now: Timestamp,
) -> Result<(), Error> {
    let dedupe_key = crossed.dedupe_key();
    let notice = NewNotice {
        account,
        kind: Kind::ThresholdCrossed,
        dedupe_key: &dedupe_key,
        severity: crossed.severity(),
        facts: crossed.to_facts(),
    };
    tell(connection, notice, crossed.by_email(), per_account_day_max, now).await
}
