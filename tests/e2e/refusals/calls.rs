//! Over gRPC.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use octroi_kit::status::reason_of;
use octroi_proto::{
    account::v1 as account, billing::v1 as billing, errors::v1::ErrorReason,
    notification::v1 as notification, quota::v1 as quota, usage::v1 as usage,
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR};
use tonic::{Code, Response};

use super::{ABOVE, Case, nothing_was_written};
use crate::asks::{Refusal, check_refusal, consume, event, invalid, not_found, refusal, upsert_account};

const ACCOUNT: &str = "acme";

const NO_ACCOUNT: Refusal = not_found(ErrorReason::AccountNotFound);
const NO_METRIC: Refusal = not_found(ErrorReason::MetricNotFound);
const NO_PLAN: Refusal = not_found(ErrorReason::PlanNotFound);
const TOO_LARGE: Refusal = refusal(Code::ResourceExhausted, ErrorReason::BodyTooLarge);

pub(super) async fn bad_calls_are_told_the_field_and_the_rule(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    bad_checks(&app).await?;
    bad_batches_of_checks(&app).await?;
    bad_events(&app).await?;
    bad_batches_of_events(&app).await?;
    large_messages(&app).await?;
    bad_questions(&app, &operator).await?;
    bad_accounts_and_plans(&app, &operator).await?;
    nothing_was_written(fleet).await
}

fn at(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos })
}

async fn bad_checks(app: &Clients) -> Result<()> {
    const ONE: (&str, i64) = ("exports.run", 1);
    fn numbered(index: u32) -> Vec<quota::CheckItem> {
        items(&[(&format!("m{index}"), 1)])
    }
    fn items(asked: &[(&str, i64)]) -> Vec<quota::CheckItem> {
        consume(ACCOUNT, "r-1", asked).items
    }
    let cases: &[Case<quota::CheckQuotaRequest>] = &cases![
        "no account" => |r| r.account_id.clear() => invalid("account_id");
        "a malformed account" => |r| r.account_id = "a b".into() => invalid("account_id");
        "a long account" => |r| r.account_id = "a".repeat(129) => invalid("account_id");
        "an unknown account" => |r| r.account_id = "nobody".into() => NO_ACCOUNT.of("account_id");
        "an unknown metric" => |r| r.items = items(&[("api.nothing", 1)]) => NO_METRIC.of("items[0].metric");
        "a malformed metric" => |r| r.items = items(&[("API", 1)]) => invalid("items[0].metric");
        "a metric twice" => |r| r.items = items(&[ONE; 2]) => invalid("items[1].metric");
        "amount 0" => |r| r.items = items(&[("exports.run", 0)]) => invalid("items[0].amount");
        "amount -1" => |r| r.items = items(&[("exports.run", -1)]) => invalid("items[0].amount");
        "amount 2^53" => |r| r.items = items(&[ONE, ("api.requests", ABOVE)]) => invalid("items[1].amount");
        "17 items" => |r| r.items = (0..17).flat_map(numbered).collect() => invalid("items");
        "17 features" => |r| r.features = vec!["f".into(); 17] => invalid("features");
        "a malformed feature" => |r| r.features = vec!["F".into()] => invalid("features[0]");
        "nothing asked" => |r| r.items.clear() => invalid("items");
        "no request id" => |r| r.request_id.clear() => invalid("request_id");
        "a malformed request id" => |r| r.request_id = "é".into() => invalid("request_id");
        "no mode" => |r| r.mode = 0 => invalid("mode");
        "an unknown mode" => |r| r.mode = 99 => invalid("mode");
        "a time outside the calendar" => |r| r.event_time = at(i64::MAX, 0) => invalid("event_time");
        "a time long ago" => |r| r.event_time = at(1_000_000_000, 0) =>
            refusal(Code::InvalidArgument, ErrorReason::EventTimeOutOfRange).of("event_time");
    ];
    for (what, change, expected) in cases {
        let mut request = consume(ACCOUNT, "r-1", &[("exports.run", 1)]);
        change(&mut request);
        let answer = app.quota.clone().check_quota(request).await;
        check_refusal(what, answer, *expected)?;
    }
    Ok(())
}

