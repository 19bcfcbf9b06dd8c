//! A connection: a socket that never blocks, and what HTTP/2 makes of it.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use thiserror::Error;

use super::{
    fault::Fault,
    head::Head,
    protocol::{Events, Protocol},
};

const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Holds several frames of the largest size, so that one always fits.
const INPUT_BYTES: usize = 64 * 1024;

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub(in crate::bench) enum Broken {
    #[error("the server closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// One connection.
#[derive(Debug)]
pub(in crate::bench) struct Connection {
    socket: TcpStream,
    input: Box<[u8]>,
    /// How much of `input` has not been taken yet.
    filled: usize,
    /// How much of what is to be sent has been written.
    written: usize,
    pub(in crate::bench) protocol: Protocol,
}

impl Connection {
    /// Connects to a server that calls `head` up to `open_max` times at once.
    pub(in crate::bench) fn open(address: SocketAddr, head: &Head, open_max: usize) -> std::io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, CONNECT_MAX)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            input: vec![0; INPUT_BYTES].into(),
            filled: 0,
            written: 0,
            protocol: Protocol::new(head, open_max),
        })
    }

    /// Reads once what has arrived.
    pub(in crate::bench) fn fill(&mut self) -> Result<(), Broken> {
        match self.socket.read(&mut self.input[self.filled..]) {
            Ok(0) => Err(Broken::Closed),
            Ok(bytes) => {
                self.filled += bytes;
                Ok(())
            }
            Err(error) if is_only_later(error.kind()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what was read.
    pub(in crate::bench) fn receive(&mut self, events: &mut impl Events) -> Result<(), Broken> {
        let taken = self.protocol.receive(&self.input[..self.filled], events)?;
        self.input.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        Ok(())
    }

    /// Writes what is to be sent, and answers whether the socket took all of it.
    pub(in crate::bench) fn flush(&mut self) -> Result<bool, Broken> {
        let out = self.protocol.out();
        while self.written < out.len() {
            match self.socket.write(&out[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if is_only_later(error.kind()) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        out.clear();
        self.written = 0;
        Ok(true)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is_only_later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
