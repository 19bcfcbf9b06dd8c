//! From the named values of a line to an account, a time, and amounts of metrics.

use std::borrow::Cow;

use jiff::Timestamp;
use octroi_core::{AccountId, MetricSlug, Units};
use sha2::{Digest as _, Sha256};

use super::{instant, malformed::Malformed, zipf::Zipf};

/// The named values of a line.
pub trait Fields {
    /// The value of a column; none where the line does not have it.
    fn text(&self, column: &str) -> Option<Cow<'_, str>>;
}

/// Whose use a line is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// The account of this number, from 1.
    Rank(u32),
    /// The account that the line names.
    Named(AccountId),
}

/// How lines find their accounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accounts {
    /// Spread by a seeded choice.
    Spread(Zipf),
    /// Named in a column.
    Column(String),
}

/// What a line counts as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uses {
    /// Amounts of metrics that the mapping names.
    Columns {
        /// Each line counts one of this metric.
        count: Option<MetricSlug>,
        /// The amounts that stand in columns.
        amounts: Vec<Amount>,
    },
    /// The line names its metric itself, and may name an amount; it counts one where it does not.
    Named {
        /// The metric's column.
        metric: String,
        /// The amount's column.
        amount: String,
    },
}

/// A metric and the column of its amounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amount {
    /// What is counted.
    pub metric: MetricSlug,
    /// Where the amount stands.
    pub column: String,
}

impl std::str::FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (metric, column) = text.split_once('=').ok_or("must be METRIC=COLUMN")?;
        let metric = MetricSlug::parse(metric).map_err(|rule| format!("the metric {rule}"))?;
        if column.is_empty() {
            return Err("must be METRIC=COLUMN".to_owned());
        }
        Ok(Self {
            metric,
            column: column.to_owned(),
        })
    }
}

/// How the times of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeStyle {
    /// As ISO 8601 has them; UTC where no offset is named.
    Iso,
    /// As access logs have them.
    AccessLog,
}

/// From named values to uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The column of the time.
    pub time: String,
    /// How it is written.
    pub time_style: TimeStyle,
    /// How lines find their accounts.
    pub accounts: Accounts,
    /// What they count as.
    pub uses: Uses,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: u64,
    /// When it happened.
    pub at: Timestamp,
    /// Whose use it is.
    pub owner: Owner,
    /// The amounts above 0, each metric once.
    pub uses: Vec<(MetricSlug, Units)>,
}

impl Mapping {
    /// Reads the line of this number.
    ///
    /// # Errors
    /// [`Malformed`] for the first column that does not hold what it must.
    pub fn read(&self, number: u64, fields: &dyn Fields) -> Result<Line, Malformed> {
        let at = self.read_time(fields)?;
        let owner = match &self.accounts {
            Accounts::Spread(zipf) => Owner::Rank(zipf.choose(number)),
            Accounts::Column(column) => Owner::Named(account(&required(fields, column)?)),
        };
        Ok(Line {
            number,
            at,
            owner,
            uses: self.uses.read(fields)?,
        })
    }

    fn read_time(&self, fields: &dyn Fields) -> Result<Timestamp, Malformed> {
        let text = required(fields, &self.time)?;
        let (at, rule) = match self.time_style {
            TimeStyle::Iso => (instant::parse(&text), "is no time such as 2024-03-01T08:00:00Z"),
            TimeStyle::AccessLog => (
                instant::parse_access_log(&text),
                "is no time such as 01/Mar/2024:08:00:00 +0000",
            ),
        };
        at.ok_or_else(|| Malformed::value(&self.time, rule, &text))
    }

    /// The columns that it needs.
    pub fn columns(&self) -> Vec<&str> {
        let mut columns = vec![self.time.as_str()];
        if let Accounts::Column(column) = &self.accounts {
            columns.push(column);
        }
        match &self.uses {
            Uses::Columns { amounts, .. } => {
                columns.extend(amounts.iter().map(|amount| amount.column.as_str()))
            }
            Uses::Named { metric, amount } => columns.extend([metric.as_str(), amount.as_str()]),
        }
        columns
    }

