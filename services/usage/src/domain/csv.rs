//! CSV as RFC 4180 has it, safe to open in a spreadsheet.

/// What ends a line (RFC 4180, 2.1).
const LINE_END: &[u8] = b"\r\n";
/// A spreadsheet takes a cell that begins with one of these for a formula, or for what leads to one.
const FORMULA_STARTS: [u8; 6] = [b'=', b'+', b'-', b'@', b'\t', b'\r'];

/// Lines of CSV, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Csv {
    bytes: Vec<u8>,
    /// Whether the line that is being written has a cell.
    has_cell: bool,
}

impl Csv {
    /// Adds a cell of text. One that would be taken for a formula gets a `'` in front, which spreadsheets do not show; one
    /// with a comma, a quote or the end of a line in it is quoted, its quotes doubled (RFC 4180, 2.6 and 2.7).
    pub fn text(&mut self, text: &str) {
        self.begin();
        let is_formula = text
            .bytes()
            .next()
            .is_some_and(|first| FORMULA_STARTS.contains(&first));
        let is_quoted = text
            .bytes()
            .any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n'));
        if is_quoted {
            self.bytes.push(b'"');
        }
        if is_formula {
            self.bytes.push(b'\'');
        }
        for byte in text.bytes() {
            if byte == b'"' {
                self.bytes.push(b'"');
            }
            self.bytes.push(byte);
        }
        if is_quoted {
            self.bytes.push(b'"');
        }
    }

    /// Adds a cell that is plain: a number, a time, a word of ours.
    pub fn plain(&mut self, value: impl std::fmt::Display) {
        use std::io::Write as _;
        self.begin();
        // Writing into a vector does not fail.
        let _ = write!(self.bytes, "{value}");
    }

    /// Ends the line.
    pub fn end_line(&mut self) {
        self.bytes.extend_from_slice(LINE_END);
        self.has_cell = false;
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Takes the first bytes away, up to `most` of them.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        let left = self.bytes.split_off(most.min(self.bytes.len()));
        std::mem::replace(&mut self.bytes, left)
    }

    fn begin(&mut self) {
        if self.has_cell {
            self.bytes.push(b',');
        }
        self.has_cell = true;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(cells: &[&str]) -> String {
        let mut csv = Csv::default();
        for cell in cells {
            csv.text(cell);
        }
        csv.end_line();
        String::from_utf8(csv.take(usize::MAX)).expect("text")
    }

    /// What RFC 4180 says a file holds, read by a grammar of the test's own.
    fn read(text: &str) -> Vec<Vec<String>> {
        let (mut lines, mut cells, mut cell) = (Vec::new(), Vec::new(), String::new());
        let (mut quoted, mut rest) = (false, text.chars().peekable());
        while let Some(one) = rest.next() {
            match one {
                '"' if quoted && rest.peek() == Some(&'"') => {
                    rest.next();
                    cell.push('"');
                }
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(std::mem::take(&mut cell)),
                '\r' if !quoted => {
                    assert_eq!(rest.next(), Some('\n'), "a line ends with both");
                    cells.push(std::mem::take(&mut cell));
                    lines.push(std::mem::take(&mut cells));
                }
                other => cell.push(other),
            }
        }
        assert!(
            !quoted && cell.is_empty() && cells.is_empty(),
            "the last line ends"
        );
        lines
    }

    #[test]
    fn cells_are_quoted_where_they_must_be_and_are_never_formulas() {
        for (cell, written) in [
            ("eu-west", "eu-west"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("two\nlines", "\"two\nlines\""),
            ("=1+1", "'=1+1"),
            ("+49", "'+49"),
            ("-1", "'-1"),
            ("@sum", "'@sum"),
            ("\t=1", "'\t=1"),
            ("\r=1", "\"'\r=1\""),
            ("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\""),
            ("1=1", "1=1"),
            (" =1", " =1"),
            ("'=1", "'=1"),
        ] {
            assert_eq!(line(&[cell]), format!("{written}\r\n"), "{cell:?}");
        }
    }

    #[test]
    fn lines_have_their_cells_between_commas() {
        let mut csv = Csv::default();
        csv.plain(1);
        csv.text("a");
        csv.plain(true);
        csv.end_line();
        csv.text("");
        csv.text("");
        csv.end_line();
        assert_eq!(csv.len(), "1,a,true\r\n,\r\n".len());
        assert_eq!(csv.take(4), b"1,a,");
        assert_eq!(csv.take(100), b"true\r\n,\r\n");
        assert!(csv.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_again(
            lines in proptest::collection::vec(proptest::collection::vec("[a,=\"\r\n\t@é+-]{0,6}", 1..5), 1..5),
        ) {
            let mut csv = Csv::default();
            for cells in &lines {
                for cell in cells {
                    csv.text(cell);
                }
                csv.end_line();
            }
            let text = String::from_utf8(csv.take(usize::MAX)).expect("text");
            let found = read(&text);
            prop_assert_eq!(found.len(), lines.len());
            for (found, cells) in found.iter().zip(&lines) {
                prop_assert_eq!(found.len(), cells.len());
                for (found, cell) in found.iter().zip(cells) {
                    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
                    prop_assert_eq!(found.strip_prefix('\'').unwrap_or(found), cell.as_str());
                    prop_assert_eq!(found.starts_with('\''), is_formula);
                }
            }
        }
    }
}
