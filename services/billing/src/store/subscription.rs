//! Subscriptions and their periods.

use jiff::Timestamp;
use octroi_core::{AccountId, PlanSlug, Window};
use octroi_kit::db::{DatabaseError, expect_rows, from_sql, to_sql};
use sqlx::{FromRow, PgConnection};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{checked, from_name};
use crate::domain::{
    billing_period::BillingPeriod,
    catalog::Interval,
    subscription::{BilledBy, Provider, Subscription, SubscriptionStatus},
};

const CORRUPT: DatabaseError = DatabaseError::Corrupt { what: "subscription" };

/// What every statement that reads a subscription begins with.
macro_rules! select_subscription {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.account_id, s.plan, s.plan_version, v.billing_interval, s.status, s.provider, s.billed_by,
                    s.anchor_at, p.number, p.start_at, p.end_at, e.stage
             FROM subscription s
             JOIN plan_version v ON v.plan = s.plan AND v.version = s.plan_version
             JOIN billing_period p ON p.subscription_id = s.id AND p.end_at = s.period_end_at
             JOIN entitlement e ON e.account_id = s.account_id ",
            $rest
        )
    };
}

#[derive(FromRow)]
struct SubscriptionRow {
    id: Uuid,
    account_id: String,
    plan: String,
    plan_version: i32,
    billing_interval: String,
    status: String,
    provider: String,
    billed_by: String,
    anchor_at: OffsetDateTime,
    number: i32,
    start_at: OffsetDateTime,
    end_at: OffsetDateTime,
    stage: String,
}

impl TryFrom<SubscriptionRow> for Subscription {
    type Error = DatabaseError;

    fn try_from(row: SubscriptionRow) -> Result<Self, DatabaseError> {
        let window = Window {
            start: from_sql(row.start_at),
            end: from_sql(row.end_at),
        };
        Ok(Self {
            id: row.id,
            account: checked(AccountId::parse(&row.account_id), "subscription")?,
            plan: checked(PlanSlug::parse(&row.plan), "subscription")?,
            plan_version: checked(u32::try_from(row.plan_version), "subscription")?,
            interval: Interval::from_name(&row.billing_interval).ok_or(CORRUPT)?,
            status: SubscriptionStatus::from_name(&row.status).ok_or(CORRUPT)?,
            provider: Provider::from_name(&row.provider).ok_or(CORRUPT)?,
            billed_by: BilledBy::from_name(&row.billed_by).ok_or(CORRUPT)?,
            anchor_at: from_sql(row.anchor_at),
            period: BillingPeriod {
                number: row.number,
                window,
            },
            stage: from_name(row.stage, "subscription")?,
        })
    }
}

/// The account's subscription, where it has not ended.
pub(crate) async fn find_live_subscription(
    connection: &mut PgConnection,
    account: &AccountId,
) -> Result<Option<Subscription>, DatabaseError> {
    let row: Option<SubscriptionRow> = sqlx::query_as(select_subscription!(
        "WHERE s.account_id = $1 AND s.status <> 'canceled'"
    ))
    .bind(account.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(TryInto::try_into).transpose()
}

/// One of the account's subscriptions.
pub(crate) async fn get_subscription(
    connection: &mut PgConnection,
    account: &AccountId,
    id: Uuid,
) -> Result<Subscription, DatabaseError> {
    let row: SubscriptionRow = sqlx::query_as(select_subscription!("WHERE s.account_id = $1 AND s.id = $2"))
        .bind(account.as_str())
        .bind(id)
        .fetch_one(connection)
        .await?;
    row.try_into()
}

/// Writes a subscription with the end of its newest period, unless the account has a live one. Whether it did.
pub(crate) async fn insert_subscription(
    connection: &mut PgConnection,
    subscription: &Subscription,
    now: Timestamp,
) -> Result<bool, DatabaseError> {
    let done = sqlx::query(
        "INSERT INTO subscription (id, account_id, plan, plan_version, status, billed_by, provider, anchor_at,
                                   period_end_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (account_id) WHERE status <> 'canceled' DO NOTHING",
    )
    .bind(subscription.id)
    .bind(subscription.account.as_str())
    .bind(subscription.plan.as_str())
    .bind(checked(i32::try_from(subscription.plan_version), "plan version")?)
    .bind(subscription.status.as_str())
    .bind(subscription.billed_by.as_str())
    .bind(subscription.provider.as_str())
    .bind(to_sql(subscription.anchor_at))
    .bind(to_sql(subscription.period.window.end))
    .bind(to_sql(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes periods that follow each other.
pub(crate) async fn insert_periods(
    connection: &mut PgConnection,
    account: &AccountId,
    subscription_id: Uuid,
    periods: &[BillingPeriod],
) -> Result<(), DatabaseError> {
    for period in periods {
        // A period begins where the one before ends; the reference finds it.
        let previous_end_at = (period.number > 1).then(|| to_sql(period.window.start));
        sqlx::query(
            "INSERT INTO billing_period (subscription_id, account_id, number, start_at, end_at, previous_end_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(subscription_id)
        .bind(account.as_str())
        .bind(period.number)
        .bind(to_sql(period.window.start))
        .bind(to_sql(period.window.end))
        .bind(previous_end_at)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Locks up to `count` live subscriptions whose newest period has ended; those that others hold are left.
pub(crate) async fn lock_ended_periods(
    connection: &mut PgConnection,
    now: Timestamp,
    count: i64,
) -> Result<Vec<Subscription>, DatabaseError> {
    let rows: Vec<SubscriptionRow> = sqlx::query_as(select_subscription!(
        "WHERE s.status <> 'canceled' AND s.period_end_at <= $1
         ORDER BY s.period_end_at LIMIT $2 FOR UPDATE OF s SKIP LOCKED"
    ))
    .bind(to_sql(now))
    .bind(count)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Notes the end of the newest period.
pub(crate) async fn update_period_end(
    connection: &mut PgConnection,
    subscription_id: Uuid,
    end_at: Timestamp,
) -> Result<(), DatabaseError> {
    let done = sqlx::query("UPDATE subscription SET period_end_at = $2 WHERE id = $1")
        .bind(subscription_id)
        .bind(to_sql(end_at))
        .execute(connection)
        .await?;
    expect_rows(1, done.rows_affected())
}
