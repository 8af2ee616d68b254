//! The one place that prints for people: messages on standard error, in one voice.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use remora_client::{Class, Outcome, exit_status};
use zeroize::Zeroizing;

use crate::printable::escape;

/// Writes a line on standard error. A standard error that is gone is no reason to fail.
pub(crate) fn say(line: &str) {
    let mut text = String::with_capacity(line.len() + 9);
    text.push_str("remora: ");
    text.push_str(line);
    text.push_str(line_end());
    erase_below();
    // One write, so that lines of several processes don't mix.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// A terminal in raw mode goes to the left only when told.
fn line_end() -> &'static str {
    if crate::raw_mode::is_raw() { "\r\n" } else { "\n" }
}

/// A line of ours stands below the cursor.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// Draws a line below the one where the cursor is, which stays there: a command may have written half of its line. IND and RI (ECMA-48,
/// `ESC D` and `ESC M`) make room for it at the foot of the screen, DECSC and DECRC keep the cursor.
pub(crate) fn draw_below(text: &str) {
    DRAWN.store(true, Ordering::Relaxed);
    let _ = std::io::stderr().write_all(format!("\x1bD\x1bM\x1b7\x1b[B\r\x1b[2K{text}\x1b8").as_bytes());
}

/// Erases that line, if it is there.
pub(crate) fn erase_below() {
    if DRAWN.swap(false, Ordering::Relaxed) {
        let _ = std::io::stderr().write_all(b"\x1b7\x1b[B\r\x1b[2K\x1b8");
    }
}

/// Writes a hint on standard error.
pub(crate) fn hint(text: &str) {
    let _ = std::io::stderr().write_all(format!("hint: {text}{}", line_end()).as_bytes());
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
    /// Whether `--json` has told it already.
    pub(crate) told: bool,
}

impl Failure {
    pub(crate) fn new(class: Class, target: &str, text: impl Into<String>) -> Self {
        Failure {
            outcome: Outcome::Failed(class),
            target: escape(target),
            text: text.into(),
            hint: None,
            told: false,
        }
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
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = std::io::stderr().write_all(error.render().to_string().as_bytes());
        return ExitCode::from(exit_status(&Outcome::Failed(Class::Usage), false));
    }
    // The parser's first paragraph says what is wrong; the rest is its way of pointing to the help.
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let wrong: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let command = std::env::args().nth(1).filter(|word| {
        [
            "exec", "shell", "pty", "sessions", "jobs", "attach", "logs", "wait", "signal", "stop", "forget",
            "renew", "detach", "serve", "receipt", "replay", "wire",
        ]
        .contains(&word.as_str())
    });
    let failure = Failure::usage(escape(&wrong.join(" ")));
    status_file(&failure);
    json_object(&failure);
    // How to pass a word that begins with '-' is of no use where none such makes sense.
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    let tip = tip.filter(|tip| !tip.starts_with("to pass "));
    failure
        .with_hint(tip.map(escape).unwrap_or_else(|| match command {
            Some(command) => format!("remora {command} --help"),
            None => "remora --help".to_owned(),
        }))
        .print();
    ExitCode::from(exit_status(&Outcome::Failed(Class::Usage), false))
}

/// `--status-file` holds how it ended whatever happens, so also when the rest of the line makes no sense.
fn status_file(failure: &Failure) {
    let words: Vec<std::ffi::OsString> =
        std::env::args_os().skip(1).take_while(|word| word != "--").collect();
    let path = words.iter().enumerate().find_map(|(at, word)| {
        match word.to_str()?.strip_prefix("--status-file")? {
            "" => words.get(at + 1).map(PathBuf::from),
            rest => rest.strip_prefix('=').map(PathBuf::from),
        }
    });
    if let Some(path) = path.filter(|_| words.first().is_some_and(|verb| verb == "exec")) {
        let status = exit_status(&failure.outcome, false);
        let text =
            crate::commands::receipt::status(&failure.outcome, status, "", Some(failure)).to_string() + "\n";
        if let Err(error) = std::fs::write(&path, text) {
            say(&format!("can't write {}: {error}", escape(&path.display().to_string())));
        }
    }
}

