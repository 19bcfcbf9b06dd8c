//! What more than one route writes: words for the enums of the contracts, times, limits and decisions.

use jiff::Timestamp;
use octroi_core::Violations;
use octroi_kit::convert::from_proto_time;
use octroi_proto::{account, billing, common, notification, quota, usage};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::ToSchema;

use crate::problem::{Problem, whole_seconds};

/// An enum that services send.
macro_rules! answered {
    ($(#[$doc:meta])* $name:ident of $proto:path { $($(#[$word_doc:meta])* $word:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name {
            $($(#[$word_doc])* $word,)*
            /// Not given, or newer than this gateway.
            Unknown,
        }

        impl $name {
            pub(crate) fn from_proto(value: i32) -> Self {
                use $proto as Proto;
                match Proto::try_from(value) {
                    $(Ok(Proto::$word) => Self::$word,)*
                    _ => Self::Unknown,
                }
            }
        }
    };
}

/// An enum that clients send. Only its words are read; serde's derive would read `{"word": null}` as well.
macro_rules! asked {
    ($(#[$doc:meta])* $name:ident to $proto:path { $($(#[$word_doc:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub(crate) enum $name {
            $($(#[$word_doc])* $word,)*
        }

        impl $name {
            /// The end of the sentence "the field …" for another word.
            pub(crate) const RULE: &'static str = concat!("one of", $(" `", $text, "`",)*);

            pub(crate) fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($text => Some(Self::$word),)*
                    _ => None,
                }
            }

            pub(crate) fn to_proto(self) -> i32 {
                use $proto as Proto;
                match self {
                    $(Self::$word => Proto::$word.into(),)*
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = String::deserialize(deserializer)?;
                Self::from_word(&word)
                    .ok_or_else(|| de::Error::invalid_value(de::Unexpected::Other("word"), &Self::RULE))
            }
        }
    };
}

mod explained;
mod report;
mod unusual;

pub(crate) use self::{
    explained::{DecisionAction, ExplanationDetail, HoldEndState, Recording},
    report::{ReportGranularity, ReportState},
    unusual::{AnomalyKind, AskedAnomalyKind, ForecastMethod},
};

answered! {
    /// How the amounts of a metric become one figure.
    Aggregation of common::v1::Aggregation {
        /// The sum of the amounts.
        Sum,
        /// The number of events.
        Count,
        /// The largest amount.
        Max,
        /// The number of distinct values of a property.
        Unique,
        /// The amount of the newest event.
        Latest,
    }
}

answered! {
    /// How long a window of a limit is.
    Period of common::v1::Period {
        /// One hour of the account's zone.
        Hour,
        /// One calendar day of the account's zone.
        Day,
        /// One month, counted from the subscription's anchor.
        Month,
        /// Without end.
        Lifetime,
    }
}

answered! {
    /// What happens at a limit.
    LimitMode of common::v1::LimitMode {
        /// Nothing beyond the limit is allowed.
        Hard,
        /// What is beyond the limit is allowed and counted as overage.
        Soft,
        /// Evaluated, never enforced.
        Shadow,
    }
}

answered! {
    /// Where an account stands with its payments.
    Stage of common::v1::Stage {
        /// All paid.
        Current,
        /// A payment failed; nothing is reduced yet.
        Grace,
        /// Limits are reduced.
        Restricted,
        /// What changes data is stopped.
        ReadOnly,
        /// The default plan's limits apply.
        Suspended,
    }
}

answered! {
    /// Why a check was denied.
    DenialReason of quota::v1::DenialReason {
        /// The amount would pass a limit.
        QuotaExceeded,
        /// A required feature is not part of the plan.
        SubscriptionRequired,
        /// Only holds stand in the way; trying later may succeed.
        Held,
    }
}

answered! {
    /// What a member may do.
    Role of account::v1::Role {
        /// Everything in the account.
        Owner,
        /// See everything, change nothing that costs money.
        Member,
        /// Runs the fleet.
        Operator,
    }
}

answered! {
    /// Whether an account may be used.
    AccountState of account::v1::AccountState {
        /// In use.
        Active,
        /// Closed for good.
        Closed,
    }
}

answered! {
    /// How much a notice matters.
    Severity of notification::v1::Severity {
        /// Good to know.
        Info,
        /// Something will stop soon.
        Warning,
        /// Something has stopped.
        Critical,
    }
}

answered! {
    /// How an event came into the ledger.
    Origin of usage::v1::Origin {
        /// Recorded after the fact.
        Direct,
        /// Recorded by a quota decision that allowed it.
        Decision,
        /// Units of a level that were given back.
        Return,
    }
}

answered! {
    /// How long a billing period is.
    BillingInterval of billing::v1::BillingInterval {
        /// One month.
        Month,
        /// One year.
        Year,
    }
}

answered! {
    /// How use is priced.
    PriceModel of billing::v1::PriceModel {
        /// A fixed amount a period.
        Flat,
        /// An amount a unit.
        PerUnit,
        /// Each tier prices the units that fall into it.
        Graduated,
        /// The tier that the total reaches prices every unit.
        Volume,
        /// Units are sold in packages.
        Package,
    }
}

answered! {
    /// Where a subscription stands.
    SubscriptionStatus of billing::v1::SubscriptionStatus {
        /// Free of charge until the trial ends.
        Trialing,
        /// In force.
        Active,
        /// In force, with an invoice overdue.
        PastDue,
        /// Ended.
        Canceled,
    }
}

answered! {
    /// Who takes the payments.
    PaymentProvider of billing::v1::PaymentProvider {
        /// Our own invoices, paid by transfer.
        Manual,
        /// Stripe.
        Stripe,
    }
}

asked! {
    /// Whether a check takes what it asks for.
    CheckMode to quota::v1::CheckMode {
        /// Look only; nothing is taken.
        Peek = "peek",
        /// Take and record.
        Consume = "consume",
    }
}

asked! {
    /// How wide a bucket of statistics is.
    Granularity to usage::v1::Granularity {
        /// One hour of the zone.
        Hour = "hour",
        /// One day of the zone.
        Day = "day",
        /// One calendar month of the zone.
        Month = "month",
    }
}

asked! {
    /// The language in which people are written to.
    Language to account::v1::Language {
        /// English.
        English = "english",
        /// French.
        French = "french",
    }
}

impl Language {
    /// The language that a service sends; English is what an account without one has.
    pub(crate) fn from_proto(value: i32) -> Self {
        if value == Self::French.to_proto() {
            Self::French
        } else {
            Self::English
        }
    }
}

/// An instant that the contract allows to be absent.
pub(crate) fn optional_time(time: Option<&prost_types::Timestamp>) -> Result<Option<Timestamp>, Problem> {
    let Some(time) = time else { return Ok(None) };
    let mut violations = Violations::default();
    let at = from_proto_time("time", time, &mut violations);
    at.map(Some)
        .ok_or_else(|| Problem::fault("a service answered with an instant outside the calendar"))
}

/// An instant that the contract always gives.
pub(crate) fn time(time: Option<&prost_types::Timestamp>) -> Result<Timestamp, Problem> {
    optional_time(time)?.ok_or_else(|| Problem::fault("a service answered without an instant"))
}

/// A part of an answer that the contract always gives.
pub(crate) fn part<T>(part: Option<T>, what: &str) -> Result<T, Problem> {
    part.ok_or_else(|| Problem::fault(&format!("a service answered without {what}")))
}

/// Where to go on; nothing at the end.
pub(crate) fn cursor(token: String) -> Option<String> {
    (!token.is_empty()).then_some(token)
}

/// Where an account stands at one limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct LimitState {
    /// The metric's slug.
    pub(crate) metric: String,
    /// The length of the window.
    pub(crate) period: Period,
    /// The limit in force, after overrides and stage factors.
    pub(crate) limit: u64,
    /// Units recorded in the window.
    pub(crate) used: u64,
    /// Units reserved and not yet committed.
    pub(crate) held: u64,
    /// What may still be taken.
    pub(crate) remaining: u64,
    /// The window's first instant.
    pub(crate) window_start_time: Option<Timestamp>,
    /// The first instant after the window; null for a lifetime.
    pub(crate) window_end_time: Option<Timestamp>,
    /// What happens at the limit.
    pub(crate) mode: LimitMode,
    /// Units beyond the limit that a soft limit let through.
    pub(crate) overage: u64,
    /// For shadow limits: the check would have been denied.
    pub(crate) would_deny: bool,
    /// The share of the limit that the account's stage leaves, in percent.
    pub(crate) stage_factor_percent: u32,
}

impl LimitState {
    pub(crate) fn from_proto(status: quota::v1::LimitStatus) -> Result<Self, Problem> {
        Ok(Self {
            metric: status.metric,
            period: Period::from_proto(status.period),
            limit: status.limit,
            used: status.used,
            held: status.held,
            remaining: status.remaining,
            window_start_time: optional_time(status.window_start_time.as_ref())?,
            window_end_time: optional_time(status.window_end_time.as_ref())?,
            mode: LimitMode::from_proto(status.mode),
            overage: status.overage,
            would_deny: status.would_deny,
            stage_factor_percent: status.stage_factor_percent,
        })
    }
}

/// A feature that the plan lacks and the plans that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct MissingFeature {
    /// The feature's slug.
    pub(crate) feature: String,
    /// The slugs of the plans that have it.
    pub(crate) plans: Vec<String>,
}

/// Whether the account may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Decision {
    /// Whether the account may.
    pub(crate) allowed: bool,
    /// The id of this decision.
    pub(crate) decision_id: String,
    /// Why not; null where it may.
    pub(crate) reason: Option<DenialReason>,
    /// Every limit that was looked at, in the order of the items.
    pub(crate) limits: Vec<LimitState>,
    /// The index in `limits` of the one that denied; null where allowed.
    pub(crate) binding_limit: Option<u32>,
    /// How many seconds to wait until the binding limit's window ends; null where that would not help.
    pub(crate) retry_after_s: Option<u64>,
    /// Required features that the plan does not have.
    pub(crate) missing_features: Vec<MissingFeature>,
    /// Decided without the counters, by the limit's policy.
    pub(crate) degraded: bool,
    /// This request id was decided before, and this is that decision.
    pub(crate) repeated_request: bool,
}

