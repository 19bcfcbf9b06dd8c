//! A client's end of a connection, without the socket: bytes that arrived go in, events and bytes to send
//! come out. So every rule of HTTP/2 that matters here is tested without a network.

use super::{
    fault::Fault,
    frame::{self, Frame, flag, kind, setting},
    head::{Blocks, Head},
    hpack, message,
    streams::{Stream, Streams, Window},
};

/// How much we take of a stream, and of the connection, before we give the window back. So much that a
/// server never waits for it.
const WINDOW_BYTES: u32 = 1 << 24;

/// Both windows before anybody says otherwise.
const WINDOW_BYTES_DEFAULT: u32 = 65_535;

/// The code of a RST_STREAM that says "not needed any more".
const CANCEL: u32 = 8;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum End {
    /// With this gRPC status; 0 is OK.
    Status(u8),
    /// Without a status that can be read, or in the middle of a message.
    Malformed,
    /// The server reset the stream.
    Reset,
    /// The connection went away under it.
    Lost,
}

/// Who is told what happens to calls.
pub(in crate::bench) trait Events {
    /// A message arrived for the call that is marked so.
    fn message(&mut self, mark: u32, message: &[u8]);
    /// The call that is marked so ended.
    fn ended(&mut self, mark: u32, end: End);
}

/// What the peer says about itself.
#[derive(Debug)]
struct Peer {
    is_known: bool,
    stream_window: u32,
    streams_max: usize,
}

/// The state of one connection.
#[derive(Debug)]
pub(in crate::bench) struct Protocol {
    head: Blocks,
    /// What is said before calls of the second method, where there is one.
    second: Option<Blocks>,
    out: Vec<u8>,
    streams: Streams,
    peer: Peer,
    /// What the peer still takes of all streams together.
    window: Window,
    /// How many streams have something that could not be sent yet.
    waiting: usize,
    /// What arrived since we last gave the connection's window back.
    received_bytes: u32,
    headers: hpack::Decoder,
    /// A header block that goes on in the next frame: of which stream, and whether that ends with it.
    block: Option<(u32, bool)>,
    block_bytes: Vec<u8>,
    is_going_away: bool,
}

impl Protocol {
    /// A connection on which `head` is called, up to `open_max` times at once.
    pub(in crate::bench) fn new(head: &Head, open_max: usize) -> Self {
        let mut out = frame::PREFACE.to_vec();
        let ours = [
            (setting::ENABLE_PUSH, 0),
            (setting::INITIAL_WINDOW_SIZE, WINDOW_BYTES),
        ];
        frame::put_settings(&mut out, &ours);
        frame::put_window_update(&mut out, 0, WINDOW_BYTES - WINDOW_BYTES_DEFAULT);
        Self {
            head: head.blocks(),
            second: None,
            out,
            streams: Streams::new(open_max),
            peer: Peer {
                is_known: false,
                stream_window: WINDOW_BYTES_DEFAULT,
                streams_max: usize::MAX,
            },
            window: Window::new(WINDOW_BYTES_DEFAULT),
            waiting: 0,
            received_bytes: 0,
            headers: hpack::Decoder::default(),
            block: None,
            block_bytes: Vec::new(),
            is_going_away: false,
        }
    }

    /// Lets another method be called as well. Both heads must leave the same in the peer's header table, as those do
    /// that were made by [`Head::one_of_many`].
    pub(in crate::bench) fn set_second(&mut self, head: &Head) {
        self.second = Some(head.blocks());
    }

    /// What is to be written to the socket. Whoever writes it clears it.
    pub(in crate::bench) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether the peer has said how much it takes. Nothing is asked before.
    pub(in crate::bench) fn is_ready(&self) -> bool {
        self.peer.is_known
    }

    /// Whether the peer takes another message now. While something waits for its windows, nothing more is
    /// put behind it.
    pub(in crate::bench) fn can_send(&self) -> bool {
        self.waiting == 0
    }

