//! `remora exec` on a plain wire: there is a line to send and a reply to print, and no receipt.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use bytes::Bytes;
use remora_client::plain::{
    Done, EndedBy, Ending, Exchange, Fault, Header, Part, Piece, PlainError, PlainOptions, RawEnd, Verdict,
    Verdicts, plain_request, safe_file_name,
};
use remora_client::{Class, Outcome, Plain, Target};
use tokio::signal::unix::{SignalKind, signal};

use super::capture;
use super::ending::killed_by;
use super::exec::command;
use super::receipt::{self, Captured};
use super::save::{NAMELESS, Save, doubtful};
use super::streams::{Output, Target as To};
use super::timeline::Timeline;
use crate::arguments::Exec;
use crate::printable::{chain, escape};
use crate::stdio::{self, Sink, Which};
use crate::terminal::{Failure, print, say};

/// Runs the command and prints what comes back. `interrupted` is set when it was given up on Ctrl-C.
pub(crate) async fn run(
    exec: &Exec,
    wire: Plain,
    host: &str,
    port: u16,
    interrupted: &Cell<bool>,
) -> Result<Outcome, Failure> {
    let timeline = Timeline::new(exec.reach.verbose);
    let name = Target::Plain { wire, host: host.to_owned(), port }.to_string();
    let words: Vec<Vec<u8>> = exec.command.iter().map(|word| word.as_bytes().to_vec()).collect();
    let request = plain_request(&words, exec.argv).map_err(|error| Failure::usage(error.to_string()))?;
    let save = match &exec.save {
        None => None,
        Some(folder) => Some(Save::begin(folder, exec.overwrite).map_err(|error| {
            Failure::usage(format!(
                "can't store a file in {}: {error}",
                escape(&folder.display().to_string())
            ))
        })?),
    };
    let options = PlainOptions {
        connect_timeout: exec.reach.connect_timeout,
        raw_end: if exec.silence { RawEnd::GUESS } else { RawEnd::HalfClose },
        observer: timeline.observer(),
        tap: capture::tap(&exec.reach)?,
        ..PlainOptions::default()
    };
    let exchange = Exchange::begin(wire, host, port, request, &options)
        .await
        .map_err(|error| failure(&name, &error, true))?;
    if !exec.no_stdin {
        timeline.note("this wire carries no standard input; the command reads an empty one");
    }
    let mut warned = false;
    let mut warn_of_input = || {
        if !warned && !exec.no_stdin && stdio::input_waits() {
            warned = true;
            say(&format!("{}: this wire carries no standard input; yours was not read", escape(&name)));
        }
    };
    warn_of_input();
    let target = |which| {
        if exec.json {
            To::Kept { bytes: Vec::new(), limit: exec.max_output, seen: 0 }
        } else {
            To::Stream(Sink::open(which))
        }
    };
    let mut reply = Reply {
        name: &name,
        timeline: &timeline,
        out: Side::new(target(Which::Stdout), exec.encoding),
        err: Side::new(target(Which::Stderr), exec.encoding),
        save,
        header: None,
        silent: true,
        first: true,
    };
    let verdicts = tokio::select! {
        biased;
        name = left() => {
            // Dropping the exchange resets the connection.
            interrupted.set(name == "Ctrl-C");
            let text = format!("you left on {name} (198); the connection was reset, which ends the command on a remora server");
            return Err(Failure::new(Class::Lost, reply.name, text));
        }
        limit = over(exec.timeout) => {
            let text = format!(
                "the reply was not there within {limit:?}; the connection was reset, which ends the command on a remora server, and on another it may run on"
            );
            return Err(Failure::new(Class::Lost, reply.name, text));
        }
        verdicts = reply.receive(exchange) => verdicts?,
    };
    // Whoever feeds us may have been slower than we were.
    warn_of_input();
    reply.conclude(exec, wire, verdicts)
}

/// What went wrong; `silent` where the peer has said nothing at all.
fn failure(name: &str, error: &PlainError, silent: bool) -> Failure {
    let failure = Failure::new(error.class(), name, chain(error));
    match error {
        PlainError::Dial(_) => failure.with_hint("does a server listen there?"),
        // What a server does to another account's process looks like any other loss from here, and its log alone has the reason.
        PlainError::Lost(_) | PlainError::Fault(Fault::NoReply) if silent => failure.with_hint(
            "the command may have run; but a server closes at once on peers that it doesn't serve, such as those of another account, or when it is full",
        ),
        PlainError::Lost(_) => failure.with_hint("the command may have run, and may have ended or not"),
        PlainError::Fault(fault) if !fault.is_cut() => failure.with_hint("does the peer speak this wire?"),
        _ => failure,
    }
}

