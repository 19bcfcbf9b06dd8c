//! How HTTP is served: an accept loop of our own, because `axum::serve` sets no timer and so has no limit
//! on how slowly a request may arrive (tokio-rs/axum#2741).

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long a client may take to send the head of a request.
const HEADER_READ_MAX: Duration = Duration::from_secs(10);
/// How many connections are open at once.
const CONNECTIONS_MAX: usize = 4_096;
/// How long requests in flight have to end once `stop` is cancelled.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// Serves `router` until `stop` is cancelled; requests in flight then end first.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    serve_some(listener, router, stop, CONNECTIONS_MAX).await;
}

/// The same, over `connections_max` connections at once.
async fn serve_some(listener: TcpListener, router: Router, stop: CancellationToken, connections_max: usize) {
    let builder = builder();
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(connections_max));
    loop {
        // With every connection in use it waits here, and must hear of the stop all the same.
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = permits.clone().acquire_owned() => match permit {
                Ok(permit) => permit,
                Err(_) => break,
            },
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = %error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        drop(stream.set_nodelay(true));
        let service = router
            .clone()
            .map_request(move |mut request: http::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(axum::extract::ConnectInfo(peer));
                request
            });
        let connection = builder
            .serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service))
            .into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("requests in flight did not end in time and are dropped");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(200)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(Some(Duration::from_secs(20)))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    /// Far longer than what is waited for, on any machine.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_stop_is_heard_while_every_connection_is_in_use() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let router = Router::new().route("/", axum::routing::get(async || "here"));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve_some(listener, router, stop.clone(), 1));
        let mut only = TcpStream::connect(address).await.expect("a connection");
        only.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .expect("sent");
        let mut answer = [0; 15];
        only.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        // It is kept alive, so that nobody else can be served.
        stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, serving).await;
        assert!(
            ended.is_ok_and(|ended| ended.is_ok()),
            "it does not hear the stop"
        );
    }
}
