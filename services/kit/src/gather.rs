//! Calls that come while others are worked on are worked on together: whoever is alone waits for nothing, and load makes
//! the batches.

use std::{fmt, sync::Arc};

use tokio::sync::{Mutex, mpsc, oneshot};

use crate::db::DatabaseError;

type Job<J, A> = (J, oneshot::Sender<A>);

/// Hands jobs in batches to some workers. Cloning shares it; the workers end with the last clone.
pub struct Gather<J, A>(mpsc::Sender<Job<J, A>>);

impl<J, A> Clone for Gather<J, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<J, A> fmt::Debug for Gather<J, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}

/// Why a job has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// Too many wait: it was not begun.
    Full,
    /// Its batch ended without an answer, and may have done something.
    Lost,
}

impl From<Unanswered> for DatabaseError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Full => Self::Busy(sqlx::Error::PoolTimedOut),
            Unanswered::Lost => Self::Aborted,
        }
    }
}

/// The bounds of a [`Gather`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Batches that are worked on at the same time.
    pub batches: usize,
    /// The most jobs of a batch.
    pub jobs: usize,
    /// The most jobs that wait.
    pub waiting: usize,
}

impl<J: Send + 'static, A: Send + 'static> Gather<J, A> {
    /// Starts the workers. `work` answers each job of a batch, in their order.
    pub fn start<W, F>(bounds: Bounds, work: W) -> Self
    where
        W: Fn(Vec<J>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let (jobs, queue) = mpsc::channel(bounds.waiting);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..bounds.batches {
            tokio::spawn(serve(queue.clone(), bounds.jobs, work.clone()));
        }
        Self(jobs)
    }

    /// What `work` answers to the job.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn ask(&self, job: J) -> Result<A, Unanswered> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send((job, answer)).map_err(|_| Unanswered::Full)?;
        answered.await.map_err(|_| Unanswered::Lost)
    }
}

async fn serve<J, A, W, F>(queue: Arc<Mutex<mpsc::Receiver<Job<J, A>>>>, at_once: usize, work: W)
where
    J: Send + 'static,
    A: Send + 'static,
    W: Fn(Vec<J>) -> F,
    F: Future<Output = Vec<A>> + Send + 'static,
{
    while let Some(batch) = take(&queue, at_once).await {
        let (jobs, callers): (Vec<J>, Vec<oneshot::Sender<A>>) = batch.into_iter().unzip();
        // In a task of its own: a panic is the fault of this batch alone.
        let Ok(answers) = tokio::spawn(work(jobs)).await else {
            continue;
        };
        for (caller, answer) in callers.into_iter().zip(answers) {
            // Nobody may wait any more.
            drop(caller.send(answer));
        }
    }
}

/// Waits for a job, then takes all that are there, up to a bound. What nobody waits for any more is dropped.
async fn take<J, A>(queue: &Mutex<mpsc::Receiver<Job<J, A>>>, at_once: usize) -> Option<Vec<Job<J, A>>> {
    let mut queue = queue.lock().await;
    let mut batch = Vec::new();
    while batch.is_empty() {
        let first = queue.recv().await?;
        let others = std::iter::from_fn(|| queue.try_recv().ok());
        let waited_for = std::iter::once(first)
            .chain(others)
            .filter(|(_, caller)| !caller.is_closed());
        batch.extend(waited_for.take(at_once));
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex as StdMutex, time::Duration};

    use super::*;

    const ONE_BY_ONE: Bounds = Bounds {
        batches: 1,
        jobs: 4,
        waiting: 10,
    };

    #[tokio::test]
    async fn what_waits_is_worked_on_together_and_each_has_its_answer() {
        let batches: Arc<StdMutex<Vec<usize>>> = Arc::default();
        let seen = batches.clone();
        let gather = Gather::start(ONE_BY_ONE, move |jobs: Vec<u32>| {
            let seen = seen.clone();
            async move {
                seen.lock().expect("nobody panicked").push(jobs.len());
                tokio::time::sleep(Duration::from_millis(20)).await;
                jobs.iter().map(|job| job * 2).collect()
            }
        });
        let first = tokio::spawn({
            let gather = gather.clone();
            async move { gather.ask(1).await }
        });
        tokio::time::sleep(Duration::from_millis(5)).await;
        let others = futures::future::join_all((2..8).map(|job| gather.ask(job))).await;
        assert_eq!(others, (2..8).map(|job| Ok(job * 2)).collect::<Vec<_>>());
        assert_eq!(first.await.expect("it ends"), Ok(2));
        assert_eq!(*batches.lock().expect("nobody panicked"), [1, 4, 2]);
    }

    #[tokio::test]
    async fn a_batch_that_panics_answers_nobody_and_the_next_is_worked_on() {
        let gather = Gather::start(ONE_BY_ONE, |jobs: Vec<u32>| async move {
            assert!(!jobs.contains(&0), "0 is refused");
            jobs
        });
        assert_eq!(gather.ask(0).await, Err(Unanswered::Lost));
        assert_eq!(gather.ask(1).await, Ok(1));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_worked_on() {
        let seen: Arc<StdMutex<Vec<u32>>> = Arc::default();
        let all = seen.clone();
        let gather = Gather::start(ONE_BY_ONE, move |jobs: Vec<u32>| {
            all.lock().expect("nobody panicked").extend(&jobs);
            async move {
                tokio::time::sleep(Duration::from_millis(20)).await;
                jobs
            }
        });
        let given_up = async {
            // The first is worked on by now.
            tokio::time::sleep(Duration::from_millis(5)).await;
            tokio::time::timeout(Duration::from_millis(5), gather.ask(2)).await
        };
        let (first, second) = futures::join!(gather.ask(1), given_up);
        assert_eq!(first, Ok(1));
        assert!(second.is_err(), "nobody waits for it");
        assert_eq!(gather.ask(3).await, Ok(3));
        assert_eq!(*seen.lock().expect("nobody panicked"), [1, 3]);
    }

    #[tokio::test]
    async fn more_than_may_wait_are_not_answered() {
        let gather = Gather::start(ONE_BY_ONE, |jobs: Vec<u32>| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            jobs
        });
        let answers = futures::future::join_all((0..30).map(|job| gather.ask(job))).await;
        let answered = answers.iter().flatten().count();
        assert!((10..30).contains(&answered), "{answered}");
        let full = answers.iter().filter(|answer| **answer == Err(Unanswered::Full));
        assert_eq!(full.count(), 30 - answered);
    }
}
