//! An engine with a session for a shell, and a folder with places to go to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use remora_engine::sys::{AccountKey, account};
use remora_engine::{
    Carried, CgroupParent, DrainRule, Ended, Engine, EngineConfig, Job, JobRequest, Limits, NotStarted,
    Outcome, Output, Session, SessionChange, SessionName,
};
use remora_identity::{Account, Authenticated, Permitted, Policy};
use tempfile::TempDir;
use tokio::sync::Notify;

/// Far above anything that happens; a test that reaches it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Every shell whose state can be captured. `./check` installs them.
pub(crate) const SHELLS: [&str; 4] = ["/bin/bash", "/bin/dash", "/bin/zsh", "/usr/bin/fish"];

pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) account: Account,
    pub(crate) folder: TempDir,
}

/// A line that is over.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ended: Arc<Ended>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn change(&self) -> &SessionChange {
        self.ended.session.as_ref().unwrap()
    }

    pub(crate) fn carried(&self) -> Carried {
        self.change().carried
    }

    pub(crate) fn status(&self) -> i32 {
        match self.ended.outcome() {
            Outcome::Exited(status) => status,
            other => panic!("{other:?}: {self:?}"),
        }
    }
}

pub(crate) fn config(folder: &Path) -> EngineConfig {
    EngineConfig {
        drain: DrainRule { quiet: Duration::from_millis(100), total: Duration::from_secs(1) },
        kill_grace: Duration::from_millis(300),
        cgroup: CgroupParent::Off,
        capture_dir: Some(folder.join("capture")),
        ..EngineConfig::default()
    }
}

impl Host {
    /// The account's shell is `shell`, its home a folder of the test's: with `a b/c`, `link` to `a b`, and `closed`.
    pub(crate) fn new(shell: &str) -> Self {
        Host::with(shell, |_| {})
    }

    pub(crate) fn with(shell: &str, change: impl FnOnce(&mut EngineConfig)) -> Self {
        assert!(Path::new(shell).exists(), "{shell} is missing; ./check installs it");
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        std::fs::create_dir_all(home.join("a b/c")).unwrap();
        std::fs::create_dir_all(home.join("-dash")).unwrap();
        std::os::unix::fs::symlink("a b", home.join("link")).unwrap();
        std::fs::write(home.join("file"), "").unwrap();
        let mut config = config(folder.path());
        change(&mut config);
        let me = account(AccountKey::Uid(rustix::process::geteuid().as_raw())).unwrap().unwrap();
        let account = Account { shell: shell.into(), home, ..me };
        Host { engine: Engine::new(config).unwrap(), account, folder }
    }

    pub(crate) fn home(&self) -> &Path {
        &self.account.home
    }

    pub(crate) fn permit<R>(&self, request: R) -> Permitted<R> {
        let who = Authenticated::by_peer_uid(self.account.uid, &self.account, &self.account.name).unwrap();
        Policy::serving(self.account.clone()).permit(&who, request).unwrap()
    }

    pub(crate) fn session(&self, name: &str) -> Session {
        let name = SessionName { name: name.to_owned(), existing: false };
        self.engine.sessions().open(self.permit(name)).unwrap().0
    }

    pub(crate) fn start(&self, session: &Session, line: &str) -> Result<Running, NotStarted> {
        self.start_with(
            JobRequest { session: Some(session.clone()), ..JobRequest::line(line) },
            Limits::default(),
        )
    }

    pub(crate) fn start_with(&self, request: JobRequest, limits: Limits) -> Result<Running, NotStarted> {
        let bell = Arc::new(Notify::new());
        let ring = Arc::clone(&bell);
        let on_change = Arc::new(move || ring.notify_one());
        let job = self.engine.start(self.permit(request), limits, on_change)?;
        Ok(Running { job, bell })
    }

    pub(crate) async fn run(&self, session: &Session, line: &str) -> Done {
        self.start(session, line).unwrap_or_else(|error| panic!("{line}: {error}")).collect().await
    }

    /// Nothing is left of what captures.
    pub(crate) fn captures(&self) -> Vec<PathBuf> {
        match std::fs::read_dir(self.folder.path().join("capture")) {
            Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        }
    }
}

pub(crate) struct Running {
    pub(crate) job: Job,
    bell: Arc<Notify>,
}

impl Running {
    pub(crate) async fn collect(self) -> Done {
        let mut texts = [Vec::new(), Vec::new()];
        let ended = tokio::time::timeout(PATIENCE, async {
            loop {
                let finished = self.job.finished();
                for (which, text) in Output::ALL.into_iter().zip(&mut texts) {
                    self.job
                        .output(which, text.len() as u64, |first, second| {
                            text.extend_from_slice(first);
                            text.extend_from_slice(second);
                        })
                        .unwrap();
                    self.job.acknowledge(which, text.len() as u64);
                }
                match finished {
                    Some(ended) => break ended,
                    None => self.bell.notified().await,
                }
            }
        })
        .await
        .expect("the job never ends");
        for (end, text) in [(&ended.stdout, &texts[0]), (&ended.stderr, &texts[1])] {
            assert_eq!((end.length, end.blake3), (text.len() as u64, *blake3::hash(text).as_bytes()));
        }
        let [stdout, stderr] = texts.map(|text| String::from_utf8_lossy(&text).into_owned());
        Done { ended, stdout, stderr }
    }
}
