//! Batches of events that are recorded as a whole or not at all, and what is refused of others.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use octroi_proto::{
    billing::v1::ApplyCatalogRequest,
    errors::v1::ErrorReason,
    usage::v1::{
        GetLedgerTotalsRequest, GetUsageEventRequest, ListUsageEventsRequest, TrackUsageBatchRequest,
        TrackUsageBatchResponse, TrackUsageBatchesRequest, TrackUsageRequest, UsageEvent,
        track_usage_batches_result::Outcome as OfBatch, track_usage_result::Outcome,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually};
use sqlx::{Connection as _, PgConnection};
use tonic::{Code, Request};

use crate::{
    asks::{check_refusal, event, invalid, ledger_total, upsert_account},
    ledger::ledger,
    story::both_topologies,
};

both_topologies!(
    a_batch_is_recorded_as_a_whole_or_not_at_all,
    batches_of_one_call_are_answered_as_if_each_had_come_alone,
    an_event_keeps_the_content_hash_of_its_request,
    of_batches_that_overlap_at_the_same_time_each_is_there_as_a_whole_or_not_at_all,
    a_metric_is_counted_as_the_catalog_says,
    ten_thousand_unknown_metrics_are_one_look_at_the_catalog,
    the_lag_is_what_the_rollups_lack,
    a_last_page_of_events_leads_nowhere,
);

const ACCOUNT: &str = "acme";
const METRIC: &str = "llm.tokens_in";

fn used(event_id: &str, amount: i64) -> UsageEvent {
    event(ACCOUNT, event_id, METRIC, amount)
}

fn whole(events: Vec<UsageEvent>) -> TrackUsageBatchRequest {
    TrackUsageBatchRequest {
        events,
        all_or_nothing: true,
        ..TrackUsageBatchRequest::default()
    }
}

/// `new`, `duplicate`, or the reason, an event.
async fn track(clients: &Clients, request: TrackUsageBatchRequest) -> Result<Vec<String>> {
    let answer = clients.usage.clone().track_usage_batch(request).await?;
    outcomes(answer.into_inner())
}

fn outcomes(answer: TrackUsageBatchResponse) -> Result<Vec<String>> {
    let results = answer.results.into_iter();
    results
        .map(|result| {
            Ok(match result.outcome.context("a result without outcome")? {
                Outcome::Recorded(recorded) if recorded.duplicate => "duplicate".to_owned(),
                Outcome::Recorded(_) => "new".to_owned(),
                Outcome::Error(error) => {
                    ensure!(!error.message.is_empty(), "no sentence: {error:?}");
                    error.reason
                }
            })
        })
        .collect()
}

async fn expect(clients: &Clients, request: TrackUsageBatchRequest, expected: &[&str]) -> Result<()> {
    let shown: Vec<String> = request.events.iter().map(|one| one.event_id.clone()).collect();
    let results = track(clients, request).await?;
    ensure!(
        results == expected,
        "{shown:?}: {results:?} instead of {expected:?}"
    );
    Ok(())
}

async fn rollup_lag(operator: &Clients) -> Result<u64> {
    let nowhere = Some(prost_types::Timestamp::default());
    let request = GetLedgerTotalsRequest {
        metrics: vec![METRIC.to_owned()],
        start_time: nowhere,
        end_time: nowhere,
        skip_rollups: true,
        ..GetLedgerTotalsRequest::default()
    };
    let answer = operator
        .usage
        .clone()
        .get_ledger_totals(request)
        .await?
        .into_inner();
    let [total] = &answer.totals[..] else {
        anyhow::bail!("{answer:?}");
    };
    ensure!(
        (total.events, total.rollup_amount) == (0, 0),
        "an empty range has something: {total:?}"
    );
    Ok(answer.rollup_lag_events)
}

/// The sums of account and metric are those of the ledger, and nothing is on its way.
async fn the_sums_have_the_ledger(operator: &Clients) -> Result<()> {
    eventually("the sums have what the ledger has", async || {
        let total = ledger_total(operator, ACCOUNT, METRIC).await?;
        let ledger = total.decided_amount + total.direct_amount;
        ensure!(total.rollup_amount == ledger, "{total:?}");
        let lag = rollup_lag(operator).await?;
        ensure!(lag == 0, "{lag} events behind");
        Ok(())
    })
    .await
}

