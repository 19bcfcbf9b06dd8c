//! Rows in the binary form of `COPY`, which the server takes in with less work than arrays of columns.
//!
//! The form is that of PostgreSQL's documentation of `COPY`, "Binary Format": a signature, then each row as its number of
//! fields and each field as its length and its bytes as the type's receive function reads them.

use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, corrupt};
use uuid::Uuid;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Microseconds from 1970 to 2000, where PostgreSQL counts from.
const EPOCH_US: i64 = 946_684_800_000_000;
/// The version of the form of a `jsonb`.
const JSONB: u8 = 1;

/// Rows of one number of fields.
pub(super) struct Rows {
    bytes: Vec<u8>,
    fields: i16,
}

impl Rows {
    /// No rows yet, of so many fields each.
    pub(super) fn of(fields: i16) -> Self {
        let mut bytes = SIGNATURE.to_vec();
        // No flags, and nothing more in the header.
        bytes.extend_from_slice(&[0; 8]);
        Self { bytes, fields }
    }

    /// Begins a row; as many fields follow as a row has.
    pub(super) fn row(&mut self) -> Row<'_> {
        self.bytes.extend_from_slice(&self.fields.to_be_bytes());
        Row(&mut self.bytes)
    }

    /// What is sent.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&(-1_i16).to_be_bytes());
        self.bytes
    }
}

/// The row that is written, field by field.
pub(super) struct Row<'r>(&'r mut Vec<u8>);

impl Row<'_> {
    pub(super) fn text(&mut self, text: &str) -> Result<(), DatabaseError> {
        self.field(text.as_bytes())
    }

    pub(super) fn bigint(&mut self, number: i64) -> Result<(), DatabaseError> {
        self.field(&number.to_be_bytes())
    }

    pub(super) fn boolean(&mut self, is: bool) -> Result<(), DatabaseError> {
        self.field(&[u8::from(is)])
    }

    pub(super) fn time(&mut self, at: Timestamp) -> Result<(), DatabaseError> {
        self.bigint(at.as_microsecond() - EPOCH_US)
    }

    pub(super) fn uuid(&mut self, id: Uuid) -> Result<(), DatabaseError> {
        self.field(id.as_bytes())
    }

    /// A value as JSON.
    pub(super) fn jsonb(&mut self, value: &impl serde::Serialize) -> Result<(), DatabaseError> {
        let mut json = vec![JSONB];
        serde_json::to_writer(&mut json, value).map_err(corrupt("properties"))?;
        self.field(&json)
    }

    fn field(&mut self, bytes: &[u8]) -> Result<(), DatabaseError> {
        let length = i32::try_from(bytes.len()).map_err(corrupt("length"))?;
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_the_binary_form_of_copy() {
        let mut rows = Rows::of(2);
        let mut row = rows.row();
        row.text("é").expect("it fits");
        row.time("2000-01-01T00:00:00.000001Z".parse().expect("an instant"))
            .expect("it fits");
        let expected: Vec<u8> = [
            b"PGCOPY\n\xff\r\n\0".as_slice(),
            &[0, 0, 0, 0, 0, 0, 0, 0],
            &[0, 2],
            &[0, 0, 0, 2, 0xc3, 0xa9],
            &[0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0xff, 0xff],
        ]
        .concat();
        assert_eq!(rows.finish(), expected);
    }
}
