//! What a case sends, and what it makes of the answers.

/// A source of requests that also knows how to read the answers to them.
///
/// It is called for every request, so it allocates nothing and reads no more than it needs.
pub trait Traffic {
    /// The method that is called.
    const PATH: &'static str;

    /// A second method that some requests call instead; only of unary ones.
    const SECOND_PATH: Option<&'static str> = None;

    /// How it is called.
    const KIND: Kind;

    /// Whether the next request calls the second method.
    fn is_second(&self) -> bool {
        false
    }

    /// Appends the next request to `out`. On a stream the answer must bring `place` back
    /// ([`Seen::place`]); elsewhere it means nothing.
    fn write(&mut self, place: u32, out: &mut Vec<u8>);

    /// Reads an answer.
    fn read(&mut self, message: &[u8]) -> Seen;

    /// The same, told the place that the request had. On a stream the answer says it, and this says nothing.
    fn read_at(&mut self, _place: u32, message: &[u8]) -> Seen {
        self.read(message)
    }
}

/// How a method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call has one request and one answer.
    Unary,
    /// A call stays open and has many of both, in any order.
    Stream,
}

/// What an answer says. An answer to a batch has many decisions, any other has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Which request of a stream it answers.
    pub place: Option<u32>,
    /// Decisions that allow.
    pub allowed: u32,
    /// Decisions that deny.
    pub denied: u32,
    /// Items of a batch or a stream that have an error instead of a decision.
    pub refused: u32,
    /// It is not what the contract says, or not what the case is about.
    pub is_malformed: bool,
}

impl Seen {
    /// An answer that cannot be used.
    #[must_use]
    pub fn malformed() -> Self {
        Self {
            is_malformed: true,
            ..Self::default()
        }
    }

    /// Adds what another answer of the same batch says.
    pub fn add(&mut self, other: Self) {
        self.allowed += other.allowed;
        self.denied += other.denied;
        self.refused += other.refused;
        self.is_malformed |= other.is_malformed;
    }
}
