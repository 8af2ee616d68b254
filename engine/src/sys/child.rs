//! The new process, from clone(2) to execve(2): what posix_spawn(3) does, and what it can't: a session, limits, a working
//! directory, and which step failed.
//!
//! It shares the memory of the process that spawned it, which stands still meanwhile (`CLONE_VFORK`), and runs on a stack of
//! its own. It touches only memory that was prepared before, allocates nothing, takes no lock, and makes nothing but system
//! calls.

use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};

/// The step of a start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildStep {
    /// clone(2) itself.
    Clone,
    /// setsid(2).
    Session,
    /// dup2(2) or close_range(2).
    Descriptors,
    /// Taking the terminal (TIOCSCTTY).
    Terminal,
    /// Joining the cgroup.
    Cgroup,
    /// setrlimit(2).
    Limits,
    /// chdir(2).
    WorkingDirectory,
    /// execve(2).
    Execute,
}

impl ChildStep {
    /// All of them; a step's place is its number, and 0 stands for "none failed" in a scene.
    pub(crate) const ALL: [ChildStep; 8] = [
        ChildStep::Clone,
        ChildStep::Session,
        ChildStep::Descriptors,
        ChildStep::Terminal,
        ChildStep::Cgroup,
        ChildStep::Limits,
        ChildStep::WorkingDirectory,
        ChildStep::Execute,
    ];
}

/// Signals of Linux are 1 to 64.
const LAST_SIGNAL: c_int = 64;

/// What the child reads, and where it writes why it failed. Plain data: strings that end with a NUL, and arrays of them that
/// end with a null pointer.
pub(super) struct Scene {
    pub(super) candidates: *const *const c_char,
    pub(super) argv: *const *const c_char,
    pub(super) envp: *const *const c_char,
    pub(super) cwd: *const c_char,
    /// Where that can't be gone to, the root will do.
    pub(super) or_root: bool,
    pub(super) stdio: [c_int; 3],
    /// Descriptor 0 becomes the controlling terminal.
    pub(super) terminal: bool,
    /// A leader is between: the session is its own, and it has taken the terminal.
    pub(super) is_led: bool,
    pub(super) open_files: Option<libc::rlimit>,
    pub(super) address_space: Option<libc::rlimit>,
    pub(super) cgroup: c_int,
    pub(super) umask: Option<libc::mode_t>,
    /// The process with which the child ends, a keeper; 0 is none.
    pub(super) keeper: c_int,
    /// 1 where the root had to do.
    pub(super) in_root: AtomicU32,
    pub(super) failed_step: AtomicU32,
    pub(super) failed_errno: AtomicI32,
    pub(super) failed_candidate: AtomicU32,
    /// The command, where there is a leader.
    pub(super) command: AtomicI32,
    /// Peak resident set of the leader, in KiB.
    pub(super) floor_kib: AtomicU64,
}

/// The child, from clone to execve. Returns only what it ends with when a step fails.
pub(super) extern "C" fn child(scene: *mut c_void) -> c_int {
    // SAFETY: the spawner passes a pointer to a Scene that lives until this child has executed or ended, and nobody has an
    // exclusive reference to it meanwhile; what this child writes are atomics.
    let scene = unsafe { &*scene.cast_const().cast::<Scene>() };
    let (step, errno) = perform(scene);
    scene.failed_errno.store(errno, Ordering::Release);
    scene.failed_step.store(step as u32, Ordering::Release);
    127
}

