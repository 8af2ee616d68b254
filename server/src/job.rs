//! Translates between the wire's messages about a job and the engine's.

use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use remora_engine::{
    Blame, EndReason, Ended, How, InputEnd, JobRequest, LimitKind, MemoryMeans, NotStarted, Output,
    OutputEnd, PeakMemory, Program, Run, Session, Stdin, Terminal, WindowSize,
};
use remora_identity::statement::ReceiptKey;
use remora_identity::{Authenticated, Refusal};
use remora_wire::native::proto;

use crate::evidence::Evidence;
use crate::lost;
use crate::sessions;
use crate::settings::Settings;

/// The engine's request for a start message, in a session if it names one.
pub(crate) fn request(start: &proto::Start, session: Option<Session>) -> Option<JobRequest> {
    let program = match start.command.clone()? {
        proto::start::Command::Line(line) => Program::Line(line),
        proto::start::Command::Argv(argv) => Program::Argv(argv.arguments),
        proto::start::Command::LoginShell(_) => Program::LoginShell,
    };
    Some(JobRequest {
        cwd: start.working_directory.clone().map(|path| std::ffi::OsString::from_vec(path).into()),
        env: start
            .environment
            .iter()
            .map(|variable| (variable.name.clone(), variable.value.clone()))
            .collect(),
        stdin: if start.no_stdin { Stdin::Null } else { Stdin::Piped },
        terminal: start.terminal.as_ref().map(terminal),
        wait_streams: start.wait_streams,
        keep_order: start.keep_order,
        login: start.login,
        session,
        ..JobRequest::new(program)
    })
}

fn terminal(terminal: &proto::Terminal) -> Terminal {
    Terminal {
        job_control: terminal.job_control,
        size: window_size(&terminal.size.unwrap_or_default()),
        modes: terminal
            .modes
            .iter()
            .filter_map(|mode| Some((u8::try_from(mode.opcode).ok()?, mode.argument)))
            .collect(),
    }
}

/// The engine's size of a window; the protocol's end has checked that the numbers fit.
pub(crate) fn window_size(size: &proto::WindowSize) -> WindowSize {
    let number = |number| u16::try_from(number).unwrap_or(u16::MAX);
    WindowSize {
        rows: number(size.rows),
        columns: number(size.columns),
        width: number(size.width),
        height: number(size.height),
    }
}

/// The time limit a start message asks for.
pub(crate) fn timeout(start: &proto::Start) -> Option<Duration> {
    (start.timeout_ms > 0).then(|| Duration::from_millis(start.timeout_ms))
}

/// Bytes of unread input that a receipt carries at the most.
const UNREAD: usize = 16 * 1024;

/// What a receipt says of the job besides its end.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) job_id: Vec<u8>,
    pub(crate) user: String,
    pub(crate) working_directory: Vec<u8>,
    pub(crate) evidence: Evidence,
    /// The boot that it ran in, where that isn't this one.
    pub(crate) boot_id: Option<[u8; 16]>,
    /// Its session as it began there, where what it changed is its own.
    pub(crate) session: Option<proto::SessionChange>,
}

impl Subject {
    /// Of a job that isn't anywhere yet.
    pub(crate) fn of(start: &proto::Start, who: &Authenticated) -> Self {
        Subject {
            job_id: start.job_id.clone(),
            user: who.user().to_owned(),
            working_directory: Vec::new(),
            evidence: Evidence::new(start),
            boot_id: None,
            session: None,
        }
    }

    fn receipt(&self, settings: &Settings) -> proto::Receipt {
        proto::Receipt {
            job_id: self.job_id.clone(),
            host_name: settings.host_name.clone(),
            boot_id: self.boot_id.unwrap_or(settings.boot_id).to_vec(),
            user: self.user.clone(),
            working_directory: self.working_directory.clone(),
            session: self.session.clone(),
            ..proto::Receipt::default()
        }
    }

    /// The receipt of a job that was not started.
    pub(crate) fn not_started(
        &self,
        settings: &Settings,
        why: proto::NotStarted,
        host_key: Option<&ReceiptKey>,
    ) -> proto::Receipt {
        let outcome = Some(proto::receipt::Outcome::NotStarted(why));
        self.evidence.attach(proto::Receipt { outcome, ..self.receipt(settings) }, host_key)
    }

