//! The contract's messages and the domain's types, both ways.

use jiff::tz::TimeZone;
use octroi_core::{AccountId, Violations};
use octroi_kit::{config::Secret, convert::to_proto_time};
use octroi_proto::account::v1 as proto;

use crate::{
    domain::{
        self,
        account::{Account, AccountChange, AccountSettings, AccountState, Language, NAME_CHARACTERS_MAX},
        api_key::{self, ApiKey},
        email::Email,
        member::{Member, Role},
        password,
        throttle::ClientAddress,
    },
    error::Error,
    service::{NewAccount, NewApiKey, OpenSession, SignIn, SignUp},
};

/// The zone of who names none.
const DEFAULT_ZONE: &str = "UTC";
const ZONE_BYTES_MAX: usize = 64;
/// Files of the zone database that are no zones of the world.
const NO_ZONES: [&str; 3] = ["Factory", "localtime", "posixrules"];

const ONE_OF: &str = "must be one of the named values";

/// The zone of this IANA name, as the zone database writes it. A POSIX string or an offset is none.
pub(crate) fn from_proto_zone(name: &str) -> Result<String, &'static str> {
    const RULE: &str = "must be an IANA time zone, such as Europe/Paris";
    if name.len() > ZONE_BYTES_MAX || NO_ZONES.iter().any(|no_zone| no_zone.eq_ignore_ascii_case(name)) {
        return Err(RULE);
    }
    let zone = TimeZone::get(name).map_err(|_| RULE)?;
    zone.iana_name().map(str::to_owned).ok_or(RULE)
}

fn from_proto_language(language: i32) -> Result<Option<Language>, &'static str> {
    match proto::Language::try_from(language).map_err(|_| ONE_OF)? {
        proto::Language::Unspecified => Ok(None),
        proto::Language::English => Ok(Some(Language::English)),
        proto::Language::French => Ok(Some(Language::French)),
    }
}

fn to_proto_language(language: Language) -> i32 {
    match language {
        Language::English => proto::Language::English,
        Language::French => proto::Language::French,
    }
    .into()
}

fn from_proto_settings(zone: &str, language: i32, violations: &mut Violations) -> Option<AccountSettings> {
    let zone = violations.take(
        "zone",
        from_proto_zone(if zone.is_empty() { DEFAULT_ZONE } else { zone }),
    );
    let language = violations.take("language", from_proto_language(language));
    Some(AccountSettings {
        zone: zone?,
        language: language?.unwrap_or_default(),
    })
}

/// A name that may be left out: none where it is empty.
fn from_proto_name(name: &str, violations: &mut Violations) -> Option<String> {
    if name.is_empty() {
        return None;
    }
    violations.take("display_name", domain::name(name, NAME_CHARACTERS_MAX))
}

/// The account that a request names.
pub(crate) fn from_proto_account_id(account_id: &str) -> Result<AccountId, Error> {
    let mut violations = Violations::default();
    let account_id = violations.take("account_id", AccountId::parse(account_id));
    account_id.ok_or_else(|| violations.into())
}

/// The most accounts of a batch.
const BATCH_ACCOUNTS_MAX: usize = 1_000;

/// The accounts that a batch asks for.
pub(crate) fn from_proto_account_ids(account_ids: &[String]) -> Result<Vec<AccountId>, Error> {
    let mut violations = Violations::default();
    if account_ids.is_empty() || account_ids.len() > BATCH_ACCOUNTS_MAX {
        violations.add(
            "account_ids",
            format!("must hold 1 to {BATCH_ACCOUNTS_MAX} accounts"),
        );
        return Err(violations.into());
    }
    let parsed = (account_ids.iter().enumerate())
        .filter_map(|(index, id)| violations.take(format!("account_ids[{index}]"), AccountId::parse(id)));
    let accounts = parsed.collect();
    if violations.0.is_empty() {
        Ok(accounts)
    } else {
        Err(violations.into())
    }
}

/// An account to be created.
pub(crate) fn from_proto_upsert(request: &proto::UpsertAccountRequest) -> Result<NewAccount, Error> {
    let mut violations = Violations::default();
    let account_id = match request.account_id.as_str() {
        "" => None,
        text => violations.take("account_id", AccountId::parse(text)),
    };
    let display_name = from_proto_name(&request.display_name, &mut violations);
    let settings = from_proto_settings(&request.zone, request.language, &mut violations);
    match settings {
        Some(settings) if violations.0.is_empty() => Ok(NewAccount {
            account_id,
            display_name,
            settings,
        }),
        _ => Err(violations.into()),
    }
}

