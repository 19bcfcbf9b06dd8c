//! The ledger and its rollups in PostgreSQL.

mod catalog;
mod ledger;
mod rollups;
mod spends;
mod totals;

use octroi_core::Units;
use octroi_kit::db::corrupt;

pub use self::{
    catalog::{Counting, list_metrics, update_catalog},
    ledger::{current_transaction, delete_events, find_event, insert_events, list_events, list_known},
    rollups::{Increment, add_to_rollups, count_rollup_lag, sum_buckets},
    spends::{ToSeal, charge_sums, correct_spends, delete_ended_slices, seal_slices},
    totals::sum_ledger,
};
use crate::error::Error;

/// A sum as the database writes it.
fn units(sum: &str) -> Result<Units, Error> {
    let sum: u128 = sum.parse().map_err(corrupt("sum"))?;
    u64::try_from(sum)
        .ok()
        .and_then(|sum| Units::new(sum).ok())
        .ok_or(Error::SumOutOfRange)
}
