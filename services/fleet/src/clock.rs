//! `octroi clock`: where the test clock of a sandbox stands, and moving it for all services at once.

use anyhow::ensure;
use clap::Subcommand;
use jiff::{Span, Timestamp, tz::TimeZone};
use octroi_core::clock::OFFSET_US_MAX;
use octroi_kit::{
    config::{ConfigError, Loader},
    db::Db,
};

use crate::{all, cli::Service, config, migrate, output};

/// What to do with it.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Say what time the services have, and how far that is from the primary's.
    Show,
    /// Move it, for every service.
    Move {
        /// How far from where it stands, such as `90m`, `1mo 2d` or `-1h`; or where to, such as
        /// `2026-03-01T00:00:00Z`.
        #[arg(allow_hyphen_values = true)]
        to: String,
    },
    /// Bring it back to the primary's time.
    Reset,
}

/// Does it.
///
/// # Errors
/// A sentence that says why the clock is not to be moved, or what does not answer.
pub async fn execute(loader: &Loader, command: &Command) -> anyhow::Result<()> {
    config::validate(loader)?;
    check_sandbox(loader)?;
    let loader = all::addressed(loader)?;
    let mut clocks = Vec::new();
    for service in Service::WITH_DATABASE {
        let (db, _) = migrate::schema(&loader, service).await?;
        clocks.push((service, db));
    }
    match command {
        Command::Show => {}
        Command::Move { to } => {
            let (present, offset_us) = present(&clocks, to.parse::<Timestamp>().is_ok())?;
            let offset_us = offset_to(to, present, offset_us)?;
            move_all(&clocks, offset_us).await?;
        }
        Command::Reset => move_all(&clocks, 0).await?,
    }
    for (service, db) in &clocks {
        output::say(&shown(*service, db.clock().now(), db.clock().offset_us()));
    }
    Ok(())
}

/// Outside of a sandbox, and beside a live key of a payment provider, time is nobody's to move.
fn check_sandbox(loader: &Loader) -> Result<(), ConfigError> {
    if !loader.section::<bool>("sandbox")? {
        return Err(ConfigError::new(
            "sandbox",
            "must be true, here and in every process, for a clock that can be moved",
        ));
    }
    loader
        .section::<octroi_billing::Config>("billing")?
        .check_sandbox(true)
}

async fn move_all(clocks: &[(Service, Db)], offset_us: i64) -> anyhow::Result<()> {
    for (service, db) in clocks {
        db.move_clock(offset_us)
            .await
            .map_err(|error| anyhow::anyhow!("the clock of {} was not moved: {error}", service.name()))?;
        db.clock().set_offset_us(offset_us);
    }
    Ok(())
}

/// What time it is to the services, and how far that is from the primary's. A move that broke off in the
/// middle leaves them apart; then only an instant says where all of them are to go.
fn present(clocks: &[(Service, Db)], to_an_instant: bool) -> anyhow::Result<(Timestamp, i64)> {
    let mut offsets = clocks.iter().map(|(_, db)| db.clock().offset_us());
    let first = offsets.next().unwrap_or_default();
    ensure!(
        to_an_instant || offsets.all(|offset| offset == first),
        "the services' clocks are apart; move them to an instant, or reset them"
    );
    let now = clocks.first().map(|(_, db)| db.clock().now());
    Ok((now.unwrap_or(Timestamp::UNIX_EPOCH), first))
}

/// The new distance from the primary's time, in microseconds, of a clock that shows `now` at the distance
/// `offset_us`. Months and days are those of UTC.
fn offset_to(to: &str, now: Timestamp, offset_us: i64) -> anyhow::Result<i64> {
    let target = match (to.parse::<Timestamp>(), to.parse::<Span>()) {
        (Ok(instant), _) => instant,
        (_, Ok(span)) => now.to_zoned(TimeZone::UTC).checked_add(span)?.timestamp(),
        _ => anyhow::bail!(
            "{to:?} is neither a duration, such as 90m or 1mo, nor an instant, such as 2026-03-01T00:00:00Z"
        ),
    };
    let moved_us = target.as_microsecond() - now.as_microsecond();
    let offset_us = offset_us.saturating_add(moved_us);
    ensure!(
        (-OFFSET_US_MAX..=OFFSET_US_MAX).contains(&offset_us),
        "{target} is more than 100 years from the present"
    );
    Ok(offset_us)
}

fn shown(service: Service, now: Timestamp, offset_us: i64) -> String {
    let offset = jiff::SignedDuration::from_micros(offset_us);
    let distance = if offset.is_zero() {
        "the primary's time".to_owned()
    } else if offset.is_positive() {
        format!("{offset:#} ahead of the primary")
    } else {
        format!("{:#} behind the primary", offset.abs())
    };
    format!("{}: {now:.0}, {distance}", service.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    #[test]
    fn a_clock_is_moved_by_a_duration_or_to_an_instant() {
        // The primary says 09:00, the clock 10:00.
        let now: Timestamp = "2026-01-31T10:00:00Z".parse().expect("an instant");
        for (to, expected) in [
            ("1h", Some(2 * HOUR_US)),
            ("-90m", Some(-HOUR_US / 2)),
            ("PT1H", Some(2 * HOUR_US)),
            ("1d 2h", Some(27 * HOUR_US)),
            // The last day of a month that is too short.
            ("1mo", Some((28 * 24 + 1) * HOUR_US)),
            ("2026-01-31T09:00:00Z", Some(0)),
            ("2026-01-31T12:00:00+01:00", Some(2 * HOUR_US)),
            ("tomorrow", None),
            ("", None),
            ("101y", None),
            ("-101y", None),
            ("20000y", None),
        ] {
            assert_eq!(offset_to(to, now, HOUR_US).ok(), expected, "{to:?}");
        }
    }

    #[test]
    fn what_is_shown_says_how_far_from_the_primary() {
        let now: Timestamp = "2026-03-01T00:00:00.25Z".parse().expect("an instant");
        for (offset_us, expected) in [
            (0, "quota: 2026-03-01T00:00:00Z, the primary's time"),
            (HOUR_US, "quota: 2026-03-01T00:00:00Z, 1h ahead of the primary"),
            (-HOUR_US, "quota: 2026-03-01T00:00:00Z, 1h behind the primary"),
        ] {
            assert_eq!(shown(Service::Quota, now, offset_us), expected);
        }
    }

    #[test]
    fn only_a_sandbox_without_a_live_key_has_a_clock_to_move() {
        let defaults = config::load(None).expect("good defaults");
        for (sandbox, key, refused) in [
            ("false", "", Some("sandbox")),
            ("true", "", None),
            ("true", "sk_test_1", None),
            ("true", "sk_live_1", Some("billing.payments.stripe_secret_key")),
        ] {
            let dir = tempfile::tempdir().expect("a directory");
            let file = dir.path().join("octroi.toml");
            let text = format!("sandbox = {sandbox}\n[billing.payments]\nstripe_secret_key = \"{key}\"\n");
            std::fs::write(&file, text).expect("a file");
            let loader = config::load(Some(&file)).expect("a good file");
            let answer = check_sandbox(&loader).err().map(|error| error.key);
            assert_eq!(answer.as_deref(), refused, "{sandbox} {key:?}");
        }
        assert!(check_sandbox(&defaults).is_err());
    }
}
