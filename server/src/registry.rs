//! The jobs of a server, apart from its connections: a lost connection is not a lost job. Who comes back names the job, and goes on with
//! it; nobody's job is kept without a bound in time and number. It never starts anything, and never lets anybody near another's job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use remora_engine::{EndReason, InputError, Job, Output};
use remora_identity::{Authenticated, Authority};
use remora_wire::limits;
use remora_wire::native::proto;
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use crate::attachment::Attachment;
use crate::job::{self, Subject};

/// How long a job that nobody has come back for is kept once it is ended, for who comes late and wants to know.
const KEPT: Duration = Duration::from_secs(600);
/// How often the output of a job that nobody will see is thrown away.
const DISCARD_PAUSE: Duration = Duration::from_millis(20);

/// Who a job belongs to: ids are scoped to the account and what it was logged in with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    user: String,
    authority: Authority,
}

impl Owner {
    pub(crate) fn of(who: &Authenticated) -> Self {
        Owner { user: who.user().to_owned(), authority: who.authority().clone() }
    }
}

/// A job's id.
pub(crate) type JobId = [u8; limits::JOB_ID];

/// All there is to know of a job besides its process: plain data, so that it can outlive this process, too.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) owner: Owner,
    pub(crate) id: JobId,
    pub(crate) subject: Subject,
    /// BLAKE3 of the request (`request_digest`).
    pub(crate) request: [u8; 32],
    /// How long it is kept while nobody is attached.
    pub(crate) linger: Duration,
    /// The newest connection of its client that was seen.
    pub(crate) attempt: u32,
    /// Offset behind the last byte of stdin that has arrived.
    pub(crate) stdin_received: u64,
    /// The end of stdin has arrived.
    pub(crate) stdin_ended: bool,
}

/// A job that is started, or is over and whose client may not know yet.
pub(crate) struct Entry {
    pub(crate) job: Job,
    state: Mutex<State>,
}

struct State {
    record: Record,
    /// Who is attached; nobody since, otherwise.
    attached: Result<Attachment, Instant>,
    /// Counts attachments and losses, so that a timer knows whether it is still meant.
    turn: u64,
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half-done in here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a connection's channel is still where this job is.
    pub(crate) fn is_at(&self, place: &Attachment) -> bool {
        self.lock().attached.as_ref().is_ok_and(|attached| attached == place)
    }

    pub(crate) fn linger(&self) -> Duration {
        self.lock().record.linger
    }

    pub(crate) fn subject(&self) -> Subject {
        self.lock().record.subject.clone()
    }

    /// Gives the job input.
    ///
    /// # Errors
    /// As [`Job::write`].
    pub(crate) fn write(&self, offset: u64, bytes: Bytes) -> Result<(), InputError> {
        let end = offset.saturating_add(bytes.len() as u64);
        self.job.write(offset, bytes)?;
        self.lock().record.stdin_received = end;
        Ok(())
    }

    /// Ends the job's input.
    pub(crate) fn end_input(&self, length: u64) {
        let _ = self.job.end_input(length);
        self.lock().record.stdin_ended = true;
    }
}

/// What becomes of a start.
pub(crate) enum Claim {
    /// It is a new job.
    Started(Arc<Entry>),
    /// There is such a job: it goes on here, its stdin there.
    Resumed(Arc<Entry>, proto::StdinPosition),
    /// The job goes on elsewhere.
    Elsewhere,
    /// No.
    NotStarted(proto::NotStarted),
}

/// What a start asks for, as far as it matters here.
pub(crate) struct Asked<'a> {
    pub(crate) owner: Owner,
    pub(crate) start: &'a proto::Start,
    pub(crate) linger: Duration,
    pub(crate) place: &'a Attachment,
}

/// The jobs of a server.
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

struct Inner {
    jobs: HashMap<(Owner, JobId), Arc<Entry>>,
    epoch: [u8; 16],
    /// Nobody can come back any more.
    stopping: bool,
}

