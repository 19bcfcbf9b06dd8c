//! One line of comma-separated values (RFC 4180), read strictly.
//!
//! A record is one line here, because lines are what is counted, reported and named in event ids: a quoted
//! value that does not end on its line is a fault of that line and not of all that follow.

use std::borrow::Cow;

use super::malformed::Malformed;

/// The values of a line.
///
/// # Errors
/// [`Malformed::Syntax`] where a quote stands where none may.
pub fn split(line: &str) -> Result<Vec<Cow<'_, str>>, Malformed> {
    let mut values = Vec::new();
    let mut rest = line;
    loop {
        let (value, after) = match rest.trim_start_matches(' ').strip_prefix('"') {
            Some(quoted) => split_quoted(quoted)?,
            None => split_plain(rest)?,
        };
        values.push(value);
        match after {
            Some(after) => rest = after,
            None => return Ok(values),
        }
    }
}

/// A value and what stands after its comma, where there is one.
type Value<'a> = (Cow<'a, str>, Option<&'a str>);

fn split_plain(rest: &str) -> Result<Value<'_>, Malformed> {
    let (value, after) = match rest.split_once(',') {
        Some((value, after)) => (value, Some(after)),
        None => (rest, None),
    };
    if value.contains('"') {
        return Err(Malformed::Syntax("has a quote within a value that is not quoted"));
    }
    Ok((Cow::Borrowed(value.trim_matches(' ')), after))
}

fn split_quoted(quoted: &str) -> Result<Value<'_>, Malformed> {
    let mut value = Cow::Borrowed("");
    let mut rest = quoted;
    loop {
        let (part, after) = rest
            .split_once('"')
            .ok_or(Malformed::Syntax("has a quote that is not closed"))?;
        value += part;
        match after.strip_prefix('"') {
            Some(after) => {
                value += "\"";
                rest = after;
            }
            None => {
                let after = after.trim_start_matches(' ');
                let next = after.strip_prefix(',');
                if next.is_none() && !after.is_empty() {
                    return Err(Malformed::Syntax("has text after a closing quote"));
                }
                return Ok((value, next));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<&[&str], &'static str>) {
        let found = split(line);
        let expected = expected
            .map(|values| values.iter().map(|value| Cow::Borrowed(*value)).collect())
            .map_err(Malformed::Syntax);
        assert_eq!(found, expected, "{line:?}");
    }

    #[test]
    fn values_are_split_at_commas_outside_of_quotes() {
        check("a", Ok(&["a"]));
        check("a,b,c", Ok(&["a", "b", "c"]));
        check(",,", Ok(&["", "", ""]));
        check(" a , b ", Ok(&["a", "b"]));
        check(r#""a,b",c"#, Ok(&["a,b", "c"]));
        check(r#""say ""yes""",c"#, Ok(&[r#"say "yes""#, "c"]));
        check(r#""","""#, Ok(&["", ""]));
        check(r#" "a" , "b" "#, Ok(&["a", "b"]));
        check("é,日本", Ok(&["é", "日本"]));
    }

    #[test]
    fn quotes_out_of_place_are_refused() {
        check(r#"a,"b"#, Err("has a quote that is not closed"));
        check(r#"""""#, Err("has a quote that is not closed"));
        check(r#"a"b,c"#, Err("has a quote within a value that is not quoted"));
        check(r#""a"b,c"#, Err("has text after a closing quote"));
    }
}
