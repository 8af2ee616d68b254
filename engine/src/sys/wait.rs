//! The end of a child: noticing it, reaping it, and signalling its group while that is still its group.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::clone::PROCESS_GROUP;
use crate::group;

/// What wait4(2) says of a child.
pub(crate) struct Reaped {
    /// The raw status, as `WIFEXITED` and its kind take apart.
    pub(crate) status: i32,
    /// Processor time in user mode.
    pub(crate) user: Duration,
    /// Processor time in the kernel.
    pub(crate) system: Duration,
    /// Peak resident set in bytes.
    pub(crate) peak_memory: u64,
}

/// Whether the process behind a pidfd is over. It stays a zombie, so that its number stays its own.
///
/// # Errors
/// `ECHILD` where it isn't our child, or was reaped by somebody else.
pub(crate) fn has_exited(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    loop {
        // SAFETY: `info` is writable and outlives the call.
        let result =
            unsafe { libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd() as libc::id_t, info.as_mut_ptr(), flags) };
        if result == 0 {
            // SAFETY: all zero bytes are a valid siginfo_t, and the kernel wrote a valid one over it if anything.
            let pid = unsafe { info.assume_init_ref().si_pid() };
            return Ok(pid != 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether the process behind a pidfd is over, a child of ours or not.
pub(crate) fn is_over(pidfd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&now)) != Ok(0)
}

/// Reaps a child that is over; `None` while it isn't. From here on its number may be another's.
///
/// # Errors
/// `ECHILD` where it isn't our child, or was reaped by somebody else.
pub(crate) fn reap(pid: i32) -> io::Result<Option<Reaped>> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: `status` and `usage` are writable and outlive the call.
        let result = unsafe { libc::wait4(pid, &mut status, libc::WNOHANG, usage.as_mut_ptr()) };
        match result {
            0 => return Ok(None),
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            _ => {
                // SAFETY: all zero bytes are a valid rusage, and the kernel wrote a valid one over it.
                let usage = unsafe { usage.assume_init() };
                return Ok(Some(Reaped {
                    status,
                    user: duration(usage.ru_utime),
                    system: duration(usage.ru_stime),
                    peak_memory: kibibytes(usage.ru_maxrss),
                }));
            }
        }
    }
}

/// Kills a child's process group at once and waits for the child's end.
pub(crate) fn kill_and_reap(pid: i32) {
    signal_group(pid, libc::SIGKILL);
    let mut status = 0;
    loop {
        // SAFETY: `status` is writable and outlives the call.
        let result = unsafe { libc::waitpid(pid, &mut status, 0) };
        if result >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

/// Sends a signal to a process group. The caller holds the leader unreaped, so that the number is still that group's.
pub(crate) fn signal_group(leader: i32, signal: i32) {
    if leader > 1 {
        // SAFETY: kill(2) takes numbers only. Above 1, so it is neither "every process" nor our own group.
        unsafe { libc::kill(-leader, signal) };
    }
}

/// Sends a signal to the process group of a command that has a leader, who is the session and isn't reaped. The leader reaps the
/// command before it ends, so the number alone may be another's; a descriptor can't. Before Linux 6.9 groups have none, and the
/// session tells: its number is the leader's.
pub(crate) fn signal_command(command: BorrowedFd<'_>, pid: i32, leader: i32, signal: i32) {
    let nothing = std::ptr::null::<libc::c_void>();
    // SAFETY: numbers, and no siginfo.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, command.as_raw_fd(), signal, nothing, PROCESS_GROUP)
    };
    if sent == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL) {
        return;
    }
    // SAFETY: numbers only.
    if unsafe { libc::getsid(pid) } == leader || group::has_living_member_in(pid, Some(leader)) {
        signal_group(pid, signal);
    }
}

/// Lets a leader go on that somebody has stopped, so that it can tell how its command ended. The caller holds it unreaped.
pub(crate) fn continue_leader(leader: i32) {
    if leader > 1 {
        // SAFETY: kill(2) takes numbers only. Above 1, so it is one process.
        unsafe { libc::kill(leader, libc::SIGCONT) };
    }
}

/// Kills a leader alone. The caller holds it unreaped.
pub(crate) fn kill_leader(leader: i32) {
    if leader > 1 {
        // SAFETY: kill(2) takes numbers only. Above 1, so it is one process.
        unsafe { libc::kill(leader, libc::SIGKILL) };
    }
}

/// Sees to it that children stay zombies until they are reaped: a process started with SIGCHLD ignored would lose every
/// exit status (wait(2), notes). A handler is left alone.
pub(crate) fn waitable_children() {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: `action` is writable and outlives the call; a null new action only asks.
    if unsafe { libc::sigaction(libc::SIGCHLD, std::ptr::null(), action.as_mut_ptr()) } != 0 {
        return;
    }
    // SAFETY: all zero bytes are a valid sigaction, and the C library wrote a valid one over it.
    let mut action = unsafe { action.assume_init() };
    let ignored = action.sa_sigaction == libc::SIG_IGN;
    if ignored || action.sa_flags & libc::SA_NOCLDWAIT != 0 {
        if ignored {
            action.sa_sigaction = libc::SIG_DFL;
        }
        action.sa_flags &= !libc::SA_NOCLDWAIT;
        // SAFETY: `action` is a valid action, the one that was there with its handler kept or set to the default.
        unsafe { libc::sigaction(libc::SIGCHLD, &action, std::ptr::null_mut()) };
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.try_into().unwrap_or(0))
        + Duration::from_micros(time.tv_usec.try_into().unwrap_or(0))
}

fn kibibytes(count: libc::c_long) -> u64 {
    u64::try_from(count).unwrap_or(0).saturating_mul(1024)
}
