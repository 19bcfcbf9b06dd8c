//! Over gRPC, about holds, use without asking, and limits.

use anyhow::{Context as _, Result, ensure};
use octroi_kit::{config::Secret, link::Link, status::reason_of};
use octroi_proto::{
    common::v1::Period, errors::v1::ErrorReason, quota::v1 as quota, usage::v1::GetUsageEventRequest,
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, now};
use tonic::{Code, IntoRequest as _, codegen::http::uri::PathAndQuery};

use super::{ABOVE, Case, nothing_was_written};
use crate::asks::{Refusal, check_refusal, invalid, items, not_found, refusal, reserve, upsert_account};

const ACCOUNT: &str = "acme";
/// Nothing limits it, so a hold of it leaves nothing behind.
const BYTES: &str = "api.bytes";

const NO_ACCOUNT: Refusal = not_found(ErrorReason::AccountNotFound).of("account_id");
const NO_METRIC: Refusal = not_found(ErrorReason::MetricNotFound).of("items[0].metric");
const OUT_OF_TIME: Refusal =
    refusal(Code::InvalidArgument, ErrorReason::EventTimeOutOfRange).of("event_time");
const NO_HOLD: Refusal = not_found(ErrorReason::HoldNotFound);
const NO_LIMIT: Refusal = not_found(ErrorReason::LimitNotFound);

pub(super) async fn bad_calls_about_limits_are_told_the_field_and_the_rule(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    bad_reservations(&app).await?;
    bad_ends_of_holds(&app).await?;
    bad_uses(&app).await?;
    bad_returns(&app).await?;
    bad_overrides(&operator).await?;
    what_is_no_message(fleet).await?;
    nothing_was_written(fleet).await
}

