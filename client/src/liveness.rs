//! Whether the host is still there. TCP's keepalive finds a machine that is gone; a server that is frozen on a machine that lives
//! answers those probes, and would be waited for without end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// After so long without a word the host is asked.
const QUIET: Duration = Duration::from_secs(15);
/// So long it may take to answer: more than its own longest stall, a command that lies on a dead file system.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);

/// The longest silence of a host that is waited for: it may have answered an earlier question at once.
pub const SILENCE: Duration = Duration::from_secs(QUIET.as_secs() + 2 * ANSWER.as_secs());

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulse {
    /// Ask the host for an answer.
    Ask,
    /// It has not answered.
    Gone,
}

/// Watches for a silence.
pub(crate) struct Liveness {
    timer: Pin<Box<Sleep>>,
    heard: bool,
    asked: bool,
}

impl Liveness {
    pub(crate) fn new() -> Self {
        Liveness { timer: Box::pin(sleep_until(Instant::now() + QUIET)), heard: false, asked: false }
    }

    /// To be called whenever something was heard, or nothing is expected. Looked at when the timer rings: it is called for every
    /// frame, and setting a timer anew would cost more than all the rest.
    pub(crate) fn rest(&mut self) {
        self.heard = true;
    }

    /// Ready when something is to be done; to be polled again then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pulse> {
        loop {
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Periods are counted from now and not from when one was due: this process may have been stopped meanwhile.
            if std::mem::take(&mut self.heard) {
                self.asked = false;
                self.timer.as_mut().reset(Instant::now() + QUIET);
                continue;
            }
            self.timer.as_mut().reset(Instant::now() + ANSWER);
            return Poll::Ready(if std::mem::replace(&mut self.asked, true) {
                Pulse::Gone
            } else {
                Pulse::Ask
            });
        }
    }
}
