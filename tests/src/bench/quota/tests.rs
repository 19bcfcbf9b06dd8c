use octroi_proto::quota::v1::{
    CheckItem, CheckQuotaBatchRequest, CheckQuotaBatchResponse, CheckQuotaRequest, CheckQuotaResponse,
    CheckQuotaResult, CheckQuotaStreamRequest, CheckQuotaStreamResponse, DenialReason, ItemError,
    LimitStatus, check_quota_result::Outcome,
};
use tonic_prost::prost::Message as _;

use super::*;

fn accounts() -> Vec<String> {
    vec!["a".to_owned(), "account-2".to_owned()]
}

fn checks(mode: CheckMode) -> Checks {
    Checks::new(0xabc, "api.requests", &accounts(), mode, 1)
}

fn written(traffic: &mut impl Traffic, place: u32) -> Vec<u8> {
    let mut out = Vec::new();
    traffic.write(place, &mut out);
    out
}

fn check(account: &str, mode: CheckMode, request_id: &str) -> CheckQuotaRequest {
    CheckQuotaRequest {
        account_id: account.to_owned(),
        items: vec![CheckItem {
            metric: "api.requests".to_owned(),
            amount: 1,
        }],
        mode: mode.into(),
        request_id: request_id.to_owned(),
        ..CheckQuotaRequest::default()
    }
}

fn answer(reason: DenialReason) -> CheckQuotaResponse {
    CheckQuotaResponse {
        allowed: reason == DenialReason::Unspecified,
        decision_id: "0123456789abcdef0123456789abcdef".to_owned(),
        reason: reason.into(),
        limits: vec![LimitStatus {
            metric: "api.requests".to_owned(),
            ..LimitStatus::default()
        }],
        ..CheckQuotaResponse::default()
    }
}

const ALLOWED: Seen = Seen {
    place: None,
    allowed: 1,
    denied: 0,
    refused: 0,
    is_malformed: false,
};

const DENIED: Seen = Seen {
    allowed: 0,
    denied: 1,
    ..ALLOWED
};

const REFUSED: Seen = Seen {
    allowed: 0,
    refused: 1,
    ..ALLOWED
};

#[test]
fn a_check_is_what_the_contract_reads() {
    let mut traffic = checks(CheckMode::Consume);
    let id = |number| format!("0000000000000abc-{number:016x}");
    for (account, number) in [("a", 0), ("account-2", 1), ("a", 2)] {
        let expected = check(account, CheckMode::Consume, &id(number));
        assert_eq!(
            CheckQuotaRequest::decode(&*written(&mut traffic, 0)),
            Ok(expected)
        );
    }
    let mut traffic = checks(CheckMode::Peek);
    let expected = check("a", CheckMode::Peek, "");
    assert_eq!(
        CheckQuotaRequest::decode(&*written(&mut traffic, 0)),
        Ok(expected)
    );
}

#[test]
fn a_batch_is_what_the_contract_reads() {
    let batch = written(&mut Batches::new(checks(CheckMode::Consume), 3), 0);
    let expected = CheckQuotaBatchRequest {
        requests: vec![
            check("a", CheckMode::Consume, "0000000000000abc-0000000000000000"),
            check(
                "account-2",
                CheckMode::Consume,
                "0000000000000abc-0000000000000001",
            ),
            check("a", CheckMode::Consume, "0000000000000abc-0000000000000002"),
        ],
    };
    assert_eq!(CheckQuotaBatchRequest::decode(&*batch), Ok(expected));
}

#[test]
fn a_request_of_a_stream_is_what_the_contract_reads() {
    let request = written(&mut Stream::new(checks(CheckMode::Peek)), 41);
    let expected = CheckQuotaStreamRequest {
        correlation_id: 42,
        request: Some(check("a", CheckMode::Peek, "")),
    };
    assert_eq!(CheckQuotaStreamRequest::decode(&*request), Ok(expected));
}

