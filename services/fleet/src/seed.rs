//! What a newcomer finds: a catalog, a demo account with two weeks of use, and an operator.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::{Timestamp, ToSpan as _};
use octroi_account::{
    Seed,
    domain::{
        account::{AccountSettings, Language},
        email::Email,
        member::Role,
    },
};
use octroi_core::AccountId;
use octroi_kit::{component::Context, config::Secret, convert::to_proto_time, link::Link};
use octroi_proto::{
    billing::v1::{
        ApplyCatalogRequest, CreateSubscriptionRequest, ListPlansRequest,
        billing_service_client::BillingServiceClient,
    },
    usage::v1::{TrackUsageBatchRequest, UsageEvent, usage_service_client::UsageServiceClient},
};

/// The catalog of the demo.
pub const CATALOG: &str = include_str!("../../../deploy/catalog.yaml");

const DEMO_ACCOUNT: &str = "demo";
const OPERATOR_ACCOUNT: &str = "operators";
const DEMO_EMAIL: &str = "demo@octroi.example";
const OPERATOR_EMAIL: &str = "operator@octroi.example";
const DEMO_PLAN: &str = "starter";
const DEMO_DAYS: i64 = 14;

/// How to sign in.
#[derive(Clone, Debug)]
pub struct SignIns {
    /// The demo account's owner.
    pub demo_email: &'static str,
    /// Whoever runs the fleet.
    pub operator_email: &'static str,
    /// The password of both: made once for this data directory.
    pub password: String,
    /// Where the service tokens are.
    pub tokens_dir: PathBuf,
}

/// Makes what is not there yet. Doing it again changes nothing.
///
/// # Errors
/// Where a service refuses.
pub async fn run(context: &Context, data_dir: &Path) -> anyhow::Result<SignIns> {
    let password = password(data_dir)?;
    let link = |service: &str| context.links.to(service, "operator");
    let billing = BillingServiceClient::new(link("billing")?);
    apply_catalog(billing.clone()).await.context("the catalog")?;
    let account = octroi_account::service(context).await?;
    members(&account, &password).await.context("the members")?;
    let marker = data_dir.join("seeded");
    if !marker.exists() {
        let now = account.now();
        subscribe(billing, now).await.context("the subscription")?;
        usage(UsageServiceClient::new(link("usage")?), now)
            .await
            .context("the use")?;
        std::fs::write(
            &marker,
            "The demo account was filled; remove this file to fill it again.\n",
        )?;
    }
    Ok(SignIns {
        demo_email: DEMO_EMAIL,
        operator_email: OPERATOR_EMAIL,
        password,
        tokens_dir: data_dir.join("tokens"),
    })
}

/// The catalog is the operator's once there is one.
async fn apply_catalog(mut billing: BillingServiceClient<Link>) -> anyhow::Result<()> {
    let plans = billing
        .list_plans(ListPlansRequest {
            include_private: true,
        })
        .await?
        .into_inner()
        .plans;
    if plans.is_empty() {
        billing
            .apply_catalog(ApplyCatalogRequest {
                document: CATALOG.to_owned(),
            })
            .await?;
    }
    Ok(())
}

async fn members(account: &octroi_account::Service, password: &str) -> anyhow::Result<()> {
    for (account_id, account_name, email, role) in [
        (DEMO_ACCOUNT, "Demo", DEMO_EMAIL, Role::Owner),
        (OPERATOR_ACCOUNT, "Operators", OPERATOR_EMAIL, Role::Operator),
    ] {
        let seed = Seed {
            account_id: AccountId::parse(account_id)?,
            account_name: account_name.to_owned(),
            settings: AccountSettings {
                zone: "Europe/Paris".to_owned(),
                language: Language::English,
            },
            email: Email::parse(email)?,
            password: Secret::new(password),
            role,
        };
        account.ensure_member(seed, account.now()).await?;
    }
    Ok(())
}

/// Subscribed for as long as there is use, so that the present month shows it.
async fn subscribe(mut billing: BillingServiceClient<Link>, now: Timestamp) -> anyhow::Result<()> {
    let request = CreateSubscriptionRequest {
        account_id: DEMO_ACCOUNT.into(),
        plan: DEMO_PLAN.into(),
        request_id: "seed-subscription".into(),
        anchor_time: Some(to_proto_time(now - (DEMO_DAYS * 24).hours())),
        ..CreateSubscriptionRequest::default()
    };
    billing.create_subscription(request).await?;
    Ok(())
}

/// Two weeks of a small team at work: busy days, quiet nights and weekends, the same every time.
async fn usage(mut usage: UsageServiceClient<Link>, now: Timestamp) -> anyhow::Result<()> {
    let first_hour = now - (DEMO_DAYS * 24).hours();
    let mut events = Vec::new();
    for hour in 0..DEMO_DAYS * 24 {
        let at = first_hour + hour.hours();
        for (metric, amount) in amounts(at) {
            events.push(UsageEvent {
                account_id: DEMO_ACCOUNT.into(),
                event_id: format!("seed-{hour}-{metric}"),
                source: "seed".into(),
                metric: metric.into(),
                amount,
                event_time: Some(to_proto_time(at)),
                ..UsageEvent::default()
            });
        }
    }
    for batch in events.chunks(1_000) {
        let request = TrackUsageBatchRequest {
            events: batch.to_vec(),
            backfill: true,
        };
        usage.track_usage_batch(request).await?;
    }
    Ok(())
}

fn amounts(at: Timestamp) -> Vec<(&'static str, i64)> {
    let second = at.as_second();
    let (hour, day) = (second / 3_600 % 24, second / 86_400);
    // 1 January 1970 was a Thursday.
    let weekend = matches!((day + 4) % 7, 0 | 6);
    let busy = match hour {
        8..=11 | 13..=17 => 40,
        7 | 12 | 18..=20 => 15,
        _ => 2,
    };
    let busy = if weekend { busy / 4 } else { busy };
    // A little unevenness that depends on nothing but the hour.
    let requests = busy + second / 3_600 * 7 % 11;
    let mut amounts = vec![("api.requests", requests)];
    if busy >= 15 {
        amounts.push(("llm.requests", requests / 3));
        amounts.push(("llm.tokens_in", requests * 350));
        amounts.push(("llm.tokens_out", requests * 90));
    }
    if busy >= 40 && hour % 4 == 2 {
        amounts.push(("exports.run", 1));
    }
    amounts.retain(|(_, amount)| *amount > 0);
    amounts
}

/// Made once and kept, so that the sign-ins of a data directory stay the same.
fn password(data_dir: &Path) -> anyhow::Result<String> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    let path = data_dir.join("password");
    if let Ok(password) = std::fs::read_to_string(&path) {
        return Ok(password.trim().to_owned());
    }
    let words = [
        "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heron", "inlet", "maple", "otter",
        "pearl", "quartz", "river", "stone", "tidal",
    ];
    let mut bytes = [0_u8; 5];
    rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
    let picked: Vec<String> = bytes
        .iter()
        .filter_map(|byte| Some(format!("{}{}", words.get(usize::from(byte % 16))?, byte / 16)))
        .collect();
    let password = picked.join("-");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(password.as_bytes())?;
    Ok(password)
}
