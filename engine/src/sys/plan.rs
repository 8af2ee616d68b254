//! What is to be started, laid out in memory that this process and its spawner share.
//!
//! The area is mapped before the spawner is forked, so that it lies at the same address in both: the pointers that one
//! writes are good in the other, and the kernel reads the strings where they are.

use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use rustix::process::Resource;

use super::child::Scene;

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
    /// Where that can't be gone to, the root will do, as it does for sshd when the home directory is missing.
    pub(crate) or_root: bool,
    /// What become descriptors 0, 1 and 2. All of them above 2.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// They are a terminal, which becomes the session's own.
    pub(crate) terminal: bool,
    /// Where a leader says how the command is (a packet socket); `None` is none.
    pub(crate) reports: Option<BorrowedFd<'a>>,
    /// `RLIMIT_NOFILE`, soft and hard.
    pub(crate) open_files: Option<u64>,
    /// `RLIMIT_AS` in bytes, soft and hard.
    pub(crate) address_space: Option<u64>,
    /// `cgroup.procs` of the cgroup to join, open for writing.
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
    /// File mode creation mask.
    pub(crate) umask: Option<u32>,
}

/// Bytes for the strings of one start and the pointers to them. The kernel takes 6 MiB of both at the most (execve(2): three
/// quarters of `_STK_LIM`), and candidates are bounded by `PATH`, which is one of the strings. Pages that were never touched
/// cost nothing.
const AREA: usize = 16 * 1024 * 1024;

/// The spawner's stack for a child, whose deepest call is a system call wrapper of the C library.
pub(super) const STACK: usize = 64 * 1024;

/// What lies at the beginning of the area.
pub(super) struct Head {
    pub(super) scene: Scene,
    /// The server has given this spawner up: what it was starting when that happened must not run on.
    pub(super) given_up: AtomicBool,
}

/// Memory that this process and its spawner share. Only one of them writes to it at any time, but for atomics: the server
/// before it asks, the spawner until it answers.
pub(super) struct Area {
    start: NonNull<c_void>,
}

// SAFETY: the mapping belongs to no thread, and every write goes through `&mut self` or an atomic.
unsafe impl Send for Area {}

/// The plan is larger than any that the kernel would take.
pub(super) struct TooLong;

