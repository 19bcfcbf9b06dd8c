//! What a client reads and changes in the bytes of a request: the account that it is about, and the mark of a repeat.

use bytes::{BufMut as _, Bytes, BytesMut};

/// The methods that one replica should be asked for an account: what is decided from memory is there. The account is the
/// first field of each of their requests.
pub(crate) const OF_AN_ACCOUNT: &[&str] = &[
    CHECK_QUOTA,
    "/octroi.quota.v1.QuotaService/ClearLimitOverride",
    "/octroi.quota.v1.QuotaService/CommitHold",
    "/octroi.quota.v1.QuotaService/ExplainDecision",
    "/octroi.quota.v1.QuotaService/GetCurrentUsage",
    "/octroi.quota.v1.QuotaService/GetEntitlements",
    "/octroi.quota.v1.QuotaService/ListLimits",
    "/octroi.quota.v1.QuotaService/RecordUsage",
    "/octroi.quota.v1.QuotaService/ReleaseHold",
    "/octroi.quota.v1.QuotaService/RenewHold",
    "/octroi.quota.v1.QuotaService/ReserveQuota",
    "/octroi.quota.v1.QuotaService/ReturnQuota",
    "/octroi.quota.v1.QuotaService/SetLimitOverride",
];

/// The one method whose request says that it may be a repeat.
pub(crate) const CHECK_QUOTA: &str = "/octroi.quota.v1.QuotaService/CheckQuota";

/// Before each message are a byte, which is 0 where it is not compressed, and its length.
const HEAD: usize = 5;
/// The key of field 1, as bytes with their length.
const FIRST_TEXT: u8 = 0x0a;
/// Field 8, a boolean that is true.
const REPEAT: [u8; 2] = [0x40, 1];

/// The account that a request of `method` is about; none where it is about none or many.
pub(crate) fn account_of<'a>(method: &str, frame: &'a [u8]) -> Option<&'a [u8]> {
    if !OF_AN_ACCOUNT.contains(&method) || frame.first() != Some(&0) {
        return None;
    }
    let message = frame.get(HEAD..)?;
    // An account is at most 128 bytes, so a length of two digits is its longest.
    let (length, rest) = match message {
        [FIRST_TEXT, length @ 0..=0x7f, rest @ ..] => (usize::from(*length), rest),
        [FIRST_TEXT, low, high @ 0..=0x7f, rest @ ..] => {
            (usize::from(*low & 0x7f) | usize::from(*high) << 7, rest)
        }
        _ => return None,
    };
    rest.get(..length).filter(|account| !account.is_empty())
}

/// The same request, saying that it may be a repeat, where requests of `method` can say that.
///
/// Of a field that comes twice, the last counts, and fields may come in any order; so it is added at the end.
pub(crate) fn as_repeat(method: &str, frame: &Bytes) -> Bytes {
    let length = frame.len().checked_sub(HEAD).map(|length| length + REPEAT.len());
    match length.map(u32::try_from) {
        Some(Ok(length)) if method == CHECK_QUOTA && frame.first() == Some(&0) => {
            let mut marked = BytesMut::with_capacity(frame.len() + REPEAT.len());
            marked.put_u8(0);
            marked.put_u32(length);
            marked.extend_from_slice(frame.get(HEAD..).unwrap_or_default());
            marked.extend_from_slice(&REPEAT);
            marked.freeze()
        }
        _ => frame.clone(),
    }
}

#[cfg(test)]
mod tests {
    use octroi_proto::quota::v1::{CheckItem, CheckMode, CheckQuotaRequest};
    use prost::Message as _;

    use super::*;

    fn frame(message: &impl prost::Message) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.encoded_len()).expect("short"));
        message.encode(&mut frame).expect("room");
        frame.freeze()
    }

    fn check(account_id: &str) -> CheckQuotaRequest {
        CheckQuotaRequest {
            account_id: account_id.to_owned(),
            items: vec![CheckItem {
                metric: "api.requests".to_owned(),
                amount: 3,
            }],
            mode: CheckMode::Consume.into(),
            request_id: "r-1".to_owned(),
            ..CheckQuotaRequest::default()
        }
    }

    #[test]
    fn the_account_of_a_request_is_its_first_field() {
        for account in ["a".to_owned(), "a".repeat(127), "a".repeat(128), "é".repeat(500)] {
            let frame = frame(&check(&account));
            assert_eq!(account_of(CHECK_QUOTA, &frame), Some(account.as_bytes()));
            assert_eq!(
                account_of("/octroi.quota.v1.QuotaService/CheckQuotaBatch", &frame),
                None
            );
        }
        for odd in [
            &b""[..],
            b"\0",
            b"\0\0\0\0\0",
            b"\0\0\0\0\x02\x0a\x05",
            b"\x01\0\0\0\x03\x0a\x01a",
        ] {
            assert_eq!(account_of(CHECK_QUOTA, odd), None, "{odd:?}");
        }
        assert_eq!(account_of(CHECK_QUOTA, &frame(&check(""))), None);
    }

    #[test]
    fn a_repeat_says_so_and_nothing_else_of_it_changes() {
        let sent = as_repeat(CHECK_QUOTA, &frame(&check("acme")));
        let expected = CheckQuotaRequest {
            repeat: true,
            ..check("acme")
        };
        assert_eq!(
            u32::from_be_bytes([sent[1], sent[2], sent[3], sent[4]]) as usize,
            sent.len() - HEAD
        );
        assert_eq!(
            CheckQuotaRequest::decode(&sent[HEAD..]).expect("a request"),
            expected
        );
        let other = frame(&check("acme"));
        assert_eq!(
            as_repeat("/octroi.quota.v1.QuotaService/ReserveQuota", &other),
            other
        );
        assert_eq!(
            as_repeat(CHECK_QUOTA, &Bytes::from_static(b"\0\0")),
            Bytes::from_static(b"\0\0")
        );
    }

    #[test]
    fn each_method_of_an_account_has_it_in_its_first_field_and_no_other_method_of_quota_has() {
        let set =
            prost_types::FileDescriptorSet::decode(octroi_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
        let file = (set.file.iter())
            .find(|file| file.package() == "octroi.quota.v1" && !file.service.is_empty())
            .expect("the contract of quota");
        // Only billing and the catalog's operator call these, seldom.
        let seldom = ["ApplyCatalog", "ApplyEntitlements"];
        let mut found = Vec::new();
        for method in &file.service[0].method {
            let request = method.input_type().rsplit('.').next().expect("a name");
            let message = file
                .message_type
                .iter()
                .find(|message| message.name() == request)
                .expect("a message");
            let first = message.field.iter().find(|field| field.number() == 1);
            let of_account = first.is_some_and(|field| field.name() == "account_id");
            if of_account && !method.client_streaming() && !seldom.contains(&method.name()) {
                found.push(format!("/octroi.quota.v1.QuotaService/{}", method.name()));
            }
        }
        found.sort();
        assert_eq!(OF_AN_ACCOUNT, found);
        let check = file
            .message_type
            .iter()
            .find(|message| message.name() == "CheckQuotaRequest")
            .expect("a message");
        let repeat = check
            .field
            .iter()
            .find(|field| field.name() == "repeat")
            .expect("a field");
        assert_eq!(u8::try_from(repeat.number() << 3).expect("small"), REPEAT[0]);
    }
}
