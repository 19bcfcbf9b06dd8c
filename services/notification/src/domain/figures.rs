//! How numbers, shares and times are written in each language.

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::Language;

/// Between the thousands of a French number, and before its percent sign: it does not break a line.
const NARROW_SPACE: char = '\u{202f}';

#[rustfmt::skip]
const MONTHS_EN: [&str; 12] = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
];
#[rustfmt::skip]
const MONTHS_FR: [&str; 12] = [
    "janvier", "février", "mars", "avril", "mai", "juin",
    "juillet", "août", "septembre", "octobre", "novembre", "décembre",
];

/// `1,234,567`, or the same with narrow spaces.
#[must_use]
pub fn number(language: Language, amount: u64) -> String {
    let separator = match language {
        Language::English => ',',
        Language::French => NARROW_SPACE,
    };
    let digits = amount.to_string();
    let mut text = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(separator);
        }
        text.push(digit);
    }
    text
}

/// `80%`, or the same with a narrow space.
#[must_use]
pub fn percent(language: Language, percent: u32) -> String {
    let number = number(language, percent.into());
    match language {
        Language::English => format!("{number}%"),
        Language::French => format!("{number}{NARROW_SPACE}%"),
    }
}

/// The day of `at` in the zone: `1 November 2026`, `1er novembre 2026`.
#[must_use]
pub fn date(language: Language, at: Timestamp, zone: &TimeZone) -> String {
    let date = zone.to_datetime(at).date();
    let (day, year) = (date.day(), date.year());
    match language {
        Language::English => format!("{day} {} {year}", month(&MONTHS_EN, date)),
        Language::French if day == 1 => format!("1er {} {year}", month(&MONTHS_FR, date)),
        Language::French => format!("{day} {} {year}", month(&MONTHS_FR, date)),
    }
}

/// The day, the time of day and which time that is: `1 November 2026, 00:00 UTC`.
#[must_use]
pub fn date_time(language: Language, at: Timestamp, zone: &TimeZone) -> String {
    let clock = zone.to_datetime(at);
    let info = zone.to_offset_info(at);
    let date = date(language, at, zone);
    let joint = match language {
        Language::English => ", ",
        Language::French => " à ",
    };
    format!(
        "{date}{joint}{:02}:{:02} {}",
        clock.hour(),
        clock.minute(),
        info.abbreviation()
    )
}

fn month(names: &[&'static str; 12], date: Date) -> &'static str {
    // A month is 1 to 12.
    usize::from(date.month().unsigned_abs())
        .checked_sub(1)
        .and_then(|index| names.get(index))
        .copied()
        .unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(amount: u64, english: &str, french: &str) {
        assert_eq!(number(Language::English, amount), english);
        assert_eq!(number(Language::French, amount), french);
    }

    #[test]
    fn thousands_are_set_apart() {
        check(0, "0", "0");
        check(999, "999", "999");
        check(1_234, "1,234", "1\u{202f}234");
        check(
            9_007_199_254_740_991,
            "9,007,199,254,740,991",
            "9\u{202f}007\u{202f}199\u{202f}254\u{202f}740\u{202f}991",
        );
        assert_eq!(percent(Language::English, 80), "80%");
        assert_eq!(percent(Language::French, 1000), "1\u{202f}000\u{202f}%");
    }

    #[track_caller]
    fn check_time(zone: &str, at: &str, english: &str, french: &str) {
        let (zone, at) = (
            TimeZone::get(zone).expect("a zone"),
            at.parse().expect("an instant"),
        );
        assert_eq!(date_time(Language::English, at, &zone), english);
        assert_eq!(date_time(Language::French, at, &zone), french);
    }

    #[test]
    fn times_are_those_of_the_accounts_zone() {
        let new_year = "2026-12-31T23:30:00Z";
        check_time(
            "UTC",
            new_year,
            "31 December 2026, 23:30 UTC",
            "31 décembre 2026 à 23:30 UTC",
        );
        check_time(
            "Europe/Paris",
            new_year,
            "1 January 2027, 00:30 CET",
            "1er janvier 2027 à 00:30 CET",
        );
        check_time(
            "America/Sao_Paulo",
            new_year,
            "31 December 2026, 20:30 -03",
            "31 décembre 2026 à 20:30 -03",
        );
    }
}
