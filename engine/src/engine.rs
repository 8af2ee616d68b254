//! Starting jobs.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use remora_identity::Permitted;

use crate::answer;
use crate::cgroup::Parent;
use crate::config::EngineConfig;
use crate::error::{NotStarted, Step};
use crate::job::Job;
use crate::keeping::{Asking, DetachedJob, Found, JobKey, Keep, Keepers, Log, Start, WardenLink};
use crate::launch::{Launching, Unlaunched, launch};
use crate::prepare::Prepared;
use crate::request::{JobRequest, Limits};
use crate::session::{self, Captures, Running, Sessions, Telling};
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
    /// Makes an engine whose jobs have keepers, which a warden forks: they go on when this process ends, and sessions are kept on the
    /// disk. `state_dir` is the warden's.
    ///
    /// # Errors
    /// Where `/dev/null`, the folder of jobs or the one of sessions can't be opened.
    pub fn with_keepers(config: EngineConfig, link: WardenLink, state_dir: &Path) -> io::Result<Self> {
        let keepers = Keepers::new(link, state_dir)?;
        let null = sys::above_stdio(OwnedFd::from(File::open("/dev/null")?))?;
        let folder = state_dir.join("sessions");
        let sessions = Sessions::kept(config.environment.clone(), config.sessions.clone(), folder)?;
        Ok(Engine::by(config, null, None, Means::Keepers(keepers), sessions))
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
        let sessions = Sessions::new(config.environment.clone(), config.sessions.clone());
        Ok(Engine::by(config, null, cgroups, Means::Children(Arc::new(Mutex::new(spawners))), sessions))
    }

    fn by(
        config: EngineConfig,
        null: OwnedFd,
        cgroups: Option<Parent>,
        means: Means,
        sessions: Sessions,
    ) -> Self {
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
            Means::Keepers(keepers) => keepers.found(&self.sessions),
        }
    }

    /// The job of a key that is taken ([`NotStarted::is_taken`]), if there is one: the server before has started it as it died. `is_brief`:
    /// its keeper is waited for for a moment only, and asked again by who is told that it is silent.
    pub fn find(&self, key: JobKey, is_brief: bool) -> Option<Found> {
        match &self.means {
            Means::Children(_) => None,
            Means::Keepers(keepers) => keepers.find(key, &self.sessions, is_brief),
        }
    }

    /// Forgets a job that was found lost.
    pub fn forget(&self, key: JobKey) {
        if let Means::Keepers(keepers) = &self.means {
            keepers.forget(key);
        }
    }

    /// The time within which no job was forgotten whose client may come back, 16 bytes that stand for it. To be asked behind
    /// [`Engine::found`]. With keepers it lasts beyond this process.
    pub fn epoch(&self) -> [u8; 16] {
        let kept = match &self.means {
            Means::Children(_) => None,
            Means::Keepers(keepers) => keepers.epoch().ok(),
        };
        kept.unwrap_or_else(fresh_epoch)
    }

    /// Ends it and begins the next, since a job is forgotten whose client may come back.
    pub fn begin_epoch(&self) -> [u8; 16] {
        let kept = match &self.means {
            Means::Children(_) => None,
            Means::Keepers(keepers) => keepers.begin_epoch().ok(),
        };
        kept.unwrap_or_else(fresh_epoch)
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
            Means::Keepers(keepers) => keepers.detached(&self.sessions),
        }
    }

    /// A detached job, as [`Engine::detached`] gives it.
    pub fn detached_job(&self, key: JobKey) -> Option<DetachedJob> {
        match &self.means {
            Means::Children(_) => None,
            Means::Keepers(keepers) => keepers.detached_job(key, &self.sessions),
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
        match self.try_start(permitted, limits, on_change)? {
            Tried::Started(job) => Ok(job),
            Tried::Asking(asking) => self.finish(*asking),
        }
    }

    /// As [`Engine::start`], and returns soon: where a keeper takes its time to execute the program (a file system that hangs, say),
    /// what is left of it can be waited for elsewhere.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn begin(
        self: &Arc<Self>,
        permitted: Permitted<JobRequest>,
        limits: Limits,
        on_change: OnChange,
    ) -> Result<Begun, NotStarted> {
        Ok(match self.try_start(permitted, limits, on_change)? {
            Tried::Started(job) => Begun::Started(job),
            Tried::Asking(asking) => Begun::Later(StartLater { engine: Arc::clone(self), asking }),
        })
    }

    fn try_start(
        &self,
        permitted: Permitted<JobRequest>,
        limits: Limits,
        on_change: OnChange,
    ) -> Result<Tried, NotStarted> {
        let (mut request, account, _authority) = permitted.into_parts();
        let runtime =
            tokio::runtime::Handle::try_current().map_err(|_| NotStarted::bytes(Step::Runtime, None, b""))?;
        if account.uid != rustix::process::geteuid().as_raw() {
            return Err(NotStarted::new(Step::Account, Some(libc::EPERM), &account.name));
        }
        let (mut session, mut place) = (None, None);
        let key = match request.key {
            Some(key) => key,
            None => JobKey::random().map_err(no_key)?,
        };
        if let Some(its) = request.session.take() {
            let captures = &self.captures;
            let telling = match &self.means {
                Means::Children(_) => Telling::Here(captures),
                Means::Keepers(keepers) => Telling::Keeper { key, path: keepers.told_path(key), captures },
            };
            match session::begin(its, &mut request, telling, &account) {
                session::Begun::Answered { stdout, status, change } => {
                    let is_terminal = request.terminal.is_some();
                    let job = answer::job(stdout, status, change, is_terminal, on_change, &self.running);
                    return Ok(Tried::Started(job));
                }
                session::Begun::Runs(running, its) => (session, place) = (running, Some(its)),
            }
        }
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
                    tree: None,
                    spawners: Some(spawners),
                };
                launch(&prepared.order, &limits, launching, |plan| {
                    let mut spawners = spawners.lock().unwrap_or_else(PoisonError::into_inner);
                    spawners.spawn(self.null.as_fd(), plan)
                })
            }
            Means::Keepers(keepers) => {
                let mut asking = keepers.ask(Keep {
                    start: Start {
                        key,
                        order: prepared.order.clone(),
                        limits,
                        linger,
                        note,
                        session: session.as_ref().map(Running::note).unwrap_or_default(),
                        tells: session.as_ref().is_some_and(Running::is_heard_by_keeper),
                        detach,
                    },
                    patience: self.config.start_patience,
                    on_change,
                    session,
                });
                match keepers.look(&mut asking, Instant::now() + SOON, false) {
                    Some(launched) => launched,
                    None => return Ok(Tried::Asking(Box::new((prepared, asking)))),
                }
            }
        };
        launched.map(Tried::Started).map_err(|unlaunched| explained(unlaunched, &prepared))
    }

    /// Waits for a keeper that takes its time.
    fn finish(&self, (prepared, mut asking): (Prepared, Asking)) -> Result<Job, NotStarted> {
        let Means::Keepers(keepers) = &self.means else {
            return Err(NotStarted::bytes(Step::Keeper, None, b""));
        };
        loop {
            if let Some(launched) = keepers.look(&mut asking, Instant::now() + STILL, true) {
                return launched.map_err(|unlaunched| explained(unlaunched, &prepared));
            }
        }
    }
}

