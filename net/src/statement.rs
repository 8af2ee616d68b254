//! A receipt as a statement: one translation for both ends, so that a client can tell whether the text a host has signed says what the host's receipt says.

use remora_identity::statement::{
    Command, EndedBy, MemoryLimit, NotStarted, OnFull, Outcome, Spool, Statement, Stream,
};
use remora_wire::native::proto;

/// What a receipt says of a job that ran this command. It names no host key yet. None where the receipt isn't whole: an id of another
/// length, or no outcome.
pub fn statement_of(receipt: &proto::Receipt, command: &Command) -> Option<Statement> {
    let text = |text: &str| Statement::text(text.as_bytes());
    let whole = |number: u64| (number > 0).then_some(number);
    Some(Statement {
        host: text(&receipt.host_name),
        host_key: None,
        boot_id: receipt.boot_id.as_slice().try_into().ok()?,
        job_id: receipt.job_id.as_slice().try_into().ok()?,
        user: text(&receipt.user),
        session: receipt
            .session
            .as_ref()
            .map(|session| (text(&session.name), Statement::text(&session.working_directory))),
        directory: Statement::text(&receipt.working_directory),
        command: command.clone(),
        outcome: outcome(receipt.outcome.as_ref()?)?,
        ended_by: ended_by(receipt),
        pid: whole(receipt.pid),
        started_unix_ns: whole(receipt.started_unix_ns),
        ended_unix_ns: whole(receipt.ended_unix_ns),
        wall_ns: receipt.wall_ns,
        user_us: receipt.user_us,
        system_us: receipt.system_us,
        peak_memory_bytes: whole(receipt.peak_memory_bytes),
        memory_limit: MemoryLimit::ALL.iter().copied().find(|limit| limit.word() == receipt.memory_limit_by),
        stdin: stream(receipt.stdin.as_ref())?,
        stdout: stream(receipt.stdout.as_ref())?,
        stderr: stream(receipt.stderr.as_ref())?,
        spool: receipt.spool.as_ref().map(spool),
    })
}

fn spool(report: &proto::SpoolReport) -> Spool {
    Spool {
        on_full: match report.on_full() {
            proto::OnFull::Unspecified | proto::OnFull::Wait => OnFull::Wait,
            proto::OnFull::Kill => OnFull::Kill,
            proto::OnFull::DropOldest => OnFull::DropOldest,
        },
        limit: report.limit,
        stdout_start: report.stdout_start,
        stderr_start: report.stderr_start,
        was_full: report.was_full,
        disk_was_full: report.disk_was_full,
        lost: (report.stdout_lost > 0 || report.stderr_lost > 0)
            .then_some((report.stdout_lost, report.stderr_lost)),
    }
}

/// The command of a start message as a statement has it: what is long is its length and digest only.
pub fn command_of(command: &proto::start::Command) -> Command {
    match command {
        proto::start::Command::Line(line) => Command::line(line),
        proto::start::Command::Argv(argv) => Command::argv(&argv.arguments),
        proto::start::Command::LoginShell(_) => Command::LoginShell,
    }
}

fn outcome(outcome: &proto::receipt::Outcome) -> Option<Outcome> {
    use proto::NotStartedClass as Class;
    Some(match outcome {
        proto::receipt::Outcome::Exited(exited) => Outcome::Exited(u8::try_from(exited.status).ok()?),
        proto::receipt::Outcome::Signaled(signaled) => Outcome::Signaled {
            signal: u8::try_from(signaled.signal).ok()?,
            core_dumped: signaled.core_dumped,
        },
        proto::receipt::Outcome::NotStarted(why) => Outcome::NotStarted {
            class: match why.class() {
                Class::CannotExec => NotStarted::CannotExec,
                Class::NotFound => NotStarted::NotFound,
                Class::HostFull => NotStarted::HostFull,
                Class::Refused => NotStarted::Refused,
                Class::Incompatible => NotStarted::Incompatible,
                Class::Unknown => NotStarted::Unknown,
                Class::Internal | Class::Unspecified => NotStarted::Internal,
            },
            step: Statement::text(why.step.as_bytes()),
            errno: (why.errno != 0).then_some(why.errno),
            reason: Statement::text(why.text.as_bytes()),
        },
    })
}

fn ended_by(receipt: &proto::Receipt) -> Option<EndedBy> {
    Some(match receipt.ended_by() {
        proto::EndReason::Unspecified => return None,
        proto::EndReason::Deadline => EndedBy::Deadline,
        proto::EndReason::Limit => match receipt.limit.as_str() {
            "output" => EndedBy::OutputLimit,
            "memory" => EndedBy::MemoryLimit,
            "spool" => EndedBy::SpoolLimit,
            _ => EndedBy::OtherLimit,
        },
        proto::EndReason::Lease => EndedBy::Lease,
        proto::EndReason::Linger => EndedBy::Linger,
        proto::EndReason::Stop => EndedBy::Stop,
        proto::EndReason::Shutdown => EndedBy::Shutdown,
    })
}

/// None for a digest of another length.
fn stream(report: Option<&proto::StreamReport>) -> Option<Option<Stream>> {
    let Some(report) = report else { return Some(None) };
    Some(Some(Stream {
        length: report.length,
        blake3: report.blake3.as_slice().try_into().ok()?,
        held_open: report.held_open,
        closed_early: report.closed_early,
    }))
}
