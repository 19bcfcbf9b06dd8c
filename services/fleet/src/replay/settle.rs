//! After everything was sent: wait until the fleet has worked it off, and ask it what it has.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, MetricSlug};
use octroi_kit::convert::to_proto_time;
use octroi_proto::{
    notification::v1::{ListNoticesRequest, notification_service_client::NotificationServiceClient},
    usage::v1::{GetLedgerTotalsRequest, GetLedgerTotalsResponse, usage_service_client::UsageServiceClient},
};
use tokio::time::Instant;

use super::{
    fleet::{Failure, Fleet},
    prepare::Subject,
    scan::{Total, Totals},
};

const POLL: Duration = Duration::from_millis(500);

/// Accounts that are asked about at the same time.
const AT_ONCE: usize = 16;
/// The most metrics of one question.
const METRICS_MAX: usize = 16;

const THRESHOLD_CROSSED: &str = "quota.threshold_crossed";
const PAGE_SIZE_MAX: i32 = 100;

/// How long we wait for what the fleet still does with what it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// The most, for sums and again for notices.
    pub at_most: Duration,
    /// How long no further notice may come before we believe that it was the last.
    pub quiet: Duration,
    /// The same where the fleet was away in between: what a process had begun to publish when it was killed
    /// is left alone for 15 s before another takes it up.
    pub quiet_after_away: Duration,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            at_most: Duration::from_secs(60),
            quiet: Duration::from_secs(2),
            quiet_after_away: Duration::from_secs(20),
        }
    }
}

/// Thresholds that accounts were told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crossed {
    /// How many.
    pub count: u64,
    /// Whether it was quiet for long enough to believe that no more come.
    pub settled: bool,
}

/// Which events of the ledger are meant.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Their metrics.
    pub metrics: Vec<MetricSlug>,
    /// Their source.
    pub source: String,
    /// The first and the last of their times.
    pub span: (Timestamp, Timestamp),
}

async fn ask(fleet: &Fleet, request: &GetLedgerTotalsRequest) -> Result<GetLedgerTotalsResponse, Failure> {
    fleet
        .call(|link| {
            let request = request.clone();
            async move { UsageServiceClient::new(link).get_ledger_totals(request).await }
        })
        .await
}

/// Sums the selected events of these accounts.
///
/// # Errors
/// [`Failure`].
pub async fn ledger_totals(
    fleet: &Fleet,
    accounts: &[Subject],
    selection: &Selection,
) -> Result<Totals, Failure> {
    let (first, last) = selection.span;
    let end = last.checked_add(SignedDuration::from_micros(1)).unwrap_or(last);
    let questions = accounts.iter().flat_map(|subject| {
        selection
            .metrics
            .chunks(METRICS_MAX)
            .map(|metrics| GetLedgerTotalsRequest {
                account_id: subject.account.to_string(),
                metrics: metrics.iter().map(ToString::to_string).collect(),
                start_time: Some(to_proto_time(first)),
                end_time: Some(to_proto_time(end)),
                source: selection.source.clone(),
                skip_rollups: true,
            })
    });
    let answers = stream::iter(questions).map(async |request| ask(fleet, &request).await);
    let mut answers = answers.buffer_unordered(AT_ONCE);
    let mut totals = Totals::default();
    for metric in &selection.metrics {
        totals.add(metric, Total::default());
    }
    while let Some(answer) = answers.try_next().await? {
        for total in answer.totals {
            let amount = total.decided_amount.saturating_add(total.direct_amount);
            if let Ok(metric) = MetricSlug::parse(&total.metric) {
                totals.add(
                    &metric,
                    Total {
                        amount,
                        events: total.events,
                    },
                );
            }
        }
    }
    Ok(totals)
}

