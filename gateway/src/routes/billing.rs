//! `/api/billing`: what is on offer and what the account has.

use axum::{Json, extract::State};
use jiff::Timestamp;
use octroi_proto::{
    billing::v1::{self as billing, GetSubscriptionRequest, ListPlansRequest},
    common,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    access::Caller,
    convert::{
        BillingInterval, LimitMode, PaymentProvider, Period, PriceModel, Stage, SubscriptionStatus, part,
        time,
    },
    edge::Edge,
    problem::{Problem, SAME_NAMES},
    query::Query,
};

/// An amount of money in minor units.
#[derive(Serialize, ToSchema)]
pub(crate) struct Money {
    /// The ISO 4217 code.
    currency: String,
    amount_minor: i64,
}

/// One step of a price.
#[derive(Serialize, ToSchema)]
pub(crate) struct PriceTier {
    /// The last unit of the step; null means without end.
    up_to: Option<u64>,
    /// The price of a unit in minor units, as a decimal.
    unit_amount: String,
    /// A fixed amount once the step is entered, in minor units.
    flat_amount_minor: i64,
}

/// What a plan charges.
#[derive(Serialize, ToSchema)]
pub(crate) struct Price {
    model: PriceModel,
    /// The metric that is priced; null for a flat price.
    metric: Option<String>,
    /// For a flat price: the amount a period.
    flat: Option<Money>,
    /// The price of one unit or package in minor units, as a decimal; null where it does not apply.
    unit_amount: Option<String>,
    /// Units that cost nothing in each period.
    included_units: u64,
    /// How many units a package holds; 0 where none are sold.
    package_units: u64,
    tiers: Vec<PriceTier>,
}

/// The most that a metric may reach within one window.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlanLimit {
    metric: String,
    period: Period,
    amount: u64,
    mode: LimitMode,
    /// For soft limits, the hard end of overage; null means none.
    ceiling: Option<u64>,
}

/// A versioned offer.
#[derive(Serialize, ToSchema)]
pub(crate) struct Plan {
    plan: String,
    version: u32,
    display_name_en: String,
    display_name_fr: String,
    /// The ISO 4217 code of its prices.
    currency: String,
    interval: BillingInterval,
    prices: Vec<Price>,
    limits: Vec<PlanLimit>,
    features: Vec<String>,
}

/// The plans on offer.
#[derive(Serialize, ToSchema)]
pub(crate) struct Plans {
    /// In the catalog's order.
    plans: Vec<Plan>,
    /// The plan of accounts without a subscription.
    default_plan: String,
}

/// The account's subscription to a plan.
#[derive(Serialize, ToSchema)]
pub(crate) struct Subscription {
    subscription_id: String,
    plan: String,
    plan_version: u32,
    status: SubscriptionStatus,
    provider: PaymentProvider,
    stage: Stage,
    /// The first instant of its first period.
    anchor_time: Timestamp,
    period_start_time: Timestamp,
    /// The first instant after the present period.
    period_end_time: Timestamp,
}

fn to_json_money(money: common::v1::Money) -> Money {
    Money {
        currency: money.currency,
        amount_minor: money.amount_minor,
    }
}

fn to_json_tier(tier: billing::PriceTier) -> PriceTier {
    PriceTier {
        up_to: tier.up_to,
        unit_amount: tier.unit_amount,
        flat_amount_minor: tier.flat_amount_minor,
    }
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn to_json_price(price: billing::Price) -> Price {
    Price {
        model: PriceModel::from_proto(price.model),
        metric: given(price.metric),
        flat: price.flat.map(to_json_money),
        unit_amount: given(price.unit_amount),
        included_units: price.included_units,
        package_units: price.package_units,
        tiers: price.tiers.into_iter().map(to_json_tier).collect(),
    }
}

fn to_json_limit(limit: common::v1::Limit) -> PlanLimit {
    PlanLimit {
        metric: limit.metric,
        period: Period::from_proto(limit.period),
        amount: limit.amount,
        mode: LimitMode::from_proto(limit.mode),
        ceiling: limit.ceiling,
    }
}

fn to_json_plan(plan: billing::Plan) -> Plan {
    let entitlements = plan.entitlements.unwrap_or_default();
    Plan {
        plan: plan.slug,
        version: plan.version,
        display_name_en: plan.display_name_en,
        display_name_fr: plan.display_name_fr,
        currency: plan.currency,
        interval: BillingInterval::from_proto(plan.interval),
        prices: plan.prices.into_iter().map(to_json_price).collect(),
        limits: entitlements.limits.into_iter().map(to_json_limit).collect(),
        features: entitlements.features,
    }
}

fn to_json_subscription(subscription: billing::Subscription) -> Result<Subscription, Problem> {
    Ok(Subscription {
        subscription_id: subscription.subscription_id,
        plan: subscription.plan,
        plan_version: subscription.plan_version,
        status: SubscriptionStatus::from_proto(subscription.status),
        provider: PaymentProvider::from_proto(subscription.provider),
        stage: Stage::from_proto(subscription.stage),
        anchor_time: time(subscription.anchor_time.as_ref())?,
        period_start_time: time(subscription.period_start_time.as_ref())?,
        period_end_time: time(subscription.period_end_time.as_ref())?,
    })
}

/// The plans on offer. Nobody needs to be signed in to read the prices.
#[utoipa::path(
    get, path = "/api/billing/plans", operation_id = "listPlans", tag = "billing",
    responses((status = 200, description = "The plans.", body = Plans))
)]
pub(crate) async fn plans(State(edge): State<Edge>, query: Query) -> Result<Json<Plans>, Problem> {
    query.finish()?;
    let answer = edge
        .billing()
        .list_plans(ListPlansRequest {
            include_private: false,
        })
        .await
        .map_err(|status| Problem::of("billing", &status, SAME_NAMES))?
        .into_inner();
    let plans = answer.plans.into_iter().map(to_json_plan).collect();
    Ok(Json(Plans {
        plans,
        default_plan: answer.default_plan,
    }))
}

/// The account's subscription.
#[utoipa::path(
    get, path = "/api/billing/subscription", operation_id = "getSubscription", tag = "billing",
    responses((status = 200, description = "The subscription.", body = Subscription))
)]
pub(crate) async fn subscription(
    State(edge): State<Edge>,
    caller: Caller,
) -> Result<Json<Subscription>, Problem> {
    let request = caller.request(GetSubscriptionRequest {
        account_id: caller.account_id(),
    });
    let answer = edge
        .billing()
        .get_subscription(request)
        .await
        .map_err(|status| Problem::of("billing", &status, SAME_NAMES))?;
    to_json_subscription(part(answer.into_inner().subscription, "a subscription")?).map(Json)
}
