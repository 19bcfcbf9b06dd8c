//! What comes back to windows, or is taken from them, where events that counted in them are corrected.

use jiff::{SignedDuration, Timestamp};

use super::window::WindowKey;

/// The ledger's commits come here in no strict order, so a window may be written down for one that was recorded a little later
/// than another that counts in it as well.
const DISORDER: SignedDuration = SignedDuration::from_secs(10);
/// An event may be corrected before it has come here itself; longer than this it hardly takes.
const ON_ITS_WAY: SignedDuration = SignedDuration::from_mins(10);

/// Whether the correction of an event that was recorded at `recorded_at` changes a window at `now`. What is over is over: of a
/// window that has ended only the books change. `counted_from` is from when on the window counts what is recorded; none where
/// nothing has counted in it yet.
#[must_use]
pub fn is_changed(
    window: &WindowKey,
    counted_from: Option<Timestamp>,
    recorded_at: Timestamp,
    now: Timestamp,
) -> bool {
    if window.end <= now {
        return false;
    }
    match counted_from {
        Some(from) => recorded_at.saturating_add(DISORDER).is_ok_and(|at| at >= from),
        None => now.duration_since(recorded_at) < ON_ITS_WAY,
    }
}

#[cfg(test)]
mod tests {
    use octroi_core::{MetricSlug, Period, Window};

    use super::*;

    fn at(text: &str) -> Timestamp {
        format!("2026-03-01T{text}Z").parse().expect("an instant")
    }

    #[test]
    fn an_open_window_changes_by_what_has_counted_in_it() {
        let metric = MetricSlug::parse("api.requests").expect("a slug");
        let hour = Window {
            start: at("10:00:00"),
            end: at("11:00:00"),
        };
        let window = WindowKey::new(&metric, Period::Hour, hour);
        for (counted_from, recorded, now, expected) in [
            (Some("10:10:00"), "10:10:00", "10:59:59", true),
            (Some("10:10:00"), "10:09:50", "10:59:59", true),
            // The limit began later.
            (Some("10:10:00"), "10:09:49", "10:59:59", false),
            // The window is over.
            (Some("10:10:00"), "10:10:00", "11:00:00", false),
            // The event has not come here yet, or never counted.
            (None, "10:10:00", "10:19:59", true),
            (None, "10:10:00", "10:20:00", false),
        ] {
            let changed = is_changed(&window, counted_from.map(at), at(recorded), at(now));
            assert_eq!(changed, expected, "{counted_from:?} {recorded} {now}");
        }
    }
}
