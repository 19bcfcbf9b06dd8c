//! When people are told of a limit that changes.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use octroi_proto::{common::v1::Period, notification::v1::ListNoticesRequest, quota::v1::RecordUsageRequest};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, roomy_hour};

use super::{ACCOUNT, METRIC, clear, set, to};
use crate::asks::{consume, decide, items, upsert_account};

/// The limits and shares of them, in percent, that the account was told of.
async fn told(operator: &Clients) -> Result<BTreeSet<(u64, u64)>> {
    let request = ListNoticesRequest {
        account_id: ACCOUNT.to_owned(),
        ..ListNoticesRequest::default()
    };
    let notices = operator
        .notification
        .clone()
        .list_notices(request)
        .await?
        .into_inner()
        .notices;
    let mut told = BTreeSet::new();
    for notice in &notices {
        let fact = |name: &str| notice.facts.get(name).map_or("", String::as_str);
        ensure!((fact("metric"), fact("period")) == (METRIC, "hour"), "{notice:?}");
        let new = told.insert((fact("limit").parse()?, fact("percent").parse()?));
        ensure!(new, "told twice: {notice:?}");
    }
    Ok(told)
}

pub(super) async fn a_limit_that_changes_tells_only_of_shares_that_were_not_passed(
    fleet: &mut Fleet,
) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let mut expected = BTreeSet::new();
    let mut used = 0;
    for (limit, steps) in [
        (
            60,
            &[(47, None), (48, Some(80)), (57, Some(95)), (60, Some(100))][..],
        ),
        // 60 of 70 are more than 80 percent already.
        (70, &[(66, None), (67, Some(95)), (70, Some(100))]),
        (200, &[(159, None), (160, Some(80))]),
        // At the same amount as before each share was told.
        (70, &[]),
        (200, &[(189, None), (190, Some(95))]),
    ] {
        set(&operator, to(METRIC, Period::Hour, limit)).await?;
        for (until, percent) in steps {
            let request = consume(ACCOUNT, &format!("r-{until}"), &[(METRIC, until - used)]);
            let taken = decide(&app, request).await?;
            ensure!(taken.allowed, "{taken:?}");
            used = *until;
            expected.extend(percent.map(|percent| (limit, percent)));
            knows(&operator, &expected).await?;
        }
    }
    // Units that came without asking pass shares as well; of several at once the highest is told.
    clear(&operator, METRIC, Period::Hour).await?;
    set(&operator, to(METRIC, Period::Hour, 300)).await?;
    let record = RecordUsageRequest {
        account_id: ACCOUNT.to_owned(),
        items: items(&[(METRIC, 150)]),
        request_id: "u-1".to_owned(),
        ..RecordUsageRequest::default()
    };
    app.quota.clone().record_usage(record).await?;
    expected.insert((300, 100));
    knows(&operator, &expected).await
}

pub(super) async fn knows(operator: &Clients, expected: &BTreeSet<(u64, u64)>) -> Result<()> {
    eventually("what was passed was told", async || {
        let told = told(operator).await?;
        ensure!(told == *expected, "{told:?} instead of {expected:?}");
        Ok(())
    })
    .await
}
