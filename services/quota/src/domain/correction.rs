//! What comes back to windows, or is taken from them, where events that counted in them are corrected.

use jiff::Timestamp;
use octroi_core::MetricKind;

use super::{begun::Begun, window::WindowKey};

/// Whether the correction of an event that was recorded at `recorded_at` changes a window at `now`, given since when the limits
/// of its account count. What is over is over: of a window that has ended only the books change. And what was recorded before the
/// limit began never counted in its window; of a LEVEL metric all counts that is held.
#[must_use]
pub fn is_changed(
    window: &WindowKey,
    kind: MetricKind,
    begun: &Begun,
    recorded_at: Timestamp,
    now: Timestamp,
) -> bool {
    let counted = kind == MetricKind::Level || recorded_at >= begun.since(&window.metric, window.period);
    counted && now < window.end
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        let begun = Begun::new(BTreeMap::from([((metric, Period::Hour), at("10:10:00"))]));
        let ever = Begun::default();
        let (flow, level) = (MetricKind::Flow, MetricKind::Level);
        for (kind, begun, recorded, now, expected) in [
            (flow, &begun, "10:10:00", "10:59:59", true),
            (flow, &begun, "10:09:59", "10:59:59", false),
            (level, &begun, "10:09:59", "10:59:59", true),
            (flow, &ever, "10:00:00", "10:59:59", true),
            // The window is over.
            (flow, &begun, "10:10:00", "11:00:00", false),
            (level, &ever, "10:10:00", "11:00:00", false),
        ] {
            let changed = is_changed(&window, kind, begun, at(recorded), at(now));
            assert_eq!(changed, expected, "{kind:?} {begun:?} {recorded} {now}");
        }
    }
}
