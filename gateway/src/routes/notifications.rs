//! `/api/account/notifications`: what people were told in the application.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use jiff::Timestamp;
use octroi_proto::notification::v1::{ListNoticesRequest, MarkNoticesReadRequest, Notice};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access::Caller,
    body::Body,
    convert::{Severity, cursor, optional_time, time},
    edge::Edge,
    problem::{Problem, SAME_NAMES},
    query::{PAGE_NAMES, Query},
};

/// One notice.
#[derive(Serialize, ToSchema)]
pub(crate) struct Notification {
    notice_id: String,
    /// What it is about, such as `quota.threshold_crossed`.
    kind: String,
    severity: Severity,
    /// The headline, in the account's language.
    title: String,
    /// The text, in the account's language.
    body: String,
    create_time: Timestamp,
    /// When it was read; null until then.
    read_time: Option<Timestamp>,
    /// The facts behind the text, such as metric, period and percent.
    facts: BTreeMap<String, String>,
}

/// A page of notices, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Notifications {
    notifications: Vec<Notification>,
    /// Where to go on; null at the end.
    next_cursor: Option<String>,
    /// How many were not read, over all pages.
    unread_count: u64,
    /// How many there are, over all pages.
    total_count: u64,
}

/// The notices that were read.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadNotices {
    /// 1 to 100 notices.
    #[schema(min_items = 1, max_items = 100)]
    notice_ids: Vec<String>,
}

/// They are read.
#[derive(Serialize, ToSchema)]
pub(crate) struct NoticesRead {
    /// How many were not read before.
    marked_count: u64,
}

fn to_json_notification(notice: Notice) -> Result<Notification, Problem> {
    Ok(Notification {
        notice_id: notice.notice_id,
        kind: notice.kind,
        severity: Severity::from_proto(notice.severity),
        title: notice.title,
        body: notice.body,
        create_time: time(notice.create_time.as_ref())?,
        read_time: optional_time(notice.read_time.as_ref())?,
        facts: notice.facts.into_iter().collect(),
    })
}

/// What people were told, newest first.
#[utoipa::path(
    get, path = "/api/account/notifications", operation_id = "listNotifications", tag = "account",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, description = "How many; absent means 50, above 100 counts as 100."),
        ("cursor" = Option<String>, Query, description = "Where to go on, from the page before."),
        ("unread_only" = Option<bool>, Query, description = "Only those that were not read.")
    ),
    responses((status = 200, description = "A page.", body = Notifications))
)]
pub(crate) async fn notifications(
    State(edge): State<Edge>,
    caller: Caller,
    mut query: Query,
) -> Result<Json<Notifications>, Problem> {
    let (page_size, page_token) = query.page();
    let unread_only = query.flag("unread_only");
    query.finish()?;
    let request = ListNoticesRequest {
        account_id: caller.account_id(),
        page_size,
        page_token,
        unread_only,
    };
    let answer = edge
        .notification()
        .list_notices(caller.request(request))
        .await
        .map_err(|status| Problem::of("notification", &status, PAGE_NAMES))?
        .into_inner();
    Ok(Json(Notifications {
        notifications: answer
            .notices
            .into_iter()
            .map(to_json_notification)
            .collect::<Result<_, _>>()?,
        next_cursor: cursor(answer.next_page_token),
        unread_count: answer.unread_count,
        total_count: answer.total_count,
    }))
}

/// Mark notices as read. Doing it again is no error.
#[utoipa::path(
    post, path = "/api/account/notifications/read", operation_id = "markNotificationsRead", tag = "account",
    request_body = ReadNotices,
    responses((status = 200, description = "They are read.", body = NoticesRead))
)]
pub(crate) async fn mark_notifications_read(
    State(edge): State<Edge>,
    caller: Caller,
    Body(body): Body<ReadNotices>,
) -> Result<Json<NoticesRead>, Problem> {
    let request = MarkNoticesReadRequest {
        account_id: caller.account_id(),
        notice_ids: body.notice_ids,
    };
    let answer = edge
        .notification()
        .mark_notices_read(caller.request(request))
        .await
        .map_err(|status| Problem::of("notification", &status, SAME_NAMES))?;
    Ok(Json(NoticesRead {
        marked_count: answer.into_inner().marked_count,
    }))
}
