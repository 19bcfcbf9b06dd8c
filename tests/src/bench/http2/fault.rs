//! What a peer can do that no HTTP/2 endpoint may.

use thiserror::Error;

/// Why a connection cannot go on. Each is a mistake of the peer's, or a limit of ours that it passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::bench) enum Fault {
    /// A frame is longer than we said that we take.
    #[error("the peer sent a frame of {bytes} bytes, more than it may")]
    FrameTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A frame whose fields do not fit into it, or one in a place where it cannot be.
    #[error("the peer sent a malformed frame of type {kind:#04x}")]
    FrameMalformed {
        /// The type of the frame, as it is on the wire.
        kind: u8,
    },
    /// A header block that HPACK cannot read.
    #[error("the peer sent a header block that cannot be read")]
    HeadersMalformed,
    /// A message that is compressed or too long.
    #[error("the peer sent a message that is compressed or too long")]
    MessageMalformed,
    /// A window grew beyond 2^31 - 1.
    #[error("the peer opened a window beyond what a window can be")]
    WindowTooLarge,
    /// Our header blocks name entries of a table that the peer does not keep.
    #[error("the peer keeps a header table of {bytes} bytes, which is too small for our headers")]
    HeaderTableTooSmall {
        /// The size that it keeps.
        bytes: u32,
    },
}
