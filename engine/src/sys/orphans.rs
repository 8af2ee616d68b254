//! Children that this process has without having started them: what its children leave behind.

use std::io;
use std::mem::MaybeUninit;

/// What is left of the children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orphans {
    /// There is none.
    None,
    /// Some run.
    Some,
}

/// Whoever loses its parent below this process becomes its child, instead of being lost to the init of the machine
/// (`PR_SET_CHILD_SUBREAPER`, prctl(2)). Not handed on to copies.
///
/// # Errors
/// What prctl(2) says.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: numbers only.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, on) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reaps children that are over, but for one that somebody else waits for. Those behind that one, once it is over itself, are left
/// for the next time: the kernel shows the first alone.
pub(crate) fn reap_but(own: i32) {
    while let Some(pid) = first_over() {
        if pid == own {
            return;
        }
        if reap_status(pid).is_none() {
            return;
        }
    }
}

/// Reaps a child that is over and that nobody else waits for; its raw status.
pub(crate) fn reap_status(pid: i32) -> Option<i32> {
    let mut status = 0;
    // SAFETY: `status` is writable.
    let reaped = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
    (reaped > 0 && reaped == pid).then_some(status)
}

/// The name of a keeper whose job is over, and who lives on for what that has left in the background.
pub(crate) const ATTENDANT: &std::ffi::CStr = c"remora-attends";

/// Gives this process that name.
pub(crate) fn become_attendant() {
    // SAFETY: a static string of less than 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, ATTENDANT.as_ptr()) };
}

/// Reaps all children that are over; nobody may wait for any of them.
pub(crate) fn reap_rest() -> Orphans {
    while first_over().is_some_and(|pid| reap_status(pid).is_some()) {}
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is writable and outlives the call.
    match unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) } {
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) => Orphans::None,
        _ => Orphans::Some,
    }
}

/// The first child that is over. It isn't reaped.
pub(crate) fn first_over() -> Option<i32> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` is writable and outlives the call; all zero bytes are a valid siginfo_t, and the kernel writes a valid one
    // over it if anything.
    unsafe {
        match libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) {
            0 => Some(info.assume_init_ref().si_pid()).filter(|pid| *pid > 0),
            _ => None,
        }
    }
}