    /// Its meaning in one line: two mappings that read a file differently have different ones.
    pub fn fingerprint(&self) -> String {
        let accounts = match &self.accounts {
            Accounts::Spread(zipf) => format!("spread {} {}", zipf.accounts(), zipf.seed()),
            Accounts::Column(column) => format!("column {column:?}"),
        };
        let uses = match &self.uses {
            Uses::Columns { count, amounts } => {
                let amounts: Vec<_> = amounts
                    .iter()
                    .map(|amount| format!("{}={:?}", amount.metric, amount.column))
                    .collect();
                format!(
                    "{} {}",
                    count.as_ref().map_or("-", MetricSlug::as_str),
                    amounts.join(" ")
                )
            }
            Uses::Named { metric, amount } => format!("named {metric:?} {amount:?}"),
        };
        format!("time {:?}; {accounts}; {uses}", self.time)
    }
}

impl Uses {
    fn read(&self, fields: &dyn Fields) -> Result<Vec<(MetricSlug, Units)>, Malformed> {
        match self {
            Self::Columns { count, amounts } => {
                let mut uses: Vec<_> = count
                    .iter()
                    .filter_map(|metric| Some((metric.clone(), one()?)))
                    .collect();
                for Amount { metric, column } in amounts {
                    let amount = whole(column, &required(fields, column)?)?;
                    if amount > Units::ZERO {
                        uses.push((metric.clone(), amount));
                    }
                }
                Ok(uses)
            }
            Self::Named { metric, amount } => {
                let name = required(fields, metric)?;
                let slug = MetricSlug::parse(&name)
                    .map_err(|_| Malformed::value(metric, "is no metric: 1 to 64 of [a-z0-9_.-]", &name))?;
                let units = match fields.text(amount) {
                    Some(text) => Some(whole(amount, &text)?),
                    None => one(),
                };
                Ok(units
                    .filter(|units| *units > Units::ZERO)
                    .map(|units| (slug, units))
                    .into_iter()
                    .collect())
            }
        }
    }
}

fn one() -> Option<Units> {
    Units::new(1).ok()
}

fn required<'a>(fields: &'a dyn Fields, column: &str) -> Result<Cow<'a, str>, Malformed> {
    fields
        .text(column)
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Malformed::missing(column))
}

fn whole(column: &str, text: &str) -> Result<Units, Malformed> {
    let rule = "is not a whole number from 0 to 9007199254740991";
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse::<u64>().ok()).flatten();
    number
        .and_then(|number| Units::new(number).ok())
        .ok_or_else(|| Malformed::value(column, rule, text))
}

