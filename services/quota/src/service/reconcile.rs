//! What could not be finished with an answer is finished later: units of requests whose recording is not
//! known, and decisions that were made without the counters.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{Service, check_quota::Consumption};
use crate::{counters::ANSWER_TTL_S, error::Error};

/// The most that wait here at once. What comes beyond it stays as it is until its windows are read from the
/// ledger again.
const WAITING_MAX: usize = 10_000;

/// How long between tries to reach the counters.
const COUNTERS_WAIT: Duration = Duration::from_secs(1);
/// When it is given up. A mark is forgotten then too, and with it whose units these are.
const GIVE_UP_AFTER: Duration = Duration::from_secs(ANSWER_TTL_S);

/// How many more may wait, and how long. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    places: Arc<Semaphore>,
    /// When the ledger is asked first, and how long between tries. Longer than any call to it may still be on
    /// its way.
    ledger: Duration,
}

impl Waiting {
    pub(super) fn new(ledger: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            ledger,
        }
    }
}

/// What is left to do.
enum Unfinished {
    /// Give the units back if the ledger does not have the request, and no later attempt answers for them.
    FindOut(Consumption),
    /// Give the units back: the ledger does not have them, or has them from before.
    GiveBack(Consumption),
    /// Charge the counters for what the ledger had at this instant.
    Charge(Consumption, Timestamp),
}

impl Unfinished {
    fn name(&self) -> &'static str {
        match self {
            Self::FindOut(_) => "find_out",
            Self::GiveBack(_) => "give_back",
            Self::Charge(..) => "charge",
        }
    }
}

impl Service {
    /// For units whose recording is not known.
    pub(super) fn find_out_later(&self, consumption: Consumption) {
        self.finish_later(Unfinished::FindOut(consumption));
    }

    /// For units that are to be given back, where the counters did not answer.
    pub(super) fn give_back_later(&self, consumption: Consumption) {
        self.finish_later(Unfinished::GiveBack(consumption));
    }

    /// For what was allowed and recorded without the counters.
    pub(super) fn charge_later(&self, consumption: Consumption) {
        self.finish_later(Unfinished::Charge(consumption, self.db.clock().now()));
    }

    fn finish_later(&self, unfinished: Unfinished) {
        let what = unfinished.name();
        let outcomes = |outcome: &'static str| {
            let labels = [("what", what), ("outcome", outcome)];
            metrics::counter!("octroi_quota_unfinished_total", &labels)
        };
        let (finished, given_up) = (outcomes("finished"), outcomes("given_up"));
        let Ok(permit) = self.waiting.places.clone().try_acquire_owned() else {
            given_up.increment(1);
            return;
        };
        let service = self.clone();
        let wait = match unfinished {
            Unfinished::FindOut(_) => self.waiting.ledger,
            Unfinished::GiveBack(_) | Unfinished::Charge(..) => COUNTERS_WAIT,
        };
        tokio::spawn(async move {
            let _permit = permit;
            let since = Instant::now();
            while since.elapsed() < GIVE_UP_AFTER {
                sleep(wait).await;
                if service.finish(&unfinished).await {
                    finished.increment(1);
                    return;
                }
            }
            given_up.increment(1);
            tracing::warn!(
                what,
                "given up; the counters follow the ledger again from the next window on"
            );
        });
    }

    /// Whether it is finished now.
    async fn finish(&self, unfinished: &Unfinished) -> bool {
        match unfinished {
            Unfinished::FindOut(consumption) => match self.find_recording(consumption).await {
                Ok(true) => true,
                // What the ledger has under this id with another content is not ours.
                Ok(false) | Err(Error::RequestIdReused { .. }) => self.try_to_give_back(consumption).await,
                Err(_) => false,
            },
            Unfinished::GiveBack(consumption) => self.try_to_give_back(consumption).await,
            Unfinished::Charge(consumption, recorded_at) => {
                let Consumption { check, mark, receipt } = consumption;
                let charged = self
                    .counters
                    .charge(&check.account, mark, receipt, *recorded_at)
                    .await;
                charged.is_ok()
            }
        }
    }

    async fn try_to_give_back(&self, consumption: &Consumption) -> bool {
        let Consumption { check, mark, receipt } = consumption;
        let given_back = self.counters.give_back(&check.account, mark, &receipt.asks).await;
        given_back.is_ok()
    }
}
