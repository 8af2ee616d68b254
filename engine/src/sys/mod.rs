//! System calls that need `unsafe`, behind safe functions. Nowhere else in this workspace is `unsafe` allowed.

#![allow(unsafe_code, reason = "the one folder for it: each block says why it is sound")]

mod account;
mod child;
mod clone;
mod fork;
mod here;
mod host;
mod leader;
mod memory;
mod orphans;
mod plan;
mod signals;
mod spawner;
mod spawner_process;
mod wait;
mod watch;

pub use account::{AccountError, AccountKey, account};
pub(crate) use child::ChildStep;
pub(crate) use fork::{become_keeper, fork, is_single_threaded, signal_process};
pub(crate) use here::Here;
pub use host::{boot_id, hostname};
pub(crate) use leader::{LONGEST_REPORT, MOST_UNREAD, Report};
pub(crate) use memory::{Piece, SharedMemory, View};
pub(crate) use orphans::{
    ATTENDANT, Orphans, adopt_orphans, become_attendant, first_over, reap_but, reap_rest, reap_status,
};
pub(crate) use plan::Plan;
pub(crate) use signals::{Signals, inherited_socket, unblock_signals};
pub(crate) use spawner::{Command, Failed, Spawned, Spawner};
pub(crate) use wait::{
    continue_leader, has_exited, is_over, kill_and_reap, kill_leader, reap, signal_command, signal_group,
    waitable_children,
};
pub(crate) use watch::watch;

/// A descriptor above 2, so that none is overwritten while 0, 1 and 2 are laid out. A process started without them gets those
/// numbers from pipe2(2).
pub(crate) fn above_stdio(fd: std::os::fd::OwnedFd) -> rustix::io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::AsRawFd;
    if fd.as_raw_fd() > 2 { Ok(fd) } else { rustix::io::fcntl_dupfd_cloexec(&fd, 3) }
}
