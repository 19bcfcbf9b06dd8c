//! The example: an application whose routes are protected.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use octroi_client::Quota;
use octroi_personas::App;
use octroi_proto::{
    billing::v1::CreateSubscriptionRequest, common::v1::Period, quota::v1::RecordUsageRequest,
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet, OPERATOR, eventually, roomy_hour, within};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use crate::{
    asks::{items, ledger_total, standing},
    protect,
    story::both_topologies,
};

both_topologies!(
    personas_are_made_listed_read_exported_and_deleted,
    a_place_that_was_not_taken_yet_is_given_back_once_it_is,
    what_a_program_that_died_did_not_count_is_counted_by_the_next,
    what_is_not_served_is_not_counted,
);

/// The routes that take something.
const TAKING: [(Method, &str); 4] = [
    (Method::POST, "/personas"),
    (Method::POST, "/templates/night-owl/personas"),
    (Method::GET, "/exports/personas.csv"),
    (Method::GET, "/exports/personas.json"),
];

/// The application, and one of its accounts.
struct Personas {
    address: String,
    http: reqwest::Client,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| self.text.clone())
    }
}

impl Personas {
    async fn start(fleet: &Fleet) -> Result<Self> {
        let client = protect::client(fleet)?;
        let quota = Quota::builder(&client)
            .account_from_header("x-account-id")
            .build()?;
        let database = octroi_personas::store::connect(fleet.database().superuser_url()).await?;
        tokio::spawn(octroi_personas::places::settle_all(
            database.clone(),
            client.clone(),
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let app = App {
            database,
            client,
            tasks: TaskTracker::new(),
        };
        tokio::spawn(async move { app.serve(listener, &quota, std::future::pending()).await });
        Ok(Self {
            address,
            http: reqwest::Client::new(),
        })
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer> {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.address))
            .header("x-account-id", "acme");
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        Ok(Answer {
            status: answer.status().as_u16(),
            text: answer.text().await?,
        })
    }

    async fn create(&self, name: &str) -> Result<Answer> {
        self.call(Method::POST, "/personas", Some(json!({ "name": name })))
            .await
    }

    /// Calls a route that takes something.
    async fn take(&self, method: Method, path: &str) -> Result<Answer> {
        let body = (method == Method::POST).then(|| json!({ "name": "Ada" }));
        self.call(method, path, body).await
    }
}

/// Waits until this much is counted of personas and of exports, and nothing is held.
async fn comes_to(app: &Clients, personas: u64, exports: u64) -> Result<()> {
    within(
        Duration::from_secs(1),
        "the limits know how the request ended",
        async || {
            for (metric, period, expected) in [
                ("personas.created", Period::Day, personas),
                ("personas.stored", Period::Lifetime, personas),
                ("exports.run", Period::Day, exports),
            ] {
                let limit = standing(app, "acme", metric, period).await?;
                ensure!((limit.used, limit.held) == (expected, 0), "{limit:?}");
            }
            Ok(())
        },
    )
    .await
}

async fn a_place_that_was_not_taken_yet_is_given_back_once_it_is(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    let personas = Personas::start(fleet).await?;
    personas
        .call(Method::POST, "/accounts", Some(json!({ "id": "acme" })))
        .await?;
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    // As it is while what was used waits for the fleet.
    let id: uuid::Uuid = sqlx::query_scalar(
        "INSERT INTO personas.persona (id, account_id, name, template)
         VALUES (gen_random_uuid(), 'acme', 'Ada', 'blank') RETURNING id",
    )
    .fetch_one(&mut session)
    .await?;
    let deleted = personas
        .call(Method::DELETE, &format!("/personas/{id}"), None)
        .await?;
    ensure!(deleted.status == 204, "{}", deleted.text);
    let left = "SELECT count(*) FROM personas.place_to_return WHERE refusals > 0";
    eventually("there is nothing to give back", async || {
        let refused: i64 = sqlx::query_scalar(left).fetch_one(&mut session).await?;
        ensure!(refused == 1, "{refused}");
        Ok(())
    })
    .await?;
    let taken = RecordUsageRequest {
        account_id: "acme".to_owned(),
        items: items(&[("personas.stored", 1)]),
        request_id: "late".to_owned(),
        ..RecordUsageRequest::default()
    };
    app.quota.clone().record_usage(taken).await?;
    eventually("the place is given back", async || {
        let waiting: i64 = sqlx::query_scalar(left).fetch_one(&mut session).await?;
        let stored = standing(&app, "acme", "personas.stored", Period::Lifetime).await?;
        ensure!((waiting, stored.used) == (0, 0), "{waiting} {stored:?}");
        Ok(())
    })
    .await
}

async fn what_a_program_that_died_did_not_count_is_counted_by_the_next(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    let personas = Personas::start(fleet).await?;
    personas
        .call(Method::POST, "/accounts", Some(json!({ "id": "acme" })))
        .await?;
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    let written = "INSERT INTO personas.persona (id, account_id, name, template, created_at, counted)
                   VALUES (gen_random_uuid(), 'acme', 'Ada', 'blank', now() - interval '11 seconds', false) RETURNING id";
    let _stays: uuid::Uuid = sqlx::query_scalar(written).fetch_one(&mut session).await?;
    let goes: uuid::Uuid = sqlx::query_scalar(written).fetch_one(&mut session).await?;
    let deleted = personas
        .call(Method::DELETE, &format!("/personas/{goes}"), None)
        .await?;
    ensure!(deleted.status == 204, "{}", deleted.text);
    let operator = fleet.clients(OPERATOR)?;
    eventually("both were counted, and one place is free again", async || {
        let created = ledger_total(&operator, "acme", "personas.created").await?;
        let stored = standing(&app, "acme", "personas.stored", Period::Lifetime).await?;
        let left: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM personas.persona WHERE NOT counted)
                  + (SELECT count(*) FROM personas.place_to_return)",
        )
        .fetch_one(&mut session)
        .await?;
        let found = (created.direct_amount, stored.used, left);
        ensure!(found == (2, 1, 0), "{found:?}");
        Ok(())
    })
    .await
}

