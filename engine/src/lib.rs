//! Processes on this machine: spawn, pipes, windows, limits, outcomes.
//!
//! An [`Engine`] starts a [`Permitted`](remora_identity::Permitted) [`JobRequest`] and hands back a [`Job`]: write input at
//! absolute offsets, read output from an offset, acknowledge it, signal, wait, close. Nothing here knows the network or
//! the wire, and nothing here judges who may run what.
//!
//! A job runs as a plain child of this process, in a session and process group of its own, with descriptors 0, 1 and 2 and
//! no other; where a terminal is to stop it, as the child of a small process that leads the session. One task on the
//! caller's tokio runtime drives it. The interface says nothing of that, so that the child can move to a process of its own
//! later.
//!
//! All system calls that need `unsafe` are in [`sys`].

mod answer;
mod cgroup;
mod coalesce;
mod config;
mod discard;
mod drain;
mod driver;
mod enclosure;
mod engine;
mod environment;
mod error;
mod group;
mod incarnation;
mod input;
mod job;
mod keeping;
mod launch;
mod order;
mod outcome;
mod prepare;
mod reader;
mod reports;
mod request;
mod ring;
mod runs;
mod session;
mod signal;
mod spawners;
mod state;
pub mod sys;
mod terminal;
mod tree;
mod writer;

pub use config::{BaseEnvironment, CgroupParent, DrainRule, EngineConfig};
pub use engine::{Begun, Engine, StartLater};
pub use error::{Blame, InputError, NotStarted, OutputError, Step};
pub use group::has_living_member;
pub use job::{Job, Progress};
pub use keeping::{
    Detached, DetachedJob, DetachedState, Found, JobKey, Log, LogPart, LogPiece, OnFull, OnlyFront, Spooled,
    Stage, Warden, WardenEnd, WardenError, WardenLink,
};
pub use outcome::{EndReason, Ended, How, InputEnd, LimitKind, MemoryMeans, Outcome, OutputEnd, PeakMemory};
pub use request::{JobRequest, Limits, Output, Program, Stdin, Terminal, WindowSize};
pub use runs::Run;
pub use session::{
    Carried, Completions, Session, SessionChange, SessionError, SessionInfo, SessionLimits, SessionName,
    Sessions, Wanted,
};
pub use signal::Signal;

/// Takes bytes for each thing that is read back from the disk or told by a keeper: for the fuzzer, which sees only what is public.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn read_back(bytes: &[u8]) {
    keeping::read_back(bytes);
    session::read_back(bytes);
}
