//! Bounds how many connections there are, and how many of them nobody has put a name to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

/// The connections of a server.
#[derive(Clone, Default)]
pub(crate) struct Admission {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    open: usize,
    /// Those that have not proven who they are, the oldest first.
    strangers: VecDeque<(u64, Option<AbortHandle>)>,
}

/// A place among the connections, given back when dropped.
pub(crate) struct Place {
    admission: Admission,
    id: u64,
}

impl Admission {
    /// A place for a new connection; none when `max` are open.
    pub(crate) fn admit(&self, max: usize) -> Option<Place> {
        let mut inner = self.lock();
        if inner.open >= max {
            return None;
        }
        inner.open += 1;
        inner.next += 1;
        let id = inner.next;
        inner.strangers.push_back((id, None));
        Some(Place { admission: self.clone(), id })
    }

    /// Names the task of a new connection. When more than `max` strangers wait, the one that has waited longest is ended: who
    /// means it proves himself within milliseconds, so a flood of silent connections pushes out only itself.
    pub(crate) fn register(&self, id: u64, task: AbortHandle, max: usize) {
        let mut inner = self.lock();
        if let Some((_, slot)) = inner.strangers.iter_mut().rev().find(|(stranger, _)| *stranger == id) {
            *slot = Some(task);
        }
        while inner.strangers.len() > max {
            if let Some((_, Some(task))) = inner.strangers.pop_front() {
                task.abort();
            }
        }
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.lock().open
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The connection has proven who it is.
    pub(crate) fn known(&self) {
        self.admission.lock().strangers.retain(|(id, _)| *id != self.id);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.known();
        let mut inner = self.admission.lock();
        inner.open = inner.open.saturating_sub(1);
    }
}
