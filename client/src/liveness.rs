//! Whether the host is still there. TCP's keepalive finds a machine that is gone; a server that is frozen on a machine that lives
//! answers those probes, and would be waited for without end.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::outage::{Heartbeat, Lasting};

/// After so long without a word the host is asked.
const QUIET: Duration = Duration::from_secs(15);
/// So long it may take to answer: more than its own longest stall, a command that lies on a dead file system.
const ANSWER: Duration = Duration::from_secs(30);
/// Both, where a loss isn't the end: a dead link is to be noticed within a few seconds, and a false alarm costs a moment.
const BEAT: Duration = Duration::from_secs(3);

/// The longest silence of a host that is waited for, where a loss is the end: it may have answered an earlier question at once.
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
    quiet: Duration,
    answer: Duration,
    off: bool,
    heard: bool,
    /// When something was last heard, to the turn of the connection's task.
    last: Instant,
    asked: bool,
}

impl Liveness {
    pub(crate) fn new(lasting: &Lasting) -> Self {
        let (quiet, answer) = match lasting.heartbeat {
            Heartbeat::Every(time) => (time, time),
            Heartbeat::Usual if lasting.reconnect > Duration::ZERO => (BEAT, BEAT),
            Heartbeat::Usual | Heartbeat::Off => (QUIET, ANSWER),
        };
        let off = matches!(lasting.heartbeat, Heartbeat::Off | Heartbeat::Every(Duration::ZERO));
        let last = Instant::now();
        let timer = Box::pin(sleep_until(last + quiet));
        Liveness { timer, quiet, answer, off, heard: false, last, asked: false }
    }

    /// How long an answer may take.
    pub(crate) fn answer(&self) -> Duration {
        self.answer
    }

    /// For how long nothing was heard that was expected.
    pub(crate) fn silence(&self) -> Duration {
        self.last.elapsed()
    }

    /// To be called whenever something was heard, or nothing is expected. The clock is read once a turn, and the timer set when it
    /// rings: this is called for every frame, and either would cost more than all the rest.
    pub(crate) fn rest(&mut self) {
        self.heard = true;
    }

    /// Ready when something is to be done; to be polled again then.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pulse> {
        loop {
            if std::mem::take(&mut self.heard) {
                self.last = Instant::now();
                self.asked = false;
            }
            if self.off || self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            let due = self.last + self.quiet;
            if !self.asked && due > now {
                self.timer.as_mut().reset(due);
                continue;
            }
            // The answer's time is counted from now and not from when the question was due: this process may have been stopped meanwhile.
            self.timer.as_mut().reset(now + self.answer);
            return Poll::Ready(if std::mem::replace(&mut self.asked, true) {
                Pulse::Gone
            } else {
                Pulse::Ask
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_found_so_long_after_the_last_word_wherever_that_fell() {
        for tenths in 0..30 {
            let mut liveness = Liveness::new(&Lasting::default());
            tokio::time::sleep(Duration::from_millis(100 * tenths)).await;
            liveness.rest();
            let last = Instant::now();
            assert_eq!(poll_fn(|cx| liveness.poll(cx)).await, Pulse::Ask);
            // A timer of tokio's is a millisecond late at the most.
            assert!(last.elapsed() < BEAT + Duration::from_millis(2), "{:?}", last.elapsed());
            assert_eq!(poll_fn(|cx| liveness.poll(cx)).await, Pulse::Gone);
            let silence = liveness.silence();
            assert!((2 * BEAT..2 * BEAT + Duration::from_millis(3)).contains(&silence), "{silence:?}");
        }
    }
}
