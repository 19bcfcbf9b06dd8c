//! E-mail: a port with two variants, chosen once in [`Mail::new`].
//!
//! Headers are typed, so that no value can end one and begin another. The Message-ID is the e-mail's own
//! id: where a delivery is repeated because its end was not written down, readers can see that it is the
//! same one.

use std::error::Error as _;

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
};
use octroi_kit::config::ConfigError;

use super::{
    server::Server,
    smtp::{self, Failure},
};
use crate::{
    config::{self, Backend},
    domain::{Email, refusal},
};

/// How e-mails leave.
#[derive(Clone, Debug)]
pub enum Mail {
    /// Through a mail server.
    Smtp(Smtp),
    /// Not at all: they stay in the database, and `ListEmails` shows them.
    Outbox,
}

/// A mail server, and who we are to it.
#[derive(Clone, Debug)]
pub struct Smtp {
    server: Server,
    from: Mailbox,
}

/// What became of an e-mail that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The mail server took it, and said this.
    Sent(String),
    /// It stays here.
    Kept,
}

/// Why an e-mail did not leave.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// It may later.
    #[error("{0}")]
    Later(String),
    /// It never will.
    #[error("{0}")]
    Never(String),
}

impl Mail {
    /// The variant that the configuration names. Opens no connection.
    ///
    /// # Errors
    /// [`ConfigError`] where the server's address or the sender cannot be used.
    pub fn new(config: &config::Mail) -> Result<Self, ConfigError> {
        if config.backend == Backend::Outbox {
            return Ok(Self::Outbox);
        }
        Ok(Self::Smtp(Smtp {
            server: config.server()?,
            from: config.mailbox()?,
        }))
    }

    /// Sends an e-mail, once. An address that is none is refused by every variant.
    ///
    /// # Errors
    /// [`MailError`] says whether to try again.
    pub async fn send(&self, email: &Email) -> Result<Accepted, MailError> {
        let recipient = recipient(email)?;
        match self {
            Self::Smtp(smtp) => smtp.send(email, recipient).await,
            Self::Outbox => Ok(Accepted::Kept),
        }
    }
}

fn recipient(email: &Email) -> Result<Address, MailError> {
    email
        .recipient
        .parse()
        .map_err(|_| MailError::Never("the recipient's address is no e-mail address".into()))
}

impl Smtp {
    async fn send(&self, email: &Email, recipient: Address) -> Result<Accepted, MailError> {
        let message = message(email, recipient, &self.from)?;
        let response = smtp::send(&self.server, &message).await?;
        Ok(Accepted::Sent(format!(
            "{} {}",
            response.code(),
            response.first_line().unwrap_or("")
        )))
    }
}

impl From<Failure> for MailError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Silent => Self::Later("the mail server did not answer in time".into()),
            Failure::Incapable(problem) => Self::Later(problem.into()),
            Failure::Refused { asked, error } => {
                let said = error.source().map(ToString::to_string).unwrap_or_default();
                let is_final = error
                    .status()
                    .is_some_and(|code| refusal::is_final(asked, code.into(), &said));
                if is_final {
                    Self::Never(sentence(&error))
                } else {
                    Self::Later(sentence(&error))
                }
            }
        }
    }
}

fn sentence(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The e-mail as it goes over the wire.
fn message(email: &Email, recipient: Address, from: &Mailbox) -> Result<Message, MailError> {
    Message::builder()
        .message_id(Some(format!("<{}@{}>", email.id, from.email.domain())))
        .date(email.created_at.into())
        .from(from.clone())
        .to(Mailbox::new(None, recipient))
        .subject(&email.letter.subject)
        .header(AutoSubmitted)
        .multipart(MultiPart::alternative_plain_html(
            email.letter.text.clone(),
            email.letter.html.clone(),
        ))
        .map_err(|error| MailError::Never(format!("the e-mail cannot be written: {error}")))
}

/// Tells automatic answerers not to answer (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use octroi_core::AccountId;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{EmailStatus, Letter};

    fn email(recipient: &str, subject: &str) -> Email {
        Email {
            id: Uuid::from_u128(7),
            account: AccountId::parse("acme").expect("an id"),
            recipient: recipient.into(),
            letter: Letter {
                subject: subject.into(),
                html: "<p>80&nbsp;%</p>".into(),
                text: "80 %".into(),
            },
            status: EmailStatus::Queued,
            tries: 1,
            created_at: "2026-11-22T12:00:00Z".parse().expect("an instant"),
        }
    }

    fn message_of(email: &Email) -> Message {
        let from = "Octroi <octroi@mail.example.com>".parse().expect("a mailbox");
        message(email, recipient(email).expect("an address"), &from).expect("a message")
    }

    #[test]
    fn the_same_email_has_the_same_message_id_and_date_each_time() {
        let text = || {
            let message = message_of(&email("lea@example.com", "Limite atteinte – été"));
            String::from_utf8(message.formatted()).expect("ASCII")
        };
        let (first, second) = (text(), text());
        for line in [
            "Message-ID: <00000000-0000-0000-0000-000000000007@mail.example.com>\r\n",
            "Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n",
            "From: Octroi <octroi@mail.example.com>\r\n",
            "To: lea@example.com\r\n",
            "Auto-Submitted: auto-generated\r\n",
        ] {
            assert!(
                first.contains(line) && second.contains(line),
                "{line:?} is not in {first}"
            );
        }
        assert!(first.contains("multipart/alternative") && first.contains("text/html"));
    }

    #[test]
    fn no_value_begins_a_header_of_its_own() {
        let subject = "Hi\r\nBcc: victim@example.com\r\n\r\nbody";
        let message = message_of(&email("lea@example.com", subject));
        let text = String::from_utf8(message.formatted()).expect("ASCII");
        assert!(!text.contains("\r\nBcc:"), "{text}");
        assert!(
            !message
                .envelope()
                .to()
                .iter()
                .any(|to| to.to_string().contains("victim"))
        );
        for address in [
            "lea@example.com\r\nBcc: victim@example.com",
            "lea@example.com, victim@example.com",
            "lea",
            "",
        ] {
            assert!(
                matches!(recipient(&email(address, "Hi")), Err(MailError::Never(_))),
                "{address:?}"
            );
        }
    }
}