/// Ready when this time is over. It is ours alone: no plain wire carries a limit to the host.
async fn over(limit: Option<Duration>) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    tokio::time::sleep(limit).await;
    limit
}

/// Ready when a person, or the system, wants us to end.
async fn left() -> &'static str {
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    }
}

/// One of our output streams.
struct Side {
    output: Output,
    /// Whoever read it is gone, or it can't be written.
    closed: Option<io::Error>,
}

impl Side {
    fn new(target: To, encoding: Option<&'static encoding_rs::Encoding>) -> Self {
        Side { output: Output::new(target, encoding), closed: None }
    }

    async fn put(&mut self, bytes: Bytes, last: bool) {
        if self.closed.is_none()
            && let Err(error) = self.output.put(bytes, last).await
        {
            self.closed = Some(error);
        }
    }

    /// What is worth telling of it: a broken pipe isn't.
    fn trouble(&self) -> Option<&io::Error> {
        self.closed.as_ref().filter(|error| error.kind() != ErrorKind::BrokenPipe)
    }

    fn kept(&self) -> Captured<'_> {
        match &self.output.target {
            To::Kept { bytes, seen, .. } => Captured { bytes, seen: *seen },
            To::Stream(_) => Captured { bytes: &[], seen: 0 },
        }
    }
}

/// A reply on its way to where it belongs.
struct Reply<'a> {
    name: &'a str,
    timeline: &'a Timeline,
    out: Side,
    err: Side,
    save: Option<Save>,
    header: Option<Box<Header>>,
    /// Whether the peer has said nothing yet.
    silent: bool,
    first: bool,
}

