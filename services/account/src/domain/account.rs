//! Who consumes and pays.

use jiff::Timestamp;
use octroi_core::{AccountId, named};

/// The most characters of an account's or a member's name.
pub const NAME_CHARACTERS_MAX: usize = 200;

/// Whether an account may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountState {
    /// In use.
    Active,
    /// Closed for good.
    Closed,
}

named!(AccountState { Active => "active", Closed => "closed" });

/// The language in which people are written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// French.
    French,
}

named!(Language { English => "en", French => "fr" });

/// What an account chose, as far as services act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSettings {
    /// The IANA name of the zone of its HOUR and DAY windows.
    pub zone: String,
    /// The language in which its people are written to.
    pub language: Language,
}

/// Who consumes and pays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub account_id: AccountId,
    /// The name people read.
    pub display_name: String,
    /// What it chose.
    pub settings: AccountSettings,
    /// Whether it may be used.
    pub state: AccountState,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What is to be changed of an account; none leaves a part as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// The new name.
    pub display_name: Option<String>,
    /// The IANA name of the new zone.
    pub zone: Option<String>,
    /// The new language.
    pub language: Option<Language>,
}

impl Account {
    /// The account after `change`, and the names of the parts that differ.
    #[must_use]
    pub fn changed(&self, change: AccountChange) -> (Self, Vec<&'static str>) {
        let after = Self {
            display_name: change.display_name.unwrap_or_else(|| self.display_name.clone()),
            settings: AccountSettings {
                zone: change.zone.unwrap_or_else(|| self.settings.zone.clone()),
                language: change.language.unwrap_or(self.settings.language),
            },
            ..self.clone()
        };
        let parts = [
            ("display_name", after.display_name != self.display_name),
            ("zone", after.settings.zone != self.settings.zone),
            ("language", after.settings.language != self.settings.language),
        ];
        let changed = parts
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(part, _)| part)
            .collect();
        (after, changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_names_only_what_differs() {
        let account = Account {
            account_id: AccountId::parse("acme").expect("an id"),
            display_name: "Acme".into(),
            settings: AccountSettings {
                zone: "UTC".into(),
                language: Language::English,
            },
            state: AccountState::Active,
            created_at: Timestamp::UNIX_EPOCH,
        };
        let check = |change: AccountChange, expected: &[&str]| {
            let (after, changed) = account.changed(change);
            assert_eq!(changed, expected);
            assert_eq!(after == account, expected.is_empty());
        };
        check(AccountChange::default(), &[]);
        check(
            AccountChange {
                zone: Some("UTC".into()),
                ..AccountChange::default()
            },
            &[],
        );
        check(
            AccountChange {
                zone: Some("Europe/Paris".into()),
                ..AccountChange::default()
            },
            &["zone"],
        );
        check(
            AccountChange {
                display_name: Some("A".into()),
                zone: None,
                language: Some(Language::French),
            },
            &["display_name", "language"],
        );
    }

    #[test]
    fn every_value_is_found_by_its_name() {
        for state in AccountState::ALL {
            assert_eq!(AccountState::from_name(state.as_str()), Some(state));
        }
        for language in Language::ALL {
            assert_eq!(Language::from_name(language.as_str()), Some(language));
        }
        assert_eq!(Language::from_name("de"), None);
    }
}
