//! Corrections, between the contract's words and the domain's.

use octroi_core::{AccountId, EventId, Period, Source, Units, Violations, Window};
use octroi_kit::convert::to_proto_time;
use octroi_proto::usage::v1 as proto;

use super::{results::to_proto_item_error, to_proto_recorded_event};
use crate::{
    domain::{
        correction::{CORRECTIONS_MAX, Change, Corrected, Correction, REASON_CHARS_MAX, Standing},
        event::Identity,
    },
    error::Error,
    service::{Corrections, EventView, Made},
};

/// One of many corrections, as both calls have it.
struct Named<'n> {
    field: String,
    id: &'n str,
    source: &'n str,
    event_id: &'n str,
    reason: &'n str,
    revision: Option<u32>,
}

/// Reads amendments; `caller` is the default source of events, and makes them.
///
/// # Errors
/// Every violation found.
pub fn from_proto_amend(request: &proto::AmendUsageRequest, caller: &str) -> Result<Corrections, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    check_count("amendments", request.amendments.len(), &mut violations);
    let mut corrections = Vec::with_capacity(request.amendments.len());
    for (index, one) in request.amendments.iter().enumerate().take(CORRECTIONS_MAX) {
        let named = Named {
            field: format!("amendments[{index}]"),
            id: &one.correction_id,
            source: &one.source,
            event_id: &one.event_id,
            reason: &one.reason,
            revision: one.revision,
        };
        let change = from_proto_change(&named.field, one.change.as_ref(), &mut violations);
        let correction = account.as_ref().zip(change).and_then(|(account, change)| {
            from_proto_correction(account, &named, change, caller, &mut violations)
        });
        corrections.extend(correction);
    }
    finish(account, corrections, (caller, request.preview), violations)
}

/// Reads voidings; `caller` is the default source of events, and makes them.
///
/// # Errors
/// Every violation found.
pub fn from_proto_void(request: &proto::VoidUsageRequest, caller: &str) -> Result<Corrections, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    check_count("voidings", request.voidings.len(), &mut violations);
    let mut corrections = Vec::with_capacity(request.voidings.len());
    for (index, one) in request.voidings.iter().enumerate().take(CORRECTIONS_MAX) {
        let named = Named {
            field: format!("voidings[{index}]"),
            id: &one.correction_id,
            source: &one.source,
            event_id: &one.event_id,
            reason: &one.reason,
            revision: one.revision,
        };
        let correction = account.as_ref().and_then(|account| {
            from_proto_correction(account, &named, Change::Void, caller, &mut violations)
        });
        corrections.extend(correction);
    }
    finish(account, corrections, (caller, request.preview), violations)
}

fn check_count(field: &str, count: usize, violations: &mut Violations) {
    if !(1..=CORRECTIONS_MAX).contains(&count) {
        violations.add(field, format!("must hold 1 to {CORRECTIONS_MAX} of them"));
    }
}

fn from_proto_change(
    field: &str,
    change: Option<&proto::amendment::Change>,
    violations: &mut Violations,
) -> Option<Change> {
    match change {
        Some(proto::amendment::Change::Amount(amount)) => {
            let amount = violations.take(format!("{field}.amount"), Units::try_from(*amount));
            amount.map(Change::Amend)
        }
        Some(proto::amendment::Change::UndoCorrectionId(id)) => {
            let id = violations.take(format!("{field}.undo_correction_id"), EventId::parse(id));
            id.map(Change::Undo)
        }
        None => {
            violations.add(format!("{field}.amount"), "must be given, or undo_correction_id");
            None
        }
    }
}

fn from_proto_correction(
    account: &AccountId,
    named: &Named<'_>,
    change: Change,
    caller: &str,
    violations: &mut Violations,
) -> Option<Correction> {
    let field = |name: &str| format!("{}.{name}", named.field);
    let id = violations.take(field("correction_id"), EventId::parse(named.id));
    let source = if named.source.is_empty() {
        caller
    } else {
        named.source
    };
    let source = violations.take(field("source"), Source::parse(source));
    let event_id = violations.take(field("event_id"), EventId::parse(named.event_id));
    let characters = named.reason.chars().count();
    if !(1..=REASON_CHARS_MAX).contains(&characters) || named.reason.contains('\0') {
        violations.add(
            field("reason"),
            format!("must be 1 to {REASON_CHARS_MAX} characters, none of them NUL"),
        );
    }
    let ((id, source), event_id) = id.zip(source).zip(event_id)?;
    Some(Correction {
        id,
        identity: Identity {
            account: account.clone(),
            source,
            event_id,
        },
        change,
        reason: named.reason.to_owned(),
        revision: named.revision,
    })
}

fn finish(
    account: Option<AccountId>,
    corrections: Vec<Correction>,
    (actor, preview): (&str, bool),
    violations: Violations,
) -> Result<Corrections, Violations> {
    violations.clone().finish()?;
    Ok(Corrections {
        account: account.ok_or(violations)?,
        corrections,
        actor: actor.to_owned(),
        preview,
    })
}

