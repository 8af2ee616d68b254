//! `remora jobs`.

use std::time::Duration;

use remora_client::{Class, Outcome, proto};
use serde_json::{Value, json};

use super::super::receipt;
use super::super::sessions::age;
use super::ask::{begin, finish};
use super::end::state;
use crate::arguments::Jobs;
use crate::printable::escape;
use crate::terminal::{Failure, print, say};

/// Characters of an id that a table shows: more than enough to tell a thousand apart.
const SHORT: usize = 12;
/// Characters of a command that a table shows.
const COMMAND: usize = 60;

/// Lists, and gives the process' exit status.
pub(crate) fn run(jobs: &Jobs) -> u8 {
    finish(async {
        let question = proto::ask::Question::ListJobs(proto::ListJobs {});
        let (asking, list) = begin(&jobs.target, &jobs.reach, None, question).await?;
        let text = if jobs.json {
            let all: Vec<Value> = list.jobs.iter().map(|job| object(&jobs.target, job)).collect();
            json!({ "schema": receipt::SCHEMA, "target": jobs.target, "jobs": all, "more": list.more })
                .to_string()
                + "\n"
        } else {
            table(&list.jobs)
        };
        print(&text).map_err(|error| {
            Failure::new(Class::Internal, &asking.name, format!("can't write standard output: {error}"))
        })?;
        if list.more && !jobs.json {
            say(&format!("{}: there are more, older ones", escape(&asking.name)));
        }
        Ok(Outcome::Exited(0))
    })
}

/// An id, in hexadecimal digits.
pub(super) fn id(job: &proto::JobInfo) -> String {
    receipt::hex(&job.id)
}

fn table(jobs: &[proto::JobInfo]) -> String {
    let mut rows = vec![["ID", "NAME", "STATE", "TIME", "STDOUT", "STDERR", "COMMAND"].map(str::to_owned)];
    for job in jobs {
        let command = escape(&String::from_utf8_lossy(&line(job)));
        let shown: String = command.chars().take(COMMAND).collect();
        let cut = if shown.len() < command.len() { "…" } else { "" };
        rows.push([
            id(job).chars().take(SHORT).collect(),
            if job.name.is_empty() { "-".to_owned() } else { escape(&job.name) },
            state(job),
            age(Duration::from_nanos(job.wall_ns)),
            job.stdout_end.to_string(),
            job.stderr_end.to_string(),
            format!("{shown}{cut}"),
        ]);
    }
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn line(job: &proto::JobInfo) -> Vec<u8> {
    match &job.command {
        Some(proto::job_info::Command::Line(line)) => line.clone(),
        Some(proto::job_info::Command::Argv(argv)) => argv.arguments.join(&b' '),
        Some(proto::job_info::Command::LoginShell(_)) => b"the login shell".to_vec(),
        None => Vec::new(),
    }
}

/// The command, as `--json` gives it.
pub(super) fn command(job: &proto::JobInfo) -> Value {
    match &job.command {
        Some(proto::job_info::Command::Line(line)) => json!({ "line": receipt::text(line) }),
        Some(proto::job_info::Command::Argv(argv)) => {
            let words: Vec<Value> = argv.arguments.iter().map(|word| receipt::text(word)).collect();
            json!({ "argv": words })
        }
        _ => json!({ "argv": [] }),
    }
}

fn object(target: &str, job: &proto::JobInfo) -> Value {
    let state = match job.state() {
        proto::JobState::Running => "running",
        proto::JobState::Ended => "ended",
        proto::JobState::Lost => "lost",
        proto::JobState::Attached => "attached",
        proto::JobState::Unspecified => "unknown",
    };
    let nothing = receipt::Captured { bytes: &[], seen: 0 };
    json!({
        "id": id(job),
        "name": (!job.name.is_empty()).then_some(&job.name),
        "command": command(job),
        "user": job.user,
        "state": state,
        "started": receipt::time(job.started_unix_ns),
        "wall_seconds": job.wall_ns as f64 / 1e9,
        "pid": job.pid,
        "bytes": job.stdout_end.saturating_add(job.stderr_end),
        "stdout": { "start": job.stdout_start, "end": job.stdout_end },
        "stderr": { "start": job.stderr_start, "end": job.stderr_end },
        "on_full": receipt::on_full(job.on_full()),
        "spool_limit": job.spool_limit,
        "held_back": match job.held_back() {
            proto::HeldBack::Unspecified => None,
            proto::HeldBack::Limit => Some("limit"),
            proto::HeldBack::Disk => Some("disk"),
        },
        "ends_alone_in_seconds": (job.alone_ms > 0).then_some(job.alone_ms as f64 / 1e3),
        "lease_seconds": (job.lease_ms > 0).then_some(job.lease_ms as f64 / 1e3),
        "receipt": job.receipt.as_ref().map(|receipt| {
            receipt::receipt(target, command(job), receipt, &nothing, &nothing, None)
        }),
    })
}
