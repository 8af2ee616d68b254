//! `remora exec`: one command on one host, and back whole.

use std::cell::{Cell, RefCell};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use remora_client::{
    Class, Finished, Job, JobError, Opened, Outcome, Request, Target, exit_status, outcome_of, proto,
    session_name,
};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGPIPE, SIGTERM};

use super::ending::{how, in_session, job_id, killed_by, lost, not_started};
use super::folder::{Copy, Folder};
use super::place::{Access, Place};
use super::streams::{Input, Output, Target as To};
use super::timeline::Timeline;
use super::tty::{self, Typed};
use super::{jobs, options, outage, plain, receipt, session};
use crate::arguments::{Exec, ExitStyle};
use crate::host_keys;
use crate::modes::Restored;
use crate::printable::escape;
use crate::raw_mode::{RawMode, was_left_raw};
use crate::stdio::{Sink, Which};
use crate::terminal::{Failure, hint, print, say};

/// How the message of a status file that can't be written starts.
const STATUS_FILE: &str = "can't write the status file";

/// How the process is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With this status.
    Status(u8),
    /// Of SIGINT: a shell's loop goes on after any status, and stops only for a program that died of Ctrl-C.
    Interrupted,
}

/// Runs the command and tells how the process is to end.
pub(crate) fn run(exec: Exec) -> Ending {
    let as_ssh = exec.report.exit_status == Some(ExitStyle::Ssh);
    let interrupted = Cell::new(false);
    let outcome = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let outcome = runtime.block_on(outcome(&exec, &interrupted));
            // A thread that waits for our stdin, or for a resolver, holds nobody up.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::new(Class::Internal, "", format!("no runtime: {error}"))),
    };
    let mut status_file = exec.report.status_file.as_ref();
    let mut why = None;
    let outcome = outcome.unwrap_or_else(|failure| {
        failure.print();
        if exec.json && !failure.told {
            let object = receipt::failed(&exec.target, command(&exec), &failure, None);
            if let Err(error) = print(&(object.to_string() + "\n")) {
                say(&format!("can't write standard output: {error}"));
            }
        }
        // Told by the failure itself.
        status_file = status_file.filter(|_| !failure.text.starts_with(STATUS_FILE));
        let outcome = failure.outcome.clone();
        why = Some(failure);
        outcome
    });
    let status = exit_status(&outcome, as_ssh);
    if let Some(path) = status_file {
        let text = receipt::status(&outcome, status, &exec.target, why.as_ref()).to_string() + "\n";
        if let Err(error) = std::fs::write(path, text) {
            say(&format!("can't write {}: {error}", escape(&path.display().to_string())));
        }
    }
    if interrupted.get() && !as_ssh && is_ended_by_interrupt(&outcome) {
        Ending::Interrupted
    } else {
        Ending::Status(status)
    }
}

/// Whether the command took Ctrl-C for its end, or nobody knows what came of it. One that goes on, or exits, has decided otherwise.
fn is_ended_by_interrupt(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Signaled { signal, .. } => i32::from(*signal) == SIGINT,
        Outcome::Failed(class) => *class == Class::Lost,
        _ => false,
    }
}

