//! The words of explanations.

use octroi_core::{AccountId, RequestId, Violations};
use octroi_kit::convert::{to_proto_feature_plans, to_proto_recording, to_proto_stage, to_proto_time};
use octroi_proto::quota::v1 as proto;

use super::{overrides::to_proto_override, to_proto_decision, to_proto_limit_status};
use crate::{
    answers::RequestKey,
    domain::explained::{Action, EndState, Explained, Ground, HoldEnd, MadeOf, number},
    service::{Explanation, Named},
};

/// The most bytes of a caller's name.
const CALLER_BYTES_MAX: usize = 128;

/// Reads which decision is asked for. `caller` is who asks now; `only`, the account whose decisions it may see, where
/// it may not see all.
///
/// # Errors
/// Every violation found.
pub fn from_proto_explain(
    request: &proto::ExplainDecisionRequest,
    caller: &str,
    only: Option<&AccountId>,
) -> Result<Named, Violations> {
    let mut violations = Violations::default();
    let by_request = !request.request_id.is_empty() || !request.caller.is_empty();
    let account = match (request.account_id.as_str(), only) {
        ("", Some(only)) => Some(only.clone()),
        ("", None) if !by_request => None,
        (given, _) => violations.take("account_id", AccountId::parse(given)),
    };
    if by_request {
        if !request.decision_id.is_empty() {
            violations.add(
                "decision_id",
                "must be absent where request_id or caller is given",
            );
        }
        if request.caller.len() > CALLER_BYTES_MAX || request.caller.contains('\0') {
            let rule = format!("must be at most {CALLER_BYTES_MAX} bytes and hold no NUL");
            violations.add("caller", rule);
        }
        let request_id = violations.take("request_id", RequestId::parse(&request.request_id));
        violations.clone().finish()?;
        let (account, id) = account.zip(request_id).ok_or(violations)?;
        let asked_by = if request.caller.is_empty() {
            caller
        } else {
            &request.caller
        };
        let key = RequestKey {
            caller: asked_by.to_owned(),
            request: id,
        };
        return Ok(Named::Request { account, key });
    }
    let id = request.decision_id.to_ascii_lowercase();
    if number(&id).is_none() {
        violations.add(
            "decision_id",
            "must be 32 hexadecimal digits, where no request_id is given",
        );
    }
    violations.finish()?;
    Ok(Named::Id { id, account })
}

/// An explanation, on the wire.
pub fn to_proto_explanation(explanation: &Explanation) -> proto::DecisionExplanation {
    match explanation {
        Explanation::Whole(explained, end) => to_proto_whole(explained, end.as_ref()),
        Explanation::Outcome {
            id,
            account,
            key,
            allowed,
        } => {
            let word = if *allowed { "Allowed" } else { "Denied" };
            proto::DecisionExplanation {
                decision_id: id.clone(),
                account_id: account.to_string(),
                caller: key.caller.clone(),
                request_id: key.request.to_string(),
                detail: proto::ExplanationDetail::Outcome.into(),
                action: proto::DecisionAction::Consume.into(),
                allowed: *allowed,
                sentence: format!("{word}: so many decisions came after it that the rest is not remembered."),
                ..proto::DecisionExplanation::default()
            }
        }
    }
}

fn to_proto_whole(explained: &Explained, end: Option<&HoldEnd>) -> proto::DecisionExplanation {
    let (question, decision) = (&explained.question, &explained.decision);
    let answer = to_proto_decision(decision.clone());
    let ground = explained.ground.as_ref();
    let detail = match ground {
        Some(_) => proto::ExplanationDetail::Full,
        None => proto::ExplanationDetail::Answer,
    };
    let action = match question.action {
        Action::Peek => proto::DecisionAction::Peek,
        Action::Consume => proto::DecisionAction::Consume,
        Action::Reserve => proto::DecisionAction::Reserve,
    };
    let explanation = proto::DecisionExplanation {
        decision_id: decision.id.clone(),
        account_id: question.account.to_string(),
        caller: question.caller.clone(),
        request_id: question
            .request
            .as_ref()
            .map(RequestId::to_string)
            .unwrap_or_default(),
        detail: detail.into(),
        action: action.into(),
        decide_time: Some(to_proto_time(explained.decided_at)),
        allowed: decision.allowed,
        reason: answer.reason,
        binding_limit: answer.binding_limit,
        items: to_proto_items(explained),
        limits: to_proto_limits(explained),
        missing_features: decision
            .missing_features
            .iter()
            .map(to_proto_feature_plans)
            .collect(),
        degraded: decision.degraded,
        repeated_request: decision.repeated_request,
        hold: to_proto_hold(explained, end),
        sentence: explained.sentence(end),
        ..proto::DecisionExplanation::default()
    };
    with_ground(explanation, ground)
}

