//! A peer that says what a test wants it to say.

use super::*;

/// What was told, in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told(Vec<(u32, What)>);

#[derive(Debug, PartialEq, Eq)]
enum What {
    Message(Vec<u8>),
    Ended(End),
}

impl Events for Told {
    fn message(&mut self, mark: u32, message: &[u8]) {
        self.0.push((mark, What::Message(message.to_vec())));
    }

    fn ended(&mut self, mark: u32, end: End) {
        self.0.push((mark, What::Ended(end)));
    }
}

fn ended(mark: u32, end: End) -> (u32, What) {
    (mark, What::Ended(end))
}

fn message(mark: u32, message: &[u8]) -> (u32, What) {
    (mark, What::Message(message.to_vec()))
}

/// A frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put(&mut bytes, kind, flags, stream, payload);
    bytes
}

fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_settings(&mut bytes, settings);
    bytes
}

fn window_update(stream: u32, window_bytes: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::put_window_update(&mut bytes, stream, window_bytes);
    bytes
}

/// A header block of fields that are in no table.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        hpack::put_number(&mut block, hpack::NEVER_INDEXED, 0);
        hpack::put_text(&mut block, name.as_bytes());
        hpack::put_text(&mut block, value.as_bytes());
    }
    block
}

fn headers(stream: u32) -> Vec<u8> {
    let block = block(&[(":status", "200"), ("content-type", "application/grpc")]);
    frame(kind::HEADERS, flag::END_HEADERS, stream, &block)
}

fn trailers(stream: u32, status: &str) -> Vec<u8> {
    let flags = flag::END_HEADERS | flag::END_STREAM;
    frame(kind::HEADERS, flags, stream, &block(&[("grpc-status", status)]))
}

fn data(stream: u32, message: &[u8]) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend_from_slice(&(message.len() as u32).to_be_bytes());
    payload.extend_from_slice(message);
    frame(kind::DATA, 0, stream, &payload)
}

/// A connection whose peer has said `settings`; what it said itself so far is forgotten.
fn connected(with: &[(u16, u32)]) -> Protocol {
    let mut protocol = Protocol::new(&Head::new("/a.B/C"), 8);
    hear(&mut protocol, &settings(with));
    protocol.out().clear();
    protocol
}

/// Hears all of `bytes`.
fn hear(protocol: &mut Protocol, bytes: &[u8]) -> Told {
    let mut told = Told::default();
    assert_eq!(protocol.receive(bytes, &mut told), Ok(bytes.len()));
    told
}

fn fault(protocol: &mut Protocol, bytes: &[u8]) -> Fault {
    protocol
        .receive(bytes, &mut Told::default())
        .expect_err("a fault")
}

fn call(protocol: &mut Protocol, mark: u32, message: &[u8]) -> u32 {
    assert!(protocol.can_open());
    let id = protocol.open(mark);
    protocol.send(id, true, |out| out.extend_from_slice(message));
    id
}

/// The frames that were said since this was asked last, as (type, flags, stream, payload).
fn said(protocol: &mut Protocol) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let out = std::mem::take(protocol.out());
    let (mut rest, mut frames) = (out.as_slice(), Vec::new());
    while let Some((frame, after)) = Frame::split(rest).expect("we are well-formed") {
        frames.push((frame.kind, frame.flags, frame.stream, frame.payload.to_vec()));
        rest = after;
    }
    assert!(rest.is_empty(), "whole frames");
    frames
}

/// The DATA that was said, as (stream, bytes, whether it is the last).
fn said_data(protocol: &mut Protocol) -> Vec<(u32, usize, bool)> {
    said(protocol)
        .into_iter()
        .filter(|(kind, ..)| *kind == kind::DATA)
        .map(|(_, flags, stream, payload)| (stream, payload.len(), flags & flag::END_STREAM != 0))
        .collect()
}

#[test]
fn a_connection_begins_as_the_rfc_says_and_waits_for_the_settings() {
    let mut protocol = Protocol::new(&Head::new("/a.B/C"), 8);
    assert!(protocol.out().starts_with(PREFACE_AND_SETTINGS));
    assert!(!protocol.can_open());
    protocol.out().clear();
    hear(&mut protocol, &settings(&[]));
    assert!(protocol.can_open());
    assert_eq!(said(&mut protocol), [(kind::SETTINGS, flag::ACK, 0, Vec::new())]);
}

