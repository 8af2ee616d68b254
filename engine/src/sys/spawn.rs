//! Starting a program: clone(2) sharing memory until exec, as posix_spawn(3) does it, with what posix_spawn can't say: a
//! session, limits, a working directory, and which step failed.
//!
//! The child runs on a stack of its own while the calling thread stands still (`CLONE_VFORK`). It touches only memory
//! that was prepared before, allocates nothing, takes no lock, and makes nothing but system calls.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use rustix::process::Resource;

/// Everything a child needs, ready made.
pub(crate) struct Plan<'a> {
    /// Paths to execute, in the order in which they are tried.
    pub(crate) candidates: &'a [CString],
    /// Arguments, the command's name first.
    pub(crate) argv: &'a [CString],
    /// `NAME=value` each.
    pub(crate) envp: &'a [CString],
    /// Working directory.
    pub(crate) cwd: &'a CStr,
    /// What become descriptors 0, 1 and 2. All of them above 2.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// `RLIMIT_NOFILE`, soft and hard.
    pub(crate) open_files: Option<u64>,
    /// `RLIMIT_AS` in bytes, soft and hard.
    pub(crate) address_space: Option<u64>,
    /// `cgroup.procs` of the cgroup to join, open for writing.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// File mode creation mask.
    pub(crate) umask: Option<u32>,
}

/// A child that executes its program.
pub(crate) struct Spawned {
    /// Process id, and process group and session id.
    pub(crate) pid: i32,
    /// A descriptor for it, close-on-exec.
    pub(crate) pidfd: OwnedFd,
}

/// The step of a start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChildStep {
    /// clone(2) itself.
    Clone,
    /// setsid(2).
    Session,
    /// dup2(2) or close_range(2).
    Descriptors,
    /// Joining the cgroup.
    Cgroup,
    /// setrlimit(2).
    Limits,
    /// chdir(2).
    WorkingDirectory,
    /// execve(2).
    Execute,
}

/// A start that failed; no child is left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    /// Which step.
    pub(crate) step: ChildStep,
    /// What the kernel said.
    pub(crate) errno: i32,
    /// For [`ChildStep::Execute`]: the candidate that `errno` is about.
    pub(crate) candidate: usize,
}

const STEPS: [ChildStep; 7] = [
    ChildStep::Clone,
    ChildStep::Session,
    ChildStep::Descriptors,
    ChildStep::Cgroup,
    ChildStep::Limits,
    ChildStep::WorkingDirectory,
    ChildStep::Execute,
];

/// Bytes of stack for the child: its deepest call is a system call wrapper of the C library.
const STACK_BYTES: usize = 64 * 1024;

/// Signals of Linux are 1 to 64.
const LAST_SIGNAL: c_int = 64;

/// What the child reads, and where it writes why it failed.
struct Scene {
    candidates: *const *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    cwd: *const c_char,
    stdio: [c_int; 3],
    open_files: Option<libc::rlimit>,
    address_space: Option<libc::rlimit>,
    cgroup: c_int,
    umask: Option<libc::mode_t>,
    failed_step: AtomicU32,
    failed_errno: AtomicI32,
    failed_candidate: AtomicU32,
}

