use clap::Parser as _;

use super::{super::mapping::Owner, *};

#[derive(Debug, clap::Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn args(options: &str) -> Args {
    let words = ["replay", "file"]
        .into_iter()
        .chain(options.split_ascii_whitespace());
    Command::try_parse_from(words).expect("good options").args
}

fn layout(text: &str, options: &str) -> anyhow::Result<Layout> {
    Layout::of(text.lines().next().unwrap_or_default(), &args(options))
}

/// Each line as `number account time metric=amount …`, or as `number problem`.
fn read(text: &[u8], options: &str) -> Vec<String> {
    let first_line = Lines::new(text)
        .next()
        .expect("a readable slice")
        .expect("a line")
        .1
        .expect("text")
        .to_owned();
    let layout = Layout::of(&first_line, &args(options)).expect("a layout");
    let mut source = Source::new(text, &layout);
    let mut found = Vec::new();
    while let Some((number, line)) = source.next().expect("a readable slice") {
        found.push(match line {
            Ok(line) => {
                let owner = match line.owner {
                    Owner::Rank(rank) => rank.to_string(),
                    Owner::Named(account) => account.to_string(),
                };
                let uses: Vec<_> = line
                    .uses
                    .iter()
                    .map(|(metric, units)| format!("{metric}={units}"))
                    .collect();
                format!("{number} {owner} {} {}", line.at, uses.join(" "))
                    .trim_end()
                    .to_owned()
            }
            Err(problem) => format!("{number} {problem}"),
        });
    }
    found
}

fn check(text: &[u8], options: &str, expected: &[&str]) {
    assert_eq!(
        read(text, options),
        expected,
        "{options} {:?}",
        String::from_utf8_lossy(text)
    );
}

fn check_refused(text: &str, options: &str, expected: &str) {
    let problem = layout(text, options).expect_err(text).to_string();
    assert!(problem.contains(expected), "{problem}");
}

const KNOWN: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";

#[test]
fn the_known_header_needs_no_options() {
    let text = format!("{KNOWN}\n2024-03-01 08:00:00.1234567,10,3\n2024-03-01 08:00:01,0,0\n");
    check(
        text.as_bytes(),
        "--accounts 1",
        &[
            "2 1 2024-03-01T08:00:00.123456Z llm.requests=1 llm.tokens_in=10 llm.tokens_out=3",
            "3 1 2024-03-01T08:00:01Z llm.requests=1",
        ],
    );
    let layout = layout(KNOWN, "").expect("a layout");
    assert_eq!(layout.mapping.accounts, Accounts::Spread(Zipf::new(300, 1)));
}

#[test]
fn malformed_lines_of_csv_are_told_by_number() {
    let cases: &[(&[u8], &str)] = &[
        (b"2024-03-01 08:00:00,10", "has 2 columns, the header has 3"),
        (b"2024-03-01 08:00:00,10,3,4", "has 4 columns, the header has 3"),
        (b"2024-03-01 08:00:00,10,", "has no GeneratedTokens"),
        (
            b"2024-03-01 08:00:00,-1,3",
            "has a ContextTokens that is not a whole number from 0 to 9007199254740991: \"-1\"",
        ),
        (
            b"2024-03-01 08:00:00,1.5,3",
            "has a ContextTokens that is not a whole number from 0 to 9007199254740991: \"1.5\"",
        ),
        (
            b"2024-03-01 8 o'clock,1,3",
            "has a TIMESTAMP that is no time such as 2024-03-01T08:00:00Z: \"2024-03-01 8 o'clock\"",
        ),
        (b",1,3", "has no TIMESTAMP"),
        (b"2024-03-01 08:00:00,\xff,3", "is not UTF-8"),
        (b"\"2024-03-01 08:00:00,1,3", "has a quote that is not closed"),
        (
            b"2024-03-01 08:00:00,1\"0,3",
            "has a quote within a value that is not quoted",
        ),
    ];
    for (line, problem) in cases {
        for end in [&b"\n"[..], b"\r\n"] {
            let lines = [KNOWN.as_bytes(), line, b"", b"2024-03-01 08:00:00,10,3", line];
            let expected = [
                format!("2 {problem}"),
                "4 1 2024-03-01T08:00:00Z llm.requests=1 llm.tokens_in=10 llm.tokens_out=3".to_owned(),
                format!("5 {problem}"),
            ];
            let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
            // The last line has no end, as when a file was cut.
            check(&lines.join(end), "--accounts 1", &expected);
        }
    }
}