const PREFACE_AND_SETTINGS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x0c\x04\x00\x00\x00\x00\x00\
    \x00\x02\x00\x00\x00\x00\
    \x00\x04\x01\x00\x00\x00\
    \x00\x00\x04\x08\x00\x00\x00\x00\x00";

#[test]
fn a_call_is_headers_and_a_message_and_so_is_its_answer() {
    let mut protocol = connected(&[]);
    let id = call(&mut protocol, 7, b"ask");
    let out = said(&mut protocol);
    assert_eq!(
        (out[0].0, out[0].1, out[0].2),
        (kind::HEADERS, flag::END_HEADERS, 1)
    );
    assert_eq!(
        out[1],
        (kind::DATA, flag::END_STREAM, 1, b"\0\0\0\0\x03ask".to_vec())
    );
    let answer = [headers(id), data(id, b"told"), trailers(id, "0")].concat();
    let expected = Told(vec![message(7, b"told"), ended(7, End::Status(0))]);
    assert_eq!(hear(&mut protocol, &answer), expected);
}

#[test]
fn an_answer_is_heard_however_it_is_cut() {
    let answer = [headers(1), data(1, b"told"), trailers(1, "0")].concat();
    for at in 0..answer.len() {
        let mut protocol = connected(&[]);
        call(&mut protocol, 7, b"ask");
        let mut told = Told::default();
        let taken = protocol.receive(&answer[..at], &mut told).expect("well-formed");
        protocol
            .receive(&answer[taken..], &mut told)
            .expect("well-formed");
        assert_eq!(
            told.0,
            [message(7, b"told"), ended(7, End::Status(0))],
            "cut at {at}"
        );
    }
}

#[test]
fn a_refusal_is_all_in_one_block() {
    let mut protocol = connected(&[]);
    let id = call(&mut protocol, 7, b"ask");
    let block = block(&[
        (":status", "200"),
        ("grpc-status", "16"),
        ("grpc-message", "who are you?"),
    ]);
    // The block comes in three frames.
    let (first, rest) = block.split_at(5);
    let (second, third) = rest.split_at(9);
    let refusal = [
        frame(kind::HEADERS, flag::END_STREAM, id, first),
        frame(kind::CONTINUATION, 0, id, second),
        frame(kind::CONTINUATION, flag::END_HEADERS, id, third),
    ];
    assert_eq!(
        hear(&mut protocol, &refusal.concat()).0,
        [ended(7, End::Status(16))]
    );
}

#[test]
fn an_end_without_a_status_that_can_be_read_is_malformed() {
    let with = |status: &str, grpc_status: &str| block(&[(":status", status), ("grpc-status", grpc_status)]);
    for block in [
        with("503", "0"),
        with("200", "17"),
        with("200", "x"),
        block(&[(":status", "200")]),
    ] {
        let mut protocol = connected(&[]);
        let id = call(&mut protocol, 7, b"ask");
        let end = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, id, &block);
        assert_eq!(hear(&mut protocol, &end).0, [ended(7, End::Malformed)]);
    }
    // The message is cut short.
    let mut protocol = connected(&[]);
    let id = call(&mut protocol, 7, b"ask");
    let cut = frame(kind::DATA, 0, id, b"\0\0\0\0\x05tol");
    let answer = [headers(id), cut, trailers(id, "0")].concat();
    assert_eq!(hear(&mut protocol, &answer).0, [ended(7, End::Malformed)]);
}

#[test]
fn a_long_message_goes_out_in_frames() {
    let mut protocol = connected(&[]);
    let id = call(&mut protocol, 0, &[b'x'; 40_000]);
    let expected = [(id, 16_384, false), (id, 16_384, false), (id, 7_237, true)];
    assert_eq!(said_data(&mut protocol), expected);
    assert!(protocol.can_send());
}

#[test]
fn a_small_window_is_filled_and_the_rest_waits_until_it_opens() {
    let mut protocol = connected(&[(setting::INITIAL_WINDOW_SIZE, 10)]);
    let id = call(&mut protocol, 0, &[b'x'; 15]);
    assert_eq!(said_data(&mut protocol), [(id, 10, false)]);
    assert!(
        !protocol.can_send() && !protocol.can_open(),
        "nothing is put behind it"
    );
    hear(&mut protocol, &window_update(id, 4));
    assert_eq!(said_data(&mut protocol), [(id, 4, false)]);
    hear(&mut protocol, &window_update(id, 100));
    assert_eq!(said_data(&mut protocol), [(id, 6, true)]);
    assert!(protocol.can_open());
}

