//! Why a request was allowed or denied: what a decision was made of, as it is kept to be told later.

mod words;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use octroi_core::{
    AccountId, LimitMode, MetricSlug, PlanSlug, Recording, RequestId, Stage, Units, UnreachablePolicy,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    check::Item,
    decision::{Asked, Decision, LimitStatus},
    holding::AccountLimits,
    limits::LimitOverride,
    plan::Plan,
};

/// How long a decision is remembered in memory: as long as the answer to its request.
pub const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);
/// How long a decision that is written down is kept.
pub const WRITTEN: SignedDuration = SignedDuration::from_hours(35 * 24);

/// What the limits of an account follow from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The plan.
    pub plan: PlanSlug,
    /// Its version.
    pub plan_version: u32,
    /// The version that billing pushed; 0 for the default plan.
    pub entitlements_version: u64,
    /// Where the account stands with its payments.
    pub stage: Stage,
    /// Of the account: entitlements, overrides, stage, calendar.
    pub account_revision: u64,
    /// Of the catalog.
    pub catalog_version: u64,
}

impl Terms {
    /// What the limits of an account follow from now.
    #[must_use]
    pub fn of(limits: &AccountLimits) -> Self {
        Self {
            plan: limits.entitlements.plan.clone(),
            plan_version: limits.entitlements.plan_version,
            entitlements_version: limits.version,
            stage: limits.stage,
            account_revision: limits.revision.account,
            catalog_version: limits.revision.catalog,
        }
    }
}

/// What a decision was made of, besides what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basis {
    /// What the limits follow from.
    pub terms: Terms,
    /// The limits, in the order of the decision's.
    pub asked: Vec<Asked>,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// The instant whose windows it counts in.
    pub counts_at: Timestamp,
    /// Whether it was answered once the ledger had it, or before.
    pub recording: Recording,
}

/// A decision from memory, with all that explains it: nothing of it is allocated for that.
#[derive(Clone, Debug)]
pub struct FromMemory {
    /// The decision.
    pub decision: Decision,
    /// Whose.
    pub account: AccountId,
    /// What held for the account.
    pub plan: Arc<Plan>,
    /// When it was decided.
    pub at: Timestamp,
}

impl FromMemory {
    /// Whether decisions like this one are written down, as [`Explained::worth`] says.
    #[must_use]
    pub fn worth(&self) -> Worth<'_> {
        let decision = &self.decision;
        if !decision.allowed {
            let binding = decision
                .binding_limit
                .and_then(|index| decision.limits.get(index));
            return Worth::Some(binding.map(|limit| &limit.metric));
        }
        if !self.plan.is_overridden {
            return Worth::None;
        }
        let is_replaced = |limit: &&LimitStatus| {
            let planned = self.plan.metric(limit.metric.as_str());
            let mut asked = planned.into_iter().flat_map(|planned| &planned.asked);
            asked.any(|one| one.effective.limit.period == limit.period && one.effective.replaced_by.is_some())
        };
        let replaced = decision.limits.iter().find(is_replaced);
        replaced.map_or(Worth::None, |limit| Worth::Some(Some(&limit.metric)))
    }

    /// The same with its basis: it is kept as one that was not decided from memory is.
    #[must_use]
    pub fn with_basis(&self, items: &[(&str, Units)]) -> Decision {
        let is_durable = |name: &str| {
            let planned = self.plan.metric(name);
            planned.is_some_and(|planned| planned.recording == Recording::Durable)
        };
        // Only looks are made from memory where a metric is durable.
        let recording = if items.iter().any(|(name, _)| is_durable(name)) {
            Recording::Durable
        } else {
            Recording::Buffered
        };
        let asked = items.iter().filter_map(|(name, amount)| {
            let planned = self.plan.metric(name)?;
            Some((&planned.asked, *amount))
        });
        let asked = asked.flat_map(|(all, amount)| {
            all.iter().map(move |one| Asked {
                amount,
                ..one.clone()
            })
        });
        Decision {
            basis: Some(Arc::new(Basis {
                terms: self.plan.terms.clone(),
                asked: asked.collect(),
                decided_at: self.at,
                counts_at: self.at,
                recording,
            })),
            ..self.decision.clone()
        }
    }
}

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// To look.
    Peek,
    /// To take and record.
    Consume,
    /// To hold.
    Reserve,
}

/// What one limit of a decision was made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeOf {
    /// What was asked of it.
    pub amount: Units,
    /// The amount in the plan.
    pub plan_amount: Units,
    /// What replaced that amount.
    pub replaced_by: Option<LimitOverride>,
    /// The HARD end of a SOFT limit.
    pub ceiling: Option<Units>,
    /// What happens while the counters cannot be reached.
    pub unreachable_policy: UnreachablePolicy,
}

impl MadeOf {
    fn of(asked: &Asked) -> Self {
        let effective = &asked.effective;
        Self {
            amount: asked.amount,
            plan_amount: effective.plan_amount,
            replaced_by: effective.replaced_by.clone(),
            ceiling: effective.limit.ceiling,
            unreachable_policy: effective.limit.unreachable_policy,
        }
    }
}

/// What a decision was made of, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// What the limits follow from.
    pub terms: Terms,
    /// One a limit of the decision, in its order.
    pub made_of: Vec<MadeOf>,
    /// The instant whose windows it counts in.
    pub counts_at: Timestamp,
    /// Whether it was answered once the ledger had it, or before.
    pub recording: Recording,
}

