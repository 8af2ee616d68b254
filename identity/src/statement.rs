//! The statement of a receipt: what a host says of one job, as the text that it signs.
//!
//! The text is made of typed fields here and nowhere else, and [`ReceiptKey`] signs nothing but such a text: whoever may ask for receipts can't
//! have anything signed that they like. It is lines of ASCII, `name value`, all of them in a fixed order and `-` where there is nothing to say. What comes
//! from a user is between quotes, with every byte that could end a line, or show as something else, escaped. A statement has exactly one text.

mod file;
mod parse;
mod sign;
mod text;

use std::fmt::{self, Write as _};

pub use file::{ReceiptFile, ReceiptFileError};
pub use parse::StatementError;
pub use sign::{ReceiptKey, SignedStatement, VerifyStatementError, verify};
pub use text::Text;

use crate::limits::{STATEMENT_COMMAND_MAX, STATEMENT_TEXT_MAX};

/// The first line of every statement, and the namespace of its signature.
pub const NAMESPACE: &str = "remora-receipt-v1";

/// What a host says of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The host's own name.
    pub host: Text,
    /// Fingerprint of the key that signs; none on a connection without a host key. [`ReceiptKey::sign`] sets it.
    pub host_key: Option<String>,
    /// Names the boot of the host.
    pub boot_id: [u8; 16],
    /// The job's id.
    pub job_id: [u8; 16],
    /// The account it ran as.
    pub user: Text,
    /// The session it ran in: its name, and its directory after the job.
    pub session: Option<(Text, Text)>,
    /// Where it ran.
    pub directory: Text,
    /// What ran.
    pub command: Command,
    /// How it ended.
    pub outcome: Outcome,
    /// Why remora ended it, if it did.
    pub ended_by: Option<EndedBy>,
    /// Process id; none where no process ran.
    pub pid: Option<u64>,
    /// When it started, nanoseconds since the Unix epoch by the host's clock.
    pub started_unix_ns: Option<u64>,
    /// When it ended, likewise.
    pub ended_unix_ns: Option<u64>,
    /// From start to end by the monotonic clock, nanoseconds.
    pub wall_ns: u64,
    /// Processor time in user mode, microseconds.
    pub user_us: u64,
    /// Processor time in the kernel, microseconds.
    pub system_us: u64,
    /// Largest resident set of one of its processes, where it could be measured.
    pub peak_memory_bytes: Option<u64>,
    /// What held its memory limit, if it had one.
    pub memory_limit: Option<MemoryLimit>,
    /// Its stdin; none where that was `/dev/null`, or nothing ran.
    pub stdin: Option<Stream>,
    /// Its stdout; none where nothing ran.
    pub stdout: Option<Stream>,
    /// Its stderr; none where nothing ran.
    pub stderr: Option<Stream>,
    /// What became of its output at the host, where it was detached.
    pub spool: Option<Spool>,
}

/// What became of a detached job's output at the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    /// What was to be done at the limit.
    pub on_full: OnFull,
    /// Bytes of each stream that were to be kept.
    pub limit: u64,
    /// Offset from which on stdout is kept.
    pub stdout_start: u64,
    /// Offset from which on stderr is kept.
    pub stderr_start: u64,
    /// The limit was reached, and that was done.
    pub was_full: bool,
    /// The command was held back since the disk was full.
    pub disk_was_full: bool,
    /// Bytes at the ends of stdout and stderr that were printed, and are not kept.
    pub lost: Option<(u64, u64)>,
}

/// What ran. A long one is told by its length and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// A line of the user's shell.
    Line(Text),
    /// An argument vector.
    Argv(Argv),
    /// The user's login shell.
    LoginShell,
}

/// An argument vector, or what is told of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Argv {
    /// The arguments.
    Whole(Vec<Vec<u8>>),
    /// How many there are, and length and BLAKE3 digest of them, each with a NUL byte behind it.
    Digest {
        /// Arguments.
        count: u64,
        /// Bytes, the NUL bytes among them.
        length: u64,
        /// Their digest.
        blake3: [u8; 32],
    },
}

