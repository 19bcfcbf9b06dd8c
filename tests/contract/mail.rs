//! What every variant of the mail port must do, and what a mail server sees of us.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use octroi_core::AccountId;
use octroi_kit::config::Secret;
use octroi_notification::{
    channels::email::{Accepted, Mail, MailError},
    config::{self, Backend},
    domain::{Email, EmailStatus, Letter},
};
use octroi_proto::{
    account::v1::SignUpRequest,
    notification::v1::{EmailStatus as Status, ListEmailsRequest},
    quota::v1::{CheckItem, CheckMode, CheckQuotaRequest},
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, Topology, eventually, roomy_hour};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A mail server of a few lines. What it does with an e-mail depends on the recipient: `refused@` does not
/// exist, `gone@` neither and is not explained, `relayed@` is somebody else's, `later@` is busy; everybody
/// else gets it, for `slow@` only once it may answer. It takes nothing from `stranger@`.
struct Sink {
    address: SocketAddr,
    messages: Arc<Mutex<Vec<String>>>,
    may_answer: CancellationToken,
}

impl Sink {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let sink = Self {
            address: listener.local_addr()?,
            messages: Arc::default(),
            may_answer: CancellationToken::new(),
        };
        let (messages, may_answer) = (sink.messages.clone(), sink.may_answer.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, messages.clone(), may_answer.clone()));
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

