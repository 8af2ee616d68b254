//! A person at the prompt of a host: lines in, one after the other, until they leave.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use remora_client::Class;
use tokio::sync::{Mutex, mpsc};

use super::completion::{FromHost, Known, answer};
use super::editor::{Editor, Entered, Parts};
use super::history::Wanted;
use super::jobs::News;
use super::keys::{CTRL_C, CTRL_D, Keys, first_command};
use super::native::{After, Native, With};
use super::prompt::Style;
use super::screen::Screen;
use super::signals::{Signals, Told};
use super::validator::{Whole, for_background, is_whole};
use super::{history_of, words_of};
use crate::raw_mode::RawMode;
use crate::terminal::Failure;

/// How long a line waits that finds no room above the prompt.
const CROWDED: Duration = Duration::from_millis(20);

/// Works until the person leaves; gives the last status.
///
/// # Errors
/// Why the shell is over.
pub(super) async fn interact(native: &mut Native, screen: Screen, style: Style) -> Result<u8, Failure> {
    let broken = |error: std::io::Error| {
        Failure::new(Class::Internal, &native.place.name(), format!("this terminal can't be used: {error}"))
    };
    let mut signals = Signals::watch().map_err(broken)?;
    let raw = RawMode::enter().map_err(broken)?;
    let keys = Keys::open().map_err(broken)?;
    if native.terminal.is_none() {
        // Ctrl-C is a signal there.
        raw.suspend();
    }
    let known = Arc::new(Known::default());
    let (questions, asked) = mpsc::unbounded_channel();
    let answering = answer(Arc::downgrade(&native.connection), native.session.clone(), known.clone(), asked);
    let answering = tokio::spawn(answering);
    let target = format!("{}@{}", native.place.user, native.place.name());
    let editor = Editor::start(Parts {
        history: history_of(&target),
        validator: Box::new(Whole(native.dialect())),
        completer: Some(Box::new(FromHost::new(known.clone(), questions))),
        style,
    })
    .map_err(broken)?;
    let screen = Mutex::new(screen);
    let native_keys = native.terminal.is_some().then_some(&keys);
    let mut person =
        Person { terminal: &keys, native, editor, known, screen: &screen, unread: Vec::new(), warned: false };
    let with = With { screen: &screen, keys: native_keys, signals: &mut signals, interactive: true };
    let result = person.work(with).await;
    answering.abort();
    if result.is_ok() {
        screen.lock().await.leave();
    }
    result
}

struct Person<'a> {
    native: &'a mut Native,
    terminal: &'a Keys,
    editor: Editor,
    known: Arc<Known>,
    screen: &'a Mutex<Screen>,
    /// What was typed and nobody read.
    unread: Vec<u8>,
    /// That jobs would be left behind was said, and nothing else was done since.
    warned: bool,
}

