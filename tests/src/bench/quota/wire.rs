//! As much of protobuf as it takes to write a check and to read a decision, without allocating.

/// The field numbers that we write have one byte: number and type.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Tag(u8);

impl Tag {
    /// A number.
    pub(in crate::bench) const fn varint(field: u8) -> Self {
        assert!(field < 16, "one byte holds the tag");
        Self(field << 3)
    }

    /// A text or a message.
    pub(in crate::bench) const fn bytes(field: u8) -> Self {
        assert!(field < 16, "one byte holds the tag");
        Self(field << 3 | 2)
    }
}

/// Appends a number.
pub(in crate::bench) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field that is a number.
pub(in crate::bench) fn put_number(out: &mut Vec<u8>, tag: Tag, value: u64) {
    out.push(tag.0);
    put_varint(out, value);
}

/// Appends a field that is a text.
pub(in crate::bench) fn put_text(out: &mut Vec<u8>, tag: Tag, text: &[u8]) {
    put_message_head(out, tag, text.len());
    out.extend_from_slice(text);
}

/// Appends what comes before a message of `length` bytes.
pub(in crate::bench) fn put_message_head(out: &mut Vec<u8>, tag: Tag, length: usize) {
    out.push(tag.0);
    put_varint(out, length as u64);
}

/// How long a field is that holds `length` bytes.
pub(in crate::bench) fn field_bytes(length: usize) -> usize {
    let bits = (length | 1).ilog2() as usize + 1;
    1 + bits.div_ceil(7) + length
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The message is not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::bench) struct Malformed;

/// Hands the number and the value of each field to `each`.
pub(in crate::bench) fn fields<'a>(
    mut bytes: &'a [u8],
    mut each: impl FnMut(u64, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            1 => Value::Bytes(take(&mut bytes, 8)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|_| Malformed)?;
                Value::Bytes(take(&mut bytes, length)?)
            }
            5 => Value::Bytes(take(&mut bytes, 4)?),
            _ => return Err(Malformed),
        };
        each(tag >> 3, value)?;
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    *bytes = rest;
    Ok(taken)
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_have_an_end() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            let mut rest = out.as_slice();
            assert_eq!(varint(&mut rest), Ok(value));
            assert!(rest.is_empty());
        }
        for bytes in [&[][..], &[0x80], &[0xff; 11]] {
            assert_eq!(varint(&mut { bytes }), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn the_length_of_a_field_is_known_before_it_is_written() {
        for length in [0, 1, 127, 128, 16_383, 16_384] {
            let mut out = Vec::new();
            put_text(&mut out, Tag::bytes(1), &vec![b'x'; length]);
            assert_eq!(field_bytes(length), out.len(), "{length}");
        }
    }

    #[test]
    fn a_field_that_reaches_beyond_the_message_is_malformed() {
        let message = [Tag::bytes(2).0, 5, b'a'];
        assert_eq!(fields(&message, |_, _| Ok(())), Err(Malformed));
        let group = [1 << 3 | 3];
        assert_eq!(fields(&group, |_, _| Ok(())), Err(Malformed));
    }
}
