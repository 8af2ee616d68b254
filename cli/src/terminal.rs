//! The one place that prints for people: messages on standard error, in one voice.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use remora_client::{Class, Outcome, exit_status};

use crate::printable::escape;

/// Writes a line on standard error. A standard error that is gone is no reason to fail.
pub(crate) fn say(line: &str) {
    let mut text = String::with_capacity(line.len() + 9);
    text.push_str("remora: ");
    text.push_str(line);
    text.push('\n');
    // One write, so that lines of several processes don't mix.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Writes a hint on standard error.
pub(crate) fn hint(text: &str) {
    let _ = std::io::stderr().write_all(format!("hint: {text}\n").as_bytes());
}

/// A failure as a person sees it: `remora: web3: refused: …`, then `hint: …`.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// How the exit status tells it.
    pub(crate) outcome: Outcome,
    /// Which host it is about, if any.
    pub(crate) target: String,
    /// What went wrong; escaped by whoever made it.
    pub(crate) text: String,
    /// What to try.
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(class: Class, target: &str, text: impl Into<String>) -> Self {
        Failure { outcome: Outcome::Failed(class), target: escape(target), text: text.into(), hint: None }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Failure::new(Class::Usage, "", text)
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn print(&self) {
        let target = if self.target.is_empty() { String::new() } else { format!("{}: ", self.target) };
        say(&format!("{target}{}: {}", self.outcome.name(), self.text));
        if let Some(text) = &self.hint {
            hint(text);
        }
    }
}

/// What the argument parser has to say: help and versions on standard output, mistakes on standard error with status 193.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = std::io::stdout().write_all(error.render().to_string().as_bytes());
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let _ = std::io::stderr().write_all(format!("remora: usage: {}", escape_lines(text)).as_bytes());
    ExitCode::from(exit_status(&Outcome::Failed(Class::Usage), false))
}

fn escape_lines(text: &str) -> String {
    text.lines().map(|line| escape(line) + "\n").collect()
}

/// Writes to standard output.
///
/// # Errors
/// I/O errors.
pub(crate) fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The terminal to ask a person on, if there is one: standard error is a terminal, and so is the controlling one.
pub(crate) fn ask(question: &str, secret: bool) -> Option<String> {
    use std::io::{BufRead, BufReader};

    if !std::io::stderr().is_terminal() {
        return None;
    }
    let tty = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    // Silence first: who sees the question and answers at once must not be heard, nor have the answer thrown away.
    let echo = secret.then(|| Silence::on(&tty)).flatten();
    (&tty).write_all(question.as_bytes()).ok()?;
    let mut line = String::new();
    let read = BufReader::new(std::io::Read::take(&tty, 4096)).read_line(&mut line);
    if secret {
        drop(echo);
        let _ = (&tty).write_all(b"\n");
    }
    read.ok().filter(|count| *count > 0)?;
    Some(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// A terminal without echo, restored when dropped.
struct Silence<'a> {
    tty: &'a std::fs::File,
    before: rustix::termios::Termios,
}

impl<'a> Silence<'a> {
    fn on(tty: &'a std::fs::File) -> Option<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(tty).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(tty, OptionalActions::Flush, &silent).ok()?;
        Some(Silence { tty, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(self.tty, rustix::termios::OptionalActions::Now, &self.before);
    }
}
