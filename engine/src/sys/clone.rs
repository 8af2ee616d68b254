//! Cloning a command, or forking its leader: what the spawner does for the server, and a keeper for itself. Nothing but system
//! calls, on memory that was there before.

use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use super::child::{ChildStep, Scene, child, last_errno};
use super::leader::{self, own_peak_kib};
use super::plan::Area;

/// What it says of one start. All of it in the machine's own byte order: both ends are one program.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Answer {
    /// The server's child, also where a step failed and it must be waited for: the command, or its leader; 0 where there is none.
    pub(super) pid: i32,
    /// The command, where there is a leader; else 0.
    pub(super) command: i32,
    /// The place in [`ChildStep::ALL`] of the step that failed; 0 is none if a descriptor comes along, else the clone.
    pub(super) step: u32,
    /// What the kernel said.
    pub(super) errno: i32,
    /// The candidate that `errno` is about.
    pub(super) candidate: u32,
    /// 1 where the root had to do as the working directory.
    pub(super) in_root: u32,
    /// Peak resident set of the process that spawned the command.
    pub(super) floor_kib: u64,
}

impl Answer {
    pub(super) fn from_bytes(bytes: [u8; size_of::<Answer>()]) -> Self {
        // SAFETY: as many bytes as an Answer has, which is integers without padding: any value is valid.
        unsafe { std::mem::transmute(bytes) }
    }
}

/// No descriptors of an answer: the child's, and the command's where that is another.
pub(super) const NONE: [c_int; 2] = [-1; 2];

/// Signals what leads a group and who is in it (pidfd_send_signal(2)); Linux 6.9 and later.
pub(super) const PROCESS_GROUP: c_int = 1 << 2;

impl Answer {
    /// What became of a scene whose child has executed or ended.
    fn of(scene: &Scene, pid: c_int, floor_kib: u64) -> Self {
        Answer {
            pid,
            command: scene.command.load(Ordering::Acquire),
            step: scene.failed_step.load(Ordering::Acquire),
            errno: scene.failed_errno.load(Ordering::Acquire),
            candidate: scene.failed_candidate.load(Ordering::Acquire),
            in_root: scene.in_root.load(Ordering::Acquire),
            floor_kib,
        }
    }

    pub(super) fn failed(step: ChildStep, errno: c_int) -> Self {
        Answer { pid: 0, command: 0, step: step as u32, errno, candidate: 0, in_root: 0, floor_kib: 0 }
    }
}

/// Clones a command for a scene. Returns the answer, and the command's descriptor or -1. With `CLONE_PARENT` as `relation` it
/// becomes a sibling of this process, with 0 its child. The caller has blocked all signals.
pub(super) fn clone_command(area: &Area, scene: *mut Scene, relation: c_int) -> (Answer, c_int) {
    let floor_kib = own_peak_kib();
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | relation | libc::SIGCHLD;
    // SAFETY: the child runs `child` on a stack of its own, which nobody uses but one child at a time: the kernel wakes
    // this process only after the child has executed its program or ended (CLONE_VFORK). The scene and what it points to
    // lie in the area, which the server leaves alone until it has an answer or has given this process up. `pidfd` is
    // writable. All signals are blocked, so no handler runs in the child.
    let pid = unsafe { libc::clone(child, area.stack_top(), flags, scene.cast::<c_void>(), &raw mut pidfd) };
    if pid < 0 {
        return (Answer::failed(ChildStep::Clone, last_errno()), -1);
    }
    // SAFETY: as above; the child doesn't write any more.
    let scene = unsafe { &*scene.cast_const() };
    let answer = Answer::of(scene, pid, floor_kib);
    if answer.step != 0 {
        close(pidfd);
        return (answer, -1);
    }
    (answer, pidfd)
}

/// Forks a leader that clones the command. Returns the answer, and the descriptors of both if both are there. `relation` is as for
/// [`clone_command`], of the leader.
pub(super) fn fork_leader(
    area: &Area,
    scene: *mut Scene,
    reports: c_int,
    relation: c_int,
) -> (Answer, [c_int; 2]) {
    let mut pair = NONE;
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    // SAFETY: room for two numbers.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, pair.as_mut_ptr()) } < 0 {
        return (Answer::failed(ChildStep::Descriptors, last_errno()), NONE);
    }
    let [ours, theirs] = pair;
    let mut pidfd: c_int = -1;
    let flags = libc::CLONE_PIDFD | relation | libc::SIGCHLD;
    // SAFETY: a fork, so the copy has memory of its own but for the area; as this process it makes nothing but system calls.
    // `pidfd` is writable. The first three arguments are the same wherever we run but on s390.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone,
            libc::c_long::from(flags),
            std::ptr::null_mut::<c_void>(),
            &raw mut pidfd,
        )
    };
    if pid == 0 {
        leader::run(area, scene, reports, theirs);
    }
    let errno = last_errno();
    close(theirs);
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else {
        close(ours);
        return (Answer::failed(ChildStep::Clone, errno), NONE);
    };
    // The leader and the command hold the other end until the command has executed, or both are gone.
    let mut byte = 0_u8;
    // SAFETY: one writable byte.
    unsafe { libc::read(ours, (&raw mut byte).cast(), 1) };
    // SAFETY: as in `spawn`; neither writes any more.
    let scene = unsafe { &*scene.cast_const() };
    let mut answer = Answer::of(scene, pid, scene.floor_kib.load(Ordering::Acquire));
    let mut command = -1;
    if answer.step == 0 && answer.command > 0 {
        // The leader doesn't reap it before we close our end. Where the leader was killed, the session tells that the number
        // isn't another's: that is the leader's, who isn't reaped.
        // SAFETY: numbers only.
        unsafe {
            command = libc::syscall(libc::SYS_pidfd_open, answer.command, 0) as c_int;
            if command < 0 {
                answer.errno = last_errno();
                answer.step = ChildStep::Descriptors as u32;
            }
            if libc::getsid(answer.command) != pid {
                close(command);
                command = -1;
            } else if command < 0 {
                libc::kill(-answer.command, libc::SIGKILL);
            }
        }
    }
    if command < 0 {
        // Not started, or nobody could end it: the server waits for the leader's end.
        if answer.errno == 0 {
            answer.errno = libc::ENOMEM;
        }
        signal_group(pidfd, pid, libc::SIGKILL);
        close(pidfd);
        close(ours);
        return (answer, NONE);
    }
    close(ours);
    (answer, [pidfd, command])
}

/// Signals a group by its leader's descriptor, which can't mean another's; whether there is anybody in it. Before Linux 6.9 by
/// its number, and only while the leader is there.
pub(super) fn signal_group(pidfd: c_int, pid: c_int, signal: c_int) -> bool {
    let by_descriptor = |signal: c_int, flags: c_int| {
        let nothing = std::ptr::null::<c_void>();
        // SAFETY: numbers, and no siginfo.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd, signal, nothing, flags) == 0 }
    };
    if by_descriptor(signal, PROCESS_GROUP) {
        return true;
    }
    if last_errno() != libc::EINVAL || pid <= 1 || !by_descriptor(0, 0) {
        return false;
    }
    // SAFETY: numbers; above 1, so neither "every process" nor our own group.
    unsafe { libc::kill(-pid, signal) == 0 }
}

pub(super) fn close(fd: c_int) {
    // SAFETY: this process's own descriptor, which no value owns.
    unsafe { libc::close(fd) };
}