async fn bad_batches_of_checks(app: &Clients) -> Result<()> {
    for count in [0, 1_001] {
        let requests = vec![consume(ACCOUNT, "r-1", &[("exports.run", 1)]); count];
        let answer = app
            .quota
            .clone()
            .check_quota_batch(quota::CheckQuotaBatchRequest { requests })
            .await;
        check_refusal("a batch", answer, invalid("requests"))?;
    }
    // One that is bad does not stand in the way of the others.
    let requests = vec![
        consume("nobody", "r-1", &[("exports.run", 1)]),
        consume(ACCOUNT, "", &[("exports.run", 1)]),
    ];
    let answer = app
        .quota
        .clone()
        .check_quota_batch(quota::CheckQuotaBatchRequest { requests })
        .await?
        .into_inner();
    let mut found = Vec::new();
    for result in answer.results {
        match result.outcome {
            Some(quota::check_quota_result::Outcome::Error(error)) => found.push((error.reason, error.field)),
            other => anyhow::bail!("not refused: {other:?}"),
        }
    }
    let expected = [
        ("ACCOUNT_NOT_FOUND", "account_id"),
        ("FIELD_INVALID", "request_id"),
    ];
    ensure!(
        found == expected.map(|(reason, field)| (reason.to_owned(), field.to_owned())),
        "{found:?}"
    );
    Ok(())
}

async fn bad_events(app: &Clients) -> Result<()> {
    const FORBIDDEN: Refusal = refusal(Code::PermissionDenied, ErrorReason::CallerForbidden);
    const OUT_OF_RANGE: Refusal =
        refusal(Code::InvalidArgument, ErrorReason::EventTimeOutOfRange).of("event.event_time");
    fn long_value() -> HashMap<String, String> {
        [("k".to_owned(), "v".repeat(257))].into()
    }
    fn charge() -> usage::SliceCharge {
        usage::SliceCharge {
            slice_id: vec![7; 16],
            cap: 1,
            amount: 1,
            hard_end_time: at(4_000_000_000, 0),
        }
    }
    fn property(index: u32) -> (String, String) {
        (format!("k{index}"), String::new())
    }
    let cases: &[Case<usage::UsageEvent>] = &cases![
        "no account" => |e| e.account_id.clear() => invalid("event.account_id");
        "an unknown account" => |e| e.account_id = "nobody".into() => NO_ACCOUNT.of("event.account_id");
        "no event id" => |e| e.event_id.clear() => invalid("event.event_id");
        "a long event id" => |e| e.event_id = "e".repeat(201) => invalid("event.event_id");
        "a malformed source" => |e| e.source = "a b".into() => invalid("event.source");
        "a decision's source" => |e| e.source = "decision:x".into() => invalid("event.source");
        "an unknown metric" => |e| e.metric = "api.nothing".into() => NO_METRIC.of("event.metric");
        "amount 0" => |e| e.amount = 0 => invalid("event.amount");
        "amount -1" => |e| e.amount = -1 => invalid("event.amount");
        "amount above 2^53 - 1" => |e| e.amount = ABOVE => invalid("event.amount");
        "an unknown origin" => |e| e.origin = 99 => invalid("event.origin");
        "a hold's source" => |e| e.source = "hold:x".into() => invalid("event.source");
        "a record's source" => |e| e.source = "record:x".into() => invalid("event.source");
        "a return's source" => |e| e.source = "return:x".into() => invalid("event.source");
        "a decision of its own" => |e| e.origin = usage::Origin::Decision.into() => FORBIDDEN;
        "a return of its own" => |e| e.origin = usage::Origin::Return.into() => FORBIDDEN;
        "a denial of its own" => |e| e.origin = usage::Origin::Denial.into() => FORBIDDEN;
        "a charge on a limit" => |e| e.charges = vec![charge()] => FORBIDDEN;
        "a charge on nothing" => |e| e.charges = vec![usage::SliceCharge::default()] => invalid("event.charges[0].slice_id");
        "17 properties" => |e| e.properties = (0..17).map(property).collect() => invalid("event.properties");
        "a long value" => |e| e.properties = long_value() => invalid("event.properties.k");
        "a time outside the calendar" => |e| e.event_time = at(0, -1) => invalid("event.event_time");
        "a time long ago" => |e| e.event_time = at(1_000_000_000, 0) => OUT_OF_RANGE;
    ];
    for (what, change, expected) in cases {
        let mut event = event(ACCOUNT, "e-1", "exports.run", 1);
        change(&mut event);
        let request = usage::TrackUsageRequest {
            event: Some(event),
            backfill: false,
        };
        let answer = app.usage.clone().track_usage(request).await;
        check_refusal(what, answer, *expected)?;
    }
    let answer = app
        .usage
        .clone()
        .track_usage(usage::TrackUsageRequest::default())
        .await;
    check_refusal("no event", answer, invalid("event"))
}

