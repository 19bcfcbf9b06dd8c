//! One e-mail over SMTP, on a connection of its own.
//!
//! A conversation that is cut leaves an answer on its way, which the next e-mail over the same connection
//! would take for its own. So no connection is used twice; each command has its own time, because what may
//! be cut without harm and what may not are different commands.

use std::time::Duration;

use lettre::{
    Message,
    address::Envelope,
    transport::smtp::{
        Error,
        authentication::DEFAULT_MECHANISMS,
        client::{AsyncSmtpConnection, Tls},
        commands::{Data, Mail, Rcpt},
        extension::{Extension, MailBodyParameter, MailParameter, ServerInfo},
        response::Response,
    },
};

use super::server::Server;
use crate::domain::refusal::Asked;

/// How long one address of the server has to accept a connection. The only thing that lettre itself bounds.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long the goodbye may take; nobody waits for it.
const GOODBYE_MAX: Duration = Duration::from_secs(10);

const OPENING_S_MAX: u64 = 30;
const COMMAND_S_MAX: u64 = 30;
/// Ten minutes for the server to take the e-mail, as RFC 5321 §4.5.3.2.6 asks, and one for its text to get
/// there. Who gives up earlier sends again what the server has already taken.
const TAKING_S_MAX: u64 = 11 * 60;

/// The longest that sending one e-mail takes: opening, three commands, the text.
pub(crate) const SENDING_MAX: Duration =
    Duration::from_secs(OPENING_S_MAX + 3 * COMMAND_S_MAX + TAKING_S_MAX);

/// How long the server has for each part of a conversation. Before the end of the text the server has taken
/// nothing, and a cut costs nothing but another try.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Connection, greeting, encryption and credentials.
    opening: Duration,
    /// One command.
    command: Duration,
    /// The text, until the server says that it took it.
    taking: Duration,
}

const PATIENCE: Patience = Patience {
    opening: Duration::from_secs(OPENING_S_MAX),
    command: Duration::from_secs(COMMAND_S_MAX),
    taking: Duration::from_secs(TAKING_S_MAX),
};

