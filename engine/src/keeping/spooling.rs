//! What a keeper does for a detached job: it takes the output itself, holds the lease, and leaves the outcome in the job's folder.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::time::Sleep;

use super::detached::Detached;
use super::folder::Folder;
use super::lease::Lease;
use super::spool::Spool;
use crate::error::{NotStarted, Step};
use crate::job::Job;
use crate::outcome::{EndReason, Ended};

/// Between two attempts to write what could not be written.
const RETRY: Duration = Duration::from_millis(250);

/// A detached job's keeping.
pub(super) struct Spooling<'a> {
    folder: &'a Folder,
    spool: Spool,
    lease: Option<Lease>,
    retry: Option<Pin<Box<Sleep>>>,
    ended: Option<Arc<Ended>>,
    /// Since when somebody wants it to be over, whatever can't be kept of it.
    hurried: Option<Instant>,
}

impl<'a> Spooling<'a> {
    /// Makes the files of a job whose output so far ends at `from`.
    ///
    /// # Errors
    /// No room, or the file system can't do what is asked for.
    pub(super) fn create(folder: &'a Folder, plan: Detached, from: [u64; 2]) -> Result<Self, NotStarted> {
        folder.reserve_outcome().map_err(|errno| no_room(&errno.into()))?;
        let spool = Spool::create(folder, plan, from)?;
        Ok(Spooling {
            folder,
            spool,
            lease: plan.lease.map(Lease::new),
            retry: None,
            ended: None,
            hurried: None,
        })
    }

    /// Has all that is there of the job on the disk.
    ///
    /// # Errors
    /// It can't be.
    pub(super) fn sync(&self) -> Result<(), NotStarted> {
        self.folder.sync().map_err(|error| no_room(&error))
    }

    /// The job runs: from now on its output is taken.
    pub(super) fn begin(&self, job: &Job) {
        job.spool(self.spool.caps());
    }

    /// The lease begins anew.
    pub(super) fn renew(&mut self, length: Option<Duration>) {
        match (&mut self.lease, length) {
            (Some(lease), length) => lease.renew(length),
            (None, Some(length)) => self.lease = Some(Lease::new(length)),
            (None, None) => {}
        }
    }

    /// It is to be over as soon as can be: where there is no room for the rest of its output, without that.
    pub(super) fn hurry(&mut self) {
        self.hurried.get_or_insert_with(Instant::now);
    }

    /// The lease as it is now, nanoseconds; 0 is none.
    pub(super) fn lease(&self) -> u64 {
        self.lease.as_ref().map_or(0, |lease| u64::try_from(lease.length().as_nanos()).unwrap_or(u64::MAX))
    }

    /// Whether the command is held back since there is no room on the disk.
    pub(super) fn wants_room(&self) -> bool {
        self.spool.wants_room()
    }

    /// How the job ended, once that is in its folder.
    pub(super) fn ended(&self) -> Option<Arc<Ended>> {
        self.ended.clone()
    }

    /// Takes what there is.
    pub(super) fn drive(&mut self, job: &Job, cx: &mut Context<'_>) {
        if self.ended.is_some() {
            return;
        }
        if let Some(lease) = &mut self.lease
            && lease.poll(cx).is_ready()
        {
            job.close(EndReason::Lease);
            self.hurry();
        }
        loop {
            // Asked before what it has printed: all of it is written before the end is.
            let finished = job.finished();
            let mut is_done = self.spool.drive(job);
            if !is_done
                && self.spool.wants_room()
                && self.hurried.is_some_and(|since| since.elapsed() >= RETRY)
            {
                self.spool.give_up();
                is_done = self.spool.drive(job);
            }
            if let (true, Some(finished)) = (is_done, finished) {
                let spooled = self.spool.spooled(job);
                let lost = spooled.lost;
                let ended = Ended { spooled: Some(spooled), ..(*finished).clone() };
                let written = match self.spool.finish() {
                    // The order is as good as it can be.
                    Err(Errno::NOSPC | Errno::DQUOT) if lost != [0; 2] => Ok(()),
                    finished => finished.map_err(std::io::Error::from),
                };
                match written.and_then(|()| self.folder.write_outcome(&ended)) {
                    Ok(()) => self.ended = Some(Arc::new(ended)),
                    Err(error) => {
                        tracing::error!(%error, "the outcome of a detached job can't be written");
                        is_done = false;
                    }
                }
            }
            if is_done {
                self.retry = None;
                return;
            }
            let retry = self.retry.get_or_insert_with(|| Box::pin(tokio::time::sleep(RETRY)));
            if retry.as_mut().poll(cx).is_pending() {
                return;
            }
            retry.as_mut().reset((Instant::now() + RETRY).into());
        }
    }
}

fn no_room(error: &std::io::Error) -> NotStarted {
    NotStarted::bytes(Step::Spool, error.raw_os_error(), b"")
}
