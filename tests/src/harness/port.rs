//! Ports that belong to one test, also while nobody listens on them.

use std::fmt;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;

use anyhow::{Context, Result};

/// Below the range that systems give to outgoing connections, and above the one from which a private
/// PostgreSQL takes its port: it starts in the same tests and knows of no reservation.
const PORTS: Range<u16> = 20_000..32_000;

const TRIES_MAX: u32 = 200;

/// A TCP port on 127.0.0.1 for a server that a test starts, kills and starts again.
///
/// Every test is a process of its own, so a port that was merely seen to be free may be picked by two
/// of them before either server listens. This one is reserved: while it lives, it holds the UDP port of
/// the same number, which nothing here uses otherwise and which only one process can have.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _reservation: UdpSocket,
}

impl Port {
    /// Reserves a port on which nobody listens.
    ///
    /// # Errors
    /// The last refusal of the system, when every try found its port taken.
    pub fn reserve() -> Result<Self> {
        let mut refusal = std::io::Error::from(ErrorKind::AddrInUse);
        for _ in 0..TRIES_MAX {
            match Self::reserve_number(rand::random_range(PORTS)) {
                Ok(port) => return Ok(port),
                Err(error) => refusal = error,
            }
        }
        Err(refusal).context("no port on 127.0.0.1 is free")
    }

    fn reserve_number(number: u16) -> std::io::Result<Self> {
        let reservation = UdpSocket::bind((Ipv4Addr::LOCALHOST, number))?;
        // Somebody may listen who reserves nothing.
        TcpListener::bind((Ipv4Addr::LOCALHOST, number))?;
        Ok(Self {
            number,
            _reservation: reservation,
        })
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its address on loopback.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_nobody_elses_and_can_be_listened_on() -> Result<()> {
        let ours = Port::reserve()?;
        let theirs = Port::reserve_number(ours.number());
        assert_eq!(theirs.err().map(|error| error.kind()), Some(ErrorKind::AddrInUse));
        TcpListener::bind(ours.address())?;
        Ok(())
    }

    #[test]
    fn a_port_that_is_listened_on_is_not_reserved() -> Result<()> {
        let port = Port::reserve()?;
        let _listener = TcpListener::bind(port.address())?;
        let number = port.number();
        drop(port);
        let refusal = Port::reserve_number(number).err();
        assert_eq!(refusal.map(|error| error.kind()), Some(ErrorKind::AddrInUse));
        Ok(())
    }
}
