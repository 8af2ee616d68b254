//! From an order to a job that runs: its channels, its process, its driver.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::PipeFlags;
use tokio::io::Interest;
use tokio::runtime::Handle;

use crate::cgroup::{JobCgroup, Parent};
use crate::config::EngineConfig;
use crate::driver::{Clock, Driver, Killing, MemoryLimit};
use crate::error::{NotStarted, Step};
use crate::input::InputQueue;
use crate::job::Job;
use crate::order::Order;
use crate::reader::Reader;
use crate::reports::Reports;
use crate::request::{Limits, Stdin, Terminal};
use crate::ring::Ring;
use crate::session::Running;
use crate::signal::Signal;
use crate::spawners::Spawners;
use crate::state::{OnChange, Process, Shared};
use crate::sys::{self, Failed, Plan, Spawned};
use crate::terminal;
use crate::tree::Tree;
use crate::writer::Writer;

/// What a job is launched with.
pub(crate) struct Launching<'a> {
    /// `/dev/null`.
    pub(crate) null: BorrowedFd<'a>,
    pub(crate) cgroups: Option<&'a Parent>,
    pub(crate) config: &'a EngineConfig,
    /// Jobs that are not finished.
    pub(crate) running: &'a Arc<AtomicUsize>,
    /// Streams that are read to nowhere.
    pub(crate) held: &'a Arc<AtomicUsize>,
    pub(crate) runtime: &'a Handle,
    /// Where output is kept; none for memory of its own.
    pub(crate) rings: Option<[Ring; 2]>,
    pub(crate) on_change: OnChange,
    pub(crate) session: Option<Running>,
    /// What its process leaves behind, where that can be found.
    pub(crate) tree: Option<Arc<Tree>>,
    /// What ends the job when it is dropped.
    pub(crate) spawners: Option<&'a Arc<Mutex<Spawners>>>,
}

/// Why nothing runs.
pub(crate) enum Unlaunched {
    /// A step of the new process.
    Failed(Failed),
    /// Something before it.
    NotStarted(NotStarted),
}

impl From<NotStarted> for Unlaunched {
    fn from(not_started: NotStarted) -> Self {
        Unlaunched::NotStarted(not_started)
    }
}

