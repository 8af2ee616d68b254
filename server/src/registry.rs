//! The jobs of a server, apart from its connections: a lost connection is not a lost job. Who comes back names the job, and goes on with
//! it; nobody's job is kept without a bound in time and number. It never starts anything, and never lets anybody near another's job.

mod alone;
mod entry;
mod late;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use remora_engine::{EndReason, Ended, Engine, Found, Job, JobKey, NotStarted, Output, StartLater};
use remora_wire::native::proto;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

pub(crate) use alone::end_unseen;
pub(crate) use entry::Entry;
pub(crate) use late::{ASK_AGAIN, Pending};

use crate::attachment::Attachment;
use crate::job::{self, Subject};
use crate::lost;
use crate::record::{JobId, Owner, Record, kept, request_digest};
use entry::{Detaching, State};

/// How long a job that nobody has come back for is kept once it is ended, for who comes late and wants to know.
const KEPT: Duration = Duration::from_secs(600);
/// How often the output of a job that nobody will see is thrown away.
const DISCARD_PAUSE: Duration = Duration::from_millis(20);

/// Jobs that are over and forgotten, and that somebody waits for: those that are kept in mind.
const RECENT: usize = 64;

/// How a job ended that is forgotten here.
pub(crate) struct Recent {
    pub(crate) record: Record,
    pub(crate) ended: Arc<Ended>,
}

/// What becomes of a start.
pub(crate) enum Claim {
    /// It is a new job.
    Started(Arc<Entry>),
    /// There is such a job: it goes on here, its stdin there.
    Resumed(Arc<Entry>, proto::StdinPosition),
    /// The job goes on elsewhere.
    Elsewhere,
    /// It is being detached, or its keeper doesn't answer: what becomes of the start is known when that is.
    Later(Pending),
    /// No.
    NotStarted(proto::NotStarted),
}

/// What a start asks for, as far as it matters here.
pub(crate) struct Asked<'a> {
    pub(crate) owner: Owner,
    pub(crate) start: &'a proto::Start,
    pub(crate) linger: Duration,
    pub(crate) place: &'a Attachment,
    /// Its session has carried it out, and knows what it answered.
    pub(crate) is_remembered: bool,
}

/// Why there is no job of a start.
pub(crate) enum Unbegun {
    /// Nothing of it has run, or may have; and why.
    NotStarted(proto::NotStarted),
    /// The server before has begun it.
    Taken,
    /// Its keeper has not answered yet.
    Later(StartLater),
}

impl Unbegun {
    pub(crate) fn of(error: &NotStarted) -> Self {
        match error.is_taken() {
            true => Unbegun::Taken,
            false => job::not_started(error).into(),
        }
    }
}

impl From<proto::NotStarted> for Unbegun {
    fn from(why: proto::NotStarted) -> Self {
        Unbegun::NotStarted(why)
    }
}

/// The jobs of a server.
pub(crate) struct Registry {
    engine: Arc<Engine>,
    inner: Mutex<Inner>,
}

struct Inner {
    jobs: HashMap<(Owner, JobId), Arc<Entry>>,
    /// Jobs whose keepers died while there was no server, and the requests they were started by.
    lost: HashMap<(Owner, JobId), ([u8; 32], Lost)>,
    /// None until it is asked for: which jobs there are is found out before.
    epoch: Option<[u8; 16]>,
    /// The last ones that somebody waits for, the newest last.
    recent: VecDeque<Arc<Recent>>,
    /// Jobs whose keepers are there, and don't answer yet.
    silent: HashSet<JobKey>,
    /// Those among them whose clients have gone for good.
    given_up: HashSet<JobKey>,
    /// Why jobs were not started whose keepers took their time to say so, and the requests for them.
    failed: HashMap<(Owner, JobId), ([u8; 32], proto::NotStarted)>,
    /// Nobody can come back any more.
    stopping: bool,
}

/// What is known of a job that is lost.
#[derive(Clone, Copy)]
struct Lost {
    key: JobKey,
    rebooted: bool,
}

impl Lost {
    fn told(self) -> proto::NotStarted {
        lost::told(self.rebooted)
    }
}