/// `interrupted` is set once a Ctrl-C was seen.
async fn outcome(exec: &Exec, interrupted: &Cell<bool>) -> Result<Outcome, Failure> {
    let timeline = Timeline::new(exec.reach.verbose);
    if was_left_raw() {
        hint("this terminal was left in raw mode; `reset` puts it right");
    }
    let target: Target =
        exec.target.parse().map_err(|error: remora_client::TargetError| Failure::usage(error.to_string()))?;
    if let Some(path) = &exec.report.status_file {
        // Found out now, not after the command ran.
        std::fs::write(path, "").map_err(|error| {
            Failure::usage(format!("{STATUS_FILE} {}: {error}", escape(&path.display().to_string())))
        })?;
    }
    options::check(exec, &target)?;
    host_keys::check(exec.reach.known_hosts.as_deref())?;
    if let Target::Plain { wire, host, port } = &target {
        return plain::run(exec, *wire, host, *port, interrupted).await;
    }
    let mut request = request(exec)?;
    let raw = tty::prepare(exec, &mut request)?;
    jobs::start::prepare(exec, &mut request);
    let mut input = Input::new();
    let mut place = Place::of(target, &exec.reach)?;
    let (lasting, mut watch) = outage::watch(&exec.staying);
    place.lasting = lasting;
    let mut access = Access::new(&exec.reach, &place);
    let keep = RefCell::new(exec.receipt.as_deref().map(receipt::Keep::begin).transpose()?);
    let folder = RefCell::new(exec.keep.as_deref().map(Folder::begin).transpose()?);
    loop {
        let mut attempt = place.open(&exec.reach, &timeline, &mut access).await?;
        if request.detach.is_some() {
            let connection = &attempt.opened.connection;
            match jobs::start::start(connection, &place.name(), exec, &request, &mut watch).await? {
                Ok(outcome) => {
                    if let Some(key) = &attempt.opened.user_key {
                        access.remember(key);
                    }
                    return Ok(outcome);
                }
                Err(()) if access.sure => access.sure = false,
                Err(()) => return Err(place.denied()),
            }
            continue;
        }
        let how = How { request: &request, raw, keep: &keep, folder: &folder, watch: &mut watch };
        let result = drive(exec, &place, &timeline, &attempt.opened, how, &mut input, interrupted).await;
        let server = attempt.server.take();
        let opened = attempt.opened;
        match result {
            Err(Stop::Denied) if access.sure => {
                // The key that worked last doesn't any more: ask which one does.
                timeline.note("the key that was tried first is not accepted; asking about all");
                access.sure = false;
            }
            Err(Stop::Denied) => return Err(place.denied()),
            Err(Stop::Failed(failure)) => {
                // What may still run is ended, whoever hears it.
                opened.connection.leave().await;
                return Err(failure);
            }
            Ok(outcome) => {
                if let Some(key) = &opened.user_key {
                    access.remember(key);
                }
                drop(opened);
                if let Some(server) = server {
                    server.finish().await;
                }
                return Ok(outcome);
            }
        }
    }
}

fn request(exec: &Exec) -> Result<Request, Failure> {
    let words: Vec<Vec<u8>> = exec.command.iter().map(|word| word.as_bytes().to_vec()).collect();
    if words.iter().any(|word| word.contains(&0)) {
        return Err(Failure::usage("a command can't hold a NUL byte"));
    }
    let mut request = match words.as_slice() {
        [] if exec.login => Request::login_shell(),
        [line] if !exec.argv => {
            if line.iter().all(u8::is_ascii_whitespace) {
                return Err(Failure::usage("the command is empty"));
            }
            Request::line(line.clone())
        }
        [program, ..] if program.is_empty() => {
            return Err(Failure::usage("the command's first word is empty"));
        }
        _ => Request::argv(words),
    };
    request.working_directory = exec.cwd.as_ref().map(|path| path.as_bytes().to_vec());
    if request.working_directory.as_ref().is_some_and(Vec::is_empty) {
        return Err(Failure::usage("--cwd names no directory"));
    }
    request.environment = exec.env.clone();
    request.timeout = exec.timeout;
    request.session = exec.session.as_ref().map(|name| session_name(name, false));
    request.stdin = !exec.no_stdin;
    request.wait_streams = exec.wait_streams;
    request.sign_receipt = exec.receipt.is_some() || exec.keep.is_some();
    request.keep_order = exec.keep.is_some();
    request.linger = outage::linger(&exec.staying);
    Ok(request)
}

/// What to run, and how.
struct How<'a> {
    request: &'a Request,
    /// What is typed here goes to its terminal as it is.
    raw: bool,
    /// Where its receipt is kept.
    keep: &'a RefCell<Option<receipt::Keep>>,
    /// Where all of it is kept.
    folder: &'a RefCell<Option<(Folder, [Copy; 2])>>,
    /// Shows when the connection is lost.
    watch: &'a mut outage::Watch,
}

enum Stop {
    Denied,
    Failed(Failure),
}

