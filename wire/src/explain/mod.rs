//! Explains a captured byte stream, for people: which messages are in it, where each began, and how the reads cut them.
//!
//! [`Explainer`] takes the bytes of one direction and gives lines of text, safe for a terminal. It keeps no more of a message
//! than it shows, whatever the message's length.

mod fields;

use bytes::BytesMut;

use crate::limits;
use crate::native;
use crate::plain::{self, Header};

/// Most bytes shown of a stream or payload.
const PREVIEW: usize = 48;
/// Most characters shown of a message.
const LINE: usize = 2000;

/// What a byte stream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The native wire, without TLS.
    Native,
    /// A plain wire.
    Plain(plain::Wire),
}

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// From the server.
    Server,
    /// From the client.
    Client,
}

/// What is being read.
enum Stage {
    /// A native frame's header.
    FrameHeader,
    /// Its body.
    Frame { code: u8, channel: u32, length: u64 },
    /// The length of a reply, or of its object.
    Length,
    /// The object of a `header` reply.
    Object,
    /// A payload, and what was in front of it.
    Payload { before: String, length: u64 },
    /// Bytes without any frame.
    Unframed,
}

/// The message being read.
struct Message {
    stage: Stage,
    /// Absolute offset of its first byte.
    start: u64,
    /// The read that its first byte came in, from 1.
    first_read: u64,
    /// Whether another message, or its end, came before it in that read.
    stuck: bool,
    /// Bytes of this stage that are still to come.
    remaining: u64,
    /// How many of them to keep.
    keep: usize,
    kept: Vec<u8>,
}

/// Explains the bytes of one direction.
pub struct Explainer {
    protocol: Protocol,
    side: Side,
    reads_known: bool,
    offset: u64,
    read: u64,
    /// Bytes of the current read so far.
    in_read: u64,
    message: Option<Message>,
    malformed: bool,
    cut: bool,
    behind: u64,
}

impl Explainer {
    /// An explainer at the beginning of a stream. Where `reads_known`, [`Explainer::begin_read`] tells where reads begin.
    pub fn new(protocol: Protocol, side: Side, reads_known: bool) -> Self {
        Explainer {
            protocol,
            side,
            reads_known,
            offset: 0,
            read: 0,
            in_read: 0,
            message: None,
            malformed: false,
            cut: false,
            behind: 0,
        }
    }

    /// Whether bytes came that make no sense. Nothing behind them is explained.
    pub fn is_malformed(&self) -> bool {
        self.malformed
    }

    /// Whether the stream stopped half-way; known after [`Explainer::handle_end`].
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The bytes that follow came in another read than those before.
    pub fn begin_read(&mut self, say: &mut dyn FnMut(String)) {
        self.end_unframed(say);
        self.read += 1;
        self.in_read = 0;
    }

    /// Nothing more comes in this read, which is when bytes without frames are told: so requests come before their replies.
    pub fn end_read(&mut self, say: &mut dyn FnMut(String)) {
        self.end_unframed(say);
    }