async fn bad_batches_of_events(app: &Clients) -> Result<()> {
    for count in [0, 10_001] {
        let events = vec![event(ACCOUNT, "e", "exports.run", 1); count];
        let answer = app.usage.clone().track_usage_batch(batch(events)).await;
        check_refusal("a batch", answer, invalid("events"))?;
    }
    let events = vec![
        event(ACCOUNT, "e-1", "exports.run", 0),
        event("nobody", "e-2", "exports.run", 1),
        event(ACCOUNT, "e-3", "api.nothing", 1),
    ];
    let results = app
        .usage
        .clone()
        .track_usage_batch(batch(events))
        .await?
        .into_inner()
        .results;
    let mut found = Vec::new();
    for result in results {
        match result.outcome {
            Some(usage::track_usage_result::Outcome::Error(error)) => {
                ensure!(
                    !error.message.is_empty(),
                    "a refusal without a sentence: {error:?}"
                );
                found.push((error.reason, error.field));
            }
            other => anyhow::bail!("not refused: {other:?}"),
        }
    }
    let expected = [
        ("FIELD_INVALID", "events[0].amount"),
        ("ACCOUNT_NOT_FOUND", "events[1].account_id"),
        ("METRIC_NOT_FOUND", "events[2].metric"),
    ];
    ensure!(
        found == expected.map(|(reason, field)| (reason.to_owned(), field.to_owned())),
        "{found:?}"
    );
    Ok(())
}

fn batch(events: Vec<usage::UsageEvent>) -> usage::TrackUsageBatchRequest {
    usage::TrackUsageBatchRequest {
        events,
        ..usage::TrackUsageBatchRequest::default()
    }
}

/// 256 KiB a message, 4 MiB a batch of events.
async fn large_messages(app: &Clients) -> Result<()> {
    let check = quota::CheckQuotaRequest {
        features: vec!["f".repeat(1_024); 300],
        ..consume(ACCOUNT, "r-1", &[])
    };
    let answer = app.quota.clone().check_quota(check.clone()).await;
    check_refusal("a large check", answer, TOO_LARGE)?;
    let check = quota::CheckQuotaStreamRequest {
        request: Some(check),
        ..quota::CheckQuotaStreamRequest::default()
    };
    let answer = async {
        let asked = futures::stream::iter([check]);
        let mut answers = app.quota.clone().check_quota_stream(asked).await?.into_inner();
        answers.message().await.map(Response::new)
    };
    check_refusal("a large check of a stream", answer.await, TOO_LARGE)?;
    let request = account::UpsertAccountRequest {
        display_name: "n".repeat(300 * 1_024),
        ..account::UpsertAccountRequest::default()
    };
    let answer = app.account.clone().upsert_account(request).await;
    check_refusal("a large account", answer, TOO_LARGE)?;

    let events = |count: usize| -> Vec<usage::UsageEvent> {
        let event = |index| usage::UsageEvent {
            properties: [("padding".to_owned(), "p".repeat(256))].into(),
            ..event("nobody", &format!("e-{index}"), "exports.run", 1)
        };
        (0..count).map(event).collect()
    };
    // About 3 MiB is a batch like any other; about 6 MiB in twice the events is none.
    let results = app
        .usage
        .clone()
        .track_usage_batch(batch(events(9_000)))
        .await?
        .into_inner()
        .results;
    ensure!(results.len() == 9_000, "{} results", results.len());
    let mut large = events(10_000);
    for event in &mut large {
        event.properties.insert("more".to_owned(), "p".repeat(256));
    }
    let answer = app.usage.clone().track_usage_batch(batch(large)).await;
    check_refusal("a large batch", answer, TOO_LARGE)
}

