//! Between the contracts and the domain.

mod anomaly;

use octroi_core::{AccountId, MetricSlug, Units, Violations, Window};
use octroi_kit::{
    convert::{from_proto_mode, from_proto_period, from_proto_time, to_proto_time},
    page::page_size,
};
use octroi_proto::{account::v1 as account, events::v1 as events, notification::v1 as proto};
use uuid::Uuid;

pub(crate) use self::anomaly::from_proto_anomaly_detected;
use crate::{
    channels::in_app::ShownNotice,
    domain::{Email, EmailStatus, Language, Severity, threshold::ThresholdCrossed},
    service::{EmailPage, ListEmails, ListNotices, MarkNoticesRead, NoticePage},
};

/// The most notices that one call marks.
const NOTICE_IDS_MAX: usize = 100;

/// The request's account, size and token, or all that is wrong with them.
pub(crate) fn from_proto_list_notices(request: proto::ListNoticesRequest) -> Result<ListNotices, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    let page_size = page_size(request.page_size, &mut violations);
    match account {
        Some(account) if violations.0.is_empty() => Ok(ListNotices {
            account,
            unread_only: request.unread_only,
            page_size,
            page_token: request.page_token,
        }),
        _ => Err(violations),
    }
}

/// The request's account, size and token, or all that is wrong with them.
pub(crate) fn from_proto_list_emails(request: proto::ListEmailsRequest) -> Result<ListEmails, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    let page_size = page_size(request.page_size, &mut violations);
    match account {
        Some(account) if violations.0.is_empty() => Ok(ListEmails {
            account,
            page_size,
            page_token: request.page_token,
        }),
        _ => Err(violations),
    }
}

/// The request's account and ids, or all that is wrong with them.
pub(crate) fn from_proto_mark_notices_read(
    request: &proto::MarkNoticesReadRequest,
) -> Result<MarkNoticesRead, Violations> {
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&request.account_id));
    if !(1..=NOTICE_IDS_MAX).contains(&request.notice_ids.len()) {
        violations.add("notice_ids", "must be 1 to 100 ids");
    }
    let mut notice_ids = Vec::new();
    for (index, id) in request.notice_ids.iter().take(NOTICE_IDS_MAX).enumerate() {
        let id = Uuid::try_parse(id).map_err(|_| "must be the id of a notice");
        notice_ids.extend(violations.take(format!("notice_ids[{index}]"), id));
    }
    match account {
        Some(account) if violations.0.is_empty() => Ok(MarkNoticesRead { account, notice_ids }),
        _ => Err(violations),
    }
}

/// A crossing and whose it is, or all that is wrong with the event.
pub(crate) fn from_proto_threshold_crossed(
    event: &events::ThresholdCrossed,
) -> Result<(AccountId, ThresholdCrossed), Violations> {
    const ONE_OF: &str = "must be one of the named values";
    let mut violations = Violations::default();
    let account = violations.take("account_id", AccountId::parse(&event.account_id));
    let metric = violations.take("metric", MetricSlug::parse(&event.metric));
    let period = violations.take("period", from_proto_period(event.period).ok_or(ONE_OF));
    let limit = violations.take("limit", Units::new(event.limit));
    let used = violations.take("used", Units::new(event.used));
    let mode = violations.take("mode", from_proto_mode(event.mode).ok_or(ONE_OF));
    let window = window_of(event, &mut violations);
    if event.threshold_percent == 0 {
        violations.add("threshold_percent", "must be at least 1");
    }
    let crossed = || {
        Some(ThresholdCrossed {
            metric: metric?,
            period: period?,
            limit: limit?,
            percent: event.threshold_percent,
            used: used?,
            window: window?,
            window_closed: event.window_closed,
            mode: mode?,
        })
    };
    match (account, crossed()) {
        (Some(account), Some(crossed)) if violations.0.is_empty() => Ok((account, crossed)),
        _ => Err(violations),
    }
}

/// The window; one without a beginning is that of LIFETIME, one without an end has none.
fn window_of(event: &events::ThresholdCrossed, violations: &mut Violations) -> Option<Window> {
    let start = match &event.window_start_time {
        Some(start) => from_proto_time("window_start_time", start, violations)?,
        None => Window::LIFETIME.start,
    };
    let end = match &event.window_end_time {
        Some(end) => from_proto_time("window_end_time", end, violations)?,
        None => Window::LIFETIME.end,
    };
    Some(Window { start, end })
}

/// The language in which somebody is written to; none where they did not say.
#[must_use]
pub(crate) fn from_proto_language(language: account::Language) -> Option<Language> {
    match language {
        account::Language::English => Some(Language::English),
        account::Language::French => Some(Language::French),
        account::Language::Unspecified => None,
    }
}

fn to_proto_severity(severity: Severity) -> proto::Severity {
    match severity {
        Severity::Info => proto::Severity::Info,
        Severity::Warning => proto::Severity::Warning,
        Severity::Critical => proto::Severity::Critical,
    }
}

