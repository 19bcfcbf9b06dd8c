//! What the stories ask for, in few words, and what they are refused.

use anyhow::{Context, Result, bail, ensure};
use octroi_kit::status::reason_of;
use octroi_proto::{
    account::v1::{Account, UpsertAccountRequest},
    common::v1::Period,
    errors::v1::ErrorReason,
    quota::v1::{
        CheckItem, CheckMode, CheckQuotaRequest, CheckQuotaResponse, GetCurrentUsageRequest, LimitStatus,
        ReserveQuotaRequest,
    },
    usage::v1::{GetLedgerTotalsRequest, LedgerTotal, UsageEvent},
};
use octroi_tests::harness::fleet::Clients;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

/// Metrics and how much of each.
pub(crate) fn items(asked: &[(&str, i64)]) -> Vec<CheckItem> {
    let item = |(metric, amount): &(&str, i64)| CheckItem {
        metric: (*metric).to_owned(),
        amount: *amount,
    };
    asked.iter().map(item).collect()
}

/// A check that only looks.
pub(crate) fn peek(account: &str, asked: &[(&str, i64)]) -> CheckQuotaRequest {
    CheckQuotaRequest {
        account_id: account.to_owned(),
        items: items(asked),
        mode: CheckMode::Peek.into(),
        ..CheckQuotaRequest::default()
    }
}

/// A check that takes.
pub(crate) fn consume(account: &str, request_id: &str, items: &[(&str, i64)]) -> CheckQuotaRequest {
    CheckQuotaRequest {
        mode: CheckMode::Consume.into(),
        request_id: request_id.to_owned(),
        ..peek(account, items)
    }
}

/// The answer to a check.
pub(crate) async fn decide(
    clients: &Clients,
    request: CheckQuotaRequest,
) -> Result<CheckQuotaResponse, Status> {
    Ok(clients.quota.clone().check_quota(request).await?.into_inner())
}

/// A reservation for a minute.
pub(crate) fn reserve(account: &str, request_id: &str, asked: &[(&str, i64)]) -> ReserveQuotaRequest {
    ReserveQuotaRequest {
        account_id: account.to_owned(),
        items: items(asked),
        request_id: request_id.to_owned(),
        ..ReserveQuotaRequest::default()
    }
}

/// A usage event of the present.
pub(crate) fn event(account: &str, event_id: &str, metric: &str, amount: i64) -> UsageEvent {
    UsageEvent {
        account_id: account.to_owned(),
        event_id: event_id.to_owned(),
        metric: metric.to_owned(),
        amount,
        ..UsageEvent::default()
    }
}

/// An account of this id.
pub(crate) async fn upsert_account(clients: &Clients, account: &str) -> Result<Account> {
    let request = UpsertAccountRequest {
        account_id: account.to_owned(),
        ..UpsertAccountRequest::default()
    };
    let answer = clients
        .account
        .clone()
        .upsert_account(request)
        .await?
        .into_inner();
    answer.account.context("an answer without the account")
}

/// Where the account stands at one limit.
pub(crate) async fn standing(
    clients: &Clients,
    account: &str,
    metric: &str,
    period: Period,
) -> Result<LimitStatus> {
    let request = GetCurrentUsageRequest {
        account_id: account.to_owned(),
        metrics: vec![metric.to_owned()],
    };
    let limits = clients
        .quota
        .clone()
        .get_current_usage(request)
        .await?
        .into_inner()
        .limits;
    limit_of(&limits, metric, period).cloned()
}

/// The limit of `metric` and `period`.
pub(crate) fn limit_of<'a>(
    limits: &'a [LimitStatus],
    metric: &str,
    period: Period,
) -> Result<&'a LimitStatus> {
    let found = limits
        .iter()
        .find(|limit| limit.metric == metric && limit.period() == period);
    found.with_context(|| format!("no limit of {metric} {} among {limits:?}", period.as_str_name()))
}

/// What the ledger itself has of one metric since ever. Only an operator may ask.
pub(crate) async fn ledger_total(operator: &Clients, account: &str, metric: &str) -> Result<LedgerTotal> {
    let request = GetLedgerTotalsRequest {
        account_id: account.to_owned(),
        metrics: vec![metric.to_owned()],
        ..GetLedgerTotalsRequest::default()
    };
    let totals = operator
        .usage
        .clone()
        .get_ledger_totals(request)
        .await?
        .into_inner()
        .totals;
    totals.into_iter().next().context("no total")
}

/// What a refusal says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) reason: &'static str,
    pub(crate) fields: Vec<String>,
}

/// The refusal; every one has a reason of the closed list, and each field its rule.
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<Response<T>, Status>) -> Result<Refused> {
    let status = match answer {
        Ok(answer) => bail!("it was not refused: {:?}", answer.into_inner()),
        Err(status) => status,
    };
    let reason = reason_of(&status).with_context(|| format!("a refusal without a reason: {status:?}"))?;
    let violations = status
        .get_details_bad_request()
        .map(|bad| bad.field_violations)
        .unwrap_or_default();
    for violation in &violations {
        ensure!(
            !violation.description.is_empty(),
            "{} breaks no rule",
            violation.field
        );
    }
    Ok(Refused {
        code: status.code(),
        reason: reason.name(),
        fields: violations.into_iter().map(|violation| violation.field).collect(),
    })
}

/// What a refusal is expected to say: the code, the reason, and the field that it names first, if any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    code: Code,
    reason: ErrorReason,
    field: Option<&'static str>,
}

/// A refusal that names no field.
pub(crate) const fn refusal(code: Code, reason: ErrorReason) -> Refusal {
    Refusal {
        code,
        reason,
        field: None,
    }
}

/// A field breaks its rule.
pub(crate) const fn invalid(field: &'static str) -> Refusal {
    refusal(Code::InvalidArgument, ErrorReason::FieldInvalid).of(field)
}

/// What is named does not exist.
pub(crate) const fn not_found(reason: ErrorReason) -> Refusal {
    refusal(Code::NotFound, reason)
}

impl Refusal {
    /// The same, about this field.
    pub(crate) const fn of(self, field: &'static str) -> Self {
        Self {
            field: Some(field),
            ..self
        }
    }
}

/// It was refused, and as expected.
#[track_caller]
pub(crate) fn check_refusal<T: std::fmt::Debug>(
    what: &str,
    answer: Result<Response<T>, Status>,
    expected: Refusal,
) -> Result<()> {
    let refused = refused(answer).with_context(|| what.to_owned())?;
    let Refusal { code, reason, field } = expected;
    let first = refused.fields.first().map(String::as_str);
    ensure!(
        (refused.code, refused.reason, first) == (code, reason.name(), field),
        "{what}: expected {expected:?}, got {refused:?}"
    );
    Ok(())
}
