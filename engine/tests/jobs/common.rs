//! An engine that runs jobs as whoever runs the tests, and a reader that takes all that comes.

use std::sync::Arc;
use std::time::Duration;

use remora_engine::sys::{AccountKey, account};
use remora_engine::{
    CgroupParent, DrainRule, Ended, Engine, EngineConfig, Job, JobRequest, Limits, NotStarted, Outcome,
    Output,
};
use remora_identity::{Account, Authenticated, Permitted, Policy};
use tokio::sync::Notify;

/// Far above anything that happens; a test that reaches it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The defaults, but for shorter waits and no cgroups.
pub(crate) fn quick() -> EngineConfig {
    EngineConfig {
        drain: DrainRule { quiet: Duration::from_millis(100), total: Duration::from_secs(1) },
        kill_grace: Duration::from_millis(300),
        cgroup: CgroupParent::Off,
        ..EngineConfig::default()
    }
}

/// The account that runs the tests.
pub(crate) fn me() -> Account {
    account(AccountKey::Uid(rustix::process::geteuid().as_raw())).unwrap().unwrap()
}

/// Proof that the tests' account may run a request.
pub(crate) fn permitted(account: Account, request: JobRequest) -> Permitted<JobRequest> {
    let who = Authenticated::by_peer_uid(account.uid, &account, &account.name).unwrap();
    Policy::serving(account).permit(&who, request).unwrap()
}

pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) account: Account,
}

/// A job with a bell that rings when it changed.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) job: Job,
    pub(crate) bell: Arc<Notify>,
}

/// A job that is over, with all it printed.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) ended: Arc<Ended>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Done {
    pub(crate) fn outcome(&self) -> Outcome {
        self.ended.outcome()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Its lengths and digests are those of what was read.
    fn check(&self) {
        for (end, bytes) in [(&self.ended.stdout, &self.stdout), (&self.ended.stderr, &self.stderr)] {
            assert_eq!(end.length, bytes.len() as u64);
            assert_eq!(end.blake3, *blake3::hash(bytes).as_bytes());
        }
    }
}

impl Host {
    pub(crate) fn new(config: EngineConfig) -> Self {
        // A shell that every machine has, whatever the account's own is.
        let account = Account { shell: "/bin/sh".into(), home: "/".into(), ..me() };
        Host { engine: Engine::new(config).unwrap(), account }
    }

    pub(crate) fn start(&self, request: JobRequest, limits: Limits) -> Result<Running, NotStarted> {
        let bell = Arc::new(Notify::new());
        let ring = Arc::clone(&bell);
        let on_change = Arc::new(move || ring.notify_one());
        let job = self.engine.start(permitted(self.account.clone(), request), limits, on_change)?;
        Ok(Running { job, bell })
    }

    pub(crate) async fn run(&self, request: JobRequest) -> Done {
        self.start(request, Limits::default()).unwrap().collect().await
    }

    /// Runs the odd child in a mode.
    pub(crate) async fn odd(&self, arguments: &[&str]) -> Done {
        self.run(odd(arguments)).await
    }
}

/// A request for the odd child in a mode.
pub(crate) fn odd(arguments: &[&str]) -> JobRequest {
    let program = remora_testkit::odd_child().into_os_string().into_encoded_bytes();
    JobRequest::argv(std::iter::once(program).chain(arguments.iter().map(|text| text.as_bytes().to_vec())))
}

/// The parent of a process: its leader, where it has one.
pub(crate) fn leader(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(1).unwrap().parse().unwrap()
}

impl Running {
    /// Takes all there is of a stream.
    pub(crate) fn take(&self, which: Output, into: &mut Vec<u8>) {
        let from = into.len() as u64;
        self.job
            .output(which, from, |first, second| {
                into.extend_from_slice(first);
                into.extend_from_slice(second);
            })
            .unwrap();
        self.job.acknowledge(which, into.len() as u64);
    }

    /// Reads until the job is finished, and proves that its process is gone.
    pub(crate) async fn collect(self) -> Done {
        self.collect_after(Vec::new()).await
    }

    /// As [`Running::collect`], where some stdout was taken already.
    pub(crate) async fn collect_after(self, mut stdout: Vec<u8>) -> Done {
        let mut stderr = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, async {
            loop {
                let finished = self.job.finished();
                self.take(Output::Stdout, &mut stdout);
                self.take(Output::Stderr, &mut stderr);
                match finished {
                    Some(ended) => break ended,
                    None => self.bell.notified().await,
                }
            }
        })
        .await
        .expect("the job never ends");
        let parent = std::process::id();
        let status = std::fs::read_to_string(format!("/proc/{}/status", ended.pid)).unwrap_or_default();
        assert!(!status.contains(&format!("PPid:\t{parent}\n")), "not reaped: {status}");
        let done = Done { ended, stdout, stderr };
        done.check();
        done
    }

    /// Reads stdout until it begins with a text.
    pub(crate) async fn expect(&self, text: &[u8]) -> Vec<u8> {
        let mut stdout = Vec::new();
        tokio::time::timeout(PATIENCE, async {
            loop {
                self.take(Output::Stdout, &mut stdout);
                if stdout.len() >= text.len() {
                    break;
                }
                self.bell.notified().await;
            }
        })
        .await
        .expect("the job never says so");
        assert!(stdout.starts_with(text), "{:?}", stdout.escape_ascii().to_string());
        stdout
    }
}
