//! What is not accepted: each bad request is told which field breaks which rule, and leaves nothing behind.

use anyhow::{Context, Result, ensure};
use octroi_kit::status::reason_of;
use octroi_proto::{
    account::v1 as account, billing::v1 as billing, notification::v1 as notification, quota::v1 as quota,
    usage::v1 as usage,
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, Rest};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tonic::Code;

use crate::{
    asks::{check_refusal, consume, event, upsert_account},
    rest::{new_key, signed_up},
    story::both_topologies,
};

both_topologies!(
    bad_calls_are_told_the_field_and_the_rule,
    bad_requests_are_told_the_field_and_the_rule
);

const ACCOUNT: &str = "acme";
const ABOVE: i64 = 1 << 53;

/// Nothing of any account is in the ledger but the demo's seed.
async fn nothing_was_written(fleet: &Fleet) -> Result<()> {
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM usage.usage_event WHERE source <> 'seed'")
        .fetch_one(&mut session)
        .await?;
    ensure!(
        events == 0,
        "{events} events of refused requests are in the ledger"
    );
    let windows: i64 =
        sqlx::query_scalar("SELECT count(*) FROM quota.quota_window WHERE account_id <> 'demo'")
            .fetch_one(&mut session)
            .await?;
    ensure!(windows == 0, "{windows} windows of refused requests are counted");
    Ok(session.close().await?)
}

