//! Where a job is attached: a channel of a connection, and how that connection is woken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use remora_wire::native::proto;

use crate::job::Subject;

/// What has come up for a connection besides the client's frames, and the task to wake.
#[derive(Default)]
pub(crate) struct Ready {
    /// Channels whose jobs have something new.
    pub(crate) channels: Vec<u32>,
    /// Answers to questions, as many as may be asked at a time.
    pub(crate) answers: Vec<proto::Answer>,
    /// Channels whose jobs go on elsewhere.
    pub(crate) taken: Vec<u32>,
    /// Channels whose jobs are detached now.
    pub(crate) detached: Vec<u32>,
    /// Starts that had to wait.
    pub(crate) again: Vec<u32>,
    /// Detached jobs whose start has come to an end: their channels, and their process ids or why they aren't there.
    pub(crate) begun: Vec<(u32, Subject, Result<u64, proto::NotStarted>)>,
    pub(crate) task: Option<Waker>,
}

impl Ready {
    pub(crate) fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    fn mark(&mut self, channel: u32) {
        if !self.channels.contains(&channel) {
            self.channels.push(channel);
        }
    }
}

/// A connection's list of what has come up.
#[derive(Clone, Default)]
pub(crate) struct Bell(Arc<Mutex<Ready>>);

impl Bell {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Ready> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the connection look at a channel in this turn.
    pub(crate) fn mark(&self, channel: u32) {
        self.lock().mark(channel);
    }
}

/// A channel of a connection.
#[derive(Clone)]
pub(crate) struct Attachment {
    pub(crate) bell: Bell,
    pub(crate) channel: u32,
}

impl PartialEq for Attachment {
    fn eq(&self, other: &Self) -> bool {
        self.channel == other.channel && Arc::ptr_eq(&self.bell.0, &other.bell.0)
    }
}

impl Attachment {
    /// For the engine: has the connection look at the job.
    pub(crate) fn observer(&self) -> Arc<dyn Fn() + Send + Sync> {
        let Attachment { bell, channel } = self.clone();
        Arc::new(move || {
            let mut ready = bell.lock();
            ready.mark(channel);
            ready.wake();
        })
    }

    /// Tells the connection that the job is detached.
    pub(crate) fn tell_detached(&self) {
        let mut ready = self.bell.lock();
        ready.detached.push(self.channel);
        ready.wake();
    }

    /// Tells the connection that the job goes on elsewhere.
    pub(crate) fn take_away(&self) {
        let mut ready = self.bell.lock();
        ready.taken.push(self.channel);
        ready.wake();
    }
}
