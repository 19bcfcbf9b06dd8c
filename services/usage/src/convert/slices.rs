//! The words of slices: what pays for events, and what is sealed.

use std::collections::HashSet;

use jiff::Timestamp;
use octroi_core::{Charge, SliceId, Units, Violations};
use octroi_proto::usage::v1 as proto;

use super::required_time;
use crate::store::ToSeal;

/// Reads which slices pay for an event.
pub(super) fn from_proto_charges(event: &proto::UsageEvent, violations: &mut Violations) -> Vec<Charge> {
    let mut charges: Vec<Charge> = Vec::with_capacity(event.charges.len());
    for (index, charge) in event.charges.iter().enumerate() {
        let path = format!("charges[{index}]");
        let Some((slice, cap, hard_end_at)) = from_proto_slice(
            &path,
            (&charge.slice_id, charge.cap, charge.hard_end_time.as_ref()),
            violations,
        ) else {
            continue;
        };
        let amount = i64::try_from(charge.amount).unwrap_or(i64::MAX);
        let Some(amount) = violations.take(format!("{path}.amount"), Units::positive(amount)) else {
            continue;
        };
        if charges.iter().any(|other| other.slice == slice) {
            violations.add(format!("{path}.slice_id"), "must not be named twice");
        }
        charges.push(Charge {
            slice,
            cap,
            amount,
            hard_end_at,
        });
    }
    let sum: u128 = charges.iter().map(|charge| u128::from(charge.amount.get())).sum();
    if u128::try_from(event.amount).is_ok_and(|amount| sum > amount) {
        violations.add("charges", "must not be more than the amount together");
    }
    charges
}

/// Reads what names a slice: its id, its cap and its end.
fn from_proto_slice(
    path: &str,
    (id, cap, hard_end): (&[u8], u64, Option<&prost_types::Timestamp>),
    violations: &mut Violations,
) -> Option<(SliceId, Units, Timestamp)> {
    let id = violations.take(
        format!("{path}.slice_id"),
        SliceId::from_bytes(id).ok_or("must be 16 bytes"),
    );
    let cap = violations.take(format!("{path}.cap"), Units::new(cap));
    let hard_end_at = required_time(&format!("{path}.hard_end_time"), hard_end, violations);
    Some((id?, cap?, hard_end_at?))
}

/// The most slices of one call.
const SLICES_MAX: usize = 10_000;

/// Reads which slices are to be sealed.
///
/// # Errors
/// Every violation found.
pub fn from_proto_seal(request: &proto::SealSlicesRequest) -> Result<Vec<ToSeal>, Violations> {
    let mut violations = Violations::default();
    if request.slices.is_empty() || request.slices.len() > SLICES_MAX {
        violations.add("slices", format!("must hold 1 to {SLICES_MAX} slices"));
    }
    let mut seen = HashSet::with_capacity(request.slices.len());
    let mut slices = Vec::with_capacity(request.slices.len());
    for (index, slice) in request.slices.iter().enumerate() {
        let path = format!("slices[{index}]");
        let named = (&slice.slice_id[..], slice.cap, slice.hard_end_time.as_ref());
        let Some((slice, cap, hard_end_at)) = from_proto_slice(&path, named, &mut violations) else {
            continue;
        };
        if !seen.insert(slice) {
            violations.add(format!("{path}.slice_id"), "must not be named twice");
        }
        slices.push(ToSeal {
            slice,
            cap,
            hard_end_at,
        });
    }
    violations.finish()?;
    Ok(slices)
}

/// A slice, on the wire.
pub(super) fn slice_bytes(slice: &SliceId) -> Vec<u8> {
    slice.uuid().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::{super::from_proto_event, *};

    #[test]
    fn charges_name_slices_once_and_are_not_more_than_the_amount() {
        let charge = |slice: u8, amount: u64| proto::SliceCharge {
            slice_id: vec![slice; 16],
            cap: 10,
            amount,
            hard_end_time: Some(prost_types::Timestamp::default()),
        };
        let short = proto::SliceCharge {
            slice_id: vec![1; 15],
            ..charge(1, 1)
        };
        let endless = proto::SliceCharge {
            hard_end_time: None,
            ..charge(1, 1)
        };
        for (charges, field) in [
            (vec![], None),
            (vec![charge(1, 2), charge(2, 3)], None),
            (vec![charge(1, 3), charge(2, 3)], Some("charges")),
            (vec![charge(1, 1), charge(1, 1)], Some("charges[1].slice_id")),
            (vec![charge(1, 0)], Some("charges[0].amount")),
            (vec![short], Some("charges[0].slice_id")),
            (vec![endless], Some("charges[0].hard_end_time")),
        ] {
            let event = proto::UsageEvent {
                account_id: "acme".into(),
                event_id: "e-1".into(),
                metric: "api.requests".into(),
                amount: 5,
                charges,
                ..proto::UsageEvent::default()
            };
            let read = from_proto_event(event, "quota", true, false);
            assert_eq!(
                read.as_ref().err().and_then(Violations::first_field),
                field,
                "{read:?}"
            );
        }
    }
}
