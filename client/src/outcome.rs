//! How a job ended, and the exit status that says so. docs/EXIT-STATUS.md is this file in words.

use remora_wire::native::proto;

/// Why a command gave no status of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Arguments or local configuration; nothing was sent.
    Usage,
    /// Resolve, connect, handshake, or the host is full. May be retried.
    Unreachable,
    /// Either side's identity was not accepted.
    Unauthenticated,
    /// Identity known, policy says no.
    Refused,
    /// Version, or malformed bytes before the request.
    Incompatible,
    /// Request sent, no receipt.
    Lost,
    /// A fault of remora.
    Internal,
}

impl Class {
    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Class::Usage => "usage",
            Class::Unreachable => "unreachable",
            Class::Unauthenticated => "unauthenticated",
            Class::Refused => "refused",
            Class::Incompatible => "incompatible",
            Class::Lost => "lost",
            Class::Internal => "internal",
        }
    }
}

/// How a job ended: not started (and why), ended (and how), or unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The command exited by itself.
    Exited(u8),
    /// A signal ended it: Linux number, and remora's reason when remora sent it.
    Signaled {
        /// Linux signal number.
        signal: u8,
        /// Why remora ended the job, if it did.
        by: Option<String>,
    },
    /// Remora's time limit ended it.
    Deadline,
    /// It was found, and could not be executed.
    CannotExec,
    /// There is no such command.
    NotFound,
    /// Everything that isn't the command's doing.
    Failed(Class),
}

impl Outcome {
    /// Its word, as `--json` and `--status-file` give it.
    pub fn name(&self) -> &'static str {
        match self {
            Outcome::Exited(_) => "exited",
            Outcome::Signaled { .. } => "signaled",
            Outcome::Deadline => "deadline",
            Outcome::CannotExec => "cannot-exec",
            Outcome::NotFound => "not-found",
            Outcome::Failed(class) => class.name(),
        }
    }
}

/// The exit status of an outcome: the one function that computes it. A lossy view.
///
/// `as_ssh` folds what ssh doesn't know, 128+n and 193 to 199, into ssh's 255.
pub fn exit_status(outcome: &Outcome, as_ssh: bool) -> u8 {
    let status = match outcome {
        Outcome::Exited(status) => return *status,
        Outcome::Signaled { signal, .. } => 128u8.saturating_add(*signal),
        Outcome::Deadline => return 124,
        Outcome::CannotExec => return 126,
        Outcome::NotFound => return 127,
        Outcome::Failed(Class::Usage) => 193,
        Outcome::Failed(Class::Unreachable) => 194,
        Outcome::Failed(Class::Unauthenticated) => 195,
        Outcome::Failed(Class::Refused) => 196,
        Outcome::Failed(Class::Incompatible) => 197,
        Outcome::Failed(Class::Lost) => 198,
        Outcome::Failed(Class::Internal) => 199,
    };
    if as_ssh { 255 } else { status }
}

/// The outcome that a receipt tells.
pub fn outcome_of(receipt: &proto::Receipt) -> Outcome {
    use proto::NotStartedClass as Why;
    use proto::receipt::Outcome as Told;
    match &receipt.outcome {
        _ if receipt.ended_by() == proto::EndReason::Deadline => Outcome::Deadline,
        Some(Told::Exited(exited)) => Outcome::Exited(u8::try_from(exited.status).unwrap_or(u8::MAX)),
        Some(Told::Signaled(signaled)) => Outcome::Signaled {
            signal: u8::try_from(signaled.signal).unwrap_or(u8::MAX),
            by: match receipt.ended_by() {
                proto::EndReason::Unspecified | proto::EndReason::Deadline => None,
                proto::EndReason::Limit => Some(format!("limit: {}", receipt.limit.escape_debug())),
                proto::EndReason::Lease => Some("lease".to_owned()),
                proto::EndReason::Linger => Some("linger".to_owned()),
                proto::EndReason::Stop => Some("stop".to_owned()),
                proto::EndReason::Shutdown => Some("shutdown".to_owned()),
            },
        },
        Some(Told::NotStarted(not_started)) => match not_started.class() {
            Why::CannotExec => Outcome::CannotExec,
            Why::NotFound => Outcome::NotFound,
            Why::HostFull => Outcome::Failed(Class::Unreachable),
            Why::Refused => Outcome::Failed(Class::Refused),
            Why::Incompatible => Outcome::Failed(Class::Incompatible),
            Why::Unknown => Outcome::Failed(Class::Lost),
            Why::Internal | Why::Unspecified => Outcome::Failed(Class::Internal),
        },
        None => Outcome::Failed(Class::Lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_the_status_of_the_table() {
        let signaled = Outcome::Signaled { signal: 15, by: None };
        let table = [
            (Outcome::Exited(0), 0, 0),
            (Outcome::Exited(193), 193, 193),
            (Outcome::Exited(255), 255, 255),
            (signaled, 143, 255),
            (Outcome::Deadline, 124, 124),
            (Outcome::CannotExec, 126, 126),
            (Outcome::NotFound, 127, 127),
            (Outcome::Failed(Class::Usage), 193, 255),
            (Outcome::Failed(Class::Unreachable), 194, 255),
            (Outcome::Failed(Class::Unauthenticated), 195, 255),
            (Outcome::Failed(Class::Refused), 196, 255),
            (Outcome::Failed(Class::Incompatible), 197, 255),
            (Outcome::Failed(Class::Lost), 198, 255),
            (Outcome::Failed(Class::Internal), 199, 255),
        ];
        for (outcome, status, as_ssh) in table {
            assert_eq!(exit_status(&outcome, false), status, "{outcome:?}");
            assert_eq!(exit_status(&outcome, true), as_ssh, "{outcome:?}");
        }
    }
}
