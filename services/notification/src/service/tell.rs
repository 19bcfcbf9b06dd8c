//! What happened becomes a notice.

use jiff::{Timestamp, ToSpan as _};
use sqlx::PgConnection;

use crate::{
    error::Error,
    store::{self, NewNotice},
};

/// Writes the notice, once however often it is told, and notes that it goes out by e-mail where somebody
/// need act. Who the owners are is asked after the commit, because no transaction waits for a network.
///
/// # Errors
/// [`Error`] of the database.
pub(super) async fn tell(
    connection: &mut PgConnection,
    notice: NewNotice<'_>,
    by_email: bool,
    per_account_day_max: u32,
    now: Timestamp,
) -> Result<(), Error> {
    let (account, severity) = (notice.account, notice.severity);
    let Some(notice_id) = store::insert_notice(connection, notice, now).await? else {
        return Ok(());
    };
    metrics::counter!("octroi_notification_notices_total", "severity" => severity.as_str()).increment(1);
    if by_email {
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