    /// Whether the peer takes another call now.
    pub(in crate::bench) fn can_open(&self) -> bool {
        let has_room = self.streams.open() < self.peer.streams_max;
        self.is_ready() && has_room && self.can_send() && !self.is_at_its_end()
    }

    /// Whether all calls have ended and no other can follow: another connection is needed.
    pub(in crate::bench) fn is_spent(&self) -> bool {
        self.is_at_its_end() && self.streams.open() == 0
    }

    fn is_at_its_end(&self) -> bool {
        self.is_going_away || self.streams.are_used_up()
    }

    /// Opens a call, where [`can_open`](Self::can_open) says so, and answers the id of its stream. Events
    /// name it by `mark`.
    pub(in crate::bench) fn open(&mut self, mark: u32) -> u32 {
        self.open_method(mark, false)
    }

    /// The same of the first method or the second, where there is one.
    pub(in crate::bench) fn open_method(&mut self, mark: u32, is_second: bool) -> u32 {
        let second = self.second.as_ref().filter(|_| is_second);
        let head = second.unwrap_or(&self.head);
        let block = if self.streams.are_untouched() {
            &head.first
        } else {
            &head.again
        };
        let id = self.streams.insert(mark, Window::new(self.peer.stream_window));
        frame::put(&mut self.out, kind::HEADERS, flag::END_HEADERS, id, block);
        id
    }

    /// Sends the message that `write` appends. It is written where it is sent from, and copied only where
    /// the peer's windows have no room for it.
    pub(in crate::bench) fn send(&mut self, id: u32, is_last: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(stream) = self.streams.find(id) else {
            return;
        };
        let start = self.out.len();
        let message_start = start + frame::HEADER_BYTES + message::PREFIX_BYTES;
        self.out.resize(message_start, 0);
        write(&mut self.out);
        let message_bytes = self.out.len() - message_start;
        // Its first byte stays 0: not compressed.
        let length = (message_bytes as u32).to_be_bytes();
        self.out[message_start - length.len()..message_start].copy_from_slice(&length);
        let payload_bytes = message_bytes + message::PREFIX_BYTES;
        if payload_bytes <= sendable(self.window, stream.window) {
            let flags = if is_last { flag::END_STREAM } else { 0 };
            let header = frame::header(payload_bytes, kind::DATA, flags, id);
            self.out[start..start + header.len()].copy_from_slice(&header);
            self.window.take(payload_bytes);
            stream.window.take(payload_bytes);
            stream.is_finished = is_last;
            return;
        }
        stream
            .unsent
            .extend_from_slice(&self.out[start + frame::HEADER_BYTES..]);
        stream.unsent_is_last = is_last;
        self.out.truncate(start);
        self.waiting += 1;
        self.send_waiting();
    }

    /// Says that nothing more is sent on a stream.
    pub(in crate::bench) fn finish(&mut self, id: u32) {
        if let Some(stream) = self.streams.find(id) {
            stream.is_finished = true;
            frame::put(&mut self.out, kind::DATA, flag::END_STREAM, id, &[]);
        }
    }

    /// Sends what waits, as far as the peer's windows have room.
    fn send_waiting(&mut self) {
        if self.waiting == 0 {
            return;
        }
        for stream in self.streams.iter_mut().filter(|stream| !stream.unsent.is_empty()) {
            let mut sent = 0;
            while sent < stream.unsent.len() {
                let rest = &stream.unsent[sent..];
                let bytes = rest.len().min(sendable(self.window, stream.window));
                if bytes == 0 {
                    break;
                }
                let is_end = stream.unsent_is_last && bytes == rest.len();
                let flags = if is_end { flag::END_STREAM } else { 0 };
                frame::put(&mut self.out, kind::DATA, flags, stream.id(), &rest[..bytes]);
                self.window.take(bytes);
                stream.window.take(bytes);
                stream.is_finished = is_end;
                sent += bytes;
            }
            stream.unsent.drain(..sent);
            if stream.unsent.is_empty() {
                self.waiting -= 1;
            }
        }
    }