impl Reply<'_> {
    /// Moves the reply to its end, or until nobody wants it any more.
    async fn receive(&mut self, mut exchange: Exchange) -> Result<Verdicts, Failure> {
        loop {
            let next = exchange.next().await.map_err(|error| self.broken(&error))?;
            self.silent = false;
            match next {
                Some(Piece::Length(length)) => {
                    self.timeline.note(&format!("a reply of {length} bytes begins"))
                }
                Some(Piece::Header(header)) => self.header(header),
                Some(Piece::Payload { part, bytes }) => {
                    if std::mem::take(&mut self.first) {
                        self.timeline.note("first byte");
                    }
                    self.payload(part, bytes).await?;
                    if self.is_unwanted() {
                        self.timeline.note("nobody reads the output any more; the connection is reset");
                        return Ok(exchange.unchecked());
                    }
                }
                Some(Piece::Done(done)) => {
                    self.told(&done);
                    self.out.put(Bytes::new(), true).await;
                    self.err.put(Bytes::new(), true).await;
                    return Ok(done.verdicts);
                }
                // Done comes before this.
                None => return Ok(exchange.unchecked()),
            }
        }
    }

    fn header(&mut self, header: Box<Header>) {
        self.timeline.note(&format!("a reply of {} bytes begins", header.total_size));
        if !header.ignored.is_empty() {
            self.timeline.note(&format!("ignored, since they make no sense: {}", header.ignored.join(", ")));
        }
        self.header = Some(header);
    }

    /// The reply stops before its end.
    fn broken(&self, error: &PlainError) -> Failure {
        let failure = failure(self.name, error, self.silent);
        match (&self.save, &self.header) {
            (Some(_), Some(_)) => Failure { text: format!("{}; nothing is stored", failure.text), ..failure },
            _ => failure,
        }
    }

    /// The peer did its part; what fails is on this machine.
    fn unsaved(&self, error: &(dyn std::error::Error + 'static)) -> Failure {
        Failure::new(Class::Internal, self.name, format!("the reply is not stored: {}", chain(error)))
    }

    /// Names the file; gives what is to be said of it.
    fn store(&mut self, whole: bool) -> Result<Option<String>, Failure> {
        let Some(save) = self.save.take() else { return Ok(None) };
        let given = self.header.as_ref().and_then(|header| header.file_name.as_deref());
        let safe = given.and_then(safe_file_name);
        let why = match (&safe, given.unwrap_or_default()) {
            (Some(_), _) => None,
            (None, "") => Some("the reply names no file".to_owned()),
            (None, given) => Some(format!("no file can be called '{}'", escape(given))),
        };
        let mut name = safe.unwrap_or_else(|| NAMELESS.to_owned());
        if !whole {
            name = doubtful(&name);
        }
        let stored = save.finish(&name).map_err(|error| self.unsaved(&error))?;
        let mut text =
            format!("stored {} bytes in {}", stored.length, escape(&stored.path.display().to_string()));
        for why in [why, stored.why].into_iter().flatten() {
            text.push_str("; ");
            text.push_str(&why);
        }
        Ok(Some(text))
    }

    async fn payload(&mut self, part: Part, bytes: Bytes) -> Result<(), Failure> {
        if let Some(save) = &mut self.save {
            let written = save.write(&bytes);
            return written.map_err(|error| self.unsaved(&error));
        }
        match part {
            Part::Both | Part::Stdout => self.out.put(bytes, false).await,
            Part::Stderr => self.err.put(bytes, false).await,
        }
        Ok(())
    }

    /// Whether what is still to come has nowhere to go.
    fn is_unwanted(&self) -> bool {
        let stderr_comes =
            self.header.as_ref().and_then(|header| header.streams).is_some_and(|streams| streams.stderr > 0);
        self.out.closed.is_some() && (!stderr_comes || self.err.closed.is_some())
    }

    fn told(&self, done: &Done) {
        if done.guessed {
            self.timeline.note("ended, by a guess: 500 ms without a byte; the command may still run");
        } else {
            self.timeline.note("ended");
        }
        if done.behind > 0 {
            self.timeline.note(&format!("{} bytes behind the reply belong to nothing", done.behind));
        }
    }

    fn conclude(mut self, exec: &Exec, wire: Plain, verdicts: Verdicts) -> Result<Outcome, Failure> {
        if wire == Plain::Header {
            for (digest, verdict) in [("md5", verdicts.md5), ("blake3", verdicts.blake3)] {
                self.timeline.note(&format!("{digest}: {}", told(verdict)));
            }
        } else {
            self.timeline.note("this wire carries no digest and no exit status");
        }
        let differs = verdicts.differ().then(|| {
            let which = if verdicts.md5 == Verdict::Differs { "md5" } else { "blake3" };
            let text = format!("the output is not what the peer announced: its {which} digest differs");
            Failure::new(Class::Lost, self.name, text)
        });
        let told = self.header.as_ref().and_then(|header| header.ending);
        let by = self.header.as_ref().and_then(|header| header.ended_by);
        let outcome = match told {
            _ if differs.is_some() => Some(Outcome::Failed(Class::Lost)),
            _ if by == Some(EndedBy::Deadline) => Some(Outcome::Deadline),
            Some(Ending::Exited(status)) => Some(Outcome::Exited(status)),
            Some(Ending::Signaled(signal)) => {
                Some(Outcome::Signaled { signal, by: by.map(|by| by.name().to_owned()) })
            }
            Some(Ending::Unknown | Ending::Impossible(_)) => Some(Outcome::Failed(Class::Lost)),
            None => None,
        };
        if exec.json {
            let apart = self.header.as_ref().is_some_and(|header| header.streams.is_some());
            let (stdout, stderr) = (self.out.kept(), self.err.kept());
            let stderr = apart.then_some(&stderr);
            let object = receipt::unproven(&exec.target, command(exec), outcome.as_ref(), &stdout, stderr);
            if let Err(error) = print(&(object.to_string() + "\n")) {
                let text = format!("can't write standard output: {error}; the reply is lost");
                return Err(Failure { told: true, ..Failure::new(Class::Internal, self.name, text) });
            }
        }
        let stored = self.store(differs.is_none())?;
        if let Some(failure) = differs {
            let text = match stored {
                Some(stored) => format!("{}; {stored}, not under its name", failure.text),
                None => failure.text,
            };
            return Err(Failure { told: true, text, ..failure });
        }
        if let Some(stored) = stored {
            say(&stored);
        }
        for (side, name) in [(&self.out, "output"), (&self.err, "error")] {
            if let Some(error) = side.trouble() {
                let text = format!("can't write standard {name}: {error}");
                return Err(Failure::new(Class::Internal, self.name, text));
            }
        }
        let lost = |text: String| Err(Failure { told: true, ..Failure::new(Class::Lost, self.name, text) });
        match told {
            Some(Ending::Unknown) => return lost("the peer does not know how the command ended".to_owned()),
            Some(Ending::Impossible(what)) => {
                return lost(format!("the peer names {what}, so nobody knows how the command ended"));
            }
            _ => {}
        }
        let outcome = outcome.unwrap_or(Outcome::Exited(0));
        let text = match (&outcome, by) {
            (Outcome::Deadline, _) => {
                Some("the command ran into the host's time limit and was ended".to_owned())
            }
            (_, Some(by)) => Some(format!("the host ended the command ({})", by.name())),
            (Outcome::Signaled { signal, .. }, None) => Some(killed_by(*signal)),
            (_, None) => None,
        };
        if let Some(text) = text {
            Failure { outcome: outcome.clone(), ..Failure::new(Class::Lost, self.name, text) }.print();
        }
        Ok(outcome)
    }
}

fn told(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Absent => "no digest",
        Verdict::Matches => "verified",
        Verdict::Differs => "differs",
        Verdict::Unchecked => "unchecked, the output was closed early",
    }
}
