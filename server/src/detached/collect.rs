//! Jobs that are over are kept for a time and a number, then removed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Entry, Over, Owner};
use crate::settings::Settings;

/// Between two looks.
const PAUSE: Duration = Duration::from_secs(30);

/// Collects, for as long as this server lives.
pub(crate) async fn collect(settings: watch::Receiver<Arc<Settings>>) {
    loop {
        let now = settings.borrow().clone();
        once(&now);
        drop(now);
        tokio::time::sleep(PAUSE).await;
    }
}

/// When it was over; one that was lost, when it was started.
fn since(entry: &Entry) -> Option<SystemTime> {
    match entry.over()? {
        Over::Ended(ended) => Some(ended.ended),
        Over::Lost { .. } => UNIX_EPOCH.checked_add(Duration::from_nanos(entry.note.started_unix_ns)),
    }
}

fn once(settings: &Settings) {
    let mut of_owner: HashMap<Owner, Vec<(SystemTime, Arc<Entry>)>> = HashMap::new();
    for entry in settings.detached.all() {
        if let Some(since) = since(&entry) {
            of_owner.entry(entry.note.owner()).or_default().push((since, entry));
        }
    }
    let now = SystemTime::now();
    for mut entries in of_owner.into_values() {
        entries.sort_by_key(|(since, _)| std::cmp::Reverse(*since));
        for (place, (since, entry)) in entries.iter().enumerate() {
            // A clock that was set back keeps it for longer, and never for less.
            let age = now.duration_since(*since).unwrap_or_default();
            if place < settings.detached_kept && age < settings.detached_kept_for {
                continue;
            }
            match settings.detached.forget(&settings.engine, entry) {
                Ok(()) => info!(id = entry.id(), "a detached job that is over is removed"),
                Err(error) => warn!(id = entry.id(), %error, "a detached job can't be removed"),
            }
        }
    }
}
