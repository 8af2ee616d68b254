//! How a detached command ended, in words.

use remora_client::{Outcome, outcome_of, proto};

use super::super::ending::{how, killed_by};
use crate::printable::escape;
use crate::terminal::{Failure, say};

/// Its outcome. What a status alone doesn't say is told.
pub(super) fn tell(name: &str, receipt: &proto::Receipt) -> Outcome {
    let outcome = outcome_of(receipt);
    let failure = |text: String| Failure {
        outcome: outcome.clone(),
        target: escape(name),
        text,
        hint: None,
        told: false,
    };
    match (&outcome, &receipt.outcome) {
        (_, Some(proto::receipt::Outcome::NotStarted(why))) => failure(escape(&why.text)).print(),
        (Outcome::Deadline, _) => {
            failure("the command ran into its time limit and was ended".to_owned()).print()
        }
        (Outcome::Signaled { by: Some(why), .. }, _) => {
            failure(format!("the host ended the command ({why})")).print()
        }
        (Outcome::Signaled { signal, by: None }, _) => failure(killed_by(*signal)).print(),
        _ => {}
    }
    if let Some(text) = receipt.spool.as_ref().and_then(full) {
        say(&format!("{}: {text}", escape(name)));
    }
    outcome
}

/// What was done at the limit of the output, if that was reached.
pub(in super::super) fn full(spool: &proto::SpoolReport) -> Option<String> {
    let done = match (spool.was_full, spool.on_full()) {
        (true, proto::OnFull::Kill) => Some("the command was ended for it".to_owned()),
        (true, proto::OnFull::DropOldest) => Some(format!(
            "the oldest output was dropped: stdout is kept from offset {}, stderr from {}",
            spool.stdout_start, spool.stderr_start
        )),
        (true, _) => Some("the command was held back".to_owned()),
        (false, _) => None,
    };
    let done = done.map(|done| format!("the limit of {} bytes a stream was reached: {done}", spool.limit));
    match (done, spool.disk_was_full) {
        (Some(done), true) => Some(format!("{done}; and it was held back while the disk was full")),
        (None, true) => Some("the command was held back while the host's disk was full".to_owned()),
        (done, false) => done,
    }
}

/// In a word, for a list.
pub(super) fn state(job: &proto::JobInfo) -> String {
    match (job.state(), &job.receipt) {
        (proto::JobState::Running, _) if is_full(job) => "held back".to_owned(),
        (proto::JobState::Running, _) => "running".to_owned(),
        (proto::JobState::Attached, _) => "attached".to_owned(),
        (proto::JobState::Lost, Some(receipt)) => match &receipt.outcome {
            Some(proto::receipt::Outcome::NotStarted(why)) if why.step == "reboot" => {
                "lost at reboot".to_owned()
            }
            _ => "lost".to_owned(),
        },
        (_, Some(receipt)) => match outcome_of(receipt) {
            Outcome::Signaled { by: Some(by), .. } => format!("ended: {by}"),
            Outcome::Signaled { signal, by: None } => {
                match signal_hook::low_level::signal_name(signal.into()) {
                    Some(name) => format!("killed: {}", name.trim_start_matches("SIG")),
                    None => format!("killed: {signal}"),
                }
            }
            Outcome::Exited(status) => format!("exited {status}"),
            other => how(&other),
        },
        (_, None) => "unknown".to_owned(),
    }
}

/// Whether a stream is at a limit that holds its command back.
fn is_full(job: &proto::JobInfo) -> bool {
    let waits = matches!(job.on_full(), proto::OnFull::Wait | proto::OnFull::Unspecified);
    let at_limit = |start: u64, end: u64| end.saturating_sub(start) >= job.spool_limit;
    waits && (at_limit(job.stdout_start, job.stdout_end) || at_limit(job.stderr_start, job.stderr_end))
}
