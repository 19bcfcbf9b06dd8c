//! The ledger is kept in months: events of any of them are found, and a month that is not kept goes with all of it.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, ToSpan as _};
use octroi_kit::convert::to_proto_time;
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        GetUsageEventRequest, ListUsageEventsRequest, TrackUsageRequest, TrackUsageResponse, UsageEvent,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, Topology, eventually, now, tell};
use sqlx::{Connection as _, PgConnection};
use tonic::{Code, Response, Status};

use crate::{
    asks::{check_refusal, event, invalid, refusal, upsert_account},
    clock::{all_services_have_the_time, in_the_sandbox},
    story::both_topologies,
};

both_topologies!(
    events_of_many_months_are_listed_by_time_and_by_what_they_are,
    programs_of_the_version_before_record_into_the_same_ledger,
);

const ACCOUNT: &str = "acme";
const TOKENS: &str = "llm.tokens_in";
const EXPORTS: &str = "exports.run";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_month_goes_when_it_is_not_kept_any_more() -> Result<()> {
    let sandbox = Fleet::builder(Topology::Split)
        .set("sandbox", "true")
        .set("usage.ledger.months_kept", "4");
    tell(sandbox, a_month_that_is_not_kept_is_dropped_with_its_keys).await
}

fn used(event_id: &str, metric: &str, at: Timestamp, region: &str) -> UsageEvent {
    UsageEvent {
        event_time: Some(to_proto_time(at)),
        properties: HashMap::from([("region".to_owned(), region.to_owned())]),
        ..event(ACCOUNT, event_id, metric, 1)
    }
}

async fn track(
    app: &Clients,
    event: UsageEvent,
    backfill: bool,
) -> Result<Response<TrackUsageResponse>, Status> {
    let request = TrackUsageRequest {
        event: Some(event),
        backfill,
    };
    app.usage.clone().track_usage(request).await
}

/// The ids of what is listed, page by page.
async fn listed(app: &Clients, mut request: ListUsageEventsRequest) -> Result<Vec<String>> {
    ACCOUNT.clone_into(&mut request.account_id);
    request.page_size = 2;
    let mut ids = Vec::new();
    loop {
        let page = app
            .usage
            .clone()
            .list_usage_events(request.clone())
            .await?
            .into_inner();
        ids.extend(
            page.events
                .into_iter()
                .filter_map(|one| Some(one.event?.event_id)),
        );
        if page.next_page_token.is_empty() {
            return Ok(ids);
        }
        request.page_token = page.next_page_token;
    }
}

async fn events_of_many_months_are_listed_by_time_and_by_what_they_are(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let days_ago = |days: i64| now() - (24 * days).hours();
    // In no order of time, in months that nobody made before, and two at one instant.
    for (event_id, metric, days, region) in [
        ("e-400", TOKENS, 400, "eu"),
        ("e-10", TOKENS, 10, "eu"),
        ("e-900", EXPORTS, 900, "us"),
        ("e-1", EXPORTS, 1, "eu"),
        ("e-70", TOKENS, 70, "us"),
        ("e-200", EXPORTS, 200, "eu"),
    ] {
        track(&app, used(event_id, metric, days_ago(days), region), true).await?;
    }
    let all = || ListUsageEventsRequest::default();
    let cases = [
        (all(), &["e-1", "e-10", "e-70", "e-200", "e-400", "e-900"][..]),
        (
            ListUsageEventsRequest {
                metric: TOKENS.to_owned(),
                ..all()
            },
            &["e-10", "e-70", "e-400"],
        ),
        (
            ListUsageEventsRequest {
                start_time: Some(to_proto_time(days_ago(201))),
                end_time: Some(to_proto_time(days_ago(9))),
                ..all()
            },
            &["e-10", "e-70", "e-200"],
        ),
        (
            ListUsageEventsRequest {
                properties: HashMap::from([("region".to_owned(), "us".to_owned())]),
                ..all()
            },
            &["e-70", "e-900"],
        ),
        (
            ListUsageEventsRequest {
                source: "importer".to_owned(),
                ..all()
            },
            &[],
        ),
    ];
    for (request, expected) in cases {
        let found = listed(&app, request.clone()).await?;
        ensure!(found == expected, "{found:?} of {request:?}");
    }
    let asked = GetUsageEventRequest {
        account_id: ACCOUNT.to_owned(),
        event_id: "e-900".to_owned(),
        ..GetUsageEventRequest::default()
    };
    let found = app.usage.clone().get_usage_event(asked).await?.into_inner();
    let found = found.event.and_then(|one| one.event).context("an event")?;
    ensure!(found.metric == EXPORTS, "{found:?}");

    // Months that nobody keeps are not made, and a range has a length.
    let too_old = track(&app, used("e-9999", TOKENS, days_ago(9_999), "eu"), true).await;
    let out_of_range = refusal(Code::InvalidArgument, ErrorReason::EventTimeOutOfRange);
    check_refusal("27 years back", too_old, out_of_range.of("event.event_time"))?;
    let instant = Some(to_proto_time(days_ago(1)));
    let backwards = ListUsageEventsRequest {
        account_id: ACCOUNT.to_owned(),
        start_time: instant,
        end_time: instant,
        ..all()
    };
    let answer = app.usage.clone().list_usage_events(backwards).await;
    check_refusal("an empty range", answer, invalid("end_time"))
}