impl Area {
    /// Maps it.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(super) fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel finds room for it, of no file: nothing that exists is touched.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), STACK + AREA, protection, flags, -1, 0) };
        match NonNull::new(start).filter(|_| start != libc::MAP_FAILED) {
            Some(start) => Ok(Area { start }),
            None => Err(io::Error::last_os_error()),
        }
    }

    /// The first address above the stack of a child, aligned as a page is. The area begins with the stack.
    pub(super) fn stack_top(&self) -> *mut c_void {
        // SAFETY: inside the mapping, which is longer than the stack.
        unsafe { self.start.as_ptr().byte_add(STACK) }
    }

    /// Where the head is; valid memory of its size, all zeros at first.
    pub(super) fn head(&self) -> *mut Head {
        self.stack_top().cast()
    }

    /// Says whether anybody waits for the spawner's answer.
    pub(super) fn give_up(&self, given_up: bool) {
        self.given_up().store(given_up, Ordering::Release);
    }

    pub(super) fn was_given_up(&self) -> bool {
        self.given_up().load(Ordering::Acquire)
    }

    fn given_up(&self) -> &AtomicBool {
        // SAFETY: inside the mapping and aligned; zeros are `false`, and the field is never used but as an atomic.
        unsafe { &(*self.head()).given_up }
    }

    /// Lays a plan out. Numbers of descriptors are left for the spawner, which gets copies of its own.
    ///
    /// # Errors
    /// [`TooLong`].
    pub(super) fn lay_out(&mut self, plan: &Plan<'_>) -> Result<(), TooLong> {
        let mut rest = Rest { next: size_of::<Head>(), base: self.stack_top() };
        let candidates = rest.array(plan.candidates)?;
        let argv = rest.array(plan.argv)?;
        let envp = rest.array(plan.envp)?;
        let cwd = rest.string(plan.cwd)?;
        let both = |value: u64| libc::rlimit { rlim_cur: value, rlim_max: value };
        let scene = Scene {
            candidates,
            argv,
            envp,
            cwd,
            or_root: plan.or_root,
            stdio: [-1; 3],
            terminal: plan.terminal,
            is_led: plan.reports.is_some(),
            open_files: plan.open_files.map(|wanted| both(wanted.min(hard_limit(Resource::Nofile)))),
            address_space: plan.address_space.map(|wanted| both(wanted.min(hard_limit(Resource::As)))),
            cgroup: -1,
            umask: plan.umask.map(|mask| mask as libc::mode_t & 0o777),
            keeper: 0,
            in_root: AtomicU32::new(0),
            failed_step: AtomicU32::new(0),
            failed_errno: AtomicI32::new(0),
            failed_candidate: AtomicU32::new(0),
            command: AtomicI32::new(0),
            floor_kib: AtomicU64::new(0),
        };
        // SAFETY: inside the mapping and aligned; `&mut self` says that the spawner isn't at work, so nobody reads it.
        unsafe { (&raw mut (*self.head()).scene).write(scene) };
        Ok(())
    }

    /// Gives the pages of a long plan back, so that one of them doesn't stay in memory for ever.
    pub(super) fn trim(&mut self, plan: &Plan<'_>) {
        const LONG: usize = 256 * 1024;
        let strings = [plan.candidates, plan.argv, plan.envp];
        let bytes: usize = strings.into_iter().flatten().map(|string| string.count_bytes()).sum();
        if bytes > LONG {
            // SAFETY: the whole area above the stack; the spawner isn't at work, and what was in it isn't needed any more.
            unsafe { libc::madvise(self.stack_top(), AREA, libc::MADV_REMOVE) };
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping that `new` made; no reference into it outlives a call of this file.
        unsafe { libc::munmap(self.start.as_ptr(), STACK + AREA) };
    }
}

/// The part of an area that is still free.
struct Rest {
    base: *mut c_void,
    /// Offset of the first free byte.
    next: usize,
}

impl Rest {
    /// Takes `size` bytes; they are inside the area, aligned for a pointer, and nobody else's.
    fn take(&mut self, size: usize) -> Result<*mut c_void, TooLong> {
        let from = self.next.next_multiple_of(align_of::<*const c_char>());
        let end = from.checked_add(size).filter(|end| *end <= AREA).ok_or(TooLong)?;
        self.next = end;
        // SAFETY: `from` is at most the length of the area, which begins at `base`.
        Ok(unsafe { self.base.byte_add(from) })
    }

    fn string(&mut self, string: &CStr) -> Result<*const c_char, TooLong> {
        let bytes = string.to_bytes_with_nul();
        let place = self.take(bytes.len())?.cast::<u8>();
        // SAFETY: `take` gave as many bytes as are copied, in a mapping that `string` isn't part of.
        unsafe { place.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(place.cast_const().cast())
    }

    /// Pointers to copies of strings, with a null pointer at the end.
    fn array(&mut self, strings: &[CString]) -> Result<*const *const c_char, TooLong> {
        let size =
            strings.len().checked_add(1).and_then(|count| count.checked_mul(size_of::<*const c_char>()));
        let array = self.take(size.ok_or(TooLong)?)?.cast::<*const c_char>();
        for (index, string) in strings.iter().enumerate() {
            let string = self.string(string)?;
            // SAFETY: below the length that was taken, and aligned.
            unsafe { array.add(index).write(string) };
        }
        // SAFETY: the last place that was taken.
        unsafe { array.add(strings.len()).write(std::ptr::null()) };
        Ok(array.cast_const())
    }
}

/// The hard limit of this process for a resource; `u64::MAX` is none, as the kernel has it.
fn hard_limit(resource: Resource) -> u64 {
    rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX)
}
