//! The spawner: a small process, forked from this one, that starts commands for it. This file is our end of it.
//!
//! Three things are better from there. A command's peak memory can be told, since the kernel hands the high-water mark of
//! the process that spawns on to what it executes, and the spawner's is smaller than almost any command's. A process that
//! is killed outright takes its commands with it: the spawner sees its end and ends them. And an execve(2) or chdir(2)
//! that hangs on a dead network file system hangs there, where it can be given up.
//!
//! What is started is our child and the spawner's sibling (`CLONE_PARENT`): we wait for it as for any other.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::child::{ChildStep, last_errno, set_signal_mask};
use super::clone::Answer;
use super::plan::{Area, Plan};
use super::spawner_process::{self, MOST_DESCRIPTORS};

/// How long the end of an idle spawner is waited for.
const LAST_WAIT: Duration = Duration::from_millis(200);

/// A child that executes its program.
pub(crate) struct Spawned {
    /// Our child and the leader of the session: the command, or the command's leader.
    pub(crate) pid: i32,
    /// A descriptor for it, close-on-exec.
    pub(crate) pidfd: OwnedFd,
    /// The command, where it isn't the child.
    pub(crate) command: Option<Command>,
    /// Its working directory is the root, since it can't go to its own.
    pub(crate) in_root: bool,
    /// Peak memory in bytes of the process that spawned it; what a child's figure can't be told from if it is smaller.
    pub(crate) floor: u64,
}

/// A command that has a leader.
pub(crate) struct Command {
    /// Process id and process group.
    pub(crate) pid: i32,
    /// A descriptor for it, close-on-exec.
    pub(crate) pidfd: OwnedFd,
}

/// A start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// No child is left.
    Step {
        /// Which step.
        step: ChildStep,
        /// What the kernel said.
        errno: i32,
        /// For [`ChildStep::Execute`]: the candidate that `errno` is about.
        candidate: usize,
    },
    /// The spawner was killed, or didn't answer in time: whether the command ran for a moment can't be known. Another
    /// spawner is needed.
    Spawner(Errno),
}

/// A running spawner. Dropped, it ends, and what it started ends with it.
pub(crate) struct Spawner {
    socket: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    area: Area,
}

impl Spawner {
    /// Forks it. `grace` is the time between SIGTERM and SIGKILL for what still runs when this process is gone.
    ///
    /// # Errors
    /// What mmap(2), socketpair(2), fork(2) or pidfd_open(2) says.
    pub(crate) fn start(null: BorrowedFd<'_>, grace: Duration) -> io::Result<Self> {
        let area = Area::new()?;
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let theirs = super::above_stdio(theirs)?;
        let grace = i32::try_from(grace.as_millis()).unwrap_or(i32::MAX);
        // No handler of this process may run in the copy.
        let before = set_signal_mask(u64::MAX);
        // SAFETY: the child makes nothing but system calls, whatever other threads were doing (signal-safety(7)): `run` never
        // returns, allocates nothing and takes no lock.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            spawner_process::run(&area, theirs.as_raw_fd(), null.as_raw_fd(), grace);
        }
        let errno = last_errno();
        set_signal_mask(before);
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let pidfd = rustix::process::Pid::from_raw(pid)
            .ok_or(Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()))?;
        Ok(Spawner { socket: ours, pid, pidfd, area })
    }

    /// Starts a program. The calling thread waits until the program is executed, the attempt has failed, or
    /// its patience is over.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) fn spawn(&mut self, plan: &Plan<'_>, patience: Duration) -> Result<Spawned, Failed> {
        let too_long = |_| Failed::Step { step: ChildStep::Execute, errno: libc::E2BIG, candidate: 0 };
        self.area.lay_out(plan).map_err(too_long)?;
        self.ask(plan).map_err(Failed::Spawner)?;
        let result = match self.answer(patience) {
            Ok((answer, [Some(pidfd), command])) if answer.step == 0 => Ok(Spawned {
                pid: answer.pid,
                pidfd,
                command: command.map(|pidfd| Command { pid: answer.command, pidfd }),
                in_root: answer.in_root != 0,
                floor: answer.floor_kib.saturating_mul(1024),
            }),
            Ok((answer, _)) => match ChildStep::ALL.get(answer.step as usize) {
                Some(step) => {
                    discard_child(answer.pid);
                    let candidate = answer.candidate as usize;
                    Err(Failed::Step { step: *step, errno: answer.errno, candidate })
                }
                None => Err(Failed::Spawner(Errno::PROTO)),
            },
            Err(errno) => {
                self.area.give_up(true);
                return Err(Failed::Spawner(errno));
            }
        };
        self.area.trim(plan);
        result
    }

    /// Whether its process has ended.
    pub(crate) fn is_gone(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&now)) != Ok(0)
    }

    /// Whether it answers again after it was given up. What it started late was killed, and is reaped here.
    pub(crate) fn has_recovered(&mut self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let readable = poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&now));
        if readable != Ok(1) {
            return false;
        }
        let Ok((answer, _)) = self.answer(Duration::ZERO) else { return false };
        if answer.pid > 0 {
            super::kill_and_reap(answer.pid);
        }
        self.area.give_up(false);
        true
    }

    fn ask(&self, plan: &Plan<'_>) -> Result<(), Errno> {
        let mut fds = plan.stdio.to_vec();
        fds.extend(plan.reports);
        fds.extend(plan.cgroup);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::NOBUFS);
        }
        // How many come along: the kernel leaves out what a full table has no room for.
        let count = [fds.len() as u8];
        sendmsg(&self.socket, &[IoSlice::new(&count)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
    }

    fn answer(&self, patience: Duration) -> Result<(Answer, [Option<OwnedFd>; 2]), Errno> {
        let timeout =
            Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
        loop {
            let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
            match poll(&mut socket, Some(&timeout)) {
                Ok(0) => return Err(Errno::TIMEDOUT),
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        let mut bytes = [0; size_of::<Answer>()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        if received.bytes != bytes.len() {
            // 0: it is gone.
            return Err(if received.bytes == 0 { Errno::PIPE } else { Errno::PROTO });
        }
        let mut pidfds = [None, None];
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for (place, fd) in pidfds.iter_mut().zip(fds) {
                    *place = Some(fd);
                }
            }
        }
        Ok((Answer::from_bytes(bytes), pidfds))
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        // It ends when it reads the end of its socket, which is at once unless it is stuck in a start.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let timeout = Timespec { tv_sec: 0, tv_nsec: LAST_WAIT.subsec_nanos().into() };
        let _ = poll(&mut [PollFd::new(&self.pidfd.as_fd(), PollFlags::IN)], Some(&timeout));
        let mut status = 0;
        // SAFETY: `status` is writable. Our own child, which nobody else waits for.
        unsafe { libc::waitpid(self.pid, &mut status, libc::WNOHANG) };
    }
}

/// Reaps a child that ended before it executed anything.
pub(super) fn discard_child(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is writable. The child has ended or is about to, so this doesn't wait for anything else.
    while pid > 0 && unsafe { libc::waitpid(pid, &mut status, 0) } < 0 && last_errno() == libc::EINTR {}
}
