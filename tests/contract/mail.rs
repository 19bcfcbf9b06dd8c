//! What every variant of the mail port must do, and what a mail server sees of us.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Result, bail};
use octroi_core::AccountId;
use octroi_kit::config::Secret;
use octroi_notification::{
    channels::email::{Accepted, Mail, MailError},
    config::{self, Backend},
    domain::{Email, EmailStatus, Letter},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use uuid::Uuid;

/// A mail server of a few lines. What it does with an e-mail depends on the recipient: `refused@` does not
/// exist, `later@` is busy, everybody else gets it.
struct Sink {
    address: SocketAddr,
    messages: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let sink = Self {
            address: listener.local_addr()?,
            messages: Arc::default(),
        };
        let messages = sink.messages.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, messages.clone()));
            }
        });
        Ok(sink)
    }

    fn messages(&self) -> Vec<String> {
        self.messages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn converse(stream: TcpStream, messages: Arc<Mutex<Vec<String>>>) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 sink\r\n").await?;
    while let Some(line) = lines.next_line().await? {
        let answer = match line.to_ascii_uppercase().as_str() {
            command if command.starts_with("RCPT") && command.contains("REFUSED@") => {
                "550 5.1.1 no such user"
            }
            command if command.starts_with("RCPT") && command.contains("LATER@") => "451 4.3.0 come back",
            "DATA" => {
                writer.write_all(b"354 go on\r\n").await?;
                let mut message = String::new();
                while let Some(line) = lines.next_line().await? {
                    if line == "." {
                        break;
                    }
                    message.push_str(&line);
                    message.push('\n');
                }
                messages
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(message);
                "250 taken"
            }
            "QUIT" => {
                writer.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            _ => "250 ok",
        };
        writer.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}

fn settings(backend: Backend, url: &str) -> config::Mail {
    config::Mail {
        backend,
        url: Secret::new(url),
        from: "Octroi <octroi@mail.example.com>".into(),
        console_url: String::new(),
        per_account_day_max: 100,
    }
}

async fn every_variant() -> Result<Vec<(Mail, Option<Sink>)>> {
    let sink = Sink::start().await?;
    let smtp = Mail::new(&settings(Backend::Smtp, &format!("smtp://{}", sink.address)))?;
    Ok(vec![
        (Mail::new(&settings(Backend::Outbox, ""))?, None),
        (smtp, Some(sink)),
    ])
}

fn email(recipient: &str) -> Result<Email> {
    Ok(Email {
        id: Uuid::from_u128(7),
        account: AccountId::parse("acme")?,
        recipient: recipient.into(),
        letter: Letter {
            subject: "api.requests\u{202f}: limite mensuelle atteinte".into(),
            html: "<p>limite mensuelle atteinte</p>".into(),
            text: "limite mensuelle atteinte".into(),
        },
        status: EmailStatus::Queued,
        tries: 1,
        created_at: "2026-11-22T12:00:00Z".parse()?,
    })
}

#[tokio::test]
async fn an_email_is_taken_however_often_it_is_sent() -> Result<()> {
    for (mail, sink) in every_variant().await? {
        for _ in 0..2 {
            let accepted = mail.send(&email("lea@example.com")?).await?;
            match (&mail, accepted) {
                (Mail::Outbox, Accepted::Kept) => {}
                (Mail::Smtp(_), Accepted::Sent(answer)) => assert_eq!(answer, "250 taken"),
                (mail, accepted) => bail!("{mail:?} answered {accepted:?}"),
            }
        }
        let Some(sink) = sink else { continue };
        let messages = sink.messages();
        assert_eq!(messages.len(), 2);
        for message in messages {
            let id = "Message-ID: <00000000-0000-0000-0000-000000000007@mail.example.com>\n";
            assert!(
                message.contains(id) && message.contains("To: lea@example.com\n"),
                "{message}"
            );
            assert!(
                message.contains("text/plain") && message.contains("text/html"),
                "{message}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_address_that_is_none_is_refused_for_good() -> Result<()> {
    for (mail, sink) in every_variant().await? {
        for recipient in [
            "",
            "lea",
            "lea@example.com\r\nBcc: victim@example.com",
            "a@example.com, b@example.com",
        ] {
            let sent = mail.send(&email(recipient)?).await;
            assert!(
                matches!(sent, Err(MailError::Never(_))),
                "{mail:?} {recipient:?}: {sent:?}"
            );
        }
        assert!(sink.is_none_or(|sink| sink.messages().is_empty()));
    }
    Ok(())
}

#[tokio::test]
async fn a_mail_server_says_whether_to_come_back() -> Result<()> {
    let sink = Sink::start().await?;
    let mail = Mail::new(&settings(Backend::Smtp, &format!("smtp://{}", sink.address)))?;
    let refused = mail.send(&email("refused@example.com")?).await;
    assert!(
        matches!(&refused, Err(MailError::Never(answer)) if answer.contains("no such user")),
        "{refused:?}"
    );
    let later = mail.send(&email("later@example.com")?).await;
    assert!(
        matches!(&later, Err(MailError::Later(answer)) if answer.contains("come back")),
        "{later:?}"
    );
    // A refusal of one does not stand in the way of the next.
    mail.send(&email("lea@example.com")?).await?;
    Ok(())
}

#[tokio::test]
async fn a_mail_server_that_is_away_is_tried_again() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    drop(listener);
    let mail = Mail::new(&settings(Backend::Smtp, &format!("smtp://{address}")))?;
    let sent = mail.send(&email("lea@example.com")?).await;
    assert!(matches!(sent, Err(MailError::Later(_))), "{sent:?}");
    Ok(())
}

#[test]
fn the_password_of_a_mail_server_is_not_shown() -> Result<()> {
    let wrong = settings(Backend::Smtp, "smtp//user:hunter2hunter2@mail.example.com");
    let Err(error) = Mail::new(&wrong) else {
        bail!("an address without a scheme was taken")
    };
    assert!(!format!("{error} {error:?} {wrong:?}").contains("hunter2"));
    Ok(())
}
