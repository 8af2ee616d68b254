//! Starting jobs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use remora_identity::Permitted;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use tokio::io::Interest;

use crate::cgroup::{JobCgroup, Parent};
use crate::config::EngineConfig;
use crate::driver::{Clock, Driver, Killing, MemoryLimit};
use crate::error::{NotStarted, Step};
use crate::input::InputQueue;
use crate::job::Job;
use crate::prepare::prepare;
use crate::reader::Reader;
use crate::request::{JobRequest, Limits, Stdin};
use crate::spawners::{Spawners, Times};
use crate::state::{OnChange, Shared};
use crate::sys::{self, Plan};
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
        Ok(Engine { config, cgroups, null, spawners, running: Arc::default(), held: Arc::default() })
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
        let (request, account, _authority) = permitted.into_parts();
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|_| NotStarted::bytes(Step::Runtime, None, b""))?;
        if account.uid != rustix::process::geteuid().as_raw() {
            return Err(NotStarted::new(Step::Account, Some(libc::EPERM), &account.name));
        }
        let (prepared, rest) = prepare(request, &self.config.environment, &account)?;
        let pipes = Pipes::new(rest.stdin).map_err(descriptors)?;
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
                    stdio: [
                        pipes.stdin.as_ref().map_or(self.null.as_fd(), |pipe| pipe.theirs.as_fd()),
                        pipes.stdout.theirs.as_fd(),
                        pipes.stderr.theirs.as_fd(),
                    ],
                    open_files: limits.open_files,
                    address_space: limits.memory.filter(|_| cgroup.is_none()),
                    cgroup: cgroup.as_ref().map(JobCgroup::procs),
                    umask: rest.umask,
                },
            )
            .map_err(|failed| prepared.explain(failed))?;
        drop(spawners);

        let Pipes { stdin, stdout, stderr } = pipes;
        let pidfd = Arc::new(spawned.pidfd);
        let input = InputQueue::new(limits.stdin_window, stdin.is_none());
        let shared = Arc::new(Shared::new(
            spawned.pid,
            Arc::clone(&pidfd),
            limits.window,
            input,
            on_change,
            Arc::clone(&self.running),
        ));
        // From here on, whatever fails, dropping this kills the job.
        let job = Job::new(Arc::clone(&shared));
        let registered = (|| {
            Ok((
                sys::watch(pidfd, Interest::READABLE)?,
                sys::watch(stdout.ours, Interest::READABLE)?,
                sys::watch(stderr.ours, Interest::READABLE)?,
            ))
        })();
        let (pidfd, stdout, stderr) = match registered {
            Ok(registered) => registered,
            Err(error) => {
                sys::kill_and_reap(spawned.pid);
                shared.lock().reaped = true;
                return Err(descriptors(error));
            }
        };
        runtime.spawn(Driver {
            shared,
            pidfd,
            stdout: Reader::new(stdout, self.config.drain),
            stderr: Reader::new(stderr, self.config.drain),
            stdin: stdin.map(|pipe| Writer::new(pipe.ours)),
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

/// A pipe between this process and a child. Our end doesn't block.
struct Pipe {
    ours: OwnedFd,
    theirs: OwnedFd,
}

struct Pipes {
    stdin: Option<Pipe>,
    stdout: Pipe,
    stderr: Pipe,
}

impl Pipes {
    fn new(stdin: Stdin) -> io::Result<Self> {
        let output = || -> io::Result<Pipe> {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            Ok(Pipe { ours: unblocked(read)?, theirs: sys::above_stdio(write)? })
        };
        let stdin = match stdin {
            Stdin::Null => None,
            Stdin::Piped => {
                let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
                Some(Pipe { ours: unblocked(write)?, theirs: sys::above_stdio(read)? })
            }
        };
        Ok(Pipes { stdin, stdout: output()?, stderr: output()? })
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
