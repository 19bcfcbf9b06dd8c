//! What stands before every gRPC handler, and how gRPC is served.
//!
//! The layers sit on the routes and not on the server, because a call from within the process does not
//! pass the server.

mod stack;

use std::{net::SocketAddr, time::Duration};

use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};

pub(crate) use self::stack::method_not_found;
pub use self::stack::{stack, unread, with_reason};

/// The largest message of a unary call, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// The largest message of an event batch, in bytes.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Serves `routes` on one current-thread runtime per core, all on one port, until `stop` is cancelled;
/// calls in flight then end first. Answers with the address that was bound.
///
/// A work-stealing scheduler costs a third of an empty call, so gRPC has none.
///
/// # Errors
/// Where the port is taken or no thread can be made.
pub fn serve(
    listen: SocketAddr,
    routes: &Routes,
    cores: usize,
    stop: &CancellationToken,
) -> std::io::Result<(SocketAddr, Vec<std::thread::JoinHandle<()>>)> {
    // Sockets with SO_REUSEPORT share a port silently, with another process of ours too: ask first.
    drop(bind(listen, false)?);
    let first = bind(listen, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    while listeners.len() < cores.max(1) {
        listeners.push(bind(address, true)?);
    }
    let mut threads = Vec::new();
    for (core, listener) in listeners.into_iter().enumerate() {
        let (routes, stop) = (routes.clone(), stop.clone());
        threads.push(
            std::thread::Builder::new()
                .name(format!("grpc-{core}"))
                .spawn(move || {
                    if let Err(error) = serve_on_this_thread(listener, routes, stop) {
                        tracing::error!(error = %error, "a gRPC thread ended");
                    }
                })?,
        );
    }
    Ok((address, threads))
}

fn serve_on_this_thread(
    listener: std::net::TcpListener,
    routes: Routes,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let incoming = tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
        server()
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
            .await?;
        Ok(())
    })
}

/// The limits of one connection. tonic hands `None` to hyper for the streams and the local resets, which
/// takes away the limits that hyper has by itself (RUSTSEC-2024-0003), so both are set here.
fn server() -> Server {
    Server::builder()
        .max_concurrent_streams(200)
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(16 * 1024)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .tcp_nodelay(true)
}

fn bind(listen: SocketAddr, share: bool) -> std::io::Result<std::net::TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(listen), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_even_by_a_socket_that_shares() {
        let taken = bind("127.0.0.1:0".parse().expect("an address"), true).expect("a free port");
        let address = taken.local_addr().expect("bound");
        let error = serve(address, &Routes::default(), 1, &CancellationToken::new()).expect_err("taken");
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    }
}