const fn lasting(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

fn numbered() -> Vec<quota::CheckItem> {
    let names: Vec<String> = (0..17).map(|number| format!("m{number}")).collect();
    let asked: Vec<(&str, i64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
    items(&asked)
}

async fn bad_reservations(app: &Clients) -> Result<()> {
    const YEAR_S: i64 = 365 * 86_400;
    let cases: &[Case<quota::ReserveQuotaRequest>] = &cases![
        "no account" => |r| r.account_id.clear() => invalid("account_id");
        "an unknown account" => |r| r.account_id = "nobody".into() => NO_ACCOUNT;
        "nothing" => |r| r.items.clear() => invalid("items");
        "17 items" => |r| r.items = numbered() => invalid("items");
        "a metric twice" => |r| r.items = items(&[(BYTES, 1); 2]) => invalid("items[1].metric");
        "an unknown metric" => |r| r.items = items(&[("api.nothing", 1)]) => NO_METRIC;
        "a malformed metric" => |r| r.items = items(&[("API", 1)]) => invalid("items[0].metric");
        "amount 0" => |r| r.items = items(&[(BYTES, 0)]) => invalid("items[0].amount");
        "amount -1" => |r| r.items = items(&[(BYTES, -1)]) => invalid("items[0].amount");
        "amount 2^53" => |r| r.items = items(&[(BYTES, ABOVE)]) => invalid("items[0].amount");
        "a malformed feature" => |r| r.features = vec!["F".into()] => invalid("features[0]");
        "17 features" => |r| r.features = vec!["f".into(); 17] => invalid("features");
        "no request id" => |r| r.request_id.clear() => invalid("request_id");
        "a malformed request id" => |r| r.request_id = "a b".into() => invalid("request_id");
        "a long request id" => |r| r.request_id = "r".repeat(129) => invalid("request_id");
        "no time" => |r| r.ttl = lasting(0, 0) => invalid("ttl");
        "half a second" => |r| r.ttl = lasting(0, 500_000_000) => invalid("ttl");
        "a second and a half" => |r| r.ttl = lasting(1, 500_000_000) => invalid("ttl");
        "the past" => |r| r.ttl = lasting(-60, 0) => invalid("ttl");
        "a day and a second" => |r| r.ttl = lasting(86_401, 0) => invalid("ttl");
        "a year" => |r| r.ttl = lasting(YEAR_S, 0) => invalid("ttl");
        "for ever" => |r| r.ttl = lasting(i64::MAX, 0) => invalid("ttl");
    ];
    for (what, change, expected) in cases {
        let mut request = reserve(ACCOUNT, "h-1", &[(BYTES, 1)]);
        change(&mut request);
        let answer = app.quota.clone().reserve_quota(request).await;
        check_refusal(what, answer, *expected)?;
    }
    Ok(())
}

async fn bad_ends_of_holds(app: &Clients) -> Result<()> {
    let reserved = app
        .quota
        .clone()
        .reserve_quota(reserve(ACCOUNT, "h-1", &[(BYTES, 5)]))
        .await?;
    let hold_id = reserved.into_inner().hold_id;
    ensure!(!hold_id.is_empty(), "it was not held");
    let cases: &[Case<quota::CommitHoldRequest>] = &cases![
        "no account" => |r| r.account_id.clear() => invalid("account_id");
        "an unknown account" => |r| r.account_id = "nobody".into() => NO_HOLD;
        "no hold" => |r| r.hold_id.clear() => invalid("hold_id");
        "a made up hold" => |r| r.hold_id = "h-1".into() => NO_HOLD;
        "a long made up hold" => |r| r.hold_id = "00".repeat(50_000) => NO_HOLD;
        "a metric that is not held" => |r| r.items = items(&[("exports.run", 1)]) => invalid("items[0].metric");
        "a malformed metric" => |r| r.items = items(&[("", 1)]) => invalid("items[0].metric");
        "a metric twice" => |r| r.items = items(&[(BYTES, 1); 2]) => invalid("items[1].metric");
        "amount -1" => |r| r.items = items(&[(BYTES, -1)]) => invalid("items[0].amount");
        "amount 2^53" => |r| r.items = items(&[(BYTES, ABOVE)]) => invalid("items[0].amount");
    ];
    for (what, change, expected) in cases {
        let mut request = quota::CommitHoldRequest {
            account_id: ACCOUNT.to_owned(),
            hold_id: hold_id.clone(),
            items: items(&[(BYTES, 1)]),
        };
        change(&mut request);
        let answer = app.quota.clone().commit_hold(request).await;
        check_refusal(what, answer, *expected)?;
    }
    for (what, account, hold, expected) in [
        ("no account", "", hold_id.as_str(), invalid("account_id")),
        ("a malformed account", "a b", &hold_id, invalid("account_id")),
        ("no hold", ACCOUNT, "", invalid("hold_id")),
        ("a made up hold", ACCOUNT, "00", NO_HOLD),
    ] {
        let request = quota::ReleaseHoldRequest {
            account_id: account.to_owned(),
            hold_id: hold.to_owned(),
        };
        let answer = app.quota.clone().release_hold(request).await;
        check_refusal(what, answer, expected)?;
        let request = quota::RenewHoldRequest {
            account_id: account.to_owned(),
            hold_id: hold.to_owned(),
            ttl: None,
        };
        let answer = app.quota.clone().renew_hold(request).await;
        check_refusal(what, answer, expected)?;
    }
    for ttl in [lasting(0, 0), lasting(-1, 0), lasting(86_401, 0), lasting(1, 1)] {
        let request = quota::RenewHoldRequest {
            account_id: ACCOUNT.to_owned(),
            hold_id: hold_id.clone(),
            ttl,
        };
        let answer = app.quota.clone().renew_hold(request).await;
        check_refusal(&format!("{ttl:?}"), answer, invalid("ttl"))?;
    }
    Ok(())
}

async fn bad_uses(app: &Clients) -> Result<()> {
    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }
    let cases: &[Case<quota::RecordUsageRequest>] = &cases![
        "no account" => |r| r.account_id.clear() => invalid("account_id");
        "an unknown account" => |r| r.account_id = "nobody".into() => NO_ACCOUNT;
        "nothing" => |r| r.items.clear() => invalid("items");
        "17 items" => |r| r.items = numbered() => invalid("items");
        "a metric twice" => |r| r.items = items(&[("exports.run", 1); 2]) => invalid("items[1].metric");
        "an unknown metric" => |r| r.items = items(&[("api.nothing", 1)]) => NO_METRIC;
        "amount 0" => |r| r.items = items(&[("exports.run", 0)]) => invalid("items[0].amount");
        "amount -1" => |r| r.items = items(&[("exports.run", -1)]) => invalid("items[0].amount");
        "amount 2^53" => |r| r.items = items(&[("exports.run", ABOVE)]) => invalid("items[0].amount");
        "no request id" => |r| r.request_id.clear() => invalid("request_id");
        "a malformed request id" => |r| r.request_id = "é".into() => invalid("request_id");
        "a time outside the calendar" => |r| r.event_time = at(i64::MAX) => invalid("event_time");
        "a time long ago" => |r| r.event_time = at(1_000_000_000) => OUT_OF_TIME;
        "a time to come" => |r| r.event_time = at(now().as_second() + 600) => OUT_OF_TIME;
        "a backfill of the present" => |r| r.backfill = true => invalid("backfill");
        "a backfill of what is to come" => |r| (r.backfill, r.event_time) = (true, at(now().as_second() + 600))
            => OUT_OF_TIME;
    ];
    for (what, change, expected) in cases {
        let mut request = quota::RecordUsageRequest {
            account_id: ACCOUNT.to_owned(),
            items: items(&[("exports.run", 1)]),
            request_id: "u-1".to_owned(),
            ..quota::RecordUsageRequest::default()
        };
        change(&mut request);
        let answer = app.quota.clone().record_usage(request).await;
        check_refusal(what, answer, *expected)?;
    }
    Ok(())
}

async fn bad_returns(app: &Clients) -> Result<()> {
    const STORED: &str = "personas.stored";
    let cases: &[Case<quota::ReturnQuotaRequest>] = &cases![
        "no account" => |r| r.account_id.clear() => invalid("account_id");
        "an unknown account" => |r| r.account_id = "nobody".into() => NO_ACCOUNT;
        "nothing" => |r| r.items.clear() => invalid("items");
        "17 items" => |r| r.items = numbered() => invalid("items");
        "a metric twice" => |r| r.items = items(&[(STORED, 1); 2]) => invalid("items[1].metric");
        "an unknown metric" => |r| r.items = items(&[("api.nothing", 1)]) => NO_METRIC;
        "what adds up" => |r| r.items = items(&[("exports.run", 1)]) => invalid("items[0].metric");
        "amount 0" => |r| r.items = items(&[(STORED, 0)]) => invalid("items[0].amount");
        "amount -1" => |r| r.items = items(&[(STORED, -1)]) => invalid("items[0].amount");
        "amount 2^53" => |r| r.items = items(&[(STORED, ABOVE)]) => invalid("items[0].amount");
        "no request id" => |r| r.request_id.clear() => invalid("request_id");
    ];
    for (what, change, expected) in cases {
        let mut request = quota::ReturnQuotaRequest {
            account_id: ACCOUNT.to_owned(),
            items: items(&[(STORED, 1)]),
            request_id: "b-1".to_owned(),
        };
        change(&mut request);
        let answer = app.quota.clone().return_quota(request).await;
        check_refusal(what, answer, *expected)?;
    }
    Ok(())
}

async fn bad_overrides(operator: &Clients) -> Result<()> {
    fn replaced(request: &mut quota::SetLimitOverrideRequest) -> &mut quota::LimitOverride {
        request.r#override.get_or_insert_default()
    }
    fn at(seconds: i64, nanos: i32) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos })
    }
    let cases: &[Case<quota::SetLimitOverrideRequest>] = &cases![
        "no account" => |r| r.account_id.clear() => invalid("account_id");
        "an unknown account" => |r| r.account_id = "nobody".into() => NO_ACCOUNT;
        "a malformed metric" => |r| r.metric = "API".into() => invalid("metric");
        "a metric without a limit" => |r| r.metric = BYTES.into() => NO_LIMIT;
        "an unknown metric" => |r| r.metric = "api.nothing".into() =>
            not_found(ErrorReason::MetricNotFound).of("metric");
        "a period without a limit" => |r| r.period = Period::Lifetime.into() => NO_LIMIT;
        "no period" => |r| r.period = 0 => invalid("period");
        "an unknown period" => |r| r.period = 99 => invalid("period");
        "nothing" => |r| r.r#override = None => invalid("override");
        "amount 2^53" => |r| replaced(r).amount = ABOVE.cast_unsigned() => invalid("override.amount");
        "amount 2^64 - 1" => |r| replaced(r).amount = u64::MAX => invalid("override.amount");
        "a time outside the calendar" => |r| replaced(r).expire_time = at(0, -1) => invalid("override.expire_time");
        "a time that is over" => |r| replaced(r).expire_time = at(1_000_000_000, 0)
            => invalid("override.expire_time");
        "a long note" => |r| replaced(r).note = "n".repeat(501) => invalid("override.note");
        "a NUL in the note" => |r| replaced(r).note = "\0".into() => invalid("override.note");
    ];
    for (what, change, expected) in cases {
        let mut request = quota::SetLimitOverrideRequest {
            account_id: ACCOUNT.to_owned(),
            metric: "exports.run".to_owned(),
            period: Period::Hour.into(),
            r#override: Some(quota::LimitOverride::default()),
        };
        change(&mut request);
        let answer = operator.quota.clone().set_limit_override(request).await;
        check_refusal(what, answer, *expected)?;
    }
    let cases: &[Case<quota::ClearLimitOverrideRequest>] = &cases![
        "no account" => |r| r.account_id.clear() => invalid("account_id");
        "an unknown account" => |r| r.account_id = "nobody".into() => NO_ACCOUNT;
        "no metric" => |r| r.metric.clear() => invalid("metric");
        "no period" => |r| r.period = 0 => invalid("period");
    ];
    for (what, change, expected) in cases {
        let mut request = quota::ClearLimitOverrideRequest {
            account_id: ACCOUNT.to_owned(),
            metric: "exports.run".to_owned(),
            period: Period::Hour.into(),
        };
        change(&mut request);
        let answer = operator.quota.clone().clear_limit_override(request).await;
        check_refusal(what, answer, *expected)?;
    }
    for (account, expected) in [("", invalid("account_id")), ("nobody", NO_ACCOUNT)] {
        let request = quota::ListLimitsRequest {
            account_id: account.to_owned(),
        };
        let answer = operator.quota.clone().list_limits(request).await;
        check_refusal("limits", answer, expected)?;
    }
    let request = quota::ListLimitsRequest {
        account_id: ACCOUNT.to_owned(),
    };
    let limits = operator
        .quota
        .clone()
        .list_limits(request)
        .await?
        .into_inner()
        .limits;
    ensure!(
        limits.iter().all(|limit| limit.r#override.is_none()),
        "{limits:?}"
    );
    Ok(())
}

