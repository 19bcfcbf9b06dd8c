//! A notice that also goes out by e-mail is addressed: one e-mail for each owner, in the owner's language.

use std::time::Duration;

use jiff::Timestamp;
use octroi_kit::{
    db::{DatabaseError, Scope},
    directory::DirectoryError,
};

use super::Service;
use crate::{
    convert::from_proto_language,
    domain::{
        Kind, Language, Letter, MailingEnd, anomaly::AnomalyDetected, backoff, threshold::ThresholdCrossed,
    },
    error::Error,
    store::{self, Mailing, NewEmail},
    templates::Reader,
};

/// How many mailings are claimed at once.
const CLAIMS_MAX: i64 = 16;
/// How long a claimed mailing is left alone by others: the account service has 10 s to answer a call.
const CLAIM_MAX: Duration = Duration::from_secs(120);

impl Service {
    /// Claims mailings that are due.
    ///
    /// # Errors
    /// [`Error`] of the database.
    pub async fn claim_mailings(&self, now: Timestamp) -> Result<Vec<Mailing>, Error> {
        let until = now.saturating_add(CLAIM_MAX).unwrap_or(Timestamp::MAX);
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { Ok(store::claim_mailings(connection, CLAIMS_MAX, until, now).await?) })
            })
            .await
    }

    /// Asks the account service who owns the account, and makes their e-mails. This is the part that waits
    /// for the network and that opens no transaction.
    ///
    /// # Errors
    /// [`Error::Account`] where the account service does not answer, or has no such account any more.
    pub async fn write_emails(&self, mailing: &Mailing) -> Result<Vec<NewEmail>, Error> {
        let account = self.accounts.get(&mailing.account).await?;
        let owners = self.accounts.owners(&mailing.account).await?;
        let mut emails = Vec::with_capacity(owners.len());
        for owner in owners {
            let language = owner
                .language
                .or_else(|| from_proto_language(account.language))
                .unwrap_or(Language::English);
            let reader = Reader {
                language,
                zone: &account.zone,
                account_name: &account.display_name,
                console: self.console.as_deref(),
            };
            let letter = self.letter(mailing, &reader)?;
            emails.push(NewEmail {
                member_id: owner.member_id,
                recipient: owner.email,
                language,
                letter,
            });
        }
        Ok(emails)
    }

    fn letter(&self, mailing: &Mailing, reader: &Reader<'_>) -> Result<Letter, Error> {
        match mailing.kind {
            Kind::ThresholdCrossed => {
                let crossed = ThresholdCrossed::from_facts(&mailing.facts);
                Ok(self.templates.letter(
                    &crossed.ok_or(DatabaseError::Corrupt { what: "mailing" })?,
                    reader,
                )?)
            }
            Kind::AnomalyDetected => {
                let detected = AnomalyDetected::from_facts(&mailing.facts);
                Ok(self.templates.letter(
                    &detected.ok_or(DatabaseError::Corrupt { what: "mailing" })?,
                    reader,
                )?)
            }
        }
    }

    /// Queues the e-mails of a mailing, once: who comes second finds it ended and does nothing.
    ///
    /// # Errors
    /// [`Error`] of the database.
    pub async fn address_mailing(
        &self,
        mailing: Mailing,
        emails: Vec<NewEmail>,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    let Mailing {
                        notice_id, account, ..
                    } = mailing;
                    if !store::update_mailing_ended(connection, notice_id, MailingEnd::Addressed).await? {
                        return Ok(());
                    }
                    for email in emails {
                        store::insert_email(connection, notice_id, &account, email, now).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Lets a mailing wait whose e-mails could not be made, or drops it where they never will be: the
    /// account is gone, or too much time has passed for anybody to act on it.
    ///
    /// # Errors
    /// [`Error`] of the database.
    pub async fn put_off_mailing(
        &self,
        mailing: &Mailing,
        error: &Error,
        now: Timestamp,
    ) -> Result<(), Error> {
        let gone = matches!(
            error,
            Error::Account(DirectoryError::NotFound(_) | DirectoryError::Closed(_))
        );
        let old = now.duration_since(mailing.created_at)
            > jiff::SignedDuration::try_from(backoff::MAILING_AGE_MAX).unwrap_or_default();
        let (notice_id, tries) = (mailing.notice_id, mailing.tries);
        if gone || old {
            tracing::warn!(account.id = %mailing.account, notice.id = %notice_id, error = %error, "in the app only: nobody can be written to");
        }
        let wait = backoff::after_failed_addressing(notice_id, tries);
        let due_at = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    if gone || old {
                        store::update_mailing_ended(connection, notice_id, MailingEnd::Dropped).await?;
                        return Ok(());
                    }
                    Ok(store::update_mailing_due(connection, notice_id, tries, due_at).await?)
                })
            })
            .await
    }
}
