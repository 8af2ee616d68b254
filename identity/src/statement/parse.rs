//! A statement from its text. Strict: what it reads composes to the same bytes again, so that nothing stands in a text that isn't in its statement.

use super::text::unquote;
use super::{
    Argv, Command, EndedBy, MemoryLimit, NAMESPACE, NotStarted, OnFull, Outcome, Spool, Statement, Stream,
    Text,
};
use crate::limits::STATEMENT_MAX;

/// Why a text is no statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StatementError {
    /// Longer than any statement.
    #[error("{bytes} bytes are more than the {STATEMENT_MAX} of a statement")]
    TooLong {
        /// How many there are.
        bytes: usize,
    },
    /// Its first line is another.
    #[error("it doesn't begin with the line {NAMESPACE}")]
    Version,
    /// A line is missing, or means nothing there.
    #[error("line {number} is not the statement's {name} line")]
    Line {
        /// Line number, from 1.
        number: usize,
        /// What should stand there.
        name: &'static str,
    },
    /// Something stands behind its last line.
    #[error("there is something behind its last line")]
    Trailing,
    /// It says what a statement says, in other bytes.
    #[error("it is not written as statements are")]
    NotCanonical,
}

impl Statement {
    /// Reads the text of a statement.
    ///
    /// # Errors
    /// [`StatementError`] for anything that [`Statement::compose`] wouldn't write.
    pub fn parse(text: &[u8]) -> Result<Self, StatementError> {
        if text.len() > STATEMENT_MAX {
            return Err(StatementError::TooLong { bytes: text.len() });
        }
        let whole = str::from_utf8(text).map_err(|_| StatementError::NotCanonical)?;
        let mut lines = Lines { rest: whole, number: 1 };
        if lines.next() != Some(NAMESPACE) {
            return Err(StatementError::Version);
        }
        let statement = read(&mut lines)?;
        if !lines.rest.is_empty() {
            return Err(StatementError::Trailing);
        }
        if statement.compose() != whole {
            return Err(StatementError::NotCanonical);
        }
        Ok(statement)
    }
}

fn read(lines: &mut Lines<'_>) -> Result<Statement, StatementError> {
    let host = lines.some("host", text)?;
    let host_key = lines.value("host-key", fingerprint)?;
    let boot_id = lines.some("boot-id", hex)?;
    let job_id = lines.some("job", hex)?;
    let user = lines.some("user", text)?;
    let session = lines.value("session", text)?;
    let session = match (session, lines.value("session-directory", text)?) {
        (Some(name), Some(directory)) => Some((name, directory)),
        _ => None,
    };
    let directory = lines.some("directory", text)?;
    let command = match lines.name() {
        "line" => Command::Line(lines.some("line", text)?),
        "login-shell" => lines.value("login-shell", |_| None::<()>).map(|_| Command::LoginShell)?,
        _ => Command::Argv(lines.some("argv", argv)?),
    };
    let ended = lines.some("outcome", outcome)?;
    let step = lines.value("step", text)?;
    let errno = lines.value("errno", |value| value.parse().ok())?;
    let reason = lines.value("reason", text)?;
    let outcome = match (ended, step, reason) {
        (Ended::Ran(outcome), ..) => outcome,
        (Ended::NotStarted(class), Some(step), Some(reason)) => {
            Outcome::NotStarted { class, step, errno, reason }
        }
        (Ended::NotStarted(_), ..) => return Err(StatementError::NotCanonical),
    };
    Ok(Statement {
        host,
        host_key,
        boot_id,
        job_id,
        user,
        session,
        directory,
        command,
        outcome,
        ended_by: lines.value("ended-by", EndedBy::from_word)?,
        pid: lines.value("pid", number)?,
        started_unix_ns: lines.value("started", |value| decimal(value, 9))?,
        ended_unix_ns: lines.value("ended", |value| decimal(value, 9))?,
        wall_ns: lines.some("wall", |value| decimal(value, 9))?,
        user_us: lines.some("user-time", |value| decimal(value, 6))?,
        system_us: lines.some("system-time", |value| decimal(value, 6))?,
        peak_memory_bytes: lines.value("peak-memory", number)?,
        memory_limit: lines.value("memory-limit", MemoryLimit::from_word)?,
        stdin: lines.value("stdin", stream)?,
        stdout: lines.value("stdout", stream)?,
        stderr: lines.value("stderr", stream)?,
        spool: lines.value("spool", spool)?,
    })
}