/// What the programs of the version before say to the database, of events `$1` of one amount.
const RECORD_AS_BEFORE: &str = "INSERT INTO usage.usage_event
         (account_id, source, event_id, metric, amount, event_at, recorded_at, origin, backfill, payload_hash)
     SELECT 'acme', 'application', event_id, 'llm.tokens_in', 3, now() - interval '300 days', now(), 'direct', true,
            sha256(event_id::bytea)
     FROM unnest($1::text[]) AS event_id
     ON CONFLICT DO NOTHING RETURNING event_id";

async fn programs_of_the_version_before_record_into_the_same_ledger(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    track(&app, used("e-new", TOKENS, now(), "eu"), false).await?;
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let mut as_before = async |events: &[&str]| -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(RECORD_AS_BEFORE)
            .bind(events)
            .fetch_all(&mut session)
            .await?)
    };
    let recorded = as_before(&["e-1", "e-2", "e-new"]).await?;
    ensure!(
        recorded == ["e-1", "e-2"],
        "what is there is not recorded again: {recorded:?}"
    );
    ensure!(as_before(&["e-1"]).await?.is_empty(), "a repeat");
    ensure!(listed(&app, ListUsageEventsRequest::default()).await?.len() == 3);
    let reused = track(&app, used("e-1", TOKENS, now(), "eu"), false).await;
    check_refusal(
        "another content",
        reused,
        refusal(Code::AlreadyExists, ErrorReason::EventIdReused),
    )?;

    // They take back what does not stand.
    sqlx::query("DELETE FROM usage.usage_event WHERE source = 'application'")
        .execute(&mut session)
        .await?;
    ensure!(listed(&app, ListUsageEventsRequest::default()).await? == ["e-new"]);
    let again = track(&app, used("e-1", TOKENS, now(), "eu"), false)
        .await?
        .into_inner();
    ensure!(!again.duplicate, "{again:?}");
    Ok(())
}

async fn a_month_that_is_not_kept_is_dropped_with_its_keys(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let first_at = now();
    let old = used("e-old", TOKENS, first_at, "eu");
    track(&app, old.clone(), false).await?;
    let too_old = track(&app, used("e-0", TOKENS, first_at - 3_840.hours(), "eu"), true).await;
    let out_of_range =
        refusal(Code::InvalidArgument, ErrorReason::EventTimeOutOfRange).of("event.event_time");
    check_refusal("5 months back, of which 4 are kept", too_old, out_of_range)?;

    in_the_sandbox(fleet, &["move", "3120h"]).await?;
    all_services_have_the_time(&app, first_at + 3_120.hours()).await?;
    let young = used("e-young", TOKENS, first_at + 3_120.hours(), "eu");
    track(&app, young, false).await?;
    // It looks when it starts.
    fleet.stop("usage").await?;
    fleet.restart("usage").await?;
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    eventually("the month is gone, with its key", async || {
        let left: (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM usage.ledger), (SELECT count(*) FROM usage.event_key)",
        )
        .fetch_one(&mut session)
        .await?;
        // The young one, and the one that told when the clock was moved.
        ensure!(left == (2, 2), "{left:?}");
        Ok(())
    })
    .await?;
    let app = fleet.clients(APPLICATION)?;
    let left = listed(&app, ListUsageEventsRequest::default()).await?;
    ensure!(
        matches!(&left[..], [young, clock] if young == "e-young" && clock.starts_with("clock-")),
        "{left:?}"
    );
    // Nobody makes the month again, whatever is configured: a key is not missed.
    let is_made: bool =
        sqlx::query_scalar("SELECT usage.make_ledger_month(date_trunc('month', now(), 'UTC'))")
            .fetch_one(&mut session)
            .await?;
    ensure!(!is_made, "a month below the floor was made");
    // What is not known any more is not recorded again.
    let again = track(&app, old, true).await;
    check_refusal("a repeat of what is gone", again, out_of_range)
}
