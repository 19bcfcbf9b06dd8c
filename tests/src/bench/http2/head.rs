//! The header block of a request: encoded once, sent with every request of a case.

use super::hpack;

/// What is said before every request: the method that is called, and the headers.
///
/// A real client writes a header out once a connection and by an index from then on. So does this one, so
/// that a server has no more work with it than with its real callers.
#[derive(Clone, Debug)]
pub(in crate::bench) struct Head {
    fields: Vec<Field>,
}

#[derive(Clone, Debug)]
struct Field {
    name: String,
    value: String,
    is_secret: bool,
}

impl Field {
    fn table_bytes(&self) -> usize {
        hpack::entry_bytes(self.name.as_bytes(), self.value.as_bytes())
    }
}

/// A head as bytes. The peer's header table has what [`first`](Blocks::first) wrote out, and nothing else.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    /// Of the first request of a connection.
    pub(super) first: Vec<u8>,
    /// Of each request after it.
    pub(super) again: Vec<u8>,
    /// What the peer's header table must hold.
    pub(super) table_bytes: usize,
}

impl Head {
    /// Calls `path`, such as `/octroi.quota.v1.QuotaService/CheckQuota`.
    #[must_use]
    pub(in crate::bench) fn new(path: &str) -> Self {
        Self::of(path, false)
    }

    /// The same where several methods are called on one connection: the path is written out every time.
    #[must_use]
    pub(in crate::bench) fn one_of_many(path: &str) -> Self {
        Self::of(path, true)
    }

    fn of(path: &str, is_written_out: bool) -> Self {
        let head = Self { fields: Vec::new() };
        head.with(":method", "POST")
            .with(":scheme", "http")
            .and(":path", path, is_written_out)
            .with(":authority", "bench")
            .with("te", "trailers")
            .with("content-type", "application/grpc")
            .with("user-agent", "octroi-bench")
    }

    /// Adds a header. Its name is written in small letters.
    #[must_use]
    pub(in crate::bench) fn with(self, name: &str, value: &str) -> Self {
        self.and(name, value, false)
    }

    /// Calls with a token. As in our own links, it is written out every time and kept in no table.
    #[must_use]
    pub(in crate::bench) fn with_token(self, token: &str) -> Self {
        self.and("authorization", &format!("Bearer {token}"), true)
    }

    fn and(mut self, name: &str, value: &str, is_secret: bool) -> Self {
        self.fields.push(Field {
            name: name.to_owned(),
            value: value.to_owned(),
            is_secret,
        });
        self
    }

    /// Encodes it.
    pub(super) fn blocks(&self) -> Blocks {
        let (mut first, mut again) = (Vec::new(), Vec::new());
        let kept = |field: &&Field| !field.is_secret && whole_index(field).is_none();
        let table_bytes = self.fields.iter().filter(kept).map(Field::table_bytes).sum();
        // The newest entry has the lowest index, which follows those of the static table.
        let mut index = hpack::STATIC_LENGTH + self.fields.iter().filter(kept).count();
        for field in &self.fields {
            if let Some(index) = whole_index(field) {
                hpack::put_number(&mut first, hpack::INDEXED, index);
                hpack::put_number(&mut again, hpack::INDEXED, index);
            } else if field.is_secret {
                put_literal(&mut first, hpack::NEVER_INDEXED, field);
                put_literal(&mut again, hpack::NEVER_INDEXED, field);
            } else {
                put_literal(&mut first, hpack::INCREMENTAL, field);
                hpack::put_number(&mut again, hpack::INDEXED, index);
                index -= 1;
            }
        }
        Blocks {
            first,
            again,
            table_bytes,
        }
    }
}

/// The index of a field that the static table has, its value included.
fn whole_index(field: &Field) -> Option<usize> {
    hpack::static_index(|name, value| name == field.name && value == field.value)
}

fn put_literal(out: &mut Vec<u8>, form: hpack::Form, field: &Field) {
    match hpack::static_index(|name, _| name == field.name) {
        Some(index) => hpack::put_number(out, form, index),
        None => {
            hpack::put_number(out, form, 0);
            hpack::put_text(out, field.name.as_bytes());
        }
    }
    hpack::put_text(out, field.value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_blocks_say_the_same_to_one_decoder() {
        let blocks = Head::new("/a.B/C")
            .with_token("secret")
            .with("x-one", "1")
            .blocks();
        let mut decoder = hpack::Decoder::default();
        let mut read = |block: &[u8]| {
            let mut fields = Vec::new();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let field = |name: &[u8], value: &[u8]| fields.push((text(name), text(value)));
            decoder.decode(block, field).expect("well-formed");
            fields
        };
        let first = read(&blocks.first);
        assert_eq!(read(&blocks.again), first);
        assert_eq!(read(&blocks.again), first);
        let expected = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/a.B/C"),
            (":authority", "bench"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "octroi-bench"),
            ("authorization", "Bearer secret"),
            ("x-one", "1"),
        ];
        assert_eq!(
            first,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(decoder.table_bytes(), blocks.table_bytes);
    }

    #[test]
    fn what_is_in_a_table_takes_a_byte() {
        let blocks = Head::new("/a.B/C").blocks();
        assert_eq!(blocks.again.len(), 7);
    }

    #[test]
    fn heads_of_many_methods_leave_the_same_in_the_table() {
        let [reserve, commit] = ["/a.B/Reserve", "/a.B/Commit"].map(|path| Head::one_of_many(path).blocks());
        let mut decoder = hpack::Decoder::default();
        let mut path_of = |block: &[u8]| {
            let mut path = String::new();
            let field = |name: &[u8], value: &[u8]| {
                if name == b":path" {
                    path = String::from_utf8_lossy(value).into_owned();
                }
            };
            decoder.decode(block, field).expect("well-formed");
            path
        };
        assert_eq!(path_of(&commit.first), "/a.B/Commit");
        assert_eq!(path_of(&reserve.again), "/a.B/Reserve");
        assert_eq!(path_of(&commit.again), "/a.B/Commit");
        assert_eq!(decoder.table_bytes(), reserve.table_bytes);
        assert_eq!(reserve.table_bytes, commit.table_bytes);
    }
}