/// Does the steps in order; returns the first that failed.
fn perform(scene: &Scene) -> (ChildStep, c_int) {
    // SAFETY: numbers only. A new child leads neither a group nor a session, so this can't fail for that reason.
    if unsafe { if scene.is_led { libc::setpgid(0, 0) } else { libc::setsid() } } < 0 {
        return (ChildStep::Session, last_errno());
    }
    if scene.keeper != 0 && !ends_with_parent(if scene.is_led { 0 } else { scene.keeper }) {
        return (ChildStep::Session, libc::ESRCH);
    }
    // An ignored signal stays ignored through exec, and Rust programs ignore SIGPIPE: everything gets its default.
    reset_signals();
    for (target, source) in (0..).zip(scene.stdio) {
        // SAFETY: dup2(2) takes numbers; the table of descriptors isn't shared (no CLONE_FILES). Sources are above 2, so
        // none is overwritten before it is used, and the copies are not close-on-exec.
        if unsafe { libc::dup2(source, target) } < 0 {
            return (ChildStep::Descriptors, last_errno());
        }
    }
    if scene.is_led {
        // SAFETY: reads a number that is readable. This group is new and of the terminal's session; SIGTTOU is blocked.
        if unsafe {
            let own = libc::getpid();
            libc::ioctl(0, libc::TIOCSPGRP, &raw const own)
        } < 0
        {
            return (ChildStep::Terminal, last_errno());
        }
    } else if scene.terminal {
        // SAFETY: numbers only. This process leads a new session, and nobody else has this terminal as theirs (ioctl_tty(2)).
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
            return (ChildStep::Terminal, last_errno());
        }
    }
    // Marked, not closed: the cgroup's descriptor is still needed, and a failed exec must not have closed anything.
    // SAFETY: close_range(2) takes numbers; the table of descriptors isn't shared.
    if unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } < 0 {
        return (ChildStep::Descriptors, last_errno());
    }
    if scene.cgroup >= 0 {
        // SAFETY: one readable byte of static memory. "0" is the writing process (cgroups(7)).
        if unsafe { libc::write(scene.cgroup, c"0".as_ptr().cast(), 1) } < 0 {
            return (ChildStep::Cgroup, last_errno());
        }
    }
    // SAFETY: chdir(2) reads a string that ends with a NUL; the working directory isn't shared (no CLONE_FS).
    if unsafe { libc::chdir(scene.cwd) } < 0 {
        let errno = last_errno();
        // SAFETY: as above.
        if !scene.or_root || unsafe { libc::chdir(c"/".as_ptr()) } < 0 {
            return (ChildStep::WorkingDirectory, errno);
        }
        scene.in_root.store(1, Ordering::Release);
    }
    if let Some(mask) = scene.umask {
        // SAFETY: umask(2) takes a number and can't fail; the mask isn't shared (no CLONE_FS).
        unsafe { libc::umask(mask) };
    }
    for (resource, limit) in
        [(libc::RLIMIT_NOFILE, &scene.open_files), (libc::RLIMIT_AS, &scene.address_space)]
    {
        if let Some(limit) = limit {
            // SAFETY: `limit` is readable; limits belong to the process (no CLONE_THREAD), so ours stay.
            if unsafe { libc::setrlimit(resource, limit) } < 0 {
                return (ChildStep::Limits, last_errno());
            }
        }
    }
    set_signal_mask(0);
    execute(scene)
}

/// Tries each candidate as execvp(3) does: what isn't there is passed over, "permission denied" is remembered, anything
/// else is final. Unlike execvp, a file of unknown format isn't given to a shell.
fn execute(scene: &Scene) -> (ChildStep, c_int) {
    let mut denied = None;
    let mut last = (libc::ENOENT, 0);
    let mut index: u32 = 0;
    loop {
        // SAFETY: `candidates` ends with a null pointer, and `index` hasn't passed it.
        let candidate = unsafe { *scene.candidates.add(index as usize) };
        if candidate.is_null() {
            break;
        }
        // SAFETY: a path that ends with a NUL, and two arrays of such strings that end with a null pointer.
        unsafe { libc::execve(candidate, scene.argv, scene.envp) };
        last = (last_errno(), index);
        match last.0 {
            libc::EACCES => denied = denied.or(Some(last)),
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => {
                denied = None;
                break;
            }
        }
        index += 1;
    }
    let (errno, candidate) = denied.unwrap_or(last);
    scene.failed_candidate.store(candidate, Ordering::Release);
    (ChildStep::Execute, errno)
}

/// Has the kernel kill this process when its parent ends (`PR_SET_PDEATHSIG`, prctl(2)), which holds through execve(2) but for
/// set-id programs: a keeper may be killed before anything is written of what it started. It is the end of the parent's *thread*
/// that counts: a keeper starts its commands from the one that lives as long as it does. `false` where the parent, by its number, has
/// ended already; 0 is any.
pub(super) fn ends_with_parent(parent: c_int) -> bool {
    // SAFETY: numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        parent == 0 || libc::getppid() == parent
    }
}

/// Gives every signal its default action.
fn reset_signals() {
    for signal in 1..=LAST_SIGNAL {
        reset_signal(signal);
    }
}

/// Gives a signal its default action. The C library refuses its two internal signals, so the system call is made directly.
pub(super) fn reset_signal(signal: c_int) {
    let default = [0_u64; 8];
    // SAFETY: all zeros is the default action in the kernel's own layout of `struct sigaction`, which is at most 64
    // bytes everywhere; the handler table isn't shared (no CLONE_SIGHAND). KILL and STOP fail, which changes nothing.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), 8)
    };
}

/// Sets this thread's signal mask, signals of the C library included, and returns the one before.
pub(super) fn set_signal_mask(mask: u64) -> u64 {
    let mut before: u64 = 0;
    // SAFETY: both point to 64 bits, the kernel's own size of a signal set, which is passed along (in bytes).
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut before, 8)
    };
    before
}

pub(super) fn last_errno() -> c_int {
    // SAFETY: the C library returns a pointer to this thread's errno. In the child that is the standing parent's.
    unsafe { *libc::__errno_location() }
}
