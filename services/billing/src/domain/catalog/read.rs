//! Reads the tables of a document key by key, so that every problem is told with its own path.

use octroi_core::Violations;
use serde::de::DeserializeOwned;
use serde_yaml_ng::{Mapping, Value};

/// One table of the document. Keys that nobody took are refused at the end.
pub(super) struct Table {
    path: String,
    entries: Mapping,
}

impl Table {
    /// The table at `path`; none where something else stands there.
    pub(super) fn open(path: &str, value: Value, violations: &mut Violations) -> Option<Self> {
        let Value::Mapping(entries) = value else {
            violations.add(path, "must be a table of keys and values");
            return None;
        };
        Some(Self {
            path: path.to_owned(),
            entries,
        })
    }

    /// The path of a key of this table.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes that `key` breaks `rule`.
    pub(super) fn refuse(&self, key: &str, rule: impl Into<String>, violations: &mut Violations) {
        violations.add(self.path_of(key), rule);
    }

    /// What stands at `key`; nothing where the key is absent or empty.
    pub(super) fn raw(&mut self, key: &str) -> Option<Value> {
        self.entries.remove(key).filter(|value| !value.is_null())
    }

    /// A value that must be there.
    pub(super) fn required<T: DeserializeOwned>(
        &mut self,
        key: &str,
        violations: &mut Violations,
    ) -> Option<T> {
        let Some(value) = self.raw(key) else {
            self.refuse(key, "is required", violations);
            return None;
        };
        self.read(key, value, violations)
    }

    /// A value that may be absent: none where what stands there cannot be read.
    pub(super) fn optional<T: DeserializeOwned>(
        &mut self,
        key: &str,
        violations: &mut Violations,
    ) -> Option<Option<T>> {
        match self.raw(key) {
            None => Some(None),
            Some(value) => self.read(key, value, violations).map(Some),
        }
    }

    fn read<T: DeserializeOwned>(&self, key: &str, value: Value, violations: &mut Violations) -> Option<T> {
        violations.take(self.path_of(key), serde_yaml_ng::from_value(value))
    }

    /// A text that must be there, read by `parse`.
    pub(super) fn parsed<T, E: std::fmt::Display>(
        &mut self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        violations: &mut Violations,
    ) -> Option<T> {
        let text: String = self.required(key, violations)?;
        violations.take(self.path_of(key), parse(&text))
    }

    /// A list of at most `length_max` values, with the path of each; empty where the key is absent.
    pub(super) fn list(
        &mut self,
        key: &str,
        length_max: usize,
        violations: &mut Violations,
    ) -> Vec<(String, Value)> {
        let list: Vec<Value> = self.optional(key, violations).flatten().unwrap_or_default();
        if list.len() > length_max {
            self.refuse(key, format!("must hold at most {length_max}"), violations);
        }
        let path = self.path_of(key);
        list.into_iter()
            .take(length_max)
            .enumerate()
            .map(|(index, value)| (format!("{path}[{index}]"), value))
            .collect()
    }

    /// The names that people read, in English and French.
    pub(super) fn names(&mut self, violations: &mut Violations) -> Option<(String, String)> {
        let Some(value) = self.raw("name") else {
            self.refuse("name", "is required", violations);
            return None;
        };
        let mut table = Self::open(&self.path_of("name"), value, violations)?;
        let en = table.text("en", 100, violations);
        let fr = table.text("fr", 100, violations);
        table.finish(violations);
        Some((en?, fr?))
    }

    /// A text for people that must be there.
    pub(super) fn text(
        &mut self,
        key: &str,
        length_max: usize,
        violations: &mut Violations,
    ) -> Option<String> {
        let text: String = self.required(key, violations)?;
        let printable = !text.chars().any(char::is_control);
        if text.trim().is_empty() || text.chars().count() > length_max || !printable {
            self.refuse(
                key,
                format!("must be 1 to {length_max} printable characters"),
                violations,
            );
            return None;
        }
        Some(text)
    }

    /// Leaves the other keys unjudged: without a key that is broken nobody knows what they mean.
    pub(super) fn leave_rest(&mut self) {
        self.entries.clear();
    }

    /// Refuses the keys that nobody took.
    pub(super) fn finish(self, violations: &mut Violations) {
        for key in self.entries.keys() {
            let key = key
                .as_str()
                .map_or_else(|| "(a key that is no text)".to_owned(), ToOwned::to_owned);
            violations.add(self.path_of(&key), "is no key that is known here");
        }
    }
}
