//! A network that can be broken: a TCP proxy in the test's own process.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};

/// How much is carried at a time. A reply of the protocols here is smaller.
const PIECE_BYTES: usize = 16 * 1024;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Whatever comes goes on.
    Pass,
    /// The same, so much later, either way.
    Late(Duration),
    /// Connections are accepted and stay open, and nothing goes through: a black hole.
    Silent,
    /// Connections are closed at once.
    Refuse,
}

/// A place that clients connect to instead of a server. Dropped, it takes its connections with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    wire: Arc<Wire>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Wire {
    upstream: Mutex<SocketAddr>,
    mode: watch::Sender<Mode>,
    /// Changes whenever every open connection is to be cut.
    cuts: watch::Sender<u64>,
    /// How many replies go through before the one that is lost together with its connection; 0 and less: none is.
    replies_until_cut: AtomicI64,
    /// The same for connections that are opened.
    connections_until_cut: AtomicI64,
    /// How many were lost.
    lost: AtomicU64,
}

impl Wire {
    /// Whether a count comes to its end with this one.
    fn is_hit(&self, counter: &AtomicI64) -> bool {
        let counted = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            (left > 0).then(|| left - 1)
        });
        let hit = counted == Ok(1);
        if hit {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        hit
    }
}

impl Proxy {
    /// In front of `upstream`.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn before(upstream: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let wire = Arc::new(Wire {
            upstream: Mutex::new(upstream),
            mode: watch::Sender::new(Mode::Pass),
            cuts: watch::Sender::new(0),
            replies_until_cut: AtomicI64::new(0),
            connections_until_cut: AtomicI64::new(0),
            lost: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&wire)));
        Ok(Self {
            address,
            wire,
            accepting,
        })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what happens from now on, to open connections too; [`Mode::Refuse`] cuts them.
    pub fn set(&self, mode: Mode) {
        self.wire.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Cuts every open connection.
    pub fn cut(&self) {
        self.wire.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Loses the reply that comes after so many others, and cuts its connection: what was asked is done, and whoever
    /// asked is not told.
    pub fn lose_reply_after(&self, replies: u32) {
        let count = i64::from(replies) + 1;
        self.wire.replies_until_cut.store(count, Ordering::Relaxed);
    }

    /// Cuts the connection that is opened after so many others.
    pub fn cut_connection_after(&self, connections: u32) {
        let count = i64::from(connections) + 1;
        self.wire.connections_until_cut.store(count, Ordering::Relaxed);
    }

    /// How many replies and connections were lost by a count.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.wire.lost.load(Ordering::Relaxed)
    }

    /// Leads new connections elsewhere, and cuts those that are open.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.wire.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
        self.cut();
    }

    /// Everything goes through again.
    pub fn heal(&self) {
        self.wire.replies_until_cut.store(0, Ordering::Relaxed);
        self.wire.connections_until_cut.store(0, Ordering::Relaxed);
        self.set(Mode::Pass);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, wire: Arc<Wire>) {
    while let Ok((client, _)) = listener.accept().await {
        let refused = *wire.mode.borrow() == Mode::Refuse;
        if !refused && !wire.is_hit(&wire.connections_until_cut) {
            tokio::spawn(carry(client, Arc::clone(&wire)));
        }
    }
}

async fn carry(client: TcpStream, wire: Arc<Wire>) {
    let mut cuts = wire.cuts.subscribe();
    tokio::select! {
        _ = cuts.changed() => (),
        // Whatever ended it, the connection ends on both sides.
        _ = both_ways(client, &wire) => (),
    }
}

async fn both_ways(client: TcpStream, wire: &Wire) -> Result<()> {
    let upstream = *wire.upstream.lock().unwrap_or_else(PoisonError::into_inner);
    let server = TcpStream::connect(upstream).await?;
    // Otherwise small replies wait for each other.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        one_way(from_client, to_server, wire, None),
        one_way(from_server, to_client, wire, Some(&wire.replies_until_cut)),
    )?;
    Ok(())
}

async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wire: &Wire,
    until_cut: Option<&AtomicI64>,
) -> Result<()> {
    let mut mode = wire.mode.subscribe();
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        ensure!(read > 0, "closed");
        let now = *mode.wait_for(|mode| *mode != Mode::Silent).await?;
        if let Mode::Late(by) = now {
            tokio::time::sleep(by).await;
        }
        if until_cut.is_some_and(|counter| wire.is_hit(counter)) {
            bail!("cut");
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each byte with the next.
    async fn server() -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(byte) = client.read_u8().await {
                        if client.write_u8(byte + 1).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Ok(address)
    }

    async fn ask(client: &mut TcpStream, byte: u8) -> Result<u8> {
        client.write_u8(byte).await?;
        Ok(tokio::time::timeout(Duration::from_secs(5), client.read_u8()).await??)
    }

    #[tokio::test]
    async fn the_reply_that_was_counted_is_lost_with_its_connection_and_no_other() -> Result<()> {
        let proxy = Proxy::before(server().await?).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        assert_eq!(ask(&mut client, 1).await?, 2);
        proxy.lose_reply_after(1);
        assert_eq!(ask(&mut client, 3).await?, 4);
        assert!(ask(&mut client, 5).await.is_err());
        let mut again = TcpStream::connect(proxy.address()).await?;
        assert_eq!(ask(&mut again, 7).await?, 8);
        assert_eq!(proxy.lost(), 1);
        Ok(())
    }

    #[tokio::test]
    async fn a_connection_that_was_counted_is_cut() -> Result<()> {
        let proxy = Proxy::before(server().await?).await?;
        proxy.cut_connection_after(1);
        let mut first = TcpStream::connect(proxy.address()).await?;
        assert_eq!(ask(&mut first, 1).await?, 2);
        let mut second = TcpStream::connect(proxy.address()).await?;
        assert!(ask(&mut second, 1).await.is_err());
        assert_eq!(ask(&mut first, 3).await?, 4);
        Ok(())
    }

    #[tokio::test]
    async fn what_is_silent_comes_through_once_it_is_healed_and_what_is_refused_does_not() -> Result<()> {
        let proxy = Proxy::before(server().await?).await?;
        let mut client = TcpStream::connect(proxy.address()).await?;
        proxy.set(Mode::Silent);
        client.write_u8(1).await?;
        let early = tokio::time::timeout(Duration::from_millis(50), client.read_u8()).await;
        assert!(early.is_err(), "{early:?}");
        proxy.set(Mode::Late(Duration::from_millis(1)));
        assert_eq!(client.read_u8().await?, 2);
        proxy.set(Mode::Refuse);
        assert!(ask(&mut client, 3).await.is_err());
        let mut refused = TcpStream::connect(proxy.address()).await?;
        assert!(ask(&mut refused, 3).await.is_err());
        proxy.heal();
        let mut healed = TcpStream::connect(proxy.address()).await?;
        assert_eq!(ask(&mut healed, 3).await?, 4);
        Ok(())
    }

    #[tokio::test]
    async fn connections_can_be_led_elsewhere() -> Result<()> {
        let nobody = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = Proxy::before(nobody.local_addr()?).await?;
        proxy.lead_to(server().await?);
        let mut client = TcpStream::connect(proxy.address()).await?;
        assert_eq!(ask(&mut client, 1).await?, 2);
        Ok(())
    }
}
