//! `remora signal`, `stop`, `forget`, `renew` and `detach`.

use remora_client::{Class, Outcome, outcome_of, proto};

use super::super::ending::how;
use super::ask::{begin, finish, one};
use super::list::id;
use super::start;
use super::wait::until_over;
use crate::arguments::{Detach, Forget, Renew, SignalJob, Stop, Which};
use crate::printable::escape;
use crate::terminal::{Failure, print, say};

/// Asks one thing of a job.
async fn ask(which: &Which, question: proto::ask::Question) -> Result<(String, proto::JobInfo), Failure> {
    let (asking, list) = begin(&which.target, &which.reach, None, question).await?;
    let job = one(&asking.name, list)?;
    Ok((asking.name, job))
}

/// Sends the signal, and gives the process' exit status.
pub(crate) fn signal(signal: &SignalJob) -> u8 {
    let name = signal.signal.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name).to_owned();
    let question = proto::SignalJob { job: signal.which.job.clone(), signal: name };
    finish(async {
        ask(&signal.which, proto::ask::Question::SignalJob(question)).await.map(|_| Outcome::Exited(0))
    })
}

/// Ends the job and waits for its end, and gives the process' exit status.
pub(crate) fn stop(stop: &Stop) -> u8 {
    let which = &stop.which;
    finish(async {
        let question = proto::ask::Question::StopJob(proto::StopJob { job: which.job.clone() });
        let (mut asking, list) = begin(&which.target, &which.reach, None, question).await?;
        let job = until_over(&mut asking, list, false, false).await?;
        if let Some(receipt) = &job.receipt {
            say(&format!("{}: {}: {}", escape(&asking.name), id(&job), how(&outcome_of(receipt))));
        }
        Ok(Outcome::Exited(0))
    })
}

/// Forgets the job, and gives the process' exit status.
pub(crate) fn forget(forget: &Forget) -> u8 {
    let question = proto::ForgetJob { job: forget.which.job.clone() };
    finish(async {
        ask(&forget.which, proto::ask::Question::ForgetJob(question)).await.map(|_| Outcome::Exited(0))
    })
}

/// Renews the lease, and gives the process' exit status.
pub(crate) fn renew(renew: &Renew) -> u8 {
    // A time under a millisecond is still a time.
    let lease_ms = renew.lease.map_or(0, |lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1));
    let question = proto::RenewJob { job: renew.which.job.clone(), lease_ms };
    finish(async {
        ask(&renew.which, proto::ask::Question::RenewJob(question)).await.map(|_| Outcome::Exited(0))
    })
}

/// Detaches the job and prints its id, and gives the process' exit status.
pub(crate) fn detach(detach: &Detach) -> u8 {
    let Detach { which, name, lease, on_full, spool_limit } = detach;
    let how = start::how(name.as_deref(), *spool_limit, *on_full, *lease);
    let question = proto::DetachJob { job: which.job.clone(), detach: Some(how) };
    finish(async {
        let (name, job) = ask(which, proto::ask::Question::DetachJob(question)).await?;
        print(&(id(&job) + "\n")).map_err(|error| {
            let text = format!("can't write standard output: {error}; the command is detached");
            Failure::new(Class::Internal, &name, text)
        })?;
        Ok(Outcome::Exited(0))
    })
}
