//! Limits, windows, slices and thresholds in PostgreSQL.

mod accounts;
mod catalog;
mod slices;
mod thresholds;
mod windows;

pub use self::{
    accounts::{
        delete_override, find_entitlements, list_changes, list_expired_overrides, lock_calendar, read_states,
        update_state, upsert_entitlements, upsert_override,
    },
    catalog::{find_catalog, update_catalog},
    slices::{
        SliceRow, Which, apply_charges, close_slices, has_open_holds, insert_slices, list_hold, list_slices,
        renew_hold, see_replica,
    },
    thresholds::{Applied, Crossing, insert_applied, insert_crossing},
    windows::{
        AccountWindow, Change, change_windows, close_all_gates, close_gate, end_months, find_windows,
        list_revisions, lock_windows, revision_of, share_gates,
    },
};
