//! A small application of somebody who uses Octroi: personas that are made, listed, read, deleted and exported. What is
//! Octroi's in it is one line on each route (`App::routes`), and settling the places of what was made or deleted
//! when something died meanwhile (`places`).
//!
//! It trusts the header `x-account-id`: a real one has a session there.

mod accounts;
mod exports;
mod personas;
pub mod places;
mod problem;
pub mod store;
mod templates;

use axum::{
    Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::Response,
    routing::{get, post},
};
use octroi_client::{Client, Quota};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// What handlers have.
#[derive(Clone, Debug)]
pub struct App {
    /// Where personas are.
    pub database: PgPool,
    /// The fleet.
    pub client: Client,
    /// Requests that go on where their callers went away.
    pub tasks: TaskTracker,
}

impl App {
    /// The routes, and what protects each.
    pub fn routes(self, quota: &Quota) -> Router {
        let to_the_end = || from_fn_with_state((self.clone(), quota.clone()), to_the_end);
        // What is made counts twice: in this month, and among those that are there. It counts under its id.
        let create = quota
            .metric(places::CREATED)
            .and_metric(places::STORED)
            .request_id_by(|head| head.extensions.get::<NewId>().map(|id| places::name_of(id.0)));
        // An export is paid by the hundred rows; how many there are is known at its end.
        let export = quota.metric("exports.run").amount_by_meter();
        Router::new()
            .route("/accounts", post(accounts::create))
            .route(
                "/personas",
                post(personas::create)
                    .route_layer(create.clone())
                    .layer(to_the_end()),
            )
            .route(
                "/templates/{template}/personas",
                post(templates::create)
                    .route_layer(create.and_feature("premium.templates"))
                    .layer(to_the_end()),
            )
            .route(
                "/exports/personas.csv",
                get(exports::csv).route_layer(export.clone()),
            )
            .route("/exports/personas.json", get(exports::json).route_layer(export))
            // What only reads is free, and what deletes gives back.
            .route("/personas", get(personas::list))
            .route("/personas/{id}", get(personas::read).delete(personas::delete))
            .with_state(self)
            // A handler that panics is an answer like any other failure, and nothing is counted for it.
            .layer(tower_http::catch_panic::CatchPanicLayer::new())
    }

    /// Answers requests until `stop`, and then those that have begun.
    ///
    /// # Errors
    /// Where connections cannot be accepted.
    #[expect(
        clippy::disallowed_methods,
        reason = "an example, behind a gateway that has timeouts"
    )]
    pub async fn serve(
        self,
        listener: TcpListener,
        quota: &Quota,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let tasks = self.tasks.clone();
        axum::serve(listener, self.routes(quota))
            .with_graceful_shutdown(stop)
            .await?;
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

/// The id of the persona that a request makes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewId(pub(crate) Uuid);

/// Serves a request that makes a persona to its end, also where whoever made it goes away: what is written is counted then,
/// and nothing is counted that is not written.
async fn to_the_end(
    State((app, quota)): State<(App, Quota)>,
    mut request: Request,
    next: Next,
) -> Result<Response, problem::Problem> {
    let id = Uuid::new_v4();
    request.extensions_mut().insert(NewId(id));
    let tasks = app.tasks.clone();
    let to_the_end = async move {
        let response = next.run(request).await;
        // It is counted by now, unless that waits for the fleet. What is not noted is counted again later, under the same name.
        if response.status() == StatusCode::CREATED
            && quota.untold() == 0
            && let Err(error) = store::set_counted(&app.database, id).await
        {
            tracing::warn!(error = %error, persona.id = %id, "it is not noted that a persona was counted");
        }
        response
    };
    tasks.spawn(to_the_end).await.map_err(|_| problem::fault())
}

/// Whose request it is.
#[derive(Clone, Debug)]
pub(crate) struct Account(pub(crate) String);

impl<S: Sync> axum::extract::FromRequestParts<S> for Account {
    type Rejection = problem::Problem;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        _: &S,
    ) -> Result<Self, problem::Problem> {
        let id = parts.headers.get("x-account-id").and_then(|id| id.to_str().ok());
        id.map(|id| Self(id.to_owned())).ok_or_else(problem::nobody)
    }
}