/// `--json` prints an object whatever happens, so also when the rest of the line makes no sense.
fn json_object(failure: &Failure) {
    let mut words = std::env::args_os().skip(1).take_while(|word| word != "--");
    let prints = |verb: std::ffi::OsString| ["exec", "jobs", "logs", "wait"].iter().any(|one| verb == *one);
    if words.next().is_some_and(prints) && words.any(|word| word == "--json") {
        let object = crate::commands::receipt::failed("", serde_json::Value::Null, failure, None);
        if let Err(error) = print(&(object.to_string() + "\n")) {
            say(&format!("can't write standard output: {error}"));
        }
    }
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

/// Longest answer of a person, bytes.
const ANSWER: usize = 4096;

/// The terminal to ask a person on, if there is one: standard error is a terminal, and so is the controlling one.
fn controlling() -> Option<std::fs::File> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty").ok()
}

/// Asks a person; none without a terminal, or at the end of input.
pub(crate) fn ask(question: &str) -> Option<String> {
    use std::io::{BufRead, BufReader};

    let tty = controlling()?;
    (&tty).write_all(question.as_bytes()).ok()?;
    let mut line = String::new();
    let read = BufReader::new(std::io::Read::take(&tty, ANSWER as u64)).read_line(&mut line);
    read.ok().filter(|count| *count > 0)?;
    Some(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// What a person says to a question for a secret.
pub(crate) enum Secret {
    /// This; wiped after use.
    Given(Zeroizing<Vec<u8>>),
    /// Nothing: Ctrl-D.
    Declined,
    /// There is no terminal to ask on.
    NoTerminal,
}

/// Asks a person for a secret, which isn't shown. Ctrl-C ends this process as it does everywhere, with the terminal as it was.
pub(crate) fn ask_secret(question: &str) -> Secret {
    use std::io::Read;

    let Some(tty) = controlling() else { return Secret::NoTerminal };
    // Silence first: who sees the question and answers at once must not be heard, nor have the answer thrown away.
    let Some(silence) = Silence::on(&tty) else { return Secret::NoTerminal };
    if (&tty).write_all(question.as_bytes()).is_err() {
        return Secret::NoTerminal;
    }
    let mut interrupted = false;
    let mut secret = Zeroizing::new(Vec::with_capacity(ANSWER));
    let answer = loop {
        let mut byte = [0];
        match (&tty).read(&mut byte) {
            Ok(1) => {}
            _ => break Secret::Declined,
        }
        match byte {
            [b'\n' | b'\r'] => break Secret::Given(secret),
            // Ctrl-C and Ctrl-D: keys are bytes here, so that the terminal is restored whatever is pressed.
            [0x03] => {
                interrupted = true;
                break Secret::Declined;
            }
            [0x04] => break Secret::Declined,
            [0x15] => secret.clear(),
            [0x08 | 0x7f] => {
                secret.pop();
            }
            [byte] if secret.len() < ANSWER => secret.push(byte),
            _ => {}
        }
    };
    drop(silence);
    let _ = (&tty).write_all(b"\n");
    if interrupted {
        // What the terminal would have done: all that runs in front of it is told, the shell of a loop as well. Comes back only
        // where the signal is ignored.
        let _ = rustix::process::kill_current_process_group(rustix::process::Signal::INT);
    }
    answer
}

/// A terminal that shows nothing and turns no key into a signal, restored when dropped.
struct Silence<'a> {
    tty: &'a std::fs::File,
    before: rustix::termios::Termios,
}

impl<'a> Silence<'a> {
    fn on(tty: &'a std::fs::File) -> Option<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let before = tcgetattr(tty).ok()?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(tty, OptionalActions::Flush, &silent).ok()?;
        Some(Silence { tty, before })
    }
}

impl Drop for Silence<'_> {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(self.tty, rustix::termios::OptionalActions::Now, &self.before);
    }
}