    /// The receipt of a job that ran.
    pub(crate) fn ended(
        &self,
        settings: &Settings,
        ended: &Ended,
        host_key: Option<&ReceiptKey>,
    ) -> proto::Receipt {
        let (ended_by, limit) = ended.stopped.map_or((proto::EndReason::Unspecified, ""), reason);
        let outcome = match ended.how {
            How::Exited(status) => proto::receipt::Outcome::Exited(proto::Exited {
                status: u32::try_from(status).unwrap_or(255),
            }),
            How::Signaled { signal, core_dumped } => proto::receipt::Outcome::Signaled(proto::Signaled {
                signal: u32::try_from(signal.number()).unwrap_or(0),
                core_dumped,
            }),
            How::KeeperLost => lost::outcome(false),
            // Somebody else reaped the command: it ran, and how it ended can't be known.
            How::Unknown => proto::receipt::Outcome::NotStarted(proto::NotStarted {
                class: proto::NotStartedClass::Internal as i32,
                step: "wait".to_owned(),
                errno: 0,
                text: "the command ended, and its status is not known".to_owned(),
            }),
        };
        let receipt = proto::Receipt {
            outcome: Some(outcome),
            ended_by: ended_by as i32,
            limit: limit.to_owned(),
            started_unix_ns: unix_ns(ended.started),
            ended_unix_ns: unix_ns(ended.ended),
            wall_ns: u64::try_from(ended.wall.as_nanos()).unwrap_or(u64::MAX),
            user_us: u64::try_from(ended.user.as_micros()).unwrap_or(u64::MAX),
            system_us: u64::try_from(ended.system.as_micros()).unwrap_or(u64::MAX),
            // A command smaller than the spawner was at most as large as it, since the kernel hands the high-water mark on to what
            // is spawned: that is no figure of the command's, and none is better.
            peak_memory_bytes: match ended.peak_memory {
                PeakMemory::Measured(bytes) => bytes,
                PeakMemory::AtMost(_) => 0,
            },
            stdin: ended.stdin.as_ref().map(input),
            stdout: Some(output(&ended.stdout)),
            stderr: Some(output(&ended.stderr)),
            pid: u64::try_from(ended.pid).unwrap_or(0),
            memory_limit_by: match ended.memory_limited_by {
                Some(MemoryMeans::Cgroup) => "cgroup",
                Some(MemoryMeans::AddressSpace) => "rlimit",
                None => "",
            }
            .to_owned(),
            session: ended.session.as_ref().map(sessions::change).or_else(|| self.session.clone()),
            unread_input: ended.unread_input.get(..UNREAD).unwrap_or(&ended.unread_input).to_vec(),
            // What is cut is what waited for the terminal, which holds less.
            unread_upto: ended
                .unread_upto
                .saturating_sub(ended.unread_input.len().saturating_sub(UNREAD) as u64),
            order: order(&ended.order),
            spool: ended.spooled.as_ref().map(crate::detached::report),
            ..self.receipt(settings)
        };
        self.evidence.attach(receipt, host_key)
    }
}

fn reason(reason: EndReason) -> (proto::EndReason, &'static str) {
    match reason {
        EndReason::Deadline => (proto::EndReason::Deadline, ""),
        EndReason::Limit(LimitKind::Output) => (proto::EndReason::Limit, "output"),
        EndReason::Limit(LimitKind::Memory) => (proto::EndReason::Limit, "memory"),
        EndReason::Limit(LimitKind::Spool) => (proto::EndReason::Limit, "spool"),
        EndReason::Limit(_) => (proto::EndReason::Limit, ""),
        EndReason::Lease => (proto::EndReason::Lease, ""),
        EndReason::Linger | EndReason::ClientGone => (proto::EndReason::Linger, ""),
        EndReason::Shutdown => (proto::EndReason::Shutdown, ""),
        // EndReason grows with the engine; what has no word on the wire yet is a stop.
        EndReason::Stop | _ => (proto::EndReason::Stop, ""),
    }
}

fn output(end: &OutputEnd) -> proto::StreamReport {
    proto::StreamReport {
        length: end.length,
        blake3: end.blake3.to_vec(),
        held_open: end.held_open,
        closed_early: end.closed_early || end.cut,
    }
}

fn input(end: &InputEnd) -> proto::StreamReport {
    proto::StreamReport {
        length: end.length,
        blake3: end.blake3.to_vec(),
        held_open: false,
        closed_early: end.closed_early,
    }
}

/// Lengths of stdout and stderr in turn, stdout's first.
fn order(runs: &[Run]) -> Vec<u64> {
    let mut lengths = Vec::with_capacity(runs.len() + 1);
    if runs.first().is_some_and(|first| first.output == Output::Stderr) {
        lengths.push(0);
    }
    lengths.extend(runs.iter().map(|run| run.length));
    lengths
}

pub(crate) fn unix_ns(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Why the engine didn't start a job, for the wire.
pub(crate) fn not_started(error: &NotStarted) -> proto::NotStarted {
    proto::NotStarted {
        class: class(error.blame()) as i32,
        step: error.step.name().to_owned(),
        errno: error.errno.unwrap_or(0),
        text: error.to_string(),
    }
}

fn class(blame: Blame) -> proto::NotStartedClass {
    match blame {
        Blame::NotFound => proto::NotStartedClass::NotFound,
        Blame::CannotExec => proto::NotStartedClass::CannotExec,
        Blame::HostFull => proto::NotStartedClass::HostFull,
        Blame::Internal => proto::NotStartedClass::Internal,
        Blame::Unknown => proto::NotStartedClass::Unknown,
    }
}

/// Why policy refused a job, for the wire.
pub(crate) fn refused(refusal: &Refusal) -> proto::NotStarted {
    proto::NotStarted {
        class: proto::NotStartedClass::Refused as i32,
        step: "policy".to_owned(),
        errno: 0,
        text: refusal.to_string(),
    }
}

/// A job that can't be started for a reason outside policy and engine.
pub(crate) fn unsuitable(class: proto::NotStartedClass, text: &str) -> proto::NotStarted {
    proto::NotStarted { class: class as i32, step: "request".to_owned(), errno: 0, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_blames_has_a_class_on_the_wire() {
        for (blame, told) in [
            (Blame::NotFound, proto::NotStartedClass::NotFound),
            (Blame::CannotExec, proto::NotStartedClass::CannotExec),
            (Blame::HostFull, proto::NotStartedClass::HostFull),
            (Blame::Internal, proto::NotStartedClass::Internal),
            (Blame::Unknown, proto::NotStartedClass::Unknown),
        ] {
            assert_eq!(class(blame), told);
        }
    }
}
