//! The rules: what is worth telling, to whom it matters how much, how figures and dates are written, what a
//! mail server's refusal is about, when a delivery is tried again.

pub mod anomaly;
pub mod backoff;
pub mod figures;
pub mod name;
pub mod refusal;
pub mod threshold;

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::{AccountId, named};
use uuid::Uuid;

/// How much a notice matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Something will stop soon, or cost more.
    Warning,
    /// Something has stopped.
    Critical,
}

named!(Severity { Info => "info", Warning => "warning", Critical => "critical" });

/// What a notice is about: the event's routing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An account reached a share of a limit.
    ThresholdCrossed,
    /// An account's use left what is expected.
    AnomalyDetected,
}

named!(Kind {
    ThresholdCrossed => "quota.threshold_crossed",
    AnomalyDetected => "usage.anomaly_detected",
});

/// What became of an e-mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EmailStatus {
    /// Waits for its next try.
    Queued,
    /// Handed to the mail server.
    Sent,
    /// Kept here, because no mail server is configured.
    Kept,
    /// Given up after the last try.
    Failed,
}

named!(EmailStatus { Queued => "queued", Sent => "sent", Kept => "kept", Failed => "failed" });

/// The language in which people are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// English.
    English,
    /// French.
    French,
}

named!(Language { English => "en", French => "fr" });

/// How a mailing ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MailingEnd {
    /// Its e-mails are written.
    Addressed,
    /// There is nobody to write to any more.
    Dropped,
}

named!(MailingEnd { Addressed => "addressed", Dropped => "dropped" });

/// What is known about what happened, under names that the contract promises.
pub type Facts = BTreeMap<String, String>;

/// One in-app notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub account: AccountId,
    /// What it is about.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// What its text is made of.
    pub facts: Facts,
    /// When it was written.
    pub created_at: Timestamp,
    /// When it was read.
    pub read_at: Option<Timestamp>,
}

/// One e-mail to one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    /// Its id, which is also the left part of its Message-ID.
    pub id: Uuid,
    /// Whose.
    pub account: AccountId,
    /// The address.
    pub recipient: String,
    /// What it says, in the recipient's language.
    pub letter: Letter,
    /// What became of it.
    pub status: EmailStatus,
    /// How often it was tried, a try under way included.
    pub tries: u32,
    /// When it was written.
    pub created_at: Timestamp,
}

/// What an e-mail says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// The subject.
    pub subject: String,
    /// The part for readers that show HTML.
    pub html: String,
    /// The part for readers that show text.
    pub text: String,
}