async fn batches_of_one_call_are_answered_as_if_each_had_come_alone(fleet: &mut Fleet) -> Result<()> {
    let (app, quota) = (fleet.clients(APPLICATION)?, fleet.clients("quota")?);
    upsert_account(&app, ACCOUNT).await?;
    let ask = async |batches: Vec<TrackUsageBatchRequest>| {
        let request = TrackUsageBatchesRequest { batches };
        quota.usage.clone().track_usage_batches(request).await
    };
    let batches = vec![
        whole(vec![used("e-1", 1), used("e-2", 2)]),
        whole(Vec::new()),
        whole(vec![used("e-3", 4), used("e-4", 0)]),
        whole(vec![used("e-2", 2), used("e-1", 1)]),
        TrackUsageBatchRequest {
            content_hash: vec![1],
            ..whole(vec![used("e-5", 8)])
        },
    ];
    let results = ask(batches).await?.into_inner().results.into_iter();
    let mut said: Vec<String> = results
        .map(
            |result| match result.outcome.context("a batch without an answer")? {
                OfBatch::Response(response) => Ok(outcomes(response)?.join(" ")),
                OfBatch::Error(error) => Ok(format!("{} of {}", error.reason, error.field)),
            },
        )
        .collect::<Result<_>>()?;
    // Of two that have the same events either may be the first.
    said.sort_unstable();
    let expected = [
        "BATCH_REFUSED FIELD_INVALID",
        "FIELD_INVALID of batches[1].events",
        "FIELD_INVALID of batches[4].content_hash",
        "duplicate duplicate",
        "new new",
    ];
    ensure!(said == expected, "{said:?}");
    let there: BTreeMap<String, i64> = [("e-1".to_owned(), 1), ("e-2".to_owned(), 2)].into();
    ensure!(ledger(fleet).await? == there, "not what was acknowledged");

    check_refusal("none", ask(Vec::new()).await, invalid("batches"))?;
    let many = vec![whole(vec![used("e-6", 1)]); 1_001];
    check_refusal("too many", ask(many).await, invalid("batches"))?;
    let large = vec![whole(vec![used("e-6", 1); 6_000]); 2];
    check_refusal("too many events", ask(large).await, invalid("batches"))
}

async fn a_batch_is_recorded_as_a_whole_or_not_at_all(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    expect(&app, whole(vec![used("e-1", 1), used("e-2", 2)]), &["new", "new"]).await?;
    let again = whole(vec![used("e-2", 2), used("e-1", 1)]);
    expect(&app, again, &["duplicate", "duplicate"]).await?;

    let partly_known = || vec![used("e-3", 4), used("e-1", 1), used("e-4", 8)];
    let refused = ["BATCH_REFUSED", "duplicate", "BATCH_REFUSED"];
    expect(&app, whole(partly_known()), &refused).await?;
    let reused = vec![used("e-3", 4), used("e-1", 9)];
    expect(&app, whole(reused), &["BATCH_REFUSED", "EVENT_ID_REUSED"]).await?;
    let unknown_metric = vec![used("e-3", 4), event(ACCOUNT, "e-5", "api.nothing", 1)];
    expect(
        &app,
        whole(unknown_metric),
        &["BATCH_REFUSED", "METRIC_NOT_FOUND"],
    )
    .await?;
    let unknown_account = vec![event("nobody", "e-5", METRIC, 1), used("e-3", 4)];
    expect(
        &app,
        whole(unknown_account),
        &["ACCOUNT_NOT_FOUND", "BATCH_REFUSED"],
    )
    .await?;
    let invalid = vec![used("e-3", 4), used("e-5", 0)];
    expect(&app, whole(invalid), &["BATCH_REFUSED", "FIELD_INVALID"]).await?;
    let there: BTreeMap<String, i64> = [("e-1".to_owned(), 1), ("e-2".to_owned(), 2)].into();
    ensure!(
        ledger(fleet).await? == there,
        "a refused batch has left something"
    );

    // Without the promise the same batch is recorded as far as it can be, and ids that were refused are free.
    let in_part = TrackUsageBatchRequest {
        all_or_nothing: false,
        ..whole(partly_known())
    };
    expect(&app, in_part, &["new", "duplicate", "new"]).await?;
    expect(&app, whole(vec![used("e-5", 16)]), &["new"]).await?;
    let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
    ensure!((total.events, total.direct_amount) == (5, 31), "{total:?}");
    the_sums_have_the_ledger(&operator).await
}