#[test]
fn quoted_and_reordered_columns_are_found_by_name() {
    let text = b"\xef\xbb\xbf\"GeneratedTokens\",note,TIMESTAMP,ContextTokens\r\n\"3\",\"a, b\",2024-03-01T08:00:00Z,10\r\n";
    check(
        text,
        "--accounts 1",
        &["2 1 2024-03-01T08:00:00Z llm.requests=1 llm.tokens_in=10 llm.tokens_out=3"],
    );
}

#[test]
fn a_header_alone_has_no_lines() {
    check(KNOWN.as_bytes(), "", &[]);
    check(format!("{KNOWN}\r\n").as_bytes(), "", &[]);
}

#[test]
fn columns_are_mapped_by_options() {
    let text = b"when,who,calls,size\n2024-03-01 08:00:00,acme,2,300\n2024-03-01 08:00:00,,2,300\n";
    check(
        text,
        "--time-column when --account-column who --metric api.requests=calls --metric api.bytes=size --count seen",
        &[
            "2 acme 2024-03-01T08:00:00Z seen=1 api.requests=2 api.bytes=300",
            "3 has no who",
        ],
    );
    check_refused("when,n", "", "no header that is known");
    check_refused("when,n", "--metric a=n", "--time-column");
    check_refused("time,n", "--metric a=m", "no column \"m\"");
    check_refused("time,n", "--metric a=n --account-column who", "no column \"who\"");
    check_refused("time,n,n", "--metric a=n", "more than once");
    check_refused("time,n,m", "--metric a=n --metric a=m", "named twice");
    check_refused("time,n", "--metric a=n --count a", "named twice");
    check_refused("\"time,n", "--metric a=n", "the header has a quote");
}

#[test]
fn cloud_events_count_as_their_type() {
    let event = |rest: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"1","source":"/app","type":"llm.tokens_in","subject":"acme"{rest}}}"#
        )
    };
    let text = [
        event(r#","time":"2024-03-01T08:00:00Z","data":{"amount":12}"#),
        event(r#","time":"2024-03-01T08:00:00+01:00""#),
        event(""),
        event(r#","time":"2024-03-01T08:00:00Z","data":{"amount":1.5}"#),
        event(r#","time":"2024-03-01T08:00:00Z","data":{"amount":"#),
    ];
    let expected = [
        "1 acme 2024-03-01T08:00:00Z llm.tokens_in=12",
        "2 acme 2024-03-01T07:00:00Z llm.tokens_in=1",
        "3 has no time",
        "4 has a data.amount that is not a whole number from 0 to 9007199254740991: \"1.5\"",
        "5 is not JSON",
    ];
    check(text.join("\n").as_bytes(), "", &expected);
    check(
        text[0].as_bytes(),
        "--count llm.requests --metric llm.tokens_out=data.amount --accounts 1",
        &["1 1 2024-03-01T08:00:00Z llm.requests=1 llm.tokens_out=12"],
    );
}

#[test]
fn access_logs_count_requests_and_bytes_of_the_client() {
    let text = concat!(
        "2001:db8::1 - anna [01/Mar/2024:08:00:01 +0100] \"GET /a HTTP/1.1\" 200 512 \"-\" \"Browser/1\"\n",
        "192.0.2.7 - - [01/Mar/2024:08:00:02 +0100] \"GET /\\\"b HTTP/1.1\" 304 - \"-\" \"-\"\n",
        "192.0.2.7 - - [01/Mrz/2024:08:00:02 +0100] \"GET / HTTP/1.1\" 200 5 \"-\" \"-\"\n",
        "192.0.2.7 - - [01/Mar/2024:08:00:02 +0100] \"GET / HTTP/1.1\" 200 5 \"-",
    );
    let expected = [
        "1 2001:db8::1 2024-03-01T07:00:01Z api.requests=1 api.bytes=512",
        "2 192.0.2.7 2024-03-01T07:00:02Z api.requests=1",
        "3 has a time that is no time such as 01/Mar/2024:08:00:00 +0000: \"01/Mrz/2024:08:00:02 +0100\"",
        "4 ends within a quoted part",
    ];
    check(text.as_bytes(), "", &expected);
    let users = ["1 anna 2024-03-01T07:00:01Z seen=1", "2 has no user"];
    assert_eq!(
        read(text.as_bytes(), "--account-column user --count seen")[..2],
        users
    );
    check_refused(text, "--metric a=size", "an access log has no column \"size\"");
}
