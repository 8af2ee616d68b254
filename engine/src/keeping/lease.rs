//! The lease of a detached job: how long it may go on unless somebody renews it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// A lease that runs.
pub(super) struct Lease {
    length: Duration,
    timer: Pin<Box<Sleep>>,
    is_over: bool,
}

/// Longer than anything lives: a clock that can't count so far isn't asked to.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Lease {
    pub(super) fn new(length: Duration) -> Self {
        let length = length.min(FOR_EVER);
        Lease { length, timer: Box::pin(tokio::time::sleep(length)), is_over: false }
    }

    /// How long it is.
    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// It begins anew.
    pub(super) fn renew(&mut self, length: Option<Duration>) {
        self.length = length.unwrap_or(self.length).min(FOR_EVER);
        self.timer.as_mut().reset((Instant::now() + self.length).into());
    }

    /// Ready once, when it is over.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over || self.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.is_over = true;
        Poll::Ready(())
    }
}
