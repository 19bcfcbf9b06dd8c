//! Calls that come while others are worked on are worked on together: whoever is alone waits for nothing, and load makes
//! the batches.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, Notify, mpsc, oneshot};

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

/// How long a batch has to itself before the next begins beside it.
const HEAD_START: Duration = Duration::from_millis(5);

/// Lets batches follow each other as long as each is quick, and run side by side where one is not.
///
/// A batch costs nearly the same however many jobs it has. Two that run side by side have half as many each, so that all
/// of them together are slower than if each had waited for the one before; but where a batch waits for something, such as
/// a lock or a disk, the others go on. Cloning shares it.
#[derive(Clone, Debug)]
pub struct HeadStart(Arc<Latest>);

#[derive(Debug)]
struct Latest {
    batch: std::sync::Mutex<Batch>,
    ended: Notify,
    head_start: Duration,
}

/// The batch that began last.
#[derive(Debug, Default)]
struct Batch {
    number: u64,
    /// When it began; none where it has ended.
    began_at: Option<Instant>,
}

/// A batch that is worked on, until it is dropped.
#[derive(Debug)]
pub struct Lead {
    latest: Arc<Latest>,
    number: u64,
}

impl Default for HeadStart {
    /// One for all batches of a queue.
    fn default() -> Self {
        Self::of(HEAD_START)
    }
}

impl HeadStart {
    fn of(head_start: Duration) -> Self {
        Self(Arc::new(Latest {
            batch: std::sync::Mutex::default(),
            ended: Notify::new(),
            head_start,
        }))
    }

    /// Waits until the batch that began last has ended or had its head start, and begins another. One at a time asks, takes
    /// what waits after that, and keeps the answer until all of it is answered.
    pub async fn lead(&self) -> Lead {
        while let Some(began_at) = self.0.began_at() {
            let until = began_at + self.0.head_start;
            let ended = tokio::time::timeout_at(until.into(), self.0.ended.notified());
            if ended.await.is_err() {
                break;
            }
        }
        let mut batch = self.0.lock();
        batch.number += 1;
        batch.began_at = Some(Instant::now());
        Lead {
            latest: self.0.clone(),
            number: batch.number,
        }
    }
}

impl Latest {
    fn lock(&self) -> std::sync::MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn began_at(&self) -> Option<Instant> {
        self.lock().began_at
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut batch = self.latest.lock();
        if batch.number == self.number {
            batch.began_at = None;
            self.latest.ended.notify_one();
        }
    }
}

/// The bounds of a [`Gather`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most batches that are worked on at the same time, where they are slow.
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
        Self::at(&HeadStart::default(), bounds, work)
    }

    /// The same, where a batch has longer to itself before the next begins beside it.
    pub fn with_head_start<W, F>(head_start: Duration, bounds: Bounds, work: W) -> Self
    where
        W: Fn(Vec<J>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        Self::at(&HeadStart::of(head_start), bounds, work)
    }

    fn at<W, F>(head_start: &HeadStart, bounds: Bounds, work: W) -> Self
    where
        W: Fn(Vec<J>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Vec<A>> + Send + 'static,
    {
        let (jobs, queue) = mpsc::channel(bounds.waiting);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..bounds.batches {
            tokio::spawn(serve(
                queue.clone(),
                head_start.clone(),
                bounds.jobs,
                work.clone(),
            ));
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

async fn serve<J, A, W, F>(
    queue: Arc<Mutex<mpsc::Receiver<Job<J, A>>>>,
    head_start: HeadStart,
    at_once: usize,
    work: W,
) where
    J: Send + 'static,
    A: Send + 'static,
    W: Fn(Vec<J>) -> F,
    F: Future<Output = Vec<A>> + Send + 'static,
{
    while let Some((batch, _lead)) = take(&queue, &head_start, at_once).await {
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
async fn take<J, A>(
    queue: &Mutex<mpsc::Receiver<Job<J, A>>>,
    head_start: &HeadStart,
    at_once: usize,
) -> Option<(Vec<Job<J, A>>, Lead)> {
    let mut queue = queue.lock().await;
    loop {
        let first = queue.recv().await?;
        let lead = head_start.lead().await;
        let others = std::iter::from_fn(|| queue.try_recv().ok());
        let waited_for = std::iter::once(first)
            .chain(others)
            .filter(|(_, caller)| !caller.is_closed());
        let batch: Vec<Job<J, A>> = waited_for.take(at_once).collect();
        if !batch.is_empty() {
            return Some((batch, lead));
        }
    }
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

    const SIDE_BY_SIDE: Bounds = Bounds {
        batches: 2,
        ..ONE_BY_ONE
    };

    /// Answers each job with the jobs of its batch; job 1 is worked on until the second is told.
    fn held_back(head_start: &HeadStart) -> (Gather<u32, Vec<u32>>, oneshot::Sender<()>, mpsc::Receiver<()>) {
        let (end, ended) = oneshot::channel::<()>();
        let (begun, begins) = mpsc::channel(1);
        let ended = Arc::new(Mutex::new(Some(ended)));
        let gather = Gather::at(head_start, SIDE_BY_SIDE, move |jobs: Vec<u32>| {
            let (ended, begun) = (ended.clone(), begun.clone());
            async move {
                if jobs.contains(&1) {
                    begun.send(()).await.expect("the test looks");
                    let ended = ended.lock().await.take().expect("job 1 comes once");
                    ended.await.expect("the test ends it");
                }
                vec![jobs.clone(); jobs.len()]
            }
        });
        (gather, end, begins)
    }

    #[tokio::test]
    async fn a_batch_that_is_quick_is_waited_for_and_what_comes_meanwhile_is_worked_on_together() {
        let (gather, end, mut begins) = held_back(&HeadStart::of(Duration::from_secs(60)));
        let ask = |job| {
            let gather = gather.clone();
            tokio::spawn(async move { gather.ask(job).await })
        };
        let first = ask(1);
        begins.recv().await.expect("it begins");
        let second = ask(2);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let third = ask(3);
        tokio::task::yield_now().await;
        end.send(()).expect("it is worked on");
        assert_eq!(first.await.expect("it ends"), Ok(vec![1]));
        assert_eq!(second.await.expect("it ends"), Ok(vec![2, 3]));
        assert_eq!(third.await.expect("it ends"), Ok(vec![2, 3]));
    }

    #[tokio::test]
    async fn beside_a_batch_that_is_slow_the_next_begins() {
        let (gather, end, mut begins) = held_back(&HeadStart::of(Duration::from_millis(1)));
        let first = tokio::spawn({
            let gather = gather.clone();
            async move { gather.ask(1).await }
        });
        begins.recv().await.expect("it begins");
        assert_eq!(gather.ask(2).await, Ok(vec![2]), "the first is not through");
        end.send(()).expect("it is worked on");
        assert_eq!(first.await.expect("it ends"), Ok(vec![1]));
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
    async fn who_begins_late_is_waited_for_as_well() {
        let head_start = HeadStart::of(Duration::from_millis(1));
        let (slow, second) = (head_start.lead().await, head_start.lead().await);
        drop(second);
        assert!(head_start.0.began_at().is_none(), "nobody is waited for");
        let third = head_start.lead().await;
        drop(slow);
        assert!(head_start.0.began_at().is_some(), "the third is worked on");
        drop(third);
        assert!(head_start.0.began_at().is_none(), "nobody is waited for");
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
