//! Jobs that a client is attached to, or may come back for: what is told of them, and how they become detached ones.

use std::sync::Arc;
use std::time::SystemTime;

use prost::Message;
use remora_engine::{DetachedJob, DetachedState, Output};
use remora_wire::native::proto;

use super::start::{Reserved, reserve};
use super::{Entry, Note, Owner, check_name, hex, plan, shown, told};
use crate::job;
use crate::registry;
use crate::settings::Settings;

/// What is told of those that run and aren't detached.
pub(super) fn list(owner: &Owner, settings: &Settings) -> Vec<proto::JobInfo> {
    settings.registry.list(owner).iter().map(|entry| info(entry)).collect()
}

fn info(entry: &registry::Entry) -> proto::JobInfo {
    let record = entry.record();
    let [stdout, stderr] = Output::ALL.map(|output| entry.job.progress(output));
    proto::JobInfo {
        id: record.id.to_vec(),
        command: record.start.command.map(|command| told(command, false)),
        user: record.owner.user,
        state: proto::JobState::Attached as i32,
        started_unix_ns: record.started_unix_ns,
        wall_ns: job::unix_ns(SystemTime::now()).saturating_sub(record.started_unix_ns),
        pid: u64::try_from(entry.job.pid()).unwrap_or(0),
        stdout_start: stdout.acknowledged,
        stdout_end: stdout.produced,
        stderr_start: stderr.acknowledged,
        stderr_end: stderr.produced,
        terminal: record.start.terminal.is_some(),
        ..proto::JobInfo::default()
    }
}

/// The job that somebody means, by its id or the beginning of it.
fn find(owner: &Owner, wanted: &str, settings: &Settings) -> Result<Option<Arc<registry::Entry>>, String> {
    let wanted = wanted.to_ascii_lowercase();
    let mut list = settings.registry.list(owner);
    list.retain(|entry| !wanted.is_empty() && hex(&entry.record().id).starts_with(&wanted));
    let entry = list.pop();
    if list.is_empty() {
        return Ok(entry);
    }
    Err(format!("several jobs have ids that begin with {}", shown(&wanted)))
}

/// Detaches a job. One that is so already is answered alike: the first answer may have been lost.
///
/// # Errors
/// There is none, or it can't be.
pub(super) async fn detach(
    ask: proto::DetachJob,
    owner: &Owner,
    settings: &Arc<Settings>,
) -> Result<Arc<Entry>, proto::NotStarted> {
    use proto::NotStartedClass as Why;
    let jobs = &settings.detached;
    let refused = |text: &str| job::unsuitable(Why::Refused, text);
    let Some(attached) = find(owner, &ask.job, settings).map_err(|text| refused(&text))? else {
        return jobs
            .find(owner, &ask.job)
            .map_err(|_| refused(&format!("no command of yours that runs has the id {}", shown(&ask.job))));
    };
    let record = attached.record();
    if record.start.session.is_some() {
        return Err(job::unsuitable(Why::Incompatible, "a command in a session can't be detached"));
    }
    let (Some(key), Some(_)) = (attached.job.key(), &record.start.command) else {
        let text = "this command has no keeper that could go on with it";
        return Err(job::unsuitable(Why::Incompatible, text));
    };
    let how = ask.detach.unwrap_or_default();
    check_name(&how.name)?;
    let reserved = match reserve(jobs, owner, &record.id, &how.name).await? {
        Reserved::Here(reserved) => reserved,
        Reserved::There(entry) => return Ok(entry),
    };
    if !attached.begin_detaching() {
        return Err(refused("the job is over"));
    }
    let detached = plan(&how);
    // Nobody else has what its client would have given, unless it is typed. What a host signs of a detached job is nothing.
    let no_stdin = record.start.no_stdin || record.start.terminal.is_none();
    let start = proto::Start { detach: Some(how), sign_receipt: false, no_stdin, ..record.start };
    let mut note = Note::new(owner, &start, record.request, &record.subject);
    note.started_unix_ns = record.started_unix_ns;
    let note = note.encode_to_vec();
    if let Err(error) = attached.job.detach(detached, note.clone()).await {
        settings.registry.end_detaching(&attached, false);
        return Err(job::not_started(&error));
    }
    let state = DetachedState::Running(attached.job.clone());
    let added = jobs.add(&settings.engine, DetachedJob { key, note, detached, state });
    // Only now: whoever comes back for it finds it here or there.
    settings.registry.end_detaching(&attached, true);
    drop(reserved);
    added.map_err(|error| {
        let text = format!("the command is detached, and what it prints can't be read: {error}");
        job::unsuitable(Why::Internal, &text)
    })
}