async fn an_event_keeps_the_content_hash_of_its_request(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let (one, other) = (vec![1; 32], vec![2; 32]);
    let request = |content_hash: &[u8]| TrackUsageBatchRequest {
        content_hash: content_hash.to_owned(),
        ..whole(vec![used("r-1", 1), used("r-1/more", 2)])
    };
    expect(&app, request(&one), &["new", "new"]).await?;
    expect(&app, request(&one), &["duplicate", "duplicate"]).await?;
    for hash in [&other[..], &[]] {
        expect(&app, request(hash), &["EVENT_ID_REUSED", "EVENT_ID_REUSED"]).await?;
    }

    let look = |content_hash: &[u8]| GetUsageEventRequest {
        account_id: ACCOUNT.to_owned(),
        event_id: "r-1".to_owned(),
        content_hash: content_hash.to_owned(),
        ..GetUsageEventRequest::default()
    };
    for (hash, same) in [(&one[..], true), (&other, false), (&[], false)] {
        let answer = app.usage.clone().get_usage_event(look(hash)).await?.into_inner();
        ensure!(answer.same_content == same, "{hash:?}: {answer:?}");
    }
    let short = app.usage.clone().get_usage_event(look(&[1; 31])).await;
    check_refusal("a look with 31 bytes", short, invalid("content_hash"))?;
    let long = app.usage.clone().track_usage_batch(request(&[1; 33])).await;
    check_refusal("a batch with 33 bytes", long, invalid("content_hash"))
}

const ROUNDS: usize = 20;
/// Calls at the same time, each of which shares an event with the one before it and the one after it.
const CALLS: usize = 8;

async fn of_batches_that_overlap_at_the_same_time_each_is_there_as_a_whole_or_not_at_all(
    fleet: &mut Fleet,
) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let connections = (0..CALLS)
        .map(|_| fleet.clients(APPLICATION))
        .collect::<Result<Vec<_>>>()?;
    let mut sent = BTreeMap::new();
    for round in 0..ROUNDS {
        let calls = connections.iter().enumerate().map(async |(call, connection)| {
            let next = (call + 1) % CALLS;
            // The amount tells whose the event is; half of the calls name the shared ones in the other order.
            let mut events = vec![
                used(&format!("e-{round}-{call}"), amount_of(call)?),
                used(&format!("own-{round}-{call}"), amount_of(call)?),
                used(&format!("e-{round}-{next}"), amount_of(call)?),
            ];
            if call.is_multiple_of(2) {
                events.reverse();
            }
            let results = track(connection, whole(events.clone())).await?;
            anyhow::Ok((call, events, results))
        });
        let mut winners = BTreeSet::new();
        for (call, events, results) in try_join_all(calls).await? {
            let new = results.iter().filter(|result| *result == "new").count();
            ensure!(
                new == 0 || new == events.len(),
                "call {call} is there in part: {results:?}"
            );
            let refused = |result: &String| matches!(result.as_str(), "BATCH_REFUSED" | "EVENT_ID_REUSED");
            ensure!(new > 0 || results.iter().all(refused), "call {call}: {results:?}");
            if new > 0 {
                winners.insert(call);
                sent.extend(events.into_iter().map(|event| (event.event_id, event.amount)));
            }
        }
        for call in &winners {
            ensure!(
                !winners.contains(&((call + 1) % CALLS)),
                "two that exclude each other: {winners:?}"
            );
        }
        // Whoever was refused had a neighbour that was not.
        for call in 0..CALLS {
            let near = [(call + CALLS - 1) % CALLS, call, (call + 1) % CALLS];
            ensure!(
                near.iter().any(|one| winners.contains(one)),
                "{call} in vain: {winners:?}"
            );
        }
    }
    ensure!(
        ledger(fleet).await? == sent,
        "the ledger has other events than were acknowledged"
    );
    the_sums_have_the_ledger(&operator).await
}

fn amount_of(call: usize) -> Result<i64> {
    Ok(i64::try_from(call)? + 1)
}