/// Starts the job and moves its streams until its receipt is there.
async fn drive(
    exec: &Exec,
    place: &Place,
    timeline: &Timeline,
    opened: &Opened,
    How { request, raw, keep, folder, watch }: How<'_>,
    input: &mut Input,
    interrupted: &Cell<bool>,
) -> Result<Outcome, Stop> {
    let name = place.name();
    let failed = |class, text: String| Stop::Failed(Failure::new(class, &name, text));
    let id = job_id(&name).map_err(Stop::Failed)?;
    let started = opened.connection.start(id, request.clone());
    let mut job = started.map_err(|error| Stop::Failed(not_started(&name, &error)))?;
    let streams = (job.stdin(), job.stdout(), job.stderr());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = streams else {
        return Err(failed(Class::Internal, "the job has no streams".to_owned()));
    };
    let target = |which| {
        if exec.json {
            To::Kept { bytes: Vec::new(), limit: exec.max_output, seen: 0 }
        } else {
            To::Stream(Sink::open(which))
        }
    };
    let (kept_in, [stdout_copy, stderr_copy]) = match folder.take() {
        Some((folder, copies)) => (Some(folder), copies.map(Some)),
        None => (None, [None, None]),
    };
    let mut out = Output::new(target(Which::Stdout), exec.encoding).with_copy(stdout_copy);
    let mut err = Output::new(target(Which::Stderr), exec.encoding).with_copy(stderr_copy);

    let first_byte = Cell::new(false);
    // What its program asks of our terminal: taken back before anything is said, unless it ends as it wanted to.
    let shown = !exec.json && request.terminal.is_some() && std::io::stdout().is_terminal();
    let asked = RefCell::new(Restored::default());
    let on_bytes = |bytes: &[u8]| {
        if !first_byte.replace(true) {
            timeline.note("first byte");
        }
        if shown {
            asked.borrow_mut().modes.see(bytes);
        }
    };
    // Of somebody who leaves while the connection is lost.
    let way_back = |stop| match stop {
        Stop::Failed(failure) => {
            let id = receipt::hex(&id);
            let way = outage::way_back_now(&exec.target, &id, request.linger, &opened.connection);
            Stop::Failed(failure.with_hint(way))
        }
        stop => stop,
    };
    // What can't be read or written here makes the result less than whole, whatever the command says of its own end.
    let unread = Cell::new(None);
    let accepted = input.accepted();
    let mode = Cell::new(None);
    if raw {
        let entered = RawMode::enter();
        mode.set(Some(entered.map_err(|error| {
            failed(Class::Internal, format!("can't make this terminal raw: {error}; the command was ended"))
        })?));
    }
    let feed = async {
        if raw {
            match tty::type_into(&mut stdin, &mode, &job, &opened.connection).await {
                Ok(Typed::Ended) => drop(stdin),
                Ok(Typed::Left) if opened.connection.lost().is_some() => {
                    return way_back(failed(Class::Lost, outage::left("~. or Ctrl-C")));
                }
                Ok(Typed::Left) => {
                    return failed(Class::Lost, "you left by ~. (198); the host ends the command".to_owned());
                }
                Err(error) => {
                    unread.set(Some(error));
                    job.close();
                }
            }
        } else if request.stdin {
            if let Err(error) = input.pump(stdin).await {
                unread.set(Some(error));
                // The command must not take the end of what could be read for the end of all.
                job.close();
            }
        } else {
            drop(stdin);
        }
        std::future::pending().await
    };
    let sizes = async {
        match request.terminal {
            Some(_) => tty::follow_size(&job).await,
            None => std::future::pending().await,
        }
    };
    let told = async {
        match opened.connection.accepted().await {
            Ok(host) => {
                accepted.set(true);
                timeline.note(&format!("authenticated as {} on {}", escape(&place.user), escape(&host)));
            }
            Err(error @ JobError::NoVerdict) => return Stop::Failed(lost(&name, &error)),
            // The job tells it too, and what came of its output.
            Err(_) => {}
        }
        if timeline.enabled
            && let Some(pid @ 1..) = job.started().await
        {
            timeline.note(&format!("started, pid {pid}"));
        }
        std::future::pending().await
    };
    let work = async {
        let streams = async { tokio::join!(out.pump(stdout, on_bytes), err.pump(stderr, on_bytes)) };
        let (written, finished) = tokio::join!(streams, job.wait());
        (written, finished)
    };
    let passed = RefCell::new(Vec::new());
    let signals = signals(&job, opened, &accepted, interrupted, &passed);
    let redrawn = tokio::sync::Notify::new();
    let redraw = async {
        loop {
            redrawn.notified().await;
            outage::redraw(&job).await;
        }
    };
    let shown_name = escape(&name);
    let losses = async {
        let back = || {
            if asked.borrow().modes.is_alternate() {
                redrawn.notify_one();
            }
        };
        tokio::join!(watch.show(&shown_name, back), redraw)
    };
    let (written, finished) = tokio::select! {
        // Told first: all of a short command's messages may come at once, and the first of them is still the first.
        biased;
        stop = told => return Err(stop),
        _ = losses => unreachable_pending(),
        result = work => result,
        stop = feed => return Err(stop),
        () = sizes => unreachable_pending(),
        (text, is_lost) = signals => {
            let left = failed(Class::Lost, text);
            return Err(if is_lost { way_back(left) } else { left });
        }
    };
    drop(mode.take());
    match &finished {
        Ok(finished) if matches!(outcome_of(&finished.receipt), Outcome::Exited(_)) => {
            asked.borrow_mut().leave()
        }
        _ => drop(asked.borrow_mut().back()),
    }
    if let Some(error) = unread.take() {
        return Err(failed(
            Class::Internal,
            format!("can't read standard input: {error}; the command was ended"),
        ));
    }
    for (stream, result) in [("output", written.0), ("error", written.1)] {
        if let Err(error) = result
            && error.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(failed(
                Class::Internal,
                format!("can't write standard {stream}: {error}; what was written is cut"),
            ));
        }
    }
    match finished {
        Ok(finished) => {
            timeline.note(&format!("ended: {}", how(&outcome_of(&finished.receipt))));
            // Who sent the signal, or watched the program on its terminal, knows; and a closed pipe is no news to who closed it.
            let expected = |signal| {
                request.terminal.is_some()
                    || passed.borrow().iter().any(|(number, _)| *number == i32::from(signal))
                    || i32::from(signal) == SIGPIPE && !finished.unchecked.is_empty()
            };
            let mut kept = keep.take().map(|keep| keep.finish(&name, finished.kept.as_ref()));
            if let (Some(folder), Some(copies)) = (kept_in, copies(&mut out, &mut err)) {
                kept = Some(folder.finish_with(&name, copies, &finished));
            }
            let file = exec.receipt.as_deref().filter(|_| matches!(kept, Some(Ok(()))));
            let told = conclude(exec, place, timeline, &finished, [&out, &err], file, expected);
            told.and_then(|outcome| kept.unwrap_or(Ok(())).map(|()| outcome)).map_err(Stop::Failed)
        }
        Err(JobError::Denied) => {
            // Nothing has come: another key may do.
            *folder.borrow_mut() = kept_in.zip(copies(&mut out, &mut err));
            Err(Stop::Denied)
        }
        Err(error) => {
            let mut failure = match error {
                JobError::Detached(_) => {
                    let way = format!("remora attach {} {}", escape(&exec.target), receipt::hex(&id));
                    let text = format!("the command is detached, and goes on; to come back: {way}");
                    Failure::new(Class::Lost, &name, text)
                }
                error => {
                    let way = outage::way_back_from(&exec.target, &receipt::hex(&id), request.linger, &error);
                    let failure = lost(&name, &error);
                    Failure { hint: way.or(failure.hint), ..failure }
                }
            };
            if exec.json {
                // What came before is not thrown away.
                let (stdout, stderr) = (out.captured(), err.captured());
                let object = receipt::failed(&exec.target, command(exec), &failure, Some((&stdout, &stderr)));
                failure.told = print(&(object.to_string() + "\n")).is_ok();
            }
            Err(Stop::Failed(failure))
        }
    }
}

