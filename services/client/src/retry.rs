//! Which calls may be sent again, when, and how long to wait before.

use std::time::Duration;

use octroi_proto::errors::v1::ErrorReason;
use rand::Rng as _;
use tonic::{Code, Status};

use crate::Refusal as _;

const BACKOFF_FIRST: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// After how long every replica recognises a request that another one answered from memory.
pub(crate) const KNOWN_ELSEWHERE: Duration = Duration::from_millis(100);

/// The methods that change nothing, or that change the same once however often they come: by their request
/// id, their event id, their version or their nature.
///
/// A method that is not here may act twice when it comes twice, so an answer that was lost stays lost.
pub const MAY_BE_REPEATED: &[&str] = &[
    "/octroi.account.v1.AccountService/GetAccount",
    "/octroi.account.v1.AccountService/GetAccountBatch",
    "/octroi.account.v1.AccountService/GetSession",
    "/octroi.account.v1.AccountService/ListApiKeys",
    "/octroi.account.v1.AccountService/ListMembers",
    "/octroi.account.v1.AccountService/RevokeApiKey",
    "/octroi.account.v1.AccountService/SignOut",
    "/octroi.account.v1.AccountService/UpdateAccount",
    "/octroi.account.v1.AccountService/VerifyApiKey",
    "/octroi.billing.v1.BillingService/ApplyCatalog",
    "/octroi.billing.v1.BillingService/CheckCatalog",
    "/octroi.billing.v1.BillingService/CreateCustomer",
    "/octroi.billing.v1.BillingService/CreateSubscription",
    "/octroi.billing.v1.BillingService/GetSubscription",
    "/octroi.billing.v1.BillingService/ListPlans",
    "/octroi.notification.v1.NotificationService/ListEmails",
    "/octroi.notification.v1.NotificationService/ListNotices",
    "/octroi.notification.v1.NotificationService/MarkNoticesRead",
    "/octroi.quota.v1.QuotaService/ApplyCatalog",
    "/octroi.quota.v1.QuotaService/ApplyEntitlements",
    "/octroi.quota.v1.QuotaService/CheckQuota",
    "/octroi.quota.v1.QuotaService/CheckQuotaBatch",
    "/octroi.quota.v1.QuotaService/ClearLimitOverride",
    "/octroi.quota.v1.QuotaService/CommitHold",
    "/octroi.quota.v1.QuotaService/ExplainDecision",
    "/octroi.quota.v1.QuotaService/GetCurrentUsage",
    "/octroi.quota.v1.QuotaService/GetEntitlements",
    "/octroi.quota.v1.QuotaService/ListLimits",
    "/octroi.quota.v1.QuotaService/RecordUsage",
    "/octroi.quota.v1.QuotaService/ReleaseHold",
    "/octroi.quota.v1.QuotaService/RenewHold",
    "/octroi.quota.v1.QuotaService/ReserveQuota",
    "/octroi.quota.v1.QuotaService/ReturnQuota",
    "/octroi.quota.v1.QuotaService/SetLimitOverride",
    "/octroi.usage.v1.UsageService/AmendUsage",
    "/octroi.usage.v1.UsageService/ApplyCatalog",
    "/octroi.usage.v1.UsageService/CancelUsageReportJob",
    "/octroi.usage.v1.UsageService/CreateUsageReport",
    "/octroi.usage.v1.UsageService/DownloadUsageReport",
    "/octroi.usage.v1.UsageService/GenerateUsageReport",
    "/octroi.usage.v1.UsageService/ForecastUsage",
    "/octroi.usage.v1.UsageService/GetLedgerTotals",
    "/octroi.usage.v1.UsageService/GetUsageEvent",
    "/octroi.usage.v1.UsageService/GetUsageReportJob",
    "/octroi.usage.v1.UsageService/GetUsageStats",
    "/octroi.usage.v1.UsageService/GetWatermark",
    "/octroi.usage.v1.UsageService/ListAnomalies",
    "/octroi.usage.v1.UsageService/ListUsageEvents",
    "/octroi.usage.v1.UsageService/ListUsageReportJobs",
    "/octroi.usage.v1.UsageService/SealSlices",
    "/octroi.usage.v1.UsageService/StreamUsageReport",
    "/octroi.usage.v1.UsageService/TrackUsage",
    "/octroi.usage.v1.UsageService/TrackUsageBatch",
    "/octroi.usage.v1.UsageService/TrackUsageBatches",
    "/octroi.usage.v1.UsageService/VoidUsage",
];