/// Starts a program. The calling thread waits until the program is executed, or the attempt has failed.
///
/// # Errors
/// [`Failed`]: nothing runs, and nothing is left to reap.
pub(crate) fn spawn(plan: &Plan<'_>) -> Result<Spawned, Failed> {
    let candidates = pointers(plan.candidates);
    let argv = pointers(plan.argv);
    let envp = pointers(plan.envp);
    let both = |value: u64| libc::rlimit { rlim_cur: value, rlim_max: value };
    let scene = Scene {
        candidates: candidates.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        cwd: plan.cwd.as_ptr(),
        stdio: plan.stdio.map(|fd| fd.as_raw_fd()),
        open_files: plan.open_files.map(|wanted| both(wanted.min(hard_limit(Resource::Nofile)))),
        address_space: plan.address_space.map(|wanted| both(wanted.min(hard_limit(Resource::As)))),
        cgroup: plan.cgroup.map_or(-1, |fd| fd.as_raw_fd()),
        umask: plan.umask.map(|mask| mask as libc::mode_t & 0o777),
        failed_step: AtomicU32::new(0),
        failed_errno: AtomicI32::new(0),
        failed_candidate: AtomicU32::new(0),
    };
    let mut stack: Vec<u128> = Vec::with_capacity(STACK_BYTES / size_of::<u128>());
    // SAFETY: one past the end of the allocation, which is aligned to 16 as every ABI here wants its stack to be.
    let top = unsafe { stack.as_mut_ptr().add(stack.capacity()) };
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;

    // No handler of this process may run in the child, which shares its memory: everything is blocked around the clone.
    let before = set_signal_mask(u64::MAX);
    // SAFETY: the child runs `child` on a stack of its own that grows down from `top`, with a scene that outlives it: the
    // kernel wakes this thread only after the child has executed its program or ended (CLONE_VFORK), so `scene`, the
    // arrays it points to and `stack` are neither moved nor freed under it. `pidfd` is writable.
    let pid = unsafe {
        libc::clone(
            child,
            top.cast::<c_void>(),
            flags,
            (&raw const scene).cast_mut().cast::<c_void>(),
            &raw mut pidfd,
        )
    };
    let errno = if pid < 0 { last_errno() } else { 0 };
    set_signal_mask(before);
    drop(stack);

    if pid < 0 {
        return Err(Failed { step: ChildStep::Clone, errno, candidate: 0 });
    }
    // SAFETY: the kernel stored a new descriptor there (CLONE_PIDFD), and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    match STEPS.get(scene.failed_step.load(Ordering::Acquire) as usize) {
        None | Some(ChildStep::Clone) => Ok(Spawned { pid, pidfd }),
        Some(step) => {
            discard_child(pid);
            Err(Failed {
                step: *step,
                errno: scene.failed_errno.load(Ordering::Acquire),
                candidate: scene.failed_candidate.load(Ordering::Acquire) as usize,
            })
        }
    }
}

/// The child, from clone to execve. Returns only what it ends with when a step fails.
extern "C" fn child(scene: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a pointer to a Scene that lives until this child has executed or ended, and reads it
    // only through shared references; what this child writes are atomics.
    let scene = unsafe { &*scene.cast_const().cast::<Scene>() };
    let (step, errno) = perform(scene);
    scene.failed_errno.store(errno, Ordering::Release);
    scene.failed_step.store(step as u32, Ordering::Release);
    127
}

/// Does the steps in order; returns the first that failed.
fn perform(scene: &Scene) -> (ChildStep, c_int) {
    // SAFETY: setsid(2) takes nothing. A new child leads no group, so this can't fail for that reason.
    if unsafe { libc::setsid() } < 0 {
        return (ChildStep::Session, last_errno());
    }
    // An ignored signal stays ignored through exec, and Rust programs ignore SIGPIPE: everything gets its default.
    // The C library refuses its two internal signals, so the system call is made directly.
    let default = [0_u64; 8];
    for signal in 1..=LAST_SIGNAL {
        // SAFETY: all zeros is the default action in the kernel's own layout of `struct sigaction`, which is at most 64
        // bytes everywhere; the handler table isn't shared (no CLONE_SIGHAND). KILL and STOP fail, which changes nothing.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), 8)
        };
    }
    for (target, source) in (0..).zip(scene.stdio) {
        // SAFETY: dup2(2) takes numbers; the table of descriptors isn't shared (no CLONE_FILES). Sources are above 2, so
        // none is overwritten before it is used, and the copies are not close-on-exec.
        if unsafe { libc::dup2(source, target) } < 0 {
            return (ChildStep::Descriptors, last_errno());
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
        return (ChildStep::WorkingDirectory, last_errno());
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

/// Pointers to strings, with a null pointer at the end.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let mut pointers = Vec::with_capacity(strings.len() + 1);
    pointers.extend(strings.iter().map(|string| string.as_ptr()));
    pointers.push(std::ptr::null());
    pointers
}

/// Reaps a child that ended before it executed anything.
fn discard_child(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is writable. The child has ended or is about to, so this doesn't wait for anything else.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0 && last_errno() == libc::EINTR {}
}

/// Sets this thread's signal mask, signals of the C library included, and returns the one before.
fn set_signal_mask(mask: u64) -> u64 {
    let mut before: u64 = 0;
    // SAFETY: both point to 64 bits, the kernel's own size of a signal set, which is passed along (in bytes).
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut before, 8)
    };
    before
}

/// The hard limit of this process for a resource; `u64::MAX` is none, as the kernel has it.
fn hard_limit(resource: Resource) -> u64 {
    rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX)
}

fn last_errno() -> c_int {
    // SAFETY: the C library returns a pointer to this thread's errno. In the child that is the standing parent's.
    unsafe { *libc::__errno_location() }
}
