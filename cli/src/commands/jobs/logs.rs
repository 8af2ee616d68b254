//! `remora logs`: what a detached command has printed.

use bytes::Bytes;
use remora_client::{Class, Outcome, proto};
use serde_json::{Value, json};

use super::super::exec::Ending;
use super::super::receipt;
use super::ask::{At, Held, begin, detached, find, finish_in_json, one};
use super::end::{held_back, lost_bytes};
use super::keep;
use super::list::id;
use super::wait::look;
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

/// Prints, and tells how the process is to end.
pub(crate) fn run(logs: &Logs) -> Ending {
    let which = &logs.which;
    finish_in_json(logs.json, &which.target, async {
        let question = proto::ask::Question::FindJob(find(&which.job));
        let again = if logs.follow { "remora logs -f" } else { "remora logs" };
        let held = Held { watching: &logs.watching, again, which };
        let (mut asking, list) = begin(&which.target, &which.reach, Some(held), question).await?;
        let job = detached(which, one(&asking.at.name, list)?, &asking.at.name)?;
        check_offset(logs, &job)?;
        asking
            .up_to_interrupt(async |at: &At| match &logs.keep {
                Some(folder) => keep::keep(folder, logs.follow, at, &job).await.map(|()| Outcome::Exited(0)),
                None => read(logs, at, &job).await,
            })
            .await
    })
}

/// Behind the end there is nothing to read, now or ever: a mistake, and not the end.
fn check_offset(logs: &Logs, job: &proto::JobInfo) -> Result<(), Failure> {
    let (what, end) = match logs.stream {
        LogStream::Stdout => ("stdout ends", job.stdout_end),
        LogStream::Stderr => ("stderr ends", job.stderr_end),
        LogStream::Both => ("both streams together end", job.stdout_end.saturating_add(job.stderr_end)),
    };
    let at = logs.since_offset;
    if at <= end {
        return Ok(());
    }
    Err(Failure::usage(format!("--since-offset {at}: {what} at offset {end}")))
}

/// How whoever writes into a pipe ends that nobody reads any more.
const CLOSED_PIPE: Outcome = Outcome::Signaled { signal: 13, by: None };

