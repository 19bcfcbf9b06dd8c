//! Why a line cannot be used.

use std::fmt;

/// How much of a value a message repeats.
const SHOWN_CHARACTERS_MAX: usize = 40;

/// Why a line cannot be used. Its text ends the sentence "line 17 …".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Bytes that are not UTF-8.
    NotUtf8,
    /// Longer than a line may be.
    TooLong {
        /// The most bytes.
        bytes_max: usize,
    },
    /// Not written as its format says.
    Syntax(&'static str),
    /// Another number of columns than the header.
    Columns {
        /// What the line has.
        found: usize,
        /// What the header has.
        expected: usize,
    },
    /// A column or field that is needed is not there, or empty.
    Missing {
        /// Which.
        column: String,
    },
    /// A value that cannot be what it must be.
    Value {
        /// The column.
        column: String,
        /// What it must be.
        rule: &'static str,
        /// What it is, shortened.
        value: String,
    },
}

impl Malformed {
    /// A missing column.
    pub fn missing(column: &str) -> Self {
        Self::Missing {
            column: column.to_owned(),
        }
    }

    /// A value that breaks a rule.
    pub fn value(column: &str, rule: &'static str, value: &str) -> Self {
        let mut shown: String = value.chars().take(SHOWN_CHARACTERS_MAX).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        Self::Value {
            column: column.to_owned(),
            rule,
            value: shown,
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("is not UTF-8"),
            Self::TooLong { bytes_max } => write!(f, "is longer than {bytes_max} bytes"),
            Self::Syntax(rule) => f.write_str(rule),
            Self::Columns { found, expected } => write!(f, "has {found} columns, the header has {expected}"),
            Self::Missing { column } => write!(f, "has no {column}"),
            // Escaped, so that a file cannot write control characters to a terminal.
            Self::Value { column, rule, value } => write!(f, "has a {column} that {rule}: {value:?}"),
        }
    }
}
