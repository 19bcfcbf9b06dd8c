//! A threshold was crossed.

use jiff::{Timestamp, ToSpan as _};
use octroi_core::AccountId;
use sqlx::PgConnection;

use crate::{
    domain::{Kind, threshold::ThresholdCrossed},
    error::Error,
    store::{self, NewNotice},
};

/// Writes the notice, once however often it is told, and notes that it goes out by e-mail where somebody
/// need act. Who the owners are is asked after the commit, because no transaction waits for a network.
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
    let severity = crossed.severity();
    let dedupe_key = crossed.dedupe_key();
    let notice = NewNotice {
        account,
        kind: Kind::ThresholdCrossed,
        dedupe_key: &dedupe_key,
        severity,
        facts: crossed.to_facts(),
    };
    let Some(notice_id) = store::insert_notice(connection, notice, now).await? else {
        return Ok(());
    };
    metrics::counter!("octroi_notification_notices_total", "severity" => severity.as_str()).increment(1);
    if crossed.by_email() {
        let day_ago = now.saturating_sub(24.hours()).unwrap_or(Timestamp::MIN);
        let wanted = store::insert_mailing(
            connection,
            notice_id,
            account,
            (day_ago, per_account_day_max),
            now,
        )
        .await?;
        if !wanted {
            tracing::warn!(account.id = %account, notice.id = %notice_id, "in the app only: the account had its e-mails of this day");
        }
    }
    Ok(())
}
