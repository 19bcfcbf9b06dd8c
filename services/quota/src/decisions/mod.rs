//! Decisions that were made, remembered to be explained.
//!
//! All of them in the memory of this replica, for as long as the ids of their requests, within bounds of memory. Those
//! that people ask about later (denied, degraded, held, under an override) besides in PostgreSQL, for every replica,
//! written behind: whoever decides never waits for it and never fails by it.

mod journal;
mod recent;
mod ring;
mod sample;

use std::sync::Arc;

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::{DatabaseError, Db, Scope};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{journal::Journal, recent::Recent, ring::Ring, sample::Sampler};
use crate::{
    config::DecisionsConfig,
    domain::{
        check::Item,
        decision::Decision,
        explained::{Action, Explained, FromMemory, HoldEnd, Question, Record, WRITTEN, Worth, number},
    },
    escrow::QuickCheck,
    store,
};

/// What is remembered of decisions. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Decisions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Db,
    /// Those that were made from memory.
    ring: Ring,
    /// All others.
    recent: Recent,
    sampler: Sampler,
    journal: Journal,
}

impl Decisions {
    /// An empty memory, and a journal in this database.
    #[must_use]
    pub fn new(db: &Db, config: &DecisionsConfig) -> Self {
        Self(Arc::new(Inner {
            db: db.clone(),
            ring: Ring::new(config.from_memory_max),
            recent: Recent::new(config.bytes_max),
            sampler: Sampler::new(config.written_per_second_max),
            journal: Journal::new(config.queue_max),
        }))
    }

    /// Remembers a decision that was made from memory, and gives it back.
    #[must_use]
    pub fn note_quick(&self, check: &QuickCheck<'_>, caller: &str, made: FromMemory) -> Decision {
        let written = self.is_sampled(made.worth(), &made.account, made.at);
        if !written && self.0.ring.fits(check, &made) {
            return self.0.ring.push(check, caller, made);
        }
        // One that is written down, or that is too large for the ring, is kept as others are.
        let decision = made.with_basis(&check.items);
        let question = ring::question(made.account, caller, check.request, items(check, &made.plan));
        self.remember(Explained::new(question, &decision, made.at), written);
        made.decision
    }

    /// Remembers a decision.
    pub fn note(&self, question: Question, decision: &Decision, expires_at: Option<Timestamp>) {
        let now = self.0.db.clock().now();
        let explained = Explained {
            expires_at,
            ..Explained::new(question, decision, now)
        };
        let account = &explained.question.account;
        if decision.repeated_request && self.find_in_memory(&decision.id, Some(account), now).is_some() {
            // The first answer is known with what it was made of.
            return;
        }
        // A denial that was written down is not the last word where the request is allowed after it.
        let earlier = number(&decision.id).and_then(|number| self.0.recent.was_allowed(number, account));
        let changed = earlier.is_some_and(|allowed| allowed != decision.allowed);
        let worth = explained.worth();
        let written = if decision.repeated_request {
            // Whoever asked first may have gone away before the first answer was noted.
            worth == Worth::All
        } else {
            changed || self.is_sampled(worth, account, explained.decided_at)
        };
        self.remember(explained, written);
    }

    /// Remembers how a hold ended.
    pub fn note_end(&self, end: HoldEnd) {
        let record = Arc::new(Record::HoldEnd(end));
        self.0.recent.push(Arc::clone(&record), self.0.db.clock().now());
        self.0.journal.write(record);
    }

    fn remember(&self, explained: Explained, written: bool) {
        let now = explained.decided_at;
        let record = Arc::new(Record::Decision(Box::new(explained)));
        self.0.recent.push(Arc::clone(&record), now);
        if written {
            self.0.journal.write(record);
        }
    }

    fn is_sampled(&self, worth: Worth<'_>, account: &AccountId, now: Timestamp) -> bool {
        match worth {
            Worth::None => false,
            Worth::All => true,
            Worth::Some(metric) => self.0.sampler.admit(account, metric, now),
        }
    }

    /// The decision of this id, from memory, or else from what any replica has written down: of one account, where one
    /// is named.
    ///
    /// # Errors
    /// [`DatabaseError`] where it is not in memory and the database does not answer.
    pub async fn find(
        &self,
        id: &str,
        account: Option<&AccountId>,
        now: Timestamp,
    ) -> Result<Option<Explained>, DatabaseError> {
        let found = self.find_in_memory(id, account, now);
        let is_first = |found: &Explained| !found.decision.repeated_request;
        let Some(number) = number(id).filter(|_| !found.as_ref().is_some_and(is_first)) else {
            return Ok(found);
        };
        // The first answer may be written down where only a repeat is in memory.
        match self.find_written(number, account, now).await {
            Ok(Some(Record::Decision(explained))) => Ok(Some(*explained)),
            Err(error) if found.is_none() => Err(error),
            Ok(_) | Err(_) => Ok(found),
        }
    }

    /// How the hold of this number ended, where a call ended it.
    ///
    /// # Errors
    /// [`DatabaseError`] where it is not in memory and the database does not answer.
    pub async fn find_end(
        &self,
        hold: Uuid,
        account: &AccountId,
        now: Timestamp,
    ) -> Result<Option<HoldEnd>, DatabaseError> {
        let found = self.0.recent.find(hold.as_u128(), Some(account), now);
        let end = |record: &Record| match record {
            Record::HoldEnd(end) => Some(end.clone()),
            Record::Decision(_) => None,
        };
        if let Some(found) = found.iter().rev().find_map(|record| end(record)) {
            return Ok(Some(found));
        }
        let written = self.find_written(hold.as_u128(), Some(account), now).await?;
        Ok(written.as_ref().and_then(end))
    }

    async fn find_written(
        &self,
        number: u128,
        account: Option<&AccountId>,
        now: Timestamp,
    ) -> Result<Option<Record>, DatabaseError> {
        let (account, since) = (account.cloned(), now - WRITTEN);
        self.0
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(
                    async move { store::find_decision(connection, number, account.as_ref(), since).await },
                )
            })
            .await
    }

    fn find_in_memory(&self, id: &str, account: Option<&AccountId>, now: Timestamp) -> Option<Explained> {
        let number = number(id)?;
        let found = self.0.recent.find(number, account, now);
        let recent = found.iter().rev().find_map(|record| match record.as_ref() {
            Record::Decision(explained) => Some(explained.as_ref().clone()),
            Record::HoldEnd(_) => None,
        });
        recent.or_else(|| self.0.ring.find(number, account, now))
    }

    /// Writes down what is to be kept, and deletes what was kept for long enough, until `stop`.
    pub async fn write_down(self, stop: CancellationToken) {
        self.0.journal.run(&self.0.db, stop).await;
    }
}

/// The items of a check, with the names that the plan has for their metrics: nothing is copied for a name.
fn items(check: &QuickCheck<'_>, plan: &crate::domain::plan::Plan) -> Vec<Item> {
    let item = |(name, amount): &(&str, octroi_core::Units)| {
        let metric = plan.metric(name)?.metric.clone();
        Some(Item {
            metric,
            amount: *amount,
        })
    };
    check.items.iter().filter_map(item).collect()
}

/// What a check asks that has a request or only looks.
#[must_use]
pub fn action(request: Option<&str>) -> Action {
    if request.is_some() {
        Action::Consume
    } else {
        Action::Peek
    }
}
