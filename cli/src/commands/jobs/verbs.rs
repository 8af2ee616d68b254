//! `remora signal`, `stop`, `forget`, `renew` and `detach`.

use remora_client::{Class, Outcome, outcome_of, proto};

use super::super::ending::how;
use super::super::exec::Ending;
use super::ask::{At, Halt, Held, begin, find, finish, one};
use super::list::id;
use super::start;
use super::wait::until_over;
use crate::arguments::{Detach, Forget, Renew, SignalJob, Stop, Watching, Which};
use crate::printable::escape;
use crate::terminal::{Failure, print, say};

/// Asks one thing of a job.
async fn ask(which: &Which, question: proto::ask::Question) -> Result<(At, proto::JobInfo), Halt> {
    let (asking, list) = begin(&which.target, &which.reach, None, question).await?;
    let job = one(&asking.at.name, list)?;
    Ok((asking.at, job))
}

/// Signals by their numbers on Linux, from 1 on, as all of its machines but MIPS have them.
const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// Further names of some.
const OTHER_NAMES: [&str; 3] = ["IOT", "CLD", "POLL"];

/// A signal's name, as it is sent.
fn name_of(word: &str) -> Option<String> {
    if let Ok(number) = word.parse::<usize>() {
        return SIGNALS.get(number.checked_sub(1)?).map(|name| (*name).to_owned());
    }
    let name = word.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    SIGNALS.iter().chain(&OTHER_NAMES).find(|known| **known == name).map(|known| (*known).to_owned())
}

/// Sends the signal, and tells how the process is to end.
pub(crate) fn signal(signal: &SignalJob) -> Ending {
    finish(async {
        let name = name_of(&signal.signal).ok_or_else(|| {
            let failure = Failure::usage(format!("there is no signal {}", escape(&signal.signal)));
            failure.with_hint(format!("{}; or 1 to {}", SIGNALS.join(" "), SIGNALS.len()))
        })?;
        let question = proto::SignalJob { job: signal.which.job.clone(), signal: name };
        ask(&signal.which, proto::ask::Question::SignalJob(question)).await?;
        Ok(Outcome::Exited(0))
    })
}

/// Ends the job and waits for its end, and tells how the process is to end.
pub(crate) fn stop(stop: &Stop) -> Ending {
    let which = &stop.which;
    finish(async {
        let question = proto::ask::Question::StopJob(proto::StopJob { job: which.job.clone() });
        // It may take as long as the command likes, up to the grace.
        let held = Held { watching: &Watching::default(), again: "remora wait", which };
        let (mut asking, list) = begin(&which.target, &which.reach, Some(held), question).await?;
        let job = until_over(&mut asking, list, false, false).await?;
        if let Some(receipt) = &job.receipt {
            say(&format!("{}: {}: {}", escape(&asking.at.name), id(&job), how(&outcome_of(receipt))));
        }
        Ok(Outcome::Exited(0))
    })
}

/// Forgets the job, and tells how the process is to end.
pub(crate) fn forget(forget: &Forget) -> Ending {
    let question = proto::ForgetJob { job: forget.which.job.clone() };
    finish(async {
        ask(&forget.which, proto::ask::Question::ForgetJob(question)).await?;
        Ok(Outcome::Exited(0))
    })
}

/// Renews the lease, and tells how the process is to end.
pub(crate) fn renew(renew: &Renew) -> Ending {
    // A time under a millisecond is still a time.
    let lease_ms = renew.lease.map_or(0, |lease| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1));
    let question = proto::RenewJob { job: renew.which.job.clone(), lease_ms };
    finish(async {
        ask(&renew.which, proto::ask::Question::RenewJob(question)).await?;
        Ok(Outcome::Exited(0))
    })
}

/// Detaches the job and prints its id, and tells how the process is to end.
pub(crate) fn detach(detach: &Detach) -> Ending {
    let Detach { which, name, lease, on_full, spool_limit } = detach;
    let how = start::how(name.as_deref(), *spool_limit, *on_full, *lease);
    let question = proto::DetachJob { job: which.job.clone(), detach: Some(how) };
    finish(async {
        let (at, job) = match name {
            None => ask(which, proto::ask::Question::DetachJob(question)).await?,
            Some(name) => {
                // Found first, so that there is a connection to ask whose the name is.
                let (at, found) = ask(which, proto::ask::Question::FindJob(find(&which.job))).await?;
                let question = proto::DetachJob { job: id(&found), ..question };
                match at.connection.ask_job(proto::ask::Question::DetachJob(question)).await {
                    Ok(job) => (at, job),
                    Err(error) => {
                        let failure = at.unanswered(&error);
                        let hint = start::taken(&at.connection, &which.target, name).await.or(failure.hint);
                        return Err(Failure { hint, ..failure }.into());
                    }
                }
            }
        };
        print(&(id(&job) + "\n")).map_err(|error| {
            let text = format!("can't write standard output: {error}; the command is detached");
            Failure::new(Class::Internal, &at.name, text)
        })?;
        Ok(Outcome::Exited(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_goes_by_its_name_or_number() {
        for (word, name) in [("15", "TERM"), ("sigHup", "HUP"), ("9", "KILL"), ("31", "SYS"), ("Cld", "CLD")]
        {
            assert_eq!(name_of(word).as_deref(), Some(name));
            let number = SIGNALS.iter().position(|known| *known == name);
            if let Some(number) = number {
                let number = i32::try_from(number + 1).unwrap();
                let here = signal_hook::low_level::signal_name(number);
                assert!(here.is_none_or(|here| here.ends_with(name)), "{number} is {here:?} here");
            }
        }
        for word in ["0", "32", "-9", "", "SIG", "FOO"] {
            assert_eq!(name_of(word), None, "{word:?}");
        }
    }
}
