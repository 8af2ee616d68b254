//! Registering descriptors with the runtime's reactor.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What owns one descriptor, the same one and open, for as long as it lives. Private to this crate, and implemented here
/// alone, so that [`watch`] is sound for all of them.
pub(crate) trait Owning: AsRawFd {}

impl Owning for OwnedFd {}
impl Owning for Arc<OwnedFd> {}
impl Owning for super::Signals {}

/// Has the caller's runtime watch a descriptor.
///
/// # Errors
/// What epoll_ctl(2) says.
pub(crate) fn watch<T: Owning>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: an owner's descriptor stays open and the same until the owner is dropped, and the AsyncFd, which owns the
    // owner and lends it as shared only, deregisters first.
    let watched = unsafe { AsyncFd::register_with_interest(fd, interest) };
    Ok(watched?)
}
