//! Frames: a header of nine bytes, then a body.
//!
//! ```text
//! 0        4      5          9
//! +--------+------+----------+----------- - -
//! | length | kind | channel  | body (length bytes)
//! +--------+------+----------+----------- - -
//! ```
//!
//! Integers are big-endian. A data frame's body is a 64-bit absolute offset and the bytes at it; every other body is a
//! Protocol Buffers message. The decoder hands out the bytes of a data frame as they arrive, so that its length costs no memory.

use bytes::{Buf, Bytes, BytesMut};

use super::fault::Fault;
use crate::limits;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident = $code:literal, $text:literal;)*) => {
        /// What a frame carries.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Kind { $($(#[doc = $doc])* $name = $code,)* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The kind of a code, or none for a code that this version doesn't know.
            pub fn from_code(code: u8) -> Option<Kind> {
                match code { $($code => Some(Kind::$name),)* _ => None }
            }
        }

        impl std::fmt::Display for Kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Kind::$name => $text,)* })
            }
        }
    };
}

kinds! {
    /// `ServerHello`.
    ServerHello = 0x01, "server-hello";
    /// `ClientHello`.
    ClientHello = 0x02, "client-hello";
    /// `Offer`.
    Offer = 0x03, "offer";
    /// `OfferReply`.
    OfferReply = 0x04, "offer-reply";
    /// `Authenticate`.
    Authenticate = 0x05, "authenticate";
    /// `AuthReply`.
    AuthReply = 0x06, "auth-reply";
    /// Eight bytes that come back in a pong.
    Ping = 0x07, "ping";
    /// The eight bytes of a ping.
    Pong = 0x08, "pong";
    /// `GoAway`.
    GoAway = 0x09, "go-away";
    /// `Fault`.
    Fault = 0x0a, "fault";
    /// `Ask`.
    Ask = 0x0b, "ask";
    /// `Answer`.
    Answer = 0x0c, "answer";
    /// `Settled`.
    Settled = 0x0d, "settled";
    /// `Leave`.
    Leave = 0x0e, "leave";
    /// `Start`.
    Start = 0x10, "start";
    /// `Started`.
    Started = 0x11, "started";
    /// `Receipt`.
    Receipt = 0x12, "receipt";
    /// `Credit`.
    Credit = 0x13, "credit";
    /// `End`.
    End = 0x14, "end";
    /// `Stop`.
    Stop = 0x15, "stop";
    /// `Signal`.
    Signal = 0x16, "signal";
    /// `Close`.
    Close = 0x17, "close";
    /// `WindowSize`.
    Resize = 0x18, "resize";
    /// `Stopped`.
    Stopped = 0x19, "stopped";
    /// `Detached`.
    Detached = 0x1a, "detached";
    /// Bytes of stdin.
    Stdin = 0x20, "stdin";
    /// Bytes of stdout.
    Stdout = 0x21, "stdout";
    /// Bytes of stderr.
    Stderr = 0x22, "stderr";
}

/// Codes from here on may be ignored by who doesn't know them; an unknown code below ends the connection.
pub const FIRST_IGNORABLE: u8 = 0x80;

impl Kind {
    /// The code on the wire.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The stream whose bytes this kind carries.
    pub fn stream(self) -> Option<Stream> {
        match self {
            Kind::Stdin => Some(Stream::Stdin),
            Kind::Stdout => Some(Stream::Stdout),
            Kind::Stderr => Some(Stream::Stderr),
            _ => None,
        }
    }

    fn body_limit(self, control: usize) -> usize {
        match self {
            Kind::Stdin | Kind::Stdout | Kind::Stderr => limits::DATA_OFFSET + limits::DATA_FRAME,
            Kind::Start | Kind::Answer => control,
            Kind::Receipt => limits::CONTROL_RECEIPT.min(control),
            Kind::Offer | Kind::Authenticate => limits::CONTROL_BEFORE_AUTH,
            _ => limits::CONTROL_SMALL,
        }
    }
}

/// One of a job's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    /// Towards the command.
    Stdin,
    /// From the command.
    Stdout,
    /// From the command.
    Stderr,
}

impl Stream {
    /// The frame kind that carries its bytes.
    pub fn kind(self) -> Kind {
        match self {
            Stream::Stdin => Kind::Stdin,
            Stream::Stdout => Kind::Stdout,
            Stream::Stderr => Kind::Stderr,
        }
    }
}

impl std::fmt::Display for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.kind().fmt(f)
    }
}

/// The header of a control frame with `length` bytes of body.
pub fn control_header(kind: Kind, channel: u32, length: u32) -> [u8; limits::FRAME_HEADER] {
    let mut header = [0; limits::FRAME_HEADER];
    for (to, from) in header
        .iter_mut()
        .zip(length.to_be_bytes().into_iter().chain([kind.code()]).chain(channel.to_be_bytes()))
    {
        *to = from;
    }
    header
}

