use octroi_proto::usage::v1::{
    GetUsageStatsRequest, GetUsageStatsResponse, ItemError, ListUsageEventsRequest, ListUsageEventsResponse,
    MetricStats, RecordedEvent, TrackUsageBatchRequest, TrackUsageBatchResponse, TrackUsageBatchesResult,
    TrackUsageRequest, TrackUsageResponse, TrackUsageResult, TrackUsageStreamRequest,
    TrackUsageStreamResponse, UsageBucket, UsageEvent, track_usage_batches_result, track_usage_result,
};
use tonic_prost::prost::Message as _;

use super::*;

fn accounts() -> [String; 2] {
    ["a".to_owned(), "b".to_owned()]
}

fn events() -> Events {
    Events::new(0xabc, "api.requests", &accounts())
}

fn event(account: &str, number: u64) -> UsageEvent {
    UsageEvent {
        account_id: account.to_owned(),
        event_id: format!("0000000000000abc-{number:016x}"),
        metric: "api.requests".to_owned(),
        amount: 1,
        ..UsageEvent::default()
    }
}

fn answer(duplicate: bool) -> TrackUsageResponse {
    TrackUsageResponse {
        duplicate,
        record_time: Some(prost_types::Timestamp::default()),
    }
}

fn result(outcome: track_usage_result::Outcome) -> TrackUsageResult {
    TrackUsageResult {
        outcome: Some(outcome),
        ..TrackUsageResult::default()
    }
}

fn batch_of(duplicates: [bool; 2]) -> TrackUsageBatchResponse {
    let recorded = duplicates.map(|duplicate| track_usage_result::Outcome::Recorded(answer(duplicate)));
    TrackUsageBatchResponse {
        results: recorded.map(result).to_vec(),
    }
}

fn seen(allowed: u32, denied: u32) -> Seen {
    Seen {
        allowed,
        denied,
        ..Seen::default()
    }
}

#[test]
fn an_event_is_what_the_contract_reads() {
    let mut events = events();
    for (account, number) in [("a", 0), ("b", 1), ("a", 2)] {
        let mut out = Vec::new();
        events.write(0, &mut out);
        let read = TrackUsageRequest::decode(&*out).expect("an event");
        assert_eq!(read.event, Some(event(account, number)));
    }
}

#[test]
fn a_batch_is_what_the_contract_reads_alone_and_on_a_stream() {
    let expected = TrackUsageBatchRequest {
        events: vec![event("a", 0), event("b", 1), event("a", 2)],
        ..TrackUsageBatchRequest::default()
    };
    let mut out = Vec::new();
    EventBatches::new(events(), 3).write(0, &mut out);
    assert_eq!(TrackUsageBatchRequest::decode(&*out).expect("a batch"), expected);
    let mut stream = EventStream::new(events(), 3);
    out.clear();
    stream.write(6, &mut out);
    let sent = TrackUsageStreamRequest::decode(&*out).expect("a batch");
    assert_eq!((sent.correlation_id, sent.batch), (7, Some(expected)));
    out.clear();
    stream.write(0, &mut out);
    let sent = TrackUsageStreamRequest::decode(&*out).expect("a batch");
    assert_eq!(sent.batch.expect("a batch").events[0], event("b", 3));
}

#[test]
fn every_tenth_event_is_sent_again_once_its_first_is_long_answered() {
    let mut again = events().some_again();
    let numbers: Vec<u64> = (0..120_000).map(|_| again.next_number()).collect();
    let (first, rest) = numbers.split_at(100_009);
    assert!((0..).zip(first).all(|(place, number)| place == *number));
    assert_eq!(rest[..3], [8, 100_010, 100_011]);
    let repeated: Vec<u64> = rest.iter().copied().filter(|number| *number < 100_000).collect();
    assert_eq!(repeated.len(), 2_000);
    assert!(
        repeated.iter().all(|number| number % 10 == 8),
        "none is a repeat itself"
    );
    assert!(
        repeated.is_sorted_by(|one, next| one < next),
        "each is repeated once"
    );
}

