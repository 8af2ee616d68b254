//! What a peer can do wrong in a reply: a closed list.

/// A reply that makes no sense, or stops before its end. The connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A length below zero.
    #[error("the reply announces a negative length, {0}")]
    NegativeLength(i32),
    /// A header too long to be one.
    #[error("the reply announces a header of {length} bytes, and {limit} is the limit")]
    HeaderTooLong {
        /// Announced length, bytes.
        length: u32,
        /// What would have been allowed, bytes.
        limit: usize,
    },
    /// A header that isn't text.
    #[error("the reply's header is not UTF-8 from byte {0} on")]
    NotUtf8(usize),
    /// A header that isn't JSON.
    #[error("the reply's header is not JSON (line {line}, column {column})")]
    NotJson {
        /// Line of the mistake, from 1.
        line: usize,
        /// Column of the mistake, from 1; 0 before the first.
        column: usize,
    },
    /// JSON, and something else than an object.
    #[error("the reply's header is JSON, but no object")]
    NotAnObject,
    /// A member that counts, twice: two readers could take two different ones for the truth (RFC 8259, section 4).
    #[error("the reply's header has {0} more than once")]
    Repeated(&'static str),
    /// Nothing says how long the payload is.
    #[error("the reply's header has no total_size")]
    NoSize,
    /// A `total_size` of another type.
    #[error("the reply's total_size is not a number")]
    SizeNotANumber,
    /// A number that no size has: negative, or with a fraction.
    #[error("the reply's total_size is a number, but no size: it is {0}")]
    NotASize(&'static str),
    /// A number larger than any file.
    #[error(
        "the reply's total_size is too large: a number of {digits} digits, and {limit} bytes is the limit"
    )]
    SizeTooLarge {
        /// Digits of the number, written out in full.
        digits: u64,
        /// The limit, bytes.
        limit: u64,
    },
    /// The peer closed before any byte of a reply.
    #[error("the peer closed the connection without a reply")]
    NoReply,
    /// The peer stopped inside the length.
    #[error("the peer stopped after {got} of the 4 bytes of the reply's length")]
    CutLength {
        /// Bytes that came, 1 to 3.
        got: u64,
    },
    /// The peer stopped inside the header.
    #[error("the peer stopped after {got} of the {expected} bytes of the reply's header")]
    CutHeader {
        /// Bytes that came.
        got: u64,
        /// Announced length, bytes.
        expected: u64,
    },
    /// The peer stopped inside the payload.
    #[error("the peer stopped after {got} of the {expected} bytes of the reply")]
    CutPayload {
        /// Bytes that came.
        got: u64,
        /// Announced length, bytes.
        expected: u64,
    },
}

impl Fault {
    /// Whether what came was well-formed and merely not all: the peer, or the network, went away.
    pub fn is_cut(&self) -> bool {
        match self {
            Fault::NoReply | Fault::CutLength { .. } | Fault::CutHeader { .. } | Fault::CutPayload { .. } => {
                true
            }
            Fault::NegativeLength(_)
            | Fault::HeaderTooLong { .. }
            | Fault::NotUtf8(_)
            | Fault::NotJson { .. }
            | Fault::NotAnObject
            | Fault::Repeated(_)
            | Fault::NoSize
            | Fault::SizeNotANumber
            | Fault::NotASize(_)
            | Fault::SizeTooLarge { .. } => false,
        }
    }
}
