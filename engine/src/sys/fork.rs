//! A copy of this process that goes on with a function.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The status of a copy that panicked, which nobody expects.
const PANICKED: i32 = 101;

/// Whether this process has one thread, as it must have to be copied: another's locks would stay locked in the copy for ever.
pub(crate) fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|tasks| tasks.count() == 1)
}

/// Copies this process (fork(2)). The copy runs `f`, and ends without running anything that this process registered for its own
/// end. Gives the copy's process id.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where this process has other threads, or what fork(2) says.
pub(crate) fn fork(f: impl FnOnce()) -> io::Result<i32> {
    if !is_single_threaded() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: this is the only thread (checked above, and only this thread could make another), so the copy is whole: no lock is
    // held by a thread that isn't there, and it may do whatever this process may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let status = catch_unwind(AssertUnwindSafe(f)).map_or(PANICKED, |()| 0);
            // SAFETY: ends the copy; destructors and exit handlers are the original's to run.
            unsafe { libc::_exit(status) }
        }
        pid => Ok(pid),
    }
}

/// Makes a copy of the warden a keeper: in a session of its own, with `null` as descriptors 0, 1 and 2, and without the
/// descriptors that are the warden's alone. Those belong to values that the copy never drops.
pub(crate) fn become_keeper(null: BorrowedFd<'_>, own: &[RawFd]) {
    for number in own.iter().copied().filter(|number| *number > 2) {
        // SAFETY: a number; the copy is alone with its table of descriptors, ends without dropping the values that own these
        // (`fork` ends it), and uses none of them.
        unsafe { libc::close(number) };
    }
    // SAFETY: numbers and a static string. Descriptors 0 to 2 are nobody's values.
    unsafe {
        libc::setsid();
        for standard in 0..=2 {
            libc::dup2(null.as_raw_fd(), standard);
        }
        libc::prctl(libc::PR_SET_NAME, c"remora-keeper".as_ptr());
    }
}

/// Sends a signal to one process, a child that isn't reaped.
pub(crate) fn signal_process(pid: i32, signal: i32) {
    if pid > 1 {
        // SAFETY: numbers; above 1, so it is one process.
        unsafe { libc::kill(pid, signal) };
    }
}
