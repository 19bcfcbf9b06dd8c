//! Routes of somebody else's program behind a `QuotaLayer`.

mod away;
mod ends;
mod grpc;
mod site;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use octroi_proto::{common::v1::Period, quota::v1::LimitStatus};
use octroi_tests::harness::fleet::{Fleet, roomy_hour};
use serde_json::{Value, json};
use tower::Service as _;

pub(crate) use self::site::client;
use self::{
    away::{a_route_does_what_its_limits_say_while_quota_is_away, what_was_owed_outlives_the_program},
    ends::{a_request_is_counted_by_what_becomes_of_it, what_is_metered_is_counted_as_it_was_used},
    grpc::a_tonic_service_is_protected_as_a_route_is,
    site::{EXPORTS, Site},
};
use crate::{
    asks::standing,
    rest::{new_key, signed_up},
    story::both_topologies,
};

both_topologies!(
    a_request_is_counted_by_what_becomes_of_it,
    a_route_is_refused_in_the_words_of_its_callers,
    a_tonic_service_is_protected_as_a_route_is,
    what_is_metered_is_counted_as_it_was_used,
    the_layers_of_ten_thousand_routes_have_one_connection,
);

mod outages {
    use octroi_tests::harness::fleet::{Fleet, Topology, tell};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_route_does_what_its_limits_say_while_quota_is_away() -> anyhow::Result<()> {
        tell(
            Fleet::builder(Topology::Split),
            super::a_route_does_what_its_limits_say_while_quota_is_away,
        )
        .await
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_was_owed_outlives_the_program() -> anyhow::Result<()> {
        tell(
            Fleet::builder(Topology::Split),
            super::what_was_owed_outlives_the_program,
        )
        .await
    }
}

async fn a_route_is_refused_in_the_words_of_its_callers(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let site = Site::start(fleet).await?;
    for left in [1, 0] {
        let answer = site.get("/fixed").await?;
        ensure!(answer.status == StatusCode::OK, "{answer:?}");
        let hour = format!("\"{EXPORTS}/hour\";r={left}");
        ensure!(answer.header("ratelimit").contains(&hour), "{answer:?}");
        ensure!(
            answer.header("ratelimit-policy").contains(";q=2;w=3600"),
            "{answer:?}"
        );
    }
    let over = site.get("/fixed").await?;
    ensure!(over.status == StatusCode::TOO_MANY_REQUESTS, "{over:?}");
    ensure!(
        over.header("content-type") == "application/problem+json",
        "{over:?}"
    );
    let seconds: u64 = over.header("retry-after").parse()?;
    ensure!((1..=3_600).contains(&seconds), "{over:?}");
    let problem = over.json()?;
    ensure!(
        problem["reason"] == "QUOTA_EXCEEDED"
            && problem["status"] == 429
            && problem["type"] == "https://octroi.example/errors/quota-exceeded"
            && problem["decision"]["allowed"] == false
            && problem["decision"]["limits"][0]["metric"] == EXPORTS,
        "{problem}"
    );

    as_the_gateway_says_it(fleet, &site).await?;
    let premium = site.get("/premium").await?;
    ensure!(premium.status == StatusCode::PAYMENT_REQUIRED, "{premium:?}");
    let problem = premium.json()?;
    ensure!(
        problem["reason"] == "SUBSCRIPTION_REQUIRED"
            && problem["decision"]["missing_features"][0]["feature"] == "premium.templates",
        "{problem}"
    );

    let nobody = site.get_as("/fixed", None).await?;
    ensure!(nobody.status == StatusCode::UNAUTHORIZED, "{nobody:?}");
    let unknown = site.get_as("/fixed", Some("nobody")).await?;
    ensure!(unknown.status == StatusCode::NOT_FOUND, "{unknown:?}");
    ensure!(unknown.json()?["reason"] == "ACCOUNT_NOT_FOUND", "{unknown:?}");
    let wrong = site.get("/wrong").await?;
    ensure!(wrong.status == StatusCode::INTERNAL_SERVER_ERROR, "{wrong:?}");
    ensure!(site.handled() == 2, "a refused request reaches no handler");
    Ok(())
}

/// A layer and the gateway refuse one account in the same words, but for what is of one request or of one server.
async fn as_the_gateway_says_it(fleet: &Fleet, site: &Site) -> Result<()> {
    let ann = signed_up(fleet, "ann@example.com").await?;
    let session = ann.get("/api/auth/session").await?.expect(200)?;
    let account = session["account"]["account_id"].as_str().context("no account")?;
    let (_, program) = new_key(&ann, &["quota.check"]).await?;
    let take =
        json!({ "mode": "consume", "request_id": "r-1", "items": [{ "metric": EXPORTS, "amount": 2 }] });
    program.post("/api/quota/check", &take).await?.expect(200)?;
    let exports = json!({ "mode": "peek", "items": [{ "metric": EXPORTS, "amount": 1 }] });
    let premium = json!({ "mode": "peek", "features": ["premium.templates"] });
    for (path, check) in [("/look", exports), ("/premium", premium)] {
        let from_gateway = program.post("/api/quota/check", &check).await?;
        let from_layer = site.get_as(path, Some(account)).await?;
        let of_one = |mut problem: Value| -> Value {
            problem["type"].take();
            problem["decision"]["decision_id"].take();
            problem["decision"]["retry_after_s"].take();
            problem
        };
        let (theirs, ours) = (of_one(from_gateway.json()?), of_one(from_layer.json()?));
        ensure!(
            theirs == ours,
            "{path}: the gateway says {theirs}, and the layer {ours}"
        );
    }
    Ok(())
}

async fn the_layers_of_ten_thousand_routes_have_one_connection(fleet: &mut Fleet) -> Result<()> {
    roomy_hour().await;
    let site = Site::start(fleet).await?;
    let port = fleet.address("quota").port();
    let look = |path: usize| {
        let layer = site.quota.metric(EXPORTS).look_only();
        (format!("/{path}"), get(async || "done").route_layer(layer))
    };
    let mut routes = (0..10_000).fold(Router::new(), |routes, path| {
        let (path, route) = look(path);
        routes.route(&path, route)
    });
    ensure!(site.get("/look").await?.status == StatusCode::OK);
    let before = connections_to(port)?;
    for path in (0..10_000).step_by(100) {
        let request = Request::get(format!("/{path}"))
            .header("x-account-id", &site.account)
            .body(Body::empty())?;
        let answer = routes.call(request).await?;
        ensure!(answer.status() == StatusCode::OK, "{answer:?}");
        ensure!(answer.headers().contains_key("ratelimit"), "{answer:?}");
    }
    let after = connections_to(port)?;
    ensure!(
        before > 0 && before == after,
        "{before} connections became {after}"
    );
    Ok(())
}

/// How many connections this process has to this port of this machine.
fn connections_to(port: u16) -> Result<usize> {
    let mut own = BTreeSet::new();
    for file in std::fs::read_dir("/proc/self/fd")? {
        // What was closed since the list was read is nobody's.
        let target = std::fs::read_link(file?.path()).unwrap_or_default();
        let inode = target
            .to_str()
            .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        own.extend(inode.map(str::to_owned));
    }
    // Each line has the local and the remote address, with ports in hexadecimal; the state, of which 01 is established;
    // and after five other columns the inode.
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp")?;
    let is_one = |line: &&str| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        matches!(columns.as_slice(), [_, _, to, "01", _, _, _, _, _, inode, ..]
            if to.ends_with(&remote) && own.contains(*inode))
    };
    Ok(table.lines().filter(is_one).count())
}

impl Site {
    async fn hour(&self, metric: &str) -> Result<LimitStatus> {
        standing(&self.app, &self.account, metric, Period::Hour).await
    }
}
