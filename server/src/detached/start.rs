//! The start of a detached job: once, whoever asks for it how often, and answered when it is on the disk.

use std::sync::Arc;
use std::time::Duration;

use remora_engine::{DetachedJob, DetachedState, JobRequest, Limits};
use remora_identity::Permitted;
use remora_wire::native::proto;
use tokio::time::{Instant, timeout_at};

use super::{DetachedJobs, Entry, Note, Owner, lock};
use crate::job;
use crate::record::JobId;
use crate::settings::Settings;

/// How long a start waits for another one of its id or name: longer than a keeper may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A start that is asked for.
pub(crate) struct Begun {
    pub(crate) settings: Arc<Settings>,
    pub(crate) note: Note,
    /// The host has said that it has the job.
    pub(crate) is_known: bool,
    pub(crate) permitted: Permitted<JobRequest>,
    pub(crate) limits: Limits,
}

/// Gives back the place of a start, whatever comes of it.
pub(super) struct Starting {
    jobs: Arc<DetachedJobs>,
    place: (Owner, Vec<u8>, String),
}

impl Drop for Starting {
    fn drop(&mut self) {
        lock(&self.jobs.inner).starting.remove(&self.place);
        self.jobs.begun.notify_waiters();
    }
}

/// What becomes of a wish for an id and a name.
pub(super) enum Reserved {
    Here(Starting),
    /// A detached job has this id.
    There(Arc<Entry>),
}

/// Reserves the id and the name of a job that is about to be there.
///
/// # Errors
/// A job of that name runs.
pub(super) async fn reserve(
    jobs: &Arc<DetachedJobs>,
    owner: &Owner,
    id: &[u8],
    name: &str,
) -> Result<Reserved, proto::NotStarted> {
    let refused = |text: &str| job::unsuitable(proto::NotStartedClass::Refused, text);
    let until = Instant::now() + PATIENCE;
    loop {
        let begun = jobs.begun.notified();
        tokio::pin!(begun);
        begun.as_mut().enable();
        {
            let mut inner = lock(&jobs.inner);
            if let Some(entry) = inner.jobs.get(&(owner.clone(), id.to_vec())) {
                return Ok(Reserved::There(entry.clone()));
            }
            let is_near = |(its, other, its_name): &(Owner, Vec<u8>, String)| {
                its == owner && (other == id || !name.is_empty() && its_name == name)
            };
            if !inner.starting.iter().any(is_near) {
                let runs = inner.jobs.values().find(|entry| {
                    let named = !name.is_empty() && entry.note.name == name;
                    named && entry.note.owner() == *owner && entry.over().is_none()
                });
                if let Some(first) = runs {
                    return Err(refused(&format!("a job named {name} runs already: {}", first.id())));
                }
                let place = (owner.clone(), id.to_vec(), name.to_owned());
                inner.starting.insert(place.clone());
                return Ok(Reserved::Here(Starting { jobs: Arc::clone(jobs), place }));
            }
        }
        if timeout_at(until, begun).await.is_err() {
            let text = "another start of this id or name has waited too long for its keeper";
            return Err(job::unsuitable(proto::NotStartedClass::HostFull, text));
        }
    }
}

/// Starts it, or finds it.
///
/// # Errors
/// Why it isn't there.
pub(crate) async fn begin(begun: Begun) -> Result<Arc<Entry>, proto::NotStarted> {
    let Begun { settings, note, is_known, permitted, limits } = begun;
    let jobs = Arc::clone(&settings.detached);
    let owner = note.owner();
    let starting = match reserve(&jobs, &owner, &note.id, &note.name).await? {
        Reserved::Here(starting) => starting,
        Reserved::There(entry) => return same(entry, &note),
    };
    if is_known {
        return Err(job::unsuitable(
            proto::NotStartedClass::Unknown,
            "the host knows nothing of the job any more",
        ));
    }
    let id = JobId::try_from(note.id.as_slice()).map_err(|_| another())?;
    let key = owner.key(&id);
    let engine = Arc::clone(&settings.engine);
    // It is answered when it is on the disk, which may take its time.
    let detached = note.start.as_ref().and_then(|start| start.detach.as_ref()).map(super::plan);
    let (asked, told) = (engine.clone(), prost::Message::encode_to_vec(&note));
    let made = tokio::task::spawn_blocking(move || match asked.start(permitted, limits, Arc::new(|| {})) {
        Ok(job) => {
            let (detached, state) = (detached.unwrap_or_default(), DetachedState::Running(job));
            Ok(DetachedJob { key, note: told, detached, state })
        }
        // The server before this one has begun it, and gone.
        Err(error) if error.is_taken() => match asked.detached_job(key) {
            Some(DetachedJob { state: DetachedState::Silent, .. }) => Err(job::unsuitable(
                proto::NotStartedClass::Unknown,
                "the job is there, and its keeper doesn't answer",
            )),
            found => found.ok_or_else(another),
        },
        Err(error) => Err(job::not_started(&error)),
    });
    let internal = |text: &str| job::unsuitable(proto::NotStartedClass::Internal, text);
    let found = made.await.map_err(|error| internal(&error.to_string()))??;
    let entry = jobs
        .add(&engine, found)
        .map_err(|error| internal(&format!("what the job prints can't be read: {error}")))?;
    drop(starting);
    same(entry, &note)
}

/// The same request finds the job that it has started; another has no right to its id.
fn same(entry: Arc<Entry>, note: &Note) -> Result<Arc<Entry>, proto::NotStarted> {
    if entry.note.request == note.request { Ok(entry) } else { Err(another()) }
}

fn another() -> proto::NotStarted {
    job::unsuitable(proto::NotStartedClass::Refused, "another job of yours has this id")
}

/// Refuses what can't be a job's name: a session's can, and none.
///
/// # Errors
/// What a name is.
pub(crate) fn check_name(name: &str) -> Result<(), proto::NotStarted> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.len() <= 64 && !name.starts_with('-') && name.chars().all(good) {
        return Ok(());
    }
    let text = "a job's name is up to 64 letters, digits, '.', '_' and '-', no '-' first";
    Err(job::unsuitable(proto::NotStartedClass::Incompatible, text))
}
