//! Whatever is asked in whatever order: each answer is the one that the rules give, and limits, holds and ledger say the
//! same after each step.

mod model;

use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use octroi_proto::{
    billing::v1::ApplyCatalogRequest,
    errors::v1::ErrorReason,
    quota::v1::{
        CheckQuotaResponse, CommitHoldRequest, RecordUsageRequest, ReleaseHoldRequest, ReturnQuotaRequest,
    },
};
use octroi_tests::harness::fleet::{
    APPLICATION, Builder, Clients, Fleet, OPERATOR, Topology, eventually, roomy_hour, tell,
};
use rand::{SeedableRng as _, rngs::StdRng};
use tonic::Code;

use self::model::{Amounts, METRICS, Model, SEATS, Step};
use crate::asks::{
    check_refusal, consume, decide, items, ledger_total, peek, refusal, reserve, standing, upsert_account,
};

/// Steps of a sequence.
const STEPS: usize = 120;

/// Follows a sequence a seed, each of an account of its own.
async fn follow(fleet: Builder, seeds: Range<u64>) -> Result<()> {
    tell(fleet, async |fleet: &mut Fleet| {
        apply_catalog(fleet).await?;
        for seed in seeds {
            roomy_hour().await;
            let mut walk = Walk::new(fleet, seed).await?;
            for step in 0..STEPS {
                let done = walk.step(step).await;
                done.with_context(|| format!("seed {seed}, step {step}, after\n{}", walk.log.join("\n")))?;
            }
            walk.check_ledger().await?;
        }
        Ok(())
    })
    .await
}

