//! What a server needs to know, as types. Made at the edge, from flags and file; connections and jobs that start after a reload see
//! the new ones.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use remora_engine::sys::{boot_id, hostname};
use remora_engine::{Engine, EngineConfig, Limits, SessionLimits, WardenLink};
use remora_identity::{Account, Policy};
use remora_net::tls::HostKeys;
use remora_wire::limits;
use tokio::sync::Semaphore;

use crate::detached::DetachedJobs;
use crate::key_files::KeyFiles;
use crate::key_path::KeyPath;
use crate::registry::Registry;

/// Limits of each job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobLimits {
    /// Wall time.
    pub wall: Option<Duration>,
    /// Memory, bytes.
    pub memory: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
    /// Bytes of stdout and stderr together.
    pub output: Option<u64>,
}

impl JobLimits {
    /// The engine's limits, with what the request asks for where that is less.
    pub(crate) fn engine(&self, timeout: Option<Duration>) -> Limits {
        let wall = match (self.wall, timeout) {
            (Some(limit), Some(asked)) => Some(limit.min(asked)),
            (limit, asked) => limit.or(asked),
        };
        Limits {
            wall,
            memory: self.memory,
            open_files: self.open_files,
            output: self.output,
            ..Limits::default()
        }
    }
}

/// Everything that is the same for all connections.
#[derive(Clone)]
pub struct Settings {
    /// Starts processes.
    pub engine: Arc<Engine>,
    /// Judges requests.
    pub policy: Policy,
    /// The host's keys; none where only local carriers are served.
    pub host_keys: Option<HostKeys>,
    /// Where the keys of users are.
    pub authorized_keys: Vec<KeyPath>,
    /// Reads them.
    pub(crate) key_files: KeyFiles,
    /// Limits of each job.
    pub limits: JobLimits,
    /// Host name, for people.
    pub host_name: String,
    /// This boot of the host.
    pub boot_id: [u8; 16],
    /// For how long a TLS handshake and the client's hello may take.
    pub handshake_timeout: Duration,
    /// For how long a client may take to prove who it is.
    pub auth_timeout: Duration,
    /// A failed proof is answered no sooner than this after it came.
    pub auth_floor: Duration,
    /// Connections that have not proven who they are: beyond this, the oldest is closed.
    pub max_unauthenticated: usize,
    /// Connections in all: beyond this, none is accepted.
    pub max_connections: usize,
    /// How long the job of a vanished client may go on before it is ended.
    pub vanished_grace: Duration,
    /// Whether jobs end with the server when that is told to stop. Otherwise they go on at their keepers.
    pub stop_jobs: bool,
    /// How long a job is kept at the most while nobody is connected to it, whatever its client asks for.
    pub max_linger: Duration,
    /// Jobs of one owner that are kept while nobody is connected to them.
    pub max_unattended: usize,
    /// For how long a detached job that is over is kept.
    pub detached_kept_for: Duration,
    /// How many detached jobs of one owner that are over are kept.
    pub detached_kept: usize,
    /// Those that there are.
    pub(crate) detached: Arc<DetachedJobs>,
    /// The jobs.
    pub(crate) registry: Arc<Registry>,
    /// How long they may go on after the server was told to stop.
    pub stop_grace: Duration,
    /// Whether the plain wires are for any peer, not for loopback peers of the served account alone.
    pub plain_any_peer: bool,
    /// Where large replies of plain wires wait, in files without a name.
    pub spool_dir: PathBuf,
    /// Completions that may read folders at a time.
    pub(crate) completions: Arc<Semaphore>,
}

fn engine_config(state_dir: Option<&Path>, sessions: SessionLimits) -> EngineConfig {
    let capture_dir = state_dir.map(|folder| folder.join("capture"));
    EngineConfig { sessions, capture_dir, ..EngineConfig::default() }
}

/// Completions at a time, of all connections together: a folder on a network that is away holds a thread.
const COMPLETIONS: usize = 8;

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The engine can't be set up.
    #[error("can't set up the engine")]
    Engine(#[source] std::io::Error),
    /// The account this process runs as is unknown.
    #[error("the user database doesn't know the account this runs as")]
    NoAccount,
}

impl Settings {
    /// The defaults, serving an account, with no key of host or user yet.
    ///
    /// Shells of sessions tell their state in a folder of `state_dir`, if there is one.
    ///
    /// # Errors
    /// [`SettingsError::Engine`].
    pub fn new(
        account: Account,
        state_dir: Option<&Path>,
        sessions: SessionLimits,
    ) -> Result<Self, SettingsError> {
        let engine = Engine::new(engine_config(state_dir, sessions)).map_err(SettingsError::Engine)?;
        Ok(Settings::of(account, engine))
    }

    /// As [`Settings::new`], with a keeper for each job, which the warden of this state directory forks.
    ///
    /// # Errors
    /// [`SettingsError::Engine`].
    pub fn with_keepers(
        account: Account,
        state_dir: &Path,
        sessions: SessionLimits,
        link: WardenLink,
    ) -> Result<Self, SettingsError> {
        let config = engine_config(Some(state_dir), sessions);
        let engine = Engine::with_keepers(config, link, state_dir).map_err(SettingsError::Engine)?;
        Ok(Settings::of(account, engine))
    }

    fn of(account: Account, engine: Engine) -> Self {
        let engine = Arc::new(engine);
        Settings {
            registry: Registry::new(engine.clone()),
            engine,
            policy: Policy::serving(account),
            host_keys: None,
            authorized_keys: Vec::new(),
            key_files: KeyFiles::new(),
            limits: JobLimits::default(),
            host_name: hostname().to_string_lossy().into_owned(),
            boot_id: boot_id().unwrap_or_default(),
            handshake_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(60),
            auth_floor: Duration::from_millis(250),
            max_unauthenticated: 256,
            max_connections: 4096,
            vanished_grace: Duration::from_secs(1),
            stop_jobs: false,
            max_linger: Duration::from_secs(24 * 60 * 60),
            max_unattended: limits::JOBS as usize,
            detached_kept_for: Duration::from_secs(7 * 24 * 60 * 60),
            detached_kept: 1000,
            detached: Arc::default(),
            stop_grace: Duration::from_secs(10),
            plain_any_peer: false,
            // Not /tmp, which is often memory.
            spool_dir: "/var/tmp".into(),
            completions: Arc::new(Semaphore::new(COMPLETIONS)),
        }
    }

    /// Takes over from the settings of before a reload what goes on: jobs, the engine that counts what runs, readings that may hang.
    pub fn succeed(&mut self, before: &Settings) {
        self.engine = before.engine.clone();
        self.key_files = before.key_files.clone();
        self.completions = before.completions.clone();
        self.registry = before.registry.clone();
        self.detached = before.detached.clone();
    }

    /// The settings of the `local` target: this account, over a socket pair, and nothing else.
    ///
    /// # Errors
    /// [`SettingsError`].
    pub fn for_local(state_dir: Option<&Path>) -> Result<Self, SettingsError> {
        let account = crate::account::own_account().ok_or(SettingsError::NoAccount)?;
        let mut settings = Settings::new(account, state_dir, SessionLimits::default())?;
        // Whoever leaves has pressed Ctrl-C twice: nobody waits for a moment more.
        settings.vanished_grace = Duration::ZERO;
        Ok(settings)
    }
}
