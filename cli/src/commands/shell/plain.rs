//! The shell on a plain wire: one connection, a line and its reply at a time, shown as it is.

use remora_client::plain::{
    EndedBy, Ending, Exchange, Header, Part, Piece, PlainError, PlainOptions, RawEnd, plain_request,
};
use remora_client::{Class, Outcome, Plain, Target, exit_status};

use super::super::capture;
use super::super::ending::killed_by;
use super::super::timeline::Timeline;
use super::editor::{Editor, Entered, Parts};
use super::history::Wanted;
use super::keys::{CTRL_D, Keys, first_command};
use super::prompt::{Shown, Style};
use super::screen::{Of, Screen};
use super::script::Commands;
use super::signals::{Signals, Told};
use super::validator::{Dialect, Whole, is_whole};
use super::{history_of, words_of};
use crate::arguments::Shell;
use crate::printable::{chain, escape};
use crate::terminal::{Failure, say};

/// What stands before a line.
const PROMPT: &str = ">>>: ";

/// A connection, and what came of its last line.
struct PlainShell<'a> {
    exchange: Exchange,
    name: String,
    screen: Screen,
    signals: Signals,
    timeline: &'a Timeline,
    /// A person sees it.
    interactive: bool,
    status: u8,
}

/// Works until the person leaves, or standard input ends; gives the last status, and whether Ctrl-C ended it.
///
/// # Errors
/// Why it is over before its end.
pub(super) async fn run(
    shell: &Shell,
    target: (Plain, &str, u16),
    screen: Screen,
    interactive: bool,
    style: Style,
) -> Result<(u8, bool), Failure> {
    let (wire, host, port) = target;
    let timeline = Timeline::new(shell.reach.verbose);
    let name = Target::Plain { wire, host: host.to_owned(), port }.to_string();
    let options = PlainOptions {
        connect_timeout: shell.reach.connect_timeout,
        // The connection is needed for the next line.
        raw_end: RawEnd::GUESS,
        observer: timeline.observer(),
        tap: capture::tap(&shell.reach)?,
        ..PlainOptions::default()
    };
    let signals = Signals::watch()
        .map_err(|error| Failure::new(Class::Internal, &name, format!("no signal handler: {error}")))?;
    let opened = Exchange::open(wire, host, port, &options).await;
    let exchange = opened.map_err(|error| failure(&name, &error))?;
    let mut plain =
        PlainShell { exchange, name, screen, signals, timeline: &timeline, interactive, status: 0 };
    if interactive {
        let status = plain.interact(style).await?;
        plain.screen.leave();
        Ok((status, false))
    } else {
        plain.script(shell.exit_on_error).await
    }
}

fn failure(name: &str, error: &PlainError) -> Failure {
    let failure = Failure::new(error.class(), name, chain(error));
    match error {
        PlainError::Dial(_) => failure.with_hint("does a server listen there?"),
        PlainError::Fault(fault) if !fault.is_cut() => failure.with_hint("does the peer speak this wire?"),
        PlainError::Fault(_) | PlainError::Lost(_) => {
            failure.with_hint("the last line may have run, and may have ended or not")
        }
        _ => failure,
    }
}

