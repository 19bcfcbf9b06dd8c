//! What the databases and the replicas say once everything is healed.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use octroi_core::AccountId;
use octroi_proto::{common::v1::Period, quota::v1::GetCurrentUsageRequest};
use octroi_quota::domain::hold::hold_number;
use sqlx::{Connection as _, PgConnection};

use super::{
    oracle::{Entry, Found, Kind, Request, WindowRow},
    site::Site,
};
use crate::harness::fleet::APPLICATION;

/// How long after its end a hold may be open, in seconds: two rounds of whoever looks for them, generously.
const OVERDUE_AFTER_S: i64 = 5;

/// Whose books are read.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'s> {
    /// Where.
    pub site: &'s Site,
    /// The account.
    pub account: &'s str,
    /// The metric.
    pub metric: &'s str,
}

type WindowColumns = (String, i64, i64, i64, i64, i64, i64, i64, i64);

impl Reader<'_> {
    /// All of it. What a replica says is left out where it does not answer.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read(self, requests: &[Request]) -> Result<Found> {
        let mut session = self.site.database().await?;
        let ledger = self.ledger(&mut session, requests).await?;
        let windows = self.windows(&mut session).await?;
        let (stranded, _) = self.stranded(&mut session).await?;
        let (overdue_holds, holds) = self.holds(&mut session).await?;
        session.close().await?;
        let mut standing = Vec::new();
        let mut now = None;
        for clients in self.site.callers().iter().flat_map(|channels| channels.first()) {
            let request = GetCurrentUsageRequest {
                account_id: self.account.to_owned(),
                metrics: vec![self.metric.to_owned()],
            };
            let Ok(usage) = clients.quota.clone().get_current_usage(request).await else {
                continue;
            };
            let usage = usage.into_inner();
            let hour = usage.limits.iter().find(|limit| limit.period() == Period::Hour);
            let hour = hour.context("no limit of an hour")?;
            now = hour.window_start_time.map(|at| at.seconds);
            standing.push((hour.used, hour.held));
        }
        let in_hour = |row: &&WindowRow| row.period == "hour" && Some(row.start) == now;
        let used_now = windows.iter().find(in_hour).map_or(0, |row| row.ledger);
        Ok(Found {
            ledger,
            windows,
            standing,
            used_now,
            stranded,
            overdue_holds,
            holds,
            ..Found::default()
        })
    }

    async fn ledger(self, session: &mut PgConnection, requests: &[Request]) -> Result<Vec<Entry>> {
        let rows: Vec<(String, String, i64, i64)> = sqlx::query_as(
            "SELECT source, event_id, amount, extract(epoch FROM date_trunc('hour', event_at))::bigint
             FROM usage.ledger WHERE account_id = $1 AND metric = $2",
        )
        .bind(self.account)
        .bind(self.metric)
        .fetch_all(session)
        .await?;
        let account = AccountId::parse(self.account)?;
        let holds: HashMap<String, &str> = (requests.iter())
            .filter(|request| request.kind == Kind::Reserve)
            .map(|request| {
                let number = hold_number(&account, APPLICATION, &request.id);
                (number.to_string(), request.id.as_str())
            })
            .collect();
        let entry = |(source, event_id, amount, window): (String, String, i64, i64)| {
            let request = if source.starts_with("hold:") {
                holds.get(&event_id).map_or(event_id.as_str(), |id| id)
            } else {
                event_id.split('/').next().unwrap_or_default()
            };
            Ok(Entry {
                request: request.to_owned(),
                amount: units(amount)?,
                window,
            })
        };
        rows.into_iter().map(entry).collect()
    }

    async fn windows(self, session: &mut PgConnection) -> Result<Vec<WindowRow>> {
        let rows: Vec<WindowColumns> = sqlx::query_as(
            "SELECT period, extract(epoch FROM start_at)::bigint, open_cap, held, charged, overrun::bigint,
                 returned::bigint, used::bigint,
                 (SELECT coalesce(sum(amount), 0)::bigint FROM usage.ledger AS event
                  WHERE event.account_id = one.account_id AND event.metric = one.metric
                    AND event.event_at >= start_at AND event.event_at < end_at AND origin <> 'denial')
             FROM quota.quota_window AS one WHERE account_id = $1 AND metric = $2 ORDER BY start_at, period",
        )
        .bind(self.account)
        .bind(self.metric)
        .fetch_all(session)
        .await?;
        let row = |row: WindowColumns| {
            Ok(WindowRow {
                period: row.0,
                start: row.1,
                open_cap: units(row.2)?,
                held: units(row.3)?,
                charged: units(row.4)?,
                overrun: units(row.5)?,
                returned: units(row.6)?,
                used: units(row.7)?,
                ledger: units(row.8)?,
            })
        };
        rows.into_iter().map(row).collect()
    }

    /// What slices keep whose decisions were answered before the ledger had them, and whose replica died; and how
    /// many slices that are.
    async fn stranded(self, session: &mut PgConnection) -> Result<(u64, u64)> {
        let (units_of, slices): (i64, i64) = sqlx::query_as(
            "SELECT coalesce(sum(slice.cap - coalesce(spend.spent, 0)), 0)::bigint, count(*)
             FROM quota.slice LEFT JOIN usage.slice_spend AS spend ON spend.slice_id = slice.id
             WHERE account_id = $1 AND metric = $2 AND buffered AND state <> 'sealed'
               AND owner NOT IN (SELECT id FROM quota.replica WHERE seen_at >
                   (SELECT max(seen_at) FROM quota.replica) - interval '3 seconds')",
        )
        .bind(self.account)
        .bind(self.metric)
        .fetch_one(session)
        .await?;
        Ok((units(units_of)?, units(slices)?))
    }

    /// How many holds are open that should not be any more, and how many there were.
    async fn holds(self, session: &mut PgConnection) -> Result<(u64, u64)> {
        let (overdue, all): (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE state <> 'sealed' AND spend_until <
                 now() + (SELECT offset_us FROM quota.test_clock) * interval '1 microsecond'
                     - $3 * interval '1 second'),
                 count(*)
             FROM quota.slice WHERE account_id = $1 AND metric = $2 AND kind = 'hold'",
        )
        .bind(self.account)
        .bind(self.metric)
        .bind(OVERDUE_AFTER_S)
        .fetch_one(session)
        .await?;
        Ok((units(overdue)?, units(all)?))
    }
}

fn units(amount: i64) -> Result<u64> {
    u64::try_from(amount).context("a negative sum")
}