/// What is to be changed of an account.
pub(crate) fn from_proto_update(
    request: &proto::UpdateAccountRequest,
) -> Result<(AccountId, AccountChange), Error> {
    let mut violations = Violations::default();
    let account_id = violations.take("account_id", AccountId::parse(&request.account_id));
    let name = request
        .display_name
        .as_deref()
        .map(|name| domain::name(name, NAME_CHARACTERS_MAX));
    let display_name = violations.take("display_name", name.transpose()).flatten();
    let zone = violations
        .take("zone", request.zone.as_deref().map(from_proto_zone).transpose())
        .flatten();
    let language = request
        .language
        .map(|language| from_proto_language(language)?.ok_or(ONE_OF));
    let language = violations.take("language", language.transpose()).flatten();
    match account_id {
        Some(id) if violations.0.is_empty() => Ok((
            id,
            AccountChange {
                display_name,
                zone,
                language,
            },
        )),
        _ => Err(violations.into()),
    }
}

/// Somebody who signs up.
pub(crate) fn from_proto_sign_up(request: proto::SignUpRequest) -> Result<SignUp, Error> {
    let mut violations = Violations::default();
    let email = violations.take("email", Email::parse(&request.email));
    // What the password may not be depends on the address, so both are told of at once only here.
    if let Some(email) = &email {
        violations.take("password", password::check(&request.password, email));
    }
    let display_name = from_proto_name(&request.display_name, &mut violations);
    let settings = from_proto_settings(&request.zone, request.language, &mut violations);
    match (email, settings) {
        (Some(email), Some(settings)) if violations.0.is_empty() => Ok(SignUp {
            email,
            password: Secret::new(request.password),
            display_name,
            settings,
            client_address: ClientAddress::parse(&request.client_address),
        }),
        _ => Err(violations.into()),
    }
}

/// Somebody who signs in. A short password is wrong like any other; a long one is not worth hashing.
pub(crate) fn from_proto_sign_in(request: proto::SignInRequest) -> Result<SignIn, Error> {
    let mut violations = Violations::default();
    let email = violations.take("email", Email::parse(&request.email));
    if request.password.len() > password::BYTES_MAX {
        violations.add(
            "password",
            format!("must be at most {} bytes", password::BYTES_MAX),
        );
    }
    match email {
        Some(email) if violations.0.is_empty() => Ok(SignIn {
            email,
            password: Secret::new(request.password),
            client_address: ClientAddress::parse(&request.client_address),
        }),
        _ => Err(violations.into()),
    }
}

/// A key to be made.
pub(crate) fn from_proto_create_api_key(request: &proto::CreateApiKeyRequest) -> Result<NewApiKey, Error> {
    let mut violations = Violations::default();
    let account_id = violations.take("account_id", AccountId::parse(&request.account_id));
    let label = violations.take(
        "label",
        domain::name(&request.label, api_key::LABEL_CHARACTERS_MAX),
    );
    let scopes = violations.take("scopes", api_key::scopes(&request.scopes));
    match (account_id, label, scopes) {
        (Some(account_id), Some(label), Some(scopes)) => Ok(NewApiKey {
            account_id,
            label,
            scopes,
        }),
        _ => Err(violations.into()),
    }
}

/// An account, on the wire.
pub(crate) fn to_proto_account(account: &Account) -> proto::Account {
    let state = match account.state {
        AccountState::Active => proto::AccountState::Active,
        AccountState::Closed => proto::AccountState::Closed,
    };
    proto::Account {
        account_id: account.account_id.to_string(),
        display_name: account.display_name.clone(),
        zone: account.settings.zone.clone(),
        language: to_proto_language(account.settings.language),
        state: state.into(),
        create_time: Some(to_proto_time(account.created_at)),
    }
}

/// A member, on the wire.
pub(crate) fn to_proto_member(member: &Member) -> proto::Member {
    let role = match member.role {
        Role::Owner => proto::Role::Owner,
        Role::Member => proto::Role::Member,
        Role::Operator => proto::Role::Operator,
    };
    proto::Member {
        member_id: member.member_id.to_string(),
        account_id: member.account_id.to_string(),
        email: member.email.as_given().to_owned(),
        display_name: member.display_name.clone(),
        role: role.into(),
        language: to_proto_language(member.language),
    }
}