async fn bad_calls_are_told_the_field_and_the_rule(fleet: &mut Fleet) -> Result<()> {
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

async fn bad_checks(app: &Clients) -> Result<()> {
    type Change = fn(&mut quota::CheckQuotaRequest);
    fn item(metric: &str, amount: i64) -> quota::CheckItem {
        quota::CheckItem {
            metric: metric.to_owned(),
            amount,
        }
    }
    const INVALID: Code = Code::InvalidArgument;
    let cases: &[(&str, Change, Code, &str, Option<&str>)] = &[
        (
            "no account",
            |r| r.account_id.clear(),
            INVALID,
            "FIELD_INVALID",
            Some("account_id"),
        ),
        (
            "a malformed account",
            |r| r.account_id = "a b".into(),
            INVALID,
            "FIELD_INVALID",
            Some("account_id"),
        ),
        (
            "a long account",
            |r| r.account_id = "a".repeat(129),
            INVALID,
            "FIELD_INVALID",
            Some("account_id"),
        ),
        (
            "an unknown account",
            |r| r.account_id = "nobody".into(),
            Code::NotFound,
            "ACCOUNT_NOT_FOUND",
            None,
        ),
        (
            "an unknown metric",
            |r| r.items = vec![item("api.nothing", 1)],
            Code::NotFound,
            "METRIC_NOT_FOUND",
            None,
        ),
        (
            "a malformed metric",
            |r| r.items = vec![item("API", 1)],
            INVALID,
            "FIELD_INVALID",
            Some("items[0].metric"),
        ),
        (
            "a metric twice",
            |r| r.items = vec![item("exports.run", 1), item("exports.run", 1)],
            INVALID,
            "FIELD_INVALID",
            Some("items[1].metric"),
        ),
        (
            "amount 0",
            |r| r.items = vec![item("exports.run", 0)],
            INVALID,
            "FIELD_INVALID",
            Some("items[0].amount"),
        ),
        (
            "amount -1",
            |r| r.items = vec![item("exports.run", -1)],
            INVALID,
            "FIELD_INVALID",
            Some("items[0].amount"),
        ),
        (
            "amount above 2^53 - 1",
            |r| r.items = vec![item("exports.run", 1), item("api.requests", ABOVE)],
            INVALID,
            "FIELD_INVALID",
            Some("items[1].amount"),
        ),
        (
            "17 items",
            |r| r.items = (0..17).map(|n| item(&format!("m{n}"), 1)).collect(),
            INVALID,
            "FIELD_INVALID",
            Some("items"),
        ),
        (
            "17 features",
            |r| r.features = vec!["f".into(); 17],
            INVALID,
            "FIELD_INVALID",
            Some("features"),
        ),
        (
            "a malformed feature",
            |r| r.features = vec!["F".into()],
            INVALID,
            "FIELD_INVALID",
            Some("features[0]"),
        ),
        (
            "nothing asked",
            |r| r.items.clear(),
            INVALID,
            "FIELD_INVALID",
            Some("items"),
        ),
        (
            "no request id",
            |r| r.request_id.clear(),
            INVALID,
            "FIELD_INVALID",
            Some("request_id"),
        ),
        (
            "a malformed request id",
            |r| r.request_id = "é".into(),
            INVALID,
            "FIELD_INVALID",
            Some("request_id"),
        ),
        ("no mode", |r| r.mode = 0, INVALID, "FIELD_INVALID", Some("mode")),
        (
            "an unknown mode",
            |r| r.mode = 99,
            INVALID,
            "FIELD_INVALID",
            Some("mode"),
        ),
        (
            "a time outside the calendar",
            |r| {
                r.event_time = Some(prost_types::Timestamp {
                    seconds: i64::MAX,
                    nanos: 0,
                })
            },
            INVALID,
            "FIELD_INVALID",
            Some("event_time"),
        ),
        (
            "a time long ago",
            |r| {
                r.event_time = Some(prost_types::Timestamp {
                    seconds: 1_000_000_000,
                    nanos: 0,
                })
            },
            INVALID,
            "FIELD_INVALID",
            Some("event_time"),
        ),
    ];
    for (what, change, code, reason, field) in cases {
        let mut request = consume(ACCOUNT, "r-1", &[("exports.run", 1)]);
        change(&mut request);
        let answer = app.quota.clone().check_quota(request).await;
        check_refusal(what, answer, *code, reason, *field)?;
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
        check_refusal(
            "a batch",
            answer,
            Code::InvalidArgument,
            "FIELD_INVALID",
            Some("requests"),
        )?;
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
    let expected = [("ACCOUNT_NOT_FOUND", ""), ("FIELD_INVALID", "request_id")];
    ensure!(
        found == expected.map(|(reason, field)| (reason.to_owned(), field.to_owned())),
        "{found:?}"
    );
    Ok(())
}

async fn bad_events(app: &Clients) -> Result<()> {
    type Change = fn(&mut usage::UsageEvent);
    const INVALID: Code = Code::InvalidArgument;
    let cases: &[(&str, Change, Code, &str, Option<&str>)] = &[
        (
            "no account",
            |e| e.account_id.clear(),
            INVALID,
            "FIELD_INVALID",
            Some("event.account_id"),
        ),
        (
            "an unknown account",
            |e| e.account_id = "nobody".into(),
            Code::NotFound,
            "ACCOUNT_NOT_FOUND",
            None,
        ),
        (
            "no event id",
            |e| e.event_id.clear(),
            INVALID,
            "FIELD_INVALID",
            Some("event.event_id"),
        ),
        (
            "a long event id",
            |e| e.event_id = "e".repeat(201),
            INVALID,
            "FIELD_INVALID",
            Some("event.event_id"),
        ),
        (
            "a malformed source",
            |e| e.source = "a b".into(),
            INVALID,
            "FIELD_INVALID",
            Some("event.source"),
        ),
        (
            "a decision's source",
            |e| e.source = "decision:x".into(),
            INVALID,
            "FIELD_INVALID",
            Some("event.source"),
        ),
        (
            "an unknown metric",
            |e| e.metric = "api.nothing".into(),
            Code::NotFound,
            "METRIC_NOT_FOUND",
            None,
        ),
        (
            "amount 0",
            |e| e.amount = 0,
            INVALID,
            "FIELD_INVALID",
            Some("event.amount"),
        ),
        (
            "amount -1",
            |e| e.amount = -1,
            INVALID,
            "FIELD_INVALID",
            Some("event.amount"),
        ),
        (
            "amount above 2^53 - 1",
            |e| e.amount = ABOVE,
            INVALID,
            "FIELD_INVALID",
            Some("event.amount"),
        ),
        (
            "an unknown origin",
            |e| e.origin = 99,
            INVALID,
            "FIELD_INVALID",
            Some("event.origin"),
        ),
        (
            "a decision of its own",
            |e| e.origin = usage::Origin::Decision.into(),
            Code::PermissionDenied,
            "CALLER_FORBIDDEN",
            None,
        ),
        (
            "17 properties",
            |e| e.properties = (0..17).map(|n| (format!("k{n}"), String::new())).collect(),
            INVALID,
            "FIELD_INVALID",
            Some("event.properties"),
        ),
        (
            "a long property",
            |e| e.properties = [("k".to_owned(), "v".repeat(257))].into(),
            INVALID,
            "FIELD_INVALID",
            Some("event.properties.k"),
        ),
        (
            "a time outside the calendar",
            |e| {
                e.event_time = Some(prost_types::Timestamp {
                    seconds: 0,
                    nanos: -1,
                })
            },
            INVALID,
            "FIELD_INVALID",
            Some("event.event_time"),
        ),
        (
            "a time long ago",
            |e| {
                e.event_time = Some(prost_types::Timestamp {
                    seconds: 1_000_000_000,
                    nanos: 0,
                })
            },
            INVALID,
            "EVENT_TIME_OUT_OF_RANGE",
            Some("event_time"),
        ),
    ];
    for (what, change, code, reason, field) in cases {
        let mut event = event(ACCOUNT, "e-1", "exports.run", 1);
        change(&mut event);
        let request = usage::TrackUsageRequest {
            event: Some(event),
            backfill: false,
        };
        let answer = app.usage.clone().track_usage(request).await;
        check_refusal(what, answer, *code, reason, *field)?;
    }
    let answer = app
        .usage
        .clone()
        .track_usage(usage::TrackUsageRequest::default())
        .await;
    check_refusal("no event", answer, INVALID, "FIELD_INVALID", Some("event"))
}

async fn bad_batches_of_events(app: &Clients) -> Result<()> {
    for count in [0, 10_001] {
        let events = vec![event(ACCOUNT, "e", "exports.run", 1); count];
        let answer = app.usage.clone().track_usage_batch(batch(events)).await;
        check_refusal(
            "a batch",
            answer,
            Code::InvalidArgument,
            "FIELD_INVALID",
            Some("events"),
        )?;
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
        ("ACCOUNT_NOT_FOUND", ""),
        ("METRIC_NOT_FOUND", ""),
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
        backfill: false,
    }
}

/// 256 KiB a message, 4 MiB a batch of events.
async fn large_messages(app: &Clients) -> Result<()> {
    let check = quota::CheckQuotaRequest {
        features: vec!["f".repeat(1_024); 300],
        ..consume(ACCOUNT, "r-1", &[])
    };
    let answer = app.quota.clone().check_quota(check).await;
    check_refusal(
        "a large check",
        answer,
        Code::ResourceExhausted,
        "BODY_TOO_LARGE",
        None,
    )?;
    let request = account::UpsertAccountRequest {
        display_name: "n".repeat(300 * 1_024),
        ..account::UpsertAccountRequest::default()
    };
    let answer = app.account.clone().upsert_account(request).await;
    check_refusal(
        "a large account",
        answer,
        Code::ResourceExhausted,
        "BODY_TOO_LARGE",
        None,
    )?;

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
    check_refusal(
        "a large batch",
        answer,
        Code::ResourceExhausted,
        "BODY_TOO_LARGE",
        None,
    )
}

async fn bad_questions(app: &Clients, operator: &Clients) -> Result<()> {
    let question = |metrics: &[&str]| usage::GetUsageStatsRequest {
        account_id: ACCOUNT.to_owned(),
        metrics: metrics.iter().map(|metric| (*metric).to_owned()).collect(),
        start_time: Some(prost_types::Timestamp {
            seconds: 900,
            nanos: 0,
        }),
        end_time: Some(prost_types::Timestamp {
            seconds: 4_500,
            nanos: 0,
        }),
        granularity: usage::Granularity::Hour.into(),
        zone: String::new(),
    };
    type Change = fn(&mut usage::GetUsageStatsRequest);
    let cases: &[(&str, Change, &str)] = &[
        ("no metric", |q| q.metrics.clear(), "metrics"),
        (
            "a metric twice",
            |q| q.metrics = vec!["exports.run".into(); 2],
            "metrics[1]",
        ),
        (
            "17 metrics",
            |q| q.metrics = vec!["exports.run".into(); 17],
            "metrics",
        ),
        ("no start", |q| q.start_time = None, "start_time"),
        (
            "a start within a quarter",
            |q| {
                q.start_time = Some(prost_types::Timestamp {
                    seconds: 901,
                    nanos: 0,
                })
            },
            "start_time",
        ),
        (
            "an end before the start",
            |q| q.end_time = Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
            "end_time",
        ),
        ("no granularity", |q| q.granularity = 0, "granularity"),
        ("no such zone", |q| q.zone = "Mars/Olympus".into(), "zone"),
    ];
    for (what, change, field) in cases {
        let mut request = question(&["exports.run"]);
        change(&mut request);
        let answer = app.usage.clone().get_usage_stats(request).await;
        check_refusal(what, answer, Code::InvalidArgument, "FIELD_INVALID", Some(field))?;
    }
    let answer = app
        .usage
        .clone()
        .get_usage_stats(question(&["api.nothing"]))
        .await;
    check_refusal(
        "an unknown metric",
        answer,
        Code::NotFound,
        "METRIC_NOT_FOUND",
        None,
    )?;
    let answer = app
        .quota
        .clone()
        .get_current_usage(quota::GetCurrentUsageRequest {
            account_id: ACCOUNT.to_owned(),
            metrics: vec!["api.nothing".to_owned()],
        })
        .await;
    check_refusal(
        "an unknown metric",
        answer,
        Code::NotFound,
        "METRIC_NOT_FOUND",
        None,
    )?;

    for (page_size, page_token, field, reason) in [
        (-1, "", "page_size", "FIELD_INVALID"),
        (0, "made up", "page_token", "PAGE_TOKEN_INVALID"),
    ] {
        let answer = app
            .usage
            .clone()
            .list_usage_events(usage::ListUsageEventsRequest {
                account_id: ACCOUNT.to_owned(),
                metric: String::new(),
                page_size,
                page_token: page_token.to_owned(),
            })
            .await;
        check_refusal(
            "a page of events",
            answer,
            Code::InvalidArgument,
            reason,
            Some(field),
        )?;
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
        check_refusal(
            "a page of notices",
            answer,
            Code::InvalidArgument,
            reason,
            Some(field),
        )?;
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
        check_refusal(what, answer, Code::InvalidArgument, "FIELD_INVALID", Some(field))?;
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
        check_refusal(what, answer, Code::InvalidArgument, "FIELD_INVALID", Some(field))?;
    }
    let subscribe = |account: &str, plan: &str, request_id: &str| billing::CreateSubscriptionRequest {
        account_id: account.to_owned(),
        plan: plan.to_owned(),
        request_id: request_id.to_owned(),
        ..billing::CreateSubscriptionRequest::default()
    };
    for (what, request, code, reason, field) in [
        (
            "no such plan",
            subscribe(ACCOUNT, "gold", "s-1"),
            Code::NotFound,
            "PLAN_NOT_FOUND",
            None,
        ),
        (
            "no such account",
            subscribe("nobody", "pro", "s-1"),
            Code::NotFound,
            "ACCOUNT_NOT_FOUND",
            None,
        ),
        (
            "no request id",
            subscribe(ACCOUNT, "pro", ""),
            Code::InvalidArgument,
            "FIELD_INVALID",
            Some("request_id"),
        ),
        (
            "a malformed plan",
            subscribe(ACCOUNT, "Pro", "s-1"),
            Code::InvalidArgument,
            "FIELD_INVALID",
            Some("plan"),
        ),
    ] {
        let answer = app.billing.clone().create_subscription(request).await;
        check_refusal(what, answer, code, reason, field)?;
    }
    let broken = billing::ApplyCatalogRequest {
        document: octroi_fleet::seed::CATALOG.replace("default_plan: free", "default_plan: gold"),
    };
    let answer = operator.billing.clone().apply_catalog(broken).await;
    let status = answer.err().context("a broken catalog was applied")?;
    let reason = reason_of(&status).map(octroi_proto::errors::v1::ErrorReason::name);
    ensure!(reason == Some("CATALOG_INVALID"), "{status:?}");
    Ok(())
}

async fn bad_requests_are_told_the_field_and_the_rule(fleet: &mut Fleet) -> Result<()> {
    let ann = signed_up(fleet, "ann@example.com").await?;
    let (_, program) = new_key(&ann, &["quota.check", "usage.write", "usage.read"]).await?;
    bad_check_bodies(&program).await?;
    bad_event_bodies(&program).await?;
    bad_bodies(&program).await?;
    bad_pages_and_keys(&ann, &program).await?;
    nothing_was_written(fleet).await
}

async fn bad_check_bodies(program: &Rest) -> Result<()> {
    let item = |metric: &str, amount: Value| json!({ "metric": metric, "amount": amount });
    let good = |changes: Value| -> Value {
        let mut body = json!({ "mode": "consume", "request_id": "r-1", "items": [{ "metric": "exports.run", "amount": 1 }] });
        for (name, value) in changes.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    };
    for (body, status, reason, field) in [
        (
            good(json!({ "items": [item("api.nothing", json!(1))] })),
            404,
            "METRIC_NOT_FOUND",
            "",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(0))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(-1))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(1.5))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(1.0))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(ABOVE))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(u64::MAX))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!("1"))] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", Value::Null)] })),
            400,
            "FIELD_INVALID",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [{ "metric": "exports.run" }] })),
            400,
            "FIELD_REQUIRED",
            "items[0].amount",
        ),
        (
            good(json!({ "items": [item("exports.run", json!(1)), item("exports.run", json!(1))] })),
            400,
            "FIELD_INVALID",
            "items[1].metric",
        ),
        (
            good(json!({ "items": vec![item("exports.run", json!(1)); 17] })),
            400,
            "FIELD_INVALID",
            "items",
        ),
        (
            good(json!({ "items": "exports.run" })),
            400,
            "FIELD_INVALID",
            "items",
        ),
        (good(json!({ "mode": "take" })), 400, "FIELD_INVALID", "mode"),
        (good(json!({ "mode": 1 })), 400, "FIELD_INVALID", "mode"),
        (
            good(json!({ "request_id": "" })),
            400,
            "FIELD_INVALID",
            "request_id",
        ),
        (
            good(json!({ "request_id": "a b" })),
            400,
            "FIELD_INVALID",
            "request_id",
        ),
        (
            good(json!({ "request_id": Value::Null })),
            400,
            "FIELD_INVALID",
            "request_id",
        ),
        (
            good(json!({ "account_id": "acme" })),
            400,
            "FIELD_INVALID",
            "account_id",
        ),
        (json!({ "items": [] }), 400, "FIELD_REQUIRED", "mode"),
        (json!([]), 400, "FIELD_INVALID", "body"),
    ] {
        let answer = program.post("/api/quota/check", &body).await?;
        check_problem(&body.to_string(), &answer, status, reason, field)?;
    }
    Ok(())
}