#[test]
fn a_setting_moves_the_windows_of_open_streams_too() {
    let mut protocol = connected(&[(setting::INITIAL_WINDOW_SIZE, 10)]);
    let id = call(&mut protocol, 0, &[b'x'; 15]);
    assert_eq!(said_data(&mut protocol), [(id, 10, false)]);
    // Below zero: 10 of 4 are sent.
    hear(&mut protocol, &settings(&[(setting::INITIAL_WINDOW_SIZE, 4)]));
    hear(&mut protocol, &window_update(id, 6));
    assert_eq!(said_data(&mut protocol), []);
    hear(&mut protocol, &settings(&[(setting::INITIAL_WINDOW_SIZE, 14)]));
    assert_eq!(said_data(&mut protocol), [(id, 10, true)]);
}

#[test]
fn the_connection_has_a_window_of_its_own() {
    let mut protocol = connected(&[(setting::INITIAL_WINDOW_SIZE, 1 << 20)]);
    let id = call(&mut protocol, 0, &[b'x'; 70_000]);
    let sent: usize = said_data(&mut protocol).iter().map(|(_, bytes, _)| bytes).sum();
    assert_eq!(sent, WINDOW_BYTES_DEFAULT as usize);
    hear(&mut protocol, &window_update(0, 1 << 20));
    assert_eq!(said_data(&mut protocol), [(id, 70_005 - sent, true)]);
}

#[test]
fn windows_are_given_back_before_they_are_used_up() {
    let mut protocol = connected(&[]);
    let id = protocol.open(7);
    said(&mut protocol);
    let frame = data(id, &[b'x'; 16_000]);
    let (mut heard, mut returned) = (0, 0);
    while heard < 2 * WINDOW_BYTES {
        hear(&mut protocol, &frame);
        heard += 16_005;
        for (kind, _, stream, payload) in said(&mut protocol) {
            assert_eq!(kind, kind::WINDOW_UPDATE);
            if stream == 0 {
                let number = payload.first_chunk().expect("four bytes");
                returned += u32::from_be_bytes(*number);
            }
        }
        assert!(heard - returned <= WINDOW_BYTES / 2, "the peer never waits");
    }
}

#[test]
fn a_ping_comes_back() {
    let mut protocol = connected(&[]);
    hear(&mut protocol, &frame(kind::PING, 0, 0, b"12345678"));
    assert_eq!(
        said(&mut protocol),
        [(kind::PING, flag::ACK, 0, b"12345678".to_vec())]
    );
    hear(&mut protocol, &frame(kind::PING, flag::ACK, 0, b"12345678"));
    assert_eq!(said(&mut protocol), []);
}

#[test]
fn no_more_calls_are_open_than_the_server_wants() {
    let mut protocol = connected(&[(setting::MAX_CONCURRENT_STREAMS, 2)]);
    let first = call(&mut protocol, 0, b"ask");
    call(&mut protocol, 1, b"ask");
    assert!(!protocol.can_open());
    hear(&mut protocol, &trailers(first, "14"));
    assert!(protocol.can_open());
}

#[test]
fn a_reset_ends_one_call() {
    let mut protocol = connected(&[]);
    let (first, second) = (call(&mut protocol, 1, b"ask"), call(&mut protocol, 2, b"ask"));
    let reset = frame(kind::RST_STREAM, 0, first, &7_u32.to_be_bytes());
    assert_eq!(hear(&mut protocol, &reset).0, [ended(1, End::Reset)]);
    // What was still under way for it means nothing any more, but its headers are read: others build on them.
    assert_eq!(
        hear(&mut protocol, &[headers(first), data(first, b"late")].concat()).0,
        []
    );
    let answer = [headers(second), data(second, b"told"), trailers(second, "0")].concat();
    assert_eq!(
        hear(&mut protocol, &answer).0,
        [message(2, b"told"), ended(2, End::Status(0))]
    );
}

