//! An explanation in English, for people.

use std::fmt::Write as _;

use jiff::Timestamp;
use octroi_core::{FeaturePlans, LimitMode, Period, PlanSlug, Recording, Stage, Units};

use super::{Action, EndState, Explained, Ground, HoldEnd, MadeOf, shadow_denied};
use crate::domain::decision::{DenialReason, LimitStatus};

/// All of an explanation: what was decided, on what ground, and what became of it.
pub(super) fn sentence(explained: &Explained, end: Option<&HoldEnd>) -> String {
    let decision = &explained.decision;
    let mut text = if decision.allowed {
        allowed(explained)
    } else {
        denied(explained)
    };
    text.push('.');
    if let Some((limit, made_of)) = told(explained) {
        replaced(&mut text, made_of);
        reduced(&mut text, limit, explained.ground.as_ref());
    }
    for limit in shadow_denied(decision) {
        add(
            &mut text,
            &format!("The shadow limit would have denied: {}", standing(limit)),
        );
    }
    if explained
        .ground
        .as_ref()
        .is_some_and(|ground| ground.recording == Recording::Buffered)
        && explained.question.action == Action::Consume
    {
        add(&mut text, "It was answered before the ledger had it");
    }
    if decision.repeated_request {
        add(
            &mut text,
            "The request had come before, and this was the answer to it again",
        );
    }
    held_until(&mut text, explained, end);
    text
}

fn add(text: &mut String, sentence: &str) {
    // Writing into a text does not fail.
    let _ = write!(text, " {sentence}.");
}

/// The limit that is told of: the one that denied, else the one that leaves least.
fn told(explained: &Explained) -> Option<(&LimitStatus, Option<&MadeOf>)> {
    let limits = &explained.decision.limits;
    let least = || {
        let enforced = limits
            .iter()
            .enumerate()
            .filter(|(_, limit)| limit.mode != LimitMode::Shadow);
        enforced
            .min_by_key(|(_, limit)| limit.remaining)
            .map(|(index, _)| index)
    };
    let index = match explained.decision.reason {
        Some(DenialReason::SubscriptionRequired) => return None,
        _ => explained.decision.binding_limit.or_else(least)?,
    };
    let made_of = explained
        .ground
        .as_ref()
        .and_then(|ground| ground.made_of.get(index));
    Some((limits.get(index)?, made_of))
}

fn allowed(explained: &Explained) -> String {
    if explained.decision.degraded {
        return "Allowed without knowing what was used: the counters could not be reached, and the policy of every \
                limit is to allow then"
            .to_owned();
    }
    let Some((limit, made_of)) = told(explained) else {
        return "Allowed: nothing limits what was asked for".to_owned();
    };
    let amount = asked_for(explained, limit, made_of);
    match explained.question.action {
        Action::Peek => format!("Allowed, and nothing was taken: {}{amount}", standing(limit)),
        Action::Consume => format!("Allowed: with these {}{amount}", standing(limit)),
        Action::Reserve => format!("Allowed and held: with these {}{amount}", standing(limit)),
    }
}

fn denied(explained: &Explained) -> String {
    let decision = &explained.decision;
    let plan = explained.ground.as_ref().map(|ground| &ground.terms.plan);
    let why = match decision.reason {
        Some(DenialReason::SubscriptionRequired) => return lacking(&decision.missing_features, plan),
        Some(DenialReason::Held) => "only holds stand in the way",
        _ => "a limit stands in the way",
    };
    let Some((limit, made_of)) = told(explained) else {
        return format!("Denied because {why}");
    };
    let why = match decision.reason {
        Some(DenialReason::Held) => why.to_owned(),
        _ => format!("the limit {} would be passed", a_period(limit.period)),
    };
    let amount = asked_for(explained, limit, made_of);
    let mut text = format!("Denied because {why}: {}{amount}", standing(limit));
    let asked = made_of.map_or(Units::ZERO, |made_of| made_of.amount);
    if asked > Units::ZERO && limit.remaining >= asked {
        text.push_str("; what was left was set aside for other requests at that moment");
    }
    if let Some(ceiling) = made_of.and_then(|made_of| made_of.ceiling) {
        let _ = write!(
            text,
            "; the limit is soft and ends at {ceiling}",
            ceiling = ceiling.get()
        );
    }
    match (decision.retry_after, limit.end) {
        (Some(_), Some(end)) => {
            let _ = write!(text, ". It would fit from {} on", instant(end));
        }
        _ if limit.end.is_some() && decision.reason != Some(DenialReason::Held) => {
            text.push_str(". It would not fit into an empty window either");
        }
        _ => {}
    }
    text
}

