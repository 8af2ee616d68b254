//! How a detached command ended, in words.

use std::time::Duration;

use remora_client::{Outcome, outcome_of, proto};

use super::super::ending::{how, killed_by};
use super::super::sessions::age;
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
    let held =
        spool.disk_was_full.then(|| "the command was held back while the host's disk was full".to_owned());
    let all: Vec<String> = [done, held, lost_bytes(spool)].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join("; "))
}

/// What was printed last and isn't there, if anything.
pub(super) fn lost_bytes(spool: &proto::SpoolReport) -> Option<String> {
    let (stdout, stderr) = (spool.stdout_lost, spool.stderr_lost);
    (stdout > 0 || stderr > 0).then(|| {
        format!("it was ended while the disk was full: the last {stdout} bytes of stdout and {stderr} of stderr are not kept")
    })
}

/// What holds a command back that runs, and what to do.
pub(super) fn held_back(job: &proto::JobInfo) -> Option<String> {
    let limit = job.spool_limit;
    Some(match job.held_back() {
        proto::HeldBack::Unspecified => return None,
        proto::HeldBack::Limit => format!(
            "the command is held back: {limit} bytes of a stream are kept, and no more may be; remora stop ends it"
        ),
        proto::HeldBack::Disk => {
            "the command is held back: the host's disk is full; it goes on when there is room, remora stop ends it"
                .to_owned()
        }
    })
}

/// In a word, for a list.
pub(super) fn state(job: &proto::JobInfo) -> String {
    match (job.state(), &job.receipt) {
        (proto::JobState::Running, _) => match job.held_back() {
            proto::HeldBack::Unspecified => "running".to_owned(),
            proto::HeldBack::Limit => "held back".to_owned(),
            proto::HeldBack::Disk => "disk full".to_owned(),
        },
        (proto::JobState::Silent, _) => "no answer".to_owned(),
        (proto::JobState::Attached, _) if job.alone_ms > 0 => {
            format!("alone, ends in {}", age(Duration::from_millis(job.alone_ms)))
        }
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