impl Registry {
    pub(crate) fn new(engine: Arc<Engine>) -> Arc<Self> {
        let inner = Inner {
            jobs: HashMap::new(),
            lost: HashMap::new(),
            epoch: None,
            recent: VecDeque::new(),
            silent: HashSet::new(),
            given_up: HashSet::new(),
            failed: HashMap::new(),
            stopping: false,
        };
        Arc::new(Registry { engine, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time within which this host has forgotten no job that its client may ask for again: what its hello calls an epoch.
    pub(crate) fn epoch(&self) -> [u8; 16] {
        self.epoch_of(&mut self.lock())
    }

    fn epoch_of(&self, inner: &mut Inner) -> [u8; 16] {
        *inner.epoch.get_or_insert_with(|| self.engine.epoch())
    }

    /// Takes up the jobs of the servers before. Their clients have as long to come back as if they had lost their connections now.
    pub(crate) fn take_up(self: &Arc<Self>) {
        match self.engine.found() {
            Ok(found) => found.into_iter().for_each(|found| drop(self.adopt(found))),
            Err(error) => error!(%error, "the jobs of the server before can't be found"),
        }
    }

    fn adopt(self: &Arc<Self>, found: Found) -> Option<Arc<Entry>> {
        match found {
            Found::Kept { key, note, job } => {
                let Some(mut record) = Record::noted(&note) else {
                    // Nobody can ask for it: a plain wire's, for one.
                    info!(%key, pid = job.pid(), "a job that nobody can come back for; it is ended");
                    end_unseen(job, Duration::ZERO, EndReason::ClientGone);
                    return None;
                };
                info!(%key, pid = job.pid(), "job taken up");
                if job.is_in_root() {
                    record.subject.working_directory = b"/".to_vec();
                }
                let place = (record.owner.clone(), record.id);
                let attached = Err(Instant::now());
                let state = State { record, attempt: 0, attached, turn: 0, detaching: Detaching::No };
                let entry = Arc::new(Entry::new(job, state));
                self.lock().jobs.insert(place, entry.clone());
                self.await_client(&entry, 0);
                Some(entry)
            }
            Found::Silent { key } => {
                warn!(%key, "a job's keeper doesn't answer; it is asked again");
                self.ask_again(key);
                None
            }
            Found::Lost { key, note, rebooted } => {
                warn!(%key, rebooted, "job lost: its keeper is gone");
                match Record::noted(&note) {
                    Some(record) => self.mourn(record, Lost { key, rebooted }),
                    None => self.engine.forget(key),
                }
                None
            }
            _ => None,
        }
    }

    /// Keeps in mind for a while that a job is lost, for its client, who may come and ask.
    fn mourn(self: &Arc<Self>, record: Record, lost: Lost) {
        let place = (record.owner, record.id);
        self.lock().lost.insert(place.clone(), (record.request, lost));
        let registry = self.clone();
        tokio::spawn(async move {
            sleep(record.linger.max(KEPT)).await;
            if registry.lock().lost.remove(&place).is_some() {
                registry.begin_epoch();
                registry.engine.forget(lost.key);
            }
        });
    }

    /// A job is forgotten whose client may come back, and must not have it run anew then.
    fn begin_epoch(&self) {
        self.lock().epoch = Some(self.engine.begin_epoch());
    }

    /// Goes on with the job that a start names, or starts it. Never both, and never twice: the lock is held meanwhile.
    pub(crate) fn claim(
        self: &Arc<Self>,
        asked: &Asked<'_>,
        subject: &mut Subject,
        begin: impl FnOnce(&mut Record) -> Result<Job, Unbegun>,
    ) -> Claim {
        let Ok(id) = JobId::try_from(asked.start.job_id.as_slice()) else {
            let text = "its job id isn't 16 bytes";
            return Claim::NotStarted(job::unsuitable(proto::NotStartedClass::Incompatible, text));
        };
        let key = (asked.owner.clone(), id);
        let mut inner = self.lock();
        if let Some(entry) = inner.jobs.get(&key) {
            return attach(entry, asked);
        }
        if !inner.silent.is_empty() {
            let key = key.0.key(&id);
            if inner.silent.contains(&key) {
                return Claim::Later(Pending::Silent(self.clone(), key));
            }
        }
        if let Some((request, why)) = inner.failed.remove(&key)
            && request == request_digest(asked.start)
        {
            return Claim::NotStarted(why);
        }
        if let Some((request, lost)) = inner.lost.get(&key) {
            return Claim::NotStarted(match *request == request_digest(asked.start) {
                true => lost.told(),
                false => another(),
            });
        }
        if let (Some(resume), false) = (&asked.start.resume, asked.is_remembered)
            && (is_known(resume) || asked.start.epoch != self.epoch_of(&mut inner))
        {
            return Claim::NotStarted(unknown("the host knows nothing of the job any more"));
        }
        let mut record = Record {
            owner: asked.owner.clone(),
            id,
            subject: subject.clone(),
            request: request_digest(asked.start),
            linger: asked.linger,
            start: kept(asked.start),
            started_unix_ns: job::unix_ns(std::time::SystemTime::now()),
        };
        let begun = begin(&mut record);
        if begun.as_ref().is_ok_and(Job::is_in_root) {
            record.subject.working_directory = b"/".to_vec();
        }
        *subject = record.subject.clone();
        match begun {
            Ok(job) => {
                let attempt = asked.start.resume.map_or(0, |resume| resume.attempt);
                let attached = Ok(asked.place.clone());
                let state = State { record, attempt, attached, turn: 0, detaching: Detaching::No };
                let entry = Arc::new(Entry::new(job, state));
                inner.jobs.insert(key, entry.clone());
                Claim::Started(entry)
            }
            Err(Unbegun::NotStarted(why)) => Claim::NotStarted(why),
            Err(Unbegun::Later(later)) => {
                let its = key.0.key(&id);
                inner.silent.insert(its);
                drop(inner);
                self.finish_start(record, its, later);
                Claim::Later(Pending::Silent(self.clone(), its))
            }
            Err(Unbegun::Taken) => {
                drop(inner);
                let key = key.0.key(&id);
                match self.engine.find(key, true).and_then(|found| self.adopt(found)) {
                    Some(entry) => attach(&entry, asked),
                    None if self.lock().silent.contains(&key) => {
                        Claim::Later(Pending::Silent(self.clone(), key))
                    }
                    None => Claim::NotStarted(unknown("the job was begun, and can't be found")),
                }
            }
        }
    }

    /// Its client has the receipt.
    pub(crate) fn settle(&self, owner: &Owner, id: &[u8]) {
        if let Ok(id) = JobId::try_from(id) {
            let key = (owner.clone(), id);
            let mut inner = self.lock();
            if let Some(entry) = inner.jobs.remove(&key) {
                inner.remember(&entry);
            }
            if let Some((_, lost)) = inner.lost.remove(&key) {
                self.engine.forget(lost.key);
            }
        }
    }

    /// Those of an owner that are over, and were waited for.
    pub(crate) fn recent(&self, owner: &Owner) -> Vec<Arc<Recent>> {
        let inner = self.lock();
        inner.recent.iter().filter(|recent| recent.record.owner == *owner).cloned().collect()
    }

    /// Its client needs it no more, or never asked to have it kept.
    pub(crate) fn forget(&self, entry: &Entry) {
        let key = {
            let state = entry.lock();
            (state.record.owner.clone(), state.record.id)
        };
        let mut inner = self.lock();
        inner.jobs.remove(&key);
        inner.remember(entry);
    }

    /// Its client may come back, and must not have it run anew then: the time in which nothing was forgotten is over.
    pub(crate) fn forget_unsettled(&self, entry: &Entry) {
        self.begin_epoch();
        self.forget(entry);
    }

    /// The jobs of an owner that aren't detached: those that run, or whose clients may not know yet that they are over.
    pub(crate) fn list(&self, owner: &Owner) -> Vec<Arc<Entry>> {
        let inner = self.lock();
        let theirs = inner
            .jobs
            .iter()
            .filter(|((its, _), entry)| its == owner && entry.lock().detaching != Detaching::Done);
        theirs.map(|(_, entry)| entry.clone()).collect()
    }

    /// It is detached, and its client is told; or it isn't, and all is as before.
    pub(crate) fn end_detaching(self: &Arc<Self>, entry: &Arc<Entry>, is_detached: bool) {
        let (attached, turn) = {
            let mut state = entry.lock();
            state.detaching = if is_detached { Detaching::Done } else { Detaching::No };
            let attached = state.attached.clone();
            if is_detached {
                state.attached = Err(Instant::now());
            }
            (attached, state.turn)
        };
        if is_detached {
            self.forget(entry);
        }
        match attached {
            Ok(place) if is_detached => place.tell_detached(),
            Ok(place) => place.observer()(),
            Err(_) if is_detached => {}
            Err(_) => self.await_client(entry, turn),
        }
    }

    /// The server stops, and nobody can come back: what nobody is attached to is ended, now and from now on.
    pub(crate) fn stop(&self) {
        let mut inner = self.lock();
        inner.stopping = true;
        inner.jobs.retain(|_, entry| {
            let attached = entry.lock().attached.is_ok();
            if !attached {
                end_unseen(entry.job.clone(), Duration::ZERO, EndReason::Shutdown);
            }
            attached
        });
    }

    /// Forgets all: the server is over.
    pub(crate) fn clear(&self) {
        self.lock().jobs.clear();
    }
}

impl Inner {
    /// Keeps in mind how a job ended that somebody waits for.
    fn remember(&mut self, entry: &Entry) {
        if let (true, Some(ended)) = (entry.is_awaited(), entry.job.finished()) {
            if self.recent.len() == RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(Arc::new(Recent { record: entry.record(), ended }));
        }
    }
}

/// Goes on with a job that is there.
fn attach(entry: &Arc<Entry>, asked: &Asked<'_>) -> Claim {
    let mut state = entry.lock();
    if state.record.request != request_digest(asked.start) {
        return Claim::NotStarted(another());
    }
    if state.detaching != Detaching::No {
        return Claim::Later(Pending::Detaching(entry.clone()));
    }
    let resume = asked.start.resume.unwrap_or_default();
    let late = match &asked.start.resume {
        // Sent on a connection that its client gave up since, or by a second client: no reason to take it from the first.
        None => state.attached.is_ok() || state.attempt > 0,
        Some(resume) => resume.attempt != 0 && resume.attempt <= state.attempt,
    };
    if late {
        return Claim::Elsewhere;
    }
    let positions = [(Output::Stdout, resume.stdout), (Output::Stderr, resume.stderr)]
        .map(|(output, position)| (output, position.unwrap_or_default()));
    for (output, position) in positions {
        let progress = entry.job.progress(output);
        if !(progress.acknowledged..=progress.produced).contains(&position.received) {
            return Claim::NotStarted(unknown("the host no longer has the output from there on"));
        }
    }
    if asked.start.resume.is_none() && entry.job.input_given() > 0 {
        return Claim::NotStarted(unknown("the job is there, and has had input"));
    }
    for (output, position) in positions {
        entry.job.acknowledge(output, position.consumed);
    }
    if let Ok(before) = std::mem::replace(&mut state.attached, Ok(asked.place.clone())) {
        before.take_away();
    }
    state.turn += 1;
    state.attempt = resume.attempt.max(state.attempt);
    entry.job.observe(asked.place.observer());
    let received = entry.job.input_given();
    let at = proto::StdinPosition {
        received,
        consumed: entry.job.input_consumed().min(received),
        ended: entry.job.input_end().is_some() || asked.start.no_stdin,
        stopped: entry.job.input_closed() && !asked.start.no_stdin,
    };
    Claim::Resumed(entry.clone(), at)
}

/// Whether the client has seen that the host has the job, whatever it says of that.
fn is_known(resume: &proto::Resume) -> bool {
    let came = |position: Option<proto::Position>| position.is_some_and(|position| position.received > 0);
    resume.known || came(resume.stdout) || came(resume.stderr)
}

fn unknown(text: &str) -> proto::NotStarted {
    job::unsuitable(proto::NotStartedClass::Unknown, text)
}

fn another() -> proto::NotStarted {
    job::unsuitable(proto::NotStartedClass::Refused, "another job of yours has this id")
}