/// Whether sending `method` again cannot make it act twice.
#[must_use]
pub fn may_be_repeated(method: &str) -> bool {
    MAY_BE_REPEATED.contains(&method)
}

/// The methods whose caller goes on saying more. What was sent on a stream is gone with it, and it has no deadline.
const STREAMS: &[&str] = &[
    "/octroi.quota.v1.QuotaService/CheckQuotaStream",
    "/octroi.usage.v1.UsageService/TrackUsageStream",
];

/// Whether the caller of `method` goes on saying more.
pub(crate) fn is_stream(method: &str) -> bool {
    STREAMS.contains(&method)
}

/// Whether the service refused before anything was begun, so that even what may not be repeated may be sent again.
pub(crate) fn is_refused_at_once(status: &Status) -> bool {
    matches!(
        status.reason(),
        Some(ErrorReason::Overloaded | ErrorReason::NotReady)
    )
}

/// Whether `method` may be sent again after this refusal.
pub(crate) fn is_worth_it(method: &str, status: &Status) -> bool {
    is_refused_at_once(status) || (status.code() == Code::Unavailable && may_be_repeated(method))
}

/// How long to wait before attempt `next` (from 2): a random part of a bound that doubles, so that clients
/// that failed together do not come back together, and never less than the service asked for.
pub(crate) fn pause(next: u32, asked: Option<Duration>) -> Duration {
    let bound = bound(next);
    let microseconds = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX);
    let jittered = Duration::from_micros(rand::rng().random_range(0..=microseconds));
    asked.map_or(jittered, |asked| asked.saturating_add(jittered))
}

fn bound(next: u32) -> Duration {
    let doublings = next.saturating_sub(2).min(16);
    BACKOFF_FIRST.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::refusal::tests::refusal;

    /// What may act twice when it comes twice.
    const ONCE: [&str; 4] = [
        "/octroi.account.v1.AccountService/CreateApiKey",
        "/octroi.account.v1.AccountService/SignIn",
        "/octroi.account.v1.AccountService/SignUp",
        "/octroi.account.v1.AccountService/UpsertAccount",
    ];

    #[test]
    fn every_method_of_the_contracts_was_judged() {
        let set =
            prost_types::FileDescriptorSet::decode(octroi_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let (mut methods, mut streams) = (Vec::new(), Vec::new());
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    if method.client_streaming() {
                        streams.push(path);
                    } else {
                        methods.push(path);
                    }
                }
            }
        }
        methods.sort();
        let mut judged: Vec<String> = MAY_BE_REPEATED
            .iter()
            .chain(&ONCE)
            .map(|one| (*one).to_owned())
            .collect();
        judged.sort();
        assert_eq!(judged, methods);
        assert_eq!(STREAMS, streams);
    }

    #[test]
    fn only_what_may_be_repeated_is() {
        let (safe, once) = (MAY_BE_REPEATED[0], ONCE[0]);
        let away = Status::unavailable("connection refused");
        let database = refusal(Code::Unavailable, "DATABASE_UNAVAILABLE", None);
        let overloaded = refusal(Code::ResourceExhausted, "OVERLOADED", None);
        let limited = refusal(Code::ResourceExhausted, "RATE_LIMITED", None);
        for (method, status, expected) in [
            (safe, &away, true),
            (once, &away, false),
            ("/octroi.quota.v1.QuotaService/Newer", &away, false),
            (safe, &database, true),
            (once, &database, false),
            (safe, &overloaded, true),
            (once, &overloaded, true),
            (safe, &limited, false),
            (safe, &Status::deadline_exceeded("late"), false),
            (safe, &Status::internal("fault"), false),
            (safe, &Status::invalid_argument("bad"), false),
        ] {
            assert_eq!(
                is_worth_it(method, status),
                expected,
                "{method} {:?}",
                status.code()
            );
        }
    }

    #[test]
    fn pauses_grow_and_are_never_shorter_than_asked() {
        for next in 2..12 {
            for _ in 0..50 {
                assert!(pause(next, None) <= BACKOFF_MAX.min(BACKOFF_FIRST * (1 << (next - 2))));
                assert!(pause(next, Some(Duration::from_secs(3))) >= Duration::from_secs(3));
            }
        }
        assert_eq!(bound(u32::MAX), BACKOFF_MAX);
    }
}
