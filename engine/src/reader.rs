//! Our end of an output pipe: from read(2) straight into the ring, then into the digest.

use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use std::time::Instant;

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

use crate::coalesce::Coalesce;
use crate::config::DrainRule;
use crate::drain::{DrainClock, Verdict};
use crate::outcome::OutputEnd;
use crate::state::OutputState;

/// Reads in one turn, so that one job doesn't hold up the others of its thread.
const READS_PER_TURN: usize = 16;

/// Bytes a pipe holds unless told (pipe(7)).
const PIPE_BYTES: usize = 64 * 1024;

/// Bytes a pipe is enlarged to once its writer keeps it full: fewer turns between writer and reader.
const LARGE_PIPE_BYTES: usize = 512 * 1024;

/// Bytes of the buffer on the stack for what is read and not kept.
const SCRATCH: usize = 16 * 1024;

/// What the streams of a job share in one turn.
pub(crate) struct Turn {
    pub(crate) now: Instant,
    /// The process is over.
    pub(crate) exited: bool,
    /// The drain clock counts.
    pub(crate) draining: bool,
    /// Nothing is kept any more.
    pub(crate) discard: bool,
    /// Bytes of output the job may still print.
    pub(crate) allowance: Option<u64>,
    /// It printed more.
    pub(crate) exceeded: bool,
    /// It printed more than may be kept, and is to end for it.
    pub(crate) overflowed: bool,
    /// An observer should look.
    pub(crate) changed: bool,
    /// There is more to do at once.
    pub(crate) again: bool,
    /// When to look again.
    pub(crate) next: Option<Instant>,
}

impl Turn {
    /// Has the driver look again at `at`, or earlier.
    pub(crate) fn look_at(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

/// Where a turn's reading stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// The pipe is empty, and we will be woken.
    Empty,
    /// The window is full.
    Full,
    /// The turn is over, the pipe may not be empty.
    Busy,
    /// The end.
    Ended,
}

/// One output stream of a job, for its driver.
pub(crate) struct Reader {
    pipe: Option<AsyncFd<OwnedFd>>,
    /// It is a terminal's end, which gives a few KiB at a time whatever waits (tty(4)), and `EIO` for its end.
    is_terminal: bool,
    digest: blake3::Hasher,
    clock: DrainClock,
    /// Bytes that were in the pipe when its time was spent: they are read yet, and no more.
    rest: Option<u64>,
    large: bool,
    coalesce: Coalesce,
    held_open: bool,
    closed_early: bool,
    cut: bool,
}

impl Reader {
    /// The reader of a pipe's or terminal's end; `None` is a stream that is over.
    pub(crate) fn new(pipe: Option<AsyncFd<OwnedFd>>, rule: DrainRule, is_terminal: bool) -> Self {
        Reader {
            pipe,
            is_terminal,
            digest: blake3::Hasher::new(),
            clock: DrainClock::new(rule),
            rest: None,
            large: false,
            coalesce: Coalesce::default(),
            held_open: false,
            closed_early: false,
            cut: false,
        }
    }

    /// Whether nothing more comes from it.
    pub(crate) fn is_over(&self) -> bool {
        self.pipe.is_none()
    }

    /// What it came to.
    pub(crate) fn end(&self, length: u64) -> OutputEnd {
        OutputEnd {
            length,
            blake3: *self.digest.finalize().as_bytes(),
            held_open: self.held_open,
            closed_early: self.closed_early,
            cut: self.cut,
        }
    }

    /// Reads what there is. Returns the pipe if the drain rule gives it up: somebody else holds it open.
    pub(crate) fn drive(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut OutputState,
        turn: &mut Turn,
    ) -> Option<AsyncFd<OwnedFd>> {
        self.pipe.as_ref()?;
        if output.close {
            self.closed_early = true;
            self.over(output, turn);
            return None;
        }
        // The process's end is waited for by nobody's pause.
        if !turn.exited
            && let Some(until) = self.coalesce.pause(turn.now)
        {
            turn.look_at(until);
            return None;
        }
        let mut taken = 0;
        let flow = self.read_on(cx, output, turn, &mut taken);
        if flow == Flow::Ended {
            self.over(output, turn);
            return None;
        }
        turn.again |= flow == Flow::Busy;
        if flow == Flow::Empty && taken > 0 && self.coalesce.handle_read(turn.now, taken) {
            self.enlarge();
            turn.again = true;
        }
        if turn.draining && self.is_given_up(flow, taken > 0, turn) {
            self.held_open = true;
            let pipe = self.pipe.take();
            self.over(output, turn);
            return pipe;
        }
        None
    }

    /// The command was given input.
    pub(crate) fn handle_input(&mut self) {
        self.coalesce.handle_input();
    }

    /// Gives the writer more room, once.
    fn enlarge(&mut self) {
        if let (false, false, Some(pipe)) = (self.large, self.is_terminal, &self.pipe) {
            // Refused to users who have many large pipes already (pipe(7)): then it stays as it is.
            self.large = true;
            let _ = rustix::pipe::fcntl_setpipe_size(pipe.get_ref(), LARGE_PIPE_BYTES);
        }
    }

