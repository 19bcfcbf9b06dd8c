//! Quota: decides whether an account may do something now.

pub mod answers;
pub mod cache;
mod config;
mod consumer;
mod convert;
pub mod decisions;
pub mod domain;
mod error;
mod escrow;
mod grpc;
mod hold_id;
pub mod redis;
mod service;
mod store;
mod turns;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use jiff::SignedDuration;
use octroi_journal::Journal;
use octroi_kit::{
    component::{Component, Context, Grpc, Task},
    db::Db,
    directory::Directory,
    grpc::MESSAGE_BYTES_MAX,
    outbox::Wake,
};
use octroi_proto::{
    quota::v1::quota_service_server::{QuotaServiceServer, SERVICE_NAME},
    usage::v1::usage_service_client::UsageServiceClient,
};
use tonic::service::Routes;

use self::{
    answers::{Answers, Behind, seen::Seen},
    cache::Cache,
    decisions::Decisions,
    escrow::Escrow,
    hold_id::HoldIds,
    redis::Redis,
    service::{Memories, Service},
};
pub use self::{
    config::{
        AnswersConfig, Backend, CacheBackend, CacheConfig, Config, DecisionsConfig, JournalConfig,
        RedisConfig, SlicesConfig, ThresholdsConfig,
    },
    error::Error,
};

/// The compiled-in configuration of this service.
pub const DEFAULTS: &str = include_str!("../defaults.toml");

/// The service's name, which is also its schema's and its caller's.
pub const NAME: &str = "quota";

/// The schema's migrations.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

/// Builds the service.
///
/// # Errors
/// Where the configuration breaks a rule, or the database or Redis cannot be reached.
pub async fn component(context: &Context) -> anyhow::Result<Component> {
    let config: Config = context.config.section(NAME)?;
    let db = Db::connect(&config.database, NAME, context.sandbox).await?;
    let redis = if config.needs_redis() {
        Some(Redis::connect(&config.redis).await?)
    } else {
        None
    };
    let answers = Answers::new(config.answers, redis.as_ref());
    let cache = Cache::new(config.cache, redis.as_ref());
    let wake = Wake::default();
    let directory = Directory::new(context.links.to("account", NAME)?);
    let usage = UsageServiceClient::new(context.links.to("usage", NAME)?);
    let journal = Journal::open(&journal_dir(context, &config)?, config.journal.bytes_max)
        .context("the journal of decisions cannot be opened")?;
    let escrow = Escrow::new(&db, usage.clone(), cache.clone(), config.slices);
    let decisions = Decisions::new(&db, &config.decisions);
    let behind = redis
        .filter(|_| config.answers.backend == Backend::Redis)
        .map(|redis| {
            let most = usize::try_from(config.answers.told_per_second_max).unwrap_or(usize::MAX);
            Behind::new(redis, db.clock().clone(), most)
        });
    let memories = Memories {
        seen: Seen::new(&context.auth.derived_key("quota requests"), behind.clone()),
        answers,
        cache,
        journal,
        decisions: decisions.clone(),
    };
    let service = Service::new(&db, directory, usage, escrow.clone(), memories);
    let holds = HoldIds::new(context.auth.derived_key("quota holds"));
    let server = QuotaServiceServer::new(grpc::Handler::new(service.clone(), holds))
        .max_decoding_message_size(MESSAGE_BYTES_MAX);

    let mut component = Component::new(NAME).with_schema(context, &db, &MIGRATOR, &wake);
    component.consumers.push(consumer::usage(&db, &wake, &service));
    component
        .consumers
        .push(consumer::corrections(&db, &wake, &service));
    component
        .consumers
        .push(consumer::entitlements(&db, &wake, &service));
    component.consumers.push(consumer::zones(&db, &wake, &service));
    let (watching, expiring, looking, settling) =
        (service.clone(), service.clone(), service.clone(), service);
    let (flushing, cleaning) = (escrow.clone(), escrow.clone());
    component
        .tasks
        .push(Task::new("buffered", move |stop| flushing.flush(stop)));
    component
        .tasks
        .push(Task::new("cleaning", move |stop| cleaning.clean(stop)));
    if let Some(behind) = behind {
        component
            .tasks
            .push(Task::new("answers", move |stop| behind.tell(stop)));
    }
    component
        .tasks
        .push(Task::new("slices", move |stop| escrow.sweep(stop)));
    component
        .tasks
        .push(Task::new("limits", move |stop| watching.watch_limits(stop)));
    let look_each = SignedDuration::from_millis(i64::try_from(config.thresholds.look_ms).unwrap_or(i64::MAX));
    component.tasks.push(Task::new("thresholds", move |stop| {
        looking.watch_thresholds(look_each, stop)
    }));
    component
        .tasks
        .push(Task::new("journal", move |stop| settling.settle_journal(stop)));
    component.tasks.push(Task::new("overrides", move |stop| {
        expiring.expire_overrides(stop)
    }));
    component
        .tasks
        .push(Task::new("decisions", move |stop| decisions.write_down(stop)));
    component.grpc = Some(Grpc {
        service_name: SERVICE_NAME,
        routes: Routes::new(server),
        deadline: Duration::from_secs(2),
    });
    Ok(component)
}

fn journal_dir(context: &Context, config: &Config) -> anyhow::Result<PathBuf> {
    if config.journal.dir.as_os_str().is_empty() {
        return Ok(context
            .config
            .section::<PathBuf>("data_dir")?
            .join("quota-journal"));
    }
    Ok(config.journal.dir.clone())
}
