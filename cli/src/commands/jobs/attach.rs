//! `remora attach`: watch a detached command, and type into it.

use std::cell::Cell;
use std::future::pending;
use std::io::IsTerminal;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use bytes::Bytes;
use remora_client::{Class, Connection, Job, JobError, Outcome, Writer, proto};
use tokio::signal::unix::{SignalKind, signal};

use super::super::ending::{job_id as random_id, lost, not_started};
use super::super::exec::Ending;
use super::super::streams::{Output, Target as To};
use super::super::{outage, tty};
use super::ask::{At, Held, begin, detached, find, finish, one};
use super::end::{held_back, tell};
use super::list::id;
use crate::arguments::Attach;
use crate::printable::escape;
use crate::raw_mode::RawMode;
use crate::stdio::{Sink, Source, Which};
use crate::terminal::{Failure, say};

/// Attaches, and tells how the process is to end.
pub(crate) fn run(attach: &Attach) -> Ending {
    let which = &attach.which;
    finish(async {
        let question = proto::ask::Question::FindJob(find(&which.job));
        let held = Held { watching: &attach.watching, again: AGAIN, which };
        let (mut asking, list) = begin(&which.target, &which.reach, Some(held), question).await?;
        let job = detached(which, one(&asking.at.name, list)?, &asking.at.name)?;
        let since = since(attach, &job)?;
        let watched =
            asking.during(async |at: &At| watch(attach, &at.connection, &at.name, &job, since).await).await?;
        Ok(watched)
    })
}

/// How to come back.
const AGAIN: &str = "remora attach";

/// Where each stream begins.
fn since(attach: &Attach, job: &proto::JobInfo) -> Result<[u64; 2], Failure> {
    let at = |asked: Option<u64>, start: u64, end: u64, option: &str| match asked {
        Some(at) if !(start..=end).contains(&at) => Err(Failure::usage(format!(
            "{option} {at}: the host keeps that stream from offset {start} to {end}"
        ))),
        Some(at) => Ok(at),
        None if attach.live => Ok(end),
        None => Ok(start),
    };
    Ok([
        at(attach.since_offset, job.stdout_start, job.stdout_end, "--since-offset")?,
        at(attach.since_stderr, job.stderr_start, job.stderr_end, "--since-stderr")?,
    ])
}

/// Why somebody leaves.
enum Left {
    /// As they wished.
    Detached,
    /// Our terminal can't be read, or be made raw.
    Failed(std::io::Error),
}

async fn watch(
    attach: &Attach,
    connection: &Connection,
    name: &str,
    info: &proto::JobInfo,
    since: [u64; 2],
) -> Result<Outcome, Failure> {
    let job_id: [u8; 16] = info
        .id
        .as_slice()
        .try_into()
        .map_err(|_| Failure::new(Class::Internal, name, "the host told an id that is none"))?;
    let watcher = random_id(name)?;
    // Whoever has nothing to type leaves who types alone.
    let read_only = attach.read_only || is_nothing(std::io::stdin().as_fd());
    let attached = connection.attach(job_id, since, read_only, watcher);
    let mut job = attached.map_err(|error| not_started(name, &error))?;
    let (Some(stdin), Some(stdout), Some(stderr)) = (job.stdin(), job.stdout(), job.stderr()) else {
        return Err(Failure::new(Class::Internal, name, "the job has no streams"));
    };
    if let Some(text) = held_back(info) {
        say(&format!("{}: {text}", escape(name)));
    }
    let mut out = Output::new(To::Stream(Sink::open(Which::Stdout)), None);
    let mut err = Output::new(To::Stream(Sink::open(Which::Stderr)), None);
    let ours = std::io::stdin().is_terminal();
    let raw = Cell::new(None);
    let typing = async {
        if read_only {
            drop(stdin);
            return pending().await;
        }
        if ours && info.terminal {
            match RawMode::enter() {
                Ok(mode) => raw.set(Some(mode)),
                Err(error) => return Left::Failed(error),
            }
            outage::redraw(&job).await;
        }
        match type_in(attach, name, connection, stdin, ours && info.terminal).await {
            Ok(true) => Left::Detached,
            Ok(false) => pending().await,
            Err(error) => Left::Failed(error),
        }
    };
    let sizes = async {
        match ours && info.terminal && !read_only {
            true => tty::follow_size(&job).await,
            false => pending().await,
        }
    };
    let work = async {
        let streams = async { tokio::join!(out.pump(stdout, |_| {}), err.pump(stderr, |_| {})) };
        tokio::join!(streams, job.wait())
    };
    let ended = tokio::select! {
        biased;
        (written, finished) = work => Ok((written, finished)),
        left = typing => Err(left),
        () = sizes => Err(Left::Detached),
        () = leaving(attach, connection, &job) => Err(Left::Detached),
    };
    drop(raw.take());
    let (written, finished) = match ended {
        Ok(ended) => ended,
        Err(Left::Failed(error)) => {
            return Err(Failure::new(Class::Internal, name, format!("can't use this terminal: {error}")));
        }
        Err(Left::Detached) => {
            say(&format!("{}: you left; the command goes on, its id is {}", escape(name), id(info)));
            return Ok(Outcome::Exited(0));
        }
    };
    for result in [written.0, written.1] {
        if let Err(error) = result
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            let text = format!("can't write what it printed: {error}; what was written is cut");
            return Err(Failure::new(Class::Internal, name, text));
        }
    }
    match finished {
        Ok(finished) => Ok(tell(name, &finished.receipt)),
        Err(error @ (JobError::Mismatch { .. } | JobError::NotKept { .. })) => Err(lost(name, &error)),
        Err(error) => {
            let held = Held { watching: &attach.watching, again: AGAIN, which: &attach.which };
            Err(lost(name, &error).with_hint(held.way()))
        }
    }
}

