//! Reads of an answer what a bench needs to know: is it recorded, and was it before?

use crate::bench::{
    quota::wire::{Value, fields},
    traffic::Seen,
};

/// Reads a `TrackUsageResponse`.
pub(super) fn recorded(message: &[u8]) -> Seen {
    let (mut is_duplicate, mut is_recorded) = (false, false);
    let read = fields(message, |field, value| {
        match (field, value) {
            (1, Value::Number(1)) => is_duplicate = true,
            (2, Value::Bytes(_)) => is_recorded = true,
            _ => {}
        }
        Ok(())
    });
    if read.is_err() || !is_recorded {
        return Seen::malformed();
    }
    Seen {
        allowed: u32::from(!is_duplicate),
        denied: u32::from(is_duplicate),
        ..Seen::default()
    }
}

/// Reads a `TrackUsageResult`: it is recorded, or why not.
fn result(message: &[u8]) -> Seen {
    let mut seen = Seen::malformed();
    let read = fields(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(message)) => seen = recorded(message),
            (2, Value::Bytes(_)) => seen = refused(1),
            _ => {}
        }
        Ok(())
    });
    read.map_or_else(|_| Seen::malformed(), |()| seen)
}

/// Reads a `TrackUsageBatchResponse` with `length` results.
pub(super) fn batch(message: &[u8], length: u32) -> Seen {
    let mut seen = Seen::default();
    let read = fields(message, |field, value| {
        if let (1, Value::Bytes(message)) = (field, value) {
            seen.add(result(message));
        }
        Ok(())
    });
    let answered = seen.allowed + seen.denied + seen.refused;
    if read.is_err() || answered != length {
        return Seen::malformed();
    }
    seen
}

/// Reads a `TrackUsageStreamResponse` to a batch of `length` events.
pub(super) fn of_stream(message: &[u8], length: u32) -> Seen {
    let (mut seen, mut place) = (Seen::malformed(), None);
    let read = fields(message, |field, value| {
        match (field, value) {
            (1, Value::Number(id)) => place = id.checked_sub(1).and_then(|id| u32::try_from(id).ok()),
            (2, Value::Bytes(message)) => seen = batch_of_many(message, length),
            _ => {}
        }
        Ok(())
    });
    if read.is_err() || place.is_none() {
        return Seen::malformed();
    }
    Seen { place, ..seen }
}

/// Reads a `TrackUsageBatchesResult`: the answer to a batch, or why it has none.
fn batch_of_many(message: &[u8], length: u32) -> Seen {
    let mut seen = Seen::malformed();
    let read = fields(message, |field, value| {
        match (field, value) {
            (1, Value::Bytes(message)) => seen = batch(message, length),
            (2, Value::Bytes(_)) => seen = refused(length),
            _ => {}
        }
        Ok(())
    });
    read.map_or_else(|_| Seen::malformed(), |()| seen)
}

fn refused(events: u32) -> Seen {
    Seen {
        refused: events,
        ..Seen::default()
    }
}
