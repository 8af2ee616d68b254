//! How a job ended, with the evidence: times, resource use, length and digest of each stream.

use std::time::{Duration, SystemTime};

use crate::keeping::Spooled;
use crate::runs::Run;
use crate::session::SessionChange;
use crate::signal::Signal;

/// Why remora ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndReason {
    /// Its time limit.
    Deadline,
    /// Another limit.
    Limit(LimitKind),
    /// Its lease ran out.
    Lease,
    /// Nobody came back in time.
    Linger,
    /// Somebody asked for it to be stopped.
    Stop,
    /// The server shuts down.
    Shutdown,
    /// The client that ran it is gone.
    ClientGone,
}

/// Which limit ended a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LimitKind {
    /// [`Limits::output`](crate::Limits::output).
    Output,
    /// [`Limits::memory`](crate::Limits::memory), where the kernel killed for it.
    Memory,
    /// The limit of what is kept of a detached job's output.
    Spool,
}

/// How the process itself ended, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By itself, with a status of 0 to 255.
    Exited(i32),
    /// By a signal.
    Signaled {
        /// Which.
        signal: Signal,
        /// The kernel wrote a core dump.
        core_dumped: bool,
    },
    /// Somebody else took the status: a fault of this process.
    Unknown,
    /// The process that kept the job was killed, or the machine restarted: whether and how it ended can't be known. What is
    /// left of it is ended.
    KeeperLost,
}

/// What a job came to, remora's own deeds included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command ended by itself, with its own status.
    Exited(i32),
    /// A signal ended it, or remora did (`by`), in which case `signal` is what remora sent if the command turned it into
    /// an ordinary exit.
    Signaled {
        /// Which.
        signal: Signal,
        /// The kernel wrote a core dump.
        core_dumped: bool,
        /// Remora did it, for this reason.
        by: Option<EndReason>,
    },
    /// Remora's time limit, whatever status the command made of it.
    Deadline,
    /// The status is lost: a fault of this process, or its keeper's end.
    Unknown,
}

/// The end of an output stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputEnd {
    /// Bytes that could be read here.
    pub length: u64,
    /// BLAKE3 of those bytes.
    pub blake3: [u8; 32],
    /// Another process still held it open when the job was over; what that writes is discarded.
    pub held_open: bool,
    /// Our reader closed it before its end.
    pub closed_early: bool,
    /// Bytes past [`Limits::output`](crate::Limits::output) were discarded.
    pub cut: bool,
}

/// The end of the input stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputEnd {
    /// Bytes written into the command's pipe. It need not have read them.
    pub length: u64,
    /// BLAKE3 of those bytes.
    pub blake3: [u8; 32],
    /// The command closed its input, or ended, before all of it was written.
    pub closed_early: bool,
}

/// The largest resident set of any one process of the job; of the whole job where there is a cgroup. In bytes.
///
/// The kernel carries the high-water mark of the process that spawned over into the one it spawned (`exec_mmap` in
/// `fs/exec.c`), so a command smaller than this process can't be measured without a cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeakMemory {
    /// The command's own.
    Measured(u64),
    /// This process was larger when it spawned: the command used no more than this.
    AtMost(u64),
}

impl PeakMemory {
    /// The number of bytes, measured or at most.
    pub fn bytes(self) -> u64 {
        match self {
            PeakMemory::Measured(bytes) | PeakMemory::AtMost(bytes) => bytes,
        }
    }
}

/// What enforced [`Limits::memory`](crate::Limits::memory).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMeans {
    /// `memory.max` of a cgroup (v2) around the whole job.
    Cgroup,
    /// `RLIMIT_AS` of each process.
    AddressSpace,
}

/// A job that is over: its process was reaped, and its streams were read to their end or given up by the drain rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ended {
    /// How the process ended, untouched.
    pub how: How,
    /// Remora had begun to end it, for this reason, before the process was over; or it printed more than it may.
    pub stopped: Option<EndReason>,
    /// When it was started.
    pub started: SystemTime,
    /// When its process was over.
    pub ended: SystemTime,
    /// From start to the end of its process, by the monotonic clock.
    pub wall: Duration,
    /// Processor time in user mode, of the process and the descendants it waited for.
    pub user: Duration,
    /// Processor time in the kernel, of the same.
    pub system: Duration,
    /// Peak memory.
    pub peak_memory: PeakMemory,
    /// What enforced the memory limit, if one was set.
    pub memory_limited_by: Option<MemoryMeans>,
    /// The end of stdout.
    pub stdout: OutputEnd,
    /// The end of stderr.
    pub stderr: OutputEnd,
    /// The end of stdin; `None` where it was `/dev/null`.
    pub stdin: Option<InputEnd>,
    /// Input that the command has not read, on a terminal with [`job_control`](crate::Terminal::job_control): what was in the
    /// terminal, as far as that had taken it (a return is a line end, an erased character is gone), and behind it what was
    /// not yet written. 64 KiB at most; empty for any other job.
    pub unread_input: Vec<u8>,
    /// Offset in stdin behind the last byte that [`Ended::unread_input`] tells of; 0 for a job that has none.
    pub unread_upto: u64,
    /// Process id it had, and process group id; 0 where a session carried the line out itself.
    pub pid: i32,
    /// What it did to its session, if it had one.
    pub session: Option<SessionChange>,
    /// What became of its output at the host, if it was detached.
    pub spooled: Option<Spooled>,
    /// In which order stdout and stderr were read, where [`JobRequest::keep_order`](crate::JobRequest) asked for it; 4,096 runs at most:
    /// beyond it neighbours are taken together. Empty for a detached job, whose folder tells it.
    pub order: Vec<Run>,
}

impl Ended {
    /// What it came to. A command that remora ended is never reported as having ended by itself, even where it caught
    /// the signal and exited with 0.
    pub fn outcome(&self) -> Outcome {
        match (self.stopped, self.how) {
            (_, How::KeeperLost) => Outcome::Unknown,
            (Some(EndReason::Deadline), _) => Outcome::Deadline,
            (by, How::Signaled { signal, core_dumped }) => Outcome::Signaled { signal, core_dumped, by },
            (Some(by), How::Exited(_)) => {
                Outcome::Signaled { signal: Signal::TERM, core_dumped: false, by: Some(by) }
            }
            (None, How::Exited(status)) => Outcome::Exited(status),
            (_, How::Unknown) => Outcome::Unknown,
        }
    }
}