    /// Takes the whole frames that `bytes` begin with, and answers how many bytes those are.
    pub(in crate::bench) fn receive(
        &mut self,
        bytes: &[u8],
        events: &mut impl Events,
    ) -> Result<usize, Fault> {
        let mut rest = bytes;
        while let Some((frame, after)) = Frame::split(rest)? {
            self.take(&frame, events)?;
            rest = after;
        }
        Ok(bytes.len() - rest.len())
    }

    fn take(&mut self, frame: &Frame<'_>, events: &mut impl Events) -> Result<(), Fault> {
        // Nothing comes between the parts of a header block.
        if self.block.is_some() != (frame.kind == kind::CONTINUATION) {
            return Err(frame.malformed());
        }
        match frame.kind {
            kind::DATA => self.take_data(frame, events),
            kind::HEADERS => {
                self.block = Some((frame.stream, frame.has(flag::END_STREAM)));
                self.take_block(frame, frame.content()?, events)
            }
            kind::CONTINUATION => self.take_block(frame, frame.payload, events),
            kind::RST_STREAM => {
                self.end(frame.stream, Some(End::Reset), events);
                Ok(())
            }
            kind::SETTINGS => self.take_settings(frame),
            kind::PING => {
                if !frame.has(flag::ACK) {
                    frame::put(&mut self.out, kind::PING, flag::ACK, 0, frame.payload);
                }
                Ok(())
            }
            kind::GOAWAY => self.take_goaway(frame, events),
            kind::WINDOW_UPDATE => self.take_window_update(frame),
            // We said that we take no pushes.
            kind::PUSH_PROMISE => Err(frame.malformed()),
            // What we do not know means nothing to us (RFC 9113, 5.5).
            _ => Ok(()),
        }
    }

    fn take_data(&mut self, frame: &Frame<'_>, events: &mut impl Events) -> Result<(), Fault> {
        let content = frame.content()?;
        let bytes = frame.payload.len() as u32;
        give_back(&mut self.out, 0, &mut self.received_bytes, bytes);
        let Some(stream) = self.streams.find(frame.stream) else {
            // The rest of a call that we have forgotten.
            return Ok(());
        };
        let Stream { mark, partial, .. } = stream;
        message::split(partial, content, |message| events.message(*mark, message))?;
        if frame.has(flag::END_STREAM) {
            self.end(frame.stream, None, events);
        } else {
            give_back(&mut self.out, frame.stream, &mut stream.received_bytes, bytes);
        }
        Ok(())
    }

    /// Takes a part of a header block; the last one makes it whole.
    fn take_block(&mut self, frame: &Frame<'_>, part: &[u8], events: &mut impl Events) -> Result<(), Fault> {
        let Some((id, ends)) = self.block.filter(|(id, _)| *id == frame.stream) else {
            return Err(frame.malformed());
        };
        let is_whole = frame.has(flag::END_HEADERS);
        if is_whole && self.block_bytes.is_empty() {
            self.read_block(id, part)?;
        } else {
            self.block_bytes.extend_from_slice(part);
            if self.block_bytes.len() > 4 * frame::PAYLOAD_BYTES_MAX {
                return Err(Fault::HeadersMalformed);
            }
            if !is_whole {
                return Ok(());
            }
            let block = std::mem::take(&mut self.block_bytes);
            self.read_block(id, &block)?;
        }
        self.block = None;
        if ends {
            self.end(id, None, events);
        }
        Ok(())
    }

    /// Reads a block even where its call has ended: those that follow build on it.
    fn read_block(&mut self, id: u32, block: &[u8]) -> Result<(), Fault> {
        let (mut is_http_ok, mut status) = (None, None);
        self.headers.decode(block, |name, value| match name {
            b":status" => is_http_ok = Some(value == b"200"),
            b"grpc-status" => status = parse_status(value),
            _ => {}
        })?;
        if let Some(stream) = self.streams.find(id) {
            stream.is_http_ok = is_http_ok.unwrap_or(stream.is_http_ok);
            stream.status = status;
        }
        Ok(())
    }

