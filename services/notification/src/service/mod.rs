//! The use cases, one file each: rules and transactions.

mod address_mailing;
mod deliver_email;
mod list_emails;
mod list_notices;
mod mark_notices_read;
mod page;
mod take_anomaly;
mod take_threshold;
mod tell;

use std::sync::Arc;

use jiff::tz::TimeZone;
use octroi_core::AccountId;
use octroi_kit::{db::Db, directory::DirectoryError, page::PageTokens};

pub use self::{
    list_emails::{EmailPage, ListEmails},
    list_notices::{ListNotices, NoticePage},
    mark_notices_read::MarkNoticesRead,
    take_anomaly::take_anomaly_detected,
    take_threshold::take_threshold_crossed,
};
use crate::{
    accounts::Accounts, config, convert::from_proto_language, domain::Language, error::Error,
    templates::Templates,
};

/// The notification service. Cloning shares everything.
#[derive(Clone, Debug)]
pub struct Service {
    db: Db,
    accounts: Accounts,
    templates: Arc<Templates>,
    pages: PageTokens,
    console: Option<String>,
}

/// How an account is written to.
struct Manner {
    language: Language,
    zone: TimeZone,
    name: String,
}

impl Service {
    /// The service over its database and the account service.
    #[must_use]
    pub fn new(
        db: Db,
        accounts: Accounts,
        templates: Templates,
        pages: PageTokens,
        mail: &config::Mail,
    ) -> Self {
        Self {
            db,
            accounts,
            templates: Arc::new(templates),
            pages,
            console: mail.console().map(str::to_owned),
        }
    }

    /// How an account is written to in the app. What was told must stay readable when the account was
    /// closed or the account service is away, so that language and zone fall back to English and UTC.
    async fn manner(&self, account: &AccountId) -> Result<Manner, Error> {
        match self.accounts.get(account).await {
            Ok(known) => Ok(Manner {
                language: from_proto_language(known.language).unwrap_or(Language::English),
                zone: known.zone.clone(),
                name: known.display_name.clone(),
            }),
            Err(error @ DirectoryError::NotFound(_)) => Err(error.into()),
            Err(error) => {
                tracing::debug!(account.id = %account, error = %error, "told in English, because the account's language is unknown");
                Ok(Manner {
                    language: Language::English,
                    zone: TimeZone::UTC,
                    name: account.to_string(),
                })
            }
        }
    }
}
