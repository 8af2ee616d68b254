//! Cuts replies out of the bytes of a connection.

use bytes::{Buf, Bytes, BytesMut};

use super::Wire;
use super::digest::{Check, Verdicts};
use super::fault::Fault;
use super::header::{Header, Streams};
use crate::limits;

/// Length of what says how long the next thing is, bytes.
const LENGTH: usize = 4;

/// What bytes of a payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// stdout, then stderr, and nothing says where one ends.
    Both,
    /// stdout.
    Stdout,
    /// stderr.
    Stderr,
}

/// Something to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// On `length`, a reply of so many bytes begins.
    Length(u64),
    /// On `header`, a reply begins.
    Header(Box<Header>),
    /// Bytes of the payload; never empty.
    Payload {
        /// Which stream they are of, where that is known.
        part: Part,
        /// The bytes.
        bytes: Bytes,
    },
    /// The reply is complete. On `raw`, only the end of the connection says so.
    Done(Verdicts),
}

/// Reads replies, one behind the other. Keeps at most a header; the bytes of a payload are handed out as they come.
#[derive(Debug)]
pub struct Decoder {
    wire: Wire,
    state: State,
}

#[derive(Debug)]
enum State {
    /// `raw`: everything is payload.
    Unframed { got: u64 },
    /// Before a reply's length, or inside it.
    Length,
    /// Inside the object.
    Object { length: usize },
    /// Inside the payload.
    Payload { total: u64, got: u64, streams: Option<Streams>, check: Check },
}

impl Decoder {
    /// A decoder in front of a reply.
    pub fn new(wire: Wire) -> Self {
        let state = match wire {
            Wire::Raw => State::Unframed { got: 0 },
            Wire::Length | Wire::Header => State::Length,
        };
        Decoder { wire, state }
    }

    /// Takes the next event out of `input`; none when more bytes are needed.
    ///
    /// # Errors
    /// [`Fault`], and never one that [is a cut](Fault::is_cut). The bytes are unusable afterwards.
    pub fn next(&mut self, input: &mut BytesMut) -> Result<Option<Event>, Fault> {
        match &mut self.state {
            State::Unframed { got } => {
                if input.is_empty() {
                    return Ok(None);
                }
                *got += input.len() as u64;
                Ok(Some(Event::Payload { part: Part::Both, bytes: input.split().freeze() }))
            }
            State::Length => {
                if input.len() < LENGTH {
                    return Ok(None);
                }
                let length = input.get_i32_le();
                let length = u32::try_from(length).map_err(|_| Fault::NegativeLength(length))?;
                if self.wire == Wire::Length {
                    self.state = payload(u64::from(length), None, Check::new(None, None));
                    return Ok(Some(Event::Length(u64::from(length))));
                }
                let limit = limits::PLAIN_HEADER;
                if length as usize > limit {
                    return Err(Fault::HeaderTooLong { length, limit });
                }
                self.state = State::Object { length: length as usize };
                self.next(input)
            }
            State::Object { length } => {
                if input.len() < *length {
                    return Ok(None);
                }
                let header = Header::parse(&input.split_to(*length))?;
                self.state =
                    payload(header.total_size, header.streams, Check::new(header.md5, header.blake3));
                Ok(Some(Event::Header(Box::new(header))))
            }
            State::Payload { total, got, streams, check } => {
                if *got == *total {
                    let verdicts = check.finish();
                    self.state = State::Length;
                    return Ok(Some(Event::Done(verdicts)));
                }
                let (part, end) = match streams {
                    None => (Part::Both, *total),
                    Some(streams) if *got < streams.stdout => (Part::Stdout, streams.stdout),
                    Some(_) => (Part::Stderr, *total),
                };
                let take = usize::try_from(end - *got).unwrap_or(usize::MAX).min(input.len());
                if take == 0 {
                    return Ok(None);
                }
                *got += take as u64;
                let bytes = input.split_to(take).freeze();
                check.update(&bytes);
                Ok(Some(Event::Payload { part, bytes }))
            }
        }
    }

    /// Whether the next byte begins a reply.
    pub fn at_border(&self) -> bool {
        matches!(self.state, State::Length | State::Unframed { got: 0 })
    }

    /// The verdicts of a reply that is given up here.
    pub fn unchecked(&self) -> Verdicts {
        match &self.state {
            State::Payload { check, .. } => check.unchecked(),
            State::Unframed { .. } | State::Length | State::Object { .. } => Verdicts::ABSENT,
        }
    }

    /// The peer has ended its bytes, and `rest` of them are left that [`Decoder::next`] could do nothing with: what that
    /// means for the reply that was waited for.
    ///
    /// # Errors
    /// A [`Fault`] that [is a cut](Fault::is_cut), unless the wire is `raw`, where the end is the only border there is.
    pub fn handle_end(&self, rest: usize) -> Result<Verdicts, Fault> {
        let rest = rest as u64;
        match &self.state {
            State::Unframed { .. } => Ok(Verdicts::ABSENT),
            State::Length if rest == 0 => Err(Fault::NoReply),
            State::Length => Err(Fault::CutLength { got: rest }),
            State::Object { length } => Err(Fault::CutHeader { got: rest, expected: *length as u64 }),
            State::Payload { total, got, .. } => Err(Fault::CutPayload { got: got + rest, expected: *total }),
        }
    }
}

fn payload(total: u64, streams: Option<Streams>, check: Check) -> State {
    State::Payload { total, got: 0, streams, check }
}
