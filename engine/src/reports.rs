//! Our end of what a command's leader says: stops, the end, and input that nobody has read.

use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::io::unix::AsyncFd;

use crate::reader::Turn;
use crate::signal::Signal;
use crate::state::State;
use crate::sys::{LONGEST_REPORT, MOST_UNREAD, Report};

/// What one leader says, for its job's driver.
pub(crate) struct Reports {
    socket: Option<AsyncFd<OwnedFd>>,
    /// The command is over, and nothing may be written for it any more.
    is_over: bool,
    /// The leader knows that there is input.
    announced: bool,
    unread: Vec<u8>,
    end: Option<End>,
}

/// What the leader was told when it reaped its command.
#[derive(Clone, Copy)]
pub(crate) struct End {
    /// The raw status.
    pub(crate) status: i32,
    /// Peak resident set in bytes.
    pub(crate) peak_memory: u64,
}

impl Reports {
    pub(crate) fn new(socket: AsyncFd<OwnedFd>) -> Self {
        Reports { socket: Some(socket), is_over: false, announced: false, unread: Vec::new(), end: None }
    }

    /// Whether the command is over: what is queued for it, and what comes yet, goes back to who typed it.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Tells the leader, before the first input is written, that there is some; whether any may be written. Where the leader
    /// doesn't hear it any more its command is over.
    pub(crate) fn announce_input(&mut self) -> bool {
        if !self.announced && !self.is_over {
            self.announced = true;
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            let heard =
                self.socket.as_ref().is_some_and(|socket| send(socket.get_ref(), b"i", flags).is_ok());
            self.is_over = !heard;
        }
        !self.is_over
    }

    /// What the leader was told at the end; `None` where it was killed itself.
    pub(crate) fn end(&self) -> Option<End> {
        self.end
    }

    /// Takes the input that was in the terminal, and was not read.
    pub(crate) fn take_unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    /// Reads what there is.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>, state: &mut State, turn: &mut Turn) {
        let mut packet = [0; LONGEST_REPORT];
        while let Some(socket) = &self.socket {
            let mut guard = match socket.poll_read_ready(cx) {
                Poll::Ready(Ok(guard)) => Some(guard),
                // Once the leader is over all of it is here, event or not.
                Poll::Pending if turn.exited => None,
                Poll::Pending => break,
                Poll::Ready(Err(_)) => {
                    self.socket = None;
                    break;
                }
            };
            let read = recv(socket.get_ref(), &mut packet, RecvFlags::DONTWAIT);
            let length = match read {
                Ok((length, _)) if length > 0 => length,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => match &mut guard {
                    Some(guard) => {
                        guard.clear_ready();
                        continue;
                    }
                    None => break,
                },
                Ok(_) | Err(_) => {
                    self.socket = None;
                    break;
                }
            };
            match packet.get(..length).and_then(Report::parse) {
                Some(Report::Stopped(signal)) => {
                    turn.changed |= set(&mut state.stopped, Signal::from_number(signal));
                }
                Some(Report::Continued) => turn.changed |= set(&mut state.stopped, None),
                Some(Report::Over) => {
                    self.is_over = true;
                    turn.changed |= set(&mut state.stopped, None);
                    // From now on we write nothing, and the leader may read what is left.
                    let _ = shutdown(socket.get_ref(), Shutdown::Write);
                }
                Some(Report::Unread(bytes)) => {
                    let room = MOST_UNREAD.saturating_sub(self.unread.len()).min(bytes.len());
                    self.unread.extend_from_slice(bytes.get(..room).unwrap_or_default());
                }
                Some(Report::Ended { status, peak_memory }) => self.end = Some(End { status, peak_memory }),
                None => tracing::error!("a command's leader said something odd"),
            }
        }
        if turn.exited {
            self.is_over = true;
            turn.changed |= set(&mut state.stopped, None);
        }
    }
}

/// Sets a value; whether it was another.
fn set(place: &mut Option<Signal>, value: Option<Signal>) -> bool {
    std::mem::replace(place, value) != value
}