fn check_problem(
    what: &str,
    answer: &octroi_tests::harness::fleet::Answer,
    status: u16,
    reason: &str,
    field: &str,
) -> Result<()> {
    let found = answer.refusal(status).with_context(|| what.to_owned())?;
    let fields = answer.fields()?;
    let (first, rule) = fields.first().cloned().unwrap_or_default();
    ensure!(
        found == reason && first == field,
        "{what}: expected {reason} {field}, got {found} {fields:?}"
    );
    ensure!(
        first.is_empty() || !rule.is_empty(),
        "{what}: {first} breaks no rule"
    );
    Ok(())
}

async fn bad_event_bodies(program: &Rest) -> Result<()> {
    let good = |changes: Value| -> Value {
        let mut body = json!({ "event_id": "e-1", "metric": "exports.run", "amount": 1 });
        for (name, value) in changes.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    };
    for (body, status, reason, field) in [
        (
            good(json!({ "metric": "api.nothing" })),
            404,
            "METRIC_NOT_FOUND",
            "",
        ),
        (good(json!({ "event_id": "" })), 400, "FIELD_INVALID", "event_id"),
        (
            good(json!({ "source": "decision:x" })),
            400,
            "FIELD_INVALID",
            "source",
        ),
        (good(json!({ "amount": 0 })), 400, "FIELD_INVALID", "amount"),
        (good(json!({ "amount": 0.5 })), 400, "FIELD_INVALID", "amount"),
        (
            good(json!({ "event_time": "yesterday" })),
            400,
            "FIELD_INVALID",
            "event_time",
        ),
        (
            good(json!({ "event_time": "2001-09-09T01:46:40Z" })),
            400,
            "EVENT_TIME_OUT_OF_RANGE",
            "event_time",
        ),
        (
            good(json!({ "properties": { "k": 1 } })),
            400,
            "FIELD_INVALID",
            "properties.k",
        ),
        (
            good(json!({ "origin": "decision" })),
            400,
            "FIELD_INVALID",
            "origin",
        ),
        (
            json!({ "event_id": "e-1", "amount": 1 }),
            400,
            "FIELD_REQUIRED",
            "metric",
        ),
        (json!({ "events": [] }), 400, "FIELD_INVALID", "events"),
        (
            json!({ "events": vec![json!({}); 10_001] }),
            400,
            "FIELD_INVALID",
            "events",
        ),
    ] {
        let answer = program.post("/api/usage/events", &body).await?;
        let what: String = body.to_string().chars().take(200).collect();
        check_problem(&what, &answer, status, reason, field)?;
    }
    // Of many, each has a refusal of its own.
    let many =
        json!({ "events": [good(json!({ "amount": 0 })), good(json!({ "metric": "api.nothing" })), {}] });
    let answer = program.post("/api/usage/events", &many).await?.expect(200)?;
    ensure!(
        answer["refused_count"] == 3 && answer["recorded_count"] == 0,
        "{answer}"
    );
    let result = |index: usize| answer["results"][index]["error"].clone();
    ensure!(result(0)["errors"][0]["field"] == "events[0].amount", "{answer}");
    ensure!(result(1)["reason"] == "METRIC_NOT_FOUND", "{answer}");
    ensure!(
        result(2)["errors"][0]["field"] == "events[2].event_id",
        "{answer}"
    );
    Ok(())
}

