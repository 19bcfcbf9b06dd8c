//! The generator against servers that answer well, badly, and not at all.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use octroi_proto::quota::v1::CheckMode;

use super::*;
use crate::bench::{
    floor::{self, Shape},
    quota::{Batches, Checks, Stream},
    traffic::{Kind, Seen},
};

fn checks(limits: usize) -> Checks {
    let accounts: Vec<String> = (0..10).map(|number| format!("account-{number}")).collect();
    Checks::new(7, "api.requests", &accounts, CheckMode::Consume, limits)
}

/// Three connections with five requests each, for as long as a test may take.
fn short(address: SocketAddr) -> Case {
    Case {
        connections: 3,
        in_flight: 5,
        warm_up: Duration::from_millis(20),
        measured: Duration::from_millis(100),
        ..Case::new(address)
    }
}

/// Nothing was lost between what was sent and what was counted.
fn check_complete(round: &Round) {
    let (tally, total) = (&round.tally, &round.total);
    assert_eq!(total.failed(), 0, "{total}");
    assert_eq!(total.sent, total.answered, "{total}");
    assert!(
        tally.answered > 0 && tally.answered < total.answered,
        "{tally} of {total}"
    );
    assert_eq!(round.latencies.total(), tally.answered);
    assert!(round.latency_us(500) > 0.0 && round.latency_us(500) <= round.latency_us(990));
}

#[test]
fn every_request_is_answered_and_counted_once() {
    for shape in [Shape::PerCore, Shape::WorkStealing] {
        let address = floor::serve_here(shape, 2).expect("a floor");
        let mut case = short(address);
        case.meters = vec![Meter::threads("floor", floor::THREADS)];
        let round = run(&case, &mut checks(3)).expect("answers");
        check_complete(&round);
        assert_eq!(round.total.allowed, round.total.answered);
        assert_eq!(round.total.statuses[0], round.total.answered);
        assert!(round.generator.running > Duration::ZERO && round.cpu[0].1 > Duration::ZERO);
        round.good().expect("all well");
    }
}

#[test]
fn batches_are_long_and_have_many_decisions() {
    let address = floor::serve_here(Shape::PerCore, 1).expect("a floor");
    // Longer than any window that a server begins with.
    let mut traffic = Batches::new(checks(3), 1_000);
    let mut case = short(address);
    case.measured = Duration::from_millis(400);
    let round = run(&case, &mut traffic).expect("answers");
    check_complete(&round);
    assert_eq!(round.total.allowed, round.total.answered * 1_000);
}

#[test]
fn streams_stay_open_and_end_well() {
    let address = floor::serve_here(Shape::PerCore, 1).expect("a floor");
    let round = run(&short(address), &mut Stream::new(checks(3))).expect("answers");
    check_complete(&round);
    assert_eq!(round.total.statuses[0], 3, "one a connection");
}

#[test]
fn more_requests_than_the_server_takes_are_held_back() {
    let address = floor::serve_here(Shape::PerCore, 1).expect("a floor");
    let case = Case {
        connections: 1,
        in_flight: 250,
        ..short(address)
    };
    let round = run(&case, &mut checks(3)).expect("answers");
    check_complete(&round);
    assert!(round.total.held_back > 0);
}

#[test]
fn an_answer_that_the_case_is_not_about_is_counted_and_makes_no_figure() {
    let address = floor::serve_here(Shape::PerCore, 1).expect("a floor");
    let round = run(&short(address), &mut checks(4)).expect("answers");
    assert_eq!(
        (round.total.answered, round.total.malformed),
        (0, round.total.sent)
    );
    let error = round.good().expect_err("no figure");
    assert!(error.to_string().contains("malformed"), "{error}");
}

/// Calls what no server has.
struct Nowhere;

impl Traffic for Nowhere {
    const PATH: &'static str = "/octroi.quota.v1.QuotaService/NoSuchMethod";
    const KIND: Kind = Kind::Unary;

    fn write(&mut self, _place: u32, _out: &mut Vec<u8>) {}

    fn read(&mut self, _message: &[u8]) -> Seen {
        Seen::default()
    }
}

#[test]
fn refusals_are_counted_by_their_status() {
    let address = floor::serve_here(Shape::PerCore, 1).expect("a floor");
    let round = run(&short(address), &mut Nowhere).expect("answers");
    assert_eq!(round.total.statuses[12], round.total.sent, "{}", round.total);
    let error = round.good().expect_err("no figure");
    assert!(error.to_string().contains("UNIMPLEMENTED"), "{error}");
}

/// A server that says `greeting` to whoever connects, waits for `heard` bytes, and closes.
fn rude(greeting: &'static [u8], heard: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.expect("a connection");
            socket.write_all(greeting).expect("it listens");
            // It may be gone before.
            let _ = socket.read_exact(&mut vec![0; heard]);
        }
    });
    address
}

/// SETTINGS, so that requests are sent.
const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

#[test]
fn broken_connections_are_opened_again_and_what_was_open_is_lost() {
    let case = Case {
        connections: 1,
        ..short(rude(SETTINGS, 300))
    };
    let outcome = run(&case, &mut checks(3));
    let text = match outcome {
        Ok(round) => {
            assert!(round.total.reopened > 0, "{}", round.total);
            assert_eq!((round.total.lost, round.total.answered), (round.total.sent, 0));
            round.good().expect_err("no figure").to_string()
        }
        // On a fast machine they break so often that it gives up.
        Err(error) => error.to_string(),
    };
    assert!(text.contains("lost"), "{text}");
}

#[test]
fn a_server_that_says_what_it_may_not_is_left_after_a_while() {
    // A PUSH_PROMISE.
    let case = Case {
        warm_up: Duration::from_secs(20),
        ..short(rude(b"\0\0\x04\x05\0\0\0\0\x01\0\0\0\x02", 0))
    };
    let error = run(&case, &mut checks(3)).expect_err("given up");
    assert!(error.to_string().contains("again and again"), "{error}");
    assert!(error.to_string().contains("0x05"), "{error}");
}

#[test]
fn nobody_there_is_an_error_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    drop(listener);
    let error = run(&short(address), &mut checks(3)).expect_err("nobody there");
    assert!(
        error.to_string().starts_with("cannot connect to 127.0.0.1:"),
        "{error}"
    );
}
