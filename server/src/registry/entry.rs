//! One job of the registry: whose it is, who is attached to it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use remora_engine::{InputError, Job};
use tokio::time::{Instant, sleep};

use super::DISCARD_PAUSE;
use crate::attachment::Attachment;
use crate::job::Subject;
use crate::record::Record;

/// A job that is started, or is over and whose client may not know yet.
pub(crate) struct Entry {
    pub(crate) job: Job,
    state: Mutex<State>,
    /// Somebody besides its client waits for its end.
    awaited: AtomicBool,
}

pub(super) struct State {
    pub(super) record: Record,
    /// The newest connection of its client that was seen.
    pub(super) attempt: u32,
    /// Who is attached; nobody since, otherwise.
    pub(super) attached: Result<Attachment, Instant>,
    /// Counts attachments and losses, so that a timer knows whether it is still meant.
    pub(super) turn: u64,
    pub(super) detaching: Detaching,
}

/// Whether a job is on its way to the detached ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detaching {
    No,
    /// Its keeper was asked, and may have begun to take the output: it is not read here meanwhile.
    Asked,
    Done,
}

impl Entry {
    pub(super) fn new(job: Job, state: State) -> Self {
        Entry { job, state: Mutex::new(state), awaited: AtomicBool::new(false) }
    }

    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half-done in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection's channel is still where this job is.
    pub(crate) fn is_at(&self, place: &Attachment) -> bool {
        self.lock().attached.as_ref().is_ok_and(|attached| attached == place)
    }

    /// Whether its output is its keeper's, or may be so at any moment.
    pub(crate) fn is_detaching(&self) -> bool {
        self.lock().detaching != Detaching::No
    }

    /// Waits until it is known whether it is detached.
    pub(crate) async fn decided(&self) {
        while self.lock().detaching == Detaching::Asked {
            sleep(DISCARD_PAUSE).await;
        }
    }

    /// Whoever asks how it ended is to be answered, although its client may have it forgotten first.
    pub(crate) fn await_end(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    pub(crate) fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// It is about to be detached. False where it is so already, or is over.
    pub(crate) fn begin_detaching(&self) -> bool {
        let mut state = self.lock();
        if state.detaching != Detaching::No || self.job.finished().is_some() {
            return false;
        }
        state.detaching = Detaching::Asked;
        // Nobody need come back for it meanwhile.
        state.turn += 1;
        true
    }

    /// For how long it is kept yet, where no client is connected to it.
    pub(crate) fn alone(&self) -> Option<Duration> {
        let state = self.lock();
        let since = state.attached.as_ref().err()?;
        Some(state.record.linger.saturating_sub(since.elapsed()))
    }

    pub(crate) fn linger(&self) -> Duration {
        self.lock().record.linger
    }

    pub(crate) fn subject(&self) -> Subject {
        self.lock().record.subject.clone()
    }

    /// Gives the job input.
    ///
    /// # Errors
    /// As [`Job::write`].
    pub(crate) fn write(&self, offset: u64, bytes: Bytes) -> Result<(), InputError> {
        self.job.write(offset, bytes)
    }

    /// Ends the job's input.
    pub(crate) fn end_input(&self, length: u64) {
        let _ = self.job.end_input(length);
    }
}
