//! The job that somebody means by an id, the beginning of one, or a name: a detached one, or one that its client is attached to.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use remora_engine::{Ended, Output};
use remora_identity::statement::ReceiptKey;
use remora_wire::limits;
use remora_wire::native::proto;
use tokio::time::timeout;

use super::{DetachedJobs, Entry, Owner, hex, shown, told};
use crate::evidence::Evidence;
use crate::job::{self, Subject};
use crate::record::Record;
use crate::registry::{self, Recent};
use crate::settings::Settings;

/// Ids that a message names at the most.
const NAMED: usize = 8;

/// What somebody means.
pub(super) enum Meant {
    Detached(Arc<Entry>),
    /// Its output is its client's.
    Attached(Arc<registry::Entry>),
    /// It was attached, is over, and only its end is known still.
    Recent(Arc<Recent>),
}

impl Meant {
    fn id(&self) -> String {
        match self {
            Meant::Detached(entry) => entry.id(),
            Meant::Attached(entry) => hex(&entry.record().id),
            Meant::Recent(recent) => hex(&recent.record.id),
        }
    }
}

/// The job that somebody means. A whole id is that job's, whatever others are called. A name is that of the one that runs, or else of the last
/// one that had it; where another job's id begins with it, nobody knows which is meant.
///
/// # Errors
/// There is none, or there are several; in words for people.
pub(super) fn find(owner: &Owner, wanted: &str, settings: &Settings) -> Result<Meant, proto::NotStarted> {
    if wanted.is_empty() {
        return Err(refused("no job is named"));
    }
    let jobs: &DetachedJobs = &settings.detached;
    let detached = jobs.list(owner);
    let named = |entry: &&Arc<Entry>| entry.note.name == wanted;
    let runs = detached.iter().filter(named).find(|entry| entry.over().is_none());
    let named = runs.or_else(|| detached.iter().find(named)).cloned();
    let wanted = wanted.to_ascii_lowercase();
    let is_id = wanted.len() == 2 * limits::JOB_ID;
    let named = named.filter(|entry| !is_id || entry.id() == wanted);
    let mut meant: Vec<Meant> = detached.into_iter().map(Meant::Detached).collect();
    meant.extend(settings.registry.list(owner).into_iter().map(Meant::Attached));
    meant.extend(settings.registry.recent(owner).into_iter().map(Meant::Recent));
    meant.retain(|meant| meant.id().starts_with(&wanted));
    if let Some(entry) = named {
        if meant.iter().all(|meant| meant.id() == entry.id()) {
            return Ok(Meant::Detached(entry));
        }
        meant.push(Meant::Detached(entry));
    }
    // One that is being detached just now, or was forgotten just now, is there twice.
    meant.sort_by_key(Meant::id);
    meant.dedup_by_key(|meant| meant.id());
    match meant.len() {
        0 => Err(refused(&format!("no job of yours has the id or name {}", shown(&wanted)))),
        1 => meant.pop().ok_or_else(|| refused("no job is named")),
        several => {
            let ids: Vec<String> = meant.iter().take(NAMED).map(Meant::id).collect();
            let more = if several > NAMED { ", …" } else { "" };
            let ids = ids.join(", ");
            Err(refused(&format!(
                "several jobs have ids that begin with {0}, or the name {0}: {ids}{more}; type more of the one that is meant",
                shown(&wanted)
            )))
        }
    }
}

/// The detached job that somebody means.
///
/// # Errors
/// As [`find`], or it isn't detached.
pub(super) fn detached(
    owner: &Owner,
    wanted: &str,
    settings: &Settings,
) -> Result<Arc<Entry>, proto::NotStarted> {
    match find(owner, wanted, settings)? {
        Meant::Detached(entry) => Ok(entry),
        Meant::Attached(_) => Err(refused("the job isn't detached: its client has it, and what it prints")),
        Meant::Recent(_) => Err(refused("the job is over, and was never detached: nothing of it is kept")),
    }
}

fn refused(text: &str) -> proto::NotStarted {
    job::unsuitable(proto::NotStartedClass::Refused, text)
}

/// What is told of those that run and aren't detached.
pub(super) fn attached(owner: &Owner, settings: &Settings) -> Vec<proto::JobInfo> {
    let mut list = settings.registry.list(owner);
    list.retain(|entry| entry.job.finished().is_none());
    list.iter().map(|entry| info(entry, false)).collect()
}

/// What is told of a job that runs, or has run, and isn't detached.
pub(super) fn info(entry: &registry::Entry, is_whole: bool) -> proto::JobInfo {
    let record = entry.record();
    let [stdout, stderr] = Output::ALL.map(|output| entry.job.progress(output));
    proto::JobInfo {
        state: proto::JobState::Attached as i32,
        wall_ns: job::unix_ns(SystemTime::now()).saturating_sub(record.started_unix_ns),
        pid: u64::try_from(entry.job.pid()).unwrap_or(0),
        stdout_start: stdout.acknowledged,
        stdout_end: stdout.produced,
        stderr_start: stderr.acknowledged,
        stderr_end: stderr.produced,
        alone_ms: entry.alone().map_or(0, |left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)),
        ..known(&record, is_whole)
    }
}

fn known(record: &Record, is_whole: bool) -> proto::JobInfo {
    proto::JobInfo {
        id: record.id.to_vec(),
        command: record.start.command.clone().map(|command| told(command, is_whole)),
        user: record.owner.user.clone(),
        started_unix_ns: record.started_unix_ns,
        terminal: record.start.terminal.is_some(),
        ..proto::JobInfo::default()
    }
}

/// What is told of one that is over, and was never detached.
fn over(
    record: &Record,
    ended: &Ended,
    settings: &Settings,
    host_key: Option<&ReceiptKey>,
    is_signed: bool,
) -> proto::JobInfo {
    let start = proto::Start {
        command: record.start.command.clone(),
        sign_receipt: is_signed,
        ..proto::Start::default()
    };
    let subject = Subject { evidence: Evidence::new(&start), ..record.subject.clone() };
    let receipt = subject.ended(settings, ended, host_key);
    proto::JobInfo {
        state: proto::JobState::Ended as i32,
        wall_ns: receipt.wall_ns,
        pid: receipt.pid,
        // Its client has had all of it.
        stdout_start: ended.stdout.length,
        stdout_end: ended.stdout.length,
        stderr_start: ended.stderr.length,
        stderr_end: ended.stderr.length,
        receipt: Some(proto::Receipt { unread_input: Vec::new(), ..receipt }),
        ..known(record, true)
    }
}

/// Tells of a job that isn't detached, once it is over or for so long was not.
pub(super) async fn wait(
    entry: &registry::Entry,
    limit: Duration,
    settings: &Settings,
    host_key: Option<&ReceiptKey>,
    is_signed: bool,
) -> proto::JobInfo {
    entry.await_end();
    let _ = timeout(limit, entry.job.wait()).await;
    match entry.job.finished() {
        Some(ended) => over(&entry.record(), &ended, settings, host_key, is_signed),
        None => info(entry, true),
    }
}

/// Tells of one that was waited for before.
pub(super) fn recent(
    recent: &Recent,
    settings: &Settings,
    host_key: Option<&ReceiptKey>,
    is_signed: bool,
) -> proto::JobInfo {
    over(&recent.record, &recent.ended, settings, host_key, is_signed)
}