/// What is kept of both streams.
fn copies(out: &mut Output, err: &mut Output) -> Option<[Copy; 2]> {
    Some([out.take_copy()?, err.take_copy()?])
}

/// What two futures that never end would give, so that `select!` types them.
fn unreachable_pending() -> ((std::io::Result<()>, std::io::Result<()>), Result<Finished, JobError>) {
    ((Ok(()), Ok(())), Err(JobError::Left))
}

/// Tells how the job ended, unless it was by a signal that was expected, and prints its receipt where one is asked for.
fn conclude(
    exec: &Exec,
    place: &Place,
    timeline: &Timeline,
    finished: &Finished,
    [out, err]: [&Output; 2],
    kept: Option<&Path>,
    expected: impl Fn(u8) -> bool,
) -> Result<Outcome, Failure> {
    let receipt = &finished.receipt;
    let outcome = outcome_of(receipt);
    let name = place.name();
    if exec.json {
        let (stdout, stderr) = (out.captured(), err.captured());
        let object = receipt::receipt(&exec.target, command(exec), receipt, Some([&stdout, &stderr]), kept);
        if let Err(error) = print(&(object.to_string() + "\n")) {
            let text = format!("can't write standard output: {error}; the receipt is lost");
            let failure = Failure::new(Class::Internal, &name, text);
            return Err(Failure { told: true, ..failure });
        }
    }
    let failure = |text: String| Failure {
        outcome: outcome.clone(),
        target: escape(&name),
        text,
        hint: None,
        told: exec.json,
    };
    if let Some(change) = &receipt.session {
        timeline.note(&session::told(change));
        if let Some(note) = session::loud_note(change) {
            say(&format!("{}: {note}", escape(&name)));
        }
    }
    match (&outcome, &receipt.outcome) {
        (_, Some(proto::receipt::Outcome::NotStarted(why))) => {
            // A directory that was asked for isn't the session's.
            let in_session =
                exec.session.as_ref().filter(|_| exec.cwd.is_none()).and_then(|_| in_session(why));
            return Err(Failure { hint: in_session, ..failure(escape(&why.text)) });
        }
        (Outcome::Deadline, _) => {
            let limit = exec
                .timeout
                // The host's own may be shorter.
                .filter(|limit| receipt.wall_ns >= u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX))
                .map_or_else(|| "the host's time limit".to_owned(), |t| format!("its time limit of {t:?}"));
            failure(format!("the command ran into {limit} and was ended")).print();
        }
        (Outcome::Signaled { signal, by: None, .. }, _) if !expected(*signal) => {
            failure(killed_by(*signal)).print();
        }
        (Outcome::Signaled { by: Some(why), .. }, _) => {
            failure(format!("the host ended the command ({why})")).print();
        }
        _ => {}
    }
    let streams = [("stdout", &receipt.stdout), ("stderr", &receipt.stderr)];
    let held: Vec<&str> = streams
        .into_iter()
        .filter(|(_, report)| report.as_ref().is_some_and(|report| report.held_open))
        .map(|(stream, _)| stream)
        .collect();
    if !held.is_empty() {
        say(&format!(
            "{}: a background process holds {} open; what it still writes is not shown (--wait-streams waits for its end)",
            escape(&name),
            held.join(" and ")
        ));
    }
    Ok(outcome)
}

