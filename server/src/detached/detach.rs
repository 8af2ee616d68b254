//! How a job that a client is attached to, or may come back for, becomes a detached one.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use remora_engine::{DetachedJob, DetachedState};
use remora_identity::Authenticated;
use remora_wire::native::proto;
use tokio::time::timeout;

use super::meant::{Meant, find};
use super::start::{Reserved, Starting, reserve};
use super::{Entry, Note, Owner, check_name, plan};
use crate::job;
use crate::registry;
use crate::sessions;
use crate::settings::Settings;

/// How long whoever asks waits for a keeper's word.
const PATIENCE: Duration = Duration::from_secs(20);

/// The session that a job runs in, while it is there.
fn session(start: &proto::Start, who: &Authenticated, settings: &Settings) -> Option<proto::SessionChange> {
    let name = start.session.as_ref()?;
    let there = proto::SessionName { existing: true, ..name.clone() };
    sessions::find(Some(&there), who, settings).ok().map(|(session, _)| sessions::apart(&session))
}

/// Detaches a job. One that is so already is answered alike: the first answer may have been lost.
///
/// # Errors
/// There is none, or it can't be.
pub(super) async fn detach(
    ask: proto::DetachJob,
    owner: &Owner,
    who: &Authenticated,
    settings: &Arc<Settings>,
) -> Result<Arc<Entry>, proto::NotStarted> {
    use proto::NotStartedClass as Why;
    let jobs = &settings.detached;
    let refused = |text: &str| job::unsuitable(Why::Refused, text);
    let attached = match find(owner, &ask.job, settings)? {
        Meant::Attached(entry) => entry,
        Meant::Detached(entry) => return Ok(entry),
        Meant::Recent(_) => return Err(refused("the job is over")),
    };
    let mut record = attached.record();
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
    // Nobody else has what its client would have given, unless it is typed.
    let no_stdin = record.start.no_stdin || record.start.terminal.is_none();
    let start = proto::Start { detach: Some(how), sign_receipt: false, no_stdin, ..record.start };
    record.subject.session = session(&start, who, settings);
    let mut note = Note::new(owner, &start, record.request, &record.subject, settings.boot_id);
    note.started_unix_ns = record.started_unix_ns;
    let note = note.encode_to_vec();
    let job = DetachedJob { key, note, detached, state: DetachedState::Running(attached.job.clone()) };
    // Begun, it goes on to its end, however long its keeper takes and whoever waits for that.
    let work = tokio::spawn(carry_out(job, attached, reserved, Arc::clone(settings)));
    match timeout(PATIENCE, work).await {
        Ok(done) => done.map_err(|error| job::unsuitable(Why::Internal, &error.to_string()))?,
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            let text =
                format!("the command's keeper has not answered for {seconds} s, and may detach it yet");
            Err(job::unsuitable(Why::Unknown, &text))
        }
    }
}

/// Has its keeper detach a job, and says so to who is attached to it.
async fn carry_out(
    job: DetachedJob,
    attached: Arc<registry::Entry>,
    reserved: Starting,
    settings: Arc<Settings>,
) -> Result<Arc<Entry>, proto::NotStarted> {
    if let Err(error) = attached.job.detach(job.detached, job.note.clone()).await {
        settings.registry.end_detaching(&attached, false);
        return Err(job::not_started(&error));
    }
    let added = settings.detached.add(&settings.engine, job);
    // Only now: whoever comes back for it finds it here or there.
    settings.registry.end_detaching(&attached, true);
    drop(reserved);
    added.map_err(|error| {
        let text = format!("the command is detached, and what it prints can't be read: {error}");
        job::unsuitable(proto::NotStartedClass::Internal, &text)
    })
}
