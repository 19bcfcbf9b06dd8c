//! Recorded times: read as they stand, kept to the microsecond, which is what the ledger keeps.

use jiff::{Timestamp, civil, fmt::strtime, tz::TimeZone};

/// Reads `2024-03-01 08:00:00.1234567`, with `T` or a space; UTC where no offset is named.
pub fn parse(text: &str) -> Option<Timestamp> {
    let at = text.parse::<Timestamp>().ok().or_else(|| {
        let civil: civil::DateTime = text.parse().ok()?;
        TimeZone::UTC.to_timestamp(civil).ok()
    })?;
    to_microsecond(at)
}

/// Reads `10/Oct/2000:13:55:36 -0700`, as access logs write it.
pub fn parse_access_log(text: &str) -> Option<Timestamp> {
    strtime::parse("%d/%b/%Y:%H:%M:%S %z", text)
        .ok()?
        .to_timestamp()
        .ok()
        .and_then(to_microsecond)
}

/// Cuts what is finer than a microsecond, towards the past.
fn to_microsecond(at: Timestamp) -> Option<Timestamp> {
    let microsecond = i64::try_from(at.as_nanosecond().div_euclid(1_000)).ok()?;
    Timestamp::from_microsecond(microsecond).ok()
}

/// The first instant of the UTC month that holds `at`.
pub fn month_start(at: Timestamp) -> Timestamp {
    let date = TimeZone::UTC.to_datetime(at).date().first_of_month();
    TimeZone::UTC
        .to_timestamp(date.to_datetime(civil::Time::midnight()))
        .unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(read: fn(&str) -> Option<Timestamp>, cases: &[(&str, Option<&str>)]) {
        for (text, expected) in cases {
            let read = read(text).map(|at| at.to_string());
            assert_eq!(read.as_deref(), *expected, "{text:?}");
        }
    }

    #[test]
    fn times_are_read_as_utc_and_cut_to_the_microsecond() {
        check(
            parse,
            &[
                ("2024-02-29 07:08:09.1234567", Some("2024-02-29T07:08:09.123456Z")),
                ("2024-02-29T07:08:09", Some("2024-02-29T07:08:09Z")),
                ("2024-02-29T07:08:09Z", Some("2024-02-29T07:08:09Z")),
                ("2024-02-29 07:08:09+02:00", Some("2024-02-29T05:08:09Z")),
                (
                    "1969-12-31T23:59:59.9999999Z",
                    Some("1969-12-31T23:59:59.999999Z"),
                ),
                ("2023-02-29 07:08:09", None),
                ("2024-02-29 25:00:00", None),
                ("07:08:09", None),
                ("1709230546", None),
                ("yesterday", None),
                ("", None),
            ],
        );
    }

    #[test]
    fn access_logs_have_their_own_times() {
        check(
            parse_access_log,
            &[
                ("10/Oct/2000:13:55:36 -0700", Some("2000-10-10T20:55:36Z")),
                ("29/Feb/2024:00:00:00 +0000", Some("2024-02-29T00:00:00Z")),
                ("29/Feb/2023:00:00:00 +0000", None),
                ("10/Oct/2000:13:55:36", None),
                ("10/10/2000:13:55:36 -0700", None),
            ],
        );
    }

    #[test]
    fn a_month_starts_at_its_first_midnight() {
        let at: Timestamp = "2024-02-29T07:08:09.1Z".parse().expect("an instant");
        assert_eq!(month_start(at).to_string(), "2024-02-01T00:00:00Z");
    }
}
