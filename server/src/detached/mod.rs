//! The detached jobs of a host: those whose folders are there, whoever serves. It never lets anybody near another's job.

mod collect;
mod detach;
mod meant;
mod note;
mod questions;
mod start;
mod watching;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use prost::Message;
use remora_engine::{
    Detached, DetachedJob, DetachedState, EndReason, Ended, Engine, How, Job, JobKey, Log, OnFull, Output,
    Spooled,
};
use remora_identity::statement::ReceiptKey;
use remora_wire::native::proto;
use tokio::sync::{Notify, watch};
use tracing::{error, info, warn};

pub(crate) use collect::collect;
pub(crate) use note::{Note, Owner};
pub(crate) use questions::reply;
pub(crate) use start::{Begun, begin, check_name};
pub(crate) use watching::{Looked, Watching};

use crate::attachment::Attachment;
use crate::job;
use crate::lost;
use crate::registry::ASK_AGAIN;
use crate::serve::Phase;
use crate::settings::Settings;

/// Bytes of a command that a list tells.
const COMMAND: usize = 256;

/// The detached jobs.
#[derive(Default)]
pub(crate) struct DetachedJobs {
    inner: Mutex<Inner>,
    /// A start has come to its end.
    begun: Notify,
}

#[derive(Default)]
struct Inner {
    jobs: HashMap<(Owner, Vec<u8>), Arc<Entry>>,
    /// Those that are about to be started, with their names.
    starting: HashSet<(Owner, Vec<u8>, String)>,
}

/// How a job is over.
pub(crate) enum Over {
    Ended(Box<Ended>),
    Lost { rebooted: bool },
}

/// A detached job.
pub(crate) struct Entry {
    key: JobKey,
    note: Note,
    plan: Detached,
    log: Arc<Log>,
    /// None where it was over before this server.
    job: Option<Job>,
    over: OnceLock<Over>,
    /// Who looks at it as a channel.
    watchers: Mutex<Vec<Attachment>>,
    /// Who has its stdin: its watcher's name, and where that is.
    typist: Mutex<Option<(Vec<u8>, Attachment)>>,
    /// It has changed.
    changed: Notify,
    /// How many look at it: its lease is renewed for them.
    looking: AtomicUsize,
}

/// Somebody looks at a job.
pub(crate) struct Looking(Arc<Entry>);