/// How many events of the ledger the rollups do not have yet.
///
/// # Errors
/// [`Failure`].
pub async fn rollup_lag(fleet: &Fleet, metrics: &[MetricSlug]) -> Result<u64, Failure> {
    let mut lag = 0;
    for metrics in metrics.chunks(METRICS_MAX) {
        let metrics = metrics.iter().map(ToString::to_string).collect();
        // Of an empty range nothing is summed: the ledger may be large.
        let nowhere = Some(to_proto_time(Timestamp::UNIX_EPOCH));
        lag = ask(
            fleet,
            &GetLedgerTotalsRequest {
                metrics,
                start_time: nowhere,
                end_time: nowhere,
                skip_rollups: true,
                ..GetLedgerTotalsRequest::default()
            },
        )
        .await?
        .rollup_lag_events;
    }
    Ok(lag)
}

/// Waits until the rollups have everything. Answers what they still lack: other traffic may keep them busy.
///
/// # Errors
/// [`Failure`].
pub async fn rollups(fleet: &Fleet, metrics: &[MetricSlug], waits: Waits) -> Result<u64, Failure> {
    let start = Instant::now();
    loop {
        let lag = rollup_lag(fleet, metrics).await?;
        if lag == 0 || start.elapsed() >= waits.at_most {
            return Ok(lag);
        }
        fleet.pause(POLL).await?;
    }
}

/// Waits until no further notices come, and counts the thresholds that these accounts were told of since
/// they were prepared. No contract tells what quota and notification still have to do, so this is as good as
/// the quiet that is waited for; a process that was restarted while we did not call it is not noticed.
///
/// # Errors
/// [`Failure`].
pub async fn thresholds(fleet: &Fleet, accounts: &[Subject], waits: Waits) -> Result<Crossed, Failure> {
    let start = Instant::now();
    let mut count = count_notices(fleet, accounts).await?;
    let mut since = Instant::now();
    let settled = loop {
        let quiet = if fleet.was_away() {
            waits.quiet_after_away
        } else {
            waits.quiet
        };
        if since.elapsed() >= quiet {
            break true;
        }
        if start.elapsed() >= waits.at_most {
            break false;
        }
        fleet.pause(POLL.min(quiet)).await?;
        let again = count_notices(fleet, accounts).await?;
        if again != count {
            (count, since) = (again, Instant::now());
        }
    };
    let crossed = stream::iter(accounts).map(async |subject| {
        let told = thresholds_of(fleet, &subject.account).await?;
        Ok(told.saturating_sub(subject.thresholds_before))
    });
    let count = crossed
        .buffer_unordered(AT_ONCE)
        .try_fold(0, async |sum, crossed| Ok(sum + crossed))
        .await?;
    Ok(Crossed { count, settled })
}

async fn count_notices(fleet: &Fleet, accounts: &[Subject]) -> Result<u64, Failure> {
    let counts = stream::iter(accounts).map(async |subject| {
        let request = ListNoticesRequest {
            account_id: subject.account.to_string(),
            page_size: 1,
            ..Default::default()
        };
        list_notices(fleet, &request).await.map(|page| page.total_count)
    });
    counts
        .buffer_unordered(AT_ONCE)
        .try_fold(0, async |sum, count| Ok(sum + count))
        .await
}

async fn list_notices(
    fleet: &Fleet,
    request: &ListNoticesRequest,
) -> Result<octroi_proto::notification::v1::ListNoticesResponse, Failure> {
    fleet
        .call(|link| {
            let request = request.clone();
            async move { NotificationServiceClient::new(link).list_notices(request).await }
        })
        .await
}

/// How many thresholds an account was told of.
///
/// # Errors
/// [`Failure`].
pub async fn thresholds_of(fleet: &Fleet, account: &AccountId) -> Result<u64, Failure> {
    let mut request = ListNoticesRequest {
        account_id: account.to_string(),
        page_size: PAGE_SIZE_MAX,
        ..Default::default()
    };
    let mut count = 0;
    loop {
        let page = list_notices(fleet, &request).await?;
        count += page
            .notices
            .iter()
            .map(|notice| u64::from(notice.kind == THRESHOLD_CROSSED))
            .sum::<u64>();
        if page.next_page_token.is_empty() {
            return Ok(count);
        }
        request.page_token = page.next_page_token;
    }
}
