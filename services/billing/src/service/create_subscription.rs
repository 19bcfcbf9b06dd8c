//! `CreateSubscription`.

use jiff::{SignedDuration, Timestamp};
use octroi_core::{PlanSlug, Stage, Violations};
use octroi_kit::{
    convert::{to_proto_entitlements, to_proto_stage, to_proto_time},
    db::Scope,
    outbox,
};
use octroi_proto::events::v1::SubscriptionChanged;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{RequestKey, Service, get_subscription::in_present_period};
use crate::{
    domain::{
        billing_period,
        catalog::AppliedCatalog,
        subscription::{BilledBy, Provider, Subscription, SubscriptionStatus, check_anchor},
    },
    error::Error,
    store::{self, request::Earlier},
};

/// How long the push that follows the commit has before others may try.
const FIRST_PUSH: SignedDuration = SignedDuration::from_secs(5);

/// Asks for a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateSubscription {
    /// Who asks, for which account.
    pub key: RequestKey,
    /// The plan.
    pub plan: PlanSlug,
    /// The provider; none means the configured one.
    pub provider: Option<Provider>,
    /// The first instant of the first period; none means now.
    pub anchor_at: Option<Timestamp>,
    /// An end user asks, who may have what is offered to customers only.
    pub public_only: bool,
}

impl Service {
    /// Subscribes the account to the newest version of a plan and applies its entitlements.
    ///
    /// Once it is committed it is done: where the quota service does not take the entitlements at once, they
    /// reach it by the event and by further pushes.
    ///
    /// # Errors
    /// [`Error::PlanNotFound`], [`Error::SubscriptionExists`], [`Error::RequestIdReused`], and those of the
    /// account.
    pub async fn create_subscription(
        &self,
        command: CreateSubscription,
        now: Timestamp,
    ) -> Result<Subscription, Error> {
        let account = command.key.account.clone();
        let mut violations = Violations::default();
        let payments = self.payments.choose(command.provider);
        if payments.is_none() {
            violations.add("provider", "must be one that is configured");
        }
        if let Some(anchor_at) = command.anchor_at {
            violations.take("anchor_time", check_anchor(anchor_at, now));
        }
        violations.finish()?;
        self.directory.get(&account).await?;
        let provider = payments.map_or(Provider::Manual, |payments| payments.provider());
        let id = Uuid::new_v4();
        let subscription = self
            .db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move { create(connection, &command, provider, id, now).await })
            })
            .await?;
        self.wake.wake();
        if let Err(error) = self.push.push_entitlements(&account).await {
            tracing::warn!(account.id = %account, error = %error, "entitlements were not taken and are pushed again");
        }
        Ok(in_present_period(subscription, now))
    }
}

async fn create(
    connection: &mut PgConnection,
    command: &CreateSubscription,
    provider: Provider,
    id: Uuid,
    now: Timestamp,
) -> Result<Subscription, Error> {
    let account = &command.key.account;
    let asked_provider = command.provider.map_or("", Provider::as_str);
    let asked_anchor = command.anchor_at.map_or_else(String::new, |at| at.to_string());
    let request = command.key.of(
        "create_subscription",
        &[command.plan.as_str(), asked_provider, &asked_anchor],
    );
    match store::request::insert_request(connection, &request, id, now).await? {
        Earlier::None => {}
        Earlier::Same(id) => return Ok(store::subscription::get_subscription(connection, account, id).await?),
        Earlier::Other => return Err(Error::RequestIdReused(command.key.request_id.clone())),
    }
    let applied = store::catalog::find_catalog(connection).await?;
    let subscription = subscription(command, applied.as_ref(), provider, id, now)?;
    if !store::subscription::insert_subscription(connection, &subscription, now).await? {
        return Err(Error::SubscriptionExists(account.clone()));
    }
    let first = billing_period::first(subscription.interval, subscription.anchor_at);
    let mut periods = vec![first];
    periods.extend(billing_period::up_to(
        subscription.interval,
        subscription.anchor_at,
        first,
        now,
    ));
    store::subscription::insert_periods(connection, account, id, &periods).await?;
    let stage = subscription.stage;
    let version =
        store::entitlement::upsert_entitlement(connection, account, id, stage, now + FIRST_PUSH).await?;
    let plan = store::catalog::get_plan(connection, &subscription.plan, subscription.plan_version).await?;
    let event = SubscriptionChanged {
        account_id: account.to_string(),
        version,
        entitlements: Some(to_proto_entitlements(
            &plan.entitlements(subscription.plan_version),
        )),
        anchor_time: Some(to_proto_time(subscription.anchor_at)),
        stage: to_proto_stage(stage),
    };
    outbox::enqueue(connection, &event, now).await?;
    Ok(subscription)
}

/// What is written, where the catalog offers the plan to whoever asks.
fn subscription(
    command: &CreateSubscription,
    applied: Option<&AppliedCatalog>,
    provider: Provider,
    id: Uuid,
    now: Timestamp,
) -> Result<Subscription, Error> {
    let offered = applied.and_then(|applied| applied.plan(&command.plan));
    let offered = offered.filter(|(_, plan)| plan.public || !command.public_only);
    let (plan_version, plan) = offered.ok_or_else(|| Error::PlanNotFound(command.plan.clone()))?;
    let anchor_at = command.anchor_at.unwrap_or(now);
    let first = billing_period::first(plan.interval, anchor_at);
    let present = billing_period::up_to(plan.interval, anchor_at, first, now)
        .last()
        .copied()
        .unwrap_or(first);
    Ok(Subscription {
        id,
        account: command.key.account.clone(),
        plan: plan.slug.clone(),
        plan_version,
        interval: plan.interval,
        status: SubscriptionStatus::Active,
        provider,
        billed_by: BilledBy::Octroi,
        anchor_at,
        period: present,
        stage: Stage::Current,
    })
}