fn to_proto_email_status(status: EmailStatus) -> proto::EmailStatus {
    match status {
        EmailStatus::Queued => proto::EmailStatus::Queued,
        EmailStatus::Sent => proto::EmailStatus::Sent,
        EmailStatus::Kept => proto::EmailStatus::Kept,
        EmailStatus::Failed => proto::EmailStatus::Failed,
    }
}

fn to_proto_notice(notice: ShownNotice) -> proto::Notice {
    proto::Notice {
        notice_id: notice.id.to_string(),
        account_id: notice.account.into(),
        kind: notice.kind.as_str().to_owned(),
        severity: to_proto_severity(notice.severity).into(),
        title: notice.text.title,
        body: notice.text.body,
        create_time: Some(to_proto_time(notice.created_at)),
        read_time: notice.read_at.map(to_proto_time),
        facts: notice.facts.into_iter().collect(),
    }
}

fn to_proto_email(email: Email) -> proto::Email {
    proto::Email {
        email_id: email.id.to_string(),
        account_id: email.account.into(),
        recipient: email.recipient,
        subject: email.letter.subject,
        status: to_proto_email_status(email.status).into(),
        create_time: Some(to_proto_time(email.created_at)),
        html: email.letter.html,
        text: email.letter.text,
    }
}

/// A page of notices, on the wire.
#[must_use]
pub(crate) fn to_proto_notice_page(page: NoticePage) -> proto::ListNoticesResponse {
    proto::ListNoticesResponse {
        notices: page.notices.into_iter().map(to_proto_notice).collect(),
        next_page_token: page.next_page_token,
        unread_count: page.counts.unread,
        total_count: page.counts.total,
    }
}

/// A page of e-mails, on the wire.
#[must_use]
pub(crate) fn to_proto_email_page(page: EmailPage) -> proto::ListEmailsResponse {
    proto::ListEmailsResponse {
        emails: page.emails.into_iter().map(to_proto_email).collect(),
        next_page_token: page.next_page_token,
    }
}

#[cfg(test)]
mod tests {
    use octroi_proto::common::v1::{LimitMode, Period};

    use super::*;
    use crate::domain::threshold::tests::example;

    fn event() -> events::ThresholdCrossed {
        events::ThresholdCrossed {
            account_id: "acme".into(),
            metric: "api.requests".into(),
            period: Period::Month.into(),
            limit: 10_000,
            threshold_percent: 80,
            used: 8_012,
            window_start_time: Some(to_proto_time(example().window.start)),
            window_end_time: Some(to_proto_time(example().window.end)),
            window_closed: false,
            mode: LimitMode::Hard.into(),
        }
    }

    #[track_caller]
    fn check(change: fn(&mut events::ThresholdCrossed), field: Option<&str>) {
        let mut event = event();
        change(&mut event);
        let found = from_proto_threshold_crossed(&event).err();
        assert_eq!(found.as_ref().and_then(Violations::first_field), field);
    }

    #[test]
    fn an_event_is_read_whole_or_its_faults_are_named() {
        assert_eq!(
            from_proto_threshold_crossed(&event()).map(|(_, crossed)| crossed),
            Ok(example())
        );
        check(|_| (), None);
        check(|event| event.account_id.clear(), Some("account_id"));
        check(|event| event.metric = "No Slug".into(), Some("metric"));
        check(|event| event.period = 0, Some("period"));
        check(|event| event.limit = u64::MAX, Some("limit"));
        check(|event| event.used = u64::MAX, Some("used"));
        check(|event| event.mode = 99, Some("mode"));
        check(|event| event.threshold_percent = 0, Some("threshold_percent"));
        check(
            |event| {
                event.window_end_time = Some(prost_types::Timestamp {
                    seconds: 0,
                    nanos: -1,
                })
            },
            Some("window_end_time"),
        );
    }

    #[test]
    fn a_lifetime_window_has_no_end() {
        let mut event = event();
        event.period = Period::Lifetime.into();
        event.window_start_time = None;
        event.window_end_time = None;
        let window = from_proto_threshold_crossed(&event).map(|(_, crossed)| crossed.window);
        assert_eq!(window, Ok(Window::LIFETIME));
    }

    #[test]
    fn marking_names_every_id_that_is_none() {
        let request = |ids: &[&str]| proto::MarkNoticesReadRequest {
            account_id: "acme".into(),
            notice_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let id = "00000000-0000-0000-0000-000000000007";
        assert!(from_proto_mark_notices_read(&request(&[id, id])).is_ok());
        for (ids, field) in [
            (&[id, "seven"][..], "notice_ids[1]"),
            (&[], "notice_ids"),
            (&[id; 101], "notice_ids"),
        ] {
            let violations = from_proto_mark_notices_read(&request(ids)).expect_err("a fault");
            assert_eq!(violations.first_field(), Some(field));
        }
    }
}