/// Starts an order's program by `spawn`, and has the runtime drive the job.
///
/// # Errors
/// [`Unlaunched`]: nothing of it has run.
pub(crate) fn launch(
    order: &Order,
    limits: &Limits,
    launching: Launching<'_>,
    spawn: impl FnOnce(&Plan<'_>) -> Result<Spawned, Failed>,
) -> Result<Job, Unlaunched> {
    let Launching { null, cgroups, config, running, held, runtime, rings, on_change, session, .. } =
        launching;
    let Launching { tree, spawners, .. } = launching;
    let Channels { ours, theirs, reports } = match &order.terminal {
        Some(terminal) => Channels::terminal(terminal)
            .map_err(|error| NotStarted::bytes(Step::Terminal, error.raw_os_error(), b""))?,
        None => Channels::pipes(order.stdin, null).map_err(descriptors)?,
    };
    let cgroup = limits.memory.and_then(|bytes| cgroup(cgroups, bytes));

    let started = SystemTime::now();
    let start = Instant::now();
    let spawned = spawn(&Plan {
        candidates: &order.candidates,
        argv: &order.argv,
        envp: &order.envp,
        cwd: &order.cwd,
        or_root: order.or_root,
        stdio: theirs.each_ref().map(AsFd::as_fd),
        terminal: order.terminal.is_some(),
        reports: reports.as_ref().map(AsFd::as_fd),
        open_files: limits.open_files,
        address_space: limits.memory.filter(|_| cgroup.is_none()),
        cgroup: cgroup.as_ref().map(JobCgroup::procs),
        umask: order.umask,
    })
    .map_err(Unlaunched::Failed)?;

    drop((theirs, reports));
    let is_terminal = order.terminal.is_some();
    let pidfd = Arc::new(spawned.pidfd);
    let input = InputQueue::new(limits.stdin_window, ours.stdin.is_none());
    let rings = rings.unwrap_or_else(|| [Ring::new(limits.window), Ring::new(limits.window)]);
    let shared = Arc::new(Shared::new(
        Process {
            pid: spawned.pid,
            pidfd: Arc::clone(&pidfd),
            command: spawned.command,
            in_root: spawned.in_root,
        },
        rings,
        input,
        on_change,
        Arc::clone(running),
        ours.master,
    ));
    if order.keep_order {
        shared.keep_order();
    }
    // From here on, whatever fails, dropping this kills the job.
    let job = Job::new(Arc::clone(&shared));
    let registered = (|| {
        Ok((
            sys::watch(pidfd, Interest::READABLE)?,
            sys::watch(ours.stdout, Interest::READABLE)?,
            ours.stderr.map(|pipe| sys::watch(pipe, Interest::READABLE)).transpose()?,
            ours.reports.map(|socket| sys::watch(socket, Interest::READABLE)).transpose()?,
        ))
    })();
    let (pidfd, stdout, stderr, reports) = match registered {
        Ok(registered) => registered,
        Err(error) => {
            let mut state = shared.lock();
            state.signal(shared.pids, Signal::KILL);
            sys::kill_and_reap(spawned.pid);
            state.reaped = true;
            drop(state);
            return Err(descriptors(error).into());
        }
    };
    runtime.spawn(Driver {
        shared,
        pidfd,
        stdout: Reader::new(Some(stdout), config.drain, is_terminal),
        stderr: Reader::new(stderr, config.drain, is_terminal),
        stdin: ours.stdin.map(|pipe| Writer::new(pipe, is_terminal)),
        reports: reports.map(Reports::new),
        clock: Clock {
            started,
            start,
            deadline: limits.wall.and_then(|wall| start.checked_add(wall)),
            over: None,
        },
        kill_grace: config.kill_grace,
        wait_streams: order.wait_streams,
        allowance: limits.output,
        exceeded: false,
        overflowed: false,
        memory: limits.memory.map(|_| match cgroup {
            Some(cgroup) => MemoryLimit::Cgroup(cgroup),
            None => MemoryLimit::AddressSpace,
        }),
        floor: spawned.floor,
        killing: Killing::default(),
        tree,
        timer: None,
        held: Arc::clone(held),
        session,
        _spawners: spawners.map(Arc::clone),
    });
    Ok(job)
}

fn cgroup(parent: Option<&Parent>, bytes: u64) -> Option<JobCgroup> {
    match parent?.limit_memory(bytes) {
        Ok(cgroup) => cgroup,
        Err(error) => {
            tracing::warn!(%error, "no cgroup for a job, its memory is limited by RLIMIT_AS");
            None
        }
    }
}

/// What connects a job with this process.
struct Channels {
    ours: Ours,
    /// What become its descriptors 0, 1 and 2; all of them above 2.
    theirs: [OwnedFd; 3],
    /// What its leader has, if it has one.
    reports: Option<OwnedFd>,
}

/// Our ends. None of them blocks.
struct Ours {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    /// None where it is one with stdout.
    stderr: Option<OwnedFd>,
    /// The terminal, to be resized.
    master: Option<OwnedFd>,
    /// Where its leader says how it is, if it has one.
    reports: Option<OwnedFd>,
}

impl Channels {
    fn pipes(stdin: Stdin, null: BorrowedFd<'_>) -> io::Result<Self> {
        let output = || -> io::Result<(OwnedFd, OwnedFd)> {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            Ok((unblocked(read)?, sys::above_stdio(write)?))
        };
        let (stdin, in_theirs) = match stdin {
            Stdin::Null => (None, sys::above_stdio(null.try_clone_to_owned()?)?),
            Stdin::Piped => {
                let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
                (Some(unblocked(write)?), sys::above_stdio(read)?)
            }
        };
        let (stdout, out_theirs) = output()?;
        let (stderr, err_theirs) = output()?;
        Ok(Channels {
            ours: Ours { stdin, stdout, stderr: Some(stderr), master: None, reports: None },
            theirs: [in_theirs, out_theirs, err_theirs],
            reports: None,
        })
    }

    fn terminal(terminal: &Terminal) -> io::Result<Self> {
        let (master, slave) = terminal::open(terminal)?;
        let master = unblocked(master)?;
        let slave = sys::above_stdio(slave)?;
        let (reports, their_reports) = if terminal.job_control {
            let (ours, theirs) =
                socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
            (Some(ours), Some(theirs))
        } else {
            (None, None)
        };
        // The reader and the writer watch a descriptor each; their flags are the same file's.
        Ok(Channels {
            ours: Ours {
                stdin: Some(master.try_clone()?),
                stdout: master.try_clone()?,
                stderr: None,
                master: Some(master),
                reports,
            },
            theirs: [slave.try_clone()?, slave.try_clone()?, slave],
            reports: their_reports,
        })
    }
}

/// Makes our end of a pipe return at once. The other end is another open file description, and blocks.
fn unblocked(fd: OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
    Ok(fd)
}

fn descriptors(error: io::Error) -> NotStarted {
    NotStarted::bytes(Step::Descriptors, error.raw_os_error(), b"")
}
