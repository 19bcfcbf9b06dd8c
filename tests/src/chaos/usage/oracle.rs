//! What was sent and answered, and what was found.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A usage event; its place in the log is its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The place of its account in the log.
    pub account: usize,
    /// Its metric.
    pub metric: &'static str,
    /// Its units.
    pub amount: u64,
    /// When it counts, in milliseconds since 1970.
    pub at_ms: i64,
    /// Its property `region`, where it has one.
    pub region: Option<&'static str>,
}

/// What an event was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// It was recorded by this call.
    New,
    /// It was recorded before.
    Duplicate,
    /// It is refused, and will be again.
    Refused(String),
    /// Nothing that lasts: it is sent again.
    Nothing(String),
}

/// What became of an event, as seen from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// How often it was sent.
    pub sent: u32,
    /// How often it was told that this call recorded it.
    pub new: u32,
    /// How often it was told that it was there before.
    pub duplicate: u32,
    /// Why it was refused.
    pub refused: Option<String>,
}

impl Fate {
    /// Whether it was told that the ledger has it.
    #[must_use]
    pub fn is_acknowledged(&self) -> bool {
        self.new + self.duplicate > 0
    }
}

/// An event that was acknowledged, sent again with other content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forgery {
    /// The event.
    pub event: usize,
    /// What it was told.
    pub told: Told,
}

/// All that was seen from outside. Events are in it before they are sent.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The accounts.
    pub accounts: Vec<String>,
    /// The events.
    pub events: Vec<Event>,
    /// What became of each.
    pub fates: Vec<Fate>,
    /// Those that were sent with other content.
    pub forgeries: Vec<Forgery>,
    /// Messages that nobody can handle, which each queue of `usage.recorded` was given.
    pub poison: BTreeSet<String>,
}

/// The id of the event at this place.
#[must_use]
pub fn event_id(place: usize) -> String {
    format!("e-{place}")
}

/// The place of an event with this id.
#[must_use]
pub fn place(event_id: &str) -> Option<usize> {
    event_id.strip_prefix("e-")?.parse().ok()
}

/// A row of the ledger, of the run's own source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its event's id.
    pub event_id: String,
    /// Its account.
    pub account: String,
    /// Its metric.
    pub metric: String,
    /// Its units.
    pub amount: u64,
    /// When it counts, in milliseconds since 1970.
    pub at_ms: i64,
    /// Its property `region`.
    pub region: Option<String>,
}

/// What some events come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// How many they are.
    pub events: u64,
    /// Their units.
    pub amount: u64,
}

/// One bucket of the rollups, beside what the ledger has of its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rollup {
    /// Which.
    pub bucket: String,
    /// By the ledger.
    pub ledger: Figures,
    /// By the rollup.
    pub rollup: Figures,
}

/// A limit of every account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub metric: String,
    /// For how long.
    pub period: String,
    /// How much.
    pub amount: u64,
}

/// One window of quota's, beside what the ledger has of its time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Its account.
    pub account: String,
    /// Its metric.
    pub metric: String,
    /// Its period.
    pub period: String,
    /// Its first second.
    pub start: i64,
    /// What it followed of the ledger.
    pub used: u64,
    /// What entered without permission, which is all that is recorded here.
    pub overrun: u64,
    /// What the ledger has.
    pub ledger: u64,
}

/// A share of a limit that was reached in a window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Threshold {
    /// The account.
    pub account: String,
    /// The metric.
    pub metric: String,
    /// The period.
    pub period: String,
    /// The window's first second.
    pub start: i64,
    /// The share, in percent.
    pub percent: u32,
}

/// What is still to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Events that the rollups lack, by usage's own count.
    pub lag: i64,
    /// Rows in the outboxes.
    pub outbox: u64,
    /// Messages in the queues.
    pub waiting: u64,
}

impl Backlog {
    /// Whether nothing is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What was found after everything was healed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The ledger.
    pub ledger: Vec<Entry>,
    /// How many keys have no event, and how many events no key.
    pub keys_apart: (u64, u64),
    /// The rollups.
    pub rollups: Vec<Rollup>,
    /// What the ledger has of each account and metric.
    pub totals: BTreeMap<(String, String), u64>,
    /// The limits of every account.
    pub limits: Vec<Limit>,
    /// Quota's windows.
    pub windows: Vec<Window>,
    /// Thresholds that quota noted.
    pub crossed: BTreeSet<Threshold>,
    /// Those of them that it told of.
    pub fired: BTreeSet<Threshold>,
    /// Those that people were told of, as often as they were.
    pub told: Vec<Threshold>,
    /// What is still to be done.
    pub backlog: Backlog,
    /// The messages that each queue gave up, by what is in them.
    pub dead: BTreeMap<String, BTreeSet<String>>,
    /// How long it took until all of it was as it should, where it was in time.
    pub settled: Option<Duration>,
    /// What was not so until then, as it was seen last.
    pub waited_for: Option<String>,
}
