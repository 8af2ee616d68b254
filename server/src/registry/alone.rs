//! Jobs that nobody is attached to: how long they wait for their client, how many, and how they are ended.

use std::sync::Arc;
use std::time::Duration;

use remora_engine::{EndReason, Job, Output};
use tokio::time::{Instant, sleep, timeout};
use tracing::info;

use super::entry::{Detaching, Entry};
use super::{DISCARD_PAUSE, KEPT, Registry};
use crate::attachment::Attachment;
use crate::record::Owner;

impl Registry {
    /// Its connection is lost. It is kept for its linger time, with `most` others of its owner; the one that has waited longest makes room.
    pub(crate) fn lose(self: &Arc<Self>, entry: &Arc<Entry>, place: &Attachment, most: usize) {
        let (owner, linger, turn) = {
            let mut state = entry.lock();
            if state.attached.as_ref().ok() != Some(place) {
                return;
            }
            state.attached = Err(Instant::now());
            if state.detaching != Detaching::No {
                return;
            }
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
        self.await_client(entry, turn);
    }

    /// Ends a job whose client doesn't come back within its linger time, and forgets it later.
    pub(super) fn await_client(self: &Arc<Self>, entry: &Arc<Entry>, turn: u64) {
        self.await_client_for(entry, turn, entry.linger());
    }

    /// As [`Registry::await_client`], within this time.
    pub(super) fn await_client_for(self: &Arc<Self>, entry: &Arc<Entry>, turn: u64, linger: Duration) {
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

    pub(super) fn make_room(&self, owner: &Owner, most: usize) {
        let mut waiting: Vec<(bool, Instant, Arc<Entry>)> = Vec::new();
        for entry in self.lock().jobs.values() {
            let state = entry.lock();
            let is_meant = state.record.owner == *owner && state.detaching == Detaching::No;
            if let (true, Err(since)) = (is_meant, &state.attached) {
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