    /// Takes the next bytes, and says what became complete with them.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], say: &mut dyn FnMut(String)) {
        while !bytes.is_empty() {
            if self.malformed {
                self.behind += bytes.len() as u64;
                return;
            }
            let mut message = self.message.take().unwrap_or_else(|| self.begin_message());
            let take = usize::try_from(message.remaining).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(take);
            bytes = rest;
            let room = message.keep.saturating_sub(message.kept.len());
            message.kept.extend_from_slice(now.get(..room).unwrap_or(now));
            message.remaining -= take as u64;
            self.offset += take as u64;
            self.in_read += take as u64;
            self.message = self.advance(message, say);
        }
    }

    /// The stream has ended: says what is left half-way.
    pub fn handle_end(&mut self, say: &mut dyn FnMut(String)) {
        self.end_unframed(say);
        if self.behind > 0 {
            say(line(self.offset, &format!("{} bytes behind it, unexplained", self.behind)));
        }
        let Some(message) = self.message.take() else { return };
        let here = self.offset - message.start;
        let what = match &message.stage {
            Stage::FrameHeader => format!("{here} of the {} bytes of a frame's header", limits::FRAME_HEADER),
            Stage::Frame { code, channel, length } => {
                let got = length - message.remaining;
                format!("{got} of the {length} bytes of {}, channel {channel}", kind_name(*code))
            }
            Stage::Length => format!("{here} of the 4 bytes of a length"),
            Stage::Object => format!("{} bytes of a header are missing", message.remaining),
            Stage::Payload { before, length } => {
                let got = length - message.remaining;
                let text = preview(&message.kept, got);
                format!("{before}{got} of {length} bytes of a payload: {text}")
            }
            Stage::Unframed => return,
        };
        self.cut = true;
        say(line(message.start, &format!("cut off: {what}{}", self.marks(&message))));
    }

    fn begin_message(&self) -> Message {
        let (stage, remaining, keep) = match (self.protocol, self.side) {
            (Protocol::Native, _) => (Stage::FrameHeader, limits::FRAME_HEADER as u64, limits::FRAME_HEADER),
            (Protocol::Plain(plain::Wire::Raw), _) | (Protocol::Plain(_), Side::Client) => {
                (Stage::Unframed, u64::MAX, PREVIEW)
            }
            (Protocol::Plain(_), Side::Server) => (Stage::Length, 4, 4),
        };
        let stuck = self.in_read > 0;
        Message { stage, start: self.offset, first_read: self.read, stuck, remaining, keep, kept: Vec::new() }
    }

    /// Goes on to the next stage as long as the one before is complete.
    fn advance(&mut self, mut message: Message, say: &mut dyn FnMut(String)) -> Option<Message> {
        while message.remaining == 0 {
            let next = match &message.stage {
                Stage::FrameHeader => frame(&message.kept),
                Stage::Frame { code, channel, length } => {
                    let text = fields::frame(*code, *channel, *length, &message.kept);
                    self.complete(&message, &text, say);
                    return None;
                }
                Stage::Length => self.length(&message.kept),
                Stage::Object => object(&message.kept),
                Stage::Payload { before, length } => {
                    let text = format!("{before}{length} bytes: {}", preview(&message.kept, *length));
                    self.complete(&message, &text, say);
                    return None;
                }
                Stage::Unframed => return None,
            };
            match next {
                Ok((stage, remaining, keep)) => {
                    message.stage = stage;
                    message.remaining = remaining;
                    message.keep = keep;
                    message.kept.clear();
                }
                Err(why) => {
                    self.malformed = true;
                    say(line(
                        message.start,
                        &format!("malformed: {}{}", bounded(&why), self.marks(&message)),
                    ));
                    return None;
                }
            }
        }
        Some(message)
    }

    fn length(&self, bytes: &[u8]) -> Result<(Stage, u64, usize), String> {
        let length = <[u8; 4]>::try_from(bytes).map(i32::from_le_bytes).unwrap_or_default();
        let length = u32::try_from(length).map_err(|_| plain::Fault::NegativeLength(length).to_string())?;
        if self.protocol == Protocol::Plain(plain::Wire::Length) {
            let stage = Stage::Payload { before: "reply, ".to_owned(), length: u64::from(length) };
            return Ok((stage, u64::from(length), PREVIEW));
        }
        let limit = limits::PLAIN_HEADER;
        if length as usize > limit {
            return Err(plain::Fault::HeaderTooLong { length, limit }.to_string());
        }
        Ok((Stage::Object, u64::from(length), limit))
    }

    fn complete(&self, message: &Message, text: &str, say: &mut dyn FnMut(String)) {
        say(line(message.start, &format!("{}{}", bounded(text), self.marks(message))));
    }

    /// What the reads did to a message that ends here.
    fn marks(&self, message: &Message) -> String {
        let mut marks = String::new();
        if self.reads_known {
            if self.read > message.first_read {
                marks = format!("  [split over reads {} to {}]", message.first_read, self.read);
            }
            if message.stuck {
                marks += &format!("  [stuck to the one before it in read {}]", message.first_read);
            }
        }
        marks
    }

    /// Bytes without frames end where a read does: nothing else is known of them.
    fn end_unframed(&mut self, say: &mut dyn FnMut(String)) {
        if let Some(message) = self.message.take_if(|message| matches!(message.stage, Stage::Unframed)) {
            let length = self.offset - message.start;
            let what = if self.side == Side::Client { "request" } else { "reply" };
            let whole = if self.reads_known { format!("read {}", self.read) } else { "all of it".to_owned() };
            let text = format!("{what} bytes without a frame, {whole}, {length} bytes: ");
            say(line(message.start, &(text + &preview(&message.kept, length))));
        }
    }
}

/// The stage behind a frame's header, where it is one.
fn frame(header: &[u8]) -> Result<(Stage, u64, usize), String> {
    // The decoder itself judges it, so that both always agree.
    let mut decoder = native::Decoder::new();
    decoder.set_control_limit(limits::CONTROL);
    if let Err(fault) = decoder.next(&mut BytesMut::from(header)) {
        return Err(fault.to_string());
    }
    let array = |range: std::ops::Range<usize>| header.get(range).and_then(|bytes| bytes.try_into().ok());
    let length = u64::from(array(0..4).map(u32::from_be_bytes).unwrap_or_default());
    let code = header.get(4).copied().unwrap_or_default();
    let channel = array(5..9).map(u32::from_be_bytes).unwrap_or_default();
    let is_data = native::Kind::from_code(code).is_some_and(|kind| kind.stream().is_some());
    let keep = if is_data { limits::DATA_OFFSET + PREVIEW } else { limits::CONTROL };
    Ok((Stage::Frame { code, channel, length }, length, keep))
}

fn object(bytes: &[u8]) -> Result<(Stage, u64, usize), String> {
    let header = Header::parse(bytes).map_err(|fault| fault.to_string())?;
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    for c in text.chars() {
        // JSON is full of quotes, and they do no harm.
        if matches!(c, '"' | '\'' | '\\') { shown.push(c) } else { shown.extend(c.escape_debug()) }
    }
    let before = format!("reply, header of {} bytes {shown}, then ", bytes.len());
    Ok((Stage::Payload { before, length: header.total_size }, header.total_size, PREVIEW))
}

fn kind_name(code: u8) -> String {
    native::Kind::from_code(code).map_or_else(|| format!("kind {code:#04x}"), |kind| kind.to_string())
}

/// The first bytes of `length`, escaped.
fn preview(bytes: &[u8], length: u64) -> String {
    let shown = bytes.get(..PREVIEW).unwrap_or(bytes);
    let more = if length > shown.len() as u64 { "…" } else { "" };
    format!("\"{}\"{more}", shown.escape_ascii())
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}… ({} bytes more)", text.get(..end).unwrap_or(text), text.len() - end),
        None => text.to_owned(),
    }
}

fn line(offset: u64, text: &str) -> String {
    format!("{offset:>8}  {text}")
}