impl Registry {
    pub(crate) fn new() -> Arc<Self> {
        let inner = Inner { jobs: HashMap::new(), epoch: fresh_epoch(), stopping: false };
        Arc::new(Registry { inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time within which this host has forgotten no job that its client may ask for again: what its hello calls an epoch. Jobs
    /// end with the server, so another run of it is another time.
    pub(crate) fn epoch(&self) -> [u8; 16] {
        self.lock().epoch
    }

    /// Goes on with the job that a start names, or starts it. Never both, and never twice: the lock is held meanwhile.
    pub(crate) fn claim(
        &self,
        asked: &Asked<'_>,
        subject: &mut Subject,
        begin: impl FnOnce(&mut Subject) -> Result<Job, proto::NotStarted>,
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
        if let Some(resume) = &asked.start.resume
            && (is_known(resume) || asked.start.epoch != inner.epoch)
        {
            return Claim::NotStarted(unknown("the host knows nothing of the job any more"));
        }
        match begin(subject) {
            Ok(job) => {
                let record = Record {
                    owner: asked.owner.clone(),
                    id,
                    subject: subject.clone(),
                    request: request_digest(asked.start),
                    linger: asked.linger,
                    attempt: asked.start.resume.map_or(0, |resume| resume.attempt),
                    stdin_received: 0,
                    stdin_ended: asked.start.no_stdin,
                };
                let state = State { record, attached: Ok(asked.place.clone()), turn: 0 };
                let entry = Arc::new(Entry { job, state: Mutex::new(state) });
                inner.jobs.insert(key, entry.clone());
                Claim::Started(entry)
            }
            Err(why) => Claim::NotStarted(why),
        }
    }

    /// Its client has the receipt.
    pub(crate) fn settle(&self, owner: &Owner, id: &[u8]) {
        if let Ok(id) = JobId::try_from(id) {
            self.lock().jobs.remove(&(owner.clone(), id));
        }
    }

    /// Its client needs it no more, or never asked to have it kept.
    pub(crate) fn forget(&self, entry: &Entry) {
        let key = {
            let state = entry.lock();
            (state.record.owner.clone(), state.record.id)
        };
        self.lock().jobs.remove(&key);
    }

    /// Its client may come back, and must not have it run anew then: the time in which nothing was forgotten is over.
    pub(crate) fn forget_unsettled(&self, entry: &Entry) {
        self.forget(entry);
        self.lock().epoch = fresh_epoch();
    }

    /// Its connection is lost. It is kept for its linger time, with `most` others of its owner; the one that has waited longest makes room.
    pub(crate) fn lose(self: &Arc<Self>, entry: &Arc<Entry>, place: &Attachment, most: usize) {
        let (owner, linger, turn) = {
            let mut state = entry.lock();
            if state.attached.as_ref().ok() != Some(place) {
                return;
            }
            state.attached = Err(Instant::now());
            state.turn += 1;
            (state.record.owner.clone(), state.record.linger, state.turn)
        };
        entry.job.observe(Arc::new(|| {}));
        if self.lock().stopping {
            self.forget(entry);
            return end_unseen(entry.job.clone(), Duration::ZERO, EndReason::Shutdown);
        }
        info!(pid = entry.job.pid(), linger_s = linger.as_secs(), "a job's connection is lost; it is kept");
        self.make_room(&owner, most);
        let (registry, entry) = (self.clone(), Arc::downgrade(entry));
        tokio::spawn(async move {
            sleep(linger).await;
            // Attached again, or settled: this timer isn't meant any more.
            let meant = || entry.upgrade().filter(|entry| entry.lock().turn == turn);
            let Some(late) = meant() else { return };
            info!(pid = late.job.pid(), "nobody has come back for a job; it is ended");
            // What it has printed is kept as before, and its pipe held back: who comes late still gets all of it.
            late.job.close(EndReason::ClientGone);
            drop(late);
            sleep(KEPT).await;
            if let Some(late) = meant() {
                registry.forget_unsettled(&late);
            }
        });
    }

    fn make_room(&self, owner: &Owner, most: usize) {
        let mut waiting: Vec<(bool, Instant, Arc<Entry>)> = Vec::new();
        for entry in self.lock().jobs.values() {
            let state = entry.lock();
            if let (true, Err(since)) = (state.record.owner == *owner, &state.attached) {
                waiting.push((entry.job.finished().is_none(), *since, entry.clone()));
            }
        }
        // Those that are over go first, then those that have waited longest.
        waiting.sort_by_key(|(runs, since, _)| (*runs, *since));
        let excess = waiting.len().saturating_sub(most);
        for (_, _, entry) in waiting.into_iter().take(excess) {
            info!(pid = entry.job.pid(), "a job whose connection is lost makes room for another");
            self.forget_unsettled(&entry);
            end_unseen(entry.job.clone(), Duration::ZERO, EndReason::ClientGone);
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

/// Goes on with a job that is there.
fn attach(entry: &Arc<Entry>, asked: &Asked<'_>) -> Claim {
    let mut state = entry.lock();
    if state.record.request != request_digest(asked.start) {
        let text = "another job of yours has this id";
        return Claim::NotStarted(job::unsuitable(proto::NotStartedClass::Refused, text));
    }
    let resume = asked.start.resume.unwrap_or_default();
    let late = match &asked.start.resume {
        // Sent on a connection that its client gave up since, or by a second client: no reason to take it from the first.
        None => state.attached.is_ok() || state.record.attempt > 0,
        Some(resume) => resume.attempt != 0 && resume.attempt <= state.record.attempt,
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
    if asked.start.resume.is_none() && (state.record.stdin_received > 0 || entry.job.input_consumed() > 0) {
        return Claim::NotStarted(unknown("the job is there, and has had input"));
    }
    for (output, position) in positions {
        entry.job.acknowledge(output, position.consumed);
    }
    if let Ok(before) = std::mem::replace(&mut state.attached, Ok(asked.place.clone())) {
        before.take_away();
    }
    state.turn += 1;
    state.record.attempt = resume.attempt.max(state.record.attempt);
    entry.job.observe(asked.place.observer());
    let at = proto::StdinPosition {
        received: state.record.stdin_received,
        consumed: entry.job.input_consumed().min(state.record.stdin_received),
        ended: state.record.stdin_ended,
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

/// What is the same in each repetition of a start.
pub(crate) fn request_digest(start: &proto::Start) -> [u8; 32] {
    let same = proto::Start { resume: None, epoch: Vec::new(), ..start.clone() };
    *blake3::hash(&prost::Message::encode_to_vec(&same)).as_bytes()
}

fn fresh_epoch() -> [u8; 16] {
    let mut epoch = [0; 16];
    // Without random bytes no connection comes about either: its nonce needs them.
    let _ = rustix::rand::getrandom(epoch.as_mut_slice(), rustix::rand::GetRandomFlags::empty());
    epoch
}

/// Ends a job that nobody will see any more: it gets a moment to end by itself, then its process group is ended. What it still writes is
/// read and thrown away: a command that tidies up must neither be held back by a full window nor die of SIGPIPE.
pub(crate) fn end_unseen(job: Job, grace: Duration, reason: EndReason) {
    tokio::spawn(async move {
        let until = Instant::now() + grace;
        let mut closed = false;
        while job.finished().is_none() {
            for output in Output::ALL {
                job.acknowledge(output, job.produced(output));
            }
            if !closed && Instant::now() >= until {
                closed = true;
                job.close(reason);
            }
            let _ = timeout(DISCARD_PAUSE, job.wait()).await;
        }
    });
}
