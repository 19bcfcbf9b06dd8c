//! What a newcomer finds: a catalog, a demo account with two weeks of use, and an operator.
//!
//! A start may be cut off anywhere, and the data directory may be lost while the database stays. So every
//! instant derives from what the fleet has written down itself, and making it again adds nothing.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
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
use octroi_kit::{
    auth, component::Context, config::Secret, convert::to_proto_time, link::Link, status::reason_of,
};
use octroi_proto::{
    account::v1::{Account, GetAccountRequest, account_service_client::AccountServiceClient},
    billing::v1::{
        ApplyCatalogRequest, CreateSubscriptionRequest, GetSubscriptionRequest, ListPlansRequest,
        billing_service_client::BillingServiceClient,
    },
    errors::v1::ErrorReason,
    usage::v1::{
        TrackUsageBatchRequest, TrackUsageResult, UsageEvent, track_usage_result::Outcome,
        usage_service_client::UsageServiceClient,
    },
};
use tonic::Code;

/// The catalog of the demo.
pub const CATALOG: &str = include_str!("../../../deploy/catalog.yaml");

const DEMO_ACCOUNT: &str = "demo";
const OPERATOR_ACCOUNT: &str = "operators";
const DEMO_EMAIL: &str = "demo@octroi.example";
const OPERATOR_EMAIL: &str = "operator@octroi.example";
const DEMO_PLAN: &str = "starter";
const DEMO_DAYS: i64 = 14;
/// Under which the ledger has the demo's use.
const SOURCE: &str = "seed";
/// The most events of a batch.
const BATCH_EVENTS_MAX: usize = 1_000;

/// How to sign in.
#[derive(Clone, Debug)]
pub struct SignIns {
    /// The demo account's owner.
    pub demo_email: &'static str,
    /// Whoever runs the fleet.
    pub operator_email: &'static str,
    /// The password of both: made once for this data directory. None where the database has members that
    /// were made from another data directory, whose password nobody can tell.
    pub password: Option<String>,
    /// Where the service tokens are.
    pub tokens_dir: PathBuf,
}

/// Makes what is not there yet. Doing it again changes nothing.
///
/// # Errors
/// Where a service refuses, or the data directory cannot be written.
pub async fn run(context: &Context, data_dir: &Path) -> anyhow::Result<SignIns> {
    let link = |service: &str| context.links.to(service, "operator");
    let billing = BillingServiceClient::new(link("billing")?);
    let mut accounts = AccountServiceClient::new(link("account")?);
    apply_catalog(billing.clone()).await.context("the catalog")?;
    let password = make_members(context, &mut accounts, data_dir)
        .await
        .context("the members")?;
    let marker = data_dir.join("seeded");
    if !marker.exists() {
        let demo = find_account(&mut accounts, DEMO_ACCOUNT).await?;
        let demo = demo.context("there is no demo account")?;
        let first_at = subscribe(billing, &demo).await.context("the subscription")?;
        record(UsageServiceClient::new(link("usage")?), first_at)
            .await
            .context("the use")?;
        let text =
            "The demo account is filled. Without this file that is made sure of, which adds nothing.\n";
        auth::write_private(&marker, text)?;
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

/// Makes the members; answers their password where it is known.
async fn make_members(
    context: &Context,
    accounts: &mut AccountServiceClient<Link>,
    data_dir: &Path,
) -> anyhow::Result<Option<String>> {
    let path = data_dir.join("password");
    let password = match kept_password(&path)? {
        Some(password) => password,
        // The last one that is made: where it is there, both are, with the password of another directory.
        None if find_account(accounts, OPERATOR_ACCOUNT).await?.is_some() => return Ok(None),
        None => {
            // Kept before anybody has it, so that no member is made with a password that is lost.
            let password = new_password();
            auth::write_private(&path, &password)?;
            password
        }
    };
    let account = octroi_account::service(context).await?;
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
            password: Secret::new(&password),
            role,
        };
        account.ensure_member(seed, account.now()).await?;
    }
    Ok(Some(password))
}

async fn find_account(
    accounts: &mut AccountServiceClient<Link>,
    account_id: &str,
) -> anyhow::Result<Option<Account>> {
    let request = GetAccountRequest {
        account_id: account_id.to_owned(),
    };
    match accounts.get_account(request).await {
        Ok(answer) => Ok(answer.into_inner().account),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status.into()),
    }
}

/// Subscribes the demo account for as long as there is use, so that the present month shows it. Answers the
/// first instant of both: two weeks before the account was created.
async fn subscribe(mut billing: BillingServiceClient<Link>, demo: &Account) -> anyhow::Result<Timestamp> {
    let created_at = demo.create_time.as_ref().and_then(read_time);
    let created_at = created_at.context("the demo account has no time")?;
    let first_at = created_at - (DEMO_DAYS * 24).hours();
    let request = CreateSubscriptionRequest {
        account_id: DEMO_ACCOUNT.into(),
        plan: DEMO_PLAN.into(),
        request_id: "seed-subscription".into(),
        anchor_time: Some(to_proto_time(first_at)),
        ..CreateSubscriptionRequest::default()
    };
    let Err(status) = billing.create_subscription(request).await else {
        return Ok(first_at);
    };
    match reason_of(&status) {
        // The operator gave the account another one.
        Some(ErrorReason::SubscriptionExists) => Ok(first_at),
        // Ours, of a version that took the instant of its start; its use begins there too.
        Some(ErrorReason::RequestIdReused) => {
            let request = GetSubscriptionRequest {
                account_id: DEMO_ACCOUNT.into(),
            };
            let subscription = billing.get_subscription(request).await?.into_inner().subscription;
            let anchor_time = subscription.and_then(|subscription| subscription.anchor_time);
            let anchor_at = anchor_time.as_ref().and_then(read_time);
            anchor_at.context("the subscription has no anchor")
        }
        _ => Err(status.into()),
    }
}