struct Lines<'a> {
    rest: &'a str,
    /// Of the next line, from 1.
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (line, rest) = self.rest.split_once('\n')?;
        self.rest = rest;
        self.number += 1;
        Some(line)
    }

    /// The name of the next line.
    fn name(&self) -> &'a str {
        self.rest.split([' ', '\n']).next().unwrap_or_default()
    }

    /// The next line's value; none for a dash.
    fn value<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, StatementError> {
        let wrong = StatementError::Line { number: self.number, name };
        let line = self.next().ok_or_else(|| wrong.clone())?;
        match line.split_once(' ') {
            Some((found, "-")) if found == name => Ok(None),
            Some((found, value)) if found == name => read(value).map(Some).ok_or(wrong),
            _ => Err(wrong),
        }
    }

    /// The next line's value, which must be there.
    fn some<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, StatementError> {
        let wrong = StatementError::Line { number: self.number, name };
        self.value(name, read)?.ok_or(wrong)
    }
}

enum Ended {
    Ran(Outcome),
    NotStarted(NotStarted),
}

fn outcome(value: &str) -> Option<Ended> {
    let (kind, rest) = value.split_once(' ')?;
    Some(match (kind, rest.strip_suffix(" core-dumped")) {
        ("exited", None) => Ended::Ran(Outcome::Exited(rest.parse().ok()?)),
        ("signaled", dumped) => Ended::Ran(Outcome::Signaled {
            signal: dumped.unwrap_or(rest).parse().ok()?,
            core_dumped: dumped.is_some(),
        }),
        ("not-started", None) => Ended::NotStarted(NotStarted::from_word(rest)?),
        _ => return None,
    })
}

fn text(value: &str) -> Option<Text> {
    if value.starts_with('"') {
        return unquote(value).filter(|(_, rest)| rest.is_empty()).map(|(bytes, _)| Text::whole(bytes));
    }
    match value.split(' ').collect::<Vec<_>>().as_slice() {
        ["length", length, "blake3", digest] => Some(Text::digest(number(length)?, hex(digest)?)),
        _ => None,
    }
}

fn argv(value: &str) -> Option<Argv> {
    if !value.starts_with('"') {
        return match value.split(' ').collect::<Vec<_>>().as_slice() {
            ["count", count, "length", length, "blake3", digest] => {
                Some(Argv::Digest { count: number(count)?, length: number(length)?, blake3: hex(digest)? })
            }
            // A vector of nothing.
            [""] => Some(Argv::Whole(Vec::new())),
            _ => None,
        };
    }
    let mut arguments = Vec::new();
    let mut rest = value;
    loop {
        let (argument, behind) = unquote(rest)?;
        arguments.push(argument);
        match behind.strip_prefix(' ') {
            Some(next) => rest = next,
            None => return behind.is_empty().then_some(Argv::Whole(arguments)),
        }
    }
}

fn stream(value: &str) -> Option<Stream> {
    let mut words = value.split(' ');
    let (length, blake3) = (number(words.next()?)?, hex(words.next()?)?);
    let mut stream = Stream { length, blake3, held_open: false, closed_early: false };
    for word in words {
        match word {
            "held-open" => stream.held_open = true,
            "closed-early" => stream.closed_early = true,
            _ => return None,
        }
    }
    Some(stream)
}

fn spool(value: &str) -> Option<Spool> {
    let mut words = value.split(' ');
    let mut spool = Spool {
        on_full: OnFull::from_word(words.next()?)?,
        limit: number(words.next()?)?,
        stdout_start: number(words.next()?)?,
        stderr_start: number(words.next()?)?,
        was_full: false,
        disk_was_full: false,
        lost: None,
    };
    while let Some(word) = words.next() {
        match word {
            "lost" => spool.lost = Some((number(words.next()?)?, number(words.next()?)?)),
            "reached" => spool.was_full = true,
            "disk-full" => spool.disk_was_full = true,
            _ => return None,
        }
    }
    Some(spool)
}

fn fingerprint(value: &str) -> Option<String> {
    let base64 = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '/';
    let digest = value.strip_prefix("SHA256:")?;
    (digest.len() == 43 && digest.chars().all(base64)).then(|| value.to_owned())
}

fn number(value: &str) -> Option<u64> {
    value.parse().ok()
}

/// Seconds with so many digits behind the point, in units of the last one.
fn decimal(value: &str, digits: u32) -> Option<u64> {
    let (seconds, fraction) = value.split_once('.')?;
    if fraction.len() != digits as usize {
        return None;
    }
    let unit = 10_u64.checked_pow(digits)?;
    number(seconds)?.checked_mul(unit)?.checked_add(number(fraction)?)
}

fn hex<const N: usize>(value: &str) -> Option<[u8; N]> {
    if value.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(value.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}
