//! The spawner in use, and those that are stuck in a start.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::io::Errno;

use crate::sys::{Failed, Plan, Spawned, Spawner};

/// Spawners that may be stuck at the same time: each hangs in a command that lies on a dead file system, and started others that
/// run well and end with it.
const MOST_STUCK: usize = 8;

/// Starts commands through a spawner, and forks another when one is killed or stuck.
pub(crate) struct Spawners {
    current: Option<Spawner>,
    stuck: Vec<Spawner>,
    times: Times,
}

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Between SIGTERM and SIGKILL for what still runs when this process is gone.
    pub(crate) grace: Duration,
    /// One start.
    pub(crate) patience: Duration,
}

impl std::fmt::Debug for Spawners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spawners").field("stuck", &self.stuck.len()).finish_non_exhaustive()
    }
}

impl Spawners {
    /// Forks the first one.
    ///
    /// # Errors
    /// As [`Spawner::start`].
    pub(crate) fn start(null: BorrowedFd<'_>, times: Times) -> io::Result<Self> {
        Ok(Spawners { current: Some(Spawner::start(null, times.grace)?), stuck: Vec::new(), times })
    }

    /// Starts a program.
    ///
    /// # Errors
    /// [`Failed`]; the next start has a spawner that works, if one can be had.
    pub(crate) fn spawn(&mut self, null: BorrowedFd<'_>, plan: &Plan<'_>) -> Result<Spawned, Failed> {
        let mut spawner = match self.current.take().filter(|spawner| !spawner.is_gone()) {
            Some(spawner) => spawner,
            None => self.another(null).map_err(Failed::Spawner)?,
        };
        let result = spawner.spawn(plan, self.times.patience);
        match &result {
            Err(Failed::Spawner(Errno::TIMEDOUT)) => {
                tracing::error!("a command could not be started in time: does a file system hang?");
                self.stuck.push(spawner);
            }
            Err(Failed::Spawner(error)) => tracing::error!(%error, "the spawner is gone"),
            _ => self.current = Some(spawner),
        }
        result
    }

    /// One that was stuck and is not any more, or else a new one.
    fn another(&mut self, null: BorrowedFd<'_>) -> Result<Spawner, Errno> {
        if let Some(index) = self.stuck.iter_mut().position(Spawner::has_recovered) {
            return Ok(self.stuck.swap_remove(index));
        }
        if self.stuck.len() >= MOST_STUCK {
            return Err(Errno::TIMEDOUT);
        }
        tracing::warn!("another spawner is started");
        Spawner::start(null, self.times.grace)
            .map_err(|error| error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
    }
}
