//! Routes of somebody else's program behind a `QuotaLayer`.

mod away;
mod ends;
mod grpc;
mod site;

use anyhow::{Result, ensure};
use axum::{Router, body::Body, routing::get};
use http::{Request, StatusCode};
use octroi_proto::{common::v1::Period, quota::v1::LimitStatus};
use octroi_tests::harness::fleet::{Fleet, roomy_hour};
use tower::Service as _;

pub(crate) use self::site::client;
use self::{
    away::{a_route_does_what_its_limits_say_while_quota_is_away, what_was_owed_outlives_the_program},
    ends::{a_request_is_counted_by_what_becomes_of_it, what_is_metered_is_counted_as_it_was_used},
    grpc::a_tonic_service_is_protected_as_a_route_is,
    site::{EXPORTS, Site},
};
use crate::{asks::standing, story::both_topologies};

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
    // Others in this place may have made some meanwhile.
    ensure!(
        before > 0 && after < before + 50,
        "{before} connections became {after}"
    );
    Ok(())
}

/// How many connections there are to this port of this machine.
fn connections_to(port: u16) -> Result<usize> {
    // Each line has the local and the remote address, with ports in hexadecimal, and the state; 01 is established.
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp")?;
    let is_one = |line: &&str| {
        let mut words = line.split_ascii_whitespace().skip(2);
        words.next().is_some_and(|word| word.ends_with(&remote)) && words.next() == Some("01")
    };
    Ok(table.lines().filter(is_one).count())
}

impl Site {
    async fn hour(&self, metric: &str) -> Result<LimitStatus> {
        standing(&self.app, &self.account, metric, Period::Hour).await
    }
}