async fn bad_bodies(program: &Rest) -> Result<()> {
    let check = "/api/quota/check";
    let send = async |path: &str, content_type: &'static str, body: String| {
        program
            .send(Method::POST, path, |request| {
                request.header("content-type", content_type).body(body)
            })
            .await
    };
    let json = "application/json";
    let deep = "[".repeat(200) + &"]".repeat(200);
    for (what, content_type, body, status, reason) in [
        ("not JSON", json, "{".to_owned(), 400, "BODY_MALFORMED"),
        ("nothing", json, String::new(), 400, "BODY_MALFORMED"),
        (
            "two values",
            json,
            "{\"mode\":\"peek\"} {}".to_owned(),
            400,
            "BODY_MALFORMED",
        ),
        (
            "deep nesting",
            json,
            format!("{{\"mode\":\"peek\",\"items\":{deep}}}"),
            400,
            "FIELD_INVALID",
        ),
        (
            "a field twice",
            json,
            "{\"mode\":\"peek\",\"mode\":\"peek\"}".to_owned(),
            400,
            "FIELD_INVALID",
        ),
        (
            "a form",
            "application/x-www-form-urlencoded",
            "mode=peek".to_owned(),
            415,
            "CONTENT_TYPE_UNSUPPORTED",
        ),
        (
            "text",
            "text/plain",
            "{\"mode\":\"peek\"}".to_owned(),
            415,
            "CONTENT_TYPE_UNSUPPORTED",
        ),
        (
            "more than 256 KiB",
            json,
            " ".repeat(256 * 1_024 + 1),
            413,
            "BODY_TOO_LARGE",
        ),
    ] {
        let answer = send(check, content_type, body).await?;
        ensure!(
            answer.refusal(status).with_context(|| what.to_owned())? == reason,
            "{what}: {answer:?}"
        );
    }
    let answer = send("/api/usage/events", json, " ".repeat(4 * 1_024 * 1_024 + 1)).await?;
    ensure!(
        answer.refusal(413)? == "BODY_TOO_LARGE",
        "more than 4 MiB: {answer:?}"
    );
    let answer = send("/api/usage/events", json, " ".repeat(3 * 1_024 * 1_024)).await?;
    ensure!(
        answer.refusal(400)? == "BODY_MALFORMED",
        "3 MiB of nothing: {answer:?}"
    );
    Ok(())
}