/// The command for `--json`: a line, or a vector.
pub(super) fn command(exec: &Exec) -> serde_json::Value {
    let words: Vec<_> = exec.command.iter().map(|word| receipt::text(word.as_bytes())).collect();
    match words.as_slice() {
        [line] if !exec.argv => json!({ "line": line }),
        _ => json!({ "argv": words }),
    }
}

/// Passes Ctrl-C, SIGTERM and SIGHUP on to the job. Ready at the second of a kind, and at the first while the host hasn't said that
/// there is a job: whoever waits for something that is stuck must get away. Tells what somebody did, and whether the connection was lost.
async fn signals(
    job: &Job,
    opened: &Opened,
    accepted: &Cell<bool>,
    interrupted: &Cell<bool>,
    passed: &RefCell<Vec<(i32, &'static str)>>,
) -> (String, bool) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    loop {
        let (key, sent) = tokio::select! {
            _ = interrupt.recv() => ("Ctrl-C", (SIGINT, "INT")),
            _ = terminate.recv() => ("SIGTERM", (SIGTERM, "TERM")),
            _ = hangup.recv() => ("SIGHUP", (SIGHUP, "HUP")),
        };
        if sent.0 == SIGINT {
            interrupted.set(true);
        }
        if !accepted.get() {
            let text = format!("you left on {key} before the host answered (198); the command may have run");
            return (text, false);
        }
        if opened.connection.lost().is_some() {
            return (outage::left(key), true);
        }
        if passed.borrow().contains(&sent) {
            return (format!("you left on a second {key} (198); the host ends the command"), false);
        }
        passed.borrow_mut().push(sent);
        job.signal(sent.1);
    }
}
