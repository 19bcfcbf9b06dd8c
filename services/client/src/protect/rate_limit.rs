//! What is left, in the headers that programs know (draft-ietf-httpapi-ratelimit-headers).

use std::fmt::{self, Write as _};

use http::{HeaderName, HeaderValue};
use octroi_proto::{
    common::v1::Period,
    quota::v1::{CheckQuotaResponse, LimitStatus},
};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The largest integer of a structured field (RFC 9651, 3.3.1).
const STRUCTURED_INTEGER_MAX: u64 = 999_999_999_999_999;

/// What most items take.
const ITEM_BYTES: usize = 48;

/// `RateLimit-Policy` and `RateLimit` of a decision, one item a limit; none where no limit was looked at.
///
/// The time until a window ends is known for the limit that denied, so only its item says it.
///
/// ```
/// use octroi_client::{protect::rate_limit, proto::{common::v1::Period, quota::v1::{CheckQuotaResponse, LimitStatus}}};
///
/// let decision = CheckQuotaResponse {
///     limits: vec![LimitStatus {
///         metric: "exports.run".into(),
///         period: Period::Lifetime.into(),
///         limit: 5,
///         remaining: 3,
///         ..Default::default()
///     }],
///     ..Default::default()
/// };
/// let headers: Vec<_> = rate_limit(&decision).collect();
/// assert_eq!(headers[0].1, "\"exports.run/lifetime\";q=5");
/// assert_eq!(headers[1].1, "\"exports.run/lifetime\";r=3");
/// ```
pub fn rate_limit(decision: &CheckQuotaResponse) -> impl Iterator<Item = (HeaderName, HeaderValue)> + use<> {
    let room = decision.limits.len() * ITEM_BYTES;
    let (mut policies, mut states) = (String::with_capacity(room), String::with_capacity(room));
    let binding = decision
        .binding_limit
        .and_then(|binding| usize::try_from(binding).ok());
    for (index, limit) in decision.limits.iter().enumerate() {
        let retry_after_s = retry_after_s(decision).filter(|_| binding == Some(index));
        // Writing into a text does not fail.
        let _ = write_policy(&mut policies, limit);
        let _ = write_state(&mut states, limit, retry_after_s);
    }
    [(RATE_LIMIT_POLICY, policies), (RATE_LIMIT, states)]
        .into_iter()
        .filter(|(_, items)| !items.is_empty())
        .filter_map(|(name, items)| Some((name, HeaderValue::try_from(items).ok()?)))
}

fn write_policy(items: &mut String, limit: &LimitStatus) -> fmt::Result {
    begin_item(items, limit)?;
    write!(items, ";q={}", limit.limit.min(STRUCTURED_INTEGER_MAX))?;
    match window_s(limit) {
        Some(seconds) => write!(items, ";w={seconds}"),
        None => Ok(()),
    }
}

fn write_state(items: &mut String, limit: &LimitStatus, retry_after_s: Option<u64>) -> fmt::Result {
    begin_item(items, limit)?;
    write!(items, ";r={}", limit.remaining.min(STRUCTURED_INTEGER_MAX))?;
    match retry_after_s {
        Some(seconds) => write!(items, ";t={seconds}"),
        None => Ok(()),
    }
}

/// Begins the item of a limit. A slug has no character that a structured string would have to escape.
fn begin_item(items: &mut String, limit: &LimitStatus) -> fmt::Result {
    let separator = if items.is_empty() { "" } else { ", " };
    write!(items, "{separator}\"{}/{}\"", limit.metric, period_name(limit))
}

/// How many whole seconds to wait, rounded up: who comes back a moment too early is refused again.
pub(super) fn retry_after_s(decision: &CheckQuotaResponse) -> Option<u64> {
    let delay = std::time::Duration::try_from(decision.retry_after?).ok()?;
    Some(delay.as_secs() + u64::from(delay.subsec_nanos() > 0))
}

/// The length of the window in seconds; none for a lifetime.
fn window_s(limit: &LimitStatus) -> Option<u64> {
    let (start, end) = (limit.window_start_time.as_ref()?, limit.window_end_time.as_ref()?);
    u64::try_from(end.seconds.checked_sub(start.seconds)?).ok()
}

pub(super) fn period_name(limit: &LimitStatus) -> &'static str {
    match limit.period() {
        Period::Hour => "hour",
        Period::Day => "day",
        Period::Month => "month",
        Period::Lifetime => "lifetime",
        Period::Unspecified => "unknown",
    }
}

pub(super) fn period_in_words(limit: &LimitStatus) -> &'static str {
    match limit.period() {
        Period::Hour => "this hour",
        Period::Day => "today",
        Period::Month => "this month",
        Period::Lifetime | Period::Unspecified => "in all",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use prost_types::{Duration, Timestamp};

    use super::*;

    /// A decision that a full hour denied, within a day that has room.
    pub(crate) fn denied() -> CheckQuotaResponse {
        let at = |seconds| Some(Timestamp { seconds, nanos: 0 });
        let limit = |period: Period, limit, remaining, end| LimitStatus {
            metric: "api.requests".to_owned(),
            period: period.into(),
            limit,
            used: limit - remaining,
            remaining,
            window_start_time: at(0),
            window_end_time: at(end),
            ..LimitStatus::default()
        };
        CheckQuotaResponse {
            limits: vec![
                limit(Period::Hour, 60, 0, 3_600),
                limit(Period::Day, 500, 440, 86_400),
            ],
            binding_limit: Some(0),
            retry_after: Some(Duration {
                seconds: 59,
                nanos: 1,
            }),
            ..CheckQuotaResponse::default()
        }
    }

    #[test]
    fn what_is_left_of_each_limit_is_told_and_when_to_come_back() {
        let headers: Vec<(HeaderName, HeaderValue)> = rate_limit(&denied()).collect();
        assert_eq!(
            headers,
            [
                (
                    HeaderName::from_static("ratelimit-policy"),
                    HeaderValue::from_static(
                        "\"api.requests/hour\";q=60;w=3600, \"api.requests/day\";q=500;w=86400"
                    )
                ),
                (
                    HeaderName::from_static("ratelimit"),
                    HeaderValue::from_static("\"api.requests/hour\";r=0;t=60, \"api.requests/day\";r=440")
                ),
            ]
        );
        assert_eq!(rate_limit(&CheckQuotaResponse::default()).count(), 0);
    }

    #[test]
    fn a_limit_is_never_more_than_a_header_can_say() {
        let mut large = denied();
        large.limits.truncate(1);
        large.limits[0].limit = (1 << 53) - 1;
        let (_, policy) = rate_limit(&large).next().expect("a policy");
        assert_eq!(policy, "\"api.requests/hour\";q=999999999999999;w=3600");
    }
}
