//! The Huffman code of RFC 7541, appendix B.
//!
//! The code is canonical: shorter codes come first, and among codes of one length the smaller symbol has
//! the smaller code. So the lengths say all, and the codes are derived from them.

use super::super::fault::Fault;

/// How many bits the code of each byte has.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const LENGTH_MAX: usize = 30;

/// The code, both ways. The end-of-string symbol has no place in it: its code is all ones, of which only the
/// first seven may ever be seen, as padding.
struct Code {
    /// The code of each byte, in its lowest bits.
    codes: [u32; 256],
    /// The bytes, ordered by their codes.
    symbols: [u8; 256],
    /// For each length, the first code and where in `symbols` its byte is.
    first: [(u32, usize); LENGTH_MAX + 1],
    /// How many codes each length has.
    count: [u32; LENGTH_MAX + 1],
}

static CODE: Code = derive();

const fn derive() -> Code {
    let mut code = Code {
        codes: [0; 256],
        symbols: [0; 256],
        first: [(0, 0); LENGTH_MAX + 1],
        count: [0; LENGTH_MAX + 1],
    };
    let (mut next, mut index, mut length) = (0, 0, 1);
    while length <= LENGTH_MAX {
        next <<= 1;
        code.first[length] = (next, index);
        let mut symbol = 0;
        while symbol < 256 {
            if LENGTHS[symbol] as usize == length {
                code.codes[symbol] = next;
                code.symbols[index] = symbol as u8;
                code.count[length] += 1;
                next += 1;
                index += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    code
}

/// Appends `text`, encoded.
pub(super) fn encode(text: &[u8], out: &mut Vec<u8>) {
    let (mut bits, mut length) = (0_u64, 0);
    for &byte in text {
        let symbol = usize::from(byte);
        bits = bits << LENGTHS[symbol] | u64::from(CODE.codes[symbol]);
        length += u32::from(LENGTHS[symbol]);
        while length >= 8 {
            length -= 8;
            out.push((bits >> length) as u8);
        }
    }
    if length > 0 {
        let padding = 8 - length;
        out.push((bits << padding) as u8 | (0xff >> length));
    }
}

/// Appends what `bytes` encode.
pub(super) fn decode(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let (mut code, mut length) = (0_u32, 0);
    for &byte in bytes {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            length += 1;
            if length > LENGTH_MAX {
                return Err(Fault::HeadersMalformed);
            }
            let (first, index) = CODE.first[length];
            let offset = code.wrapping_sub(first);
            if offset < CODE.count[length] {
                out.push(CODE.symbols[index + offset as usize]);
                (code, length) = (0, 0);
            }
        }
    }
    // The padding is the beginning of the end-of-string symbol, and less than a byte.
    if length > 7 || code != (1 << length) - 1 {
        return Err(Fault::HeadersMalformed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(text, &mut out);
        out
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        decode(bytes, &mut out).map(|()| out)
    }

    #[test]
    fn the_code_is_that_of_the_rfc() {
        // Appendix B, one symbol of each of some lengths.
        for (symbol, code, length) in [
            (b'0', 0x0, 5),
            (b't', 0x9, 5),
            (b' ', 0x14, 6),
            (b'u', 0x2d, 6),
            (b':', 0x5c, 7),
            (b'&', 0xf8, 8),
            (b'!', 0x3f8, 10),
            (0, 0x1ff8, 13),
            (b'\\', 0x7fff0, 19),
            (255, 0x3ffffee, 26),
            (249, 0xffffffe, 28),
            (22, 0x3ffffffe, 30),
        ] {
            let index = usize::from(symbol);
            assert_eq!((CODE.codes[index], LENGTHS[index]), (code, length), "{symbol}");
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encoded(&all)), Ok(all));
    }

    #[test]
    fn what_is_no_padding_is_refused() {
        // "0" is 00000; its padding is three ones.
        assert_eq!(decoded(&[0b0000_0111]), Ok(b"0".to_vec()));
        assert_eq!(decoded(&[0b0000_0110]), Err(Fault::HeadersMalformed));
        assert_eq!(decoded(&[0b0000_0111, 0xff]), Err(Fault::HeadersMalformed));
        assert_eq!(decoded(&[0xff; 4]), Err(Fault::HeadersMalformed), "end of string");
    }
}
