//! A network that can be broken: a TCP proxy in front of the broker.

use anyhow::{Context, Result};
use std::net::SocketAddr;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Whatever comes goes on.
    Pass,
    /// Connections are accepted and stay open, and nothing goes through.
    Silent,
    /// Connections are closed at once.
    Refuse,
}

/// The proxy; dropped, it takes its connections with it.
pub(super) struct Proxy {
    pub(super) address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// Changes whenever every open connection is to be cut.
    cuts: watch::Sender<u64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// In front of `upstream`, a host and port.
    pub(super) async fn before(upstream: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (mode, cuts) = (watch::Sender::new(Mode::Pass), watch::Sender::new(0));
        let address = listener.local_addr()?;
        let accepting = tokio::spawn({
            let (mode, cuts) = (mode.subscribe(), cuts.subscribe());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let refuses = *mode.borrow() == Mode::Refuse;
                    if !refuses {
                        tokio::spawn(carry(client, upstream.clone(), mode.clone(), cuts.clone()));
                    }
                }
            }
        });
        Ok(Self {
            address,
            mode,
            cuts,
            accepting,
        })
    }

    /// Sets what happens from now on, to open connections too; `Refuse` cuts them.
    pub(super) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Refuse {
            self.cut();
        }
    }

    /// Cuts every open connection.
    pub(super) fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry(
    client: TcpStream,
    upstream: String,
    mode: watch::Receiver<Mode>,
    mut cuts: watch::Receiver<u64>,
) {
    cuts.mark_unchanged();
    tokio::select! {
        _ = cuts.changed() => (),
        _ = both_ways(&client, upstream, mode) => (),
    }
}

async fn both_ways(client: &TcpStream, upstream: String, mode: watch::Receiver<Mode>) -> Result<()> {
    let server = TcpStream::connect(upstream).await?;
    tokio::try_join!(
        one_way(client, &server, mode.clone()),
        one_way(&server, client, mode)
    )?;
    Ok(())
}

async fn one_way(from: &TcpStream, to: &TcpStream, mut mode: watch::Receiver<Mode>) -> Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        from.readable().await?;
        mode.wait_for(|mode| *mode == Mode::Pass).await?;
        let read = match from.try_read(&mut buffer) {
            Ok(0) => anyhow::bail!("closed"),
            Ok(read) => read,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        let mut left = buffer.get(..read).context("a read beyond the buffer")?;
        while !left.is_empty() {
            to.writable().await?;
            match to.try_write(left) {
                Ok(written) => left = left.get(written..).context("a write beyond the buffer")?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => (),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
