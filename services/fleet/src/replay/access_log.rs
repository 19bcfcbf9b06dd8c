//! One line of the combined access log of Apache and nginx:
//! `client identity user [time] "request" status bytes "referer" "agent"`; what follows is left aside.

use std::borrow::Cow;

use super::{malformed::Malformed, mapping::Fields};

/// The columns that a mapping can name.
pub const COLUMNS: [&str; 8] = [
    "client", "user", "time", "request", "status", "bytes", "referer", "agent",
];

/// A request that was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    client: &'a str,
    user: &'a str,
    time: &'a str,
    request: &'a str,
    status: &'a str,
    bytes: &'a str,
    referer: &'a str,
    agent: &'a str,
}

impl<'a> Entry<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// [`Malformed::Syntax`] where a part is not where it must be.
    pub fn parse(line: &'a str) -> Result<Self, Malformed> {
        const HEAD: Malformed = Malformed::Syntax("does not begin with client, identity, user and [time]");
        let (client, rest) = line.split_once(' ').ok_or(HEAD)?;
        let (_identity, rest) = rest.split_once(' ').ok_or(HEAD)?;
        // A user's name may hold spaces, so it ends where the time begins.
        let (user, rest) = rest.split_once(" [").ok_or(HEAD)?;
        let (time, rest) = rest.split_once("] ").ok_or(HEAD)?;
        let (request, rest) = quoted(rest, "request")?;
        let (status, rest) = word(rest).ok_or(Malformed::missing("status"))?;
        if status.len() != 3 || !status.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed::value("status", "is not three digits", status));
        }
        let (bytes, rest) = word(rest).ok_or(Malformed::missing("bytes"))?;
        let (referer, rest) = quoted(rest, "referer")?;
        let (agent, _) = quoted(rest, "agent")?;
        Ok(Self {
            client,
            user,
            time,
            request,
            status,
            bytes,
            referer,
            agent,
        })
    }
}

impl Fields for Entry<'_> {
    fn text(&self, column: &str) -> Option<Cow<'_, str>> {
        let value = match column {
            "client" => self.client,
            "user" => self.user,
            "time" => self.time,
            "request" => self.request,
            "status" => self.status,
            // Nothing was sent, which nginx writes as 0.
            "bytes" if self.bytes == "-" => "0",
            "bytes" => self.bytes,
            "referer" => self.referer,
            "agent" => self.agent,
            _ => return None,
        };
        (value != "-").then_some(Cow::Borrowed(value))
    }
}

/// What stands up to the next space, and what after it.
fn word(rest: &str) -> Option<(&str, &str)> {
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
    (!word.is_empty()).then_some((word, after))
}

/// What stands between two quotes, and what after them. A backslash keeps the character after it from
/// being the end.
fn quoted<'a>(rest: &'a str, name: &str) -> Result<(&'a str, &'a str), Malformed> {
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let inner = rest.strip_prefix('"').ok_or_else(|| Malformed::missing(name))?;
    let mut escaped = false;
    for (at, byte) in inner.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => {
                let (value, after) = inner.split_at(at);
                return Ok((value, after.strip_prefix('"').unwrap_or(after)));
            }
            _ => {}
        }
    }
    Err(Malformed::Syntax("ends within a quoted part"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, column: &str, expected: Option<&str>) {
        let entry = Entry::parse(line).unwrap_or_else(|problem| panic!("{line:?} {problem}"));
        assert_eq!(entry.text(column).as_deref(), expected, "{column} of {line:?}");
    }

    fn check_refused(line: &str, expected: &str) {
        assert_eq!(
            Entry::parse(line).expect_err(line).to_string(),
            expected,
            "{line:?}"
        );
    }

    #[test]
    fn every_column_is_found() {
        let line = r#"192.0.2.7 - anna [01/Mar/2024:08:00:01 +0100] "GET /a HTTP/1.1" 200 512 "https://x.test/" "Browser/1""#;
        check(line, "client", Some("192.0.2.7"));
        check(line, "user", Some("anna"));
        check(line, "time", Some("01/Mar/2024:08:00:01 +0100"));
        check(line, "request", Some("GET /a HTTP/1.1"));
        check(line, "status", Some("200"));
        check(line, "bytes", Some("512"));
        check(line, "referer", Some("https://x.test/"));
        check(line, "agent", Some("Browser/1"));
        check(line, "color", None);
    }

    #[test]
    fn odd_but_good_lines_are_read() {
        let line = r#"2001:db8::1 - - [01/Mar/2024:08:00:01 +0000] "GET / HTTP/2.0" 304 - "-" "-""#;
        check(line, "client", Some("2001:db8::1"));
        check(line, "bytes", Some("0"));
        check(line, "user", None);
        check(line, "referer", None);
        let line = r#"192.0.2.7 - anna b [01/Mar/2024:08:00:01 +0000] "GET /\"q\\\" HTTP/1.1" 200 9 "-" "say \"hi\"" "10.0.0.1" 0.002"#;
        check(line, "user", Some("anna b"));
        check(line, "request", Some(r#"GET /\"q\\\" HTTP/1.1"#));
        check(line, "agent", Some(r#"say \"hi\""#));
        let line = r#"192.0.2.7 - - [01/Mar/2024:08:00:01 +0000] "" 400 0 "-" "-""#;
        check(line, "request", Some(""));
    }

    #[test]
    fn lines_that_are_cut_are_refused() {
        let head = "does not begin with client, identity, user and [time]";
        check_refused("", head);
        check_refused("hello", head);
        check_refused("192.0.2.7 - - [01/Mar/2024:08:00:01 +0000", head);
        check_refused("192.0.2.7 - - [01/Mar/2024:08:00:01 +0000] GET", "has no request");
        check_refused(
            r#"192.0.2.7 - - [01/Mar/2024:08:00:01 +0000] "GET / HT"#,
            "ends within a quoted part",
        );
        check_refused(
            r#"192.0.2.7 - - [01/Mar/2024:08:00:01 +0000] "GET /""#,
            "has no status",
        );
        check_refused(
            r#"192.0.2.7 - - [01/Mar/2024:08:00:01 +0000] "GET /" ok 5 "-" "-""#,
            r#"has a status that is not three digits: "ok""#,
        );
        check_refused(
            r#"192.0.2.7 - - [01/Mar/2024:08:00:01 +0000] "GET /" 200"#,
            "has no bytes",
        );
        check_refused(
            r#"192.0.2.7 - - [01/Mar/2024:08:00:01 +0000] "GET /" 200 51"#,
            "has no referer",
        );
        check_refused(
            r#"192.0.2.7 - - [01/Mar/2024:08:00:01 +0000] "GET /" 200 512 "-""#,
            "has no agent",
        );
        check_refused(
            r#"192.0.2.7 - - [01/Mar/2024:08:00:01 +0000] "GET /" 200 512 "-" "Brow"#,
            "ends within a quoted part",
        );
    }
}
