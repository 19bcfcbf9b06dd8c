//! The examples of RFC 7541, appendix C.

use super::*;

/// Bytes as the RFC prints them.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let value = |digit: u8| char::from(digit).to_digit(16).expect("hexadecimal") as u8;
    digits
        .chunks(2)
        .map(|pair| value(pair[0]) << 4 | value(pair[1]))
        .collect()
}

fn fields(decoder: &mut Decoder, hex: &str) -> Vec<String> {
    let mut read = Vec::new();
    let field = |name: &[u8], value: &[u8]| {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        read.push(format!("{}: {}", text(name), text(value)));
    };
    decoder.decode(&bytes(hex), field).expect("well-formed");
    read
}

/// Reads blocks of one connection; after each, the table has as many bytes as the RFC says.
fn check(mut decoder: Decoder, blocks: &[(&str, &[&str], usize)]) {
    for (hex, expected, table_bytes) in blocks {
        assert_eq!(fields(&mut decoder, hex), *expected);
        assert_eq!(decoder.bytes, *table_bytes, "after {hex}");
    }
}

fn with_table(bytes_max: usize) -> Decoder {
    Decoder {
        bytes_max,
        ..Decoder::default()
    }
}

#[test]
fn c_1_numbers() {
    for (hex, prefix, expected) in [("0a", 5, 10), ("1f 9a 0a", 5, 1337), ("2a", 8, 42)] {
        assert_eq!(number(&mut bytes(hex).as_slice(), prefix), Ok(expected), "{hex}");
        let mut out = Vec::new();
        put_number(&mut out, Form { bits: 0, prefix }, expected);
        assert_eq!(out, bytes(hex));
    }
}

#[test]
fn numbers_have_a_limit_and_an_end() {
    for hex in ["", "1f", "1f 80", "1f ff ff ff ff 0f"] {
        let read = number(&mut bytes(hex).as_slice(), 5);
        assert_eq!(read, Err(Fault::HeadersMalformed), "{hex}");
    }
}

#[test]
fn c_2_single_fields() {
    let custom = "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572";
    check(
        Decoder::default(),
        &[(custom, &["custom-key: custom-header"], 55)],
    );
    let path = "040c 2f73 616d 706c 652f 7061 7468";
    check(Decoder::default(), &[(path, &[":path: /sample/path"], 0)]);
    let password = "1008 7061 7373 776f 7264 0673 6563 7265 74";
    check(Decoder::default(), &[(password, &["password: secret"], 0)]);
    check(Decoder::default(), &[("82", &[":method: GET"], 0)]);
}

const REQUESTS: [&[&str]; 3] = [
    &[
        ":method: GET",
        ":scheme: http",
        ":path: /",
        ":authority: www.example.com",
    ],
    &[
        ":method: GET",
        ":scheme: http",
        ":path: /",
        ":authority: www.example.com",
        "cache-control: no-cache",
    ],
    &[
        ":method: GET",
        ":scheme: https",
        ":path: /index.html",
        ":authority: www.example.com",
        "custom-key: custom-value",
    ],
];

#[test]
fn c_3_requests() {
    let first = "8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d";
    let second = "8286 84be 5808 6e6f 2d63 6163 6865";
    let third = "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65";
    let [a, b, c] = REQUESTS;
    check(
        Decoder::default(),
        &[(first, a, 57), (second, b, 110), (third, c, 164)],
    );
}

#[test]
fn c_4_requests_in_huffman_code() {
    let first = "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff";
    let second = "8286 84be 5886 a8eb 1064 9cbf";
    let third = "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf";
    let [a, b, c] = REQUESTS;
    check(
        Decoder::default(),
        &[(first, a, 57), (second, b, 110), (third, c, 164)],
    );
}

const DATE: &str = "date: Mon, 21 Oct 2013 20:13:21 GMT";
const LOCATION: &str = "location: https://www.example.com";
const RESPONSES: [&[&str]; 3] = [
    &[":status: 302", "cache-control: private", DATE, LOCATION],
    &[":status: 307", "cache-control: private", DATE, LOCATION],
    &[
        ":status: 200",
        "cache-control: private",
        "date: Mon, 21 Oct 2013 20:13:22 GMT",
        LOCATION,
        "content-encoding: gzip",
        "set-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
    ],
];

#[test]
fn c_5_responses_that_evict() {
    let first = "4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 \
                 2032 303a 3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 \
                 6c65 2e63 6f6d";
    let second = "4803 3330 37c1 c0bf";
    let third = "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d \
                 54c0 5a04 677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 \
                 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e \
                 3d31";
    let [a, b, c] = RESPONSES;
    check(
        with_table(256),
        &[(first, a, 222), (second, b, 222), (third, c, 215)],
    );
}

#[test]
fn c_6_responses_that_evict_in_huffman_code() {
    let first = "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 \
                 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3";
    let second = "4883 640e ffc1 c0bf";
    let third = "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab \
                 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f \
                 9587 3160 65c0 03ed 4ee5 b106 3d50 07";
    let [a, b, c] = RESPONSES;
    check(
        with_table(256),
        &[(first, a, 222), (second, b, 222), (third, c, 215)],
    );
}

#[test]
fn a_smaller_table_is_smaller_at_once_and_a_larger_one_is_refused() {
    let mut decoder = Decoder::default();
    fields(
        &mut decoder,
        "400a 6375 7374 6f6d 2d6b 6579 0d63 7573 746f 6d2d 6865 6164 6572",
    );
    assert_eq!(decoder.entries.len(), 1);
    fields(&mut decoder, "20");
    assert_eq!((decoder.entries.len(), decoder.bytes), (0, 0));
    // 4,097 of the 4,096 that we have.
    let refused = decoder.decode(&bytes("3f e2 1f"), |_, _| {});
    assert_eq!(refused, Err(Fault::HeadersMalformed));
}

#[test]
fn an_index_without_an_entry_is_refused() {
    for hex in ["80", "be", "7f 00"] {
        let refused = Decoder::default().decode(&bytes(hex), |_, _| {});
        assert_eq!(refused, Err(Fault::HeadersMalformed), "{hex}");
    }
}

#[test]
fn a_text_that_is_put_is_read_again() {
    let mut block = Vec::new();
    put_number(&mut block, NEVER_INDEXED, 0);
    put_text(&mut block, b"authorization");
    put_text(&mut block, b"Bearer abc.DEF-123_~");
    let mut seen = Vec::new();
    let field = |name: &[u8], value: &[u8]| seen.push((name.to_vec(), value.to_vec()));
    Decoder::default().decode(&block, field).expect("well-formed");
    assert_eq!(
        seen,
        [(b"authorization".to_vec(), b"Bearer abc.DEF-123_~".to_vec())]
    );
}
