//! `remora receipt show`: what a receipt says, for people.

use remora_client::{exit_status, proto};
use remora_identity::statement::{Argv, Command, EndedBy, OnFull, Outcome, Spool, Statement, Stream, Text};

use super::super::folder::RECEIPT;
use super::super::jobs::full;
use super::read::read;
use super::{hex, time};
use crate::arguments::Show;
use crate::printable::escape;
use crate::terminal::{print, say};

/// Tells it, and gives the process' exit status.
pub(crate) fn run(arguments: &Show) -> u8 {
    let named = match arguments.file.is_dir() {
        true => arguments.file.join(RECEIPT),
        false => arguments.file.clone(),
    };
    let (file, statement) = match read(&named) {
        Ok(Ok(read)) => read,
        Ok(Err(wrong)) => {
            wrong.print(&arguments.file);
            return 1;
        }
        Err(failure) => {
            failure.print();
            return exit_status(&failure.outcome, false);
        }
    };
    let path = escape(&arguments.file.display().to_string());
    let signature = match (&file.sshsig, &statement.host_key) {
        (Some(_), _) => format!("there is one; `remora receipt verify {path}` checks it"),
        (None, Some(_)) => "missing".to_owned(),
        (None, None) => "none: its connection had no host key".to_owned(),
    };
    let mut text = String::new();
    for (name, value) in rows(&statement).into_iter().chain([("signature", signature)]) {
        text.push_str(&format!("{name:<10} {value}\n"));
    }
    match print(&text) {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("can't write standard output: {error}"));
            exit_status(&remora_client::Outcome::Failed(remora_client::Class::Internal), false)
        }
    }
}

fn rows(statement: &Statement) -> Vec<(&'static str, String)> {
    let mut rows = vec![
        ("command", command(&statement.command)),
        ("outcome", outcome(statement)),
        ("user", readable(&statement.user)),
        ("directory", readable(&statement.directory)),
    ];
    if let Some((name, directory)) = &statement.session {
        rows.push(("session", format!("{}, in {} afterwards", readable(name), readable(directory))));
    }
    if let (Some(started), Some(ended)) = (statement.started_unix_ns, statement.ended_unix_ns) {
        rows.push(("started", time(started).unwrap_or_default()));
        rows.push(("ended", time(ended).unwrap_or_default()));
        rows.push(("took", format!("{:.6} s", statement.wall_ns as f64 / 1e9)));
        let (user, system) = (statement.user_us as f64 / 1e6, statement.system_us as f64 / 1e6);
        rows.push(("processor", format!("{user:.6} s user, {system:.6} s system")));
    }
    if let Some(bytes) = statement.peak_memory_bytes {
        rows.push(("memory", format!("{bytes} bytes at the most")));
    }
    if let Some(limit) = statement.memory_limit {
        rows.push(("limited by", limit.word().to_owned()));
    }
    let streams = [("stdin", &statement.stdin), ("stdout", &statement.stdout), ("stderr", &statement.stderr)];
    rows.extend(streams.map(|(name, report)| (name, report.as_ref().map_or("-".to_owned(), stream))));
    if let Some(text) = statement.spool.as_ref().and_then(spool) {
        rows.push(("kept", text));
    }
    if let Some(pid) = statement.pid {
        rows.push(("pid", pid.to_string()));
    }
    rows.push(("job", hex(&statement.job_id)));
    rows.push(("boot", hex(&statement.boot_id)));
    let key = statement.host_key.as_ref().map(|key| format!(", key {key}")).unwrap_or_default();
    rows.push(("host", readable(&statement.host) + &key));
    rows
}

fn command(command: &Command) -> String {
    match command {
        Command::Line(line) => readable(line),
        Command::Argv(Argv::Whole(arguments)) => {
            arguments.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
        }
        Command::Argv(argv) => argv.to_string(),
        _ => "the login shell".to_owned(),
    }
}

fn outcome(statement: &Statement) -> String {
    let by = statement.ended_by.map(EndedBy::word);
    let by = by.map(|word| format!(", ended by the host: {word}")).unwrap_or_default();
    match &statement.outcome {
        Outcome::Exited(status) => format!("exited with {status}{by}"),
        Outcome::Signaled { signal, core_dumped } => {
            let name = signal_hook::low_level::signal_name((*signal).into());
            let name = name.map_or_else(|| format!("signal {signal}"), str::to_owned);
            format!("killed by {name}{}{by}", if *core_dumped { ", core dumped" } else { "" })
        }
        Outcome::NotStarted { class, reason, .. } => {
            format!("not started ({}): {}", class.word(), readable(reason))
        }
        other => other.to_string(),
    }
}

fn stream(stream: &Stream) -> String {
    let held = if stream.held_open { ", held open by another process" } else { "" };
    let closed = if stream.closed_early { ", closed before its end" } else { "" };
    format!("{} bytes, BLAKE3 {}{held}{closed}", stream.length, hex(&stream.blake3))
}

/// What happened at the limit of a detached job's output, if anything did.
fn spool(spool: &Spool) -> Option<String> {
    let Spool { limit, stdout_start, stderr_start, was_full, disk_was_full, lost, .. } = *spool;
    let (stdout_lost, stderr_lost) = lost.unwrap_or_default();
    let on_full = match spool.on_full {
        OnFull::Kill => proto::OnFull::Kill,
        OnFull::DropOldest => proto::OnFull::DropOldest,
        _ => proto::OnFull::Wait,
    } as i32;
    full(&proto::SpoolReport {
        on_full,
        limit,
        was_full,
        disk_was_full,
        stdout_start,
        stderr_start,
        stdout_lost,
        stderr_lost,
    })
}

/// Text as it is, made safe; where it is none or only its digest is told, as in the statement.
fn readable(text: &Text) -> String {
    match text.bytes().map(str::from_utf8) {
        Some(Ok(text)) => escape(text),
        _ => text.to_string(),
    }
}

/// An argument, with quotes where its borders would be in doubt.
pub(in super::super) fn quoted(argument: &[u8]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_".contains(c);
    match str::from_utf8(argument) {
        Ok(word) if !word.is_empty() && word.chars().all(plain) => word.to_owned(),
        Ok(word) => format!("\"{}\"", escape(&word.replace('\\', "\\\\").replace('"', "\\\""))),
        Err(_) => Statement::text(argument).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_show_where_they_end_and_move_no_cursor() {
        for (argument, shown) in [
            (&b"ls"[..], "ls"),
            (b"", "\"\""),
            (b"a b", "\"a b\""),
            (b"a\"\\", "\"a\\\"\\\\\""),
            ("naïve".as_bytes(), "naïve"),
            (b"\x1b[2J", "\"\\u{1b}[2J\""),
            (b"\xff", "\"\\xff\""),
        ] {
            assert_eq!(quoted(argument), shown);
        }
    }
}