async fn a_metric_is_counted_as_the_catalog_says(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let more = "metrics:
  - { slug: logins, kind: flow, aggregation: count, unit: login, name: { en: Logins, fr: Connexions } }
  - { slug: users.active, kind: flow, aggregation: unique, property: user, unit: user, name: { en: Users, fr: Utilisateurs } }
";
    let document = octroi_fleet::seed::CATALOG.replacen("metrics:\n", more, 1);
    operator
        .billing
        .clone()
        .apply_catalog(ApplyCatalogRequest { document })
        .await?;
    let login = |event_id: &str, amount| event(ACCOUNT, event_id, "logins", amount);
    let single = |event| TrackUsageRequest {
        event: Some(event),
        backfill: false,
    };
    eventually("usage has the catalog", async || {
        Ok(app.usage.clone().track_usage(single(login("e-1", 1))).await?)
    })
    .await?;

    let many = app.usage.clone().track_usage(single(login("e-2", 50))).await;
    check_refusal("50 of what is counted", many, invalid("event.amount"))?;
    let batch = TrackUsageBatchRequest {
        events: vec![login("e-3", 1), login("e-4", 50)],
        ..TrackUsageBatchRequest::default()
    };
    let answer = app.usage.clone().track_usage_batch(batch).await?.into_inner();
    let [first, second] = &answer.results[..] else {
        anyhow::bail!("{answer:?}");
    };
    ensure!(matches!(first.outcome, Some(Outcome::Recorded(_))), "{first:?}");
    let Some(Outcome::Error(error)) = &second.outcome else {
        anyhow::bail!("{second:?}");
    };
    let told = (error.code, error.reason.as_str(), error.field.as_str());
    let expected = (
        i32::from(Code::InvalidArgument),
        "FIELD_INVALID",
        "events[1].amount",
    );
    ensure!(told == expected, "{error:?}");
    ensure!(error.message.contains("must be 1"), "{error:?}");

    // What counts the values of a property must have it.
    let nobody = event(ACCOUNT, "e-5", "users.active", 1);
    let nobody = app.usage.clone().track_usage(single(nobody)).await;
    check_refusal("a user without a name", nobody, invalid("event.properties.user"))
}

async fn ten_thousand_unknown_metrics_are_one_look_at_the_catalog(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let unknown = |index| event(ACCOUNT, &format!("e-{index}"), &format!("unknown.m{index}"), 1);
    let mut request = Request::new(TrackUsageBatchRequest {
        events: (0..10_000).map(unknown).collect(),
        ..TrackUsageBatchRequest::default()
    });
    // Far more than one look takes, and less than one look a metric.
    request.set_timeout(Duration::from_secs(4));
    let answer = app.usage.clone().track_usage_batch(request).await?.into_inner();
    ensure!(answer.results.len() == 10_000, "{} results", answer.results.len());
    for result in answer.results {
        let not_found = ErrorReason::MetricNotFound.name();
        ensure!(
            matches!(&result.outcome, Some(Outcome::Error(error)) if error.reason == not_found),
            "{result:?}"
        );
    }
    Ok(())
}

async fn the_lag_is_what_the_rollups_lack(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let events = (0..500).map(|index| used(&format!("e-{index}"), 1)).collect();
    track(&app, whole(events)).await?;
    the_sums_have_the_ledger(&operator).await?;

    // Whoever adds to the rollups waits for this lock, and whoever writes the ledger does not.
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let mut lock = session.begin().await?;
    sqlx::query("LOCK TABLE usage.rollup_quarter IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await?;
    track(
        &app,
        whole((0..3).map(|index| used(&format!("l-{index}"), 1)).collect()),
    )
    .await?;
    let lag = rollup_lag(&operator).await?;
    ensure!(lag == 3, "{lag} events behind instead of 3");
    lock.rollback().await?;
    session.close().await?;
    eventually("the rollups have them", async || {
        let lag = rollup_lag(&operator).await?;
        ensure!(lag == 0, "{lag} events behind instead of none");
        Ok(())
    })
    .await
}

async fn a_last_page_of_events_leads_nowhere(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    upsert_account(&app, ACCOUNT).await?;
    let events = (0..4).map(|index| used(&format!("e-{index}"), 1)).collect();
    track(&app, whole(events)).await?;
    let mut page_token = String::new();
    for (page, goes_on) in [(1, true), (2, false)] {
        let request = ListUsageEventsRequest {
            account_id: ACCOUNT.to_owned(),
            page_size: 2,
            page_token,
            ..ListUsageEventsRequest::default()
        };
        let answer = app.usage.clone().list_usage_events(request).await?.into_inner();
        ensure!(answer.events.len() == 2, "page {page}: {answer:?}");
        ensure!(
            answer.next_page_token.is_empty() != goes_on,
            "page {page}: {answer:?}"
        );
        page_token = answer.next_page_token;
    }
    Ok(())
}
