//! Header compression as RFC 7541 has it: a decoder of everything, an encoder of what we send.

mod huffman;
mod static_table;

use std::collections::VecDeque;

use super::fault::Fault;
use static_table::STATIC_TABLE;

/// How many entries come before the first of the table that a connection makes.
pub(super) const STATIC_LENGTH: usize = STATIC_TABLE.len();

/// The size of the header table that an endpoint has where it says nothing else. We say nothing else.
pub(super) const TABLE_BYTES: u32 = 4_096;

/// What an entry costs besides its text.
const ENTRY_BYTES: usize = 32;

/// How a field is written: the bits that the first byte begins with, and how many are left for a number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    bits: u8,
    prefix: u32,
}

/// A field that is in a table.
pub(super) const INDEXED: Form = Form {
    bits: 0b1000_0000,
    prefix: 7,
};
/// A field that goes into the table.
pub(super) const INCREMENTAL: Form = Form {
    bits: 0b0100_0000,
    prefix: 6,
};
/// A field that no table on the way may ever hold.
pub(super) const NEVER_INDEXED: Form = Form {
    bits: 0b0001_0000,
    prefix: 4,
};

/// The bytes that a field takes of the table.
pub(super) fn entry_bytes(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + ENTRY_BYTES
}

/// The index of the first entry of the static table that is wanted.
pub(super) fn static_index(wanted: impl Fn(&str, &str) -> bool) -> Option<usize> {
    let found = STATIC_TABLE.iter().position(|(name, value)| wanted(name, value));
    found.map(|position| position + 1)
}

/// Appends a number after the bits of its form.
pub(super) fn put_number(out: &mut Vec<u8>, form: Form, number: usize) {
    let most = (1 << form.prefix) - 1;
    if number < most {
        out.push(form.bits | number as u8);
        return;
    }
    out.push(form.bits | most as u8);
    let mut rest = number - most;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends a text, Huffman-encoded as clients send it.
pub(super) fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    const HUFFMAN: Form = Form {
        bits: 0b1000_0000,
        prefix: 7,
    };
    let mut encoded = Vec::new();
    huffman::encode(text, &mut encoded);
    put_number(out, HUFFMAN, encoded.len());
    out.extend_from_slice(&encoded);
}

/// A name and a value.
type Entry = (Box<[u8]>, Box<[u8]>);

/// Reads the header blocks of one connection, in their order.
#[derive(Debug)]
pub(super) struct Decoder {
    /// The newest first.
    entries: VecDeque<Entry>,
    bytes: usize,
    bytes_max: usize,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            bytes_max: TABLE_BYTES as usize,
            name: Vec::new(),
            value: Vec::new(),
        }
    }
}

impl Decoder {
    /// Reads a block and hands each name and value to `field`.
    pub(super) fn decode(
        &mut self,
        mut block: &[u8],
        mut field: impl FnMut(&[u8], &[u8]),
    ) -> Result<(), Fault> {
        while let Some(&first) = block.first() {
            if first & 0b1000_0000 != 0 {
                let index = number(&mut block, 7)?;
                let (name, value) = self.entry(index)?;
                field(name, value);
            } else if first & 0b0100_0000 != 0 {
                self.literal(&mut block, 6)?;
                field(&self.name, &self.value);
                self.insert();
            } else if first & 0b0010_0000 != 0 {
                let bytes_max = number(&mut block, 5)?;
                if bytes_max > TABLE_BYTES as usize {
                    return Err(Fault::HeadersMalformed);
                }
                self.bytes_max = bytes_max;
                self.evict(0);
            } else {
                self.literal(&mut block, 4)?;
                field(&self.name, &self.value);
            }
        }
        Ok(())
    }

    /// How much of the table is taken.
    #[cfg(test)]
    pub(super) fn table_bytes(&self) -> usize {
        self.bytes
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Fault> {
        let index = index.checked_sub(1).ok_or(Fault::HeadersMalformed)?;
        if let Some((name, value)) = STATIC_TABLE.get(index) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - STATIC_TABLE.len());
        let (name, value) = entry.ok_or(Fault::HeadersMalformed)?;
        Ok((name, value))
    }

    /// Reads a literal into `name` and `value`.
    fn literal(&mut self, block: &mut &[u8], prefix: u32) -> Result<(), Fault> {
        let index = number(block, prefix)?;
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        if index == 0 {
            text(block, &mut name)?;
        } else {
            name.extend_from_slice(self.entry(index)?.0);
        }
        self.name = name;
        self.value.clear();
        text(block, &mut self.value)
    }

    fn insert(&mut self) {
        let bytes = entry_bytes(&self.name, &self.value);
        self.evict(bytes);
        // One that is larger than the table empties it, and is not an error.
        if bytes <= self.bytes_max {
            let entry = (self.name.as_slice().into(), self.value.as_slice().into());
            self.entries.push_front(entry);
            self.bytes += bytes;
        }
    }

    /// Makes room for `bytes`, from the oldest on.
    fn evict(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max {
            let Some((name, value)) = self.entries.pop_back() else {
                return;
            };
            self.bytes -= entry_bytes(&name, &value);
        }
    }
}

/// Takes a number off the block, of which the first byte has `prefix` bits.
fn number(block: &mut &[u8], prefix: u32) -> Result<usize, Fault> {
    let mut next = || {
        let (&byte, rest) = block.split_first().ok_or(Fault::HeadersMalformed)?;
        *block = rest;
        Ok(usize::from(byte))
    };
    let most = (1 << prefix) - 1;
    let mut number = next()? & most;
    if number < most {
        return Ok(number);
    }
    // Four more bytes hold more than any header that we take is long.
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        number += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Fault::HeadersMalformed)
}

/// Takes a text off the block and appends it to `out`.
fn text(block: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let is_huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = number(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Fault::HeadersMalformed)?;
    *block = rest;
    if is_huffman {
        return huffman::decode(text, out);
    }
    out.extend_from_slice(text);
    Ok(())
}

#[cfg(test)]
mod tests;