async fn read(logs: &Logs, at: &At, job: &proto::JobInfo) -> Result<Outcome, Failure> {
    let name = at.name.as_str();
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
        // None at all is the last one without what is there: the end of both streams has no other name.
        tail_lines: logs.tail.map_or(0, |lines| lines.max(1)),
        wait_ms: 0,
        max_bytes: 0,
    };
    let mut sinks = [Sink::open(Which::Stdout), Sink::open(Which::Stderr)];
    let (mut pieces, mut over) = (Vec::new(), false);
    let mut gaps = Gaps::new(logs, job);
    while left > 0 {
        ask.max_bytes = u32::try_from(left).unwrap_or(AT_ONCE).min(AT_ONCE);
        let log = at.read_log(ask.clone()).await?;
        let is_nothing = log.pieces.is_empty();
        gaps.look(&log, &ask, at).await?;
        for mut piece in log.pieces {
            if logs.tail == Some(0) {
                piece = behind_the_end(piece, job);
                if piece.bytes.is_empty() || !logs.follow {
                    continue;
                }
            }
            if let Some(text) = gaps.see(&piece) {
                say(&format!("{}: {text}", escape(name)));
            }
            left = left.saturating_sub(piece.bytes.len() as u64);
            if logs.json {
                pieces.push(piece);
                continue;
            }
            let [stdout, stderr] = &mut sinks;
            let sink = if piece.stream() == proto::Stream::Stderr { stderr } else { stdout };
            match sink.write(Bytes::from(piece.bytes)).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(CLOSED_PIPE),
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
    let mut lost = None;
    if over {
        let ended = match &job.receipt {
            Some(_) => job.clone(),
            None => at.ask_job(proto::ask::Question::FindJob(find(&id(job)))).await?,
        };
        lost = ended.receipt.and_then(|receipt| receipt.spool);
    }
    if let Some(text) = lost.as_ref().and_then(lost_bytes) {
        say(&format!("{}: {text}", escape(name)));
    }
    if logs.json {
        let all: Vec<Value> = pieces.iter().map(piece).collect();
        let object = json!({
            "schema": receipt::SCHEMA,
            "target": logs.which.target,
            "id": id(job),
            "pieces": all,
            "dropped": gaps.object(),
            "lost": lost.map(|spool| json!({ "stdout": spool.stdout_lost, "stderr": spool.stderr_lost })),
            "next": ask.offset,
            "over": over,
        });
        print(&(object.to_string() + "\n")).map_err(|error| {
            let text = format!("can't write standard output: {error}");
            Failure { told: true, ..Failure::new(Class::Internal, name, text) }
        })?;
    }
    Ok(Outcome::Exited(0))
}

/// What of a piece came after the question for the job.
fn behind_the_end(mut piece: proto::LogPiece, job: &proto::JobInfo) -> proto::LogPiece {
    let end = if piece.stream() == proto::Stream::Stderr { job.stderr_end } else { job.stdout_end };
    let known = end.saturating_sub(piece.offset).min(piece.bytes.len() as u64);
    piece.bytes.drain(..usize::try_from(known).unwrap_or(usize::MAX));
    piece.offset += known;
    piece
}

/// What of the streams isn't there, of all that was asked for.
struct Gaps {
    on_full: proto::OnFull,
    /// Where each stream goes on; none before its first piece, where that can't be said.
    expected: [Option<u64>; 2],
    /// From where on each is kept, where what is before that was asked for, too.
    starts: [u64; 2],
    /// Something was left out, or may have been: the last lines tell nothing of what they lack.
    is_cut: bool,
    job: proto::JobInfo,
    found: [Vec<(u64, u64)>; 2],
}

impl Gaps {
    fn new(logs: &Logs, job: &proto::JobInfo) -> Self {
        let expected = match (logs.stream, logs.tail, logs.since_offset) {
            (_, Some(0), _) => [Some(job.stdout_end), Some(job.stderr_end)],
            (_, Some(_), _) => [None; 2],
            // Beyond their beginning an offset of both says nothing of either.
            (LogStream::Both, None, 1..) => [None; 2],
            (_, None, at) => [Some(at); 2],
        };
        Gaps {
            on_full: job.on_full(),
            expected,
            starts: [0; 2],
            is_cut: false,
            job: job.clone(),
            found: Default::default(),
        }
    }

    /// Looks at an answer as a whole, before its pieces: whether a stream that begins here begins where it was cut off.
    async fn look(&mut self, log: &proto::Log, ask: &proto::ReadLog, at: &At) -> Result<(), Failure> {
        self.starts = [0; 2];
        let told: u64 = log.pieces.iter().map(|piece| piece.bytes.len() as u64).sum();
        self.is_cut |= ask.tail_lines > 0 || log.next.saturating_sub(ask.offset) > told;
        let is_new = |piece: &proto::LogPiece| self.expected(piece.stream()).is_none() && piece.offset > 0;
        if !self.is_cut || !log.pieces.iter().any(is_new) {
            return Ok(());
        }
        // What is dropped goes on meanwhile.
        if self.on_full == proto::OnFull::DropOldest && self.job.receipt.is_none() {
            self.job = look(at, &self.job, 0, false).await?;
        }
        self.starts = [self.job.stdout_start, self.job.stderr_start];
        Ok(())
    }

    fn expected(&self, stream: proto::Stream) -> Option<u64> {
        let [stdout, stderr] = self.expected;
        if stream == proto::Stream::Stderr { stderr } else { stdout }
    }

    /// Looks at a piece, and gives what is to be said of what should be before it.
    fn see(&mut self, piece: &proto::LogPiece) -> Option<String> {
        let is_stderr = piece.stream() == proto::Stream::Stderr;
        let [out, err] = &mut self.expected;
        let ([out_start, err_start], [out_found, err_found]) = (self.starts, &mut self.found);
        let (which, expected, start, found) = match is_stderr {
            true => ("stderr", err, err_start, err_found),
            false => ("stdout", out, out_start, out_found),
        };
        let from = match *expected {
            Some(expected) => expected,
            None if piece.offset <= start => 0,
            None => piece.offset,
        };
        let to = piece.offset;
        *expected = Some(to + piece.bytes.len() as u64);
        if to <= from {
            return None;
        }
        found.push((from, to));
        Some(match self.on_full {
            proto::OnFull::DropOldest => {
                format!("{which} from offset {from} to {to} was dropped on the host")
            }
            _ => format!("{which} from offset {from} to {to} was its client's, before it was detached"),
        })
    }

    fn object(&self) -> Value {
        let [stdout, stderr] = self.found.each_ref().map(|found| {
            found.iter().map(|(from, to)| json!({ "from": from, "to": to })).collect::<Vec<_>>()
        });
        json!({ "stdout": stdout, "stderr": stderr })
    }
}

fn piece(piece: &proto::LogPiece) -> Value {
    let stream = if piece.stream() == proto::Stream::Stderr { "stderr" } else { "stdout" };
    json!({ "stream": stream, "offset": piece.offset, "length": piece.bytes.len(), "data": receipt::text(&piece.bytes) })
}