fn read_time(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

async fn record(mut usage: UsageServiceClient<Link>, first_at: Timestamp) -> anyhow::Result<()> {
    for events in usage_events(first_at).chunks(BATCH_EVENTS_MAX) {
        let request = TrackUsageBatchRequest {
            events: events.to_vec(),
            backfill: true,
            ..TrackUsageBatchRequest::default()
        };
        let results = usage.track_usage_batch(request).await?.into_inner().results;
        check_results(events, &results)?;
    }
    Ok(())
}

/// Every event is in the ledger, by this start or by an earlier one.
fn check_results(events: &[UsageEvent], results: &[TrackUsageResult]) -> anyhow::Result<()> {
    if results.len() != events.len() {
        bail!("{} answers about {} events", results.len(), events.len());
    }
    for (event, result) in events.iter().zip(results) {
        match &result.outcome {
            Some(Outcome::Recorded(_)) => {}
            // Nobody else writes as this source, so that hour counts already.
            Some(Outcome::Error(error)) if error.reason == ErrorReason::EventIdReused.name() => {
                tracing::warn!(
                    event.id = event.event_id,
                    "the demo has this hour with another amount"
                );
            }
            Some(Outcome::Error(error)) => {
                bail!("{}: {} ({})", event.event_id, error.message, error.reason)
            }
            None => bail!("{}: no answer", event.event_id),
        }
    }
    Ok(())
}

/// Two weeks of a small team at work, from `first_at`: busy days, quiet nights and weekends. The same events
/// for the same instant.
#[must_use]
pub fn usage_events(first_at: Timestamp) -> Vec<UsageEvent> {
    let mut events = Vec::new();
    for hour in 0..DEMO_DAYS * 24 {
        let at = first_at + hour.hours();
        for (metric, amount) in amounts(at) {
            events.push(UsageEvent {
                account_id: DEMO_ACCOUNT.into(),
                event_id: format!("seed-{hour}-{metric}"),
                source: SOURCE.into(),
                metric: metric.into(),
                amount,
                event_time: Some(to_proto_time(at)),
                ..UsageEvent::default()
            });
        }
    }
    events
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

/// The password that is kept, so that the sign-ins of a data directory stay the same. A file that a start left
/// empty holds none.
fn kept_password(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(password) => Ok(Some(password.trim().to_owned()).filter(|password| !password.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn new_password() -> String {
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
    picked.join("-")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use octroi_proto::usage::v1::{ItemError, TrackUsageResponse};

    use super::*;

    fn result(outcome: Outcome) -> TrackUsageResult {
        TrackUsageResult {
            outcome: Some(outcome),
            ..TrackUsageResult::default()
        }
    }

    fn error(reason: ErrorReason) -> Outcome {
        Outcome::Error(ItemError {
            reason: reason.name().to_owned(),
            ..ItemError::default()
        })
    }

    #[test]
    fn an_instant_has_one_fortnight_of_use() {
        let first_at: Timestamp = "2026-11-08T12:00:00.123456Z".parse().expect("an instant");
        let events = usage_events(first_at);
        assert_eq!(events, usage_events(first_at));
        let ids: BTreeSet<&str> = events.iter().map(|event| event.event_id.as_str()).collect();
        assert_eq!(ids.len(), events.len(), "each id once");
        let times: Vec<i64> = events
            .iter()
            .filter_map(|event| Some(event.event_time?.seconds))
            .collect();
        let first = first_at.as_second();
        assert!(times.iter().all(|at| (first..first + 14 * 86_400).contains(at)));
        assert!(events.iter().all(|event| event.amount > 0));
    }

    #[test]
    fn the_answer_about_every_event_counts() {
        let first_at: Timestamp = "2026-11-08T12:00:00Z".parse().expect("an instant");
        let events = usage_events(first_at);
        let check = |outcomes: Vec<Outcome>, good: bool| {
            let results: Vec<_> = outcomes.into_iter().map(result).collect();
            let checked = check_results(&events[..2], &results);
            assert_eq!(checked.is_ok(), good, "{checked:?}");
        };
        let recorded = |duplicate| {
            Outcome::Recorded(TrackUsageResponse {
                duplicate,
                ..TrackUsageResponse::default()
            })
        };
        check(vec![recorded(false), recorded(true)], true);
        check(vec![recorded(false), error(ErrorReason::EventIdReused)], true);
        check(vec![recorded(false), error(ErrorReason::MetricNotFound)], false);
        check(vec![recorded(false)], false);
        let silent = [result(recorded(false)), TrackUsageResult::default()];
        assert!(check_results(&events[..2], &silent).is_err());
    }

    #[test]
    fn a_password_is_kept_whole_or_not_at_all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("password");
        assert_eq!(kept_password(&path).expect("no file"), None);
        for left in ["", "\n"] {
            std::fs::write(&path, left).expect("a writable directory");
            assert_eq!(kept_password(&path).expect("a file"), None, "{left:?}");
        }
        let password = new_password();
        auth::write_private(&path, &password).expect("a writable directory");
        assert_eq!(kept_password(&path).expect("a file"), Some(password));
        let left: Vec<_> = std::fs::read_dir(dir.path()).expect("a directory").collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
