//! What quota writes down of decisions: any replica reads it, for 35 days, and no account another's.

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, MetricSlug, RequestId, Units};
use octroi_kit::{
    config::Secret,
    db::{DatabaseConfig, Db},
};
use octroi_quota::{
    DecisionsConfig, MIGRATOR,
    decisions::Decisions,
    domain::{
        check::{Item, decision_id},
        decision::{Decision, deny_for_features},
        explained::{Action, EndState, Explained, HoldEnd, Question, REMEMBERED, WRITTEN},
    },
};
use octroi_tests::harness::{backends, fleet::eventually};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CONFIG: DecisionsConfig = DecisionsConfig {
    from_memory_max: 1_024,
    bytes_max: 1 << 20,
    written_per_second_max: 2,
    queue_max: 100,
};

fn account(name: &str) -> AccountId {
    AccountId::parse(name).expect("an id")
}

fn question(of: &str, request: &str) -> Question {
    Question {
        account: account(of),
        caller: "app".into(),
        request: Some(RequestId::parse(request).expect("an id")),
        action: Action::Consume,
        items: vec![Item {
            metric: MetricSlug::parse("api.requests").expect("a slug"),
            amount: Units::new(5).expect("an amount"),
        }],
    }
}

fn denied(of: &str, request: &str) -> Decision {
    deny_for_features(decision_id(of, "app", request), &[], &[], Vec::new())
}

fn allowed(of: &str, request: &str) -> Decision {
    Decision {
        allowed: true,
        reason: None,
        ..denied(of, request)
    }
}

/// Two replicas over one database. The first writes down what it decides.
struct Replicas {
    first: Decisions,
    second: Decisions,
    db: Db,
    stop: CancellationToken,
    writing: tokio::task::JoinHandle<()>,
    // After what uses it.
    database: backends::TestDatabase,
}

impl Replicas {
    async fn start() -> Self {
        let database = backends::postgres()
            .await
            .create_migrated(&[("quota", &MIGRATOR)])
            .await
            .expect("a database");
        let config = DatabaseConfig {
            url: Secret::new(database.url("quota")),
            connections_max: 4,
        };
        let db = Db::connect(&config, "quota", false).await.expect("a connection");
        let (first, second) = (Decisions::new(&db, &CONFIG), Decisions::new(&db, &CONFIG));
        let stop = CancellationToken::new();
        let writing = tokio::spawn(first.clone().write_down(stop.clone()));
        Self {
            first,
            second,
            db,
            stop,
            writing,
            database,
        }
    }

    async fn elsewhere(&self, of: Option<&str>, id: &str, now: Timestamp) -> Option<Explained> {
        let of = of.map(account);
        self.second.find(id, of.as_ref(), now).await.expect("an answer")
    }

    fn now(&self) -> Timestamp {
        self.db.clock().now()
    }

    fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    /// Ends the writing, and answers what keeps the database.
    async fn end(self) -> backends::TestDatabase {
        self.stop.cancel();
        self.writing.await.expect("nothing panics");
        self.database
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_told_by_every_replica_for_35_days_and_what_was_allowed_by_one_for_ten_minutes() {
    let replicas = Replicas::start().await;
    let (no, yes) = (
        decision_id("acme", "app", "no"),
        decision_id("acme", "app", "yes"),
    );
    replicas
        .first
        .note(question("acme", "no"), &denied("acme", "no"), None);
    replicas
        .first
        .note(question("acme", "yes"), &allowed("acme", "yes"), None);
    let now = replicas.now();
    let known = replicas.first.find(&yes, None, now).await.expect("an answer");
    assert!(known.is_some_and(|known| known.decision.allowed));
    eventually("another replica knows the denial", async || {
        let found = replicas.elsewhere(Some("acme"), &no, now).await;
        anyhow::ensure!(found.is_some_and(|found| found.question == question("acme", "no")));
        Ok(())
    })
    .await
    .expect("it is written down");
    assert!(replicas.elsewhere(None, &no, now).await.is_some());
    assert!(replicas.elsewhere(Some("other"), &no, now).await.is_none());
    assert!(replicas.elsewhere(None, &yes, now).await.is_none());

    let later = now + REMEMBERED + SignedDuration::from_secs(5);
    assert_eq!(
        replicas.first.find(&yes, None, later).await.expect("an answer"),
        None
    );
    assert!(replicas.elsewhere(None, &no, later).await.is_some());
    let month = now + WRITTEN + SignedDuration::from_secs(5);
    assert!(replicas.elsewhere(None, &no, month).await.is_none());
    drop(replicas.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_allowed_after_its_denial_is_told_as_allowed() {
    let replicas = Replicas::start().await;
    let id = decision_id("acme", "app", "r-1");
    replicas
        .first
        .note(question("acme", "r-1"), &denied("acme", "r-1"), None);
    replicas
        .first
        .note(question("acme", "r-1"), &allowed("acme", "r-1"), None);
    let again = Decision {
        repeated_request: true,
        ..allowed("acme", "r-1")
    };
    replicas.first.note(question("acme", "r-1"), &again, None);
    let now = replicas.now();
    let told = replicas
        .first
        .find(&id, None, now)
        .await
        .expect("an answer")
        .expect("a decision");
    assert!(told.decision.allowed && !told.decision.repeated_request);
    eventually("another replica knows the last word", async || {
        let found = replicas.elsewhere(None, &id, now).await;
        anyhow::ensure!(found.is_some_and(|found| found.decision.allowed));
        Ok(())
    })
    .await
    .expect("it is written down");
    drop(replicas.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_to_a_repeat_does_not_take_the_place_of_the_first() {
    let replicas = Replicas::start().await;
    let id = decision_id("acme", "app", "r-1");
    let (now, degraded) = (
        replicas.now(),
        Decision {
            degraded: true,
            ..allowed("acme", "r-1")
        },
    );
    replicas.first.note(question("acme", "r-1"), &degraded, None);
    eventually("the first is written down", async || {
        anyhow::ensure!(replicas.elsewhere(None, &id, now).await.is_some());
        Ok(())
    })
    .await
    .expect("it is written down");
    let again = Decision {
        repeated_request: true,
        ..degraded
    };
    // A replica that does not know the first answers the repeat, and writes it down.
    let (other, stop) = (Decisions::new(&replicas.db, &CONFIG), CancellationToken::new());
    other.note(question("acme", "r-1"), &again, None);
    let writing = tokio::spawn(other.clone().write_down(stop.clone()));
    stop.cancel();
    writing.await.expect("nothing panics");
    for replica in [&other, &replicas.second] {
        let found = replica.find(&id, None, now).await.expect("an answer");
        assert!(found.is_some_and(|found| !found.decision.repeated_request));
    }
    drop(replicas.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_at_the_end_is_written_and_so_many_denials_a_second_are() {
    let replicas = Replicas::start().await;
    for number in 0..20 {
        let request = format!("r-{number}");
        replicas
            .first
            .note(question("acme", &request), &denied("acme", &request), None);
    }
    let (now, second, pool) = (replicas.now(), replicas.second.clone(), replicas.pool().clone());
    for number in 0..20 {
        let id = decision_id("acme", "app", &format!("r-{number}"));
        assert!(
            replicas
                .first
                .find(&id, None, now)
                .await
                .expect("an answer")
                .is_some()
        );
    }
    let _database = replicas.end().await;
    let written: i64 = sqlx::query_scalar("SELECT count(*) FROM quota.decision")
        .fetch_one(&pool)
        .await
        .expect("a count");
    // They may have come in two seconds.
    assert!((2..=4).contains(&written), "{written}");
    let first = decision_id("acme", "app", "r-0");
    assert!(second.find(&first, None, now).await.expect("an answer").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_hold_ended_is_kept_and_what_is_old_is_deleted() {
    let replicas = Replicas::start().await;
    let now = replicas.now();
    let end = |hold: u128, at| HoldEnd {
        account: account("acme"),
        hold: Uuid::from_u128(hold),
        state: EndState::Released,
        at,
        items: Vec::new(),
        late: false,
    };
    replicas.first.note_end(end(1, now));
    replicas
        .first
        .note_end(end(2, now - WRITTEN - SignedDuration::from_secs(1)));
    eventually("both are written down", async || {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM quota.decision")
            .fetch_one(replicas.pool())
            .await?;
        anyhow::ensure!(count == 2, "{count}");
        Ok(())
    })
    .await
    .expect("they are written down");
    let find = async |hold: u128| {
        let found = replicas
            .second
            .find_end(Uuid::from_u128(hold), &account("acme"), now)
            .await;
        found.expect("an answer")
    };
    assert_eq!(find(1).await.map(|end| end.state), Some(EndState::Released));
    assert_eq!(find(2).await, None);
    // Whoever begins to write cleans up first.
    let stop = CancellationToken::new();
    let cleaning = tokio::spawn(replicas.second.clone().write_down(stop.clone()));
    eventually("what is old is gone", async || {
        let left: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM quota.decision")
            .fetch_all(replicas.pool())
            .await?;
        anyhow::ensure!(left == [Uuid::from_u128(1)], "{left:?}");
        Ok(())
    })
    .await
    .expect("it is deleted");
    stop.cancel();
    cleaning.await.expect("nothing panics");
    drop(replicas.end().await);
}