#[test]
fn random_accounts_come_all_about_as_often() {
    let accounts: Vec<String> = (0..8).map(|number| format!("account-{number}")).collect();
    let mut traffic = Checks::new(1, "api.requests", &accounts, CheckMode::Peek, 1).in_turn(Turn::Random(7));
    let mut seen = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..8_000 {
        let request = CheckQuotaRequest::decode(&*written(&mut traffic, 0)).expect("a check");
        *seen.entry(request.account_id).or_default() += 1;
    }
    assert_eq!(seen.len(), 8);
    assert!(
        seen.values().all(|count| (850..1_150).contains(count)),
        "{seen:?}"
    );
}

#[test]
fn a_decision_is_allowed_or_denied() {
    let mut traffic = checks(CheckMode::Peek);
    for (reason, expected) in [
        (DenialReason::Unspecified, ALLOWED),
        (DenialReason::QuotaExceeded, DENIED),
        (DenialReason::Held, DENIED),
    ] {
        assert_eq!(traffic.read(&answer(reason).encode_to_vec()), expected);
    }
}

#[test]
fn an_answer_that_the_case_is_not_about_is_malformed() {
    let mut traffic = checks(CheckMode::Peek);
    let good = answer(DenialReason::Unspecified);
    let without_limits = CheckQuotaResponse {
        limits: Vec::new(),
        ..good.clone()
    };
    let denied_without_reason = CheckQuotaResponse {
        allowed: false,
        ..good.clone()
    };
    let allowed_with_reason = CheckQuotaResponse {
        reason: DenialReason::Held.into(),
        ..good.clone()
    };
    let degraded = CheckQuotaResponse {
        degraded: true,
        ..good.clone()
    };
    let repeated = CheckQuotaResponse {
        repeated_request: true,
        ..good.clone()
    };
    for wrong in [
        without_limits,
        denied_without_reason,
        allowed_with_reason,
        degraded,
        repeated,
    ] {
        assert_eq!(
            traffic.read(&wrong.encode_to_vec()),
            Seen::malformed(),
            "{wrong:?}"
        );
    }
    let good = good.encode_to_vec();
    assert_eq!(traffic.read(&good[..good.len() - 1]), Seen::malformed());
    assert_eq!(traffic.read(b""), Seen::malformed());
}

#[test]
fn a_batch_counts_its_results_and_misses_none() {
    let result = |outcome| CheckQuotaResult {
        outcome: Some(outcome),
    };
    let response = CheckQuotaBatchResponse {
        results: vec![
            result(Outcome::Decision(answer(DenialReason::Unspecified))),
            result(Outcome::Decision(answer(DenialReason::QuotaExceeded))),
            result(Outcome::Error(ItemError::default())),
            result(Outcome::Decision(answer(DenialReason::Unspecified))),
        ],
    };
    let bytes = response.encode_to_vec();
    let read = |length| Batches::new(checks(CheckMode::Peek), length).read(&bytes);
    let expected = Seen {
        allowed: 2,
        denied: 1,
        refused: 1,
        ..Seen::default()
    };
    assert_eq!(read(4), expected);
    assert_eq!(read(5), Seen::malformed());
}

#[test]
fn an_answer_of_a_stream_brings_its_place_back() {
    let mut traffic = Stream::new(checks(CheckMode::Peek));
    let answered = |outcome| CheckQuotaStreamResponse {
        correlation_id: 42,
        result: Some(CheckQuotaResult {
            outcome: Some(outcome),
        }),
    };
    for (outcome, expected) in [
        (Outcome::Decision(answer(DenialReason::Held)), DENIED),
        (Outcome::Error(ItemError::default()), REFUSED),
    ] {
        let seen = traffic.read(&answered(outcome).encode_to_vec());
        assert_eq!(
            seen,
            Seen {
                place: Some(41),
                ..expected
            }
        );
    }
    let nameless = CheckQuotaStreamResponse {
        correlation_id: 0,
        ..answered(Outcome::Decision(answer(DenialReason::Unspecified)))
    };
    assert_eq!(traffic.read(&nameless.encode_to_vec()), Seen::malformed());
}
