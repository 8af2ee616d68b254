//! `remora jobs`.

use std::io::IsTerminal;
use std::time::Duration;

use jiff::Zoned;
use remora_client::{Class, Outcome, proto};
use serde_json::{Value, json};

use super::super::exec::Ending;
use super::super::outage::SHORT_ID;
use super::super::sessions::age;
use super::super::{receipt, tty};
use super::ask::{begin, finish_in_json};
use super::end::state;
use crate::arguments::Jobs;
use crate::printable::escape;
use crate::terminal::{Failure, print, say};

/// Columns of a table where there is no terminal, or a narrow one.
const COLUMNS: usize = 80;
/// Characters of a command that a table shows, however wide the rest is.
const COMMAND: usize = 10;

/// Lists, and tells how the process is to end.
pub(crate) fn run(jobs: &Jobs) -> Ending {
    finish_in_json(jobs.json, &jobs.target, async {
        let question = proto::ask::Question::ListJobs(proto::ListJobs {});
        let (asking, list) = begin(&jobs.target, &jobs.reach, None, question).await?;
        let text = if jobs.json {
            let all: Vec<Value> = list.jobs.iter().map(|job| object(&jobs.target, job)).collect();
            json!({ "schema": receipt::SCHEMA, "target": jobs.target, "jobs": all, "more": list.more })
                .to_string()
                + "\n"
        } else {
            let shown = std::io::stdout().is_terminal().then(tty::size).flatten();
            let columns = shown.map_or(0, |size| size.columns as usize);
            table(&list.jobs, &Zoned::now(), columns.max(COLUMNS))
        };
        print(&text).map_err(|error| {
            let text = format!("can't write standard output: {error}");
            Failure { told: true, ..Failure::new(Class::Internal, &asking.at.name, text) }
        })?;
        if list.more && !jobs.json {
            say(&format!("{}: there are more, older ones", escape(&asking.at.name)));
        }
        Ok(Outcome::Exited(0))
    })
}

/// An id, in hexadecimal digits.
pub(super) fn id(job: &proto::JobInfo) -> String {
    receipt::hex(&job.id)
}

/// A line for each, of so many columns where the command can be cut for that. All text is the host's, and escaped.
fn table(jobs: &[proto::JobInfo], now: &Zoned, columns: usize) -> String {
    let mut rows = vec![(
        ["ID", "NAME", "USER", "STATE", "STARTED", "TIME", "STDOUT", "STDERR"].map(str::to_owned),
        "COMMAND".to_owned(),
    )];
    for job in jobs {
        let time = match job.state() {
            proto::JobState::Lost => "-".to_owned(),
            _ => age(Duration::from_nanos(job.wall_ns)),
        };
        let row = [
            id(job).chars().take(SHORT_ID).collect(),
            if job.name.is_empty() { "-".to_owned() } else { escape(&job.name) },
            escape(&job.user),
            state(job),
            started(job.started_unix_ns, now),
            time,
            size(job.stdout_end),
            size(job.stderr_end),
        ];
        rows.push((row, line(job)));
    }
    let width = |column: usize| {
        rows.iter().filter_map(|(row, _)| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..8).map(width).collect();
    let before: usize = widths.iter().map(|width| width + BETWEEN).sum();
    let room = columns.saturating_sub(before).max(COMMAND);
    let mut text = String::new();
    for (row, command) in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            text.push_str(&format!("{cell:0$}", width + BETWEEN));
        }
        let is_whole = command.chars().count() <= room;
        text.extend(command.chars().take(if is_whole { room } else { room - 1 }));
        text.push_str(if is_whole { "\n" } else { "…\n" });
    }
    text
}

/// Spaces between two columns.
const BETWEEN: usize = 2;

/// When, by the clock here: today's time, or a day of the last week with it, or an older one without.
fn started(unix_ns: u64, now: &Zoned) -> String {
    let then = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).ok().filter(|_| unix_ns > 0);
    let Some(then) = then.map(|then| then.to_zoned(now.time_zone().clone())) else { return "-".to_owned() };
    let days = now.date().duration_since(then.date()).as_hours() / 24;
    let format = match days {
        0 => "%H:%M",
        1..=6 => "%a %H:%M",
        _ => "%Y-%m-%d",
    };
    then.strftime(format).to_string()
}