impl Command {
    /// A line.
    pub fn line(line: &[u8]) -> Self {
        Command::Line(Text::within(line, STATEMENT_COMMAND_MAX))
    }

    /// An argument vector.
    pub fn argv(arguments: &[Vec<u8>]) -> Self {
        let quoted: usize = arguments.iter().map(|argument| text::quoted_length(argument) + 1).sum();
        if quoted <= STATEMENT_COMMAND_MAX {
            return Command::Argv(Argv::Whole(arguments.to_vec()));
        }
        let mut hasher = blake3::Hasher::new();
        let mut length = 0;
        for argument in arguments {
            hasher.update(argument).update(b"\0");
            length += argument.len() as u64 + 1;
        }
        Command::Argv(Argv::Digest {
            count: arguments.len() as u64,
            length,
            blake3: *hasher.finalize().as_bytes(),
        })
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// By itself.
    Exited(u8),
    /// By a signal, in Linux' numbering.
    Signaled {
        /// Which.
        signal: u8,
        /// A core dump was written.
        core_dumped: bool,
    },
    /// It was not started, or, with [`NotStarted::Internal`], nobody knows how it ended.
    NotStarted {
        /// What kind of reason.
        class: NotStarted,
        /// Which step failed.
        step: Text,
        /// Linux' number of the error, if there was one.
        errno: Option<i32>,
        /// What went wrong, for people.
        reason: Text,
    },
}

/// A closed list of words, each with its own.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[$name] = &[$($name::$variant,)+];

            /// Its word in a statement.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            fn from_word(word: &str) -> Option<Self> {
                $name::ALL.iter().copied().find(|known| known.word() == word)
            }
        }
    };
}

words! {
    /// Why a job was not started.
    NotStarted {
        /// Found, and can't be executed.
        CannotExec = "cannot-exec",
        /// There is no such command.
        NotFound = "not-found",
        /// The host has no room.
        HostFull = "host-full",
        /// Policy says no.
        Refused = "refused",
        /// The request makes no sense to the host.
        Incompatible = "incompatible",
        /// A fault of remora's.
        Internal = "internal",
        /// The host knows nothing of it any more: whether it ran, and how it ended, can't be known.
        Unknown = "unknown",
    }
}

words! {
    /// Why remora ended a job.
    EndedBy {
        /// Its time limit.
        Deadline = "deadline",
        /// The limit of its output.
        OutputLimit = "limit output",
        /// The limit of its memory.
        MemoryLimit = "limit memory",
        /// The limit of what is kept of its output.
        SpoolLimit = "limit spool",
        /// Another limit.
        OtherLimit = "limit other",
        /// Its lease ran out.
        Lease = "lease",
        /// Nobody came back for it.
        Linger = "linger",
        /// Somebody asked for it.
        Stop = "stop",
        /// The host's server stopped.
        Shutdown = "shutdown",
    }
}

words! {
    /// What is done when as much of a detached job's output is kept as may be.
    OnFull {
        /// The command is held back.
        Wait = "wait",
        /// The command is ended.
        Kill = "kill",
        /// The oldest output is dropped.
        DropOldest = "drop-oldest",
    }
}

words! {
    /// What held a memory limit.
    MemoryLimit {
        /// A cgroup around the job.
        Cgroup = "cgroup",
        /// A limit of each process.
        Rlimit = "rlimit",
    }
}

/// One stream of a job that ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Bytes that passed.
    pub length: u64,
    /// Their BLAKE3 digest.
    pub blake3: [u8; 32],
    /// Another process still held it open when the job was over.
    pub held_open: bool,
    /// Its reader closed it before its end.
    pub closed_early: bool,
}

impl Statement {
    /// A short text, such as a name or a directory.
    pub fn text(bytes: &[u8]) -> Text {
        Text::within(bytes, STATEMENT_TEXT_MAX)
    }

