//! A process from its start to its end.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};

use super::*;
use crate::{
    auth::{self, Auth},
    bus::{self, Bus, Topology},
    component::Task,
    config::{Loader, Secret},
    dead_letter::DeadLetterTables,
    link::Links,
    telemetry::Guard,
};

/// Far longer than what is waited for, on any machine.
const PATIENCE: Duration = Duration::from_secs(10);

fn context() -> Context {
    let dir = tempfile::tempdir().expect("a writable temporary directory");
    auth::mint(dir.path()).expect("a writable directory");
    let auth = config::Auth {
        tokens_dir: dir.path().to_owned(),
        callers_file: std::path::PathBuf::new(),
        principal_secret: Secret::default(),
    };
    let auth = Auth::load(&auth, dir.path()).expect("what was minted");
    let dead_letters = Arc::new(DeadLetterTables::default());
    let topology = Topology::new([]).expect("no queues");
    Context {
        config: Loader::new(&[], None).expect("no configuration"),
        sandbox: false,
        links: Links::new(&[], &config::Links::default(), auth.clone()).expect("no links"),
        auth,
        bus: Bus::new(&bus::Config::default(), topology, dead_letters.clone()).expect("a bus"),
        dead_letters,
    }
}

fn settings() -> Settings {
    let listen = "127.0.0.1:0".parse().expect("an address");
    Settings {
        grpc: config::Grpc {
            listen,
            reflection: false,
            concurrency_max: 1,
        },
        admin: config::Admin { listen },
        migrate: false,
    }
}

/// The answer of `/readyz`, over a connection of its own.
async fn readyz(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(admin).await?;
    stream
        .write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn the_admin_address_says_that_the_process_stops_until_it_has_stopped() {
    let (finish, finished) = oneshot::channel::<()>();
    let mut component = Component::new("gateway");
    // Work in flight that takes its time to end.
    component.tasks.push(Task::new("slow", move |_| async move {
        drop(finished.await);
    }));
    let lifecycle = Lifecycle::new();
    let running = start(
        vec![component],
        &context(),
        &settings(),
        &Guard::of_a_test(),
        lifecycle.clone(),
    )
    .await
    .expect("a start");
    let (_, admin) = *running.addresses.first().expect("the admin address");
    let before = readyz(admin).await.expect("an answer");
    assert!(before.starts_with("HTTP/1.1 200"), "{before}");

    lifecycle.soft.cancel();
    let stopped = tokio::spawn(running.stopped());
    tokio::time::timeout(PATIENCE, async {
        loop {
            let answer = readyz(admin).await.expect("it answers while it stops");
            if answer.starts_with("HTTP/1.1 503") && answer.contains("process: stopping") {
                break;
            }
        }
    })
    .await
    .expect("not ready any more");
    assert!(!stopped.is_finished());

    finish.send(()).expect("somebody waits for it");
    let ended = tokio::time::timeout(PATIENCE, stopped).await;
    assert!(ended.is_ok_and(|ended| ended.is_ok()), "it does not end");
    assert!(readyz(admin).await.is_err(), "it still listens");
}