/// What became of corrections, in their order; `field` is what the request calls them.
pub fn to_proto_correction_results(
    results: Vec<Result<Made, Error>>,
    field: &str,
    preview: bool,
) -> Vec<proto::CorrectionResult> {
    use proto::correction_result::Outcome;
    let results = results.into_iter().enumerate();
    let results = results.map(|(index, result)| match result {
        Ok(made) => {
            let mut correction = to_proto_correction(&made.corrected);
            correction.duplicate = made.duplicate;
            if preview && !made.duplicate {
                correction.correct_time = None;
            }
            Outcome::Correction(correction)
        }
        Err(error) => {
            let mut item = to_proto_item_error(&error);
            if !item.field.is_empty() {
                // A voiding and an undoing have no amount.
                item.field = match error {
                    Error::AmountNotOne => format!("{field}[{index}].amount"),
                    _ => format!("{field}[{index}]"),
                };
            }
            Outcome::Error(item)
        }
    });
    results
        .map(|outcome| proto::CorrectionResult {
            outcome: Some(outcome),
        })
        .collect()
}

fn to_proto_correction(corrected: &Corrected) -> proto::Correction {
    proto::Correction {
        correction_id: corrected.id.to_string(),
        before: Some(to_proto_standing(corrected.before)),
        after: Some(to_proto_standing(corrected.after)),
        reason: corrected.reason.clone(),
        actor: corrected.actor.clone(),
        correct_time: Some(to_proto_time(corrected.corrected_at)),
        duplicate: false,
    }
}

/// What an event comes to, on the wire.
pub fn to_proto_standing(standing: Standing) -> proto::EventStanding {
    proto::EventStanding {
        revision: standing.revision,
        amount: standing.amount.get(),
        voided: standing.voided,
    }
}

/// An event with what became of it, on the wire.
pub fn to_proto_event_view(view: EventView, same_content: bool) -> proto::GetUsageEventResponse {
    let corrections = view.found.corrections.iter().map(to_proto_correction).collect();
    let windows = view.windows.into_iter().map(to_proto_window).collect();
    proto::GetUsageEventResponse {
        event: Some(to_proto_recorded_event(view.found.recorded)),
        same_content,
        corrections,
        windows,
        in_rollups: view.in_rollups,
        billing_state: proto::BillingState::NotBilled.into(),
    }
}

fn to_proto_window((period, window): (Period, Window)) -> proto::EventWindow {
    let granularity = match period {
        Period::Hour => proto::Granularity::Hour,
        Period::Day => proto::Granularity::Day,
        Period::Month => proto::Granularity::Month,
        Period::Lifetime => proto::Granularity::Unspecified,
    };
    proto::EventWindow {
        granularity: granularity.into(),
        start_time: Some(to_proto_time(window.start)),
        end_time: Some(to_proto_time(window.end)),
    }
}

#[cfg(test)]
mod tests {
    use octroi_proto::usage::v1::amendment::Change as ProtoChange;

    use super::*;

    fn amendment() -> proto::Amendment {
        proto::Amendment {
            correction_id: "c-1".into(),
            source: String::new(),
            event_id: "e-1".into(),
            change: Some(ProtoChange::Amount(3)),
            reason: "counted twice".into(),
            revision: None,
        }
    }

    fn request(amendments: Vec<proto::Amendment>) -> proto::AmendUsageRequest {
        proto::AmendUsageRequest {
            account_id: "acme".into(),
            amendments,
            preview: false,
        }
    }

    #[test]
    fn every_field_that_breaks_a_rule_is_named() {
        let amend = |change: fn(&mut proto::Amendment)| {
            let mut one = amendment();
            change(&mut one);
            from_proto_amend(&request(vec![amendment(), one]), "app")
        };
        for (given, field) in [
            (
                amend(|one| one.correction_id.clear()),
                "amendments[1].correction_id",
            ),
            (amend(|one| one.source = "a b".into()), "amendments[1].source"),
            (
                amend(|one| one.event_id = "tab\t".into()),
                "amendments[1].event_id",
            ),
            (amend(|one| one.change = None), "amendments[1].amount"),
            (
                amend(|one| one.change = Some(ProtoChange::Amount(-1))),
                "amendments[1].amount",
            ),
            (
                amend(|one| one.change = Some(ProtoChange::UndoCorrectionId(String::new()))),
                "amendments[1].undo_correction_id",
            ),
            (amend(|one| one.reason.clear()), "amendments[1].reason"),
            (amend(|one| one.reason = "x".repeat(501)), "amendments[1].reason"),
            (from_proto_amend(&request(Vec::new()), "app"), "amendments"),
            (
                from_proto_amend(&request(vec![amendment(); 1_001]), "app"),
                "amendments",
            ),
            (
                from_proto_void(&proto::VoidUsageRequest::default(), "app"),
                "account_id",
            ),
        ] {
            let violations = given.expect_err(field);
            assert_eq!(violations.first_field(), Some(field));
        }
    }

    #[test]
    fn the_caller_is_the_default_source_and_makes_the_corrections() {
        let read = from_proto_amend(&request(vec![amendment()]), "billing-job").expect("a good request");
        assert_eq!(read.actor, "billing-job");
        let sources: Vec<&str> = (read.corrections.iter())
            .map(|one| one.identity.source.as_str())
            .collect();
        assert_eq!(sources, ["billing-job"]);
    }

    #[test]
    fn a_refusal_names_the_field_of_its_correction() {
        let results = vec![
            Err(Error::AmountNotOne),
            Err(Error::BatchRefused),
            Err(Error::LevelBelowZero),
        ];
        let results = to_proto_correction_results(results, "amendments", false);
        let fields: Vec<String> = (results.into_iter())
            .filter_map(|result| match result.outcome? {
                proto::correction_result::Outcome::Error(item) => Some(item.field),
                proto::correction_result::Outcome::Correction(_) => None,
            })
            .collect();
        assert_eq!(fields, ["amendments[0].amount", "", "amendments[2]"]);
    }
}
