//! The jobs that keepers have from before this server: taken up as it starts.

use std::sync::Arc;
use std::time::Duration;

use remora_engine::{EndReason, Engine, Found, Job, Output};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::lost;
use crate::serve::Phase;

/// How often the output of a job that is ended is thrown away.
const DISCARD_PAUSE: Duration = Duration::from_millis(20);

/// Takes them up, and holds them until they are over or this server leaves.
pub(crate) fn take_up(engine: &Arc<Engine>, phase: &watch::Receiver<Phase>) {
    let found = match engine.found() {
        Ok(found) => found,
        Err(error) => return error!(%error, "the jobs of the server before can't be found"),
    };
    for found in found {
        match found {
            Found::Kept { key, job, .. } => {
                info!(%key, pid = job.pid(), "job taken up");
                tokio::spawn(hold(job, phase.clone()));
            }
            Found::Lost { key, rebooted, .. } => {
                warn!(%key, "job lost: {}", lost::text(rebooted));
                engine.forget(key);
            }
            _ => {}
        }
    }
}

async fn hold(job: Job, mut phase: watch::Receiver<Phase>) {
    tokio::select! {
        _ = job.wait() => return,
        ended = phase.wait_for(|phase| *phase == Phase::Ending || *phase == Phase::Leaving) => {
            if !ended.is_ok_and(|phase| *phase == Phase::Ending) {
                return;
            }
        }
    }
    job.close(EndReason::Shutdown);
    while job.finished().is_none() {
        for output in Output::ALL {
            job.acknowledge(output, job.produced(output));
        }
        let _ = tokio::time::timeout(DISCARD_PAUSE, job.wait()).await;
    }
}
