//! One try to handle one message, and what follows from how it went. The same for both variants.

use super::{BoxError, Message, Queue};
use futures::future::BoxFuture;
use std::{fmt, sync::Arc, time::Duration};
use tokio::task::JoinHandle;

/// What a consumer does with a message. It is called at least once a message and must keep its own inbox.
pub type Handler = Arc<dyn Fn(Message) -> BoxFuture<'static, Result<(), HandleError>> + Send + Sync>;

/// Why a message was not handled.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// This try failed and another may succeed. It counts towards the queue's limit, because the fault may be
    /// the message's own or the handler's.
    #[error("failed for now")]
    Retry(#[source] BoxError),
    /// Something that the handler needs is away: tried again until it is back, however long that takes. It
    /// does not count towards the queue's limit.
    #[error("something is away")]
    Away(#[source] BoxError),
    /// It can never succeed: a dead letter at once.
    #[error("can never succeed")]
    Poison(#[source] BoxError),
}

impl HandleError {
    /// This try failed, and it counts.
    pub fn retry(source: impl Into<BoxError>) -> Self {
        Self::Retry(source.into())
    }

    /// Something that the handler needs is away.
    pub fn away(source: impl Into<BoxError>) -> Self {
        Self::Away(source.into())
    }

    /// No try can ever succeed.
    pub fn poison(source: impl Into<BoxError>) -> Self {
        Self::Poison(source.into())
    }
}

/// Why a message is a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadReason {
    /// Its handler said that it can never succeed.
    Poison,
    /// As many tries as the queue allows failed by its own fault or its handler's.
    DeliveryLimit,
    /// It is no message of this fleet: its id, type or time cannot be read. RabbitMQ only.
    Malformed,
}

impl DeadReason {
    /// The reason as it stands in headers, labels and tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poison => "poison",
            Self::DeliveryLimit => "delivery_limit",
            Self::Malformed => "malformed",
        }
    }
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A message that nobody could handle.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The queue whose handler gave up.
    pub queue: &'static str,
    /// The message as it was published.
    pub message: Message,
    /// Why.
    pub reason: DeadReason,
    /// How often it was tried, from 1; tries that found something away are among them.
    pub attempts: u32,
    /// What the handler said in the last try, at most 1 KiB.
    pub error: String,
}

/// Where dead letters of the bus in process go, so that somebody can look at them and replay them.
pub trait DeadLetters: Send + Sync + 'static {
    /// Keeps a dead letter for good. Called again, with the same letter, until it succeeds.
    fn keep(&self, letter: DeadLetter) -> BoxFuture<'_, Result<(), BoxError>>;
}

/// The tries of one message that have failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failed {
    /// All of them. The wait before the next one follows from it.
    pub(super) tries: u32,
    /// Those that found nothing away, so that the message or its handler is to blame. The limit is theirs.
    pub(super) faults: u32,
}

/// What to do with a message after a try.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is handled.
    Handled,
    /// It is tried again after a while.
    Again {
        /// How long it waits.
        delay: Duration,
        /// What has failed by now.
        failed: Failed,
    },
    /// Nobody can handle it.
    Dead {
        /// Why.
        reason: DeadReason,
        /// How often it was tried.
        attempts: u32,
        /// What the handler said.
        error: String,
    },
}

/// Most bytes of an error's text that travel with a dead letter.
const ERROR_BYTES_MAX: usize = 1024;

/// Runs the handler once, in a task of its own: a panic is a failed try, and so is one that takes too long.
pub(super) async fn attempt(queue: &Queue, handler: &Handler, message: Message) -> Result<(), HandleError> {
    let handler = Arc::clone(handler);
    let mut task = AbortOnDrop(tokio::spawn(async move { handler(message).await }));
    match tokio::time::timeout(queue.handling_max, &mut task.0).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(HandleError::retry(panic)),
        Err(_) => Err(HandleError::retry(format!(
            "took more than {:?}",
            queue.handling_max
        ))),
    }
}

