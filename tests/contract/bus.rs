//! One contract for every bus: the same cases over each variant, then what only a broker can do.

mod over_a_broker;
mod proxy;
mod routes;
mod site;

use self::site::{RETRY_MS, Site, Tries, eventually, message};
use anyhow::Result;
use octroi_kit::bus::{DeadReason, HandleError, PublishError, Queue};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Runs a case over every variant; what fails says over which.
async fn check(case: impl AsyncFn(&Site) -> Result<()>) -> Result<()> {
    for site in Site::all().await? {
        case(&site).await.map_err(|error| error.context(site.variant))?;
    }
    Ok(())
}

const LEFT: Queue = Queue::new("left.all", &["test.happened"]);
const RIGHT: Queue = Queue::new("right.all", &["test.happened", "test.stopped"]);

#[tokio::test(flavor = "multi_thread")]
async fn every_queue_that_listens_gets_each_message() -> Result<()> {
    check(async |site| {
        let (left, right) = (Tries::that_succeed(), Tries::that_succeed());
        let running = site
            .start(
                &[LEFT, RIGHT],
                vec![(LEFT, left.handler()), (RIGHT, right.handler())],
            )
            .await?;
        let messages: Vec<_> = (0..20).map(|_| message("test.happened")).collect();
        let stopped = message("test.stopped");
        running.relay(messages.clone()).await?;
        running.relay(vec![stopped.clone()]).await?;
        eventually("both have all", || {
            left.ids().len() == 20 && right.ids().len() == 21
        })
        .await?;
        assert!(messages.iter().all(|message| left.ids().contains(&message.id)));
        assert!(!left.ids().contains(&stopped.id) && right.ids().contains(&stopped.id));
        running.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_comes_as_it_went_also_when_it_is_tried_again() -> Result<()> {
    check(async |site| {
        let tries = Tries::that(|try_number| match try_number {
            1 | 2 => Err(HandleError::retry("not yet")),
            _ => Ok(()),
        });
        let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
        let sent = message("test.happened");
        running.relay(vec![sent.clone()]).await?;
        eventually("three tries", || tries.seen().len() == 3).await?;
        assert!(
            tries.seen().iter().all(|(seen, _)| *seen == sent),
            "{:?}",
            tries.seen()
        );
        running.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_as_often_as_the_limit_says_and_then_is_a_dead_letter() -> Result<()> {
    check(async |site| {
        let queue = Queue {
            delivery_limit: 3,
            ..LEFT
        };
        let tries = Tries::that(|_| Err(HandleError::retry("a fault")));
        let running = site.start(&[LEFT], vec![(queue, tries.handler())]).await?;
        let sent = message("test.happened");
        running.relay(vec![sent.clone()]).await?;
        let letter = site.dead_letter(&LEFT).await?;
        assert_eq!(
            (letter.message, letter.reason, letter.attempts),
            (sent, DeadReason::DeliveryLimit, 3)
        );
        assert_eq!(letter.error, "a fault");
        let at: Vec<Instant> = tries.seen().iter().map(|(_, at)| *at).collect();
        assert_eq!(at.len(), 3);
        assert!(
            at.is_sorted_by(|a, b| b.duration_since(*a) >= Duration::from_millis(RETRY_MS)),
            "{at:?}"
        );
        running.stop().await
    })
    .await
}

/// Far more often than the queue's limit, and than the broker's own of 20 deliveries.
#[tokio::test(flavor = "multi_thread")]
async fn what_finds_something_away_is_tried_until_it_is_back() -> Result<()> {
    const AWAY: usize = 30;
    check(async |site| {
        let queue = Queue {
            delivery_limit: 2,
            ..LEFT
        };
        let tries = Tries::that(|try_number| match try_number {
            ..=AWAY => Err(HandleError::away("the account service")),
            _ => Ok(()),
        });
        let running = site.start(&[LEFT], vec![(queue, tries.handler())]).await?;
        let sent = message("test.happened");
        running.relay(vec![sent.clone()]).await?;
        eventually("it is handled", || tries.begun() == AWAY + 1).await?;
        running.stop().await?;
        assert!(tries.seen().iter().all(|(seen, _)| *seen == sent));
        site.has_no_dead_letter(&LEFT).await
    })
    .await
}

/// Faults count, and only they do: between them something may be away.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_away_does_not_count_among_the_faults() -> Result<()> {
    check(async |site| {
        let queue = Queue {
            delivery_limit: 2,
            ..LEFT
        };
        let tries = Tries::that(|try_number| match try_number {
            1..=3 | 5..=7 => Err(HandleError::away("the account service")),
            _ => Err(HandleError::retry("a fault")),
        });
        let running = site.start(&[LEFT], vec![(queue, tries.handler())]).await?;
        running.relay(vec![message("test.happened")]).await?;
        let letter = site.dead_letter(&LEFT).await?;
        assert_eq!(
            (letter.reason, letter.attempts, tries.begun()),
            (DeadReason::DeliveryLimit, 8, 8)
        );
        running.stop().await
    })
    .await
}

/// The others have handled it long ago, and may have forgotten that.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_redelivered_reaches_one_queue_alone() -> Result<()> {
    check(async |site| {
        let (left, right) = (Tries::that_succeed(), Tries::that_succeed());
        let running = site
            .start(
                &[LEFT, RIGHT],
                vec![(LEFT, left.handler()), (RIGHT, right.handler())],
            )
            .await?;
        let sent = message("test.happened");
        running.redeliver(&RIGHT, &sent).await?;
        eventually("the one has it", || right.seen().len() == 1).await?;
        assert_eq!(right.seen()[0].0, sent);
        let nowhere = running.bus.redeliver("no.queue", sent).await;
        assert!(
            matches!(nowhere, Err(PublishError::Unroutable { .. })),
            "{nowhere:?}"
        );
        running.stop().await?;
        assert!(left.seen().is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_has_failed_one_try() -> Result<()> {
    check(async |site| {
        let tries = Tries::that(|try_number| match try_number {
            1 => panic!("a bug"),
            _ => Ok(()),
        });
        let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
        running.relay(vec![message("test.happened")]).await?;
        eventually("the second try", || tries.seen().len() == 2).await?;
        running.stop().await
    })
    .await
}

/// With one slot, so that whoever held it would hold up everybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_message_is_in_nobodys_way() -> Result<()> {
    check(async |site| {
        let queue = Queue {
            concurrency: 1,
            ..LEFT
        };
        let (poison, failing) = (message("test.happened"), message("test.happened"));
        let (poison_id, failing_id) = (poison.id, failing.id);
        let tries = Tries::that_for(move |message, _| match message.id {
            id if id == poison_id => Err(HandleError::poison("no event of ours")),
            id if id == failing_id => Err(HandleError::retry("away")),
            _ => Ok(()),
        });
        // The failing one waits for a minute, longer than anybody waits for a good one here.
        let running = site
            .patient()
            .start(&[LEFT], vec![(queue, tries.handler())])
            .await?;
        let mut batch = vec![poison, failing];
        for _ in 0..6 {
            let good = message("test.happened");
            batch.push(good.clone());
            batch = running.relay_once(batch).await;
            eventually("the good one is handled", || tries.ids().contains(&good.id)).await?;
        }
        let failing_tries = tries.ids().into_iter().filter(|id| *id == failing_id).count();
        assert_eq!(failing_tries, 1, "the good ones waited for its second try");
        let letter = site.dead_letter(&LEFT).await?;
        assert_eq!(
            (letter.message.id, letter.reason, letter.attempts),
            (poison_id, DeadReason::Poison, 1)
        );
        running.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_published_again_comes_again() -> Result<()> {
    check(async |site| {
        let tries = Tries::that_succeed();
        let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
        let sent = message("test.happened");
        running.relay(vec![sent.clone()]).await?;
        running.relay(vec![sent]).await?;
        eventually("twice", || tries.ids().len() == 2).await?;
        running.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_that_one_of_its_queues_has_not() -> Result<()> {
    check(async |site| {
        let tries = Tries::that_succeed();
        let consumers = vec![(LEFT, tries.handler())];
        // Nobody consumes from the other: in process, it is not there for that.
        let running = site.start(&[LEFT, RIGHT], consumers).await?;
        site.delete(&RIGHT).await?;
        let unroutable = Err(PublishError::Unroutable {
            queue: site.name(&RIGHT, ""),
        });
        let keys = ["test.happened", "test.unheard", "test.stopped"];
        let batch = (0..10).flat_map(|_| keys.map(message)).collect();
        let expected = vec![[unroutable.clone(), Ok(()), unroutable]; 10].concat();
        assert_eq!(running.bus.publish(batch).await, expected);
        running.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_messages_are_handled_at_once_than_the_queue_says() -> Result<()> {
    check(async |site| {
        let queue = Queue {
            concurrency: 3,
            ..LEFT
        };
        let tries = Tries::that_succeed().slowly(Duration::from_millis(30));
        let running = site.start(&[LEFT], vec![(queue, tries.handler())]).await?;
        running
            .relay((0..30).map(|_| message("test.happened")).collect())
            .await?;
        eventually("all", || tries.ids().len() == 30).await?;
        assert_eq!(tries.most_at_once(), 3);
        running.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_what_is_being_handled() -> Result<()> {
    check(async |site| {
        let tries = Tries::that_succeed().slowly(Duration::from_millis(150));
        let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
        let (bus, sent) = (running.bus.clone(), message("test.happened"));
        let publish = tokio::spawn(async move { bus.publish(vec![sent]).await });
        eventually("it has begun", || tries.begun() == 1).await?;
        running.stop().await?;
        assert_eq!(tries.ids().len(), 1);
        assert_eq!(publish.await?, [Ok(())]);
        // Nothing of it is left over: it was settled, and not only handled.
        let running = site.start(&[LEFT], vec![(LEFT, tries.handler())]).await?;
        sleep(Duration::from_millis(300)).await;
        assert_eq!(tries.begun(), 1);
        running.stop().await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_bus_is_not_ready_and_takes_nothing() -> Result<()> {
    check(async |site| {
        let bus = site.bus(&[LEFT])?;
        assert!(!bus.is_ready(), "before it runs");
        let running = site
            .start(&[LEFT], vec![(LEFT, Tries::that_succeed().handler())])
            .await?;
        let bus = running.bus.clone();
        assert!(bus.is_ready());
        running.stop().await?;
        assert!(!bus.is_ready(), "after it ran");
        let asked_at = Instant::now();
        assert_eq!(
            bus.publish(vec![message("test.happened")]).await,
            [Err(PublishError::Unavailable)]
        );
        assert!(
            asked_at.elapsed() < Duration::from_secs(1),
            "it takes {:?}",
            asked_at.elapsed()
        );
        Ok(())
    })
    .await
}