impl Person<'_> {
    async fn work(&mut self, mut with: With<'_>) -> Result<u8, Failure> {
        self.native.log_in(&mut with).await?;
        loop {
            for notice in self.native.jobs.notices() {
                self.native.show(&with, &notice).await?;
            }
            let Some(line) = self.next(&mut with).await? else {
                if self.may_leave(&with).await? {
                    return Ok(self.native.status);
                }
                continue;
            };
            match self.run(&line, &mut with).await? {
                After::Next { unread } => self.unread = unread,
                After::Exit => return Ok(self.native.status),
            }
        }
    }

    /// The next line: of those that were typed ahead, or at the prompt. None for who wants to leave.
    async fn next(&mut self, with: &mut With<'_>) -> Result<Option<String>, Failure> {
        let dialect = self.native.dialect();
        loop {
            // Who pressed Ctrl-C wants nothing of what came before.
            if let Some(at) = self.unread.iter().rposition(|byte| *byte == CTRL_C) {
                self.unread.drain(..=at);
            }
            // At the beginning of a line Ctrl-D leaves, also one that was typed ahead.
            if self.unread.first() == Some(&CTRL_D) {
                self.unread.remove(0);
                return Ok(None);
            }
            let prefill = match first_command(&self.unread, |text| is_whole(text, dialect)) {
                Ok((line, taken)) => {
                    self.unread.drain(..taken);
                    let prompt = self.native.prompt();
                    self.native
                        .show(with, &format!("{}{}", prompt.text(), line.replace('\n', "\r\n")))
                        .await?;
                    self.editor.remember(&line);
                    if line.trim().is_empty() {
                        continue;
                    }
                    return Ok(Some(line));
                }
                Err(prefill) => prefill,
            };
            self.unread.clear();
            let prompt = self.native.prompt();
            self.screen.lock().await.prompted(prompt.text());
            self.editor.ask(prompt, prefill);
            match self.answer(with).await? {
                Entered::Line { text, ahead } => {
                    self.screen.lock().await.typed(&text);
                    self.unread = ahead;
                    if !text.trim().is_empty() {
                        return Ok(Some(text));
                    }
                }
                Entered::Interrupted => {
                    self.screen.lock().await.typed("^C");
                    self.native.status = 130;
                    self.warned = false;
                }
                Entered::End => return Ok(None),
                Entered::History(_) => {}
                Entered::Failed(error) => {
                    self.screen.lock().await.abandon().await;
                    return Err(self.native.broken(&std::io::Error::other(error)));
                }
            }
            for notice in self.native.jobs.notices() {
                self.native.show(with, &notice).await?;
            }
        }
    }

    /// What comes of what the editor was asked; meanwhile the world goes on.
    async fn answer(&mut self, with: &mut With<'_>) -> Result<Entered, Failure> {
        let connection = self.native.connection.clone();
        let mut waiting: VecDeque<String> = VecDeque::new();
        loop {
            while let Some(line) = waiting.pop_front() {
                if let Err(line) = self.editor.show_above(line) {
                    waiting.push_front(line);
                    break;
                }
            }
            let over = tokio::select! {
                biased;
                entered = self.editor.answer() => return Ok(entered),
                error = connection.ended() => self.native.lost(&error),
                () = self.terminal.hung_up() => self.native.told_to_end(signal_hook::consts::SIGHUP),
                told = with.signals.next() => match told {
                    Told::End(signal) => self.native.told_to_end(signal),
                    Told::Resized(size) => {
                        self.screen.lock().await.resized(&size);
                        continue;
                    }
                    Told::Interrupt => continue,
                },
                news = self.native.jobs.news(), if waiting.is_empty() => {
                    if let News::Output(number, _, bytes) = news {
                        waiting.extend(self.native.jobs.lines(number, &bytes));
                    }
                    continue;
                }
                () = tokio::time::sleep(CROWDED), if !waiting.is_empty() => continue,
            };
            self.screen.lock().await.abandon().await;
            return Err(over);
        }
    }

    /// Whether nothing is left behind, or the person knows.
    async fn may_leave(&mut self, with: &With<'_>) -> Result<bool, Failure> {
        match self.native.jobs.left_behind() {
            Some(text) if !self.warned => {
                self.warned = true;
                self.native.show(with, text).await?;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    /// Runs a line: the shell's own, or the host's.
    async fn run(&mut self, line: &str, with: &mut With<'_>) -> Result<After, Failure> {
        let unread = std::mem::take(&mut self.unread);
        let words = words_of(line);
        let word = words.get(1).copied();
        let own = match words.as_slice() {
            ["exit"] | ["exit", _] => {
                if !self.may_leave(with).await? {
                    self.native.status = 1;
                    return Ok(After::Next { unread });
                }
                None
            }
            ["jobs"] => Some(Ok(self.native.jobs.listed())),
            ["bg"] | ["bg", _] => Some(self.native.jobs.resume(word).map(|text| vec![text])),
            ["disown", words @ ..] => Some(self.native.disown(words).await),
            ["fg"] | ["fg", _] => match self.native.jobs.take(word) {
                Ok((live, piece)) => {
                    self.warned = false;
                    let line = live.line.replace('\n', "\r\n");
                    self.native.show(with, &line).await?;
                    if !piece.is_empty() {
                        self.native.show(with, &piece).await?;
                    }
                    if let Some(size) = super::super::tty::size() {
                        live.job.resize(&size);
                    }
                    live.job.resume();
                    return self.native.watch(live, unread, with).await;
                }
                Err(text) => Some(Err(text)),
            },
            _ => match Wanted::of(line) {
                Some(Ok(wanted)) => {
                    self.editor.ask_history(wanted);
                    match self.answer(with).await? {
                        Entered::History(told) => Some(told),
                        _ => None,
                    }
                }
                Some(Err(text)) => Some(Err(text)),
                None => None,
            },
        };
        let Some(told) = own else {
            self.known.forget();
            if words.first() != Some(&"exit") {
                self.warned = false;
            }
            let Some(command) = for_background(line, self.native.dialect()) else {
                return self.native.line(line, unread, with).await;
            };
            // A line's terminal is hung up as the line ends, with all that is left on it: a job of its own isn't. In a shell of its
            // own, as there, so that it doesn't move the session's directory.
            let mut live = self.native.start(format!("( {command}\n)").as_bytes(), false)?;
            command.clone_into(&mut live.line);
            let text = self.native.jobs.started(live);
            self.native.show(with, &text).await?;
            self.native.status = 0;
            return Ok(After::Next { unread });
        };
        let (lines, status) = match told {
            Ok(lines) => (lines, 0),
            Err(text) => (vec![text], 1),
        };
        for line in lines {
            self.native.show(with, &line).await?;
        }
        self.native.status = status;
        Ok(After::Next { unread })
    }
}
