//! What was recorded is corrected: the event stays as it is, and everything that counts it comes to what it should have been.

mod figures;
mod limits;
mod order;
mod refused;

use anyhow::{Context, Result, bail};
use octroi_proto::usage::v1::{
    AmendUsageRequest, Amendment, Correction, CorrectionResult, GetUsageEventRequest, GetUsageEventResponse,
    ItemError, VoidUsageRequest, Voiding, amendment::Change, correction_result::Outcome,
};
use octroi_tests::harness::fleet::Clients;

use self::{
    figures::{
        corrections_that_overtake_their_events_count_all_the_same, figures_are_those_of_the_corrected_events,
    },
    limits::{a_level_follows_what_is_corrected, units_come_back_to_an_open_window},
    order::{
        a_correction_that_overtakes_its_event_waits_for_it,
        of_corrections_made_at_once_each_finds_the_one_before_it,
        what_never_counted_in_a_window_does_not_come_back_to_it,
    },
    refused::{a_call_corrects_all_or_nothing, an_event_says_what_became_of_it},
};
use crate::story::both_topologies;

both_topologies!(
    a_call_corrects_all_or_nothing,
    a_correction_that_overtakes_its_event_waits_for_it,
    a_level_follows_what_is_corrected,
    an_event_says_what_became_of_it,
    corrections_that_overtake_their_events_count_all_the_same,
    figures_are_those_of_the_corrected_events,
    of_corrections_made_at_once_each_finds_the_one_before_it,
    what_never_counted_in_a_window_does_not_come_back_to_it,
    units_come_back_to_an_open_window,
);

const ACCOUNT: &str = "acme";

/// Another amount for an event of the application.
fn amend(correction_id: &str, event_id: &str, amount: i64) -> Amendment {
    Amendment {
        correction_id: correction_id.to_owned(),
        event_id: event_id.to_owned(),
        change: Some(Change::Amount(amount)),
        reason: "counted wrongly".to_owned(),
        ..Amendment::default()
    }
}

/// An event of the application is again what it was before a correction.
fn undo(correction_id: &str, event_id: &str, undone: &str) -> Amendment {
    Amendment {
        change: Some(Change::UndoCorrectionId(undone.to_owned())),
        ..amend(correction_id, event_id, 0)
    }
}

/// An event of a source counts no more.
fn void(correction_id: &str, source: &str, event_id: &str) -> Voiding {
    Voiding {
        correction_id: correction_id.to_owned(),
        source: source.to_owned(),
        event_id: event_id.to_owned(),
        reason: "never happened".to_owned(),
        revision: None,
    }
}

async fn amend_all(
    app: &Clients,
    amendments: Vec<Amendment>,
    preview: bool,
) -> Result<Vec<CorrectionResult>> {
    let request = AmendUsageRequest {
        account_id: ACCOUNT.to_owned(),
        amendments,
        preview,
    };
    Ok(app.usage.clone().amend_usage(request).await?.into_inner().results)
}

async fn void_all(app: &Clients, voidings: Vec<Voiding>) -> Result<Vec<CorrectionResult>> {
    let request = VoidUsageRequest {
        account_id: ACCOUNT.to_owned(),
        voidings,
        preview: false,
    };
    Ok(app.usage.clone().void_usage(request).await?.into_inner().results)
}

/// All of them are made.
fn made(results: Vec<CorrectionResult>) -> Result<Vec<Correction>> {
    let made = results.into_iter().map(|result| match result.outcome {
        Some(Outcome::Correction(correction)) => Ok(correction),
        other => bail!("not made: {other:?}"),
    });
    made.collect()
}

/// None of them is made: the reason and the field of each.
fn not_made(results: Vec<CorrectionResult>) -> Result<Vec<(String, String)>> {
    let refused = results.into_iter().map(|result| match result.outcome {
        Some(Outcome::Error(ItemError { reason, field, .. })) => Ok((reason, field)),
        other => bail!("not refused: {other:?}"),
    });
    refused.collect()
}

async fn view(app: &Clients, event_id: &str) -> Result<GetUsageEventResponse> {
    let request = GetUsageEventRequest {
        account_id: ACCOUNT.to_owned(),
        event_id: event_id.to_owned(),
        ..GetUsageEventRequest::default()
    };
    Ok(app.usage.clone().get_usage_event(request).await?.into_inner())
}

/// Revision, amount, and whether it is voided.
fn standing(view: &GetUsageEventResponse) -> Result<(u32, u64, bool)> {
    let event = view.event.as_ref().context("no event")?;
    let standing = event.standing.context("no standing")?;
    Ok((standing.revision, standing.amount, standing.voided))
}