    fn take_settings(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        if frame.has(flag::ACK) {
            return Ok(());
        }
        for (id, value) in frame.settings()? {
            match id {
                setting::HEADER_TABLE_SIZE if (value as usize) < self.head.table_bytes => {
                    return Err(Fault::HeaderTableTooSmall { bytes: value });
                }
                setting::MAX_CONCURRENT_STREAMS => {
                    self.peer.streams_max = value as usize;
                }
                setting::INITIAL_WINDOW_SIZE => {
                    // It holds for the streams that are open, too.
                    let moved = i64::from(value) - i64::from(self.peer.stream_window);
                    self.peer.stream_window = value;
                    for stream in self.streams.iter_mut() {
                        stream.window.move_by(moved)?;
                    }
                }
                _ => {}
            }
        }
        self.peer.is_known = true;
        frame::put(&mut self.out, kind::SETTINGS, flag::ACK, 0, &[]);
        self.send_waiting();
        Ok(())
    }

    fn take_window_update(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        let bytes = i64::from(frame.number()? & !(1 << 31));
        if frame.stream == 0 {
            self.window.move_by(bytes)?;
        } else if let Some(stream) = self.streams.find(frame.stream) {
            stream.window.move_by(bytes)?;
        }
        self.send_waiting();
        Ok(())
    }

    /// The peer finishes the calls up to one, and takes no more.
    fn take_goaway(&mut self, frame: &Frame<'_>, events: &mut impl Events) -> Result<(), Fault> {
        let last = frame.number()? & !(1 << 31);
        self.is_going_away = true;
        self.end_those(|id| id > last, events);
        Ok(())
    }

    /// The connection is gone, and every open call with it.
    pub(in crate::bench) fn lose(&mut self, events: &mut impl Events) {
        self.is_going_away = true;
        self.end_those(|_| true, events);
    }

    fn end_those(&mut self, which: impl Fn(u32) -> bool, events: &mut impl Events) {
        let open: Vec<u32> = self.streams.iter_mut().map(|stream| stream.id()).collect();
        for id in open.into_iter().filter(|id| which(*id)) {
            self.end(id, Some(End::Lost), events);
        }
    }

    /// Ends a call as said, or as its headers and trailers say.
    fn end(&mut self, id: u32, end: Option<End>, events: &mut impl Events) {
        let Some(stream) = self.streams.find(id) else {
            return;
        };
        let said = match stream.status {
            Some(status) if stream.is_http_ok && stream.partial.is_empty() => End::Status(status),
            _ => End::Malformed,
        };
        if !stream.unsent.is_empty() {
            self.waiting -= 1;
        }
        if end.is_none() && !stream.is_finished {
            // The server has answered before it heard all. To it the stream stays open unless we end it too.
            frame::put(&mut self.out, kind::RST_STREAM, 0, id, &CANCEL.to_be_bytes());
        }
        let mark = stream.mark;
        self.streams.remove(id);
        events.ended(mark, end.unwrap_or(said));
    }
}

/// How much of a message both windows and a frame have room for.
fn sendable(connection: Window, stream: Window) -> usize {
    let room = connection.room().min(stream.room());
    room.min(frame::PAYLOAD_BYTES_MAX)
}

/// Counts what arrived, and gives the window back once half of it is used.
fn give_back(out: &mut Vec<u8>, stream: u32, received_bytes: &mut u32, bytes: u32) {
    *received_bytes += bytes;
    if *received_bytes >= WINDOW_BYTES / 2 {
        frame::put_window_update(out, stream, *received_bytes);
        *received_bytes = 0;
    }
}

/// A gRPC status: 0 to 16 in decimal digits.
fn parse_status(value: &[u8]) -> Option<u8> {
    let status = std::str::from_utf8(value).ok()?.parse().ok()?;
    (status <= 16).then_some(status)
}

#[cfg(test)]
mod tests;