/// Who asked for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Whose limits.
    pub account: AccountId,
    /// The service that asked.
    pub caller: String,
    /// The request, where it had an id.
    pub request: Option<RequestId>,
    /// What was asked for.
    pub action: Action,
    /// How much.
    pub items: Vec<Item>,
}

/// A decision with all that explains it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// Who asked for what.
    pub question: Question,
    /// The answer.
    pub decision: Decision,
    /// When it was answered.
    pub decided_at: Timestamp,
    /// What it was made of; none where it is the answer to an earlier attempt, which is remembered without.
    pub ground: Option<Ground>,
    /// When the hold expires, where there is one.
    pub expires_at: Option<Timestamp>,
}

impl Explained {
    /// Keeps a decision that was answered `now`, with what it was made of where it was made just then.
    #[must_use]
    pub fn new(question: Question, decision: &Decision, now: Timestamp) -> Self {
        let basis = decision.basis.as_deref();
        let ground = basis.map(|basis| Ground {
            terms: basis.terms.clone(),
            made_of: basis.asked.iter().map(MadeOf::of).collect(),
            counts_at: basis.counts_at,
            recording: basis.recording,
        });
        Self {
            question,
            decision: Decision {
                basis: None,
                ..decision.clone()
            },
            decided_at: basis.map_or(now, |basis| basis.decided_at),
            ground,
            expires_at: None,
        }
    }

    /// How long it is written down for, and how much of it.
    #[must_use]
    pub fn worth(&self) -> Worth<'_> {
        let decision = &self.decision;
        if decision.degraded || (decision.allowed && self.question.action == Action::Reserve) {
            return Worth::All;
        }
        let metric_of = |index: usize| decision.limits.get(index).map(|limit| &limit.metric);
        if !decision.allowed {
            let metric = decision.binding_limit.and_then(metric_of);
            return Worth::Some(metric);
        }
        let mut made_of = self.ground.iter().flat_map(|ground| &ground.made_of);
        made_of
            .position(|one| one.replaced_by.is_some())
            .map_or(Worth::None, |index| Worth::Some(metric_of(index)))
    }

    /// All of it in English, for people.
    #[must_use]
    pub fn sentence(&self, end: Option<&HoldEnd>) -> String {
        words::sentence(self, end)
    }
}

/// Whether decisions like one are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth<'d> {
    /// They are not.
    None,
    /// The first of each second are, for each account and metric; none where no metric denied.
    Some(Option<&'d MetricSlug>),
    /// All are.
    All,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndState {
    /// What was used was recorded.
    Committed,
    /// Nothing of it was used.
    Released,
}

/// What the commit of a hold recorded of one metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// The metric.
    pub metric: MetricSlug,
    /// What was recorded.
    pub amount: Units,
    /// The part of it that no limit had room for.
    pub overrun: Units,
}

/// How a hold ended, and with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldEnd {
    /// Whose.
    pub account: AccountId,
    /// Which hold.
    pub hold: Uuid,
    /// How.
    pub state: EndState,
    /// When.
    pub at: Timestamp,
    /// What a commit recorded.
    pub items: Vec<Used>,
    /// It had ended before its commit.
    pub late: bool,
}

/// One thing that is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A decision.
    Decision(Box<Explained>),
    /// The end of a hold.
    HoldEnd(HoldEnd),
}

impl Record {
    /// What it is looked for by; none where a decision's id is none of ours.
    #[must_use]
    pub fn number(&self) -> Option<u128> {
        match self {
            Self::Decision(explained) => number(&explained.decision.id),
            Self::HoldEnd(end) => Some(end.hold.as_u128()),
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn account(&self) -> &AccountId {
        match self {
            Self::Decision(explained) => &explained.question.account,
            Self::HoldEnd(end) => &end.account,
        }
    }

    /// Whether it is the answer to a request that had come before.
    #[must_use]
    pub fn is_repeat(&self) -> bool {
        matches!(self, Self::Decision(explained) if explained.decision.repeated_request)
    }

    /// When it happened.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Decision(explained) => explained.decided_at,
            Self::HoldEnd(end) => end.at,
        }
    }

    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        const EACH: usize = 640;
        const LIMIT: usize = 320;
        match self {
            Self::Decision(explained) => {
                let decision = &explained.decision;
                let lists = explained.question.items.len() + decision.missing_features.len();
                EACH + LIMIT * decision.limits.len() + 64 * lists
            }
            Self::HoldEnd(end) => EACH + 64 * end.items.len(),
        }
    }
}

/// The id of the decision of this number.
#[must_use]
pub fn id_of(number: u128) -> String {
    let mut digits = vec![0; 32];
    // It fits, and digits are text: neither fails.
    match hex::encode_to_slice(number.to_be_bytes(), &mut digits) {
        Ok(()) => String::from_utf8(digits).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// The number that a decision's id is the text of: 32 hexadecimal digits.
#[must_use]
pub fn number(id: &str) -> Option<u128> {
    let mut bytes = [0; 16];
    hex::decode_to_slice(id, &mut bytes).ok()?;
    Some(u128::from_be_bytes(bytes))
}

/// Whether a shadow limit would have denied.
fn shadow_denied(decision: &Decision) -> impl Iterator<Item = &LimitStatus> {
    (decision.limits.iter()).filter(|limit| limit.mode == LimitMode::Shadow && limit.would_deny)
}

#[cfg(test)]
mod tests;
