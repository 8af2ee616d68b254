//! The plain wires, as a client: one connection, and a request with its reply at a time.
//!
//! [`Exchange::begin`] connects and asks; [`Exchange::next`] gives the reply piece by piece, as it comes, in constant memory: who
//! doesn't ask for the next piece holds the peer back. Once a reply is complete [`Exchange::ask`] asks again. An exchange that is
//! dropped before its reply is complete resets the connection, which ends the command on a remora server; an orderly close
//! would only say that no more requests come.

mod request;

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use remora_wire::plain::{Decoder, Event, Wire};
use rustix::net::sockopt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

pub use remora_wire::plain::{
    EndedBy, Ending, Fault, Header, Part, Streams, Verdict, Verdicts, safe_file_name,
};
pub use request::{PlainRequestError, plain_request};

use crate::connect::{Observer, Step};
use crate::dial::{self, DialError};
use crate::outcome::Class;
use crate::target::Plain;

/// Bytes read at once.
const READ: usize = 64 * 1024;

/// How a client of the `raw` wire finds the end of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawEnd {
    /// It half-closes and reads until the peer closes. Exact, where the peer answers after the end of its input and
    /// closes then, as a remora server does.
    HalfClose,
    /// It takes this long without a byte, after the first one, for the end. A guess: a command that pauses longer is cut
    /// off. For peers that hang up on a half-closed connection, or never do.
    Silence(Duration),
}

impl RawEnd {
    /// The guess that is usual.
    pub const GUESS: RawEnd = RawEnd::Silence(Duration::from_millis(500));
}

pub use remora_net::{Direction, Tap};

/// How an exchange is made.
#[derive(Clone)]
pub struct PlainOptions {
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a peer may be silent in the middle of a reply whose length it announced: the command is over by then, so
    /// silence means that the peer is stuck. Before a reply begins there is no limit: commands take their time.
    pub stall: Duration,
    /// How the end of a `raw` reply is found.
    pub raw_end: RawEnd,
    /// Told what happens when.
    pub observer: Option<Observer>,
    /// Told what travels.
    pub tap: Option<Tap>,
}

impl Default for PlainOptions {
    /// 10 s to connect, 30 s of silence, half-closing, and nobody to tell.
    fn default() -> Self {
        PlainOptions {
            connect_timeout: dial::DIAL_TIMEOUT,
            stall: Duration::from_secs(30),
            raw_end: RawEnd::HalfClose,
            observer: None,
            tap: None,
        }
    }
}

/// Why a reply isn't there, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlainError {
    /// No connection; nothing was sent.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke, by a reset for one.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// The peer's bytes make no sense, or stop half-way.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The peer stopped sending in the middle of a reply, and didn't close.
    #[error("the peer stopped half-way and sent nothing for {0:?}")]
    Stalled(Duration),
    /// Nothing can be asked here any more: the peer closed the connection behind its last reply. Nothing was sent.
    #[error("the peer closed the connection between two requests")]
    Closed,
}

impl PlainError {
    /// How an exit status tells it.
    pub fn class(&self) -> Class {
        match self {
            PlainError::Dial(_) => Class::Unreachable,
            PlainError::Fault(fault) if !fault.is_cut() => Class::Incompatible,
            PlainError::Fault(_) | PlainError::Lost(_) | PlainError::Stalled(_) | PlainError::Closed => {
                Class::Lost
            }
        }
    }
}

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// On `length`, a reply of so many bytes begins.
    Length(u64),
    /// On `header`, a reply begins.
    Header(Box<Header>),
    /// Bytes; never empty.
    Payload {
        /// Which stream they are of, where that is known.
        part: Part,
        /// The bytes.
        bytes: Bytes,
    },
    /// The reply is complete; nothing follows.
    Done(Done),
}

/// What is known at the end of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Done {
    /// What its digests came to.
    pub verdicts: Verdicts,
    /// The end was guessed by silence.
    pub guessed: bool,
    /// Bytes that came behind the end, in the same read, and belong to nothing.
    pub behind: usize,
}

/// A connection, with the request that was asked last and its reply.
pub struct Exchange {
    stream: TcpStream,
    decoder: Decoder,
    wire: Wire,
    stall: Duration,
    raw_end: RawEnd,
    tap: Option<Tap>,
    unsent: Bytes,
    input: BytesMut,
    begun: bool,
    done: bool,
    /// The peer sends no more.
    closed: bool,
}

impl Exchange {
    /// Connects. The request is sent while the reply is asked for.
    ///
    /// # Errors
    /// [`PlainError::Dial`].
    pub async fn begin(
        wire: Plain,
        host: &str,
        port: u16,
        request: Vec<u8>,
        options: &PlainOptions,
    ) -> Result<Self, PlainError> {
        let mut exchange = Exchange::open(wire, host, port, options).await?;
        exchange.ask(request)?;
        Ok(exchange)
    }

