//! Frames as RFC 9113 has them: nine bytes of header, then the payload.

use super::fault::Fault;

/// The length of a frame's header.
pub(super) const HEADER_BYTES: usize = 9;

/// The longest payload that an endpoint must take, and that we take. We never ask for more.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16_384;

/// What a client says before its first frame.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The types of frames that a client of gRPC meets.
pub(super) mod kind {
    pub(in crate::bench::http2) const DATA: u8 = 0x0;
    pub(in crate::bench::http2) const HEADERS: u8 = 0x1;
    pub(in crate::bench::http2) const RST_STREAM: u8 = 0x3;
    pub(in crate::bench::http2) const SETTINGS: u8 = 0x4;
    pub(in crate::bench::http2) const PUSH_PROMISE: u8 = 0x5;
    pub(in crate::bench::http2) const PING: u8 = 0x6;
    pub(in crate::bench::http2) const GOAWAY: u8 = 0x7;
    pub(in crate::bench::http2) const WINDOW_UPDATE: u8 = 0x8;
    pub(in crate::bench::http2) const CONTINUATION: u8 = 0x9;
}

/// The flags of frames. `ACK` has the bit of `END_STREAM`, on other types of frames.
pub(super) mod flag {
    pub(in crate::bench::http2) const ACK: u8 = 0x1;
    pub(in crate::bench::http2) const END_STREAM: u8 = 0x1;
    pub(in crate::bench::http2) const END_HEADERS: u8 = 0x4;
    pub(in crate::bench::http2) const PADDED: u8 = 0x8;
    pub(in crate::bench::http2) const PRIORITY: u8 = 0x20;
}

/// The settings that mean something to a client of gRPC.
pub(super) mod setting {
    pub(in crate::bench::http2) const HEADER_TABLE_SIZE: u16 = 0x1;
    pub(in crate::bench::http2) const ENABLE_PUSH: u16 = 0x2;
    pub(in crate::bench::http2) const MAX_CONCURRENT_STREAMS: u16 = 0x3;
    pub(in crate::bench::http2) const INITIAL_WINDOW_SIZE: u16 = 0x4;
}

/// One frame, in the buffer that it was read into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// The stream that it is of; 0 is the connection.
    pub(super) stream: u32,
    pub(super) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The first frame of `bytes` and what follows it; none while it has not all arrived.
    pub(super) fn split(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Fault> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [a, b, c, kind, flags, stream @ ..] = *header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > PAYLOAD_BYTES_MAX {
            return Err(Fault::FrameTooLong { bytes: length });
        }
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            return Ok(None);
        };
        let frame = Self {
            kind,
            flags,
            // The highest bit means nothing and may be set.
            stream: u32::from_be_bytes(stream) & !(1 << 31),
            payload,
        };
        Ok(Some((frame, rest)))
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What the payload is without the padding, and without the priority that HEADERS may begin with.
    pub(super) fn content(&self) -> Result<&'a [u8], Fault> {
        let mut content = self.payload;
        if self.has(flag::PADDED) {
            let (&padding, rest) = content.split_first().ok_or_else(|| self.malformed())?;
            let length = rest.len().checked_sub(usize::from(padding));
            content = &rest[..length.ok_or_else(|| self.malformed())?];
        }
        if self.kind == kind::HEADERS && self.has(flag::PRIORITY) {
            content = content.get(5..).ok_or_else(|| self.malformed())?;
        }
        Ok(content)
    }

    /// The number that the payload begins with.
    pub(super) fn number(&self) -> Result<u32, Fault> {
        let number = self.payload.first_chunk().ok_or_else(|| self.malformed())?;
        Ok(u32::from_be_bytes(*number))
    }

    /// The settings that the payload lists.
    pub(super) fn settings(&self) -> Result<impl Iterator<Item = (u16, u32)> + use<'a>, Fault> {
        let (settings, rest) = self.payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(self.malformed());
        }
        Ok(settings.iter().map(|&[a, b, value @ ..]| {
            let id = u16::from_be_bytes([a, b]);
            (id, u32::from_be_bytes(value))
        }))
    }

    pub(super) fn malformed(&self) -> Fault {
        Fault::FrameMalformed { kind: self.kind }
    }
}

