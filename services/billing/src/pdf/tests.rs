//! Reads back what was rendered: its objects by the cross-reference table, and the text of its pages.

use jiff::civil::date;
use octroi_core::money::Currency;

use super::*;

fn invoice(lines: usize) -> Invoice {
    let line = |index: usize| InvoiceLine {
        description: format!("Requêtes d’API, ligne {index} (au-delà des unités incluses)"),
        quantity: (index > 0).then_some(1_234_567),
        amount_minor: 1_050,
    };
    Invoice {
        number: Some("2026-000042".into()),
        status: InvoiceStatus::Finalized,
        from: Party {
            name: "Octroi SAS".into(),
            lines: vec!["1 rue de la Paix".into(), "75002 Paris".into()],
        },
        to: Party {
            name: "Acme (Europe) \\ Ltd".into(),
            lines: vec!["2 High Street".into()],
        },
        issued_on: date(2026, 12, 1),
        due_on: Some(date(2026, 12, 31)),
        period_start_on: date(2026, 11, 1),
        period_end_on: date(2026, 11, 30),
        currency: Currency::parse("EUR").expect("a currency"),
        lines: (0..lines).map(line).collect(),
    }
}

/// Every text that the pages show, in order, from literal and hexadecimal strings.
fn shown(pdf: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    for operation in pdf
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(b" Tj"))
    {
        let bytes = match operation {
            [b'<', hexadecimal @ .., b'>'] => hex::decode(hexadecimal).expect("hexadecimal"),
            [b'(', literal @ .., b')'] => unescaped(literal),
            other => panic!("no string: {:?}", String::from_utf8_lossy(other)),
        };
        let from_page = |byte: u8| {
            (0..=u32::from(u16::MAX))
                .filter_map(char::from_u32)
                .find(|c| text::encoded(&c.to_string()) == [byte])
        };
        texts.push(
            bytes
                .into_iter()
                .map(|byte| {
                    if byte < 0x7f {
                        char::from(byte)
                    } else {
                        from_page(byte).expect("a character")
                    }
                })
                .collect(),
        );
    }
    texts
}

fn unescaped(literal: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = literal.iter();
    while let Some(byte) = rest.next() {
        bytes.push(if *byte == b'\\' {
            *rest.next().expect("an escaped byte")
        } else {
            *byte
        });
    }
    bytes
}

fn position(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).rposition(|window| window == part)
}

#[test]
fn an_invoice_says_who_owes_what_to_whom() {
    let pdf = render(&invoice(2), Language::English).expect("an invoice");
    let texts = shown(&pdf);
    for expected in [
        "Invoice 2026-000042",
        "1 December 2026",
        "31 December 2026",
        "1 November 2026 – 30 November 2026",
        "Octroi SAS",
        "75002 Paris",
        "Acme (Europe) \\ Ltd",
        "Amount (EUR)",
        "1,234,567",
        "10.50",
        "21.00",
        "Page 1 / 1",
    ] {
        assert!(
            texts.iter().any(|text| text == expected),
            "{expected} is not in {texts:#?}"
        );
    }
}

#[test]
fn an_invoice_is_written_in_french_with_its_accents() {
    let mut draft = invoice(1);
    draft.number = None;
    let texts = shown(&render(&draft, Language::French).expect("an invoice"));
    for expected in [
        "Facture (brouillon)",
        "Désignation",
        "À payer avant le",
        "1 décembre 2026",
        "10,50",
    ] {
        assert!(
            texts.iter().any(|text| text == expected),
            "{expected} is not in {texts:#?}"
        );
    }
}

#[test]
fn a_long_invoice_goes_on_on_further_pages_and_loses_no_line() {
    let pdf = render(&invoice(100), Language::English).expect("an invoice");
    let texts = shown(&pdf);
    assert_eq!(texts.iter().filter(|text| *text == "10.50").count(), 100);
    let pages = texts.iter().filter(|text| text.starts_with("Page ")).count();
    assert!(pages > 2 && texts.contains(&format!("Page {pages} / {pages}")));
    assert_eq!(texts.iter().filter(|text| *text == "Description").count(), pages);
    assert_eq!(
        texts.last().map(String::as_str),
        Some(format!("Page {pages} / {pages}").as_str())
    );
}

#[test]
fn every_object_stands_where_the_cross_reference_table_says() {
    let pdf = render(&invoice(50), Language::English).expect("an invoice");
    assert!(pdf.starts_with(b"%PDF-1.") && pdf.trim_ascii_end().ends_with(b"%%EOF"));
    let table = position(&pdf, b"\nxref\n").expect("a table") + 1;
    let lines: Vec<&str> = std::str::from_utf8(&pdf[table..])
        .expect("ASCII")
        .lines()
        .collect();
    let count: usize = lines[1]
        .strip_prefix("0 ")
        .and_then(|count| count.parse().ok())
        .expect("a count");
    for number in 1..count {
        let offset: usize = lines[2 + number][..10].parse().expect("an offset");
        assert!(
            pdf[offset..].starts_with(format!("{number} 0 obj").as_bytes()),
            "object {number}"
        );
    }
    let start = position(&pdf, b"startxref\n").expect("a start") + 10;
    assert!(
        std::str::from_utf8(&pdf[start..])
            .expect("ASCII")
            .starts_with(&table.to_string())
    );
}

#[test]
fn the_same_invoice_gives_the_same_bytes() {
    let render = || render(&invoice(3), Language::French).expect("an invoice");
    assert_eq!(render(), render());
}