    /// Connects, and asks nothing yet.
    ///
    /// # Errors
    /// [`PlainError::Dial`].
    pub async fn open(
        wire: Plain,
        host: &str,
        port: u16,
        options: &PlainOptions,
    ) -> Result<Self, PlainError> {
        let tell = |step| {
            if let Some(observer) = &options.observer {
                observer(step);
            }
        };
        let addresses = dial::resolve(host, port).await?;
        tell(Step::Resolved(addresses.clone()));
        let (stream, address) = dial::tcp(&addresses, options.connect_timeout).await?;
        tell(Step::Connected(address));
        // A peer that vanished without a word is noticed while a long command is waited for. Best effort.
        let _ = remora_net::tune(&stream);
        let wire = match wire {
            Plain::Raw => Wire::Raw,
            Plain::Length => Wire::Length,
            Plain::Header => Wire::Header,
        };
        Ok(Exchange {
            stream,
            decoder: Decoder::new(wire),
            wire,
            stall: options.stall,
            raw_end: options.raw_end,
            tap: options.tap.clone(),
            unsent: Bytes::new(),
            input: BytesMut::new(),
            begun: false,
            done: true,
            closed: false,
        })
    }

    /// Asks, on the same connection as before. What is left of the reply before, were it not complete, would be taken for the new
    /// one's: this is for after [`Piece::Done`]. On `raw` with [`RawEnd::HalfClose`] only one request can be asked.
    ///
    /// # Errors
    /// [`PlainError::Closed`]; nothing was sent.
    pub fn ask(&mut self, request: Vec<u8>) -> Result<(), PlainError> {
        if self.closed {
            return Err(PlainError::Closed);
        }
        self.decoder = Decoder::new(self.wire);
        // Whatever came behind the last reply belonged to nothing, and was told.
        self.input.clear();
        self.unsent = request.into();
        self.begun = false;
        self.done = false;
        Ok(())
    }

    /// Waits, while nothing is asked, until the peer closes the connection, or it breaks. What comes unasked is left for the next reply.
    pub async fn closed(&self) {
        let mut byte = [0];
        if let Ok(1..) = self.stream.peek(&mut byte).await {
            std::future::pending().await
        }
    }

    /// The next piece of the reply; none once [`Piece::Done`] was given.
    ///
    /// # Errors
    /// [`PlainError`]; what was given so far is not all of the reply.
    pub async fn next(&mut self) -> Result<Option<Piece>, PlainError> {
        loop {
            if self.done {
                return Ok(None);
            }
            if let Some(event) = self.decoder.next(&mut self.input)? {
                return Ok(Some(match event {
                    Event::Length(length) => Piece::Length(length),
                    Event::Header(header) => Piece::Header(header),
                    Event::Payload { part, bytes } => Piece::Payload { part, bytes },
                    Event::Done(verdicts) => self.finish(verdicts, false),
                }));
            }
            if let Some(piece) = self.drive().await? {
                return Ok(Some(piece));
            }
        }
    }

    /// What the digests come to when the reply is given up here.
    pub fn unchecked(&self) -> Verdicts {
        self.decoder.unchecked()
    }

    fn finish(&mut self, verdicts: Verdicts, guessed: bool) -> Piece {
        self.done = true;
        Piece::Done(Done { verdicts, guessed, behind: self.input.len() })
    }

    /// Moves bytes in one direction or the other; gives the end where silence or the peer makes it.
    async fn drive(&mut self) -> Result<Option<Piece>, PlainError> {
        let (patience, guess) = match (self.wire, self.raw_end) {
            (Wire::Raw, RawEnd::Silence(silence)) => (Some(silence), true),
            (Wire::Raw, RawEnd::HalfClose) => (None, false),
            (Wire::Length | Wire::Header, _) => (Some(self.stall), false),
        };
        let patience = patience.filter(|_| self.begun && self.unsent.is_empty());
        // A far future that is never waited for, where there is no limit.
        let limit =
            patience.and_then(|patience| Instant::now().checked_add(patience)).unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            ready = self.stream.readable() => ready.map_err(PlainError::Lost)?,
            ready = self.stream.writable(), if !self.unsent.is_empty() => {
                ready.map_err(PlainError::Lost)?;
                self.send().await;
                return Ok(None);
            }
            () = sleep_until(limit), if patience.is_some() => {
                if guess {
                    return Ok(Some(self.finish(Verdicts::ABSENT, true)));
                }
                return Err(PlainError::Stalled(self.stall));
            }
        }
        self.input.reserve(READ);
        let before = self.input.len();
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => {
                self.closed = true;
                let verdicts = self.decoder.handle_end(self.input.len())?;
                Ok(Some(self.finish(verdicts, false)))
            }
            Ok(_) => {
                self.begun = true;
                if let Some(tap) = &self.tap {
                    tap(Direction::Received, self.input.get(before..).unwrap_or_default());
                }
                Ok(None)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(None)
            }
            Err(error) => Err(PlainError::Lost(error)),
        }
    }

    async fn send(&mut self) {
        match self.stream.try_write(&self.unsent) {
            Ok(count) => {
                let sent = self.unsent.split_to(count);
                if let Some(tap) = &self.tap {
                    tap(Direction::Sent, &sent);
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // A peer may answer before it has read everything; whether it did is what reading tells.
            Err(_) => self.unsent.clear(),
        }
        if self.unsent.is_empty() && self.wire == Wire::Raw && self.raw_end == RawEnd::HalfClose {
            let _ = self.stream.shutdown().await;
        }
    }
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("wire", &self.wire).field("done", &self.done).finish_non_exhaustive()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.done {
            let _ = sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
        }
    }
}
