//! What a slice pays, between the ledger's words and the domain's.

use octroi_core::{Charge, SliceId, Units, Violations};
use octroi_kit::convert::{from_proto_time, to_proto_time};
use octroi_proto::usage::v1::SliceCharge;

/// Tells the ledger which slice pays how much.
#[must_use]
pub fn to_proto_charge(charge: &Charge) -> SliceCharge {
    SliceCharge {
        slice_id: charge.slice.uuid().into_bytes().to_vec(),
        cap: charge.cap.get(),
        amount: charge.amount.get(),
        hard_end_time: Some(to_proto_time(charge.hard_end_at)),
    }
}

/// Reads what [`to_proto_charge`] wrote; none where it is none.
#[must_use]
pub fn from_proto_charge(charge: &SliceCharge) -> Option<Charge> {
    let mut violations = Violations::default();
    Some(Charge {
        slice: SliceId::from_bytes(&charge.slice_id)?,
        cap: Units::new(charge.cap).ok()?,
        amount: Units::new(charge.amount).ok()?,
        hard_end_at: from_proto_time("hard_end_time", charge.hard_end_time.as_ref()?, &mut violations)?,
    })
}