/// The account that a value names: the value itself where it can be an id. Else what an id cannot hold
/// becomes `_`, and a piece of the value's hash keeps two values from becoming one account.
fn account(value: &str) -> AccountId {
    const KEPT_BYTES_MAX: usize = 100;
    if let Ok(account) = AccountId::parse(value) {
        return account;
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'-');
    let kept = value
        .bytes()
        .take(KEPT_BYTES_MAX)
        .map(|byte| if allowed(byte) { char::from(byte) } else { '_' });
    let hash = Sha256::digest(value.as_bytes());
    let id: String = kept
        .chain(['-'])
        .chain(hex::encode(hash).chars().take(8))
        .collect();
    #[expect(clippy::expect_used, reason = "at most 109 characters, all of them allowed")]
    AccountId::parse(&id).expect("at most 109 characters, all of them allowed")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Values(BTreeMap<&'static str, &'static str>);

    impl Fields for Values {
        fn text(&self, column: &str) -> Option<Cow<'_, str>> {
            self.0.get(column).map(|value| Cow::Borrowed(*value))
        }
    }

    fn metric(slug: &str) -> MetricSlug {
        MetricSlug::parse(slug).expect("a slug")
    }

    fn mapping(uses: Uses) -> Mapping {
        let accounts = Accounts::Column("who".to_owned());
        Mapping {
            time: "when".to_owned(),
            time_style: TimeStyle::Iso,
            accounts,
            uses,
        }
    }

    fn by_column() -> Mapping {
        let amounts = vec![Amount {
            metric: metric("tokens"),
            column: "n".to_owned(),
        }];
        mapping(Uses::Columns {
            count: Some(metric("requests")),
            amounts,
        })
    }

    fn by_name() -> Mapping {
        mapping(Uses::Named {
            metric: "what".to_owned(),
            amount: "n".to_owned(),
        })
    }

    fn check(
        mapping: &Mapping,
        values: &[(&'static str, &'static str)],
        expected: Result<&[(&str, u64)], &str>,
    ) {
        let mut fields = BTreeMap::from([
            ("who", "acme"),
            ("when", "2024-03-01T08:00:00Z"),
            ("what", "tokens"),
        ]);
        fields.extend(values.iter().copied());
        let uses = mapping
            .read(7, &Values(fields))
            .map(|line| line.uses)
            .map_err(|problem| problem.to_string());
        let uses: Result<Vec<_>, _> = uses.map(|uses| {
            uses.into_iter()
                .map(|(metric, units)| (metric.to_string(), units.get()))
                .collect()
        });
        let expected = expected
            .map(|uses| {
                uses.iter()
                    .map(|(metric, units)| ((*metric).to_owned(), *units))
                    .collect()
            })
            .map_err(str::to_owned);
        assert_eq!(uses, expected, "{values:?}");
    }

    #[test]
    fn amounts_become_uses_and_nothing_is_no_use() {
        check(
            &by_column(),
            &[("n", "12")],
            Ok(&[("requests", 1), ("tokens", 12)]),
        );
        check(&by_column(), &[("n", "0")], Ok(&[("requests", 1)]));
        check(
            &by_column(),
            &[("n", "007")],
            Ok(&[("requests", 1), ("tokens", 7)]),
        );
        check(
            &by_column(),
            &[("n", "9007199254740991")],
            Ok(&[("requests", 1), ("tokens", (1 << 53) - 1)]),
        );
        check(&by_name(), &[("n", "12")], Ok(&[("tokens", 12)]));
        check(&by_name(), &[], Ok(&[("tokens", 1)]));
        check(&by_name(), &[("n", "0")], Ok(&[]));
    }

    #[test]
    fn values_that_are_not_what_they_must_be_are_refused() {
        let whole =
            |value: &str| format!("has a n that is not a whole number from 0 to 9007199254740991: {value:?}");
        for value in [
            "-1",
            "1.5",
            "1.0",
            "1e3",
            "+1",
            "9007199254740992",
            "99999999999999999999",
            "x",
            "0x1",
            "٣",
        ] {
            check(&by_column(), &[("n", value)], Err(&whole(value)));
        }
        check(&by_column(), &[], Err("has no n"));
        check(&by_column(), &[("n", "")], Err("has no n"));
        check(&by_column(), &[("n", "1"), ("who", "")], Err("has no who"));
        check(
            &by_column(),
            &[("n", "1"), ("when", "soon\u{1b}[2J")],
            Err(r#"has a when that is no time such as 2024-03-01T08:00:00Z: "soon\u{1b}[2J""#),
        );
        check(
            &by_name(),
            &[("what", "Tokens!")],
            Err(r#"has a what that is no metric: 1 to 64 of [a-z0-9_.-]: "Tokens!""#),
        );
    }

    #[test]
    fn an_account_is_what_the_line_says_where_it_can_be() {
        assert_eq!(account("2001:db8::1").as_str(), "2001:db8::1");
        assert_eq!(account("acme").as_str(), "acme");
        assert_eq!(account("a b").as_str(), "a_b-c8687a08");
        assert_ne!(account("a b"), account("a/b"), "two values stay two accounts");
    }

    #[test]
    fn a_mapping_is_told_apart_by_what_it_reads() {
        assert_ne!(by_column().fingerprint(), by_name().fingerprint());
        let spread = |seed| Mapping {
            accounts: Accounts::Spread(Zipf::new(3, seed)),
            ..by_column()
        };
        assert_ne!(spread(1).fingerprint(), spread(2).fingerprint());
        assert_eq!(spread(1).fingerprint(), spread(1).fingerprint());
        assert_eq!(by_column().columns(), ["when", "who", "n"]);
    }

    #[test]
    fn amounts_are_given_as_metric_and_column() {
        let amount: Amount = "llm.tokens_in=Context Tokens"
            .parse()
            .expect("a metric and a column");
        assert_eq!(
            (amount.metric.as_str(), amount.column.as_str()),
            ("llm.tokens_in", "Context Tokens")
        );
        for text in ["tokens", "tokens=", "=n", "Tokens=n"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_value_names_an_account(value in "\\PC{1,200}") {
            let id = account(&value);
            prop_assert!(AccountId::parse(&value).is_err() || id.as_str() == value);
        }
    }
}
