//! Text as the standard fonts take it: Windows code page 1252, and the width of each character.

use super::layout::Font;

/// The widths of Helvetica for the printable characters of ASCII, in thousandths of the size, as Adobe's
/// metrics of the standard fonts give them.
#[rustfmt::skip]
const REGULAR: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278,
    556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556,
    1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778,
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556,
    333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556,
    556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];
/// Those of Helvetica-Bold.
#[rustfmt::skip]
const BOLD: [u16; 95] = [
    278, 333, 474, 556, 556, 889, 722, 238, 333, 333, 389, 584, 278, 333, 278, 278,
    556, 556, 556, 556, 556, 556, 556, 556, 556, 556, 333, 333, 584, 584, 584, 611,
    975, 722, 722, 722, 722, 667, 611, 778, 722, 278, 556, 722, 611, 833, 722, 778,
    667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 333, 278, 333, 584, 556,
    333, 556, 611, 556, 611, 556, 333, 611, 611, 278, 278, 556, 278, 889, 611, 611,
    611, 611, 389, 556, 333, 611, 556, 778, 556, 556, 500, 389, 280, 389, 584,
];
/// The width taken for what the tables do not list.
const OTHER: u16 = 556;

/// The characters of code page 1252 from 0x80 to 0x9f, where it differs from Latin-1; a space where it has none.
const HIGH: &str = "€ ‚ƒ„…†‡ˆ‰Š‹Œ Ž  ‘’“”•–—˜™š›œ žŸ";

/// The bytes of a text; a question mark where the code page lacks a character.
pub(super) fn encoded(text: &str) -> Vec<u8> {
    text.chars().map(byte_of).collect()
}

fn byte_of(character: char) -> u8 {
    match u32::from(character) {
        code @ (0x20..=0x7e | 0xa0..=0xff) => u8::try_from(code).unwrap_or(b'?'),
        // Narrow and figure spaces, as French numbers have them.
        0x2007 | 0x202f => 0xa0,
        _ => {
            let place = HIGH.chars().position(|high| high == character && high != ' ');
            place
                .and_then(|place| u8::try_from(0x80 + place).ok())
                .unwrap_or(b'?')
        }
    }
}

/// The width of a text in thousandths of a point.
pub(super) fn width(font: Font, size: i32, text: &str) -> i32 {
    text.chars()
        .map(|character| i32::from(width_of(font, character)))
        .sum::<i32>()
        * size
}

fn width_of(font: Font, character: char) -> u16 {
    let table = match font {
        Font::Regular => &REGULAR,
        Font::Bold => &BOLD,
    };
    let index = u32::from(plain(character))
        .checked_sub(0x20)
        .and_then(|index| usize::try_from(index).ok());
    index.and_then(|index| table.get(index)).copied().unwrap_or(OTHER)
}

/// A letter without its accent, which is as wide.
fn plain(character: char) -> char {
    match character {
        'À'..='Å' => 'A',
        'Ç' => 'C',
        'È'..='Ë' => 'E',
        'Ì'..='Ï' => 'I',
        'Ñ' => 'N',
        'Ò'..='Ö' => 'O',
        'Ù'..='Ü' => 'U',
        'à'..='å' => 'a',
        'ç' => 'c',
        'è'..='ë' => 'e',
        'ì'..='ï' => 'i',
        'ñ' => 'n',
        'ò'..='ö' => 'o',
        'ù'..='ü' => 'u',
        '’' | '‘' => '\'',
        '\u{a0}' | '\u{2007}' | '\u{202f}' => ' ',
        other => other,
    }
}

/// The text in lines no wider than `width_max` points, broken between words, and within a word that is
/// wider by itself.
pub(super) fn wrapped(font: Font, size: i32, width_max: i32, text: &str) -> Vec<String> {
    let fits = |line: &str| width(font, size, line) <= width_max * 1_000;
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_ascii_whitespace() {
        let longer = if line.is_empty() {
            word.to_owned()
        } else {
            format!("{line} {word}")
        };
        if fits(&longer) {
            line = longer;
            continue;
        }
        if !line.is_empty() {
            lines.push(std::mem::take(&mut line));
        }
        for character in word.chars() {
            line.push(character);
            if !fits(&line) {
                line.pop();
                lines.push(std::mem::replace(&mut line, character.to_string()));
            }
        }
    }
    // An empty text is one empty line, so that its row has a place.
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_encoded_in_the_code_page_of_the_fonts() {
        for (text, bytes) in [
            ("Abc 1", &b"Abc 1"[..]),
            ("é€’–œ", &[0xe9, 0x80, 0x92, 0x96, 0x9c]),
            ("1\u{202f}000", &[b'1', 0xa0, b'0', b'0', b'0']),
            ("日\n", b"??"),
        ] {
            assert_eq!(encoded(text), bytes, "{text}");
        }
        assert_eq!(HIGH.chars().count(), 32);
    }

    #[test]
    fn lines_keep_their_width_and_every_character() {
        let text = "Requêtes d’API au-delà de 50 000 incluses et un mot-qui-ne-tient-pas-sur-une-seule-ligne";
        let lines = wrapped(Font::Regular, 10, 80, text);
        assert!(lines.len() > 3);
        assert!(
            lines.iter().all(|line| width(Font::Regular, 10, line) <= 80_000),
            "{lines:?}"
        );
        let joined: String = lines.concat().replace(' ', "");
        assert_eq!(joined, text.replace(' ', ""));
        assert_eq!(wrapped(Font::Bold, 10, 80, ""), [""]);
    }
}