#[test]
fn only_an_event_that_is_new_counts_unless_some_are_sent_again() {
    let mut events = events();
    assert_eq!(events.read(&answer(false).encode_to_vec()), seen(1, 0));
    assert_eq!(events.read(&answer(true).encode_to_vec()), Seen::malformed());
    assert_eq!(events.read(b""), Seen::malformed());
    let mut again = events.some_again();
    assert_eq!(again.read(&answer(true).encode_to_vec()), seen(0, 1));
}

#[test]
fn an_answer_to_a_batch_says_what_became_of_each_event() {
    let mut batches = EventBatches::new(events().some_again(), 2);
    assert_eq!(batches.read(&batch_of([false, true]).encode_to_vec()), seen(1, 1));
    let mut one_refused = batch_of([false, false]);
    one_refused.results[1] = result(track_usage_result::Outcome::Error(ItemError::default()));
    let refused = Seen {
        refused: 1,
        ..seen(1, 0)
    };
    assert_eq!(batches.read(&one_refused.encode_to_vec()), refused);
    let mut short = batch_of([false, false]);
    short.results.pop();
    assert_eq!(batches.read(&short.encode_to_vec()), Seen::malformed());
}

#[test]
fn an_answer_on_a_stream_names_its_batch() {
    let mut stream = EventStream::new(events(), 2);
    let mut answer = |correlation_id, outcome| {
        let response = TrackUsageStreamResponse {
            correlation_id,
            result: Some(TrackUsageBatchesResult {
                outcome: Some(outcome),
            }),
        };
        stream.read(&response.encode_to_vec())
    };
    let response = |duplicates| track_usage_batches_result::Outcome::Response(batch_of(duplicates));
    let place = Some(4);
    assert_eq!(answer(5, response([false, false])), Seen { place, ..seen(2, 0) });
    assert!(
        answer(5, response([false, true])).is_malformed,
        "nothing was sent before"
    );
    assert!(
        answer(0, response([false, false])).is_malformed,
        "no batch has this id"
    );
    let refused = track_usage_batches_result::Outcome::Error(ItemError::default());
    assert_eq!(
        answer(5, refused),
        Seen {
            place,
            refused: 2,
            ..Seen::default()
        }
    );
}

#[test]
fn figures_must_have_every_day_and_all_events() {
    let asked = Asked {
        metric: "api.requests",
        month: (100, 200),
        zone: "UTC",
        events: 3,
        buckets: 2,
    };
    let mut stats = Stats::new(&accounts(), &asked);
    let mut out = Vec::new();
    stats.write(0, &mut out);
    out.clear();
    stats.write(0, &mut out);
    let request = GetUsageStatsRequest::decode(&*out).expect("a question");
    assert_eq!(
        (
            request.account_id.as_str(),
            request.end_time.expect("an end").seconds
        ),
        ("b", 200)
    );
    let bucket = |amount| UsageBucket {
        amount,
        ..UsageBucket::default()
    };
    let answer = |amounts: [u64; 2]| GetUsageStatsResponse {
        stats: vec![MetricStats {
            buckets: amounts.map(bucket).to_vec(),
            total_amount: 3,
            total_events: 3,
            ..MetricStats::default()
        }],
        ..GetUsageStatsResponse::default()
    };
    assert_eq!(stats.read(&answer([1, 2]).encode_to_vec()), seen(1, 0));
    assert!(stats.read(&answer([1, 1]).encode_to_vec()).is_malformed);
    assert!(stats.read(b"").is_malformed);
}

#[test]
fn a_first_page_must_be_full() {
    let mut pages = FirstPage::new(&accounts(), 2);
    let mut out = Vec::new();
    pages.write(0, &mut out);
    let request = ListUsageEventsRequest::decode(&*out).expect("a question");
    assert_eq!((request.account_id.as_str(), request.page_size), ("a", 2));
    let answer = |events| ListUsageEventsResponse {
        events: vec![RecordedEvent::default(); events],
        next_page_token: "more".to_owned(),
    };
    assert_eq!(pages.read(&answer(2).encode_to_vec()), seen(1, 0));
    assert!(pages.read(&answer(1).encode_to_vec()).is_malformed);
}