/// Whether a descriptor is `/dev/null`.
fn is_nothing(file: BorrowedFd<'_>) -> bool {
    let null = std::fs::metadata("/dev/null").map(|null| null.rdev());
    let file = file.try_clone_to_owned().map(std::fs::File::from).and_then(|file| file.metadata());
    matches!((file, null), (Ok(file), Ok(null)) if file.file_type().is_char_device() && file.rdev() == null)
}

/// Passes on what is typed. True once the detach key was, false at the end of our input. Where another types now, or the command takes no more,
/// keys are read all the same: who presses the detach key wants to leave, and nothing is left for the shell that this was started from.
async fn type_in(
    attach: &Attach,
    name: &str,
    connection: &Connection,
    mut writer: Writer,
    is_raw: bool,
) -> std::io::Result<bool> {
    let mut source = Source::open();
    let mut interrupts = tty::Interrupts::default();
    let (mut is_heard, mut is_told) = (true, false);
    loop {
        let chunk = tokio::select! {
            biased;
            () = writer.closed(), if is_heard => {
                is_heard = false;
                continue;
            }
            chunk = source.read() => chunk?,
        };
        let Some(chunk) = chunk else {
            if attach.end_input {
                writer.finish();
            }
            writer.leave_open();
            return Ok(false);
        };
        let (typed, is_left) = match chunk.iter().position(|byte| is_raw && *byte == attach.detach_key) {
            Some(at) => (chunk.slice(..at), true),
            None => (chunk, false),
        };
        let is_away = is_raw && interrupts.typed(&typed, connection.lost().is_some());
        if !typed.is_empty() && !is_away {
            is_heard = is_heard && writer.write(Bytes::clone(&typed)).await;
            if !is_heard && !std::mem::replace(&mut is_told, true) {
                let text = "what you type reaches nobody: another attach types now (attach anew to have it back), or the command takes no input";
                // A terminal that is raw wants its line begun anew.
                say(&format!("{}: {text}{}", escape(name), if is_raw { "\r" } else { "" }));
            }
        }
        if is_left || is_away {
            writer.leave_open();
            return Ok(true);
        }
    }
}

/// Ready when a signal says that whoever watches wants to go. Ctrl-C is for the command, unless it is only watched.
/// While the connection is lost nobody there could be told.
async fn leaving(attach: &Attach, connection: &Connection, job: &Job) {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::quit()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut interrupt), Ok(mut quit), Ok(mut terminate), Ok(mut hangup)) = signals else {
        return pending().await;
    };
    let mut interrupted = false;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {
                let is_second = std::mem::replace(&mut interrupted, true);
                if attach.read_only || is_second || connection.lost().is_some() {
                    return;
                }
                job.signal("INT");
            }
            _ = quit.recv() => return,
            _ = terminate.recv() => return,
            _ = hangup.recv() => return,
        }
    }
}
