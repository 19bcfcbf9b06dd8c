//! Use out of the ordinary is found once and told once, and what is ahead is told by how it was in the weeks before.

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp, ToSpan as _};
use octroi_kit::convert::to_proto_time;
use octroi_proto::{
    common::v1::AnomalyKind,
    errors::v1::ErrorReason,
    notification::v1::ListNoticesRequest,
    usage::v1::{
        Anomaly, Forecast, ForecastMethod, ForecastTarget, ForecastUsageRequest, GetLedgerTotalsRequest,
        ListAnomaliesRequest, ListAnomaliesResponse, TrackUsageBatchRequest, TrackUsageRequest, UsageEvent,
    },
};
use octroi_tests::harness::fleet::{
    APPLICATION, Clients, Fleet, OPERATOR, Topology, eventually, now, roomy_hour, tell,
};

use crate::{
    asks::{check_refusal, event, invalid, not_found, upsert_account},
    clock::in_the_sandbox,
    rest::{new_key, signed_up},
    story::both_topologies,
};

both_topologies!(limits_are_forecast_by_the_weeks_before);

const STEADY: &str = "steady";
const YOUNG: &str = "young";
const TOKENS: &str = "llm.tokens_in";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn use_out_of_the_ordinary_is_told() -> Result<()> {
    // An hour is looked at an hour after its end, so that what was used in it can be said in time.
    let sandbox = Fleet::builder(Topology::Split)
        .set("sandbox", "true")
        .set("usage.anomalies.grace_s", "3600");
    tell(sandbox, use_out_of_the_ordinary_is_found_and_told_once).await
}

/// The hour of UTC that `at` lies in.
fn hour_of(at: Timestamp) -> Result<Timestamp> {
    Ok(Timestamp::from_second(at.as_second().div_euclid(3_600) * 3_600)?)
}

fn used(account: &str, at: Timestamp, amount: i64) -> UsageEvent {
    UsageEvent {
        event_time: Some(to_proto_time(at)),
        ..event(account, &format!("e-{at}"), TOKENS, amount)
    }
}

/// The same amount in each of the `hours` before an instant, one event an hour.
async fn use_each_hour(
    app: &Clients,
    account: &str,
    before: Timestamp,
    hours: i64,
    amount: i64,
) -> Result<()> {
    let events = (1..=hours).map(|back| used(account, before - back.hours(), amount));
    let request = TrackUsageBatchRequest {
        events: events.collect(),
        all_or_nothing: true,
        ..TrackUsageBatchRequest::default()
    };
    app.usage.clone().track_usage_batch(request).await?;
    Ok(())
}

async fn the_rollups_have_everything(operator: &Clients) -> Result<()> {
    let instant = Some(to_proto_time(now()));
    let request = GetLedgerTotalsRequest {
        metrics: vec![TOKENS.to_owned()],
        start_time: instant,
        end_time: instant,
        ..GetLedgerTotalsRequest::default()
    };
    eventually("the rollups have everything", async || {
        let totals = operator.usage.clone().get_ledger_totals(request.clone()).await?;
        let lag = totals.into_inner().rollup_lag_events;
        ensure!(lag == 0, "{lag}");
        Ok(())
    })
    .await
}

async fn listed(app: &Clients, account: &str, kind: AnomalyKind) -> Result<ListAnomaliesResponse> {
    let request = ListAnomaliesRequest {
        account_id: account.to_owned(),
        kind: kind.into(),
        ..ListAnomaliesRequest::default()
    };
    Ok(app.usage.clone().list_anomalies(request).await?.into_inner())
}

/// Waits until hours that end by `at` were looked at, and answers the account's anomalies.
async fn looked_until(app: &Clients, account: &str, at: Timestamp) -> Result<Vec<Anomaly>> {
    eventually("the hours are looked at", async || {
        let page = listed(app, account, AnomalyKind::Unspecified).await?;
        let until = page.looked_until_time.context("nothing was looked at")?;
        ensure!(until.seconds >= at.as_second(), "{until:?}");
        Ok(page.anomalies)
    })
    .await
}

/// Moves the clock on by an hour, and records what the accounts use then.
async fn an_hour_later(fleet: &Fleet, app: &Clients, at: Timestamp, amount: i64) -> Result<()> {
    in_the_sandbox(fleet, &["move", "1h"]).await?;
    for (account, amount) in [(STEADY, amount), (YOUNG, 50_000)] {
        let request = TrackUsageRequest {
            event: Some(used(account, at, amount)),
            ..TrackUsageRequest::default()
        };
        eventually("the ledger's clock was moved", async || {
            Ok(app.usage.clone().track_usage(request.clone()).await?)
        })
        .await?;
    }
    Ok(())
}

