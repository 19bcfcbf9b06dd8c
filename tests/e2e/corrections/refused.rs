//! What is refused, what is repeated, and what an event says of it.

use anyhow::{Context, Result, ensure};
use octroi_proto::{
    errors::v1::ErrorReason,
    usage::v1::{
        AmendUsageRequest, BillingState, Granularity, ListUsageEventsRequest, TrackUsageRequest,
        VoidUsageRequest,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually};

use super::{ACCOUNT, amend, amend_all, made, not_made, standing, undo, view, void, void_all};
use crate::asks::{check_refusal, event, invalid, ledger_total, not_found, upsert_account};

const METRIC: &str = "llm.tokens_in";

async fn track(app: &Clients, event_id: &str, amount: i64) -> Result<bool> {
    let request = TrackUsageRequest {
        event: Some(event(ACCOUNT, event_id, METRIC, amount)),
        backfill: false,
    };
    Ok(app
        .usage
        .clone()
        .track_usage(request)
        .await?
        .into_inner()
        .duplicate)
}

fn reasons(refused: &[(String, String)]) -> Vec<&str> {
    refused.iter().map(|(reason, _)| reason.as_str()).collect()
}

pub(super) async fn a_call_corrects_all_or_nothing(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    for (event_id, amount) in [("e-1", 10), ("e-2", 20)] {
        track(&app, event_id, amount).await?;
    }
    let is = async |amount: u64, events: u64| -> Result<()> {
        let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
        ensure!(
            (total.direct_amount, total.events) == (amount, events),
            "{total:?}"
        );
        Ok(())
    };

    // A preview says what would be and changes nothing, as does a call of which one cannot be made.
    let both = || vec![amend("c-1", "e-1", 4), amend("c-2", "e-2", 25)];
    let seen = made(amend_all(&app, both(), true).await?)?;
    ensure!(
        seen.iter()
            .all(|one| one.correct_time.is_none() && !one.duplicate),
        "{seen:?}"
    );
    let after = |index: usize| {
        seen.get(index)
            .and_then(|one| one.after)
            .map(|after| after.amount)
    };
    ensure!((after(0), after(1)) == (Some(4), Some(25)), "{seen:?}");
    let refused =
        not_made(amend_all(&app, vec![amend("c-1", "e-1", 4), amend("c-2", "e-3", 1)], false).await?)?;
    ensure!(
        reasons(&refused) == ["BATCH_REFUSED", "USAGE_EVENT_NOT_FOUND"],
        "{refused:?}"
    );
    is(30, 2).await?;

    // Made once, however often it comes.
    let first = made(amend_all(&app, both(), false).await?)?;
    ensure!(
        first
            .iter()
            .all(|one| !one.duplicate && one.correct_time.is_some()),
        "{first:?}"
    );
    is(29, 2).await?;
    for preview in [false, true] {
        let again = made(amend_all(&app, both(), preview).await?)?;
        ensure!(again.iter().all(|one| one.duplicate), "{again:?}");
        let times = |of: &[octroi_proto::usage::v1::Correction]| -> Vec<_> {
            of.iter().map(|one| one.correct_time).collect()
        };
        ensure!(times(&again) == times(&first), "{again:?}");
    }
    is(29, 2).await?;

    // An id names one correction, and an event is corrected by who knows what it is.
    let reused = not_made(amend_all(&app, vec![amend("c-1", "e-1", 5)], false).await?)?;
    ensure!(reasons(&reused) == ["CORRECTION_ID_REUSED"], "{reused:?}");
    let mut old = amend("c-3", "e-1", 5);
    old.revision = Some(0);
    let since = not_made(amend_all(&app, vec![old.clone()], false).await?)?;
    ensure!(reasons(&since) == ["EVENT_CORRECTED_SINCE"], "{since:?}");
    let since = not_made(amend_all(&app, vec![undo("c-4", "e-1", "c-2")], false).await?)?;
    ensure!(reasons(&since) == ["EVENT_CORRECTED_SINCE"], "{since:?}");
    old.revision = Some(1);
    made(amend_all(&app, vec![old], false).await?)?;
    is(30, 2).await?;

    // What is voided is no event any more, and its id stays taken.
    made(void_all(&app, vec![void("c-5", "", "e-2")]).await?)?;
    is(5, 1).await?;
    ensure!(track(&app, "e-2", 20).await?, "the event counts again");
    is(5, 1).await?;
    broken_rules_are_named(&app).await
}

async fn broken_rules_are_named(app: &Clients) -> Result<()> {
    let amend_one = async |account: &str, amendment| {
        let request = AmendUsageRequest {
            account_id: account.to_owned(),
            amendments: vec![amendment],
            preview: false,
        };
        app.usage.clone().amend_usage(request).await
    };
    let mut nameless = amend("c-9", "e-1", 1);
    nameless.reason.clear();
    for (what, answer, field) in [
        (
            "no reason",
            amend_one(ACCOUNT, nameless).await,
            "amendments[0].reason",
        ),
        (
            "less than nothing",
            amend_one(ACCOUNT, amend("c-9", "e-1", -1)).await,
            "amendments[0].amount",
        ),
        (
            "more than can be counted",
            amend_one(ACCOUNT, amend("c-9", "e-1", 1 << 53)).await,
            "amendments[0].amount",
        ),
        (
            "no account",
            amend_one("", amend("c-9", "e-1", 1)).await,
            "account_id",
        ),
    ] {
        check_refusal(what, answer, invalid(field))?;
    }
    let nothing = VoidUsageRequest {
        account_id: ACCOUNT.to_owned(),
        ..VoidUsageRequest::default()
    };
    check_refusal(
        "nothing",
        app.usage.clone().void_usage(nothing).await,
        invalid("voidings"),
    )?;
    // Somebody else's event is no event.
    let elsewhere = AmendUsageRequest {
        account_id: "elsewhere".to_owned(),
        amendments: vec![amend("c-9", "e-1", 1)],
        preview: false,
    };
    let answer = app.usage.clone().amend_usage(elsewhere).await?.into_inner();
    let refused = not_made(answer.results)?;
    ensure!(reasons(&refused) == ["USAGE_EVENT_NOT_FOUND"], "{refused:?}");
    Ok(())
}

pub(super) async fn an_event_says_what_became_of_it(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    track(&app, "e-1", 10).await?;
    let fresh = view(&app, "e-1").await?;
    ensure!(
        standing(&fresh)? == (0, 10, false) && fresh.corrections.is_empty(),
        "{fresh:?}"
    );
    ensure!(fresh.billing_state() == BillingState::NotBilled, "{fresh:?}");
    let widths: Vec<Granularity> = fresh.windows.iter().map(|window| window.granularity()).collect();
    ensure!(
        widths == [Granularity::Hour, Granularity::Day, Granularity::Month],
        "{fresh:?}"
    );
    let at = fresh
        .event
        .as_ref()
        .and_then(|one| one.event.as_ref()?.event_time)
        .context("no time")?;
    for window in &fresh.windows {
        let (start, end) = window.start_time.zip(window.end_time).context("no window")?;
        ensure!(
            start.seconds <= at.seconds && at.seconds < end.seconds,
            "{window:?}"
        );
    }

    made(amend_all(&app, vec![amend("c-1", "e-1", 4)], false).await?)?;
    let request = VoidUsageRequest {
        account_id: ACCOUNT.to_owned(),
        voidings: vec![void("c-2", "application", "e-1")],
        preview: false,
    };
    let voided = operator.usage.clone().void_usage(request).await?.into_inner();
    made(voided.results)?;
    let seen = view(&app, "e-1").await?;
    ensure!(standing(&seen)? == (2, 4, true), "{seen:?}");
    let recorded = seen
        .event
        .as_ref()
        .and_then(|one| one.event.as_ref())
        .map(|event| event.amount);
    ensure!(
        recorded == Some(10),
        "the event stays as it was recorded: {seen:?}"
    );
    let history: Vec<(&str, &str, &str)> = (seen.corrections.iter())
        .map(|one| {
            (
                one.correction_id.as_str(),
                one.actor.as_str(),
                one.reason.as_str(),
            )
        })
        .collect();
    ensure!(
        history
            == [
                ("c-1", "application", "counted wrongly"),
                ("c-2", "operator", "never happened")
            ],
        "{history:?}"
    );
    let chained = seen
        .corrections
        .windows(2)
        .all(|pair| matches!(pair, [one, next] if one.after == next.before));
    ensure!(chained, "{seen:?}");

    let listed = ListUsageEventsRequest {
        account_id: ACCOUNT.to_owned(),
        ..ListUsageEventsRequest::default()
    };
    let listed = app.usage.clone().list_usage_events(listed).await?.into_inner();
    let standings: Vec<bool> = listed
        .events
        .iter()
        .filter_map(|one| Some(one.standing?.voided))
        .collect();
    ensure!(standings == [true], "{listed:?}");
    eventually("the rollups have it", async || {
        ensure!(view(&app, "e-1").await?.in_rollups);
        Ok(())
    })
    .await?;
    let nowhere = octroi_proto::usage::v1::GetUsageEventRequest {
        account_id: ACCOUNT.to_owned(),
        event_id: "e-2".to_owned(),
        ..Default::default()
    };
    check_refusal(
        "no event",
        app.usage.clone().get_usage_event(nowhere).await,
        not_found(ErrorReason::UsageEventNotFound),
    )?;
    Ok(())
}
