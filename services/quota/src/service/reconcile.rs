//! What could not be finished with an answer is finished later: units of requests whose recording is not
//! known, and decisions that were made without the counters.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{Service, check_quota::Consumption};
use crate::counters::{ANSWER_TTL_S, Ask};

/// The most that wait here at once. What comes beyond it stays as it is until its windows are read from the
/// ledger again.
const WAITING_MAX: usize = 10_000;

/// When the ledger is asked first, and how long between tries. Longer than any call to it may still be on
/// its way.
const LEDGER_WAIT: Duration = Duration::from_secs(30);
/// How long between tries to reach the counters.
const COUNTERS_WAIT: Duration = Duration::from_secs(1);
/// When it is given up. A mark is forgotten then too, and with it whose units these are.
const GIVE_UP_AFTER: Duration = Duration::from_secs(ANSWER_TTL_S);

/// How many more may wait. Cloning shares it.
#[derive(Clone, Debug)]
pub(super) struct Waiting(Arc<Semaphore>);

impl Default for Waiting {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WAITING_MAX)))
    }
}

/// What is left to do.
enum Unfinished {
    /// Give the units back if the ledger does not have the request, and no later attempt answers for them.
    FindOut(Consumption),
    /// Charge the counters for what the ledger has already. A window that is cold by then will be read from
    /// the ledger.
    Charge(Consumption),
}

impl Unfinished {
    fn name(&self) -> &'static str {
        match self {
            Self::FindOut(_) => "find_out",
            Self::Charge(_) => "charge",
        }
    }

    fn wait(&self) -> Duration {
        match self {
            Self::FindOut(_) => LEDGER_WAIT,
            Self::Charge(_) => COUNTERS_WAIT,
        }
    }
}

impl Service {
    /// For units whose recording is not known.
    pub(super) fn find_out_later(&self, consumption: Consumption) {
        self.finish_later(Unfinished::FindOut(consumption));
    }

    /// For what was allowed and recorded without the counters.
    pub(super) fn charge_later(&self, consumption: Consumption) {
        self.finish_later(Unfinished::Charge(consumption));
    }

    fn finish_later(&self, unfinished: Unfinished) {
        let outcomes = |outcome: &'static str| metrics::counter!("octroi_quota_unfinished_total", "what" => unfinished.name(), "outcome" => outcome);
        let (finished, given_up) = (outcomes("finished"), outcomes("given_up"));
        let Ok(permit) = self.waiting.0.clone().try_acquire_owned() else {
            given_up.increment(1);
            return;
        };
        let service = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let since = Instant::now();
            while since.elapsed() < GIVE_UP_AFTER {
                sleep(unfinished.wait()).await;
                if service.finish(&unfinished).await {
                    finished.increment(1);
                    return;
                }
            }
            given_up.increment(1);
            tracing::warn!(
                what = unfinished.name(),
                "given up; the counters follow the ledger again from the next window on"
            );
        });
    }

    /// Whether it is finished now.
    async fn finish(&self, unfinished: &Unfinished) -> bool {
        match unfinished {
            Unfinished::FindOut(consumption) => match self.find_recording(consumption).await {
                Ok(true) => true,
                Ok(false) => {
                    let Consumption {
                        check, mark, asks, ..
                    } = consumption;
                    let given_back = self.counters.give_back(&check.account, mark, asks).await;
                    given_back.is_ok()
                }
                Err(_) => false,
            },
            Unfinished::Charge(Consumption {
                check, mark, asks, ..
            }) => {
                let without_end = asks.iter().cloned().map(|ask| Ask { max: None, ..ask });
                let asks: Vec<Ask> = without_end.collect();
                let now = self.db.clock().now();
                let taken = self.counters.take(&check.account, mark, &asks, now).await;
                taken.is_ok()
            }
        }
    }
}