/// How often the account was told of use out of the ordinary.
async fn notices(operator: &Clients, account: &str) -> Result<usize> {
    let request = ListNoticesRequest {
        account_id: account.to_owned(),
        ..ListNoticesRequest::default()
    };
    let page = operator.notification.clone().list_notices(request).await?;
    let about = page
        .into_inner()
        .notices
        .into_iter()
        .filter(|notice| notice.kind == "usage.anomaly_detected");
    let mut told = 0;
    for notice in about {
        let fact = |name: &str| notice.facts.get(name).map(String::as_str);
        ensure!(
            fact("used") == Some("20000") && fact("metric") == Some(TOKENS),
            "{notice:?}"
        );
        ensure!(
            notice.title.contains(TOKENS) && notice.body.contains("20,000"),
            "{notice:?}"
        );
        told += 1;
    }
    Ok(told)
}

async fn use_out_of_the_ordinary_is_found_and_told_once(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    let (start, first) = (now(), hour_of(now())?);
    for account in [STEADY, YOUNG] {
        upsert_account(&app, account).await?;
    }
    // Four weeks and an hour, with the present one; and one week.
    use_each_hour(&app, STEADY, first + 1.hour(), 4 * 168 + 2, 1_000).await?;
    use_each_hour(&app, YOUNG, first + 1.hour(), 168, 1_000).await?;
    the_rollups_have_everything(&operator).await?;

    // What is used in the third hour from now on is twenty times as much; of the young account it is all the time.
    let spike_at = first + 2.hours();
    for (hour, amount) in [(1, 1_000), (2, 20_000), (3, 1_000), (4, 1_000)] {
        an_hour_later(fleet, &app, start + hour.hours(), amount).await?;
    }
    let found = looked_until(&app, STEADY, spike_at + 1.hour()).await?;
    let [spike] = &found[..] else {
        anyhow::bail!("{found:?}");
    };
    ensure!(
        spike.kind() == AnomalyKind::Spike && spike.metric == TOKENS,
        "{spike:?}"
    );
    ensure!(
        (spike.start_time, spike.end_time)
            == (
                Some(to_proto_time(spike_at)),
                Some(to_proto_time(spike_at + 1.hour()))
            ),
        "{spike:?}"
    );
    let peak = spike.peak.context("an anomaly without its hour")?;
    ensure!(
        (peak.actual_amount, peak.expected_amount) == (20_000, 1_000)
            && peak.low_amount < 1_000
            && (1_001..20_000).contains(&peak.high_amount),
        "{peak:?}"
    );
    ensure!(spike.hours == 1 && spike.actual_amount == 20_000, "{spike:?}");
    eventually("people are told", async || {
        let told = notices(&operator, STEADY).await?;
        ensure!(told == 1, "{told}");
        Ok(())
    })
    .await?;

    // A process that begins goes on where the one before was, and nothing is found or told again.
    fleet.stop("usage").await?;
    fleet.restart("usage").await?;
    let app = fleet.clients(APPLICATION)?;
    eventually("usage answers again", async || {
        listed(&app, STEADY, AnomalyKind::Spike).await
    })
    .await?;
    an_hour_later(fleet, &app, start + 5.hours(), 1_000).await?;
    let found = looked_until(&app, STEADY, spike_at + 2.hours()).await?;
    ensure!(
        found.len() == 1
            && found
                .iter()
                .all(|one| one.anomaly_id == spike.anomaly_id && !one.ongoing),
        "{found:?}"
    );
    ensure!(notices(&operator, STEADY).await? == 1, "told again");
    let drops = listed(&app, STEADY, AnomalyKind::Drop).await?;
    ensure!(drops.anomalies.is_empty(), "{drops:?}");
    // Of one week nothing is known.
    let young = listed(&app, YOUNG, AnomalyKind::Unspecified).await?;
    ensure!(young.anomalies.is_empty(), "{young:?}");
    nobody_asks_for_what_is_not_there(&app).await
}

async fn nobody_asks_for_what_is_not_there(app: &Clients) -> Result<()> {
    let ask = async |request| app.usage.clone().list_anomalies(request).await;
    let of = |account: &str| ListAnomaliesRequest {
        account_id: account.to_owned(),
        ..ListAnomaliesRequest::default()
    };
    let unknown = ask(of("nobody")).await;
    check_refusal(
        "an account that does not exist",
        unknown,
        not_found(ErrorReason::AccountNotFound).of("account_id"),
    )?;
    let instant = Some(to_proto_time(now()));
    for (field, request) in [
        (
            "end_time",
            ListAnomaliesRequest {
                start_time: instant,
                end_time: instant,
                ..of(STEADY)
            },
        ),
        (
            "kind",
            ListAnomaliesRequest {
                kind: 9,
                ..of(STEADY)
            },
        ),
    ] {
        check_refusal(field, ask(request).await, invalid(field))?;
    }
    Ok(())
}

/// A limit of a window of twelve hours, of which two are over.
fn target(now: Timestamp, metric: &str, limit: u64, used: u64) -> ForecastTarget {
    ForecastTarget {
        metric: metric.to_owned(),
        limit_amount: limit,
        used_amount: used,
        window_start_time: Some(to_proto_time(now - 2.hours())),
        window_end_time: Some(to_proto_time(now + 10.hours())),
    }
}

