//! Reads of an answer what a bench needs to know: was it allowed, and is it what was asked for?

use octroi_proto::quota::v1::DenialReason;

use super::wire::{Malformed, Value, fields};
use crate::bench::traffic::Seen;

/// Reads a `CheckQuotaResponse` that must be about `limits` limits. Neither a degraded decision nor one that
/// was made before is what a case is about: both are cheaper.
pub(super) fn decision(message: &[u8], limits: usize) -> Seen {
    let (mut allowed, mut reason, mut found) = (0, 0, 0);
    let read = fields(message, |field, value| {
        match (field, value) {
            (1, Value::Number(value)) => allowed = value,
            (3, Value::Number(value)) => reason = value,
            (4, Value::Bytes(_)) => found += 1,
            // Degraded, or repeated.
            (8 | 9, Value::Number(1)) => return Err(Malformed),
            (1 | 3, Value::Bytes(_)) | (4, Value::Number(_)) => return Err(Malformed),
            _ => {}
        }
        Ok(())
    });
    let has_reason = reason != u64::from(DenialReason::Unspecified as i32 as u32);
    match (read, allowed) {
        // What is allowed has no reason, and what is denied has one.
        (Ok(()), 1) if found == limits && !has_reason => Seen {
            allowed: 1,
            ..Seen::default()
        },
        (Ok(()), 0) if found == limits && has_reason => Seen {
            denied: 1,
            ..Seen::default()
        },
        _ => Seen::malformed(),
    }
}

/// Reads a `CheckQuotaResult`: a decision, or why there is none.
fn result(message: &[u8], limits: usize) -> Seen {
    let mut seen = Seen::malformed();
    let read = fields(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(message)) => seen = decision(message, limits),
            (2, Value::Bytes(_)) => {
                seen = Seen {
                    refused: 1,
                    ..Seen::default()
                }
            }
            _ => {}
        }
        Ok(())
    });
    read.map_or_else(|_| Seen::malformed(), |()| seen)
}

/// Reads a `CheckQuotaBatchResponse` with `length` results.
pub(super) fn batch(message: &[u8], limits: usize, length: u32) -> Seen {
    let mut seen = Seen::default();
    let read = fields(message, |field, value| {
        if let (1, Value::Bytes(message)) = (field, value) {
            seen.add(result(message, limits));
        }
        Ok(())
    });
    let answered = seen.allowed + seen.denied + seen.refused;
    if read.is_err() || answered != length {
        return Seen::malformed();
    }
    seen
}

/// Reads a `CheckQuotaStreamResponse`.
pub(super) fn of_stream(message: &[u8], limits: usize) -> Seen {
    let mut seen = Seen::malformed();
    let mut place = None;
    let read = fields(message, |field, value| {
        match (field, value) {
            (1, Value::Number(id)) => place = id.checked_sub(1).and_then(|id| u32::try_from(id).ok()),
            (2, Value::Bytes(message)) => seen = result(message, limits),
            _ => {}
        }
        Ok(())
    });
    if read.is_err() || place.is_none() {
        return Seen::malformed();
    }
    Seen { place, ..seen }
}