/// A request id that is not UTF-8: field 4 holds bytes in this message and a text in the one that is expected.
async fn what_is_no_message(fleet: &Fleet) -> Result<()> {
    let token = std::fs::read_to_string(fleet.token_file(APPLICATION))?;
    let address = format!("http://{}", fleet.address("quota"));
    let link = Link::remote(&address, &Secret::new(token.trim()))?;
    let mut calls = tonic::client::Grpc::new(link);
    calls.ready().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let request = GetUsageEventRequest {
        account_id: ACCOUNT.to_owned(),
        content_hash: vec![0xff, 0xfe],
        ..GetUsageEventRequest::default()
    };
    let path = PathAndQuery::from_static("/octroi.quota.v1.QuotaService/ReserveQuota");
    let codec = tonic_prost::ProstCodec::<GetUsageEventRequest, quota::ReserveQuotaResponse>::default();
    let answer = calls.unary(request.into_request(), path, codec).await;
    let expected = refusal(Code::InvalidArgument, ErrorReason::BodyMalformed);
    let reason = answer.as_ref().err().and_then(reason_of);
    reason.with_context(|| format!("{answer:?}"))?;
    check_refusal("no text", answer, expected)?;

    let nowhere = PathAndQuery::from_static("/octroi.nothing.v1.NothingService/Nothing");
    let codec = tonic_prost::ProstCodec::<GetUsageEventRequest, quota::ReserveQuotaResponse>::default();
    calls.ready().await.map_err(|error| anyhow::anyhow!("{error}"))?;
    let answer = calls
        .unary(GetUsageEventRequest::default().into_request(), nowhere, codec)
        .await;
    let expected = refusal(Code::Unimplemented, ErrorReason::MethodNotFound);
    check_refusal("no service", answer, expected)
}
