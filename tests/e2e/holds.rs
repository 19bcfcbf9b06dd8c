//! Amounts that are held until it is known what was used.

mod commits;
mod ends;
mod reservations;

use anyhow::{Context as _, Result, ensure};
use octroi_proto::{
    common::v1::Period,
    errors::v1::ErrorReason,
    quota::v1::{
        CommitHoldRequest, CommitHoldResponse, LimitStatus, ReleaseHoldRequest, ReleaseHoldResponse,
        RenewHoldRequest, RenewHoldResponse, ReserveQuotaRequest, ReserveQuotaResponse,
    },
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, eventually};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use self::{
    commits::{
        a_hold_is_committed_once, a_hold_is_committed_with_what_was_used,
        callers_that_go_away_hold_and_commit_once, what_a_commit_leaves_is_free_with_its_answer,
    },
    ends::{
        a_hold_lives_as_long_as_it_is_renewed, a_hold_outlives_the_quota_service,
        a_hold_that_ends_gives_its_units_back,
        a_hold_that_was_committed_ends_whatever_becomes_of_the_quota_service,
    },
    reservations::{
        a_hold_takes_all_of_its_metrics_or_none_and_once, an_account_has_ten_thousand_open_holds_at_the_most,
        only_its_own_account_ends_a_hold,
    },
};
use crate::{
    asks::{check_refusal, items, refusal, reserve, standing, upsert_account},
    story::both_topologies,
};

both_topologies!(
    a_hold_is_committed_once,
    a_hold_is_committed_with_what_was_used,
    a_hold_lives_as_long_as_it_is_renewed,
    a_hold_outlives_the_quota_service,
    a_hold_takes_all_of_its_metrics_or_none_and_once,
    a_hold_that_ends_gives_its_units_back,
    a_hold_that_was_committed_ends_whatever_becomes_of_the_quota_service,
    an_account_has_ten_thousand_open_holds_at_the_most,
    callers_that_go_away_hold_and_commit_once,
    only_its_own_account_ends_a_hold,
    what_a_commit_leaves_is_free_with_its_answer,
);

/// 60 an hour, where nothing was bought.
const REQUESTS: &str = "api.requests";
/// 2 an hour.
const EXPORTS: &str = "exports.run";
/// As many as anybody likes.
const BYTES: &str = "api.bytes";

/// An account, and the program that holds for it.
struct Holder {
    app: Clients,
    account: &'static str,
}

impl Holder {
    async fn new(fleet: &Fleet, account: &'static str) -> Result<Self> {
        let app = fleet.clients(APPLICATION)?;
        upsert_account(&app, account).await?;
        Ok(Self { app, account })
    }

    async fn reserve(&self, request: ReserveQuotaRequest) -> Result<ReserveQuotaResponse, Status> {
        Ok(self.app.quota.clone().reserve_quota(request).await?.into_inner())
    }

    /// The id of a hold for a minute that is allowed.
    async fn hold(&self, request_id: &str, asked: &[(&str, i64)]) -> Result<String> {
        let reserved = self.reserve(reserve(self.account, request_id, asked)).await?;
        allowed(&reserved)?;
        Ok(reserved.hold_id)
    }

    /// The same for so many seconds.
    async fn hold_for(&self, request_id: &str, asked: &[(&str, i64)], ttl_s: i64) -> Result<String> {
        let request = ReserveQuotaRequest {
            ttl: Some(seconds(ttl_s)),
            ..reserve(self.account, request_id, asked)
        };
        let reserved = self.reserve(request).await?;
        allowed(&reserved)?;
        Ok(reserved.hold_id)
    }

    async fn commit(&self, hold: &str, used: &[(&str, i64)]) -> Result<Response<CommitHoldResponse>, Status> {
        let request = CommitHoldRequest {
            account_id: self.account.to_owned(),
            hold_id: hold.to_owned(),
            items: items(used),
        };
        self.app.quota.clone().commit_hold(request).await
    }

    async fn release(&self, hold: &str) -> Result<Response<ReleaseHoldResponse>, Status> {
        let request = ReleaseHoldRequest {
            account_id: self.account.to_owned(),
            hold_id: hold.to_owned(),
        };
        self.app.quota.clone().release_hold(request).await
    }

    async fn renew(&self, hold: &str, ttl_s: i64) -> Result<Response<RenewHoldResponse>, Status> {
        let request = RenewHoldRequest {
            account_id: self.account.to_owned(),
            hold_id: hold.to_owned(),
            ttl: Some(seconds(ttl_s)),
        };
        self.app.quota.clone().renew_hold(request).await
    }

    async fn hour(&self, metric: &str) -> Result<LimitStatus> {
        standing(&self.app, self.account, metric, Period::Hour).await
    }

    /// Waits until the hour has this much used, held and left.
    async fn comes_to(&self, metric: &str, expected: (u64, u64, u64)) -> Result<()> {
        eventually("the limit knows how the hold ended", async || {
            let hour = self.hour(metric).await?;
            let found = (hour.used, hour.held, hour.remaining);
            ensure!(found == expected, "expected {expected:?}: {hour:?}");
            Ok(())
        })
        .await
    }
}

const fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

fn allowed(reserved: &ReserveQuotaResponse) -> Result<()> {
    let decision = reserved.decision.as_ref().context("no decision")?;
    ensure!(
        decision.allowed && !reserved.hold_id.is_empty() && reserved.expire_time.is_some(),
        "{reserved:?}"
    );
    Ok(())
}

/// What a commit recorded, metric by metric, with what of it no limit had room for; whether it was the answer to an
/// earlier one; whether it came late.
#[derive(Debug, PartialEq, Eq)]
struct Recorded<'m> {
    items: Vec<(&'m str, u64, u64)>,
    repeated: bool,
    late: bool,
}

impl<'m> Recorded<'m> {
    fn in_time(items: &[(&'m str, u64, u64)]) -> Self {
        Self {
            items: items.to_vec(),
            repeated: false,
            late: false,
        }
    }

    fn late(items: &[(&'m str, u64, u64)]) -> Self {
        Self {
            late: true,
            ..Self::in_time(items)
        }
    }

    fn again(self) -> Self {
        Self {
            repeated: true,
            ..self
        }
    }
}

fn check_commit(
    what: &str,
    answer: Result<Response<CommitHoldResponse>, Status>,
    expected: &Recorded<'_>,
) -> Result<()> {
    let answer = answer.with_context(|| what.to_owned())?.into_inner();
    let items = answer.items.iter();
    let found = Recorded {
        items: (items.map(|item| (item.metric.as_str(), item.amount, item.overrun))).collect(),
        repeated: answer.repeated_request,
        late: answer.late,
    };
    ensure!(found == *expected, "{what}: expected {expected:?}, got {found:?}");
    Ok(())
}

/// The hold ended before, and not in the way that is asked for; it says how.
fn check_ended<T: std::fmt::Debug>(
    what: &str,
    answer: Result<Response<T>, Status>,
    state: &str,
) -> Result<()> {
    let info = answer
        .as_ref()
        .err()
        .and_then(|status| status.get_details_error_info());
    let told = info.and_then(|info| info.metadata.get("state").cloned());
    let expected = refusal(Code::FailedPrecondition, ErrorReason::HoldEnded);
    check_refusal(what, answer, expected)?;
    ensure!(
        told.as_deref() == Some(state),
        "{what}: it was {state}, not {told:?}"
    );
    Ok(())
}
