//! Our end of the input pipe: from the queue, without copying, into the command's pipe and the digest.

use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::input::InputQueue;
use crate::outcome::InputEnd;
use crate::reader::Turn;
use crate::sys;
use crate::terminal;

/// Writes in one turn.
const WRITES_PER_TURN: usize = 16;

/// Pieces in one writev(2).
const PIECES: usize = 16;

/// Bytes a pipe is enlarged to once its reader is slower than we are.
const LARGE_PIPE_BYTES: usize = 512 * 1024;

/// A pipe that is only registered with the reactor once it was full: most commands get little input or none.
enum Pipe {
    Plain(OwnedFd),
    Registered(AsyncFd<OwnedFd>),
    Closed,
}

/// The input stream of a job, for its driver.
pub(crate) struct Writer {
    pipe: Pipe,
    is_terminal: bool,
    written: u64,
    digest: blake3::Hasher,
    closed_early: bool,
}

impl Writer {
    /// `pipe` doesn't block.
    pub(crate) fn new(pipe: OwnedFd, is_terminal: bool) -> Self {
        Writer {
            pipe: Pipe::Plain(pipe),
            is_terminal,
            written: 0,
            digest: blake3::Hasher::new(),
            closed_early: false,
        }
    }

    /// What it came to.
    pub(crate) fn end(&self) -> InputEnd {
        InputEnd {
            length: self.written,
            blake3: *self.digest.finalize().as_bytes(),
            closed_early: self.closed_early,
        }
    }

    /// The command no longer reads. Whether that is news.
    pub(crate) fn close(&mut self, input: &mut InputQueue) -> bool {
        let was_open = !matches!(self.pipe, Pipe::Closed);
        if was_open {
            self.pipe = Pipe::Closed;
            self.closed_early |= input.close();
        }
        was_open
    }

    /// Writes what fits.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>, input: &mut InputQueue, turn: &mut Turn) {
        for _ in 0..WRITES_PER_TURN {
            if matches!(self.pipe, Pipe::Closed) {
                return;
            }
            if input.is_complete() {
                self.end_input();
                return;
            }
            if input.is_empty() {
                return;
            }
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut used = 0;
            for (slot, piece) in pieces.iter_mut().zip(input.pieces()) {
                *slot = IoSlice::new(piece);
                used += 1;
            }
            let pieces = pieces.get(..used).unwrap_or_default();
            let (result, mut guard) = match &self.pipe {
                Pipe::Closed => return,
                Pipe::Plain(pipe) => (rustix::io::writev(pipe, pieces), None),
                Pipe::Registered(pipe) => match pipe.poll_write_ready(cx) {
                    Poll::Pending => return,
                    Poll::Ready(Err(_)) => (Err(Errno::PIPE), None),
                    Poll::Ready(Ok(guard)) => (rustix::io::writev(pipe.get_ref(), pieces), Some(guard)),
                },
            };
            match result {
                Ok(n) => {
                    let digest = &mut self.digest;
                    input.advance(n, |piece| {
                        digest.update(piece);
                    });
                    self.written += n as u64;
                    turn.changed = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => match &mut guard {
                    Some(guard) => guard.clear_ready(),
                    None => self.register(input, turn),
                },
                // EPIPE, or whatever else means that no more can be written.
                Err(_) => {
                    turn.changed |= self.close(input);
                    return;
                }
            }
        }
        turn.again = true;
    }

    /// The command has all its input, and reads the end behind it.
    fn end_input(&mut self) {
        // Closing our end of a terminal would hang it up.
        match (&self.pipe, self.is_terminal) {
            (Pipe::Plain(pipe), true) => terminal::end_input(pipe),
            (Pipe::Registered(pipe), true) => terminal::end_input(pipe.get_ref()),
            _ => {}
        }
        self.pipe = Pipe::Closed;
    }

    /// Has the reactor watch a pipe that was full, and makes it larger.
    fn register(&mut self, input: &mut InputQueue, turn: &mut Turn) {
        if let Pipe::Plain(pipe) = std::mem::replace(&mut self.pipe, Pipe::Closed) {
            // Refused to users who have many large pipes already (pipe(7)): then it stays as it is.
            if !self.is_terminal {
                let _ = rustix::pipe::fcntl_setpipe_size(&pipe, LARGE_PIPE_BYTES);
            }
            match sys::watch(pipe, tokio::io::Interest::WRITABLE) {
                Ok(pipe) => self.pipe = Pipe::Registered(pipe),
                Err(error) => {
                    tracing::warn!(%error, "watching a job's input failed");
                    self.closed_early |= input.close();
                    turn.changed = true;
                }
            }
        }
    }
}
