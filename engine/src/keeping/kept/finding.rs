//! The jobs that are there already: what earlier servers have left at their keepers, and in folders.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::super::channel::Waiting;
use super::super::detached::{DetachedJob, DetachedState};
use super::super::folder::JobKey;
use super::super::log::Log;
use super::super::messages::FromKeeper;
use super::{About, Keepers, greeted, receive};
use crate::job::Job;
use crate::request::Limits;
use crate::session::{Running, Sessions};

/// How long a keeper that is found may take to say what it keeps, where nobody else waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long all of them together may hold up a server's start. Whoever takes longer is asked again behind it.
const AT_START: Duration = Duration::from_millis(300);

/// How long each of them may take at the least, however long the others took.
const LEAST: Duration = Duration::from_millis(100);

/// Between two looks at a job that has just begun, or is about to be over.
const LOOK: Duration = Duration::from_millis(2);

/// A job that was there before this server.
#[derive(Debug)]
#[non_exhaustive]
pub enum Found {
    /// Its keeper has it.
    Kept {
        /// Which.
        key: JobKey,
        /// What was noted of it when it was started.
        note: Vec<u8>,
        /// The job.
        job: Job,
    },
    /// Its keeper is gone. Nothing of it runs any more, and what became of it can't be known.
    Lost {
        /// Which.
        key: JobKey,
        /// What was noted of it when it was started.
        note: Vec<u8>,
        /// The machine was restarted since.
        rebooted: bool,
    },
    /// Its keeper is there, and doesn't answer: stopped, perhaps, or starved. To be asked for again ([`Engine::find`](crate::Engine)).
    Silent {
        /// Which.
        key: JobKey,
    },
}

impl Keepers {
    /// Where the shell of a session's job tells its state.
    pub(crate) fn told_path(&self, key: JobKey) -> PathBuf {
        self.jobs.told_path(key)
    }

    /// See [`Jobs::epoch`].
    pub(crate) fn epoch(&self) -> io::Result<[u8; 16]> {
        self.jobs.epoch()
    }

    /// See [`Jobs::begin_epoch`].
    pub(crate) fn begin_epoch(&self) -> io::Result<[u8; 16]> {
        self.jobs.begin_epoch()
    }