impl Looking {
    pub(crate) fn at(entry: &Arc<Entry>) -> Self {
        entry.looking.fetch_add(1, Ordering::Relaxed);
        entry.renew(None);
        Looking(entry.clone())
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.0.looking.fetch_sub(1, Ordering::Relaxed);
        // Who goes has it for as long again.
        self.0.renew(None);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves nothing half-done in here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DetachedJobs {
    /// Takes up what is there. Waits for each keeper's word.
    pub(crate) fn take_up(self: &Arc<Self>, engine: &Arc<Engine>, phase: &watch::Receiver<Phase>) {
        let found = match engine.detached() {
            Ok(found) => found,
            Err(error) => return error!(%error, "the detached jobs can't be found"),
        };
        for found in found {
            self.adopt(engine, found);
        }
        let (jobs, mut phase) = (Arc::downgrade(self), phase.clone());
        tokio::spawn(async move {
            // Where jobs end with their server, these do, too.
            let ended = phase.wait_for(|phase| *phase == Phase::Ending || *phase == Phase::Leaving).await;
            if let (true, Some(jobs)) = (ended.is_ok_and(|phase| *phase == Phase::Ending), jobs.upgrade()) {
                jobs.all().iter().for_each(|entry| entry.close(EndReason::Shutdown));
            }
        });
    }

    fn adopt(self: &Arc<Self>, engine: &Arc<Engine>, found: DetachedJob) {
        let key = found.key;
        if matches!(found.state, DetachedState::Silent) {
            // It is there, and its name is taken.
            if !self.all().iter().any(|entry| entry.key == key)
                && let Err(error) = self.add(engine, found)
            {
                error!(%key, %error, "a detached job's folder can't be read");
            }
            warn!(%key, "a detached job's keeper doesn't answer; it is asked again");
            let (jobs, engine) = (Arc::downgrade(self), engine.clone());
            tokio::spawn(async move {
                tokio::time::sleep(ASK_AGAIN).await;
                let asked = engine.clone();
                let found = tokio::task::spawn_blocking(move || asked.detached_job(key)).await;
                if let (Some(jobs), Ok(Some(found))) = (jobs.upgrade(), found) {
                    jobs.adopt(&engine, found);
                }
            });
            return;
        }
        match self.add(engine, found) {
            Ok(entry) => info!(%key, runs = entry.over().is_none(), "detached job taken up"),
            Err(error) => error!(%key, %error, "a detached job's folder can't be read"),
        }
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        lock(&self.inner).jobs.values().cloned().collect()
    }

    /// Adds a job that is there.
    fn add(&self, engine: &Engine, found: DetachedJob) -> std::io::Result<Arc<Entry>> {
        let DetachedJob { key, note, detached, state } = found;
        let note = Note::decode(note.as_slice()).map_err(std::io::Error::other)?;
        let log = Arc::new(engine.log(key)?);
        let over = OnceLock::new();
        let job = match state {
            DetachedState::Running(job) => Some(job),
            DetachedState::Ended(ended) => {
                let _ = over.set(Over::Ended(ended));
                None
            }
            DetachedState::Lost { rebooted } => {
                warn!(%key, rebooted, "detached job lost: its keeper is gone");
                let _ = over.set(Over::Lost { rebooted });
                None
            }
            _ => None,
        };
        let entry = Arc::new(Entry {
            key,
            note,
            plan: detached,
            log,
            job,
            over,
            watchers: Mutex::default(),
            typist: Mutex::default(),
            changed: Notify::new(),
            looking: AtomicUsize::new(0),
        });
        if let Some(job) = &entry.job {
            if entry.note.start.as_ref().is_some_and(|start| start.no_stdin && start.terminal.is_none()) {
                // It has none from its start, or has had what its client gave before it was detached.
                let _ = job.end_input(job.input_given());
            }
            let seen = Arc::downgrade(&entry);
            job.observe(Arc::new(move || seen.upgrade().iter().for_each(|entry| entry.look())));
            entry.look();
        }
        Entry::keep_leased(&entry);
        let id = (entry.note.owner(), entry.note.id.clone());
        lock(&self.inner).jobs.insert(id, entry.clone());
        Ok(entry)
    }

    /// The jobs of an owner, the last one first.
    pub(crate) fn list(&self, owner: &Owner) -> Vec<Arc<Entry>> {
        let mut list = self.all();
        list.retain(|entry| entry.note.owner() == *owner);
        list.sort_by_key(|entry| std::cmp::Reverse((entry.note.started_unix_ns, entry.note.id.clone())));
        list
    }

    /// The job of an id.
    pub(crate) fn of_id(&self, owner: &Owner, id: &[u8]) -> Option<Arc<Entry>> {
        lock(&self.inner).jobs.get(&(owner.clone(), id.to_vec())).cloned()
    }

    /// Forgets a job that is over.
    pub(crate) fn forget(&self, engine: &Engine, entry: &Entry) -> std::io::Result<()> {
        engine.remove(entry.key)?;
        lock(&self.inner).jobs.remove(&(entry.note.owner(), entry.note.id.clone()));
        Ok(())
    }
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What somebody has typed, in a message to them.
fn shown(text: &str) -> String {
    text.chars().take(64).collect::<String>().escape_debug().to_string()
}

impl Entry {
    /// Its id, in hexadecimal digits.
    pub(crate) fn id(&self) -> String {
        hex(&self.note.id)
    }

    /// Whether it is what this request, by its digest, has started.
    pub(crate) fn is_of(&self, request: &[u8]) -> bool {
        self.note.request == request
    }

    /// Its process id; 0 once it is over.
    pub(crate) fn pid(&self) -> u64 {
        self.job.as_ref().and_then(|job| u64::try_from(job.pid()).ok()).unwrap_or(0)
    }

    pub(crate) fn over(&self) -> Option<&Over> {
        self.over.get()
    }

    /// The job, while it runs.
    pub(crate) fn running(&self) -> Option<&Job> {
        self.job.as_ref().filter(|_| self.over().is_none())
    }

    /// Whether it runs, as far as anybody knows, and its keeper doesn't answer.
    fn is_silent(&self) -> bool {
        self.job.is_none() && self.over().is_none()
    }

    /// That it can be asked for what its keeper alone can do.
    ///
    /// # Errors
    /// Its keeper doesn't answer: for now.
    fn answers(&self) -> Result<(), proto::NotStarted> {
        if self.is_silent() {
            let text =
                "the job's keeper doesn't answer: it is stopped, or starved; it is asked again and again";
            return Err(job::unsuitable(proto::NotStartedClass::HostFull, text));
        }
        Ok(())
    }

    /// Has it ended.
    pub(crate) fn close(&self, reason: EndReason) {
        if let Some(job) = self.running() {
            job.close(reason);
        }
    }

    /// Its lease, as its keeper has it, or as it was at its start where that hasn't told yet: one that is there can be changed, and stays.
    pub(crate) fn lease(&self) -> Option<Duration> {
        self.running().and_then(Job::lease).or(self.plan.lease)
    }

    pub(crate) fn renew(&self, lease: Option<Duration>) {
        if let Some(job) = self.running() {
            job.renew(lease);
        }
    }

    /// It has changed.
    fn look(&self) {
        if let (None, Some(ended)) = (self.over(), self.job.as_ref().and_then(Job::finished)) {
            let over = match ended.how {
                How::KeeperLost => Over::Lost { rebooted: false },
                _ => Over::Ended(Box::new((*ended).clone())),
            };
            info!(key = %self.key, outcome = ?ended.outcome(), "detached job ended");
            let _ = self.over.set(over);
        }
        let watchers = lock(&self.watchers).clone();
        watchers.iter().for_each(|watcher| watcher.observer()());
        self.changed.notify_waiters();
    }

    /// Renews its lease for as long as somebody looks.
    fn keep_leased(entry: &Arc<Entry>) {
        let entry: Weak<Entry> = Arc::downgrade(entry);
        tokio::spawn(async move {
            loop {
                let pause = match entry.upgrade() {
                    Some(entry) if entry.over().is_none() => {
                        if entry.looking.load(Ordering::Relaxed) > 0 {
                            entry.renew(None);
                        }
                        entry.lease().map_or(Duration::from_secs(1), |lease| lease / 4)
                    }
                    _ => return,
                };
                tokio::time::sleep(pause.clamp(Duration::from_millis(20), Duration::from_secs(5))).await;
            }
        });
    }

    /// Offset up to which a stream is there, and, once it is over, ends.
    pub(crate) fn end(&self, output: Output) -> u64 {
        let lost = |ended: &Ended| ended.spooled.map_or([0; 2], |spooled| spooled.lost);
        match (self.over(), output) {
            (Some(Over::Ended(ended)), Output::Stdout) => ended.stdout.length.saturating_sub(lost(ended)[0]),
            (Some(Over::Ended(ended)), Output::Stderr) => ended.stderr.length.saturating_sub(lost(ended)[1]),
            _ => self.log.end(output).unwrap_or(0),
        }
    }

    /// What holds the command back.
    fn held_back(&self) -> proto::HeldBack {
        let Some(job) = self.running() else { return proto::HeldBack::Unspecified };
        let is_at_limit =
            |output| self.end(output).saturating_sub(self.log.start(output).unwrap_or(0)) >= self.plan.limit;
        if job.wants_room() {
            proto::HeldBack::Disk
        } else if self.plan.on_full == OnFull::Wait && Output::ALL.into_iter().any(is_at_limit) {
            proto::HeldBack::Limit
        } else {
            proto::HeldBack::Unspecified
        }
    }

    /// How it ended, once it has; with its statement where somebody wants to keep it.
    pub(crate) fn receipt(
        &self,
        settings: &Settings,
        host_key: Option<&ReceiptKey>,
        is_signed: bool,
    ) -> Option<proto::Receipt> {
        self.over()?;
        let subject = self.note.subject(is_signed);
        Some(match self.over()? {
            Over::Ended(ended) => subject.ended(settings, ended, host_key),
            Over::Lost { rebooted } => {
                let why = lost::told(*rebooted);
                subject.not_started(settings, why, host_key)
            }
        })
    }

    /// What is told of it.
    pub(crate) fn info(&self, settings: &Settings, is_whole: bool) -> proto::JobInfo {
        self.info_with(self.receipt(settings, None, false), is_whole)
    }

    /// As [`Entry::info`], with a receipt that is there.
    pub(crate) fn info_with(&self, receipt: Option<proto::Receipt>, is_whole: bool) -> proto::JobInfo {
        let start = self.note.start.clone().unwrap_or_default();
        let receipt = receipt.map(|receipt| proto::Receipt { unread_input: Vec::new(), ..receipt });
        let wall_ns = match (&receipt, self.over()) {
            (Some(receipt), Some(Over::Ended(_))) => receipt.wall_ns,
            (_, Some(Over::Lost { .. })) => 0,
            _ => job::unix_ns(std::time::SystemTime::now()).saturating_sub(self.note.started_unix_ns),
        };
        let state = match self.over() {
            None if self.is_silent() => proto::JobState::Silent,
            None => proto::JobState::Running,
            Some(Over::Ended(_)) => proto::JobState::Ended,
            Some(Over::Lost { .. }) => proto::JobState::Lost,
        };
        proto::JobInfo {
            id: self.note.id.clone(),
            name: self.note.name.clone(),
            command: start.command.map(|command| told(command, is_whole)),
            user: self.note.user.clone(),
            state: state as i32,
            started_unix_ns: self.note.started_unix_ns,
            wall_ns,
            pid: match self.over() {
                Some(Over::Ended(ended)) => u64::try_from(ended.pid).unwrap_or(0),
                _ => self.pid(),
            },
            stdout_start: self.log.start(Output::Stdout).unwrap_or(0),
            stdout_end: self.end(Output::Stdout),
            stderr_start: self.log.start(Output::Stderr).unwrap_or(0),
            stderr_end: self.end(Output::Stderr),
            on_full: on_full(self.plan.on_full) as i32,
            spool_limit: self.plan.limit,
            lease_ms: self.lease().map_or(0, |lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)),
            terminal: start.terminal.is_some(),
            receipt,
            held_back: self.held_back() as i32,
            alone_ms: 0,
        }
    }
}

/// A command, as a list tells it or whole.
fn told(command: proto::start::Command, is_whole: bool) -> proto::job_info::Command {
    use proto::job_info::Command as Told;
    use proto::start::Command;
    let cut = |text: Vec<u8>| match text.get(..COMMAND) {
        Some(head) if !is_whole => head.to_vec(),
        _ => text,
    };
    match command {
        Command::Line(line) => Told::Line(cut(line)),
        Command::Argv(argv) => {
            let mut left = if is_whole { usize::MAX } else { COMMAND };
            let mut arguments = Vec::new();
            for argument in argv.arguments {
                if left == 0 {
                    break;
                }
                left = left.saturating_sub(argument.len() + 1);
                arguments.push(cut(argument));
            }
            Told::Argv(proto::Argv { arguments })
        }
        Command::LoginShell(shell) => Told::LoginShell(shell),
    }
}

fn on_full(on_full: OnFull) -> proto::OnFull {
    match on_full {
        OnFull::Wait => proto::OnFull::Wait,
        OnFull::Kill => proto::OnFull::Kill,
        OnFull::DropOldest => proto::OnFull::DropOldest,
    }
}

/// What became of a detached job's output, for its receipt.
pub(crate) fn report(spooled: &Spooled) -> proto::SpoolReport {
    let [stdout_start, stderr_start] = spooled.start;
    let [stdout_lost, stderr_lost] = spooled.lost;
    proto::SpoolReport {
        on_full: on_full(spooled.on_full) as i32,
        limit: spooled.limit,
        was_full: spooled.was_full,
        disk_was_full: spooled.disk_was_full,
        stdout_start,
        stderr_start,
        stdout_lost,
        stderr_lost,
    }
}

/// How a job is to be detached.
pub(crate) fn plan(detach: &proto::Detach) -> Detached {
    Detached {
        limit: if detach.spool_limit == 0 { Detached::LIMIT } else { detach.spool_limit },
        on_full: match detach.on_full() {
            proto::OnFull::Unspecified | proto::OnFull::Wait => OnFull::Wait,
            proto::OnFull::Kill => OnFull::Kill,
            proto::OnFull::DropOldest => OnFull::DropOldest,
        },
        lease: (detach.lease_ms > 0).then(|| Duration::from_millis(detach.lease_ms)),
    }
}
