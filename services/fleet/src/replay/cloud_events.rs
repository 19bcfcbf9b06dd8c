//! One CloudEvent 1.0 in JSON, as a line of a file holds it.
//!
//! Its columns are the attributes, such as `subject`, and members of its data by their path, such as
//! `data.tokens.in`.

use std::borrow::Cow;

use serde_json::Value;

use super::{malformed::Malformed, mapping::Fields};

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event(Value);

impl Event {
    /// Reads a line and checks what every CloudEvent has.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(line: &str) -> Result<Self, Malformed> {
        let value: Value = serde_json::from_str(line).map_err(|_| Malformed::Syntax("is not JSON"))?;
        if !value.is_object() {
            return Err(Malformed::Syntax("is not a JSON object"));
        }
        for attribute in ["specversion", "id", "source", "type"] {
            match value.get(attribute).and_then(Value::as_str) {
                Some("") | None => return Err(Malformed::missing(attribute)),
                Some(version) if attribute == "specversion" && version != "1.0" => {
                    return Err(Malformed::value(attribute, "is not 1.0", version));
                }
                Some(_) => {}
            }
        }
        Ok(Self(value))
    }
}

impl Fields for Event {
    fn text(&self, column: &str) -> Option<Cow<'_, str>> {
        let value = match column.strip_prefix("data.") {
            Some(path) => path
                .split('.')
                .try_fold(self.0.get("data")?, |value, name| value.get(name))?,
            None => self.0.get(column)?,
        };
        match value {
            Value::Null => None,
            Value::String(text) => Some(Cow::Borrowed(text)),
            // Numbers keep their spelling, so that 1.0 and 1e3 are seen for what they are.
            other => Some(Cow::Owned(other.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"specversion":"1.0","id":"7","source":"/app","type":"llm.requests","subject":"acme",
        "time":"2024-03-01T08:00:00Z","data":{"amount":3,"tokens":{"in":12,"share":0.5,"note":null}}}"#;

    fn check(column: &str, expected: Option<&str>) {
        let event = Event::parse(GOOD).expect("a good event");
        assert_eq!(event.text(column).as_deref(), expected, "{column}");
    }

    #[test]
    fn attributes_and_data_are_found_by_path() {
        check("subject", Some("acme"));
        check("data.amount", Some("3"));
        check("data.tokens.in", Some("12"));
        check("data.tokens.share", Some("0.5"));
        check("data.tokens.note", None);
        check("data.tokens.out", None);
        check("data.amount.more", None);
        check("amount", None);
    }

    #[test]
    fn what_is_no_cloud_event_is_refused() {
        let refused = |line: &str| Event::parse(line).expect_err(line).to_string();
        assert_eq!(refused("{"), "is not JSON");
        assert_eq!(refused("[1]"), "is not a JSON object");
        assert_eq!(refused("{}"), "has no specversion");
        assert_eq!(
            refused(r#"{"specversion":"0.3","id":"1","source":"s","type":"t"}"#),
            r#"has a specversion that is not 1.0: "0.3""#
        );
        assert_eq!(
            refused(r#"{"specversion":"1.0","id":"","source":"s","type":"t"}"#),
            "has no id"
        );
        assert_eq!(
            refused(r#"{"specversion":"1.0","id":1,"source":"s","type":"t"}"#),
            "has no id"
        );
        assert_eq!(
            refused(r#"{"specversion":"1.0","id":"1","type":"t"}"#),
            "has no source"
        );
        assert_eq!(
            refused(r#"{"specversion":"1.0","id":"1","source":"s"}"#),
            "has no type"
        );
    }
}
