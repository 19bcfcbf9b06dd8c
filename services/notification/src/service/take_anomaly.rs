//! Use left what is expected.

use jiff::Timestamp;
use octroi_core::AccountId;
use sqlx::PgConnection;

use super::tell::tell;
use crate::{
    domain::{Kind, anomaly::AnomalyDetected},
    error::Error,
    store::NewNotice,
};

/// Writes the notice, and notes that it goes out by e-mail.
///
/// # Errors
/// [`Error`] of the database.
pub async fn take_anomaly_detected(
    connection: &mut PgConnection,
    account: &AccountId,
    detected: &AnomalyDetected,
    per_account_day_max: u32,
    now: Timestamp,
) -> Result<(), Error> {
    let dedupe_key = detected.dedupe_key();
    let notice = NewNotice {
        account,
        kind: Kind::AnomalyDetected,
        dedupe_key: &dedupe_key,
        severity: detected.severity(),
        facts: detected.to_facts(),
    };
    tell(connection, notice, true, per_account_day_max, now).await
}