async fn what_is_not_served_is_not_counted(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    let personas = Personas::start(fleet).await?;
    personas
        .call(Method::POST, "/accounts", Some(json!({ "id": "acme" })))
        .await?;
    let starter = CreateSubscriptionRequest {
        account_id: "acme".to_owned(),
        plan: "starter".to_owned(),
        request_id: "s-1".to_owned(),
        ..CreateSubscriptionRequest::default()
    };
    app.billing.clone().create_subscription(starter).await?;
    eventually("premium templates are there", async || {
        let day = standing(&app, "acme", "personas.created", Period::Day).await?;
        ensure!(day.limit == 200, "{day:?}");
        Ok(())
    })
    .await?;

    // It fails.
    let mut session = PgConnection::connect(fleet.database().superuser_url()).await?;
    sqlx::query("ALTER TABLE personas.persona RENAME TO away")
        .execute(&mut session)
        .await?;
    for (method, path) in TAKING {
        // An export has begun by then, and breaks off.
        let answer = personas.take(method, path).await;
        ensure!(
            answer.is_err() || answer.is_ok_and(|answer| answer.status == 500),
            "{path} was served"
        );
        comes_to(&app, 0, 0).await.context(path)?;
    }
    sqlx::query("ALTER TABLE personas.away RENAME TO persona")
        .execute(&mut session)
        .await?;

    // Its caller goes away: an export ends, and what is written is written and counted.
    let mut lock = session.begin().await?;
    sqlx::query("LOCK TABLE personas.persona IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await?;
    let (creates, exports) = TAKING.split_at(2);
    for (method, path) in exports {
        let left =
            tokio::time::timeout(Duration::from_millis(300), personas.take(method.clone(), path)).await;
        ensure!(left.is_err(), "{path} was served");
        comes_to(&app, 0, 0).await.context(*path)?;
    }
    for (method, path) in creates {
        let left =
            tokio::time::timeout(Duration::from_millis(300), personas.take(method.clone(), path)).await;
        ensure!(left.is_err(), "{path} was served");
    }
    lock.rollback().await?;
    comes_to(&app, 2, 0).await?;
    let listed = personas.call(Method::GET, "/personas", None).await?.json()?;
    ensure!(listed.as_array().is_some_and(|all| all.len() == 2), "{listed}");

    for (method, path) in TAKING {
        let answer = personas.take(method, path).await?;
        ensure!(matches!(answer.status, 200 | 201), "{path}: {}", answer.text);
    }
    comes_to(&app, 4, 2).await
}

async fn personas_are_made_listed_read_exported_and_deleted(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let app = fleet.clients(APPLICATION)?;
    let personas = Personas::start(fleet).await?;
    let signed_up = personas
        .call(Method::POST, "/accounts", Some(json!({ "id": "acme" })))
        .await?;
    ensure!(signed_up.status == 201, "{}", signed_up.text);

    // A bad one is not counted: ten an hour are.
    let nameless = personas.create("").await?;
    ensure!(nameless.status == 400, "{}", nameless.text);
    let mut ids = Vec::new();
    for number in 0..10 {
        let made = personas.create(&format!("Ada \"{number}\"")).await?;
        ensure!(made.status == 201, "{}", made.text);
        ids.push(made.json()?["id"].as_str().context("no id")?.to_owned());
    }
    let over = personas.create("one too many").await?;
    ensure!(
        over.status == 429 && over.json()?["reason"] == "QUOTA_EXCEEDED",
        "{}",
        over.text
    );
    let stored = standing(&app, "acme", "personas.stored", Period::Lifetime).await?;
    ensure!((stored.used, stored.held) == (10, 0), "{stored:?}");

    let premium = personas
        .call(
            Method::POST,
            "/templates/night-owl/personas",
            Some(json!({ "name": "Nox" })),
        )
        .await?;
    ensure!(premium.status == 402, "{}", premium.text);

    let listed = personas.call(Method::GET, "/personas", None).await?.json()?;
    ensure!(listed.as_array().is_some_and(|all| all.len() == 10), "{listed}");
    let first = &ids[0];
    let read = personas
        .call(Method::GET, &format!("/personas/{first}"), None)
        .await?;
    ensure!(
        read.status == 200 && read.json()?["name"] == "Ada \"0\"",
        "{}",
        read.text
    );

    for path in ["/exports/personas.csv", "/exports/personas.json"] {
        let export = personas.call(Method::GET, path, None).await?;
        ensure!(export.status == 200, "{}", export.text);
        let lines = export.text.lines().count();
        match path.strip_suffix(".csv") {
            Some(_) => ensure!(
                lines == 11 && export.text.contains("\"Ada \"\"9\"\"\""),
                "{}",
                export.text
            ),
            None => ensure!(export.json()?.as_array().is_some_and(|all| all.len() == 10)),
        }
    }
    let over = personas.call(Method::GET, "/exports/personas.csv", None).await?;
    ensure!(over.status == 429, "{}", over.text);

    for expected in [204, 404] {
        let deleted = personas
            .call(Method::DELETE, &format!("/personas/{first}"), None)
            .await?;
        ensure!(deleted.status == expected, "{}", deleted.text);
        let stored = standing(&app, "acme", "personas.stored", Period::Lifetime).await?;
        ensure!(stored.used == 9, "{stored:?}");
    }
    Ok(())
}
