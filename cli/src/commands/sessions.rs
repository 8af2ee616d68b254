//! `remora sessions`: which there are on a host, and the end of one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use remora_client::{AskError, Class, Connection, Outcome, Target, exit_status, proto, session_name};
use serde_json::{Value, json};

use super::ending::lost;
use super::place::{Place, enter};
use super::timeline::Timeline;
use super::{options, receipt};
use crate::arguments::Sessions;
use crate::host_keys;
use crate::printable::{chain, escape};
use crate::terminal::{Failure, print, say};

/// Lists, or ends, and gives the process' exit status.
pub(crate) fn run(sessions: &Sessions) -> u8 {
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(work(sessions));
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::new(Class::Internal, "", format!("no runtime: {error}"))),
    };
    match result {
        Ok(()) => 0,
        Err(failure) => {
            failure.print();
            exit_status(&failure.outcome, false)
        }
    }
}

async fn work(sessions: &Sessions) -> Result<(), Failure> {
    let timeline = Timeline::new(sessions.reach.verbose);
    let target: Target = sessions
        .target
        .parse()
        .map_err(|error: remora_client::TargetError| Failure::usage(error.to_string()))?;
    options::check_sessions(sessions, &target)?;
    host_keys::check(sessions.reach.known_hosts.as_deref())?;
    let place = Place::of(target, &sessions.reach)?;
    let question = async |connection: &Connection| match &sessions.end {
        Some(session) => connection.end_session(session_name(session, true)).await.map(|ended| vec![ended]),
        None => connection.sessions().await,
    };
    let entered = enter(place, &sessions.reach, &timeline, question).await?;
    let name = entered.place.name();
    let mut list = entered.first.map_err(|error| {
        let failure = unanswered(&name, &error);
        let about = sessions.end.as_ref().map(|session| format!("session {}: ", escape(session)));
        Failure { text: about.unwrap_or_default() + &failure.text, ..failure }
    })?;
    // The one that was used last is likely the one that is looked for.
    list.sort_by_key(|session| std::cmp::Reverse(session.used_unix_ns));
    let text = match (sessions.json, &sessions.end, list.as_slice()) {
        (true, _, list) => json(&sessions.target, list).to_string() + "\n",
        (false, Some(_), [ended]) => {
            say(&format!("{}: session {} is ended", escape(&name), escape(&ended.name)));
            return Ok(());
        }
        (false, _, list) => table(list, now()),
    };
    print(&text).map_err(|error| {
        Failure::new(Class::Internal, &name, format!("can't write standard output: {error}"))
    })
}

/// A question that has no answer.
pub(super) fn unanswered(name: &str, error: &AskError) -> Failure {
    use remora_client::proto::NotStartedClass as Why;
    match error {
        AskError::Ended(error) => lost(name, error),
        AskError::Refused(why) => {
            let class = match why.class() {
                Why::Unknown => Class::Lost,
                Why::HostFull => Class::Unreachable,
                Why::Incompatible => Class::Incompatible,
                Why::Internal | Why::Unspecified => Class::Internal,
                Why::Refused | Why::CannotExec | Why::NotFound => Class::Refused,
            };
            Failure { outcome: Outcome::Failed(class), ..Failure::new(class, name, escape(&why.text)) }
        }
        error => Failure::new(Class::Internal, name, chain(error)),
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A line for each, under one that says what the columns are; the id, which takes a line of its own to write, is for `--json`. All text is the host's, and escaped.
fn table(list: &[proto::SessionInfo], now: u64) -> String {
    let mut rows = vec![["NAME", "DIRECTORY", "JOBS", "IDLE", "AGE"].map(str::to_owned)];
    for session in list {
        let place = String::from_utf8_lossy(&session.working_directory);
        let since = |then: u64| age(Duration::from_nanos(now.saturating_sub(then)));
        rows.push([
            escape(&session.name),
            escape(&place),
            session.jobs.to_string(),
            if session.jobs > 0 { "-".to_owned() } else { since(session.used_unix_ns) },
            since(session.created_unix_ns),
        ]);
    }
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..5).map(width).collect();
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

/// A time in its two largest units.
pub(super) fn age(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 86400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m{s:02}s"),
        (0, h, m, _) => format!("{h}h{m:02}m"),
        (d, h, _, _) => format!("{d}d{h:02}h"),
    }
}

fn json(target: &str, list: &[proto::SessionInfo]) -> Value {
    let sessions: Vec<Value> = list
        .iter()
        .map(|session| {
            json!({
                "name": session.name,
                "id": session.id,
                "working_directory": receipt::text(&session.working_directory),
                "home": receipt::text(&session.home),
                "shell": receipt::text(&session.shell),
                "jobs": session.jobs,
                "used": receipt::time(session.used_unix_ns),
                "created": receipt::time(session.created_unix_ns),
            })
        })
        .collect();
    json!({ "schema": receipt::SCHEMA, "target": target, "sessions": sessions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned_and_escaped() {
        let list = [
            proto::SessionInfo {
                id: "0123456789abcdef".to_owned(),
                name: "build".to_owned(),
                working_directory: b"/srv/\x1b[2J\n".to_vec(),
                created_unix_ns: 0,
                used_unix_ns: 90_000_000_000,
                ..proto::SessionInfo::default()
            },
            proto::SessionInfo { name: "x".to_owned(), jobs: 2, ..proto::SessionInfo::default() },
        ];
        let text = table(&list, 100_000_000_000);
        assert_eq!(
            text,
            "NAME   DIRECTORY         JOBS  IDLE  AGE\n\
             build  /srv/\\u{1b}[2J\\n  0     10s   1m40s\n\
             x                        2     -     1m40s\n"
        );
    }

    #[test]
    fn ages() {
        for (seconds, text) in [(0, "0s"), (61, "1m01s"), (7200, "2h00m"), (90_000, "1d01h")] {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
    }
}
