//! Names that people chose, made fit for what we write to people.
//!
//! Escaping is the templates' part. Here go the characters that no escaping helps against: those that end
//! a line, those that turn the direction of what follows, and those that nobody sees.

/// The most characters of a name in a text of ours.
const LENGTH_MAX: usize = 80;
/// Invisible, and no mail program looks for a link across it.
const WORD_JOINER: char = '\u{2060}';

/// `name` on one line, without characters that hide or turn text, and not longer than a line.
#[must_use]
pub fn clean(name: &str) -> String {
    let visible = name
        .chars()
        .filter(|c| !is_invisible(*c))
        .map(|c| if c.is_control() { ' ' } else { c });
    let text: String = visible.collect();
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(LENGTH_MAX) {
        line.truncate(end);
        line.truncate(line.trim_end().len());
        line.push('…');
    }
    line
}

/// The same, for e-mails: mail programs make links of what looks like one, and a name must not become one.
#[must_use]
pub fn clean_without_links(name: &str) -> String {
    let line = clean(name);
    let mut text = String::with_capacity(line.len());
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        text.push(c);
        if matches!(c, '.' | ':' | '/' | '@') && rest.peek().is_some_and(|next| !next.is_whitespace()) {
            text.push(WORD_JOINER);
        }
    }
    text
}

/// Marks and overrides of direction, characters of no width, tags. The joiners that emoji need may stay.
const fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(name: &str, expected: &str) {
        assert_eq!(clean(name), expected);
    }

    #[test]
    fn a_name_is_one_visible_line() {
        check("Atelier Nord", "Atelier Nord");
        check("  Café\tde   Flore ", "Café de Flore");
        check("Acme\r\nBcc: victim@example.com", "Acme Bcc: victim@example.com");
        check("\u{202e}gnp.tnemyap\u{202c}", "gnp.tnemyap");
        check("a\u{200b}b\u{2066}c\u{2069}\u{0}", "abc");
        check("line\u{2028}separator", "line separator");
        check("👩\u{200d}🔬 Lab", "👩\u{200d}🔬 Lab");
        check(&"x".repeat(10_000), &format!("{}…", "x".repeat(80)));
        check("\u{200b}\r\n", "");
    }

    #[test]
    fn a_name_in_an_email_is_no_link() {
        for name in ["https://evil.example/pay", "www.evil.example", "pay@evil.example"] {
            let text = clean_without_links(name);
            assert!(
                !text.contains("://") && !text.contains(".e") && !text.contains("@e"),
                "{text:?}"
            );
            assert_eq!(text.replace(WORD_JOINER, ""), name);
        }
        assert_eq!(clean_without_links("Dr. Who: Ltd."), "Dr. Who: Ltd.");
    }

    proptest! {
        #[test]
        fn no_name_breaks_a_line_or_grows(name in any::<String>()) {
            let line = clean(&name);
            prop_assert!(!line.chars().any(|c| c.is_control() || is_invisible(c)));
            prop_assert!(line.chars().count() <= LENGTH_MAX + 1);
            prop_assert_eq!(clean(&line), line);
        }
    }
}
