//! Windows of limits, and levels.

use anyhow::{Context, Result, ensure};
use octroi_proto::{
    common::v1::Period,
    quota::v1::{LimitOverride, ReturnQuotaRequest, SetLimitOverrideRequest},
    usage::v1::ListUsageEventsRequest,
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, roomy_hour};

use super::{ACCOUNT, amend, amend_all, made, not_made, undo, void, void_all};
use crate::asks::{consume, decide, items, ledger_total, standing, upsert_account};

const METRIC: &str = "api.requests";
/// 25, where nothing was bought.
const STORED: &str = "personas.stored";

/// Source and id of the account's newest event of a metric.
async fn newest(app: &Clients, metric: &str) -> Result<(String, String)> {
    let request = ListUsageEventsRequest {
        account_id: ACCOUNT.to_owned(),
        metric: metric.to_owned(),
        page_size: 1,
        ..ListUsageEventsRequest::default()
    };
    let page = app.usage.clone().list_usage_events(request).await?.into_inner();
    let recorded = page.events.into_iter().next().context("no event")?;
    let event = recorded.event.context("no event")?;
    Ok((event.source, event.event_id))
}

async fn used_is(app: &Clients, metric: &str, period: Period, used: u64) -> Result<()> {
    eventually("the window follows", async || {
        let standing = standing(app, ACCOUNT, metric, period).await?;
        ensure!(standing.used == used, "{used} are used: {standing:?}");
        Ok(())
    })
    .await
}

/// The account may take ten an hour.
pub(super) async fn limit_to_ten(operator: &Clients) -> Result<()> {
    let limit = SetLimitOverrideRequest {
        account_id: ACCOUNT.to_owned(),
        metric: METRIC.to_owned(),
        period: Period::Hour.into(),
        r#override: Some(LimitOverride {
            amount: 10,
            ..LimitOverride::default()
        }),
    };
    operator.quota.clone().set_limit_override(limit).await?;
    Ok(())
}

pub(super) async fn units_come_back_to_an_open_window(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    limit_to_ten(&operator).await?;
    let take = async |id: &str, amount: i64| {
        let answer = decide(&app, consume(ACCOUNT, id, &[(METRIC, amount)])).await?;
        Ok::<bool, anyhow::Error>(answer.allowed)
    };
    ensure!(take("r-1", 6).await? && take("r-2", 4).await? && !take("r-3", 1).await?);
    let (source, second) = newest(&app, METRIC).await?;

    // Four come back, and can be taken once more and not twice.
    made(void_all(&app, vec![void("c-1", &source, &second)]).await?)?;
    used_is(&app, METRIC, Period::Hour, 6).await?;
    eventually("there is room again", async || {
        ensure!(take("r-4", 4).await?);
        Ok(())
    })
    .await?;
    ensure!(!take("r-5", 1).await?);

    // What was sold again in the meantime is over the limit when the voiding is undone; nobody is refused that.
    let mut back = undo("c-2", &second, "c-1");
    back.source.clone_from(&source);
    made(amend_all(&app, vec![back], false).await?)?;
    used_is(&app, METRIC, Period::Hour, 14).await?;
    ensure!(!take("r-6", 1).await?);

    // Part of it comes back; the limit is still passed by one.
    let mut less = amend("c-3", &second, 1);
    less.source.clone_from(&source);
    made(amend_all(&app, vec![less], false).await?)?;
    used_is(&app, METRIC, Period::Hour, 11).await?;
    ensure!(!take("r-7", 1).await?);

    let total = ledger_total(&operator, ACCOUNT, METRIC).await?;
    ensure!(
        (total.decided_amount, total.charged_amount, total.events) == (11, 14, 3),
        "{total:?}"
    );
    Ok(())
}

pub(super) async fn a_level_follows_what_is_corrected(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    upsert_account(&app, ACCOUNT).await?;
    let take = async |id: &str, amount: i64| {
        let answer = decide(&app, consume(ACCOUNT, id, &[(STORED, amount)])).await?;
        Ok::<bool, anyhow::Error>(answer.allowed)
    };
    ensure!(take("t-1", 20).await?);
    let (source, taken) = newest(&app, STORED).await?;
    let give_back = ReturnQuotaRequest {
        account_id: ACCOUNT.to_owned(),
        items: items(&[(STORED, 15)]),
        request_id: "b-1".to_owned(),
    };
    app.quota.clone().return_quota(give_back).await?;
    used_is(&app, STORED, Period::Lifetime, 5).await?;
    let (of_return, returned) = newest(&app, STORED).await?;
    ensure!(of_return != source, "{of_return}");

    // Only 5 are held, so no more than that can be taken off what was taken.
    let mut too_much = amend("c-1", &taken, 14);
    too_much.source.clone_from(&source);
    let refused = not_made(amend_all(&app, vec![too_much.clone()], false).await?)?;
    ensure!(
        refused == [("LEVEL_BELOW_ZERO".to_owned(), "amendments[0]".to_owned())],
        "{refused:?}"
    );
    // With the return voided in the same call before it, all of it can.
    let mut back = amend("c-2", &returned, 0);
    back.source.clone_from(&of_return);
    made(amend_all(&app, vec![back, too_much], false).await?)?;
    used_is(&app, STORED, Period::Lifetime, 14).await?;
    eventually("there is room for 11", async || {
        ensure!(take("t-2", 11).await?);
        Ok(())
    })
    .await?;
    ensure!(!take("t-3", 1).await?);
    let total = ledger_total(&operator, ACCOUNT, STORED).await?;
    ensure!(
        (total.decided_amount, total.returned_amount) == (25, 0),
        "{total:?}"
    );
    Ok(())
}