/// "98 of 100 units of api.requests were used this hour, and 2 were held".
fn standing(limit: &LimitStatus) -> String {
    let (used, amount) = (limit.used.get(), limit.limit.get());
    let mut text = format!(
        "{used} of {amount} {} of {} {} used {}",
        plural(amount, "unit", "units"),
        limit.metric,
        plural(used, "was", "were"),
        this_period(limit.period)
    );
    if limit.held > Units::ZERO {
        let held = limit.held.get();
        let _ = write!(text, ", {held} {} held", plural(held, "was", "were"));
    }
    text
}

/// ", and 5 were asked for"; nothing where it is not known.
fn asked_for(explained: &Explained, limit: &LimitStatus, made_of: Option<&MadeOf>) -> String {
    let item = || {
        explained
            .question
            .items
            .iter()
            .find(|item| item.metric == limit.metric)
    };
    let amount = made_of
        .map(|made_of| made_of.amount)
        .or_else(|| item().map(|item| item.amount));
    amount.map_or_else(String::new, |amount| {
        format!(
            ", and {} {} asked for",
            amount.get(),
            plural(amount.get(), "was", "were")
        )
    })
}

fn replaced(text: &mut String, made_of: Option<&MadeOf>) {
    let Some((made_of, by)) = made_of.and_then(|made_of| Some((made_of, made_of.replaced_by.as_ref()?)))
    else {
        return;
    };
    let until = by
        .expires_at
        .map_or_else(String::new, |until| format!(" until {}", instant(until)));
    let note = if by.note.is_empty() {
        String::new()
    } else {
        format!(" (\"{}\")", by.note)
    };
    let (amount, plan) = (by.amount.get(), made_of.plan_amount.get());
    add(
        text,
        &format!("An override of {amount}{until}{note} replaced the plan's limit of {plan}"),
    );
}

fn reduced(text: &mut String, limit: &LimitStatus, ground: Option<&Ground>) {
    let Some(ground) = ground else { return };
    let percent = limit.stage_factor_percent;
    match ground.terms.stage {
        Stage::Suspended => add(
            text,
            "The account is suspended, so that the default plan's limits hold",
        ),
        stage if percent != 100 => {
            let stage = stage_word(stage);
            add(
                text,
                &format!("The account is {stage}, which leaves {percent} % of the limit"),
            );
        }
        _ => {}
    }
}

fn lacking(missing: &[FeaturePlans], plan: Option<&PlanSlug>) -> String {
    let plan = plan.map_or_else(|| "the plan".to_owned(), |plan| format!("the plan {plan}"));
    let one = |one: &FeaturePlans| {
        let plans: Vec<&str> = one.plans.iter().map(PlanSlug::as_str).collect();
        match plans.as_slice() {
            [] => format!("{}, which no plan has", one.feature),
            [only] => format!("{}, which {only} has", one.feature),
            [first @ .., last] => format!("{}, which {} and {last} have", one.feature, first.join(", ")),
        }
    };
    let all: Vec<String> = missing.iter().map(one).collect();
    format!("Denied because {plan} lacks {}", all.join("; "))
}

fn held_until(text: &mut String, explained: &Explained, end: Option<&HoldEnd>) {
    match (end, explained.expires_at) {
        (Some(end), _) => {
            let at = instant(end.at);
            let sentence = match end.state {
                EndState::Released => format!("The hold was released at {at}"),
                EndState::Committed if end.items.is_empty() => format!("The hold was committed at {at}"),
                EndState::Committed => {
                    let used: Vec<String> = end.items.iter().map(used).collect();
                    let late = if end.late { ", after it had ended" } else { "" };
                    format!("The hold was committed at {at}{late}, with {}", used.join(", "))
                }
            };
            add(text, &sentence);
        }
        (None, Some(at)) => add(text, &format!("The hold was promised until {}", instant(at))),
        (None, None) => {}
    }
}

fn used(used: &super::Used) -> String {
    let mut text = format!("{} of {}", used.amount.get(), used.metric);
    if used.overrun > Units::ZERO {
        let _ = write!(text, " ({} beyond the limits)", used.overrun.get());
    }
    text
}

/// To the second: what is finer matters to nobody who reads a sentence.
fn instant(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

fn plural<'w>(count: u64, one: &'w str, many: &'w str) -> &'w str {
    if count == 1 { one } else { many }
}

fn this_period(period: Period) -> &'static str {
    match period {
        Period::Hour => "this hour",
        Period::Day => "this day",
        Period::Month => "this month",
        Period::Lifetime => "in all",
    }
}

fn a_period(period: Period) -> &'static str {
    match period {
        Period::Hour => "of an hour",
        Period::Day => "of a day",
        Period::Month => "of a month",
        Period::Lifetime => "of all time",
    }
}

fn stage_word(stage: Stage) -> &'static str {
    match stage {
        Stage::Current => "paid up",
        Stage::Grace => "in its days of grace",
        Stage::Restricted => "restricted",
        Stage::ReadOnly => "read only",
        Stage::Suspended => "suspended",
    }
}
