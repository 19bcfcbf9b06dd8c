//! The words of holds, of use without asking, and of what is given back.

use std::collections::BTreeMap;

use octroi_core::{AccountId, MetricSlug, RequestId, Units, Violations};
use octroi_kit::convert::{from_proto_time, to_proto_time};
use octroi_proto::quota::v1 as proto;

use super::{from_proto_features, from_proto_items, to_proto_decision};
use crate::{
    answers::RequestKey,
    domain::{
        check::{Check, ITEMS_MAX, Mode},
        hold::{Hold, TTL_S_DEFAULT, TTL_S_MAX},
    },
    hold_id::HoldIds,
    service::{Commit, Reservation},
};

/// Reads for how many seconds something is held.
fn from_proto_ttl(ttl: Option<&prost_types::Duration>, violations: &mut Violations) -> i64 {
    let Some(ttl) = ttl else { return TTL_S_DEFAULT };
    let whole = ttl.nanos == 0 && (1..=TTL_S_MAX).contains(&ttl.seconds);
    if !whole {
        violations.add("ttl", format!("must be whole seconds, 1 to {TTL_S_MAX}"));
    }
    ttl.seconds
}

fn require_items(items: &[proto::CheckItem], violations: &mut Violations) {
    if items.is_empty() {
        violations.add("items", format!("must hold 1 to {ITEMS_MAX} metrics"));
    }
}

/// A check and the request that makes it, of `caller`.
fn requested(
    (account, request_id): (&str, &str),
    caller: &str,
    check: impl FnOnce(AccountId, Mode, &mut Violations) -> Check,
) -> Result<(Check, RequestKey), Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(account));
    let request = violations.take("request_id", RequestId::parse(request_id));
    // What cannot be read is read on with a stand-in, so that every violation is told at once.
    let stand_in = || AccountId::parse("-").ok();
    let id = account.clone().or_else(stand_in);
    let check = id.map(|id| {
        check(
            id,
            request.clone().map_or(Mode::Peek, Mode::Consume),
            &mut violations,
        )
    });
    violations.clone().finish()?;
    let (check, request) = check.zip(request).ok_or(violations)?;
    let key = RequestKey {
        caller: caller.to_owned(),
        request,
    };
    Ok((check, key))
}

/// Reads what is to be held, and for how many seconds.
///
/// # Errors
/// Every violation found.
pub fn from_proto_reserve(
    request: &proto::ReserveQuotaRequest,
    caller: &str,
) -> Result<(Check, RequestKey, i64), Violations> {
    let mut ttl_s = TTL_S_DEFAULT;
    let ids = (request.account_id.as_str(), request.request_id.as_str());
    let (check, key) = requested(ids, caller, |account, mode, violations| {
        require_items(&request.items, violations);
        let items = from_proto_items(&request.items, violations);
        let features = from_proto_features(&request.features, violations);
        ttl_s = from_proto_ttl(request.ttl.as_ref(), violations);
        Check {
            account,
            items,
            features,
            mode,
            event_at: None,
            backfill: false,
            repeat: false,
        }
    })?;
    Ok((check, key, ttl_s))
}

/// The answer to a reservation, on the wire.
pub fn to_proto_reservation(
    account: &AccountId,
    reservation: &Reservation,
    ids: &HoldIds,
) -> proto::ReserveQuotaResponse {
    let hold = reservation.hold.as_ref();
    proto::ReserveQuotaResponse {
        decision: Some(to_proto_decision(reservation.decision.clone())),
        hold_id: hold.map(|(hold, _)| ids.make(account, hold)).unwrap_or_default(),
        expire_time: hold.map(|(_, expires_at)| to_proto_time(*expires_at)),
    }
}

/// Reads whose hold is meant; the hold is none where the id is not one of the account.
///
/// # Errors
/// Every violation found.
pub fn from_proto_hold(
    account: &str,
    hold_id: &str,
    ids: &HoldIds,
) -> Result<(AccountId, Option<Hold>), Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(account));
    if hold_id.is_empty() {
        violations.add("hold_id", "must be given");
    }
    violations.clone().finish()?;
    let account = account.ok_or(violations)?;
    let hold = ids.read(&account, hold_id);
    Ok((account, hold))
}

/// Reads what was used of a hold.
///
/// # Errors
/// Every violation found.
pub fn from_proto_commit(
    request: &proto::CommitHoldRequest,
    hold: &Hold,
) -> Result<BTreeMap<MetricSlug, Units>, Violations> {
    let mut violations = Violations::default();
    let mut used = BTreeMap::new();
    for (index, item) in request.items.iter().enumerate() {
        let field = format!("items[{index}].metric");
        let metric = violations.take(field.as_str(), MetricSlug::parse(&item.metric));
        let amount = u64::try_from(item.amount).map_err(|_| "must be 0 to 2^53 - 1");
        let amount = amount.and_then(|amount| Units::new(amount).map_err(|_| "must be 0 to 2^53 - 1"));
        let amount = violations.take(format!("items[{index}].amount"), amount);
        let Some((metric, amount)) = metric.zip(amount) else {
            continue;
        };
        if !hold.items.iter().any(|held| held.metric == metric) {
            violations.add(field.as_str(), "must be a metric of the hold");
        }
        if used.insert(metric, amount).is_some() {
            violations.add(field, "must not be named twice");
        }
    }
    violations.finish()?;
    Ok(used)
}

