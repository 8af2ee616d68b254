//! What an engine is made with. Parsed elsewhere, once; this crate reads no environment of its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::session::SessionLimits;

/// How long output is waited for once the process is over and somebody else holds a stream open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainRule {
    /// A stream is given up after this long without a byte.
    pub quiet: Duration,
    /// A stream is given up after this long in any case.
    pub total: Duration,
}

impl Default for DrainRule {
    /// 200 ms and 2 s.
    fn default() -> Self {
        DrainRule { quiet: Duration::from_millis(200), total: Duration::from_secs(2) }
    }
}

/// The environment every job begins with, besides `HOME`, `USER`, `LOGNAME` and `SHELL` of its account. Like sshd's:
/// nothing of this process's own environment is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseEnvironment {
    /// `PATH` of ordinary accounts.
    pub path: OsString,
    /// `PATH` of uid 0.
    pub root_path: OsString,
    /// `LANG`, if any.
    pub lang: Option<OsString>,
}

impl Default for BaseEnvironment {
    fn default() -> Self {
        BaseEnvironment {
            path: "/usr/local/bin:/usr/bin:/bin".into(),
            root_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            lang: None,
        }
    }
}

/// Where cgroups for jobs with a memory limit are made.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum CgroupParent {
    /// Below the cgroup of this process, where that is delegated to it and has the memory controller.
    #[default]
    Detect,
    /// Below this folder of a cgroup v2 file system, if it has the memory controller.
    At(PathBuf),
    /// Nowhere: memory is limited by `RLIMIT_AS`.
    Off,
}

/// What an [`Engine`](crate::Engine) is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// The environment every job begins with.
    pub environment: BaseEnvironment,
    /// When streams that others hold open are given up.
    pub drain: DrainRule,
    /// Time between SIGTERM and SIGKILL when a job is ended.
    pub kill_grace: Duration,
    /// How long a start may take, from the request to the executed program: beyond it the start is given up, and what comes of
    /// it late is killed. A dead network file system makes execve(2) and chdir(2) hang.
    pub start_patience: Duration,
    /// Where cgroups are made.
    pub cgroup: CgroupParent,
    /// How many sessions there may be, and for how long.
    pub sessions: SessionLimits,
    /// A folder, made when needed, that only this account can use: shells tell the state of sessions there. `None`: what lines
    /// change is lost, and said to be.
    pub capture_dir: Option<PathBuf>,
}

impl Default for EngineConfig {
    /// The drain rule's, sessions' and environment's defaults, 2 s of grace, cgroups where they can be had, and no folder.
    fn default() -> Self {
        EngineConfig {
            environment: BaseEnvironment::default(),
            drain: DrainRule::default(),
            kill_grace: Duration::from_secs(2),
            start_patience: Duration::from_secs(20),
            cgroup: CgroupParent::default(),
            sessions: SessionLimits::default(),
            capture_dir: None,
        }
    }
}