async fn forecasts(app: &Clients, account: &str, targets: Vec<ForecastTarget>) -> Result<Vec<Forecast>> {
    let request = ForecastUsageRequest {
        account_id: account.to_owned(),
        targets,
    };
    Ok(app
        .usage
        .clone()
        .forecast_usage(request)
        .await?
        .into_inner()
        .forecasts)
}

async fn limits_are_forecast_by_the_weeks_before(fleet: &mut Fleet) -> Result<()> {
    let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
    let member = signed_up(fleet, "ann@example.com").await?;
    let session = member.get("/api/auth/session").await?.expect(200)?;
    let steady = session["account"]["account_id"].as_str().context("no account")?;
    for account in [YOUNG, "idle"] {
        upsert_account(&app, account).await?;
    }
    let present = now();
    // 100 units in each hour: of more than four weeks, and of two days.
    use_each_hour(&app, steady, present, 4 * 168 + 2, 100).await?;
    use_each_hour(&app, YOUNG, present, 48, 100).await?;
    the_rollups_have_everything(&operator).await?;

    // 500 more are five hours, and 9,800 are more than the ten that are left.
    let asked = [700, 10_000, 200].map(|limit| target(present, TOKENS, limit, 200));
    let found = forecasts(&app, steady, asked.to_vec()).await?;
    let [limit_first, end_first, reached] = &found[..] else {
        anyhow::bail!("{found:?}");
    };
    for forecast in &found {
        ensure!(
            forecast.method() == ForecastMethod::Weeks && forecast.weeks == 4,
            "{forecast:?}"
        );
        ensure!((1_000..=1_400).contains(&forecast.end_value), "{forecast:?}");
        ensure!(
            forecast.end_value_low <= forecast.end_value && forecast.end_value <= forecast.end_value_high,
            "{forecast:?}"
        );
    }
    let reach_s = limit_first.reach_time.context("it is not reached")?.seconds - present.as_second();
    ensure!((3 * 3_600..=7 * 3_600).contains(&reach_s), "{limit_first:?}");
    ensure!(
        limit_first.reach_time_low.is_some() && limit_first.reach_time_high.is_some(),
        "{limit_first:?}"
    );
    ensure!(
        end_first.reach_time.is_none() && !end_first.reached && end_first.reach_time_low.is_none(),
        "{end_first:?}"
    );
    ensure!(
        end_first.horizon_time.map(|at| at.seconds) == Some((present + 10.hours()).as_second()),
        "{end_first:?}"
    );
    ensure!(reached.reached && reached.reach_time.is_none(), "{reached:?}");

    // Two days are an average, and no use at all is nothing.
    let young = forecasts(&app, YOUNG, vec![target(present, TOKENS, 10_000, 200)]).await?;
    ensure!(
        young
            .iter()
            .all(|one| one.method() == ForecastMethod::Average && (1_100..=1_300).contains(&one.end_value)),
        "{young:?}"
    );
    let held = target(present, "personas.stored", 25, 5);
    for (account, target) in [("idle", target(present, TOKENS, 10_000, 0)), (steady, held)] {
        let nothing = forecasts(&app, account, vec![target]).await?;
        ensure!(
            nothing.iter().all(|one| one.method() == ForecastMethod::None),
            "{nothing:?}"
        );
    }
    what_cannot_be_forecast_is_refused(&app, steady, present).await?;

    // Over REST, for the limits that the account has.
    let (_, program) = new_key(&member, &["usage.read"]).await?;
    let answer = program
        .get("/api/account/usage/forecast?metrics=llm.tokens_in")
        .await?
        .expect(200)?;
    let limits = answer["limits"].as_array().context("no limits")?;
    ensure!(
        limits.len() == 1
            && limits.iter().all(|one| one["limit"]["limit"] == 1_000_000
                && one["forecast"]["method"] == "weeks"
                && one["forecast"]["horizon_time"] == one["limit"]["window_end_time"]),
        "{answer}"
    );
    let page = program.get("/api/account/usage/anomalies").await?.expect(200)?;
    ensure!(page["anomalies"].as_array().is_some_and(Vec::is_empty), "{page}");
    Ok(())
}

async fn what_cannot_be_forecast_is_refused(app: &Clients, account: &str, present: Timestamp) -> Result<()> {
    let backwards = ForecastTarget {
        window_end_time: Some(to_proto_time(present - SignedDuration::from_hours(3))),
        ..target(present, TOKENS, 1, 1)
    };
    let too_much = target(present, TOKENS, 1 << 53, 1);
    let unknown = target(present, "api.nothing", 1, 1);
    for (targets, refusal) in [
        (vec![], invalid("targets")),
        (vec![backwards], invalid("targets[0].window_end_time")),
        (vec![too_much], invalid("targets[0].limit_amount")),
        (
            vec![unknown],
            not_found(ErrorReason::MetricNotFound).of("targets[0].metric"),
        ),
    ] {
        let request = ForecastUsageRequest {
            account_id: account.to_owned(),
            targets,
        };
        let answer = app.usage.clone().forecast_usage(request.clone()).await;
        check_refusal(&format!("{request:?}"), answer, refusal)?;
    }
    Ok(())
}
