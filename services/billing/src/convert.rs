//! Between the contract and the domain.

use jiff::Timestamp;
use octroi_core::{AccountId, PlanSlug, RequestId, Violations};
use octroi_kit::convert::{from_proto_time, to_proto_entitlements, to_proto_stage, to_proto_time};
use octroi_proto::{billing::v1 as proto, common::v1::Money};

use crate::{
    domain::{
        catalog::{Interval, Plan},
        price::{Price, Rate, Tier},
        subscription::{Provider, Subscription, SubscriptionStatus},
    },
    service::{CreateCustomer, CreateSubscription, Customer, OfferedPlans, RequestKey},
};

/// Reads who a call is about.
pub(crate) fn from_proto_account(account_id: &str) -> Result<AccountId, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(account_id));
    account.ok_or(violations)
}

fn from_proto_key(
    account_id: &str,
    request_id: &str,
    caller: &str,
    violations: &mut Violations,
) -> Option<RequestKey> {
    let account = violations.take("account_id", AccountId::parse(account_id));
    let request_id = violations.take("request_id", RequestId::parse(request_id));
    Some(RequestKey {
        account: account?,
        caller: caller.to_owned(),
        request_id: request_id?,
    })
}

/// None where the provider is not given, which means the configured one.
fn from_proto_provider(provider: i32, violations: &mut Violations) -> Option<Provider> {
    match proto::PaymentProvider::try_from(provider) {
        Ok(proto::PaymentProvider::Unspecified) => None,
        Ok(proto::PaymentProvider::Manual) => Some(Provider::Manual),
        Ok(proto::PaymentProvider::Stripe) => Some(Provider::Stripe),
        Err(_) => {
            violations.add("provider", "must be one of the named values");
            None
        }
    }
}

/// Reads a request for a subscription.
pub(crate) fn from_proto_create_subscription(
    request: &proto::CreateSubscriptionRequest,
    caller: &str,
    public_only: bool,
) -> Result<CreateSubscription, Violations> {
    let mut violations = Violations::default();
    let key = from_proto_key(&request.account_id, &request.request_id, caller, &mut violations);
    let plan = violations.take("plan", PlanSlug::parse(&request.plan));
    let provider = from_proto_provider(request.provider, &mut violations);
    let anchor_at = request
        .anchor_time
        .as_ref()
        .and_then(|time| from_proto_time("anchor_time", time, &mut violations))
        .map(whole);
    match (key, plan) {
        (Some(key), Some(plan)) if violations.0.is_empty() => Ok(CreateSubscription {
            key,
            plan,
            provider,
            anchor_at,
            public_only,
        }),
        _ => Err(violations),
    }
}

