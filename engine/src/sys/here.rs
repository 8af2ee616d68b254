//! Starting a command as a child of this very process, which must have no other thread: a keeper's way.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::child::{ChildStep, set_signal_mask};
use super::clone::{clone_command, fork_leader};
use super::plan::{Area, Plan};
use super::spawner::{Command, Failed, Spawned, discard_child};

/// Memory to lay a start out in.
pub(crate) struct Here {
    area: Area,
}

impl Here {
    /// Maps it.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Here { area: Area::new()? })
    }

    /// Starts a program. Returns when it is executed, or the attempt has failed.
    ///
    /// # Errors
    /// [`Failed`].
    pub(crate) fn spawn(&mut self, plan: &Plan<'_>) -> Result<Spawned, Failed> {
        let too_long = |_| Failed::Step { step: ChildStep::Execute, errno: libc::E2BIG, candidate: 0 };
        self.area.lay_out(plan).map_err(too_long)?;
        // SAFETY: the head lies in the area, aligned, and was just written; nobody else knows it.
        let scene = unsafe { &raw mut (*self.area.head()).scene };
        // SAFETY: as above.
        unsafe {
            (*scene).stdio = plan.stdio.map(|fd| fd.as_raw_fd());
            (*scene).cgroup = plan.cgroup.map_or(-1, |fd| fd.as_raw_fd());
            (*scene).keeper = libc::getpid();
        }
        // No handler of this process may run in the copy.
        let before = set_signal_mask(u64::MAX);
        let (answer, [pidfd, command]) = match plan.reports {
            Some(reports) => fork_leader(&self.area, scene, reports.as_raw_fd(), 0),
            None => {
                let (answer, pidfd) = clone_command(&self.area, scene, 0);
                (answer, [pidfd, -1])
            }
        };
        set_signal_mask(before);
        self.area.trim(plan);
        match (owned(pidfd), owned(command)) {
            (Some(pidfd), command) => Ok(Spawned {
                pid: answer.pid,
                pidfd,
                command: command.map(|pidfd| Command { pid: answer.command, pidfd }),
                in_root: answer.in_root != 0,
                floor: answer.floor_kib.saturating_mul(1024),
            }),
            (None, _) => {
                discard_child(answer.pid);
                let step = ChildStep::ALL.get(answer.step as usize).copied();
                match step {
                    Some(step) => {
                        Err(Failed::Step { step, errno: answer.errno, candidate: answer.candidate as usize })
                    }
                    None => Err(Failed::Spawner(Errno::PROTO)),
                }
            }
        }
    }
}

/// A descriptor that the kernel has just given to us; none where it is negative.
fn owned(fd: c_int) -> Option<OwnedFd> {
    // SAFETY: clone(2) or pidfd_open(2) made it a moment ago, nothing has closed it, and no other value owns it.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}
