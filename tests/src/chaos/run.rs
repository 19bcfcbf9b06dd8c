//! One run: an account of its own at its limit, callers, a fault, and the judgement.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use octroi_proto::{
    account::v1::UpsertAccountRequest,
    common::v1::Period,
    quota::v1::{CheckItem, CheckMode, CheckQuotaRequest, LimitOverride, SetLimitOverrideRequest},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{
    books::Reader,
    load::{Load, Target},
    oracle::{Found, Limit, Log, Request, Told},
    report::Outcome,
    rules::{IN_TIME, SETTLES_WITHIN, judge, over_admission},
    scenarios::Scenario,
    site::{BUFFERED, BUFFERED_UNITS_MAX, Site},
};
use crate::harness::fleet::{eventually, roomy_hour};

/// How long callers ask before anything breaks, and after it is healed.
const QUIET: Duration = Duration::from_millis(1_500);
/// More than anybody consumes: the limits of longer periods must not be what denies.
const PLENTY: u64 = 100_000_000;
/// How often everything is looked at while it settles.
const POLL: Duration = Duration::from_millis(250);
/// How many of the last units are consumed one by one.
const ONE_BY_ONE: u64 = 5;

/// What a fault may break, and what it writes down of what it did.
#[derive(Debug)]
pub struct Scene<'s> {
    /// Where.
    pub site: &'s mut Site,
    /// What the seed says.
    pub random: StdRng,
    /// The callers.
    pub load: Arc<Load>,
    /// The limits that were set.
    pub limits: Vec<Limit>,
    /// From when to when the clock was moved past the end of the hour, replica by replica.
    pub clock_moved: Vec<(Duration, Duration)>,
    /// How many replicas were killed.
    pub killed: u64,
}