/// The answer to a commit, on the wire.
pub fn to_proto_commit(commit: &Commit) -> proto::CommitHoldResponse {
    let items = commit.items.iter().map(|item| proto::CommittedItem {
        metric: item.metric.to_string(),
        amount: item.amount.get(),
        overrun: item.overrun.get(),
    });
    proto::CommitHoldResponse {
        items: items.collect(),
        repeated_request: commit.repeated,
        late: commit.late,
    }
}

/// Reads for how many seconds a hold is renewed.
///
/// # Errors
/// The violation found.
pub fn from_proto_renewal(request: &proto::RenewHoldRequest) -> Result<i64, Violations> {
    let mut violations = Violations::default();
    let ttl_s = from_proto_ttl(request.ttl.as_ref(), &mut violations);
    violations.finish()?;
    Ok(ttl_s)
}

/// Reads what is given back.
///
/// # Errors
/// Every violation found.
pub fn from_proto_return(
    request: &proto::ReturnQuotaRequest,
    caller: &str,
) -> Result<(Check, RequestKey), Violations> {
    let ids = (request.account_id.as_str(), request.request_id.as_str());
    requested(ids, caller, |account, mode, violations| {
        require_items(&request.items, violations);
        Check {
            account,
            items: from_proto_items(&request.items, violations),
            features: Vec::new(),
            mode,
            event_at: None,
            backfill: false,
            repeat: false,
        }
    })
}

/// Reads what was used without asking.
///
/// # Errors
/// Every violation found.
pub fn from_proto_record(
    request: &proto::RecordUsageRequest,
    caller: &str,
) -> Result<(Check, RequestKey), Violations> {
    let ids = (request.account_id.as_str(), request.request_id.as_str());
    requested(ids, caller, |account, mode, violations| {
        require_items(&request.items, violations);
        let time = request.event_time.as_ref();
        let event_at = time.and_then(|time| from_proto_time("event_time", time, violations));
        if request.backfill && request.event_time.is_none() {
            violations.add("backfill", "needs an event_time");
        }
        Check {
            account,
            items: from_proto_items(&request.items, violations),
            features: Vec::new(),
            mode,
            event_at,
            backfill: request.backfill,
            repeat: false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(metric: &str, amount: i64) -> proto::CheckItem {
        proto::CheckItem {
            metric: metric.into(),
            amount,
        }
    }

    fn reserve() -> proto::ReserveQuotaRequest {
        proto::ReserveQuotaRequest {
            account_id: "acme".into(),
            items: vec![item("api.requests", 1)],
            features: Vec::new(),
            request_id: "r-1".into(),
            ttl: None,
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut proto::ReserveQuotaRequest), fields: &[&str]) {
        let mut request = reserve();
        change(&mut request);
        let violations = from_proto_reserve(&request, "app").expect_err("a bad request");
        let found: Vec<&str> = violations.0.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(found, fields, "{violations}");
    }

    #[test]
    fn each_bad_reservation_names_its_fields() {
        let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        assert_eq!(from_proto_reserve(&reserve(), "app").map(|read| read.2), Ok(60));
        for ttl in [
            seconds(0, 0),
            seconds(-1, 0),
            seconds(365 * 86_400, 0),
            seconds(1, 1),
        ] {
            check(|r| r.ttl = ttl, &["ttl"]);
        }
        check(|r| r.items = Vec::new(), &["items"]);
        check(|r| r.items = vec![item("a", 0)], &["items[0].amount"]);
        check(|r| r.request_id = String::new(), &["request_id"]);
        check(
            |r| (r.account_id, r.items) = (String::new(), vec![item("A", 1)]),
            &["account_id", "items[0].metric"],
        );
    }

    #[test]
    fn a_commit_names_metrics_of_the_hold_once_and_amounts_from_0() {
        let hold = Hold {
            id: uuid::Uuid::nil(),
            reserved_at: jiff::Timestamp::UNIX_EPOCH,
            caller: "app".into(),
            items: vec![crate::domain::check::Item {
                metric: MetricSlug::parse("a").expect("a slug"),
                amount: Units::MAX,
            }],
        };
        for (items, field) in [
            (vec![item("a", 0)], None),
            (vec![], None),
            (vec![item("a", -1)], Some("items[0].amount")),
            (vec![item("a", 1 << 53)], Some("items[0].amount")),
            (vec![item("b", 1)], Some("items[0].metric")),
            (vec![item("a", 1), item("a", 1)], Some("items[1].metric")),
        ] {
            let request = proto::CommitHoldRequest {
                items,
                ..proto::CommitHoldRequest::default()
            };
            let read = from_proto_commit(&request, &hold);
            assert_eq!(
                read.as_ref().err().and_then(Violations::first_field),
                field,
                "{read:?}"
            );
        }
    }
}
