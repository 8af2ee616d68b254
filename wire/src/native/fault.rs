//! What a peer can do wrong: a closed list, each with its code on the wire.

use super::frame::Kind;

/// A violation of the protocol by the other side. The connection ends.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A frame longer than its kind may be.
    #[error("a frame of {length} bytes, and {limit} is the limit for its kind ({kind:#04x})")]
    FrameTooLong {
        /// Frame kind.
        kind: u8,
        /// Announced length of the body.
        length: u32,
        /// What would have been allowed.
        limit: usize,
    },
    /// A data frame too short for its offset.
    #[error("a data frame of {0} bytes, too short for its offset")]
    FrameTooShort(u32),
    /// A kind that this version doesn't know.
    #[error("unknown frame kind {0:#04x}")]
    UnknownKind(u8),
    /// A kind that may not come now, or not from this side.
    #[error("a {0} frame that may not come here")]
    UnexpectedKind(Kind),
    /// A channel that was never opened, or is closed for this kind.
    #[error("unknown channel {0}")]
    UnknownChannel(u32),
    /// A channel number that isn't greater than all before it.
    #[error("channel {0} was used before")]
    ChannelReused(u32),
    /// More jobs at a time than this side allows.
    #[error("more than {0} jobs at a time")]
    TooManyJobs(u32),
    /// Bytes beyond the limit this side gave.
    #[error("data up to offset {end}, and {limit} is the limit")]
    BeyondCredit {
        /// Offset after the last byte.
        end: u64,
        /// The credit's limit.
        limit: u64,
    },
    /// Bytes at another offset than the next one.
    #[error("data at offset {got}, and {expected} is next")]
    WrongOffset {
        /// Offset in the frame.
        got: u64,
        /// Offset that was next.
        expected: u64,
    },
    /// Bytes or another end behind a stream's end.
    #[error("data behind the end of its stream")]
    AfterEnd,
    /// Credit that goes back, or says that bytes were consumed that were never sent.
    #[error("credit that goes back or ahead of what was sent")]
    WrongCredit,
    /// A control message that doesn't parse, or lacks what it must have.
    #[error("a malformed {kind} message: {what}")]
    Malformed {
        /// Frame kind.
        kind: Kind,
        /// What is wrong with it.
        what: &'static str,
    },
    /// No version both sides speak.
    #[error("no common version: the other side speaks {min} to {max}")]
    Version {
        /// Lowest version of the other side.
        min: u32,
        /// Its highest.
        max: u32,
    },
    /// More unsigned offers or attempts than a connection has.
    #[error("too many authentication attempts")]
    TooManyAttempts,
    /// The other side was too slow.
    #[error("no complete handshake within its time")]
    HandshakeTimeout,
    /// The host goes on with a stdin at an offset whose bytes are gone, or were never sent.
    #[error("it goes on with stdin at offset {at}, and {kept} to {sent} are kept")]
    WrongResume {
        /// The offset.
        at: u64,
        /// Offset of the first byte that is kept.
        kept: u64,
        /// Offset behind the last byte that was sent.
        sent: u64,
    },
    /// This side has a fault of its own. Not the peer's doing.
    #[error("internal fault")]
    Internal,
}

impl Fault {
    /// The code on the wire.
    pub fn code(&self) -> u32 {
        match self {
            Fault::FrameTooLong { .. } => 1,
            Fault::FrameTooShort(_) => 2,
            Fault::UnknownKind(_) => 3,
            Fault::UnexpectedKind(_) => 4,
            Fault::UnknownChannel(_) => 5,
            Fault::ChannelReused(_) => 6,
            Fault::TooManyJobs(_) => 7,
            Fault::BeyondCredit { .. } => 8,
            Fault::WrongOffset { .. } => 9,
            Fault::AfterEnd => 10,
            Fault::WrongCredit => 11,
            Fault::Malformed { .. } => 12,
            Fault::Version { .. } => 13,
            Fault::TooManyAttempts => 14,
            Fault::HandshakeTimeout => 15,
            Fault::Internal => 16,
            Fault::WrongResume { .. } => 17,
        }
    }
}