fn with_ground(
    explanation: proto::DecisionExplanation,
    ground: Option<&Ground>,
) -> proto::DecisionExplanation {
    let Some(Ground {
        terms,
        counts_at,
        recording,
        ..
    }) = ground
    else {
        return explanation;
    };
    proto::DecisionExplanation {
        effective_time: Some(to_proto_time(*counts_at)),
        recording: to_proto_recording(*recording),
        stage: to_proto_stage(terms.stage),
        plan: terms.plan.to_string(),
        plan_version: terms.plan_version,
        entitlements_version: terms.entitlements_version,
        catalog_version: terms.catalog_version,
        account_revision: terms.account_revision,
        ..explanation
    }
}

fn to_proto_items(explained: &Explained) -> Vec<proto::CheckItem> {
    let items = explained.question.items.iter();
    items
        .map(|item| proto::CheckItem {
            metric: item.metric.to_string(),
            amount: item.amount.as_i64(),
        })
        .collect()
}

fn to_proto_limits(explained: &Explained) -> Vec<proto::ExplainedLimit> {
    let made_of = |index: usize| explained.ground.as_ref()?.made_of.get(index);
    let limits = explained.decision.limits.iter().enumerate();
    limits
        .map(|(index, status)| {
            let status = to_proto_limit_status(status);
            made_of(index).map_or_else(
                || proto::ExplainedLimit {
                    status: Some(status.clone()),
                    ..proto::ExplainedLimit::default()
                },
                |made_of: &MadeOf| proto::ExplainedLimit {
                    status: Some(status.clone()),
                    amount: made_of.amount.get(),
                    plan_amount: made_of.plan_amount.get(),
                    r#override: made_of.replaced_by.as_ref().map(to_proto_override),
                    ceiling: made_of.ceiling.map(octroi_core::Units::get),
                },
            )
        })
        .collect()
}

fn to_proto_hold(explained: &Explained, end: Option<&HoldEnd>) -> Option<proto::ExplainedHold> {
    let expire_time = Some(to_proto_time(explained.expires_at?));
    let Some(end) = end else {
        return Some(proto::ExplainedHold {
            expire_time,
            ..proto::ExplainedHold::default()
        });
    };
    let state = match end.state {
        EndState::Committed => proto::HoldEndState::Committed,
        EndState::Released => proto::HoldEndState::Released,
    };
    let items = end.items.iter().map(|used| proto::CommittedItem {
        metric: used.metric.to_string(),
        amount: used.amount.get(),
        overrun: used.overrun.get(),
    });
    Some(proto::ExplainedHold {
        expire_time,
        end: state.into(),
        end_time: Some(to_proto_time(end.at)),
        items: items.collect(),
        late: end.late,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::check::decision_id;

    fn by_id(id: &str) -> proto::ExplainDecisionRequest {
        proto::ExplainDecisionRequest {
            decision_id: id.into(),
            ..proto::ExplainDecisionRequest::default()
        }
    }

    fn by_request(account: &str, caller: &str, request: &str) -> proto::ExplainDecisionRequest {
        proto::ExplainDecisionRequest {
            account_id: account.into(),
            caller: caller.into(),
            request_id: request.into(),
            ..proto::ExplainDecisionRequest::default()
        }
    }

    #[test]
    fn a_decision_is_named_by_its_id_or_by_its_request() {
        let id = decision_id("acme", "app", "r-1");
        let acme = AccountId::parse("acme").expect("an id");
        for (request, only, expected) in [
            (by_id(&id), None, None),
            (by_id(&id.to_uppercase()), Some(&acme), Some("acme")),
        ] {
            match from_proto_explain(&request, "app", only).expect("a name") {
                Named::Id { id: read, account } => {
                    assert_eq!(read, id);
                    assert_eq!(account.as_ref().map(AccountId::as_str), expected);
                }
                Named::Request { .. } => panic!("an id was given"),
            }
        }
        for (caller, expected) in [("", "app"), ("other", "other")] {
            match from_proto_explain(&by_request("acme", caller, "r-1"), "app", None).expect("a name") {
                Named::Request { key, .. } => assert_eq!(key.caller, expected),
                Named::Id { .. } => panic!("a request was given"),
            }
        }
    }

    #[test]
    fn each_bad_name_of_a_decision_names_its_field() {
        let good = decision_id("acme", "app", "r-1");
        let both = proto::ExplainDecisionRequest {
            decision_id: good,
            ..by_request("acme", "app", "r-1")
        };
        for (request, field) in [
            (by_id(""), "decision_id"),
            (by_id("7"), "decision_id"),
            (by_request("", "app", "r-1"), "account_id"),
            (by_request("a b", "app", "r-1"), "account_id"),
            (by_request("acme", "app", ""), "request_id"),
            (by_request("acme", &"a".repeat(129), "r-1"), "caller"),
            (both, "decision_id"),
        ] {
            let violations = from_proto_explain(&request, "app", None).expect_err("a bad request");
            assert_eq!(violations.first_field(), Some(field), "{request:?}");
        }
    }
}
