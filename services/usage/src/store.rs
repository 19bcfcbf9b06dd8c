//! The ledger and its rollups in PostgreSQL.

mod anomalies;
mod catalog;
mod copy;
mod corrections;
mod distinct;
mod keys;
mod ledger;
mod ledger_sums;
mod look;
mod months;
mod pending;
mod recount;
mod report_jobs;
mod report_rows;
mod rollups;
mod spends;
mod totals;

use octroi_core::Units;
use octroi_kit::db::corrupt;

pub use self::{
    anomalies::{
        count_anomalies_since, delete_anomalies_before, list_anomalies, list_last_courses, upsert_anomaly,
    },
    catalog::{Counting, get_salt, list_metrics, update_catalog},
    corrections::{append_corrections, find_corrections, insert_correction_keys, lock_events},
    keys::{KEY_PARTS, count_key_blocks, delete_keys, delete_keys_in, insert_keys, list_known},
    ledger::{FoundEvent, append_events, count_lag, current_transaction, find_event, list_events},
    ledger_sums::{GroupKey, Narrowed, sum_ledger_windows},
    look::{
        Look, Series, claim_look, find_looked_until, largest_hours, list_quarters, list_series, move_look,
        release_look, sum_hours, sum_ledger_hours,
    },
    months::{delete_corrections_before, drop_month, get_floor, list_months, make_months, raise_floor},
    pending::{delete_added, delete_pending, find_oldest, insert_pending},
    recount::{Shift, correct_rollups},
    report_jobs::{
        NewReportJob, Run, Written, cancel_report_job, claim_report_job, delete_chunks_of, delete_jobs,
        expire_jobs, fail_run, find_chunk, find_report_job, find_requested_job, finish_run, insert_chunk,
        insert_report_job, list_report_jobs, list_swept_jobs, lock_open_jobs, release_run, update_progress,
    },
    report_rows::{
        Stretch, begin_long_read, get_primary_time, list_counted_metrics, list_report_events,
        list_used_metrics, measure_stretch,
    },
    rollups::{Bucket, Counted, add_to_rollups, count_rollup_lag, sum_windows},
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