impl Scene<'_> {
    /// Sets the limit of an hour, and returns once it holds.
    ///
    /// # Errors
    /// When it cannot be set, whatever is broken, for a long time.
    pub async fn set_limit(&mut self, amount: u64) -> Result<()> {
        let sent = self.load.now();
        self.replace_limit(Period::Hour, amount).await?;
        self.limits.push(Limit {
            sent,
            holds: self.load.now(),
            amount,
        });
        Ok(())
    }

    async fn replace_limit(&self, period: Period, amount: u64) -> Result<()> {
        let request = SetLimitOverrideRequest {
            account_id: self.load.account().to_owned(),
            metric: self.load.metric().to_owned(),
            period: period.into(),
            r#override: Some(LimitOverride {
                amount,
                ..LimitOverride::default()
            }),
        };
        let quota = &self.site.operator().quota;
        eventually("the limit is set", async || {
            quota.clone().set_limit_override(request.clone()).await?;
            Ok(())
        })
        .await
    }

    /// Waits.
    pub async fn pause(&mut self, ms: std::ops::Range<u64>) {
        let ms = self.random.random_range(ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    /// An account of the run's own, whose limits every replica has.
    async fn set_up(&mut self, limit: u64) -> Result<()> {
        let account = UpsertAccountRequest {
            account_id: self.load.account().to_owned(),
            ..UpsertAccountRequest::default()
        };
        self.site
            .operator()
            .account
            .clone()
            .upsert_account(account)
            .await?;
        for period in [Period::Day, Period::Month] {
            self.replace_limit(period, PLENTY).await?;
        }
        self.set_limit(limit).await?;
        for clients in self.site.callers().iter().flatten() {
            let look = CheckQuotaRequest {
                account_id: self.load.account().to_owned(),
                items: vec![CheckItem {
                    metric: self.load.metric().to_owned(),
                    amount: 1,
                }],
                mode: CheckMode::Peek.into(),
                ..CheckQuotaRequest::default()
            };
            eventually("a replica has the limit", async || {
                let seen = clients.quota.clone().check_quota(look.clone()).await?;
                let limits = seen.into_inner().limits;
                ensure!(limits.iter().any(|one| one.limit == limit), "{limits:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

/// Runs a scenario.
///
/// # Errors
/// When it does not come to its end: requests are not answered or limits not set although everything was healed, or
/// something cannot be started.
pub async fn run(site: &mut Site, scenario: &Scenario, seed: u64) -> Result<Outcome> {
    roomy_hour().await;
    let mut random = StdRng::seed_from_u64(seed ^ number_of(scenario.name));
    let limit = random.random_range(scenario.limit.clone());
    let target = Target {
        replicas: site.callers().to_vec(),
        account: format!("{}-{seed}-{:08x}", scenario.name, rand::random::<u32>()),
        metric: scenario.metric.to_owned(),
        hold_s: scenario.hold_s,
    };
    let load = Load::new(target, scenario.mix, seed);
    let mut scene = Scene {
        site,
        random,
        load: Arc::clone(&load),
        limits: Vec::new(),
        clock_moved: Vec::new(),
        killed: 0,
    };
    scene.set_up(limit).await?;
    let begun = Instant::now();
    let callers = load.begin();
    tokio::time::sleep(QUIET).await;
    let broke = (scenario.fault)(&mut scene).await.context("the fault");
    scene.site.doors.heal();
    tokio::time::sleep(QUIET).await;
    load.stop();
    for caller in callers {
        caller.await?;
    }
    broke?;
    let lasted = begun.elapsed();
    let counts = load.counts();
    let healed = Instant::now();
    let resolving = tokio::time::timeout(SETTLES_WITHIN, load.resolve()).await;
    let requests = resolving
        .with_context(|| format!("requests are not answered after the fault: {:?}", load.failures()))?;
    let (log, found) = end(&scene, requests, healed).await?;
    Ok(Outcome {
        scenario: scenario.name,
        seed,
        counts,
        lasted,
        requests: log.requests.len(),
        allowed: (log.requests.iter())
            .filter(|request| request.told() == Told::Yes)
            .count(),
        over_admission: over_admission(&log, &found),
        verdicts: judge(&log, &found),
        failures: load.failures(),
        found,
    })
}

/// FNV-1a of a scenario's name, so that scenarios of one seed do not all choose the same.
#[must_use]
pub fn number_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Waits until all is as it should and consumes the rest. Answers what was seen from outside, and what was found.
async fn end(scene: &Scene<'_>, requests: Vec<Request>, healed: Instant) -> Result<(Log, Found)> {
    let load = &scene.load;
    let reader = Reader {
        site: scene.site,
        account: load.account(),
        metric: load.metric(),
    };
    let log = Log {
        requests,
        limits: scene.limits.clone(),
        clock_moved: scene.clock_moved.clone(),
        buffered: load.metric() == BUFFERED,
    };
    let limit = log.limits.last().map_or(0, |limit| limit.amount);
    let mut waited_for = None;
    let mut found = loop {
        let mut found = reader.read(&log.requests).await?;
        found.limit = limit;
        found.stranded_max = scene.killed * BUFFERED_UNITS_MAX;
        // The rest is consumed only afterwards, because that changes what was found.
        found.rest = limit.saturating_sub(found.used_now + found.stranded);
        found.settled = Some(healed.elapsed());
        match unsettled(&log, &found).or_else(|| silent(scene.site.callers().len(), &found)) {
            None => {
                found.waited_for = waited_for;
                break found;
            }
            waits_for => waited_for = waits_for,
        }
        if healed.elapsed() > SETTLES_WITHIN {
            found.settled = None;
            found.waited_for = waited_for;
            break found;
        }
        tokio::time::sleep(POLL).await;
    };
    found.rest = use_the_rest(load, found.rest, healed).await;
    Ok((log, found))
}

/// The replicas that do not say where the account stands, where some do not.
fn silent(replicas: usize, found: &Found) -> Option<String> {
    let silent = replicas.saturating_sub(found.standing.len());
    (silent > 0).then(|| format!("{silent} replicas do not answer"))
}

/// What may take a while and is not done.
fn unsettled(log: &Log, found: &Found) -> Option<String> {
    // Requests were all answered before and do not change any more.
    let of_books = Log {
        requests: Vec::new(),
        limits: log.limits.clone(),
        clock_moved: Vec::new(),
        buffered: log.buffered,
    };
    let verdicts = judge(&of_books, found).into_iter();
    let mut in_time = verdicts.filter(|verdict| IN_TIME.contains(&verdict.invariant));
    in_time.find_map(|verdict| {
        let violation = verdict.violations.first()?;
        Some(format!("{}: {violation}", verdict.invariant))
    })
}

/// Consumes what is left, the last units one by one, and one more, which must not be; answers how much could be.
async fn use_the_rest(load: &Load, rest: u64, healed: Instant) -> u64 {
    let at_once = rest.saturating_sub(ONE_BY_ONE);
    let mut pieces = vec![1; usize::try_from(rest - at_once).unwrap_or(0)];
    pieces.extend((at_once > 0).then_some(at_once));
    let (mut consumed, mut number) = (0, 0);
    while let Some(piece) = pieces.pop() {
        // A denial is no promise for the next request: until the time is over it is asked for again.
        while healed.elapsed() < SETTLES_WITHIN {
            number += 1;
            let request = load.consume(&format!("rest-{number}"), piece).await;
            if request.told() == Told::Yes {
                consumed += piece;
                break;
            }
            tokio::time::sleep(POLL).await;
        }
    }
    let one_more = load.consume("one-more", 1).await;
    consumed + u64::from(one_more.told() == Told::Yes)
}