impl PlainShell<'_> {
    async fn interact(&mut self, style: Style) -> Result<u8, Failure> {
        let before = crate::raw_mode::RawMode::enter();
        let before = before.map_err(|error| {
            Failure::new(Class::Internal, &self.name, format!("this terminal can't be used: {error}"))
        })?;
        before.suspend();
        let terminal = Keys::open().map_err(|error| {
            Failure::new(Class::Internal, &self.name, format!("this terminal can't be used: {error}"))
        })?;
        let mut editor = Editor::start(Parts {
            history: history_of(&self.name),
            validator: Box::new(Whole(Dialect::Posix)),
            completer: None,
            style,
        })
        .map_err(|error| Failure::new(Class::Internal, &self.name, format!("no line editor: {error}")))?;
        // What was typed ahead is for the next lines: this wire carries no input.
        let mut unread = Vec::new();
        loop {
            if unread.first() == Some(&CTRL_D) {
                return Ok(self.status);
            }
            let prefill = match first_command(&unread, |text| is_whole(text, Dialect::Posix)) {
                Ok((line, taken)) => {
                    unread.drain(..taken);
                    self.show(&format!("{PROMPT}{line}")).await?;
                    editor.remember(&line);
                    match self.run(&line, &mut editor, &terminal).await? {
                        Some(status) => return Ok(status),
                        None => continue,
                    }
                }
                Err(prefill) => prefill,
            };
            unread.clear();
            self.screen.prompted(PROMPT);
            editor.ask(Shown::fixed(PROMPT), prefill);
            let line = match self.answer(&mut editor, &terminal).await? {
                Entered::Line { text, ahead } => {
                    self.screen.typed(&text);
                    unread = ahead;
                    text
                }
                Entered::Interrupted => {
                    self.screen.typed("^C");
                    continue;
                }
                Entered::End => return Ok(self.status),
                Entered::History(_) => continue,
                Entered::Failed(error) => {
                    self.screen.abandon().await;
                    let text = format!("this terminal can't be used: {error}");
                    return Err(Failure::new(Class::Internal, &self.name, text));
                }
            };
            if let Some(status) = self.run(&line, &mut editor, &terminal).await? {
                return Ok(status);
            }
        }
    }

    /// Runs a line; gives a status where it leaves.
    async fn run(&mut self, line: &str, editor: &mut Editor, terminal: &Keys) -> Result<Option<u8>, Failure> {
        match words_of(line).as_slice() {
            _ if line.trim().is_empty() => {}
            ["exit"] => return Ok(Some(self.status)),
            ["exit", number] if number.parse::<u8>().is_ok() => {
                return Ok(Some(number.parse().unwrap_or_default()));
            }
            _ if let Some(wanted) = Wanted::of(line) => {
                let told = match wanted {
                    Ok(wanted) => {
                        editor.ask_history(wanted);
                        match self.answer(editor, terminal).await? {
                            Entered::History(told) => told,
                            _ => Ok(Vec::new()),
                        }
                    }
                    Err(text) => Err(text),
                };
                self.status = u8::from(told.is_err());
                for line in told.unwrap_or_else(|text| vec![text]) {
                    self.show(&line).await?;
                }
            }
            _ => {
                if let Err(text) = self.ask(line.as_bytes().to_vec())? {
                    self.status = exit_status(&Outcome::Failed(Class::Usage), false);
                    say(&text);
                } else {
                    self.reply().await?;
                }
            }
        }
        Ok(None)
    }

    async fn script(&mut self, exit_on_error: bool) -> Result<(u8, bool), Failure> {
        let mut commands = Commands::open(Dialect::Posix);
        loop {
            let command = tokio::select! {
                biased;
                told = self.signals.next() => match told {
                    Told::End(signal) => return Err(self.told_to_end(signal)),
                    Told::Interrupt => return Ok((130, true)),
                    Told::Resized(_) => continue,
                },
                command = commands.next() => command?,
            };
            let Some(command) = command else { return Ok((self.status, false)) };
            let text = String::from_utf8_lossy(&command).into_owned();
            match words_of(&text).as_slice() {
                ["exit"] => return Ok((self.status, false)),
                ["exit", number] if number.parse::<u8>().is_ok() => {
                    return Ok((number.parse().unwrap_or_default(), false));
                }
                _ => {}
            }
            if let Err(text) = self.ask(command)? {
                return Err(Failure::usage(text));
            }
            self.reply().await?;
            if exit_on_error && self.status != 0 {
                return Ok((self.status, false));
            }
        }
    }

    /// What comes of what the editor was asked, unless the peer or the system ends it all.
    async fn answer(&mut self, editor: &mut Editor, terminal: &Keys) -> Result<Entered, Failure> {
        loop {
            let over = tokio::select! {
                biased;
                entered = editor.answer() => return Ok(entered),
                () = self.exchange.closed() => failure(&self.name, &PlainError::Closed),
                () = terminal.hung_up() => self.told_to_end(signal_hook::consts::SIGHUP),
                told = self.signals.next() => match told {
                    Told::End(signal) => self.told_to_end(signal),
                    Told::Resized(size) => {
                        self.screen.resized(&size);
                        continue;
                    }
                    Told::Interrupt => continue,
                },
            };
            self.screen.abandon().await;
            return Err(over);
        }
    }

    /// Asks; gives back why a line can't be asked.
    ///
    /// # Errors
    /// The peer is gone.
    fn ask(&mut self, line: Vec<u8>) -> Result<Result<(), String>, Failure> {
        match plain_request(&[line], false) {
            Ok(request) => match self.exchange.ask(request) {
                Ok(()) => Ok(Ok(())),
                Err(error) => Err(failure(&self.name, &error)),
            },
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    /// Shows the reply to its end.
    async fn reply(&mut self) -> Result<(), Failure> {
        self.screen.begin();
        let mut header: Option<Box<Header>> = None;
        let mut interrupted = false;
        loop {
            let piece = tokio::select! {
                biased;
                piece = self.exchange.next() => piece.map_err(|error| failure(&self.name, &error))?,
                told = self.signals.next() => match told {
                    Told::End(signal) => return Err(self.told_to_end(signal)),
                    Told::Interrupt if interrupted => {
                        let text = "you left on a second Ctrl-C (198); the connection was reset, which ends the command on a remora server";
                        return Err(Failure::new(Class::Lost, &self.name, text));
                    }
                    Told::Interrupt => {
                        interrupted = true;
                        say("this wire can't interrupt a command; a second Ctrl-C leaves");
                        continue;
                    }
                    Told::Resized(size) => {
                        self.screen.resized(&size);
                        continue;
                    }
                },
            };
            match piece {
                Some(Piece::Length(length)) => {
                    self.timeline.note(&format!("a reply of {length} bytes begins"))
                }
                Some(Piece::Header(told)) => header = Some(told),
                Some(Piece::Payload { part, bytes }) => {
                    let of = if part == Part::Stderr { Of::Stderr } else { Of::Stdout };
                    self.screen.show(of, bytes).await.map_err(|error| self.unshown(&error))?;
                }
                Some(Piece::Done(done)) => {
                    if done.guessed {
                        self.timeline
                            .note("ended, by a guess: 500 ms without a byte; the command may still run");
                    }
                    self.status = if done.verdicts.differ() {
                        say("the output is not what the peer announced: its digest differs");
                        exit_status(&Outcome::Failed(Class::Lost), false)
                    } else {
                        self.told(header.as_deref()).await?
                    };
                    return Ok(());
                }
                None => return Ok(()),
            }
        }
    }

    /// The status that a header tells; the other wires tell none.
    async fn told(&mut self, header: Option<&Header>) -> Result<u8, Failure> {
        let by = header.and_then(|header| header.ended_by);
        let outcome = match header.and_then(|header| header.ending) {
            _ if by == Some(EndedBy::Deadline) => Outcome::Deadline,
            None => Outcome::Exited(0),
            Some(Ending::Exited(status)) => Outcome::Exited(status),
            Some(Ending::Signaled(signal)) => {
                let outcome = Outcome::Signaled { signal, by: None };
                if self.interactive {
                    self.show(&killed_by(signal)).await?;
                } else {
                    let failure = Failure::new(Class::Lost, &self.name, killed_by(signal));
                    Failure { outcome: outcome.clone(), ..failure }.print();
                }
                outcome
            }
            Some(Ending::Unknown | Ending::Impossible(_)) => Outcome::Failed(Class::Lost),
        };
        Ok(exit_status(&outcome, false))
    }

    async fn show(&mut self, text: &str) -> Result<(), Failure> {
        let shown = self.screen.line(text).await;
        shown.map_err(|error| self.unshown(&error))
    }

    fn unshown(&self, error: &std::io::Error) -> Failure {
        Failure::new(Class::Internal, &self.name, format!("can't write: {error}"))
    }

    fn told_to_end(&self, signal: i32) -> Failure {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        let number = u8::try_from(signal).unwrap_or(0);
        let failure = Failure::new(Class::Lost, &self.name, format!("left on {}", escape(name)));
        Failure { outcome: Outcome::Signaled { signal: number, by: None }, ..failure }
    }
}
