//! The rules: what is worth telling, to whom it matters how much, how figures and dates are written, when
//! a delivery is tried again.

pub mod backoff;
pub mod figures;
pub mod name;
pub mod threshold;

use std::collections::BTreeMap;

use jiff::Timestamp;
use octroi_core::AccountId;
use uuid::Uuid;

/// A closed set that the database writes by name.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)*
        }

        impl $name {
            /// Its name, as the database writes it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// The one of this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

named! {
    /// How much a notice matters.
    Severity {
        /// Good to know.
        Info => "info",
        /// Something will stop soon, or cost more.
        Warning => "warning",
        /// Something has stopped.
        Critical => "critical",
    }
}

named! {
    /// What a notice is about: the event's routing key.
    Kind {
        /// An account reached a share of a limit.
        ThresholdCrossed => "quota.threshold_crossed",
    }
}

named! {
    /// What became of an e-mail.
    EmailStatus {
        /// Waits for its next try.
        Queued => "queued",
        /// Handed to the mail server.
        Sent => "sent",
        /// Kept here, because no mail server is configured.
        Kept => "kept",
        /// Given up after the last try.
        Failed => "failed",
    }
}

named! {
    /// The language in which people are written to.
    Language {
        /// English.
        English => "en",
        /// French.
        French => "fr",
    }
}

named! {
    /// How a mailing ends.
    MailingEnd {
        /// Its e-mails are written.
        Addressed => "addressed",
        /// There is nobody to write to any more.
        Dropped => "dropped",
    }
}

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
