//! The address of a mail server, with its credentials.

use std::net::IpAddr;

use lettre::transport::smtp::{
    SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT,
    authentication::Credentials,
    client::{Tls, TlsParameters},
    extension::ClientId,
};
use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Where a mail server is, how the way there is encrypted, and who we are to it.
///
/// Written as `smtps://user:password@host:port/name?tls=…`: `smtps` is TLS from the first byte, `smtp` with
/// `tls=required` is STARTTLS or nothing, with `tls=opportunistic` STARTTLS where it is offered, and without
/// `tls` plain text. The path is the name that we introduce ourselves by.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: Tls,
    pub(super) credentials: Option<Credentials>,
    pub(super) hello: ClientId,
}

impl Server {
    /// Reads an address; none where it is no mail server's. What is wrong is not said, because the text has
    /// a password in it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let host = match url.host()? {
            Host::Domain(name) => decoded(name)?,
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let parameters = || TlsParameters::new(host.clone()).ok();
        let asked = url.query_pairs().find(|(key, _)| key == "tls");
        let (port, tls) = match (url.scheme(), asked.as_ref().map(|(_, value)| &**value)) {
            ("smtp", None) => (SMTP_PORT, Tls::None),
            ("smtp", Some("opportunistic")) => (SUBMISSION_PORT, Tls::Opportunistic(parameters()?)),
            ("smtp", Some("required")) => (SUBMISSION_PORT, Tls::Required(parameters()?)),
            ("smtps", _) => (SUBMISSIONS_PORT, Tls::Wrapper(parameters()?)),
            _ => return None,
        };
        let credentials = match url.password() {
            Some(password) => Some(Credentials::new(decoded(url.username())?, decoded(password)?)),
            None => None,
        };
        let name = url.path().trim_matches('/');
        let hello = if name.is_empty() {
            ClientId::default()
        } else {
            ClientId::Domain(name.to_owned())
        };
        let port = url.port().unwrap_or(port);
        (!host.is_empty()).then_some(Self {
            host,
            port,
            tls,
            credentials,
            hello,
        })
    }

    /// Whether the credentials can be read on the way. STARTTLS that is not required does not count: who
    /// stands in between takes the offer away. On this machine nobody stands in between.
    pub(crate) fn shows_credentials(&self) -> bool {
        let encrypted = matches!(self.tls, Tls::Required(_) | Tls::Wrapper(_));
        self.credentials.is_some() && !encrypted && !self.is_here()
    }

    fn is_here(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
            || self
                .host
                .parse()
                .is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8().ok()?;
    Some(text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_where_how_and_as_whom() {
        for (text, host, port, user) in [
            ("smtp://mail.example.com", "mail.example.com", 25, None),
            ("smtp://[::1]:2525", "::1", 2525, None),
            ("smtp://127.0.0.1:2525", "127.0.0.1", 2525, None),
            (
                "smtp://mail.example.com?tls=required",
                "mail.example.com",
                587,
                None,
            ),
            (
                "smtp://u:p@mail.example.com?tls=opportunistic",
                "mail.example.com",
                587,
                Some("u"),
            ),
            (
                "smtps://me%40example.com:p%2Fw@mail.example.com",
                "mail.example.com",
                465,
                Some("me@example.com"),
            ),
        ] {
            let server = Server::parse(text).expect(text);
            assert_eq!((server.host.as_str(), server.port), (host, port), "{text}");
            let expected = user.map(|user| {
                let password = if user == "u" { "p" } else { "p/w" };
                Credentials::new(user.into(), password.into())
            });
            assert_eq!(server.credentials, expected, "{text}");
        }
        let named = Server::parse("smtp://mail.example.com/octroi.example.com").expect("an address");
        assert_eq!(named.hello, ClientId::Domain("octroi.example.com".into()));
        for text in [
            "",
            "mail.example.com",
            "smtp:mail.example.com",
            "smtp://",
            "http://mail.example.com",
            "smtp://mail.example.com?tls=please",
            "smtp//user:hunter2@mail.example.com",
        ] {
            assert!(Server::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn credentials_travel_encrypted_or_not_at_all() {
        for (text, shown) in [
            ("smtp://u:p@mail.example.com", true),
            ("smtp://u:p@mail.example.com?tls=opportunistic", true),
            ("smtp://u:p@mail.example.com?tls=required", false),
            ("smtps://u:p@mail.example.com", false),
            ("smtp://mail.example.com", false),
            ("smtp://u:p@127.0.0.1:2525", false),
            ("smtp://u:p@localhost:2525", false),
            ("smtp://u:p@[::1]:2525", false),
            ("smtp://u:p@localhost.example.com", true),
        ] {
            let server = Server::parse(text).expect(text);
            assert_eq!(server.shows_credentials(), shown, "{text}");
            assert!(!format!("{server:?}").contains("\"p\""), "{server:?}");
        }
    }
}