/// The header of a frame. `length` is at most [`PAYLOAD_BYTES_MAX`], which three bytes hold.
pub(super) fn header(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; HEADER_BYTES] {
    debug_assert!(length < 1 << 24, "three bytes hold the length");
    let length = (length as u32).to_be_bytes();
    let stream = stream.to_be_bytes();
    let mut header = [0; HEADER_BYTES];
    header[..3].copy_from_slice(&length[1..]);
    header[3] = kind;
    header[4] = flags;
    header[5..].copy_from_slice(&stream);
    header
}

/// Appends a whole frame.
pub(super) fn put(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    out.extend_from_slice(&header(payload.len(), kind, flags, stream));
    out.extend_from_slice(payload);
}

/// Appends a WINDOW_UPDATE that gives `bytes` back.
pub(super) fn put_window_update(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    put(out, kind::WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
}

/// Appends SETTINGS.
pub(super) fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    out.extend_from_slice(&header(settings.len() * 6, kind::SETTINGS, 0, 0));
    for (id, value) in settings {
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        let mut bytes = Vec::new();
        put(&mut bytes, kind::DATA, flag::END_STREAM, 5, b"hello");
        put_window_update(&mut bytes, 0, 77);
        let (first, rest) = Frame::split(&bytes).expect("well-formed").expect("whole");
        assert_eq!(
            (first.kind, first.stream, first.payload),
            (kind::DATA, 5, &b"hello"[..])
        );
        assert!(first.has(flag::END_STREAM) && !first.has(flag::PADDED));
        let (second, rest) = Frame::split(rest).expect("well-formed").expect("whole");
        assert_eq!(
            (second.kind, second.stream, second.number()),
            (kind::WINDOW_UPDATE, 0, Ok(77))
        );
        assert_eq!(rest, b"");
    }

    #[test]
    fn a_frame_that_has_not_all_arrived_is_none_yet() {
        let mut bytes = Vec::new();
        put(&mut bytes, kind::PING, 0, 0, &[7; 8]);
        for length in 0..bytes.len() {
            assert_eq!(Frame::split(&bytes[..length]), Ok(None), "{length} bytes");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_a_fault_before_it_arrives() {
        let header = header(PAYLOAD_BYTES_MAX + 1, kind::DATA, 0, 1);
        let fault = Fault::FrameTooLong {
            bytes: PAYLOAD_BYTES_MAX + 1,
        };
        assert_eq!(Frame::split(&header), Err(fault));
    }

    #[test]
    fn padding_and_priority_are_taken_off() {
        let check = |kind, flags, payload: &[u8]| {
            let frame = Frame {
                kind,
                flags,
                stream: 1,
                payload,
            };
            frame.content().map(<[u8]>::to_vec)
        };
        let malformed = |kind| Err(Fault::FrameMalformed { kind });
        assert_eq!(check(kind::DATA, 0, b"ab"), Ok(b"ab".to_vec()));
        assert_eq!(check(kind::DATA, flag::PADDED, b"\x02abPP"), Ok(b"ab".to_vec()));
        assert_eq!(
            check(kind::DATA, flag::PADDED, b"\x05abPP"),
            malformed(kind::DATA)
        );
        assert_eq!(check(kind::DATA, flag::PADDED, b""), malformed(kind::DATA));
        let both = flag::PADDED | flag::PRIORITY;
        assert_eq!(check(kind::HEADERS, both, b"\x01pppppabP"), Ok(b"ab".to_vec()));
        assert_eq!(
            check(kind::HEADERS, flag::PRIORITY, b"ppp"),
            malformed(kind::HEADERS)
        );
    }

    #[test]
    fn settings_are_pairs() {
        let mut bytes = Vec::new();
        let sent = [
            (setting::MAX_CONCURRENT_STREAMS, 200),
            (setting::INITIAL_WINDOW_SIZE, 1 << 20),
        ];
        put_settings(&mut bytes, &sent);
        let (frame, _) = Frame::split(&bytes).expect("well-formed").expect("whole");
        assert_eq!(frame.settings().expect("well-formed").collect::<Vec<_>>(), sent);
        let torn = Frame {
            payload: &frame.payload[1..],
            ..frame
        };
        assert!(torn.settings().is_err());
    }
}
