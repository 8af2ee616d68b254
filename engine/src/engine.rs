//! Starting jobs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use remora_identity::Permitted;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::PipeFlags;
use tokio::io::Interest;

use crate::answer;
use crate::cgroup::{JobCgroup, Parent};
use crate::config::EngineConfig;
use crate::driver::{Clock, Driver, Killing, MemoryLimit};
use crate::error::{NotStarted, Step};
use crate::input::InputQueue;
use crate::job::Job;
use crate::prepare::prepare;
use crate::reader::Reader;
use crate::reports::Reports;
use crate::request::{JobRequest, Limits, Stdin, Terminal};
use crate::session::{self, Begun, Captures, Sessions};
use crate::signal::Signal;
use crate::spawners::{Spawners, Times};
use crate::state::{OnChange, Process, Shared};
use crate::sys::{self, Plan};
use crate::terminal;
use crate::writer::Writer;

/// Starts jobs, as the account this process runs as. Made once.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    cgroups: Option<Parent>,
    null: OwnedFd,
    spawners: Arc<Mutex<Spawners>>,
    running: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    sessions: Sessions,
    captures: Captures,
}

impl Engine {
    /// Makes an engine: opens `/dev/null`, looks for a cgroup to make cgroups in, sees to it that children can be waited for
    /// (SIGCHLD isn't ignored), and forks the spawner, which starts commands. The earlier, the smaller the spawner is, and
    /// the smaller the commands whose peak memory can be told.
    ///
    /// The process must ignore SIGPIPE, as Rust programs do unless told otherwise: commands close their input early.
    ///
    /// # Errors
    /// Where `/dev/null` can't be opened, or no process be made.
    pub fn new(config: EngineConfig) -> io::Result<Self> {
        sys::waitable_children();
        let null = sys::above_stdio(OwnedFd::from(File::open("/dev/null")?))?;
        let cgroups = Parent::find(&config.cgroup);
        let spawners = Spawners::start(
            null.as_fd(),
            Times { grace: config.kill_grace, patience: config.start_patience },
        )?;
        let spawners = Arc::new(Mutex::new(spawners));
        let sessions = Sessions::new(config.environment.clone(), config.sessions.clone());
        let captures = Captures::new(config.capture_dir.clone());
        let (running, held) = (Arc::default(), Arc::default());
        Ok(Engine { config, cgroups, null, spawners, running, held, sessions, captures })
    }

    /// The sessions that jobs may run in.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Jobs that are not finished.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Streams of finished jobs that background processes hold open, each a descriptor of this process. They are read to
    /// nowhere until they end.
    pub fn held_open(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Starts a job and returns when its program is executed. A task on the caller's tokio runtime (with time and I/O)
    /// drives it.
    ///
    /// `on_change` is called from that task, never under a lock, whenever an observer should look: output came, input
    /// was consumed, a stream ended, the job is finished. It must be quick and must not block.
    ///
    /// # Errors
    /// [`NotStarted`]: nothing of it has run.
    pub fn start(
        &self,
        permitted: Permitted<JobRequest>,
        limits: Limits,
        on_change: OnChange,
    ) -> Result<Job, NotStarted> {
        let (mut request, account, _authority) = permitted.into_parts();
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|_| NotStarted::bytes(Step::Runtime, None, b""))?;
        if account.uid != rustix::process::geteuid().as_raw() {
            return Err(NotStarted::new(Step::Account, Some(libc::EPERM), &account.name));
        }
        let (mut session, mut place) = (None, None);
        if let Some(its) = request.session.take() {
            match session::begin(its, &mut request, &self.captures, &account) {
                Begun::Answered { stdout, status, change } => {
                    let is_terminal = request.terminal.is_some();
                    return Ok(answer::job(stdout, status, change, is_terminal, on_change, &self.running));
                }
                Begun::Runs(running, its) => (session, place) = (Some(running), Some(its)),
            }
        }
        let (prepared, rest) = prepare(request, place, &self.config.environment, &account)?;
        let Channels { ours, theirs, reports } = match &rest.terminal {
            Some(terminal) => Channels::terminal(terminal)
                .map_err(|error| NotStarted::bytes(Step::Terminal, error.raw_os_error(), b""))?,
            None => Channels::pipes(rest.stdin, self.null.as_fd()).map_err(descriptors)?,
        };
        let cgroup = limits.memory.and_then(|bytes| self.cgroup(bytes));

        let started = SystemTime::now();
        let start = Instant::now();
        let mut spawners = self.spawners.lock().unwrap_or_else(PoisonError::into_inner);
        let spawned = spawners
            .spawn(
                self.null.as_fd(),
                &Plan {
                    candidates: &prepared.candidates,
                    argv: &prepared.argv,
                    envp: &prepared.envp,
                    cwd: &prepared.cwd,
                    or_root: prepared.is_home,
                    stdio: theirs.each_ref().map(AsFd::as_fd),
                    terminal: rest.terminal.is_some(),
                    reports: reports.as_ref().map(AsFd::as_fd),
                    open_files: limits.open_files,
                    address_space: limits.memory.filter(|_| cgroup.is_none()),
                    cgroup: cgroup.as_ref().map(JobCgroup::procs),
                    umask: rest.umask,
                },
            )
            .map_err(|failed| prepared.explain(failed))?;
        drop(spawners);

        drop((theirs, reports));
        let is_terminal = rest.terminal.is_some();
        let pidfd = Arc::new(spawned.pidfd);
        let input = InputQueue::new(limits.stdin_window, ours.stdin.is_none());
        let shared = Arc::new(Shared::new(
            Process {
                pid: spawned.pid,
                pidfd: Arc::clone(&pidfd),
                command: spawned.command,
                in_root: spawned.in_root,
            },
            limits.window,
            input,
            on_change,
            Arc::clone(&self.running),
            ours.master,
        ));
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
                return Err(descriptors(error));
            }
        };
        runtime.spawn(Driver {
            shared,
            pidfd,
            stdout: Reader::new(Some(stdout), self.config.drain, is_terminal),
            stderr: Reader::new(stderr, self.config.drain, is_terminal),
            stdin: ours.stdin.map(|pipe| Writer::new(pipe, is_terminal)),
            reports: reports.map(Reports::new),
            clock: Clock {
                started,
                start,
                deadline: limits.wall.and_then(|wall| start.checked_add(wall)),
                over: None,
            },
            kill_grace: self.config.kill_grace,
            wait_streams: rest.wait_streams,
            allowance: limits.output,
            exceeded: false,
            memory: limits.memory.map(|_| match cgroup {
                Some(cgroup) => MemoryLimit::Cgroup(cgroup),
                None => MemoryLimit::AddressSpace,
            }),
            floor: spawned.floor,
            killing: Killing::default(),
            timer: None,
            held: Arc::clone(&self.held),
            session,
            _spawners: Arc::clone(&self.spawners),
        });
        Ok(job)
    }

    fn cgroup(&self, bytes: u64) -> Option<JobCgroup> {
        match self.cgroups.as_ref()?.limit_memory(bytes) {
            Ok(cgroup) => Some(cgroup),
            Err(error) => {
                tracing::warn!(%error, "no cgroup for a job, its memory is limited by RLIMIT_AS");
                None
            }
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
