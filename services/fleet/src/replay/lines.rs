//! Lines of a file with their numbers, and the hash of all that was read.

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use super::malformed::Malformed;

/// The longest line. What is longer is skipped without being held.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// Hands out lines with their numbers, from 1; blank ones are counted and left out.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    number: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// The lines of `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            number: 0,
            buffer: Vec::new(),
        }
    }

    /// The next line that is not blank, without its end; none at the end of the file.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn next(&mut self) -> io::Result<Option<(u64, Result<&str, Malformed>)>> {
        loop {
            self.buffer.clear();
            let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX) + 1;
            if self
                .reader
                .by_ref()
                .take(limit)
                .read_until(b'\n', &mut self.buffer)?
                == 0
            {
                return Ok(None);
            }
            self.number += 1;
            if self.buffer.len() > LINE_BYTES_MAX && self.buffer.last() != Some(&b'\n') {
                self.reader.skip_until(b'\n')?;
                return Ok(Some((
                    self.number,
                    Err(Malformed::TooLong {
                        bytes_max: LINE_BYTES_MAX,
                    }),
                )));
            }
            let start = self.text_start();
            if !self.buffer.iter().skip(start).all(u8::is_ascii_whitespace) {
                let text = self.buffer.get(start..).unwrap_or_default();
                return Ok(Some((self.number, read_text(text))));
            }
        }
    }

    /// Some programs begin a file with a byte order mark.
    fn text_start(&self) -> usize {
        const MARK: &[u8] = "\u{feff}".as_bytes();
        if self.number == 1 && self.buffer.starts_with(MARK) {
            MARK.len()
        } else {
            0
        }
    }

    /// What is left to read from.
    pub fn into_inner(self) -> R {
        self.reader
    }
}

fn read_text(bytes: &[u8]) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::NotUtf8)?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(text.strip_suffix('\r').unwrap_or(text))
}

/// Hashes what is read through it.
#[derive(Debug)]
pub struct Hashed<R> {
    reader: R,
    hash: Sha256,
    bytes: u64,
}

impl<R> Hashed<R> {
    /// Reads from `reader`.
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            hash: Sha256::new(),
            bytes: 0,
        }
    }

    /// The SHA-256 of what was read, and its length.
    pub fn finish(self) -> ([u8; 32], u64) {
        (self.hash.finalize().into(), self.bytes)
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        let read = buffer.get(..count).unwrap_or_default();
        self.hash.update(read);
        self.bytes += u64::try_from(read.len()).unwrap_or_default();
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: &[(u64, Result<&str, Malformed>)]) {
        let mut lines = Lines::new(bytes);
        let mut found = Vec::new();
        while let Some((number, line)) = lines.next().expect("a readable slice") {
            found.push((number, line.map(str::to_owned)));
        }
        let expected: Vec<_> = expected
            .iter()
            .map(|(number, line)| (*number, line.clone().map(str::to_owned)))
            .collect();
        assert_eq!(
            found,
            expected,
            "{:?}",
            String::from_utf8_lossy(bytes)
                .chars()
                .take(40)
                .collect::<String>()
        );
    }

    #[test]
    fn lines_keep_their_numbers() {
        check(b"", &[]);
        check(b"\n\r\n  \n", &[]);
        check(b"a\nb", &[(1, Ok("a")), (2, Ok("b"))]);
        check(b"a\r\n\r\nb\r\n", &[(1, Ok("a")), (3, Ok("b"))]);
        check(
            "\u{feff}a\n\u{feff}b\n".as_bytes(),
            &[(1, Ok("a")), (2, Ok("\u{feff}b"))],
        );
        check(
            b"a\n\xff\xfe\nb\n",
            &[(1, Ok("a")), (2, Err(Malformed::NotUtf8)), (3, Ok("b"))],
        );
    }

    #[test]
    fn a_line_without_end_is_not_held() {
        let mut bytes = vec![b'x'; 3 * LINE_BYTES_MAX];
        bytes.extend_from_slice(b"\nb\n");
        check(
            &bytes,
            &[
                (
                    1,
                    Err(Malformed::TooLong {
                        bytes_max: LINE_BYTES_MAX,
                    }),
                ),
                (2, Ok("b")),
            ],
        );
        let mut bytes = vec![b'x'; LINE_BYTES_MAX];
        let longest = String::from_utf8(bytes.clone()).expect("ASCII");
        bytes.extend_from_slice(b"\nb\n");
        check(&bytes, &[(1, Ok(&longest)), (2, Ok("b"))]);
    }

    #[test]
    fn what_is_read_is_hashed() {
        let mut reader = Hashed::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).expect("a readable slice");
        let (hash, bytes) = reader.finish();
        assert_eq!(
            hex::encode(hash),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(bytes, 3);
    }
}