/// To the microsecond, which is what the database keeps.
fn whole(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

/// Reads a request for a customer.
pub(crate) fn from_proto_create_customer(
    request: &proto::CreateCustomerRequest,
    caller: &str,
) -> Result<CreateCustomer, Violations> {
    let mut violations = Violations::default();
    let key = from_proto_key(&request.account_id, &request.request_id, caller, &mut violations);
    let provider = from_proto_provider(request.provider, &mut violations);
    match key {
        Some(key) if violations.0.is_empty() => Ok(CreateCustomer { key, provider }),
        _ => Err(violations),
    }
}

fn to_proto_provider(provider: Provider) -> i32 {
    match provider {
        Provider::Manual => proto::PaymentProvider::Manual.into(),
        Provider::Stripe => proto::PaymentProvider::Stripe.into(),
    }
}

/// A customer, on the wire.
pub(crate) fn to_proto_customer(customer: Customer) -> proto::CreateCustomerResponse {
    proto::CreateCustomerResponse {
        provider: to_proto_provider(customer.provider),
        provider_customer_id: customer.provider_customer_id,
    }
}

/// A subscription, on the wire.
pub(crate) fn to_proto_subscription(subscription: &Subscription) -> proto::Subscription {
    let status = match subscription.status {
        SubscriptionStatus::Trialing => proto::SubscriptionStatus::Trialing,
        SubscriptionStatus::Active => proto::SubscriptionStatus::Active,
        SubscriptionStatus::PastDue => proto::SubscriptionStatus::PastDue,
        SubscriptionStatus::Canceled => proto::SubscriptionStatus::Canceled,
    };
    proto::Subscription {
        subscription_id: subscription.id.to_string(),
        account_id: subscription.account.to_string(),
        plan: subscription.plan.to_string(),
        plan_version: subscription.plan_version,
        status: status.into(),
        provider: to_proto_provider(subscription.provider),
        anchor_time: Some(to_proto_time(subscription.anchor_at)),
        period_start_time: Some(to_proto_time(subscription.period.window.start)),
        period_end_time: Some(to_proto_time(subscription.period.window.end)),
        stage: to_proto_stage(subscription.stage),
    }
}

/// The plans on offer, on the wire.
pub(crate) fn to_proto_plans(offered: &OfferedPlans) -> proto::ListPlansResponse {
    let applied = offered.applied();
    let plans = offered
        .plans()
        .map(|plan| to_proto_plan(plan, applied.plan_versions.get(&plan.slug).copied().unwrap_or(0)));
    proto::ListPlansResponse {
        plans: plans.collect(),
        default_plan: applied.catalog.default_plan.to_string(),
    }
}

fn to_proto_plan(plan: &Plan, version: u32) -> proto::Plan {
    let interval = match plan.interval {
        Interval::Month => proto::BillingInterval::Month,
        Interval::Year => proto::BillingInterval::Year,
    };
    proto::Plan {
        slug: plan.slug.to_string(),
        version,
        display_name_en: plan.display_name_en.clone(),
        display_name_fr: plan.display_name_fr.clone(),
        currency: plan.currency.to_string(),
        interval: interval.into(),
        prices: plan
            .prices
            .iter()
            .map(|price| to_proto_price(price, plan))
            .collect(),
        entitlements: Some(to_proto_entitlements(&plan.entitlements(version))),
        public: plan.public,
    }
}

fn to_proto_price(price: &Price, plan: &Plan) -> proto::Price {
    let mut wire = proto::Price::default();
    let rate = match price {
        Price::Flat { amount_minor } => {
            wire.set_model(proto::PriceModel::Flat);
            wire.flat = Some(Money {
                currency: plan.currency.to_string(),
                amount_minor: *amount_minor,
            });
            return wire;
        }
        Price::Metered {
            metric,
            included_units,
            rate,
        } => {
            wire.metric = metric.to_string();
            wire.included_units = included_units.get();
            rate
        }
    };
    match rate {
        Rate::PerUnit { unit_amount } => {
            wire.set_model(proto::PriceModel::PerUnit);
            wire.unit_amount = unit_amount.to_string();
        }
        Rate::Package {
            unit_amount,
            package_units,
        } => {
            wire.set_model(proto::PriceModel::Package);
            wire.unit_amount = unit_amount.to_string();
            wire.package_units = package_units.get();
        }
        Rate::Graduated { tiers } => {
            wire.set_model(proto::PriceModel::Graduated);
            wire.tiers = tiers.iter().map(to_proto_tier).collect();
        }
        Rate::Volume { tiers } => {
            wire.set_model(proto::PriceModel::Volume);
            wire.tiers = tiers.iter().map(to_proto_tier).collect();
        }
    }
    wire
}

fn to_proto_tier(tier: &Tier) -> proto::PriceTier {
    proto::PriceTier {
        up_to: tier.up_to.map(octroi_core::Units::get),
        unit_amount: tier.unit_amount.to_string(),
        flat_amount_minor: tier.flat_amount_minor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_with_a_request_is_told_at_once() {
        let request = proto::CreateSubscriptionRequest {
            account_id: "with space".into(),
            plan: "Pro".into(),
            request_id: String::new(),
            provider: 9,
            anchor_time: Some(prost_types::Timestamp {
                seconds: 0,
                nanos: -1,
            }),
        };
        let violations =
            from_proto_create_subscription(&request, "gateway", false).expect_err("five broken rules");
        let fields: Vec<&str> = violations.0.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(
            fields,
            ["account_id", "request_id", "plan", "provider", "anchor_time"]
        );
    }

    #[test]
    fn an_anchor_is_read_to_the_microsecond() {
        let request = proto::CreateSubscriptionRequest {
            account_id: "acme".into(),
            plan: "pro".into(),
            request_id: "r-1".into(),
            provider: 0,
            anchor_time: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 1_999,
            }),
        };
        let command = from_proto_create_subscription(&request, "gateway", false).expect("a good request");
        assert_eq!(command.anchor_at.map(|at| at.subsec_nanosecond()), Some(1_000));
        assert_eq!(command.provider, None);
    }
}
