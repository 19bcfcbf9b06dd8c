//! The words of reports.

use octroi_proto::usage;
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

asked! {
    /// What one row of a report is.
    ReportGranularity to usage::v1::ReportGranularity {
        /// One usage event.
        Event = "event",
        /// The figures of one metric in one hour of the zone.
        Hour = "hour",
        /// The figures of one metric in one day of the zone.
        Day = "day",
        /// The figures of one metric in one calendar month of the zone.
        Month = "month",
    }
}

impl ReportGranularity {
    /// What a service answers; none where it is newer than this gateway.
    pub(crate) fn from_proto(value: i32) -> Option<Self> {
        [Self::Event, Self::Hour, Self::Day, Self::Month]
            .into_iter()
            .find(|one| one.to_proto() == value)
    }
}

answered! {
    /// Where a report stands that is written in the background.
    ReportState of usage::v1::ReportJobState {
        /// It waits for its turn.
        Queued,
        /// It is being written.
        Running,
        /// Its file is there.
        Done,
        /// It cannot be written.
        Failed,
        /// It was cancelled.
        Cancelled,
        /// Its file was kept for its time and is gone.
        Expired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_written_as_it_is_read() {
        for word in ["event", "hour", "day", "month"] {
            let read = ReportGranularity::from_word(word).expect("a word");
            assert_eq!(serde_json::to_value(read).expect("a text"), word);
            assert_eq!(ReportGranularity::from_proto(read.to_proto()), Some(read));
        }
        assert_eq!(ReportGranularity::from_word("week"), None);
        assert_eq!(ReportGranularity::from_proto(0), None);
    }
}