async fn bad_pages_and_keys(ann: &Rest, program: &Rest) -> Result<()> {
    let usage = "/api/account/usage?metrics=exports.run&from=2026-03-01T00:00:00Z&to=2026-03-02T00:00:00Z";
    for (path, reason, field) in [
        ("/api/account/usage".to_owned(), "FIELD_INVALID", "metrics"),
        (
            format!("{usage}&granularity=week"),
            "FIELD_INVALID",
            "granularity",
        ),
        (format!("{usage}&zone=Mars/Olympus"), "FIELD_INVALID", "zone"),
        (format!("{usage}&extra=1"), "FIELD_INVALID", "extra"),
        (
            usage.replace("T00:00:00Z&to", "T00:00:01Z&to"),
            "FIELD_INVALID",
            "from",
        ),
        (
            "/api/account/usage/events?limit=0".to_owned(),
            "FIELD_INVALID",
            "limit",
        ),
        (
            "/api/account/usage/events?cursor=made-up".to_owned(),
            "PAGE_TOKEN_INVALID",
            "cursor",
        ),
    ] {
        let answer = program.get(&path).await?;
        check_problem(&path, &answer, 400, reason, field)?;
    }
    for (body, reason, field) in [
        (
            json!({ "label": "", "scopes": ["quota.check"] }),
            "FIELD_INVALID",
            "label",
        ),
        (json!({ "label": "a", "scopes": [] }), "FIELD_INVALID", "scopes"),
        (
            json!({ "label": "a", "scopes": ["quota.chek"] }),
            "FIELD_INVALID",
            "scopes",
        ),
        (json!({ "label": "a" }), "FIELD_REQUIRED", "scopes"),
    ] {
        let answer = ann.post("/api/account/api-keys", &body).await?;
        check_problem(&body.to_string(), &answer, 400, reason, field)?;
    }
    for key in ["oct_0", "sk_live_1", ""] {
        let answer = ann.with_key(key).get("/api/account/quotas").await?;
        ensure!(answer.refusal(401)? == "API_KEY_INVALID", "{key}: {answer:?}");
    }
    Ok(())
}
