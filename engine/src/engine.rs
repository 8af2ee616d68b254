//! Starting jobs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use remora_identity::Permitted;

use crate::answer;
use crate::cgroup::Parent;
use crate::config::EngineConfig;
use crate::error::{NotStarted, Step};
use crate::job::Job;
use crate::keeping::{DetachedJob, Found, JobKey, Keep, Keepers, Log, Start, WardenLink};
use crate::launch::{Launching, Unlaunched, launch};
use crate::prepare::Prepared;
use crate::request::{JobRequest, Limits};
use crate::session::{self, Begun, Captures, Sessions};
use crate::spawners::{Spawners, Times};
use crate::state::OnChange;
use crate::sys;

/// Starts jobs, as the account this process runs as. Made once.
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    cgroups: Option<Parent>,
    null: OwnedFd,
    means: Means,
    running: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    sessions: Sessions,
    captures: Captures,
}

/// How jobs are run.
#[derive(Debug)]
enum Means {
    /// As children of this process. They end with it.
    Children(Arc<Mutex<Spawners>>),
    /// By keepers.
    Keepers(Keepers),
}

impl Engine {
    /// Makes an engine whose jobs have keepers, which a warden forks: they go on when this process ends. `state_dir` is the warden's.
    ///
    /// # Errors
    /// Where `/dev/null` or the folder of jobs can't be opened.
    pub fn with_keepers(config: EngineConfig, link: WardenLink, state_dir: &Path) -> io::Result<Self> {
        let keepers = Keepers::new(link, state_dir)?;
        let null = sys::above_stdio(OwnedFd::from(File::open("/dev/null")?))?;
        Ok(Engine::by(config, null, None, Means::Keepers(keepers)))
    }

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
        Ok(Engine::by(config, null, cgroups, Means::Children(Arc::new(Mutex::new(spawners)))))
    }

    fn by(config: EngineConfig, null: OwnedFd, cgroups: Option<Parent>, means: Means) -> Self {
        let sessions = Sessions::new(config.environment.clone(), config.sessions.clone());
        let captures = Captures::new(config.capture_dir.clone());
        let (running, held) = (Arc::default(), Arc::default());
        Engine { config, cgroups, null, means, running, held, sessions, captures }
    }

    /// The jobs that keepers have from before this process. To be asked once; empty without keepers.
    ///
    /// # Errors
    /// The folder of jobs can't be read.
    pub fn found(&self) -> io::Result<Vec<Found>> {
        match &self.means {
            Means::Children(_) => Ok(Vec::new()),
            Means::Keepers(keepers) => keepers.found(),
        }
    }

    /// Forgets a job that was found lost.
    pub fn forget(&self, key: JobKey) {
        if let Means::Keepers(keepers) = &self.means {
            keepers.forget(key);
        }
    }

    /// Whether jobs have keepers, so that they can be detached.
    pub fn has_keepers(&self) -> bool {
        matches!(self.means, Means::Keepers(_))
    }

    /// The detached jobs that are there, whoever started them. Those that run are taken up: to be asked once; empty without keepers.
    ///
    /// # Errors
    /// The folder of jobs can't be read.
    pub fn detached(&self) -> io::Result<Vec<DetachedJob>> {
        match &self.means {
            Means::Children(_) => Ok(Vec::new()),
            Means::Keepers(keepers) => keepers.detached(),
        }
    }

    /// A detached job, as [`Engine::detached`] gives it.
    pub fn detached_job(&self, key: JobKey) -> Option<DetachedJob> {
        match &self.means {
            Means::Children(_) => None,
            Means::Keepers(keepers) => keepers.detached_job(key),
        }
    }

    /// What a detached job has printed.
    ///
    /// # Errors
    /// There is no such job, or its files can't be read.
    pub fn log(&self, key: JobKey) -> io::Result<Log> {
        match &self.means {
            Means::Children(_) => Err(io::ErrorKind::NotFound.into()),
            Means::Keepers(keepers) => keepers.log(key),
        }
    }

    /// Removes what is there of a detached job. To be asked only once it is over.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, key: JobKey) -> io::Result<()> {
        match &self.means {
            Means::Children(_) => Ok(()),
            Means::Keepers(keepers) => keepers.remove(key),
        }
    }

    /// This process ends, and jobs that have keepers go on: from now on dropping one leaves it alone. Whether jobs have keepers.
    pub fn leave(&self) -> bool {
        match &self.means {
            Means::Children(_) => false,
            Means::Keepers(keepers) => {
                keepers.leave();
                true
            }
        }
    }

    /// The sessions that jobs may run in.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Jobs that are not finished.
    pub fn running(&self) -> usize {
        let kept = match &self.means {
            Means::Children(_) => 0,
            Means::Keepers(keepers) => keepers.running(),
        };
        self.running.load(Ordering::Relaxed) + kept
    }

    /// Streams of finished jobs that background processes hold open, each a descriptor of this process. They are read to
    /// nowhere until they end.
    pub fn held_open(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether this process ends and its jobs go on.
    pub fn is_leaving(&self) -> bool {
        match &self.means {
            Means::Children(_) => false,
            Means::Keepers(keepers) => keepers.is_leaving(),
        }
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
        let key = request.key;
        let (note, linger, detach) = (std::mem::take(&mut request.note), request.linger, request.detach);
        if detach.is_some() && !self.has_keepers() {
            return Err(NotStarted::bytes(Step::Keeper, None, b""));
        }
        let prepared = Prepared::new(request, place, &self.config.environment, &account)?;
        let launched = match &self.means {
            Means::Children(spawners) => {
                let launching = Launching {
                    null: self.null.as_fd(),
                    cgroups: self.cgroups.as_ref(),
                    config: &self.config,
                    running: &self.running,
                    held: &self.held,
                    runtime: &runtime,
                    rings: None,
                    on_change,
                    session,
                    spawners: Some(spawners),
                };
                launch(&prepared.order, &limits, launching, |plan| {
                    let mut spawners = spawners.lock().unwrap_or_else(PoisonError::into_inner);
                    spawners.spawn(self.null.as_fd(), plan)
                })
            }
            Means::Keepers(keepers) => keepers.start(Keep {
                start: Start {
                    key: key.map_or_else(JobKey::random, Ok).map_err(no_key)?,
                    order: prepared.order.clone(),
                    limits,
                    linger,
                    note,
                    detach,
                },
                patience: self.config.start_patience,
                on_change,
                session,
            }),
        };
        launched.map_err(|unlaunched| match unlaunched {
            Unlaunched::Failed(failed) => prepared.explain(failed),
            Unlaunched::NotStarted(not_started) => not_started,
        })
    }
}

fn no_key(error: io::Error) -> NotStarted {
    NotStarted::bytes(Step::Keeper, error.raw_os_error(), b"")
}
