//! How a job ended, or why it has no end, in words.

use remora_client::{Class, JobError, Outcome, StartError, proto};

use crate::printable::chain;
use crate::terminal::Failure;

/// A job that can't be asked for.
pub(super) fn not_started(name: &str, error: &StartError) -> Failure {
    let class = match error {
        StartError::Limit(remora_wire::native::StartError::TooLarge { .. }) => Class::Usage,
        StartError::GoingAway(_) => Class::Unreachable,
        _ => Class::Lost,
    };
    Failure::new(class, name, chain(error))
}

/// What to try where a session's line was not started.
pub(super) fn in_session(why: &proto::NotStarted) -> Option<String> {
    // The engine's name of the step stays the same; its text is for people.
    (why.step == "working-directory").then(|| "cd elsewhere first, as cd ~".to_owned())
}

/// A job without a receipt.
pub(super) fn lost(name: &str, error: &JobError) -> Failure {
    let class = match error {
        JobError::Fault { code: 13, .. } => Class::Incompatible,
        JobError::GoneAway(_) => Class::Unreachable,
        _ => Class::Lost,
    };
    let failure = Failure::new(class, name, chain(error));
    match error {
        JobError::Lost(_) | JobError::GivenUp { .. } | JobError::NotResumed(_) => {
            failure.with_hint("the command may have run, and may have ended or not")
        }
        JobError::NoVerdict => failure.with_hint("the command may have run"),
        _ => failure,
    }
}

/// An outcome in words.
pub(super) fn how(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited(status) => format!("exited with {status}"),
        Outcome::Signaled { signal, .. } => killed_by(*signal),
        other => other.name().to_owned(),
    }
}

/// What a death by a signal is called.
pub(super) fn killed_by(signal: u8) -> String {
    match signal_hook::low_level::signal_name(signal.into()) {
        Some(name) => format!("the command was killed by {name}"),
        None => format!("the command was killed by signal {signal}"),
    }
}

/// A name for a job that no other job has.
///
/// # Errors
/// The kernel has no random bytes.
pub(super) fn job_id(name: &str) -> Result<[u8; 16], Failure> {
    let mut id = [0; 16];
    rustix::rand::getrandom(id.as_mut_slice(), rustix::rand::GetRandomFlags::empty())
        .map_err(|error| Failure::new(Class::Internal, name, format!("no random bytes: {error}")))?;
    Ok(id)
}