/// Why a mail server did not take an e-mail.
#[derive(Debug)]
pub(super) enum Failure {
    /// It did not answer in time.
    Silent,
    /// It cannot take such an e-mail.
    Incapable(&'static str),
    /// It refused, or the connection broke.
    Refused {
        /// What it was asked.
        asked: Asked,
        /// What it said.
        error: Error,
    },
}

/// Sends an e-mail, once, and answers what the server said when it took it.
///
/// # Errors
/// [`Failure`].
pub(super) async fn send(server: &Server, message: &Message) -> Result<Response, Failure> {
    send_with(PATIENCE, server, message).await
}

async fn send_with(patience: Patience, server: &Server, message: &Message) -> Result<Response, Failure> {
    let mut connection = in_time(patience.opening, Asked::Opening, open(server)).await?;
    let answer = converse(patience, &mut connection, message).await;
    if !matches!(answer, Err(Failure::Silent)) {
        tokio::spawn(async move { drop(tokio::time::timeout(GOODBYE_MAX, connection.abort()).await) });
    }
    answer
}

async fn open(server: &Server) -> Result<AsyncSmtpConnection, Error> {
    let wrapper = match &server.tls {
        Tls::Wrapper(parameters) => Some(parameters.clone()),
        _ => None,
    };
    let address = (server.host.as_str(), server.port);
    let mut connection =
        AsyncSmtpConnection::connect_tokio1(address, Some(CONNECT_MAX), &server.hello, wrapper, None).await?;
    match &server.tls {
        Tls::Required(parameters) => connection.starttls(parameters.clone(), &server.hello).await?,
        Tls::Opportunistic(parameters) if connection.can_starttls() => {
            connection.starttls(parameters.clone(), &server.hello).await?;
        }
        _ => {}
    }
    if let Some(credentials) = &server.credentials {
        connection.auth(DEFAULT_MECHANISMS, credentials).await?;
    }
    Ok(connection)
}

async fn converse(
    patience: Patience,
    connection: &mut AsyncSmtpConnection,
    message: &Message,
) -> Result<Response, Failure> {
    let (envelope, text) = (message.envelope(), message.formatted());
    let parameters = mail_parameters(connection.server_info(), envelope, &text)?;
    let sender = Mail::new(envelope.from().cloned(), parameters);
    in_time(patience.command, Asked::Sender, connection.command(sender)).await?;
    for recipient in envelope.to() {
        let recipient = Rcpt::new(recipient.clone(), Vec::new());
        in_time(patience.command, Asked::Recipient, connection.command(recipient)).await?;
    }
    in_time(patience.command, Asked::Content, connection.command(Data)).await?;
    in_time(patience.taking, Asked::Content, connection.message(&text)).await
}

/// What the server must be told to expect beside ASCII.
fn mail_parameters(
    server: &ServerInfo,
    envelope: &Envelope,
    text: &[u8],
) -> Result<Vec<MailParameter>, Failure> {
    let mut parameters = Vec::new();
    let mut addresses = envelope.from().into_iter().chain(envelope.to());
    if !addresses.all(|address| AsRef::<str>::as_ref(address).is_ascii()) {
        if !server.supports_feature(Extension::SmtpUtfEight) {
            return Err(Failure::Incapable(
                "the mail server takes no addresses beside ASCII (SMTPUTF8)",
            ));
        }
        parameters.push(MailParameter::SmtpUtfEight);
    }
    if !text.is_ascii() {
        if !server.supports_feature(Extension::EightBitMime) {
            return Err(Failure::Incapable(
                "the mail server takes no text beside ASCII (8BITMIME)",
            ));
        }
        parameters.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    Ok(parameters)
}

async fn in_time<T>(
    time_max: Duration,
    asked: Asked,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(time_max, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::Refused { asked, error }),
        Err(_) => Err(Failure::Silent),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Answers everything at once, and the end of a text after `taking`.
    async fn converse(stream: TcpStream, taking: Duration) -> std::io::Result<()> {
        let (reader, mut writer) = stream.into_split();
        let mut lines = BufReader::new(reader).lines();
        writer.write_all(b"220 sink\r\n").await?;
        let mut in_text = false;
        while let Some(line) = lines.next_line().await? {
            let answer = match line.as_str() {
                "." => {
                    tokio::time::sleep(taking).await;
                    in_text = false;
                    "250 taken"
                }
                _ if in_text => continue,
                "DATA" => {
                    in_text = true;
                    "354 go on"
                }
                one if one.contains("refused@") => "550 no such user",
                _ => "250 ok",
            };
            writer.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
        Ok(())
    }

    async fn sink(taking: Duration) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, taking));
            }
        });
        Server::parse(&format!("smtp://{address}")).expect("an address")
    }

    fn message(recipient: &str) -> Message {
        Message::builder()
            .from("octroi@mail.example.com".parse().expect("a mailbox"))
            .to(recipient.parse().expect("a mailbox"))
            .body(String::from("80 %"))
            .expect("a message")
    }

    #[tokio::test]
    async fn the_answer_of_a_conversation_that_was_cut_is_nobody_else_s() {
        let server = sink(Duration::from_millis(600)).await;
        let patience = Patience {
            taking: Duration::from_millis(200),
            ..PATIENCE
        };
        let cut = send_with(patience, &server, &message("lea@example.com")).await;
        assert!(matches!(cut, Err(Failure::Silent)), "{cut:?}");
        // By now the first answer has arrived, late.
        tokio::time::sleep(Duration::from_millis(600)).await;
        let refused = send_with(patience, &server, &message("refused@example.com")).await;
        assert!(
            matches!(&refused, Err(Failure::Refused { asked: Asked::Recipient, error }) if error.is_permanent()),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let server = Server::parse(&format!("smtp://{address}")).expect("an address");
        let patience = Patience {
            opening: Duration::from_millis(100),
            ..PATIENCE
        };
        let sent = send_with(patience, &server, &message("lea@example.com")).await;
        assert!(matches!(sent, Err(Failure::Silent)), "{sent:?}");
    }

    #[test]
    fn a_server_has_ten_minutes_to_take_an_email() {
        assert!(PATIENCE.taking >= Duration::from_secs(600));
        let all = PATIENCE.opening + 3 * PATIENCE.command + PATIENCE.taking;
        assert_eq!(all, SENDING_MAX);
    }
}