/// A number of bytes, in the unit that makes it short, as options take sizes.
fn size(bytes: u64) -> String {
    let units = [(10, "k"), (20, "m"), (30, "g")];
    let fits = |shift: &u32| bytes >> shift < 100_000;
    if fits(&0) {
        return bytes.to_string();
    }
    let (shift, unit) = units.into_iter().find(|(shift, _)| fits(shift)).unwrap_or((40, "t"));
    format!("{}{unit}", bytes >> shift)
}

/// The command, made safe: a vector with its borders.
fn line(job: &proto::JobInfo) -> String {
    match &job.command {
        Some(proto::job_info::Command::Line(line)) => escape(&String::from_utf8_lossy(line)),
        Some(proto::job_info::Command::Argv(argv)) => {
            argv.arguments.iter().map(|word| receipt::quoted(word)).collect::<Vec<_>>().join(" ")
        }
        Some(proto::job_info::Command::LoginShell(_)) => "the login shell".to_owned(),
        None => String::new(),
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
        proto::JobState::Attached if job.alone_ms > 0 => "alone",
        proto::JobState::Attached => "attached",
        proto::JobState::Silent => "no-answer",
        proto::JobState::Unspecified => "unknown",
    };
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
            receipt::receipt(target, command(job), receipt, None, None)
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(command: proto::job_info::Command) -> proto::JobInfo {
        proto::JobInfo {
            id: (0..16).collect(),
            command: Some(command),
            user: "ada".to_owned(),
            state: proto::JobState::Running as i32,
            started_unix_ns: 1_600_000_000_000_000_000,
            spool_limit: 1 << 30,
            wall_ns: 61_000_000_000,
            stdout_end: 200_000,
            ..proto::JobInfo::default()
        }
    }

    #[test]
    fn the_table_has_borders_times_and_80_columns() {
        use proto::job_info::Command;
        let argv = |words: &[&[u8]]| {
            Command::Argv(proto::Argv { arguments: words.iter().map(|word| word.to_vec()).collect() })
        };
        let jobs = [
            job(argv(&[b"ls", b"a b", b""])),
            proto::JobInfo { name: "build".to_owned(), ..job(Command::Line(b"x".repeat(60))) },
            proto::JobInfo {
                state: proto::JobState::Lost as i32,
                wall_ns: 0,
                ..job(Command::Line("é\n".repeat(3).into_bytes()))
            },
        ];
        let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(2));
        let now = jiff::Timestamp::from_second(1_600_000_300).unwrap().to_zoned(zone);
        let text = table(&jobs, &now, 80);
        assert_eq!(
            text,
            "ID            NAME   USER  STATE    STARTED  TIME   STDOUT  STDERR  COMMAND\n\
             000102030405  -      ada   running  14:26    1m01s  195k    0       ls \"a b\" \"\"\n\
             000102030405  build  ada   running  14:26    1m01s  195k    0       xxxxxxxxxxx…\n\
             000102030405  -      ada   unknown  14:26    -      195k    0       é\\né\\né\\n\n"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn when_it_started() {
        let now = jiff::Timestamp::from_second(1_600_000_300).unwrap().to_zoned(jiff::tz::TimeZone::UTC);
        let day = 86_400_000_000_000;
        for (days, text) in [(0, "12:26"), (1, "Sat 12:26"), (6, "Mon 12:26"), (7, "2020-09-06")] {
            assert_eq!(started(1_600_000_000_000_000_000 - days * day, &now), text);
        }
        assert_eq!(started(0, &now), "-");
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0"),
            (99_999, "99999"),
            (1 << 20, "1024k"),
            (u64::MAX, "16777215t"),
            (1 << 30, "1024m"),
            (1 << 40, "1024g"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
