//! E-mails leave: claimed, sent without a transaction open, and written down.

use std::time::Duration;

use jiff::Timestamp;
use octroi_kit::db::Scope;

use super::Service;
use crate::{
    channels::{
        email::{Accepted, MailError},
        smtp::SENDING_MAX,
    },
    domain::{Email, EmailStatus, backoff},
    error::Error,
    store::{self, Delivery},
};

/// How long a claimed e-mail is left alone by others.
const CLAIM_MAX: Duration = Duration::from_secs(15 * 60);
/// Who may still be sending an e-mail has its claim, with a minute to write down how it went.
const _: () = assert!(CLAIM_MAX.as_secs() > SENDING_MAX.as_secs() + 60);

impl Service {
    /// Claims up to `count` e-mails that are due. A claim counts as a try, so that an e-mail that ends the
    /// process each time is given up too.
    ///
    /// # Errors
    /// [`Error`] of the database.
    pub async fn claim_emails(&self, count: usize, now: Timestamp) -> Result<Vec<Email>, Error> {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let until = now.saturating_add(CLAIM_MAX).unwrap_or(Timestamp::MAX);
        self.db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { Ok(store::claim_emails(connection, count, until, now).await?) })
            })
            .await
    }

    /// Writes down how a try went, and answers what became of the e-mail. A try whose claim ran out is
    /// not written down: it is somebody else's by then.
    ///
    /// # Errors
    /// [`Error`] of the database.
    pub async fn record_delivery(
        &self,
        email: Email,
        sent: Result<Accepted, MailError>,
        now: Timestamp,
    ) -> Result<EmailStatus, Error> {
        let delivery = delivery_of(&email, sent, now);
        let (status, answer) = (delivery.status, delivery.answer.clone());
        let (email_id, tries) = (email.id, email.tries);
        let recorded = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    Ok::<_, Error>(store::update_email_tried(connection, &email, &delivery, now).await?)
                })
            })
            .await?;
        if !recorded {
            tracing::warn!(email.id = %email_id, email.tries = tries, "a delivery took longer than its claim");
        } else if status == EmailStatus::Failed {
            tracing::warn!(email.id = %email_id, email.tries = tries, answer, "an e-mail was given up");
        }
        metrics::counter!("octroi_notification_emails_total", "outcome" => status.as_str()).increment(1);
        Ok(status)
    }
}

/// What follows from how a try went.
fn delivery_of(email: &Email, sent: Result<Accepted, MailError>, now: Timestamp) -> Delivery {
    let (status, answer) = match sent {
        Ok(Accepted::Sent(answer)) => (EmailStatus::Sent, answer),
        Ok(Accepted::Kept) => (EmailStatus::Kept, String::new()),
        Err(MailError::Never(answer)) => (EmailStatus::Failed, answer),
        Err(MailError::Later(answer)) => {
            if let Some(wait) = backoff::after_failed_delivery(email.id, email.tries) {
                let due_at = now.saturating_add(wait).unwrap_or(Timestamp::MAX);
                return Delivery {
                    status: EmailStatus::Queued,
                    due_at,
                    answer,
                };
            }
            (EmailStatus::Failed, answer)
        }
    };
    Delivery {
        status,
        due_at: now,
        answer,
    }
}

#[cfg(test)]
mod tests {
    use octroi_core::AccountId;
    use uuid::Uuid;

    use super::*;
    use crate::domain::Letter;

    #[track_caller]
    fn check(tries: u32, sent: Result<Accepted, MailError>, status: EmailStatus) {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().expect("an instant");
        let email = Email {
            id: Uuid::from_u128(7),
            account: AccountId::parse("acme").expect("an id"),
            recipient: "lea@example.com".into(),
            letter: Letter {
                subject: "Hi".into(),
                html: "<p>Hi</p>".into(),
                text: "Hi".into(),
            },
            status: EmailStatus::Queued,
            tries,
            created_at: now,
        };
        let delivery = delivery_of(&email, sent, now);
        assert_eq!(delivery.status, status);
        assert_eq!(delivery.due_at > now, status == EmailStatus::Queued);
    }

    #[test]
    fn an_email_that_cannot_leave_now_waits_and_is_given_up_after_its_last_try() {
        let later = || Err(MailError::Later("421 come back".into()));
        check(1, Ok(Accepted::Sent("250 OK".into())), EmailStatus::Sent);
        check(1, Ok(Accepted::Kept), EmailStatus::Kept);
        check(1, later(), EmailStatus::Queued);
        check(backoff::TRIES_MAX - 1, later(), EmailStatus::Queued);
        check(backoff::TRIES_MAX, later(), EmailStatus::Failed);
        check(
            1,
            Err(MailError::Never("550 no such user".into())),
            EmailStatus::Failed,
        );
    }
}