/// A session, on the wire.
pub(crate) fn to_proto_session(session: &OpenSession) -> proto::Session {
    let signed_in = &session.signed_in;
    proto::Session {
        member: Some(to_proto_member(&signed_in.member)),
        account: Some(to_proto_account(&signed_in.account)),
        csrf_token: session.csrf_token.clone(),
        expire_time: Some(to_proto_time(signed_in.lifetime.expires_at)),
    }
}

/// A key, on the wire.
pub(crate) fn to_proto_api_key(key: &ApiKey) -> proto::ApiKey {
    proto::ApiKey {
        key_id: key.key_id.to_string(),
        account_id: key.account_id.to_string(),
        label: key.label.clone(),
        prefix: key.prefix.clone(),
        scopes: key.scopes.iter().map(|scope| scope.as_str().to_owned()).collect(),
        create_time: Some(to_proto_time(key.created_at)),
        revoke_time: key.revoked_at.map(to_proto_time),
    }
}

#[cfg(test)]
mod tests {
    use octroi_core::ServiceError as _;

    use super::*;

    fn fields(error: &Error) -> Vec<String> {
        error
            .violations()
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    #[test]
    fn only_iana_names_are_zones() {
        for (name, expected) in [
            ("Europe/Paris", Some("Europe/Paris")),
            ("europe/paris", Some("Europe/Paris")),
            (
                "America/Argentina/Buenos_Aires",
                Some("America/Argentina/Buenos_Aires"),
            ),
            ("UTC", Some("UTC")),
            ("Etc/GMT-2", Some("Etc/GMT-2")),
            ("", None),
            ("Mars/Olympus", None),
            ("+02:00", None),
            ("CET-1CEST,M3.5.0,M10.5.0/3", None),
            ("Etc/Unknown", None),
            ("Factory", None),
            ("localtime", None),
            ("posix/Europe/Paris", None),
            ("right/Europe/Paris", None),
            ("../../etc/passwd", None),
            ("Europe/Paris\0", None),
        ] {
            assert_eq!(from_proto_zone(name).ok().as_deref(), expected, "{name:?}");
        }
    }

    #[test]
    fn all_violations_of_a_request_are_told_at_once() {
        let request = proto::SignUpRequest {
            email: "lea@ateliernord.fr".into(),
            password: "short".into(),
            display_name: "a\0b".into(),
            zone: "Mars".into(),
            language: 9,
            client_address: String::new(),
        };
        let error = from_proto_sign_up(request).expect_err("violations");
        assert_eq!(fields(&error), ["password", "display_name", "zone", "language"]);
        let request = proto::CreateApiKeyRequest {
            scopes: vec!["admin".into()],
            ..Default::default()
        };
        let error = from_proto_create_api_key(&request).expect_err("violations");
        assert_eq!(fields(&error), ["account_id", "label", "scopes"]);
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let new = from_proto_upsert(&proto::UpsertAccountRequest::default()).expect("defaults");
        assert_eq!((new.account_id, new.display_name), (None, None));
        assert_eq!(
            new.settings,
            AccountSettings {
                zone: "UTC".into(),
                language: Language::English
            }
        );
    }

    #[test]
    fn a_change_leaves_what_is_absent_and_refuses_what_is_empty() {
        let request = |name: Option<&str>, language| proto::UpdateAccountRequest {
            account_id: "acme".into(),
            display_name: name.map(str::to_owned),
            zone: None,
            language,
        };
        let (_, change) = from_proto_update(&request(None, None)).expect("nothing to change");
        assert_eq!(change, AccountChange::default());
        let error = from_proto_update(&request(Some(""), Some(0))).expect_err("empty values");
        assert_eq!(fields(&error), ["display_name", "language"]);
    }

    #[test]
    fn signing_in_refuses_only_what_is_not_worth_hashing() {
        let request = |password: &str| proto::SignInRequest {
            email: "lea@ateliernord.fr".into(),
            password: password.into(),
            client_address: String::new(),
        };
        assert!(from_proto_sign_in(request("short")).is_ok());
        assert!(from_proto_sign_in(request(&"x".repeat(1024))).is_ok());
        let error = from_proto_sign_in(request(&"x".repeat(1025))).expect_err("too long");
        assert_eq!(fields(&error), ["password"]);
    }
}