    /// The jobs that are there already. Waits for each keeper's word.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(crate) fn found(&self, sessions: &Sessions) -> io::Result<Vec<Found>> {
        let until = Instant::now() + AT_START;
        // Whoever takes longer is asked for again, when others are served.
        let find = |key| self.find_until(key, sessions, until.max(Instant::now() + LEAST), true);
        Ok(self.jobs.all()?.into_iter().filter_map(find).collect())
    }

    /// A job that is there already; none where nothing of it has run, and nothing will. `is_brief`: whoever asks has others to care for,
    /// and asks again where it is silent.
    pub(crate) fn find(&self, key: JobKey, sessions: &Sessions, is_brief: bool) -> Option<Found> {
        let patience = if is_brief { LEAST } else { PATIENCE };
        self.find_until(key, sessions, Instant::now() + patience, is_brief)
    }

    fn find_until(&self, key: JobKey, sessions: &Sessions, until: Instant, is_brief: bool) -> Option<Found> {
        loop {
            let folder = self.jobs.folder(key).ok()?;
            if folder.read().is_some_and(|record| record.detached.is_some()) {
                return None;
            }
            let is_late = Instant::now() >= until;
            if is_late && is_brief {
                return Some(Found::Silent { key });
            }
            match folder.connect() {
                Ok(socket) => match self.take_up(socket, key, false, sessions, until) {
                    Ok((note, job)) => return Some(Found::Kept { key, note, job }),
                    // It has ended meanwhile, or is about to.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !is_late => {}
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        return Some(Found::Silent { key });
                    }
                    Err(error) => {
                        tracing::error!(%key, %error, "a keeper doesn't answer");
                        return None;
                    }
                },
                Err(Errno::CONNREFUSED | Errno::NOENT) => match folder.read() {
                    // Begun or ended just now, unless its keeper is gone.
                    Some(record) if record.is_of_this_boot() && record.keeper.is_alive() && is_late => {
                        return Some(Found::Silent { key });
                    }
                    Some(record) if record.is_of_this_boot() && record.keeper.is_alive() => {}
                    Some(record) => {
                        let rebooted = !record.is_of_this_boot();
                        return Some(Found::Lost { key, note: record.note, rebooted });
                    }
                    // Whoever was about to begin it can't any more.
                    None if folder.remove_empty().is_ok() => return None,
                    // The record is what comes first and goes first: who was removing the rest was killed.
                    None if !folder.has_record() => {
                        let _ = folder.remove();
                        return None;
                    }
                    None if is_late => {
                        tracing::error!(%key, "the record of a job can't be read");
                        self.jobs.end_epoch();
                        folder.bury();
                        return None;
                    }
                    None => {}
                },
                Err(error) => {
                    tracing::error!(%key, %error, "a keeper can't be reached");
                    return None;
                }
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Forgets a job whose keeper is gone.
    pub(crate) fn forget(&self, key: JobKey) {
        if let Ok(folder) = self.jobs.folder(key) {
            folder.bury();
        }
    }

    /// The detached jobs that are there. Waits for each keeper's word.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(crate) fn detached(&self, sessions: &Sessions) -> io::Result<Vec<DetachedJob>> {
        let until = Instant::now() + AT_START;
        let find = |key| self.detached_job_until(key, sessions, until.max(Instant::now() + LEAST));
        Ok(self.jobs.all()?.into_iter().filter_map(find).collect())
    }

    /// A detached job, if there is one of this key.
    pub(crate) fn detached_job(&self, key: JobKey, sessions: &Sessions) -> Option<DetachedJob> {
        self.detached_job_until(key, sessions, Instant::now() + PATIENCE)
    }

    fn detached_job_until(&self, key: JobKey, sessions: &Sessions, until: Instant) -> Option<DetachedJob> {
        let folder = self.jobs.folder(key).ok()?;
        let record = folder.read()?;
        let detached = record.detached?;
        let job = |state| Some(DetachedJob { key, note: record.note.clone(), detached, state });
        loop {
            if let Some(ended) = folder.outcome() {
                return job(DetachedState::Ended(Box::new(ended)));
            }
            let taken = folder
                .connect()
                .map_err(io::Error::from)
                .and_then(|socket| self.take_up(socket, key, true, sessions, until));
            if let Ok((_, running)) = taken {
                return job(DetachedState::Running(running));
            }
            let rebooted = !record.is_of_this_boot();
            if rebooted || !record.keeper.is_alive() {
                // It may have ended just now, in order.
                return match folder.outcome() {
                    Some(ended) => job(DetachedState::Ended(Box::new(ended))),
                    None => job(DetachedState::Lost { rebooted }),
                };
            }
            if Instant::now() >= until {
                return job(DetachedState::Silent);
            }
            // It is about to listen, or to end.
            std::thread::sleep(LOOK);
        }
    }

    /// The output of a detached job.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn log(&self, key: JobKey) -> io::Result<Log> {
        Log::open(&self.jobs.folder(key)?)
    }

    /// Removes what is there of a detached job that is over.
    ///
    /// # Errors
    /// What unlinkat(2) says.
    pub(crate) fn remove(&self, key: JobKey) -> io::Result<()> {
        match self.jobs.folder(key) {
            Ok(folder) => Ok(folder.remove()?),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn take_up(
        &self,
        socket: OwnedFd,
        key: JobKey,
        is_detached: bool,
        sessions: &Sessions,
        until: Instant,
    ) -> io::Result<(Vec<u8>, Job)> {
        let mut keeper = Waiting::new(socket);
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a keeper says something odd");
        let FromKeeper::Hello { version, note, session, .. } = receive(&mut keeper, until)? else {
            return Err(wrong());
        };
        let view = greeted(&mut keeper, version)?;
        let FromKeeper::Started { pid, in_root } = receive(&mut keeper, until)? else { return Err(wrong()) };
        let FromKeeper::Progress(now) = receive(&mut keeper, until)? else { return Err(wrong()) };
        let stdin_window = Limits::WINDOW as u64;
        let about = About { key, pid, in_root, stdin_window, has_stdin: true, is_detached };
        // What a detached job changes isn't its session's any more.
        let session = if is_detached { None } else { Running::noted(&session, key, sessions) };
        Ok((note, self.take(keeper, view, about, now, Arc::new(|| {}), session)?))
    }
}
