//! Jobs whose keepers take their time: a start that hangs, or a keeper that stands still. Somebody waits for them, and holds nobody else up.

use std::sync::Arc;
use std::time::Duration;

use remora_engine::{EndReason, Found, JobKey, StartLater};
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

use super::entry::{Detaching, Entry, State};
use super::{DISCARD_PAUSE, KEPT, Registry, end_unseen};
use crate::job;
use crate::record::{JobId, Owner, Record};

/// How long the client of a start that has waited may take to be attached to its job.
const TO_ATTACH: Duration = Duration::from_secs(10);

/// Reasons of starts that have failed late, which wait for who asked: at the most.
const MOST_FAILED: usize = 1024;

/// Between two questions to a keeper that doesn't answer.
pub(crate) const ASK_AGAIN: Duration = Duration::from_secs(2);

/// What a start waits for.
pub(crate) enum Pending {
    Detaching(Arc<Entry>),
    Silent(Arc<Registry>, JobKey),
}

impl Pending {
    /// Waits until it is known.
    pub(crate) async fn known(self) {
        match self {
            Pending::Detaching(entry) => entry.decided().await,
            Pending::Silent(registry, key) => {
                while registry.lock().silent.contains(&key) {
                    sleep(DISCARD_PAUSE).await;
                }
            }
        }
    }
}

impl Registry {
    /// Finds a job whose keeper did not answer, once that does. Nobody else asks it meanwhile: the last one who does has it.
    pub(super) fn ask_again(self: &Arc<Self>, key: JobKey) {
        let registry = self.clone();
        registry.lock().silent.insert(key);
        tokio::spawn(async move {
            sleep(ASK_AGAIN).await;
            let engine = registry.engine.clone();
            let found = tokio::task::spawn_blocking(move || engine.find(key, false)).await;
            let is_stopping = registry.lock().stopping;
            if let (Ok(Some(found)), false) = (found, is_stopping) {
                if matches!(found, Found::Silent { .. }) {
                    return registry.ask_again(key);
                }
                let entry = registry.adopt(found);
                let is_given_up = registry.lock().given_up.remove(&key);
                if let (Some(entry), true) = (entry, is_given_up) {
                    registry.forget(&entry);
                    end_unseen(entry.job.clone(), Duration::ZERO, EndReason::ClientGone);
                }
            } else if !is_stopping {
                // Nobody can know whether anything of it has run.
                registry.begin_epoch();
            }
            let mut inner = registry.lock();
            inner.silent.remove(&key);
            inner.given_up.remove(&key);
        });
    }

    /// Waits for the answer of a keeper that takes its time, so that nobody else does. Whoever asks for the job meanwhile waits, too.
    pub(super) fn finish_start(self: &Arc<Self>, mut record: Record, key: JobKey, later: StartLater) {
        let registry = self.clone();
        warn!(%key, "a keeper takes its time to start a job");
        tokio::spawn(async move {
            let started = tokio::task::spawn_blocking(move || later.finish()).await;
            let place = (record.owner.clone(), record.id);
            let mut inner = registry.lock();
            let is_wanted = !inner.given_up.remove(&key) && !inner.stopping;
            match started {
                Ok(Ok(job)) if is_wanted => {
                    if job.is_in_root() {
                        record.subject.working_directory = b"/".to_vec();
                    }
                    info!(%key, pid = job.pid(), "a job has been started late");
                    let attached = Err(Instant::now());
                    let state = State { record, attempt: 0, attached, turn: 0, detaching: Detaching::No };
                    let entry = Arc::new(Entry::new(job, state));
                    inner.jobs.insert(place, entry.clone());
                    // Its client waits for it, also one that wouldn't come back.
                    registry.await_client_for(&entry, 0, entry.linger().max(TO_ATTACH));
                }
                Ok(Ok(job)) => end_unseen(job, Duration::ZERO, EndReason::ClientGone),
                // Who asks again finds it.
                Ok(Err(error)) if error.is_taken() => {}
                Ok(Err(error)) if inner.failed.len() < MOST_FAILED => {
                    inner.failed.insert(place.clone(), (record.request, job::not_started(&error)));
                    let registry = registry.clone();
                    tokio::spawn(async move {
                        sleep(KEPT).await;
                        registry.lock().failed.remove(&place);
                    });
                }
                // Who asks again has it tried again: nothing of it has run, or its folder says that something may have.
                Ok(Err(error)) => warn!(%key, %error, "a job could not be started"),
                Err(error) => error!(%key, %error, "the start of a job has failed"),
            }
            inner.silent.remove(&key);
        });
    }

    /// The client of a start that waits has gone for good.
    pub(crate) fn give_up(&self, owner: &Owner, id: &[u8]) {
        let Ok(id) = JobId::try_from(id) else { return };
        let key = owner.key(&id);
        let mut inner = self.lock();
        if inner.silent.contains(&key) {
            inner.given_up.insert(key);
        }
    }
}
