//! What must come of recorded traffic, told from the file and the limits alone.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use jiff::{Timestamp, tz::TimeZone};
use octroi_proto::{
    common::v1::{LimitMode, Period},
    notification::v1::ListNoticesRequest,
    quota::v1::GetEntitlementsRequest,
};
use octroi_tests::harness::fleet::{Clients, Fleet, eventually};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

/// The thresholds of a limit that lists none.
const THRESHOLDS: [u32; 3] = [80, 95, 100];

/// What one line of the file says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Its number, the header's being 1.
    pub(super) number: u64,
    pub(super) at: Timestamp,
    pub(super) tokens_in: u64,
    pub(super) tokens_out: u64,
}

impl Line {
    pub(super) fn uses(self) -> [(&'static str, u64); 3] {
        [
            ("llm.requests", 1),
            ("llm.tokens_in", self.tokens_in),
            ("llm.tokens_out", self.tokens_out),
        ]
    }
}

/// What some lines add up to, as the report has it.
pub(super) fn totals(lines: impl IntoIterator<Item = Line>) -> Value {
    let mut totals: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (metric, amount) in lines.into_iter().flat_map(Line::uses) {
        let total = totals.entry(metric).or_default();
        total.0 += amount;
        // An amount of 0 is no use.
        total.1 += u64::from(amount > 0);
    }
    let shown = totals
        .into_iter()
        .map(|(metric, (amount, events))| (metric, json!({ "amount": amount, "events": events })));
    Value::Object(shown.map(|(metric, total)| (metric.to_owned(), total)).collect())
}

/// A limit of the accounts' plan.
pub(super) struct Limit {
    metric: String,
    period: Period,
    amount: u64,
    hard: bool,
}

/// Metric, period and the window's first instant, of an account.
pub(super) type Window = (String, String, &'static str, Timestamp);

fn window(account: &str, limit: &Limit, at: Timestamp) -> Result<Window> {
    let (name, start) = match limit.period {
        Period::Hour => ("hour", at.as_second() - at.as_second().rem_euclid(3_600)),
        Period::Day => ("day", at.as_second() - at.as_second().rem_euclid(86_400)),
        // All of a file is in one month, on whose first day the subscription is anchored.
        _ => (
            "month",
            at.to_zoned(TimeZone::UTC)
                .first_of_month()?
                .start_of_day()?
                .timestamp()
                .as_second(),
        ),
    };
    Ok((
        account.to_owned(),
        limit.metric.clone(),
        name,
        Timestamp::from_second(start)?,
    ))
}

/// What must come of the lines: which are allowed where the quota is asked, and what is crossed.
#[derive(Default)]
pub(super) struct Oracle {
    used: BTreeMap<Window, u64>,
    pub(super) crossed: BTreeSet<(Window, u32)>,
}

impl Oracle {
    /// Takes a line, unless `ask` and a hard limit stands in the way.
    pub(super) fn take(&mut self, account: &str, line: Line, limits: &[Limit], ask: bool) -> Result<bool> {
        let mut asked = Vec::new();
        for (metric, amount) in line.uses() {
            for limit in limits.iter().filter(|limit| limit.metric == metric) {
                asked.push((window(account, limit, line.at)?, amount, limit));
            }
        }
        let used = |window: &Window| self.used.get(window).copied().unwrap_or_default();
        if ask
            && asked
                .iter()
                .any(|(window, amount, limit)| limit.hard && used(window) + amount > limit.amount)
        {
            return Ok(false);
        }
        for (window, amount, limit) in asked {
            let used = self.used.entry(window.clone()).or_default();
            *used += amount;
            let reached = THRESHOLDS
                .into_iter()
                .filter(|percent| *used * 100 >= u64::from(*percent) * limit.amount);
            self.crossed
                .extend(reached.map(|percent| (window.clone(), percent)));
        }
        Ok(true)
    }
}

pub(super) async fn limits_of(operator: &Clients, account: &str) -> Result<Vec<Limit>> {
    let request = GetEntitlementsRequest {
        account_id: account.to_owned(),
    };
    let answer = operator
        .quota
        .clone()
        .get_entitlements(request)
        .await?
        .into_inner();
    let entitlements = answer.entitlements.context("no entitlements")?;
    ensure!(
        entitlements.plan == "replay",
        "{account} has plan {}",
        entitlements.plan
    );
    Ok(entitlements
        .limits
        .into_iter()
        .map(|limit| Limit {
            hard: limit.mode() == LimitMode::Hard,
            period: limit.period(),
            metric: limit.metric,
            amount: limit.amount,
        })
        .collect())
}

/// Quota has noted what the oracle says, and people were told of each limit's highest share, nothing twice.
pub(super) async fn exactly_these_were_crossed(
    fleet: &Fleet,
    operator: &Clients,
    oracle: &Oracle,
    accounts: &BTreeSet<&String>,
) -> Result<()> {
    type Crossing = (String, String, String, i64, i32);
    let expected: BTreeSet<Crossing> = oracle
        .crossed
        .iter()
        .map(|((account, metric, period, start), percent)| {
            (
                account.clone(),
                metric.clone(),
                (*period).to_owned(),
                start.as_second(),
                i32::try_from(*percent).unwrap_or_default(),
            )
        })
        .collect();
    eventually("quota has noted every threshold", async || {
        let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
        let rows: Vec<Crossing> = sqlx::query_as(
            "SELECT account_id, metric, period, extract(epoch FROM start_at)::bigint, threshold_percent
             FROM quota.crossed_threshold WHERE account_id LIKE 'replay-%'",
        )
        .fetch_all(&mut session)
        .await?;
        session.close().await?;
        let noted: BTreeSet<Crossing> = rows.into_iter().collect();
        let difference: Vec<&Crossing> = noted.symmetric_difference(&expected).collect();
        ensure!(difference.is_empty(), "not the same: {difference:?}");
        Ok(())
    })
    .await?;
    eventually("everybody was told", async || {
        let mut told = BTreeSet::new();
        for account in accounts {
            told.extend(told_of(operator, account).await?);
        }
        let unknown: Vec<&Crossing> = told.difference(&expected).collect();
        ensure!(unknown.is_empty(), "told of what was not crossed: {unknown:?}");
        for (account, metric, period, start, percent) in &expected {
            let higher = (percent + 1)..=i32::MAX;
            let window = |percent| (account.clone(), metric.clone(), period.clone(), *start, percent);
            let is_highest = expected
                .range(window(*higher.start())..=window(*higher.end()))
                .next()
                .is_none();
            ensure!(
                !is_highest || told.contains(&window(*percent)),
                "nobody was told of {metric}/{period} {percent}% of {account}"
            );
        }
        Ok(())
    })
    .await
}

async fn told_of(operator: &Clients, account: &str) -> Result<Vec<(String, String, String, i64, i32)>> {
    let request = ListNoticesRequest {
        account_id: account.to_owned(),
        page_size: 100,
        ..ListNoticesRequest::default()
    };
    let page = operator
        .notification
        .clone()
        .list_notices(request)
        .await?
        .into_inner();
    ensure!(page.next_page_token.is_empty(), "more than a page");
    let mut told = Vec::new();
    for notice in page.notices {
        let fact = |name: &str| {
            notice
                .facts
                .get(name)
                .cloned()
                .with_context(|| format!("no {name}"))
        };
        let start: Timestamp = fact("window_start_time")?.parse()?;
        let crossing = (
            account.to_owned(),
            fact("metric")?,
            fact("period")?,
            start.as_second(),
            fact("percent")?.parse()?,
        );
        ensure!(!told.contains(&crossing), "told twice: {crossing:?}");
        told.push(crossing);
    }
    Ok(told)
}
