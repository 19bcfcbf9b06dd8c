//! Before anything is sent: the metrics exist, and each account exists and has its plan.

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, PlanSlug};
use octroi_kit::{convert::to_proto_time, status::reason_of};
use octroi_proto::{
    account::v1::{UpsertAccountRequest, account_service_client::AccountServiceClient},
    billing::v1::{
        CreateSubscriptionRequest, GetSubscriptionRequest, billing_service_client::BillingServiceClient,
    },
    errors::v1::ErrorReason,
};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::{
    fleet::{Failure, Fleet},
    settle,
};

/// Accounts that are prepared at the same time.
const AT_ONCE: usize = 8;

/// The plan that accounts are to have.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The plan.
    pub plan: PlanSlug,
    /// Whether an account may have another one already.
    pub keep_other: bool,
    /// Makes subscribing repeatable.
    pub request_id: String,
    /// The first instant of its first period.
    pub anchor_at: Timestamp,
}

/// An account as it was before the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The account.
    pub account: AccountId,
    /// How many thresholds it was told of.
    pub thresholds_before: u64,
}

/// Asks for the metrics, which says early whether the fleet answers and knows them.
///
/// # Errors
/// A sentence for people.
pub async fn check_metrics(fleet: &Fleet, metrics: &[MetricSlug]) -> anyhow::Result<()> {
    match settle::rollup_lag(fleet, metrics).await {
        Ok(_) => Ok(()),
        Err(Failure::Refused(status)) if reason_of(&status) == Some(ErrorReason::MetricNotFound) => bail!(
            "{}: add it to the fleet's catalog, or name others with --metric and --count",
            status.message()
        ),
        Err(failure) => Err(failure.into()),
    }
}

/// Creates what is missing of the accounts and their subscriptions.
///
/// # Errors
/// A sentence that names the account.
pub async fn subjects(
    fleet: &Fleet,
    accounts: Vec<AccountId>,
    subscription: &Subscription,
    mut done: impl FnMut(),
) -> anyhow::Result<Vec<Subject>> {
    let prepared = stream::iter(accounts).map(async |account: AccountId| {
        let name = account.to_string();
        prepare(fleet, account, subscription)
            .await
            .with_context(|| format!("cannot prepare account {name}"))
    });
    prepared
        .buffered(AT_ONCE)
        .inspect_ok(|_| done())
        .try_collect()
        .await
}

async fn prepare(fleet: &Fleet, account: AccountId, subscription: &Subscription) -> anyhow::Result<Subject> {
    let request = UpsertAccountRequest {
        account_id: account.to_string(),
        ..UpsertAccountRequest::default()
    };
    let answer = fleet
        .call(|link| {
            let request = request.clone();
            async move { AccountServiceClient::new(link).upsert_account(request).await }
        })
        .await?;
    subscribe(fleet, &account, subscription).await?;
    // An account that did not exist was told of nothing.
    let thresholds_before = if answer.created {
        0
    } else {
        settle::thresholds_of(fleet, &account).await?
    };
    Ok(Subject {
        account,
        thresholds_before,
    })
}

async fn subscribe(fleet: &Fleet, account: &AccountId, subscription: &Subscription) -> anyhow::Result<()> {
    let request = CreateSubscriptionRequest {
        account_id: account.to_string(),
        plan: subscription.plan.to_string(),
        request_id: subscription.request_id.clone(),
        anchor_time: Some(to_proto_time(subscription.anchor_at)),
        ..CreateSubscriptionRequest::default()
    };
    let answer = fleet
        .call(|link| {
            let request = request.clone();
            async move { BillingServiceClient::new(link).create_subscription(request).await }
        })
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(Failure::Refused(status)) if reason_of(&status) == Some(ErrorReason::SubscriptionExists) => {
            check_plan(fleet, account, subscription).await
        }
        Err(Failure::Refused(status)) => match anchor_rule(&status) {
            Some(rule) => bail!(
                "its subscription would begin on {}, the first of the month of the first line, and that {rule}: \
                 move all lines with --shift-to",
                subscription.anchor_at
            ),
            None => Err(Failure::Refused(status).into()),
        },
        Err(failure) => Err(failure.into()),
    }
}

/// The rule that the first instant of a subscription breaks, where that is why it was refused.
fn anchor_rule(status: &Status) -> Option<String> {
    let violations = status.get_details_bad_request()?.field_violations;
    let about_anchor = violations
        .into_iter()
        .find(|violation| violation.field == "anchor_time");
    about_anchor.map(|violation| violation.description)
}

async fn check_plan(fleet: &Fleet, account: &AccountId, subscription: &Subscription) -> anyhow::Result<()> {
    if subscription.keep_other {
        return Ok(());
    }
    let answer = fleet
        .call(|link| {
            let request = GetSubscriptionRequest {
                account_id: account.to_string(),
            };
            async move { BillingServiceClient::new(link).get_subscription(request).await }
        })
        .await?;
    let plan = answer
        .subscription
        .map(|subscription| subscription.plan)
        .unwrap_or_default();
    if plan != subscription.plan.as_str() {
        bail!("it is subscribed to plan {plan}, not {}", subscription.plan);
    }
    Ok(())
}