/// A try that nobody waits for any more must not go on in the background beside the next one.
struct AbortOnDrop(JoinHandle<Result<(), HandleError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Decides from how a try went, `before` which others had failed; counts it and, where it failed, logs it.
pub(super) fn judge(
    queue: &Queue,
    message: &Message,
    before: Failed,
    result: Result<(), HandleError>,
    delays: &[Duration],
) -> Verdict {
    let attempt = before.tries.saturating_add(1);
    let (error, faults, outcome) = match result {
        Ok(()) => {
            count(queue, "ok");
            return Verdict::Handled;
        }
        Err(HandleError::Away(error)) => (error, before.faults, "away"),
        Err(HandleError::Retry(error)) => (error, before.faults.saturating_add(1), "retry"),
        Err(HandleError::Poison(error)) => return dead(queue, message, attempt, DeadReason::Poison, &*error),
    };
    // One that found something away lives on, even where a lower limit came in the meantime.
    if faults > before.faults && faults >= queue.delivery_limit {
        return dead(queue, message, attempt, DeadReason::DeliveryLimit, &*error);
    }
    count(queue, outcome);
    let delay = if outcome == "away" {
        delay_while_away(attempt, delays)
    } else {
        delay_after(attempt, delays)
    };
    let error = text(&*error);
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    if outcome == "away" && attempt > 1 {
        // It may go on for hours, and was said once.
        tracing::debug!(queue.name, message.id = %message.id, attempt, delay_ms, error, "still away");
    } else {
        tracing::info!(queue.name, message.id = %message.id, routing_key = message.routing_key, attempt, delay_ms,
            outcome, error, "a message is tried again later");
    }
    let failed = Failed {
        tries: attempt,
        faults,
    };
    Verdict::Again { delay, failed }
}

fn dead(
    queue: &Queue,
    message: &Message,
    attempts: u32,
    reason: DeadReason,
    error: &(dyn std::error::Error + 'static),
) -> Verdict {
    let error = text(error);
    count(queue, reason.as_str());
    tracing::error!(queue.name, message.id = %message.id, routing_key = message.routing_key, attempts, %reason,
        error, "a message is a dead letter");
    Verdict::Dead {
        reason,
        attempts,
        error,
    }
}

/// What a message waits after failed try number `attempt`; the last step repeats.
fn delay_after(attempt: u32, delays: &[Duration]) -> Duration {
    let step = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    delays
        .get(step)
        .or(delays.last())
        .copied()
        .unwrap_or(Duration::from_secs(1))
}

/// The same where something was away: never the last step, unless it is the only one. That is for faults which time
/// alone does not mend; what was away is back at once, and whatever follows from the message waits for this.
fn delay_while_away(attempt: u32, delays: &[Duration]) -> Duration {
    let before_last = delays.len().saturating_sub(1).max(1);
    delay_after(attempt, delays.get(..before_last).unwrap_or(delays))
}

fn count(queue: &Queue, outcome: &'static str) {
    metrics::counter!("octroi_bus_handled_total", "queue" => queue.name, "outcome" => outcome).increment(1);
}

/// Counts a letter once it is kept for good.
pub(super) fn count_dead(queue: &'static str) {
    metrics::counter!("octroi_bus_dead_letters_total", "queue" => queue).increment(1);
}

/// An error with its causes, in one line of bounded length.
pub(super) fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        // Some libraries say the cause in the error itself.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const QUEUE: Queue = Queue::new("quota.usage", &["usage.recorded"]);
    const DELAYS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(5)];

    fn message() -> Message {
        Message {
            id: uuid::Uuid::nil(),
            routing_key: "usage.recorded".into(),
            payload: Bytes::new(),
            traceparent: None,
            occurred_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn failed(tries: u32, faults: u32) -> Failed {
        Failed { tries, faults }
    }

    #[test]
    fn verdicts() {
        let check = |before, result, expected: &str| {
            let verdict = judge(&QUEUE, &message(), before, result, &DELAYS);
            assert_eq!(format!("{verdict:?}"), expected);
        };
        let retry = || Err(HandleError::retry("bug"));
        let again = |delay, tries, faults| {
            format!("Again {{ delay: {delay}, failed: Failed {{ tries: {tries}, faults: {faults} }} }}")
        };
        check(failed(0, 0), Ok(()), "Handled");
        check(failed(0, 0), retry(), &again("1s", 1, 1));
        check(failed(1, 1), retry(), &again("5s", 2, 2));
        check(failed(3, 3), retry(), &again("5s", 4, 4));
        let dead =
            |attempts| format!("Dead {{ reason: DeliveryLimit, attempts: {attempts}, error: \"bug\" }}");
        check(failed(4, 4), retry(), &dead(5));
        check(failed(5, 5), retry(), &dead(6));
        check(failed(90, 4), retry(), &dead(91));
        check(
            failed(0, 0),
            Err(HandleError::poison("bad")),
            "Dead { reason: Poison, attempts: 1, error: \"bad\" }",
        );
    }

    #[test]
    fn what_is_away_is_waited_for_without_end_and_with_a_bounded_delay() {
        let mut before = Failed::default();
        for _ in 0..10_000 {
            let result = Err(HandleError::away("the account service"));
            let Verdict::Again { delay, failed } = judge(&QUEUE, &message(), before, result, &DELAYS) else {
                panic!("given up after {before:?}");
            };
            assert_eq!(delay, DELAYS[0], "the last step is for faults");
            before = failed;
        }
        assert_eq!(before, failed(10_000, 0));
    }

    #[test]
    fn what_is_away_waits_the_only_step_where_there_is_one() {
        assert_eq!(delay_while_away(3, &DELAYS[1..]), DELAYS[1]);
    }

    #[test]
    fn an_error_text_is_bounded_and_stays_whole_characters() {
        let long = text(&*BoxError::from("é".repeat(1000)));
        assert_eq!(long.len(), 1024);
        let odd = text(&*BoxError::from(format!("a{}", "é".repeat(1000))));
        assert_eq!(odd.len(), 1023);
    }

    #[tokio::test]
    async fn a_panic_and_a_stuck_handler_are_failed_tries() {
        let queue = Queue {
            handling_max: Duration::from_millis(20),
            ..QUEUE
        };
        let check = async |handler: Handler, expected: &str| {
            let error = attempt(&queue, &handler, message())
                .await
                .err()
                .map(|error| text(&error));
            assert!(
                error.as_deref().is_some_and(|error| error.contains(expected)),
                "{error:?}"
            );
        };
        check(Arc::new(|_| Box::pin(async { panic!("oh") })), "panicked").await;
        check(
            Arc::new(|_| Box::pin(futures::future::pending())),
            "took more than 20ms",
        )
        .await;
    }
}