async fn converse(
    stream: TcpStream,
    messages: Arc<Mutex<Vec<String>>>,
    may_answer: CancellationToken,
) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    writer.write_all(b"220 sink\r\n").await?;
    let mut slow = false;
    while let Some(line) = lines.next_line().await? {
        slow |= line.contains("slow@");
        let answer = match line.to_ascii_uppercase().as_str() {
            command if command.starts_with("MAIL") && command.contains("STRANGER@") => {
                "550 we do not know you"
            }
            command if command.starts_with("RCPT") && command.contains("GONE@") => "550 nobody here",
            command if command.starts_with("RCPT") && command.contains("RELAYED@") => {
                "550 5.7.1 relaying denied"
            }
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
                if slow {
                    may_answer.cancelled().await;
                }
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
    let refused = mail.send(&email("gone@example.com")?).await;
    assert!(
        matches!(&refused, Err(MailError::Never(answer)) if answer.contains("nobody here")),
        "{refused:?}"
    );
    for (recipient, said) in [
        ("later@example.com", "come back"),
        // The relay and the sender are ours to mend, whatever the code.
        ("relayed@example.com", "relaying denied"),
    ] {
        let later = mail.send(&email(recipient)?).await;
        assert!(
            matches!(&later, Err(MailError::Later(answer)) if answer.contains(said)),
            "{later:?}"
        );
    }
    let mut stranger = settings(Backend::Smtp, &format!("smtp://{}", sink.address));
    stranger.from = "Octroi <stranger@mail.example.com>".into();
    let later = Mail::new(&stranger)?.send(&email("lea@example.com")?).await;
    assert!(
        matches!(&later, Err(MailError::Later(answer)) if answer.contains("do not know you")),
        "{later:?}"
    );
    // A refusal of one does not stand in the way of the next.
    mail.send(&email("lea@example.com")?).await?;
    Ok(())
}

#[tokio::test]
async fn a_late_answer_is_waited_for_and_belongs_to_its_own_email() -> Result<()> {
    let sink = Sink::start().await?;
    let mail = Mail::new(&settings(Backend::Smtp, &format!("smtp://{}", sink.address)))?;
    let slow = email("slow@example.com")?;
    let first = mail.clone();
    let first = tokio::spawn(async move { first.send(&slow).await });
    eventually("the first is with the server", async || {
        ensure!(sink.messages().len() == 1);
        Ok(())
    })
    .await?;
    let second = mail.send(&email("refused@example.com")?).await;
    assert!(
        matches!(&second, Err(MailError::Never(answer)) if answer.contains("no such user")),
        "{second:?}"
    );
    ensure!(!first.is_finished(), "the server has not answered");
    sink.may_answer.cancel();
    assert_eq!(first.await??, Accepted::Sent("250 taken".into()));
    assert_eq!(sink.messages().len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_email_that_was_cut_leaves_no_answer_for_the_next() -> Result<()> {
    let sink = Sink::start().await?;
    let mail = Mail::new(&settings(Backend::Smtp, &format!("smtp://{}", sink.address)))?;
    let slow = email("slow@example.com")?;
    tokio::select! {
        sent = mail.send(&slow) => bail!("the server has not answered: {sent:?}"),
        taken = eventually("the server has the e-mail", async || {
            ensure!(sink.messages().len() == 1);
            Ok(())
        }) => taken?,
    }
    // The 250 of the first arrives when nobody waits for it any more.
    sink.may_answer.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let second = mail.send(&email("refused@example.com")?).await;
    assert!(
        matches!(&second, Err(MailError::Never(answer)) if answer.contains("no such user")),
        "{second:?}"
    );
    let third = mail.send(&email("later@example.com")?).await;
    assert!(matches!(third, Err(MailError::Later(_))), "{third:?}");
    Ok(())
}

async fn sign_up(operator: &Clients, address: &str) -> Result<String> {
    let request = SignUpRequest {
        email: address.to_owned(),
        password: "plinth orbit walnut sails".to_owned(),
        ..SignUpRequest::default()
    };
    let answer = operator.account.clone().sign_up(request).await?.into_inner();
    let account = answer.session.and_then(|session| session.account);
    Ok(account.context("no account")?.account_id)
}

/// Uses up a limit, so that the account's owner is written to.
async fn use_up(application: &Clients, account: &str) -> Result<()> {
    let item = CheckItem {
        metric: "exports.run".to_owned(),
        amount: 2,
    };
    let request = CheckQuotaRequest {
        account_id: account.to_owned(),
        items: vec![item],
        mode: CheckMode::Consume.into(),
        request_id: "r-1".to_owned(),
        ..CheckQuotaRequest::default()
    };
    application.quota.clone().check_quota(request).await?;
    Ok(())
}

/// What became of the only e-mail that the account's owner was written.
async fn only_email(operator: &Clients, account: &str) -> Result<Status> {
    let request = ListEmailsRequest {
        account_id: account.to_owned(),
        ..ListEmailsRequest::default()
    };
    let answer = operator.notification.clone().list_emails(request).await?;
    match answer.into_inner().emails.as_slice() {
        [only] => Ok(only.status()),
        emails => bail!("{} e-mails", emails.len()),
    }
}

#[tokio::test]
async fn a_mail_server_that_takes_its_time_holds_up_one_email_and_gets_it_once() -> Result<()> {
    let sink = Sink::start().await?;
    let fleet = Fleet::builder(Topology::OneProcess)
        .set("notification.mail.backend", "smtp")
        .set("notification.mail.url", format!("smtp://{}", sink.address))
        .set("notification.mail.from", "Octroi <octroi@mail.example.com>")
        .start()
        .await?;
    roomy_hour().await;
    let (application, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    let slow = sign_up(&operator, "slow@example.com").await?;
    let refused = sign_up(&operator, "refused@example.com").await?;
    let lea = sign_up(&operator, "lea@example.com").await?;
    use_up(&application, &slow).await?;
    eventually("the server has the slow one", async || {
        ensure!(sink.messages().len() == 1);
        Ok(())
    })
    .await?;
    use_up(&application, &refused).await?;
    use_up(&application, &lea).await?;
    for (account, expected) in [(&refused, Status::Failed), (&lea, Status::Sent)] {
        eventually("the others were brought to their end", async || {
            let status = only_email(&operator, account).await?;
            ensure!(status == expected, "{status:?} and not {expected:?}");
            Ok(())
        })
        .await?;
    }
    ensure!(only_email(&operator, &slow).await? == Status::Queued);
    sink.may_answer.cancel();
    eventually("the slow one was taken", async || {
        let status = only_email(&operator, &slow).await?;
        ensure!(status == Status::Sent, "{status:?}");
        Ok(())
    })
    .await?;
    let messages = sink.messages();
    let to = |address: &str| {
        let line = format!("To: {address}\n");
        messages.iter().filter(|message| message.contains(&line)).count()
    };
    assert_eq!(
        (to("slow@example.com"), to("lea@example.com"), messages.len()),
        (1, 1, 2)
    );
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