async fn bad_questions(app: &Clients, operator: &Clients) -> Result<()> {
    let question = |metrics: &[&str]| usage::GetUsageStatsRequest {
        account_id: ACCOUNT.to_owned(),
        metrics: metrics.iter().map(|metric| (*metric).to_owned()).collect(),
        start_time: at(900, 0),
        end_time: at(4_500, 0),
        granularity: usage::Granularity::Hour.into(),
        zone: String::new(),
        compare: false,
        group_by: String::new(),
    };
    let cases: &[Case<usage::GetUsageStatsRequest>] = &cases![
        "no metric" => |q| q.metrics.clear() => invalid("metrics");
        "a metric twice" => |q| q.metrics = vec!["exports.run".into(); 2] => invalid("metrics[1]");
        "17 metrics" => |q| q.metrics = vec!["exports.run".into(); 17] => invalid("metrics");
        "no start" => |q| q.start_time = None => invalid("start_time");
        "an end before the start" => |q| q.end_time = at(0, 0) => invalid("end_time");
        "no granularity" => |q| q.granularity = 0 => invalid("granularity");
        "no such zone" => |q| q.zone = "Mars/Olympus".into() => invalid("zone");
    ];
    for (what, change, expected) in cases {
        let mut request = question(&["exports.run"]);
        change(&mut request);
        let answer = app.usage.clone().get_usage_stats(request).await;
        check_refusal(what, answer, *expected)?;
    }
    let answer = app
        .usage
        .clone()
        .get_usage_stats(question(&["api.nothing"]))
        .await;
    check_refusal("an unknown metric", answer, NO_METRIC.of("metrics[0]"))?;
    let answer = app
        .quota
        .clone()
        .get_current_usage(quota::GetCurrentUsageRequest {
            account_id: ACCOUNT.to_owned(),
            metrics: vec!["api.nothing".to_owned()],
        })
        .await;
    check_refusal("an unknown metric", answer, NO_METRIC.of("metrics[0]"))?;

    let no_token = refusal(Code::InvalidArgument, ErrorReason::PageTokenInvalid).of("page_token");
    for (page_size, page_token, expected) in [(-1, "", invalid("page_size")), (0, "made up", no_token)] {
        let answer = app
            .usage
            .clone()
            .list_usage_events(usage::ListUsageEventsRequest {
                account_id: ACCOUNT.to_owned(),
                page_size,
                page_token: page_token.to_owned(),
                ..usage::ListUsageEventsRequest::default()
            })
            .await;
        check_refusal("a page of events", answer, expected)?;
        let answer = operator
            .notification
            .clone()
            .list_notices(notification::ListNoticesRequest {
                account_id: ACCOUNT.to_owned(),
                page_size,
                page_token: page_token.to_owned(),
                unread_only: false,
            })
            .await;
        check_refusal("a page of notices", answer, expected)?;
    }
    Ok(())
}

async fn bad_accounts_and_plans(app: &Clients, operator: &Clients) -> Result<()> {
    for (what, account_id, zone, language, field) in [
        ("a malformed id", "a/b", "", 0, "account_id"),
        ("no such zone", "", "Mars/Olympus", 0, "zone"),
        ("an offset as zone", "", "+01:00", 0, "zone"),
        ("no such language", "", "", 99, "language"),
    ] {
        let answer = app
            .account
            .clone()
            .upsert_account(account::UpsertAccountRequest {
                account_id: account_id.to_owned(),
                zone: zone.to_owned(),
                language,
                ..account::UpsertAccountRequest::default()
            })
            .await;
        check_refusal(what, answer, invalid(field))?;
    }
    for (what, email, password, field) in [
        ("no address", "ann", "plinth orbit walnut sails", "email"),
        (
            "a short password",
            "ann@example.com",
            "fourteen chars",
            "password",
        ),
        (
            "the address as password",
            "ann.marie@example.com",
            "ann.marie@example.com",
            "password",
        ),
    ] {
        let answer = operator
            .account
            .clone()
            .sign_up(account::SignUpRequest {
                email: email.to_owned(),
                password: password.to_owned(),
                ..account::SignUpRequest::default()
            })
            .await;
        check_refusal(what, answer, invalid(field))?;
    }
    let subscribe = |account: &str, plan: &str, request_id: &str| billing::CreateSubscriptionRequest {
        account_id: account.to_owned(),
        plan: plan.to_owned(),
        request_id: request_id.to_owned(),
        ..billing::CreateSubscriptionRequest::default()
    };
    for (what, request, expected) in [
        ("no such plan", subscribe(ACCOUNT, "gold", "s-1"), NO_PLAN),
        ("no such account", subscribe("nobody", "pro", "s-1"), NO_ACCOUNT),
        (
            "no request id",
            subscribe(ACCOUNT, "pro", ""),
            invalid("request_id"),
        ),
        (
            "a malformed plan",
            subscribe(ACCOUNT, "Pro", "s-1"),
            invalid("plan"),
        ),
    ] {
        let answer = app.billing.clone().create_subscription(request).await;
        check_refusal(what, answer, expected)?;
    }
    let broken = billing::ApplyCatalogRequest {
        document: octroi_fleet::seed::CATALOG.replace("default_plan: free", "default_plan: gold"),
    };
    let answer = operator.billing.clone().apply_catalog(broken).await;
    let status = answer.err().context("a broken catalog was applied")?;
    let reason = reason_of(&status).map(ErrorReason::name);
    ensure!(reason == Some("CATALOG_INVALID"), "{status:?}");
    Ok(())
}