async fn apply_catalog(fleet: &Fleet) -> Result<()> {
    let document = model::catalog()?;
    let request = ApplyCatalogRequest { document };
    fleet
        .clients(OPERATOR)?
        .billing
        .clone()
        .apply_catalog(request)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_answers_as_the_rules_say() -> Result<()> {
    follow(Fleet::builder(Topology::OneProcess), 2..4).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_processes_answer_as_the_rules_say() -> Result<()> {
    follow(Fleet::builder(Topology::Split), 4..6).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_anything_set_aside_the_answers_are_the_same() -> Result<()> {
    let fleet = Fleet::builder(Topology::OneProcess)
        .set("quota.slices.units_max", "1")
        .set("quota.slices.buffered_units_min", "1")
        .set("quota.slices.buffered_units_max", "2");
    follow(fleet, 6..8).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_copies_the_answers_are_the_same() -> Result<()> {
    follow(
        Fleet::builder(Topology::Split).set("quota.cache.backend", "off"),
        8..10,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes"]
async fn forty_sequences_are_answered_as_the_rules_say() -> Result<()> {
    follow(Fleet::builder(Topology::OneProcess), 100..140).await
}

/// A program that asks for one account, beside the model of it.
struct Walk {
    app: Clients,
    operator: Clients,
    account: String,
    model: Model,
    random: StdRng,
    log: Vec<String>,
}

impl Walk {
    async fn new(fleet: &Fleet, seed: u64) -> Result<Self> {
        let (app, operator) = (fleet.clients(APPLICATION)?, fleet.clients(OPERATOR)?);
        let account = format!("walk-{seed}");
        upsert_account(&app, &account).await?;
        eventually("quota has the catalog", async || {
            let look = decide(&app, peek(&account, &METRICS.map(|metric| (metric, 1)))).await?;
            ensure!(look.limits.len() == model::LIMITS.len(), "{look:?}");
            Ok(())
        })
        .await?;
        Ok(Self {
            app,
            operator,
            account,
            model: Model::default(),
            random: StdRng::seed_from_u64(seed),
            log: Vec::new(),
        })
    }

    async fn step(&mut self, number: usize) -> Result<()> {
        let step = self.model.choose(&mut self.random);
        self.log.push(format!("{step:?}"));
        let id = format!("r-{number}");
        match step {
            Step::Look(asked) => {
                let answer = decide(&self.app, peek(&self.account, &asked)).await?;
                let expected = self.model.has_room(&asked);
                ensure!(answer.allowed == expected, "expected {expected}: {answer:?}");
            }
            Step::Consume(asked) => self.consume(&id, asked).await?,
            Step::Repeat(id, asked) => {
                let answer = decide(&self.app, consume(&self.account, &id, &asked)).await?;
                ensure!(answer.allowed && answer.repeated_request, "{answer:?}");
            }
            Step::Reserve(asked) => self.reserve(&id, asked).await?,
            Step::Commit(hold, used) => {
                let request = CommitHoldRequest {
                    account_id: self.account.clone(),
                    hold_id: hold.clone(),
                    items: items(&used),
                };
                self.app.quota.clone().commit_hold(request).await?;
                self.model.commit(&hold, &used);
            }
            Step::Release(hold) => {
                let request = ReleaseHoldRequest {
                    account_id: self.account.clone(),
                    hold_id: hold.clone(),
                };
                self.app.quota.clone().release_hold(request).await?;
                self.model.release(&hold);
            }
            Step::Record(used) => {
                let request = RecordUsageRequest {
                    account_id: self.account.clone(),
                    items: items(&used),
                    request_id: id,
                    ..RecordUsageRequest::default()
                };
                self.app.quota.clone().record_usage(request).await?;
                self.model.record(&used);
            }
            Step::Return(amount) => self.give_back(&id, amount).await?,
        }
        self.check_standings().await
    }

    async fn consume(&mut self, id: &str, asked: Amounts) -> Result<()> {
        let expected = self.model.has_room(&asked);
        let answer = decide(&self.app, consume(&self.account, id, &asked)).await?;
        let (id, answer) = if expected && !answer.allowed && self.model.was_freed {
            // A refusal stands for a moment after there is room again.
            self.again(id, &asked).await?
        } else {
            (id.to_owned(), answer)
        };
        ensure!(answer.allowed == expected, "expected {expected}: {answer:?}");
        if expected {
            self.model.take(&id, &asked);
        }
        Ok(())
    }

    async fn again(&self, id: &str, asked: &Amounts) -> Result<(String, CheckQuotaResponse)> {
        let mut tries = 0;
        eventually("it is allowed", async || {
            tries += 1;
            let id = format!("{id}-{tries}");
            let answer = decide(&self.app, consume(&self.account, &id, asked)).await?;
            ensure!(answer.allowed, "{answer:?}");
            Ok((id, answer))
        })
        .await
    }

    async fn reserve(&mut self, id: &str, asked: Amounts) -> Result<()> {
        let expected = self.model.has_room(&asked);
        let request = reserve(&self.account, id, &asked);
        let answer = self.app.quota.clone().reserve_quota(request).await?.into_inner();
        let decision = answer.decision.context("no decision")?;
        ensure!(decision.allowed == expected, "expected {expected}: {decision:?}");
        if expected {
            self.model.hold(answer.hold_id, asked);
        }
        Ok(())
    }

    async fn give_back(&mut self, id: &str, amount: i64) -> Result<()> {
        let request = ReturnQuotaRequest {
            account_id: self.account.clone(),
            items: items(&[(SEATS, amount)]),
            request_id: id.to_owned(),
        };
        let answer = self.app.quota.clone().return_quota(request).await;
        if self.model.give_back(amount) {
            answer?;
            return Ok(());
        }
        let expected = refusal(Code::FailedPrecondition, ErrorReason::LevelBelowZero).of("items[0].amount");
        check_refusal("more than is held", answer, expected)
    }

    /// Every limit has what the model has.
    async fn check_standings(&self) -> Result<()> {
        for limit in &model::LIMITS {
            let expected = self.model.standing(limit);
            eventually("the limit has what was asked for", async || {
                let found = standing(&self.app, &self.account, limit.metric, limit.period).await?;
                let found = (found.used, found.held, found.remaining);
                ensure!(
                    found == expected,
                    "{} {}: {found:?}, expected {expected:?} (used, held, remaining)",
                    limit.metric,
                    limit.period.as_str_name()
                );
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn check_ledger(&self) -> Result<()> {
        for metric in METRICS {
            let expected = self.model.used(metric);
            eventually("the ledger has what was used", async || {
                let total = ledger_total(&self.operator, &self.account, metric).await?;
                let used = (total.decided_amount + total.direct_amount).checked_sub(total.returned_amount);
                ensure!(used == Some(expected), "{metric}: {total:?}, expected {expected}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