/// Header and offset of a data frame with `length` bytes of a stream, which must not exceed [`limits::DATA_FRAME`].
pub fn data_header(
    stream: Stream,
    channel: u32,
    offset: u64,
    length: u32,
) -> [u8; limits::FRAME_HEADER + limits::DATA_OFFSET] {
    let mut header = [0; limits::FRAME_HEADER + limits::DATA_OFFSET];
    let frame = control_header(stream.kind(), channel, length + limits::DATA_OFFSET as u32);
    for (to, from) in header.iter_mut().zip(frame.into_iter().chain(offset.to_be_bytes())) {
        *to = from;
    }
    header
}

/// Something complete enough to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A whole control frame.
    Control {
        /// Its kind.
        kind: Kind,
        /// Its channel; 0 is the connection itself.
        channel: u32,
        /// Its body.
        body: Bytes,
    },
    /// Bytes of a data frame, perhaps not all of them.
    Data {
        /// Which stream.
        stream: Stream,
        /// Which job.
        channel: u32,
        /// Absolute offset of the first byte.
        offset: u64,
        /// The bytes; empty only for a data frame without any.
        bytes: Bytes,
    },
    /// A frame of a kind that may be ignored.
    Ignored {
        /// Its code.
        code: u8,
    },
}

#[derive(Debug)]
enum State {
    Header,
    Offset { stream: Stream, channel: u32, length: usize },
    Data { stream: Stream, channel: u32, offset: u64, remaining: usize },
    Control { kind: Kind, channel: u32, length: usize },
    Skip { code: u8, remaining: usize },
}

/// Cuts a byte stream into frames, however the bytes arrive.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    control_limit: usize,
}

impl Decoder {
    /// A decoder at a frame's border, with the limits that hold before authentication.
    pub fn new() -> Self {
        Decoder { state: State::Header, control_limit: limits::CONTROL_BEFORE_AUTH }
    }

    /// Sets the largest control message from now on, in bytes.
    pub fn set_control_limit(&mut self, bytes: usize) {
        self.control_limit = bytes;
    }

    /// Whether the next byte starts a frame. At the end of input anything else means that the peer stopped half-way.
    pub fn at_border(&self) -> bool {
        matches!(self.state, State::Header)
    }

    /// Takes the next piece out of `input`; none when more bytes are needed.
    ///
    /// # Errors
    /// [`Fault::FrameTooLong`], [`Fault::FrameTooShort`] or [`Fault::UnknownKind`]; the stream is unusable afterwards.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Fault> {
        loop {
            match self.state {
                State::Header => {
                    if input.len() < limits::FRAME_HEADER {
                        return Ok(None);
                    }
                    let length = input.get_u32();
                    let code = input.get_u8();
                    let channel = input.get_u32();
                    self.state = self.open(length, code, channel)?;
                }
                State::Offset { stream, channel, length } => {
                    if input.len() < limits::DATA_OFFSET {
                        return Ok(None);
                    }
                    let offset = input.get_u64();
                    let remaining = length - limits::DATA_OFFSET;
                    if remaining == 0 {
                        self.state = State::Header;
                        return Ok(Some(Piece::Data { stream, channel, offset, bytes: Bytes::new() }));
                    }
                    self.state = State::Data { stream, channel, offset, remaining };
                }
                State::Data { stream, channel, offset, remaining } => {
                    let take = remaining.min(input.len());
                    if take == 0 {
                        return Ok(None);
                    }
                    let bytes = input.split_to(take).freeze();
                    self.state = if take == remaining {
                        State::Header
                    } else {
                        // An offset at the very end of the range is the channel's to refuse, before it is used.
                        State::Data {
                            stream,
                            channel,
                            offset: offset.wrapping_add(take as u64),
                            remaining: remaining - take,
                        }
                    };
                    return Ok(Some(Piece::Data { stream, channel, offset, bytes }));
                }
                State::Control { kind, channel, length } => {
                    if input.len() < length {
                        return Ok(None);
                    }
                    self.state = State::Header;
                    return Ok(Some(Piece::Control { kind, channel, body: input.split_to(length).freeze() }));
                }
                State::Skip { code, remaining } => {
                    let take = remaining.min(input.len());
                    input.advance(take);
                    if take < remaining {
                        self.state = State::Skip { code, remaining: remaining - take };
                        return Ok(None);
                    }
                    self.state = State::Header;
                    return Ok(Some(Piece::Ignored { code }));
                }
            }
        }
    }

    fn open(&self, length: u32, code: u8, channel: u32) -> Result<State, Fault> {
        let size = length as usize;
        let Some(kind) = Kind::from_code(code) else {
            return if code < FIRST_IGNORABLE {
                Err(Fault::UnknownKind(code))
            } else if size > limits::CONTROL_SMALL {
                Err(Fault::FrameTooLong { kind: code, length, limit: limits::CONTROL_SMALL })
            } else {
                Ok(State::Skip { code, remaining: size })
            };
        };
        let limit = kind.body_limit(self.control_limit);
        if size > limit {
            return Err(Fault::FrameTooLong { kind: code, length, limit });
        }
        match kind.stream() {
            Some(_) if size < limits::DATA_OFFSET => Err(Fault::FrameTooShort(length)),
            Some(stream) => Ok(State::Offset { stream, channel, length: size }),
            None => Ok(State::Control { kind, channel, length: size }),
        }
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new()
    }
}
