//! Redis that dies, forgets, stops, or is two.

use anyhow::{Context as _, Result, ensure};
use fred::{
    clients::Client,
    interfaces::ClientLike as _,
    prelude::{Builder, Config},
    types::{ClusterHash, CustomCommand, Value},
};
use nix::sys::signal::Signal;

use super::super::{
    proxy::{Mode, Proxy},
    run::Scene,
};
use crate::harness::{backends::RedisServer, fleet::eventually};

/// How often everything is flushed.
const FLUSHES: u32 = 10;
/// How long Redis stands still, in milliseconds.
const STOPPED_MS: u64 = 5_000;

async fn client(server: &RedisServer) -> Result<Client> {
    let client = Builder::from_config(Config::from_url(&server.url())?).build()?;
    client.init().await?;
    Ok(client)
}

/// A command by its words, and what is answered in words.
async fn command(server: &RedisServer, words: &[&str]) -> Result<String> {
    let client = client(server).await?;
    let (name, arguments) = words.split_first().context("a command")?;
    let name: &'static str = match *name {
        "CONFIG" => "CONFIG",
        "FLUSHALL" => "FLUSHALL",
        "REPLICAOF" => "REPLICAOF",
        _ => "INFO",
    };
    let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let answer: Value = client.custom(command, arguments).await?;
    client.quit().await?;
    Ok(answer.as_string().unwrap_or_default())
}

/// It is killed and comes back empty: it keeps nothing on disk.
pub(super) async fn killed(scene: &mut Scene<'_>) -> Result<()> {
    scene.site.redis.signal(Signal::SIGKILL)?;
    scene.site.redis.ended().await?;
    scene.pause(200..2_000).await;
    scene.site.redis.restart().await?;
    scene.pause(500..1_500).await;
    Ok(())
}

/// It forgets everything, again and again.
pub(super) async fn flushed(scene: &mut Scene<'_>) -> Result<()> {
    for _ in 0..FLUSHES {
        command(&scene.site.redis, &["FLUSHALL"]).await?;
        scene.pause(50..500).await;
    }
    Ok(())
}

/// It has no room and forgets whatever it likes.
pub(super) async fn evicts(scene: &mut Scene<'_>) -> Result<()> {
    let redis = &scene.site.redis;
    command(redis, &["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]).await?;
    command(redis, &["CONFIG", "SET", "maxmemory", "2mb"]).await?;
    scene.pause(3_000..5_000).await;
    command(&scene.site.redis, &["CONFIG", "SET", "maxmemory", "0"]).await?;
    Ok(())
}

/// It stands still and goes on with what it had.
pub(super) async fn stopped(scene: &mut Scene<'_>) -> Result<()> {
    scene.site.redis.signal(Signal::SIGSTOP)?;
    scene.pause(STOPPED_MS..STOPPED_MS + 1).await;
    scene.site.redis.signal(Signal::SIGCONT)
}

/// A replica of it follows until the link between the two is a black hole; the primary goes on for a while and is
/// killed, and the replica, which has not what was written meanwhile, is promoted.
pub(super) async fn rolled_back(scene: &mut Scene<'_>) -> Result<()> {
    let dir = scene
        .site
        .dir()
        .join(format!("redis-of-{}", scene.load.account()));
    let follower = RedisServer::start(&dir).await?;
    let link = Proxy::before(([127, 0, 0, 1], scene.site.redis.port()).into()).await?;
    let port = link.address().port().to_string();
    command(&follower, &["REPLICAOF", "127.0.0.1", &port]).await?;
    eventually("the replica follows", async || {
        let state = command(&follower, &["INFO", "replication"]).await?;
        ensure!(state.contains("master_link_status:up"), "{state}");
        Ok(())
    })
    .await?;
    scene.pause(200..1_000).await;
    link.set(Mode::Silent);
    scene.pause(500..2_000).await;
    scene.site.redis.signal(Signal::SIGKILL)?;
    scene.site.redis.ended().await?;
    command(&follower, &["REPLICAOF", "NO", "ONE"]).await?;
    let follower_at = ([127, 0, 0, 1], follower.port()).into();
    scene.site.redis = follower;
    scene.site.doors.redis.lead_to(follower_at);
    scene.pause(500..1_500).await;
    Ok(())
}
