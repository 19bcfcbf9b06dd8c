//! Limits, windows, slices and thresholds in PostgreSQL.

mod accounts;
mod begun;
mod carved;
mod catalog;
mod clean;
mod decisions;
mod slices;
mod thresholds;
mod windows;

pub use self::{
    accounts::{
        delete_override, find_entitlements, list_changes, list_expired_overrides, lock_calendar, read_states,
        update_state, update_zone_version, upsert_entitlements, upsert_override,
    },
    begun::{find_default_plan, list_begun, update_begun},
    carved::{NewSlice, list_written, write_carved},
    catalog::{find_catalog, update_catalog},
    clean::delete_old,
    decisions::{delete_decisions, find_decision, upsert_decisions},
    slices::{
        SliceRow, Which, apply_charges, close_expired_holds, close_holds, close_slices, list_full_of_holds,
        list_holds, list_recalled, list_slices, list_unsealed, recall_slices, renew_hold, see_replica,
    },
    thresholds::{Applied, Crossing, claim_standing, end_standing, insert_applied, insert_crossing},
    windows::{
        AccountWindow, Change, add_to_windows, change_windows, close_all_gates, close_gate, end_months,
        find_windows, list_revisions, lock_windows, lock_written_windows, read_one_snapshot, revision_of,
        share_gates,
    },
};
