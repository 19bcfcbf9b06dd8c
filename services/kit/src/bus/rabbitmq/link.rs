//! One AMQP connection.

use lapin::{
    AsyncTcpStream, Channel, Connection, ConnectionProperties,
    tcp::OwnedTLSConfig,
    uri::{AMQPScheme, AMQPUri},
};
use socket2::{SockRef, Socket};
use std::{
    io,
    net::Shutdown,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Longest wait for the broker's answer when closing in good order.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// What ended a connection, or kept one from opening.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("AMQP")]
    Amqp(#[from] lapin::Error),
    #[error("timeout: {0}")]
    Timeout(&'static str),
    #[error("the connection is closed")]
    Closed,
    #[error("{0}")]
    Broken(String),
}

/// An open connection. Dropped, it is cut off at the socket.
pub(super) struct Link {
    connection: Connection,
    _cut: Cut,
}

/// lapin has a thread a connection, and that thread outlives what is dropped for as long as the peer says
/// nothing: behind a silent network each new try would leave one more. Shutting the socket down ends it.
struct Cut(Arc<OnceLock<Socket>>);

impl Drop for Cut {
    fn drop(&mut self) {
        if let Some(socket) = self.0.get() {
            // It fails only where the peer has closed the socket already.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Link {
    /// Opens a connection and shows `name` in the broker's list of connections.
    pub(super) async fn open(uri: &AMQPUri, name: &str, timeout: Duration) -> Result<Self, LinkError> {
        let cut = Cut(Arc::default());
        let handle = Arc::downgrade(&cut.0);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let opening = Connection::connector(
            uri.clone(),
            lapin::runtime::default_runtime()?,
            async move |uri, runtime| {
                let address = runtime.to_socket_addrs((uri.authority.host.clone(), uri.authority.port));
                let connecting = AsyncTcpStream::connect(&runtime, address);
                let stream = tokio::time::timeout(timeout, connecting)
                    .await
                    .map_err(io::Error::from)??;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    // Gone: nobody waits for this connection any more.
                    let handle = handle
                        .upgrade()
                        .ok_or(io::Error::from(io::ErrorKind::ConnectionAborted))?;
                    let _ = handle.set(SockRef::from(plain.get_ref()).try_clone()?);
                }
                if uri.scheme == AMQPScheme::AMQP {
                    return Ok(stream);
                }
                let tls = OwnedTLSConfig::default();
                let stream = stream.into_tls(&uri.authority.host, tls.as_ref()).await?;
                if matches!(stream, AsyncTcpStream::Plain(_)) {
                    // Without a TLS feature of its own, lapin goes on in the clear and says nothing.
                    return Err(io::Error::other("amqps: this binary is built without TLS for AMQP").into());
                }
                Ok(stream)
            },
            properties,
        );
        let connection = tokio::time::timeout(timeout, opening)
            .await
            .map_err(|_| LinkError::Timeout("connecting"))??;
        Ok(Self {
            connection,
            _cut: cut,
        })
    }

    /// Opens a channel.
    pub(super) async fn channel(&self) -> Result<Channel, LinkError> {
        Ok(self.connection.create_channel().await?)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Whether the broker takes nothing from this connection, because it is short of memory or disk.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Closes in good order, for a moment; whatever the broker says, it is closed afterwards.
    pub(super) async fn close(&self) {
        if let Ok(Err(error)) = tokio::time::timeout(CLOSE_MAX, self.connection.close(200, "OK".into())).await
        {
            tracing::debug!(%error, "closing the connection to the broker");
        }
    }
}
