//! System calls that need `unsafe`, behind safe functions. Nowhere else in this workspace is `unsafe` allowed.

#![allow(unsafe_code, reason = "the one folder for it: each block says why it is sound")]

mod account;
mod host;
mod spawn;
mod wait;
mod watch;

pub use account::{AccountError, AccountKey, account};
pub use host::{boot_id, hostname};
pub(crate) use spawn::{ChildStep, Failed, Plan, spawn};
pub(crate) use wait::{has_exited, kill_and_reap, own_peak_memory, reap, signal_group, waitable_children};
pub(crate) use watch::watch;
