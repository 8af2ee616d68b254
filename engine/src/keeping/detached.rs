//! Detached jobs: whose output is kept in files of their folders, who go on whoever is there, and whose folders stay when they are over.

use std::time::Duration;

use super::fields::{Fields, Found};
use super::folder::JobKey;
use crate::job::Job;
use crate::outcome::Ended;

/// What is done when as much of a stream is kept as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum OnFull {
    /// The command is held back: its pipe is read no more.
    #[default]
    Wait,
    /// The command is ended.
    Kill,
    /// The oldest output is dropped.
    DropOldest,
}

impl OnFull {
    const ALL: [OnFull; 3] = [OnFull::Wait, OnFull::Kill, OnFull::DropOldest];
}

/// How a job is detached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Bytes of each output stream that are kept.
    pub limit: u64,
    /// What is done when there are more.
    pub on_full: OnFull,
    /// It is ended when nobody has renewed it for so long.
    pub lease: Option<Duration>,
}

impl Detached {
    /// Bytes of each stream that are kept unless told.
    pub const LIMIT: u64 = 1 << 30;

    pub(super) fn fields(&self) -> Fields {
        Fields::new()
            .number(1, self.limit)
            .number(2, OnFull::ALL.iter().position(|one| *one == self.on_full).unwrap_or(0) as u64)
            .optional(3, self.lease.map(|lease| u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX)))
    }

    pub(super) fn of(found: Found<'_>) -> Self {
        Detached {
            limit: found.number(1),
            on_full: on_full(found.number(2)),
            lease: found.optional(3).map(Duration::from_nanos),
        }
    }
}

impl Default for Detached {
    fn default() -> Self {
        Detached { limit: Detached::LIMIT, on_full: OnFull::default(), lease: None }
    }
}

fn on_full(place: u64) -> OnFull {
    usize::try_from(place).ok().and_then(|place| OnFull::ALL.get(place)).copied().unwrap_or_default()
}

/// What became of a detached job's output at the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Spooled {
    /// What was to be done when the limit was reached.
    pub on_full: OnFull,
    /// Bytes of each stream that were to be kept.
    pub limit: u64,
    /// The limit was reached, and that was done.
    pub was_full: bool,
    /// The command was held back since the disk was full.
    pub disk_was_full: bool,
    /// Offsets from which on stdout and stderr are kept.
    pub start: [u64; 2],
    /// Bytes at the ends of stdout and stderr that are not kept: the disk was full, and somebody had the job ended all the same.
    pub lost: [u64; 2],
}

impl Spooled {
    pub(super) fn fields(&self) -> Fields {
        let [stdout, stderr] = self.start;
        Fields::new()
            .number(1, self.limit)
            .number(2, OnFull::ALL.iter().position(|one| *one == self.on_full).unwrap_or(0) as u64)
            .flag(3, self.was_full)
            .flag(4, self.disk_was_full)
            .number(5, stdout)
            .number(6, stderr)
            .number(7, self.lost[0])
            .number(8, self.lost[1])
    }

    pub(super) fn of(found: Found<'_>) -> Self {
        Spooled {
            limit: found.number(1),
            on_full: on_full(found.number(2)),
            was_full: found.flag(3),
            disk_was_full: found.flag(4),
            start: [found.number(5), found.number(6)],
            lost: [found.number(7), found.number(8)],
        }
    }
}

/// A detached job, as its folder tells.
#[derive(Debug)]
pub struct DetachedJob {
    /// Which.
    pub key: JobKey,
    /// What was noted of it.
    pub note: Vec<u8>,
    /// How it was detached.
    pub detached: Detached,
    /// How it is.
    pub state: DetachedState,
}

/// How a detached job is.
#[derive(Debug)]
#[non_exhaustive]
pub enum DetachedState {
    /// Its keeper has it.
    Running(Job),
    /// It is over.
    Ended(Box<Ended>),
    /// Its keeper is gone, and has not said how it ended.
    Lost {
        /// The machine was restarted since.
        rebooted: bool,
    },
    /// Its keeper is there, and doesn't answer. To be asked for again ([`Engine::detached_job`](crate::Engine)).
    Silent,
}
