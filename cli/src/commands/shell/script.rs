//! Lines from a file or pipe: run one after the other, without a prompt.

use std::io;

use remora_client::Class;
use tokio::sync::Mutex;

use super::native::{After, Native, With};
use super::screen::Screen;
use super::signals::{Signals, Told};
use super::validator::{Dialect, is_whole};
use crate::stdio::Source;
use crate::terminal::Failure;

/// Longest command, bytes: a host takes no larger request.
const LONGEST: usize = remora_wire::limits::CONTROL;

/// The commands of our standard input.
pub(super) struct Commands {
    source: Source,
    read: Vec<u8>,
    ended: bool,
    /// Lines that were taken.
    lines: u64,
    dialect: Dialect,
}

impl Commands {
    pub(super) fn open(dialect: Dialect) -> Self {
        Commands { source: Source::open(), read: Vec::new(), ended: false, lines: 0, dialect }
    }

    /// The next command, of as many lines as it has; none at the end.
    ///
    /// # Errors
    /// It can't be read, or can't be a command.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let first = self.lines + 1;
        let mut command = Vec::new();
        while let Some(line) = self.line(first).await? {
            self.lines += 1;
            if line.contains(&0) {
                let text = format!("line {} of standard input holds a NUL byte", self.lines);
                return Err(Failure::usage(text));
            }
            if !command.is_empty() {
                command.push(b'\n');
            }
            command.extend_from_slice(&line);
            if command.len() > LONGEST {
                return Err(too_long(first));
            }
            if command.iter().all(u8::is_ascii_whitespace) {
                command.clear();
                continue;
            }
            if is_whole(&String::from_utf8_lossy(&command), self.dialect) {
                return Ok(Some(command));
            }
        }
        // What has no end is the shell's to complain about.
        Ok((!command.is_empty()).then_some(command))
    }

    async fn line(&mut self, first: u64) -> Result<Option<Vec<u8>>, Failure> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.read.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            if self.ended {
                let last = std::mem::take(&mut self.read);
                return Ok((!last.is_empty()).then_some(last));
            }
            if self.read.len() > LONGEST {
                return Err(too_long(first));
            }
            match self.source.read().await {
                Ok(Some(bytes)) => self.read.extend_from_slice(&bytes),
                Ok(None) => self.ended = true,
                Err(error) => {
                    let text = format!("can't read standard input: {error}");
                    return Err(Failure::new(Class::Internal, "", text));
                }
            }
        }
    }
}

fn too_long(line: u64) -> Failure {
    Failure::usage(format!("the command in line {line} of standard input has more than {LONGEST} bytes"))
}

/// Runs them in a session; gives the last status, and whether Ctrl-C ended it.
///
/// # Errors
/// Why it is over before its end.
pub(super) async fn run(
    native: &mut Native,
    screen: Screen,
    exit_on_error: bool,
) -> Result<(u8, bool), Failure> {
    let no_signals =
        |error: io::Error| Failure::new(Class::Internal, "", format!("no signal handler: {error}"));
    let mut signals = Signals::watch().map_err(no_signals)?;
    let screen = Mutex::new(screen);
    let mut commands = Commands::open(native.dialect());
    let mut with = With { screen: &screen, keys: None, signals: &mut signals, interactive: false };
    native.log_in(&mut with).await?;
    loop {
        let connection = native.connection.clone();
        let command = tokio::select! {
            biased;
            error = connection.ended() => return Err(native.lost(&error)),
            told = with.signals.next() => match told {
                Told::End(signal) => return Err(native.told_to_end(signal)),
                Told::Interrupt => return Ok((130, true)),
                Told::Resized(_) => continue,
            },
            command = commands.next() => command?,
        };
        let Some(command) = command else { return Ok((native.status, false)) };
        let live = native.start(&command, false)?;
        let after = native.watch(live, Vec::new(), &mut with).await?;
        if with.signals.interrupted && native.status == 130 {
            return Ok((130, true));
        }
        if matches!(after, After::Exit) || exit_on_error && native.status != 0 {
            return Ok((native.status, false));
        }
    }
}
