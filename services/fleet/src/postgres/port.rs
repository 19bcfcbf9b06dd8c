//! A free port for a server that lives on loopback.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

/// Below the range from which systems take the ports of outgoing connections (32768 and up on Linux,
/// 49152 and up on macOS). A listener inside that range may lose its port to an outgoing connection
/// while it restarts, and a client that keeps trying such a port can even connect to itself. The ports
/// from 20000 on are left to those who reserve theirs, such as tests.
const PORTS: std::ops::Range<u16> = 15_000..20_000;

const TRIES_MAX: u32 = 200;

/// Returns a port on 127.0.0.1 that nobody listens on at this moment.
///
/// # Errors
/// The last refusal of the system, when every try found its port taken.
pub(super) fn free_port() -> io::Result<u16> {
    let mut refusal = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES_MAX {
        let port = rand::random_range(PORTS);
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => refusal = error,
        }
    }
    Err(refusal)
}
