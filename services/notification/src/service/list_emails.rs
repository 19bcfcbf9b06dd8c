//! What an account was told by e-mail.

use octroi_core::AccountId;
use octroi_kit::{db::Scope, grpc::MESSAGE_BYTES_MAX};

use super::{Service, page::Paging};
use crate::{domain::Email, error::Error, store};

/// Which e-mails are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListEmails {
    /// Whose.
    pub account: AccountId,
    /// How many at most.
    pub page_size: i64,
    /// Where to go on.
    pub page_token: String,
}

/// A page of e-mails, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailPage {
    /// The e-mails.
    pub emails: Vec<Email>,
    /// Where to go on; empty at the end.
    pub next_page_token: String,
}

const LIST: &str = "emails";

impl Service {
    /// Lists an account's e-mails, newest first. A page ends before it is larger than a message may be,
    /// so that it may hold fewer than were asked for.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list_emails(&self, request: ListEmails) -> Result<EmailPage, Error> {
        let ListEmails {
            account,
            page_size,
            page_token,
        } = request;
        let paging = Paging {
            list: LIST,
            account: &account,
            size: page_size,
        };
        let after = self.page_begin(paging, &page_token)?;
        self.manner(&account).await?;
        let (owner, count) = (account.clone(), paging.looked_for());
        let mut emails = self
            .db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    Ok::<_, Error>(store::find_emails(connection, &owner, after, count).await?)
                })
            })
            .await?;
        let fitting = count_that_fits(&emails);
        let next_page_token = self.page_end(paging, &mut emails, fitting);
        Ok(EmailPage {
            emails,
            next_page_token,
        })
    }
}

/// How many of these one message holds; at least one, so that a list always goes on.
fn count_that_fits(emails: &[Email]) -> usize {
    // Ids, times and the frames of protobuf.
    const BESIDE_TEXTS_BYTES: usize = 512;
    let mut bytes = 0;
    let fitting = emails.iter().take_while(|email| {
        let letter = &email.letter;
        bytes += BESIDE_TEXTS_BYTES
            + email.account.as_str().len()
            + email.recipient.len()
            + letter.subject.len()
            + letter.html.len()
            + letter.text.len();
        bytes <= MESSAGE_BYTES_MAX
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{EmailStatus, Letter};

    fn emails(count: usize, html_bytes: usize) -> Vec<Email> {
        let email = Email {
            id: Uuid::from_u128(7),
            account: AccountId::parse("acme").expect("an id"),
            recipient: "lea@example.com".into(),
            letter: Letter {
                subject: "Hi".into(),
                html: "x".repeat(html_bytes),
                text: "Hi".into(),
            },
            status: EmailStatus::Kept,
            tries: 1,
            created_at: "2026-11-22T12:00:00Z".parse().expect("an instant"),
        };
        vec![email; count]
    }

    #[test]
    fn a_page_is_no_larger_than_a_message_and_never_empty() {
        assert_eq!(count_that_fits(&emails(100, 1_000)), 100);
        assert_eq!(count_that_fits(&emails(100, 10_000)), 24);
        assert_eq!(count_that_fits(&emails(2, 1_000_000)), 1);
    }
}