/// What came of a start so far.
enum Tried {
    Started(Job),
    Asking(Box<(Prepared, Asking)>),
}

fn explained(unlaunched: Unlaunched, prepared: &Prepared) -> NotStarted {
    match unlaunched {
        Unlaunched::Failed(failed) => prepared.explain(failed),
        Unlaunched::NotStarted(not_started) => not_started,
    }
}

/// How long a start is waited for by whoever has others to care for.
const SOON: Duration = Duration::from_millis(100);

/// What came of a start at once.
pub enum Begun {
    /// Its program is executed.
    Started(Job),
    /// Its keeper has not said so yet.
    Later(StartLater),
}

/// A start whose keeper takes its time.
pub struct StartLater {
    engine: Arc<Engine>,
    asking: Box<(Prepared, Asking)>,
}

impl StartLater {
    /// Waits for the rest of [`EngineConfig::start_patience`]. Not for a thread that has anything else to do; within a runtime's.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn finish(self) -> Result<Job, NotStarted> {
        self.engine.finish(*self.asking)
    }
}

/// How long a keeper may stand still before another one is told to start the job.
const STILL: Duration = Duration::from_secs(1);

fn no_key(error: io::Error) -> NotStarted {
    NotStarted::bytes(Step::Keeper, error.raw_os_error(), b"")
}

fn fresh_epoch() -> [u8; 16] {
    // Without random bytes no connection comes about either: its nonce needs them.
    JobKey::random().map_or([0; 16], |JobKey(epoch)| epoch)
}
