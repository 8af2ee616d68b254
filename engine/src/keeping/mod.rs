//! Keepers: a process for each job, which owns its pipes or terminal, what is not yet delivered, and its exit status; and the
//! warden, which forks them.
//!
//! `warden` is single-threaded and small, and forks keepers ahead of need. A server asks it for one, and from then on
//! talks to the keeper by a socket of their own: what changes is told in messages ([`messages`]), and the bytes of the output lie
//! in memory that both have mapped, written by the keeper and lent by the server, so that they cost no copy more than in one
//! process. A server that goes away leaves the keeper where it is; the next one finds it by its folder ([`folder`]). Of a detached job
//! ([`detached`]) the keeper itself takes the bytes, into files ([`spool`]).

mod channel;
mod detached;
pub(crate) mod fields;
mod folder;
mod keeper;
mod kept;
mod lease;
mod log;
#[cfg(test)]
mod losses;
mod messages;
mod orphanage;
mod spool;
mod spooling;
mod warden;

pub use detached::{Detached, DetachedJob, DetachedState, OnFull, Spooled};
pub use folder::JobKey;
pub use kept::Found;
pub(crate) use kept::{Asking, Keep, Keepers, Kept};
pub use log::{Log, LogPart, LogPiece};
pub(crate) use messages::{Input, Produced, Snapshot, Start};
pub use warden::{OnlyFront, Stage, Warden, WardenEnd, WardenError, WardenLink};

/// Takes bytes for each record, outcome and message.
#[cfg(fuzzing)]
pub(crate) fn read_back(bytes: &[u8]) {
    let _ = (messages::ToKeeper::parse(bytes), messages::FromKeeper::parse(bytes));
    let _ = folder::Record::parse(bytes);
    let _ = fields::Found::parse(bytes).and_then(messages::ended_of);
}
