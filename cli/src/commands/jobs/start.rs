//! `remora exec --detach`.

use std::time::Duration;

use remora_client::{Class, Connection, Finished, Job, JobError, Outcome, Request, outcome_of, proto};

use super::super::ending::{job_id, lost, not_started};
use super::super::{outage, receipt};
use super::ask::find;
use crate::arguments::{Detaching, Exec, OnFull};
use crate::printable::escape;
use crate::stdio::is_given;
use crate::terminal::{Failure, print, say};

/// What the request asks for besides.
pub(in super::super) fn prepare(exec: &Exec, request: &mut Request) {
    let detaching = &exec.detaching;
    if !detaching.detach {
        return;
    }
    if !exec.no_stdin && is_given() {
        let way = if detaching.open_stdin { "" } else { "--open-stdin, then " };
        say(&format!(
            "standard input stays here: a detached command begins with none ({way}remora attach sends it)"
        ));
    }
    request.stdin = detaching.open_stdin;
    let Detaching { name, spool_limit, on_full, lease, .. } = detaching;
    request.detach = Some(how(name.as_deref(), *spool_limit, *on_full, *lease));
}

/// How a command is to be detached.
pub(super) fn how(
    name: Option<&str>,
    spool_limit: Option<u64>,
    on_full: Option<OnFull>,
    lease: Option<Duration>,
) -> proto::Detach {
    proto::Detach {
        name: name.unwrap_or_default().to_owned(),
        spool_limit: spool_limit.unwrap_or(0),
        on_full: match on_full {
            None => proto::OnFull::Unspecified,
            Some(OnFull::Wait) => proto::OnFull::Wait,
            Some(OnFull::Kill) => proto::OnFull::Kill,
            Some(OnFull::DropOldest) => proto::OnFull::DropOldest,
        } as i32,
        // A time under a millisecond is still a time.
        lease_ms: lease.map_or(0, |lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1)),
    }
}

/// Starts the command, and prints its id once the host has it. The inner error is a user that isn't accepted.
///
/// # Errors
/// It was not started, or nobody knows.
pub(in super::super) async fn start(
    connection: &Connection,
    name: &str,
    exec: &Exec,
    request: &Request,
    watch: &mut outage::Watch,
) -> Result<Result<Outcome, ()>, Failure> {
    let id = job_id(name)?;
    let job: Job = connection.start(id, request.clone()).map_err(|error| not_started(name, &error))?;
    let shown = escape(name);
    let result: Result<Finished, JobError> = tokio::select! {
        biased;
        result = job.wait() => result,
        never = async { watch.show(&shown, || {}).await; std::future::pending().await } => never,
    };
    match result {
        Err(JobError::Detached(_)) => {
            let text = receipt::hex(&id) + "\n";
            print(&text).map(|()| Ok(Outcome::Exited(0))).map_err(|error| {
                let text = format!(
                    "can't write standard output: {error}; the command runs, its id is {}",
                    text.trim()
                );
                Failure::new(Class::Internal, name, text)
            })
        }
        Err(JobError::Denied) => Ok(Err(())),
        Err(error) => {
            let hint = format!("remora jobs tells whether it runs; its id would be {}", receipt::hex(&id));
            Err(lost(name, &error).with_hint(hint))
        }
        Ok(finished) => {
            let outcome = outcome_of(&finished.receipt);
            let text = match &finished.receipt.outcome {
                Some(proto::receipt::Outcome::NotStarted(why)) => escape(&why.text),
                _ => "the host ran the command without detaching it".to_owned(),
            };
            let hint = match &exec.detaching.name {
                Some(job) if outcome == Outcome::Failed(Class::Refused) => {
                    taken(connection, &exec.target, job).await
                }
                _ => None,
            };
            Err(Failure { outcome, target: shown, text, hint, told: false })
        }
    }
}

/// What to try where a job wasn't given a name, if another one that runs has it.
pub(super) async fn taken(connection: &Connection, target: &str, name: &str) -> Option<String> {
    let question = proto::ask::Question::FindJob(find(name));
    let other = connection.ask_job(question).await.ok()?;
    let target = escape(target);
    (other.name == name && other.receipt.is_none())
        .then(|| format!("remora attach {target} {name}, or remora stop {target} {name} first"))
}