#[test]
fn a_server_that_goes_away_finishes_what_it_has_begun() {
    let mut protocol = connected(&[]);
    let (first, second) = (call(&mut protocol, 1, b"ask"), call(&mut protocol, 2, b"ask"));
    let goaway = frame(
        kind::GOAWAY,
        0,
        0,
        &[first.to_be_bytes(), 0_u32.to_be_bytes()].concat(),
    );
    assert_eq!(hear(&mut protocol, &goaway).0, [ended(2, End::Lost)]);
    assert!(second > first && !protocol.can_open() && !protocol.is_spent());
    let answer = [headers(first), data(first, b"told"), trailers(first, "0")].concat();
    hear(&mut protocol, &answer);
    assert!(protocol.is_spent());
}

#[test]
fn a_lost_connection_loses_every_open_call() {
    let mut protocol = connected(&[]);
    call(&mut protocol, 1, b"ask");
    call(&mut protocol, 2, b"ask");
    let mut told = Told::default();
    protocol.lose(&mut told);
    told.0.sort_by_key(|(mark, _)| *mark);
    assert_eq!(told.0, [ended(1, End::Lost), ended(2, End::Lost)]);
    assert!(protocol.is_spent());
}

#[test]
fn an_answer_to_half_a_question_cancels_the_rest() {
    let mut protocol = connected(&[(setting::INITIAL_WINDOW_SIZE, 10)]);
    let id = call(&mut protocol, 0, &[b'x'; 15]);
    said(&mut protocol);
    let block = block(&[(":status", "200"), ("grpc-status", "8")]);
    let refusal = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, id, &block);
    assert_eq!(hear(&mut protocol, &refusal).0, [ended(0, End::Status(8))]);
    let cancel = (kind::RST_STREAM, 0, id, CANCEL.to_be_bytes().to_vec());
    assert_eq!(said(&mut protocol), [cancel]);
    assert!(protocol.can_open());
}

#[test]
fn a_stream_has_many_messages_and_ends_when_we_say_so() {
    let mut protocol = connected(&[]);
    let id = protocol.open(3);
    for message in [b"a", b"b"] {
        protocol.send(id, false, |out| out.extend_from_slice(message));
    }
    assert_eq!(said_data(&mut protocol), [(id, 6, false), (id, 6, false)]);
    let answers = [headers(id), data(id, b"A"), data(id, b"B")].concat();
    assert_eq!(
        hear(&mut protocol, &answers).0,
        [message(3, b"A"), message(3, b"B")]
    );
    protocol.finish(id);
    assert_eq!(said_data(&mut protocol), [(id, 0, true)]);
    assert_eq!(
        hear(&mut protocol, &trailers(id, "0")).0,
        [ended(3, End::Status(0))]
    );
    assert_eq!(said(&mut protocol), [], "we had ended it already");
}

#[test]
fn what_no_server_may_say_is_a_fault() {
    let malformed = |kind| Fault::FrameMalformed { kind };
    let half = frame(kind::HEADERS, 0, 1, &[0x88]);
    let between = [half.clone(), frame(kind::PING, 0, 0, &[0; 8])].concat();
    let elsewhere = [half, frame(kind::CONTINUATION, flag::END_HEADERS, 3, &[])].concat();
    for (bytes, expected) in [
        (between, malformed(kind::PING)),
        (elsewhere, malformed(kind::CONTINUATION)),
        (
            frame(kind::CONTINUATION, flag::END_HEADERS, 1, &[]),
            malformed(kind::CONTINUATION),
        ),
        (
            frame(kind::PUSH_PROMISE, 0, 1, &[0; 4]),
            malformed(kind::PUSH_PROMISE),
        ),
        (frame(kind::GOAWAY, 0, 0, &[0; 3]), malformed(kind::GOAWAY)),
        (
            frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x80]),
            Fault::HeadersMalformed,
        ),
        (window_update(0, (1 << 31) - 1), Fault::WindowTooLarge),
        (
            settings(&[(setting::HEADER_TABLE_SIZE, 100)]),
            Fault::HeaderTableTooSmall { bytes: 100 },
        ),
    ] {
        assert_eq!(fault(&mut connected(&[]), &bytes), expected);
    }
}

#[test]
fn what_is_not_known_means_nothing() {
    let mut protocol = connected(&[]);
    let unknown = frame(0xfa, 0xff, 9, b"whatever");
    assert_eq!(hear(&mut protocol, &unknown).0, []);
    hear(&mut protocol, &settings(&[(0x4a4a, 1)]));
    assert!(protocol.can_open());
}