    /// Asks the drain clock.
    fn is_given_up(&mut self, flow: Flow, progress: bool, turn: &mut Turn) -> bool {
        if let Some(rest) = self.rest {
            return rest == 0 || flow == Flow::Empty;
        }
        if flow == Flow::Full {
            self.clock.pause(turn.now);
            return false;
        }
        match self.clock.run(turn.now, progress) {
            Verdict::Until(at) => {
                turn.look_at(at);
                false
            }
            // Bytes came in this very turn, or wait: it isn't quiet.
            Verdict::Quiet => flow == Flow::Empty,
            Verdict::Spent if flow == Flow::Empty => true,
            Verdict::Spent => {
                let waiting =
                    self.pipe.as_ref().and_then(|pipe| rustix::io::ioctl_fionread(pipe.get_ref()).ok());
                self.rest = waiting;
                waiting.unwrap_or(0) == 0
            }
        }
    }

    /// The stream ends here.
    fn over(&mut self, output: &mut OutputState, turn: &mut Turn) {
        self.pipe = None;
        output.ended = true;
        turn.changed = true;
    }

    fn read_on(
        &mut self,
        cx: &mut Context<'_>,
        output: &mut OutputState,
        turn: &mut Turn,
        taken: &mut u64,
    ) -> Flow {
        let Reader { pipe: Some(pipe), digest, rest, large, cut, is_terminal, .. } = self else {
            return Flow::Ended;
        };
        let mut scratch = [0; SCRATCH];
        for _ in 0..READS_PER_TURN {
            let probing = turn.allowance == Some(0);
            let wanted = !turn.discard && !turn.exceeded && !probing;
            let room = output.cap.map(|cap| cap.room(output.ring.end(), turn.exited));
            let capped = wanted && room == Some(0);
            let keep = wanted && !capped;
            if keep && output.ring.is_full() {
                return Flow::Full;
            }
            if *rest == Some(0) {
                return Flow::Busy;
            }
            let mut guard = match pipe.poll_read_ready(cx) {
                Poll::Ready(Ok(guard)) => Some(guard),
                Poll::Ready(Err(_)) => return Flow::Ended,
                // Once the process is over, what is in the pipe is read before any clock is asked, event or not.
                Poll::Pending if turn.exited => None,
                Poll::Pending => return Flow::Empty,
            };
            if let (true, false, Some(cap)) = (capped, turn.exited, &mut output.cap)
                && !cap.ends
            {
                match (rustix::io::ioctl_fionread(pipe.get_ref()), &mut guard) {
                    (Ok(0), Some(guard)) if !*is_terminal => {
                        if guard.ready().is_read_closed() {
                            return Flow::Ended;
                        }
                        guard.clear_ready();
                        continue;
                    }
                    _ => {
                        cap.reached = true;
                        return Flow::Full;
                    }
                }
            }
            let most = rest.unwrap_or(u64::MAX).min(turn.allowance.filter(|_| keep).unwrap_or(u64::MAX));
            let most = most.min(room.filter(|_| keep).unwrap_or(u64::MAX));
            let most = usize::try_from(most).unwrap_or(usize::MAX);
            let space = if keep {
                output.ring.space(most)
            } else {
                scratch.get_mut(..most.min(SCRATCH)).unwrap_or_default()
            };
            let room = space.len();
            match rustix::io::read(pipe.get_ref(), space) {
                Ok(0) => return Flow::Ended,
                Ok(n) => {
                    if keep {
                        digest.update(output.ring.commit(n));
                        turn.changed = true;
                        turn.allowance = turn.allowance.map(|left| left.saturating_sub(n as u64));
                    } else if let (true, Some(cap)) = (capped, &mut output.cap) {
                        cap.reached = true;
                        turn.overflowed |= cap.ends;
                        *cut = true;
                    } else if !turn.discard {
                        turn.exceeded = true;
                        *cut = true;
                    } else {
                        *cut |= turn.allowance == Some(0);
                    }
                    *rest = rest.map(|left| left.saturating_sub(n as u64));
                    *taken += n as u64;
                    if n == room {
                        if keep {
                            output.ring.grow();
                        }
                    } else if let (false, Some(guard)) = (*is_terminal, &mut guard) {
                        // Less than asked for: the pipe was empty then, and the next byte is a new event.
                        guard.clear_ready();
                    }
                    if !*large && !*is_terminal && *taken > PIPE_BYTES as u64 {
                        // Refused to users who have many large pipes already (pipe(7)): then it stays as it is.
                        *large = true;
                        let _ = rustix::pipe::fcntl_setpipe_size(pipe.get_ref(), LARGE_PIPE_BYTES);
                    }
                }
                Err(Errno::AGAIN) => match &mut guard {
                    None => return Flow::Empty,
                    // Every writer was gone at some moment: whoever opened it anew by way of /proc isn't the command.
                    Some(guard) if guard.ready().is_read_closed() && !*is_terminal => return Flow::Ended,
                    Some(guard) => guard.clear_ready(),
                },
                Err(Errno::INTR) => {}
                Err(Errno::IO) if *is_terminal => return Flow::Ended,
                Err(errno) => {
                    tracing::warn!(%errno, "reading a job's output failed");
                    return Flow::Ended;
                }
            }
        }
        Flow::Busy
    }
}
