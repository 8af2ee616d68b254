//! `remora logs`: what a detached command has printed.

use bytes::Bytes;
use remora_client::{Class, Connection, Outcome, proto};
use serde_json::{Value, json};

use super::super::receipt;
use super::super::sessions::unanswered;
use super::ask::{begin, detached, find, finish, one};
use super::end::held_back;
use super::keep;
use super::list::id;
use crate::arguments::{LogStream, Logs};
use crate::printable::escape;
use crate::stdio::{Sink, Which};
use crate::terminal::{Failure, print, say};

/// How long one question waits for more, milliseconds.
const WAIT: u32 = 30_000;
/// Bytes that `--json` gives unless told.
const JSON: u64 = 64 * 1024;
/// Bytes that one question asks for.
const AT_ONCE: u32 = 512 * 1024;

/// Prints, and gives the process' exit status.
pub(crate) fn run(logs: &Logs) -> u8 {
    let which = &logs.which;
    finish(async {
        let question = proto::ask::Question::FindJob(find(&which.job));
        let (mut asking, list) = begin(&which.target, &which.reach, Some(&logs.staying), question).await?;
        let job = detached(which, one(&asking.name, list)?, &asking.name)?;
        asking
            .during(async |connection: &Connection, name: &str| match &logs.keep {
                Some(folder) => keep::keep(folder, logs.follow, connection, name, job).await,
                None => read(logs, connection, name, &job).await,
            })
            .await?;
        Ok(Outcome::Exited(0))
    })
}

async fn read(logs: &Logs, connection: &Connection, name: &str, job: &proto::JobInfo) -> Result<(), Failure> {
    let stream = match logs.stream {
        LogStream::Stdout => proto::Stream::Stdout,
        LogStream::Stderr => proto::Stream::Stderr,
        LogStream::Both => proto::Stream::Unspecified,
    };
    if let (true, Some(text)) = (logs.follow, held_back(job)) {
        say(&format!("{}: {text}", escape(name)));
    }
    let mut left = logs.max_bytes.unwrap_or(if logs.json { JSON } else { u64::MAX });
    let mut ask = proto::ReadLog {
        job: id(job),
        stream: stream as i32,
        offset: logs.since_offset,
        tail_lines: logs.tail.unwrap_or(0),
        wait_ms: 0,
        max_bytes: 0,
    };
    let mut sinks = [Sink::open(Which::Stdout), Sink::open(Which::Stderr)];
    let (mut pieces, mut over) = (Vec::new(), false);
    // Where each stream goes on: what comes behind that was dropped in between.
    let mut expected: [Option<u64>; 2] = match logs.stream {
        LogStream::Both => [None; 2],
        _ => [Some(logs.since_offset).filter(|_| logs.tail.is_none()); 2],
    };
    while left > 0 {
        ask.max_bytes = u32::try_from(left).unwrap_or(AT_ONCE).min(AT_ONCE);
        let log = connection.read_log(ask.clone()).await.map_err(|error| unanswered(name, &error))?;
        let is_nothing = log.pieces.is_empty();
        for piece in log.pieces {
            let is_stderr = piece.stream() == proto::Stream::Stderr;
            let [stdout, stderr] = &mut expected;
            let known = if is_stderr { stderr } else { stdout };
            if let Some(expected) = known.filter(|expected| piece.offset > *expected) {
                let which = if is_stderr { "stderr" } else { "stdout" };
                say(&format!(
                    "{}: {which} from offset {expected} to {} was dropped on the host",
                    escape(name),
                    piece.offset
                ));
            }
            *known = Some(piece.offset + piece.bytes.len() as u64);
            left = left.saturating_sub(piece.bytes.len() as u64);
            if logs.json {
                pieces.push(piece);
                continue;
            }
            let [stdout, stderr] = &mut sinks;
            let sink = if is_stderr { stderr } else { stdout };
            match sink.write(Bytes::from(piece.bytes)).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                Err(error) => {
                    let text = format!("can't write what it printed: {error}; what was written is cut");
                    return Err(Failure::new(Class::Internal, name, text));
                }
            }
        }
        (ask.offset, ask.tail_lines, over) = (log.next, 0, log.over);
        if over || is_nothing && !logs.follow {
            break;
        }
        ask.wait_ms = if logs.follow { WAIT } else { 0 };
    }
    if logs.json {
        let all: Vec<Value> = pieces.iter().map(piece).collect();
        let object = json!({
            "schema": receipt::SCHEMA,
            "target": logs.which.target,
            "id": id(job),
            "pieces": all,
            "next": ask.offset,
            "over": over,
        });
        print(&(object.to_string() + "\n")).map_err(|error| {
            Failure::new(Class::Internal, name, format!("can't write standard output: {error}"))
        })?;
    }
    Ok(())
}

fn piece(piece: &proto::LogPiece) -> Value {
    let stream = if piece.stream() == proto::Stream::Stderr { "stderr" } else { "stdout" };
    json!({ "stream": stream, "offset": piece.offset, "length": piece.bytes.len(), "data": receipt::text(&piece.bytes) })
}