    /// The text, each line with its line feed.
    pub fn compose(&self) -> String {
        let mut lines = Lines(format!("{NAMESPACE}\n"));
        lines.put("host", Some(&self.host));
        lines.put("host-key", self.host_key.as_ref());
        lines.put("boot-id", Some(Hex(&self.boot_id)));
        lines.put("job", Some(Hex(&self.job_id)));
        lines.put("user", Some(&self.user));
        lines.put("session", self.session.as_ref().map(|(name, _)| name));
        lines.put("session-directory", self.session.as_ref().map(|(_, directory)| directory));
        lines.put("directory", Some(&self.directory));
        match &self.command {
            Command::Line(line) => lines.put("line", Some(line)),
            Command::Argv(argv) => lines.put("argv", Some(argv)),
            Command::LoginShell => lines.put("login-shell", None::<&str>),
        }
        lines.put("outcome", Some(&self.outcome));
        let (step, errno, reason) = match &self.outcome {
            Outcome::NotStarted { step, errno, reason, .. } => (Some(step), errno.as_ref(), Some(reason)),
            _ => (None, None, None),
        };
        lines.put("step", step);
        lines.put("errno", errno);
        lines.put("reason", reason);
        lines.put("ended-by", self.ended_by.map(EndedBy::word));
        lines.put("pid", self.pid);
        lines.put("started", self.started_unix_ns.map(nanoseconds));
        lines.put("ended", self.ended_unix_ns.map(nanoseconds));
        lines.put("wall", Some(nanoseconds(self.wall_ns)));
        lines.put("user-time", Some(microseconds(self.user_us)));
        lines.put("system-time", Some(microseconds(self.system_us)));
        lines.put("peak-memory", self.peak_memory_bytes);
        lines.put("memory-limit", self.memory_limit.map(MemoryLimit::word));
        lines.put("stdin", self.stdin.as_ref());
        lines.put("stdout", self.stdout.as_ref());
        lines.put("stderr", self.stderr.as_ref());
        lines.put("spool", self.spool.as_ref());
        lines.0
    }
}

struct Lines(String);

impl Lines {
    fn put(&mut self, name: &str, value: Option<impl fmt::Display>) {
        // Writing to a string doesn't fail.
        let _ = match value {
            Some(value) => writeln!(self.0, "{name} {value}"),
            None => writeln!(self.0, "{name} -"),
        };
    }
}

fn nanoseconds(ns: u64) -> String {
    format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000)
}

fn microseconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Argv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Argv::Whole(arguments) => {
                for (index, argument) in arguments.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { " " })?;
                    text::quote(f, argument)?;
                }
                Ok(())
            }
            Argv::Digest { count, length, blake3 } => {
                write!(f, "count {count} length {length} blake3 {}", Hex(blake3))
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Exited(status) => write!(f, "exited {status}"),
            Outcome::Signaled { signal, core_dumped } => {
                write!(f, "signaled {signal}{}", if *core_dumped { " core-dumped" } else { "" })
            }
            Outcome::NotStarted { class, .. } => write!(f, "not-started {}", class.word()),
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.length, Hex(&self.blake3))?;
        f.write_str(if self.held_open { " held-open" } else { "" })?;
        f.write_str(if self.closed_early { " closed-early" } else { "" })
    }
}

impl fmt::Display for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spool { on_full, limit, stdout_start, stderr_start, was_full, disk_was_full, lost } = self;
        write!(f, "{} {limit} {stdout_start} {stderr_start}", on_full.word())?;
        f.write_str(if *was_full { " reached" } else { "" })?;
        f.write_str(if *disk_was_full { " disk-full" } else { "" })?;
        lost.map_or(Ok(()), |(stdout, stderr)| write!(f, " lost {stdout} {stderr}"))
    }
}

#[cfg(test)]
mod tests;