impl Decision {
    pub(crate) fn from_proto(answer: quota::v1::CheckQuotaResponse) -> Result<Self, Problem> {
        let as_missing = |one: common::v1::FeaturePlans| MissingFeature {
            feature: one.feature,
            plans: one.plans,
        };
        let retry_after = answer
            .retry_after
            .and_then(|delay| std::time::Duration::try_from(delay).ok());
        Ok(Self {
            allowed: answer.allowed,
            decision_id: answer.decision_id,
            reason: (!answer.allowed).then(|| DenialReason::from_proto(answer.reason)),
            limits: answer
                .limits
                .into_iter()
                .map(LimitState::from_proto)
                .collect::<Result<_, _>>()?,
            binding_limit: answer.binding_limit,
            retry_after_s: retry_after.map(whole_seconds),
            missing_features: answer.missing_features.into_iter().map(as_missing).collect(),
            degraded: answer.degraded,
            repeated_request: answer.repeated_request,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(word: impl Serialize) -> String {
        serde_json::to_string(&word).expect("a word")
    }

    #[test]
    fn a_word_is_written_as_it_is_read() {
        for mode in [CheckMode::Peek, CheckMode::Consume] {
            assert_eq!(CheckMode::from_word(written(mode).trim_matches('"')), Some(mode));
        }
        for granularity in [Granularity::Hour, Granularity::Day, Granularity::Month] {
            assert_eq!(
                Granularity::from_word(written(granularity).trim_matches('"')),
                Some(granularity)
            );
        }
        for language in [Language::English, Language::French] {
            assert_eq!(
                Language::from_word(written(language).trim_matches('"')),
                Some(language)
            );
            assert_eq!(Language::from_proto(language.to_proto()), language);
        }
        assert_eq!(CheckMode::from_word("Peek"), None);
    }

    #[test]
    fn a_value_that_is_newer_than_the_gateway_is_unknown() {
        assert_eq!(
            Stage::from_proto(common::v1::Stage::ReadOnly.into()),
            Stage::ReadOnly
        );
        assert_eq!(written(Stage::ReadOnly), "\"read_only\"");
        assert_eq!(Stage::from_proto(99), Stage::Unknown);
        assert_eq!(Stage::from_proto(0), Stage::Unknown);
    }

    #[test]
    fn a_decision_tells_when_to_come_back_and_which_limit_denied() {
        let answer = quota::v1::CheckQuotaResponse {
            reason: quota::v1::DenialReason::QuotaExceeded.into(),
            limits: vec![quota::v1::LimitStatus {
                metric: "api.requests".into(),
                period: common::v1::Period::Hour.into(),
                limit: 10,
                used: 10,
                window_start_time: Some(prost_types::Timestamp { seconds: 0, nanos: 0 }),
                window_end_time: Some(prost_types::Timestamp {
                    seconds: 3_600,
                    nanos: 0,
                }),
                ..Default::default()
            }],
            binding_limit: Some(0),
            retry_after: Some(prost_types::Duration {
                seconds: 59,
                nanos: 1,
            }),
            ..Default::default()
        };
        let decision = Decision::from_proto(answer).expect("a decision");
        assert_eq!(decision.retry_after_s, Some(60));
        assert_eq!(decision.binding_limit, Some(0));
        assert_eq!(decision.limits.first().map(|limit| limit.limit), Some(10));
        assert_eq!(decision.reason, Some(DenialReason::QuotaExceeded));
    }
}
