//! What can go wrong: a job that was not started, input out of turn, output that is no longer there.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

/// The step of starting that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// The argument vector is empty.
    EmptyArgv,
    /// A NUL byte in an argument, a line, a path or the environment: no system call can carry it.
    NulByte,
    /// An environment name that is empty or holds `=`.
    EnvironmentName,
    /// Another account than the one this process runs as.
    Account,
    /// Pipes, `/dev/null` or another descriptor of this process.
    Descriptors,
    /// A new process: too many of them.
    TooManyProcesses,
    /// Memory for a new process.
    Memory,
    /// A session and process group of its own.
    Session,
    /// A terminal of its own.
    Terminal,
    /// The limits of the job, cgroup included.
    Limits,
    /// Going to the working directory.
    WorkingDirectory,
    /// The shell of a line: it isn't there.
    Shell,
    /// Looking for the command: it isn't there.
    NotFound,
    /// It is there and can't be executed: permission, a directory, an unknown format, busy.
    NotExecutable,
    /// It is there, and the interpreter it names isn't.
    InterpreterMissing,
    /// Arguments and environment together are longer than the kernel takes.
    ArgumentListTooLong,
    /// The caller has no tokio runtime to drive the job.
    Runtime,
    /// The process that starts commands was killed, or hung in this start: whether the command ran for a moment isn't known.
    /// It doesn't run on.
    Spawner,
    /// The process that was to keep the job: there was none.
    Keeper,
    /// The process that was to keep the job was killed, or hung, before it said that the command runs: whether it ran for a moment
    /// isn't known. It doesn't run on.
    KeeperLost,
    /// Files for the output of a detached job: no room for them, most likely.
    Spool,
    /// The file system can't forget the beginning of a file, so that the oldest output can't be dropped.
    DropOldest,
}

/// Whom a failed start concerns, which decides its class (see `docs/EXIT-STATUS.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The command isn't there: class not-found, 127.
    NotFound,
    /// The request as it stands can't be executed: class cannot-exec, 126.
    CannotExec,
    /// This machine has no room at the moment; the same may work later.
    HostFull,
    /// A fault of this process.
    Internal,
    /// Nobody knows whether it ran.
    Unknown,
}

impl Step {
    /// All of them.
    pub(crate) const ALL: [Step; 22] = [
        Step::EmptyArgv,
        Step::NulByte,
        Step::EnvironmentName,
        Step::Account,
        Step::Descriptors,
        Step::TooManyProcesses,
        Step::Memory,
        Step::Session,
        Step::Terminal,
        Step::Limits,
        Step::WorkingDirectory,
        Step::Shell,
        Step::NotFound,
        Step::NotExecutable,
        Step::InterpreterMissing,
        Step::ArgumentListTooLong,
        Step::Runtime,
        Step::Spawner,
        Step::Keeper,
        Step::KeeperLost,
        Step::Spool,
        Step::DropOldest,
    ];

    /// A name that stays the same, for receipts and logs.
    pub fn name(self) -> &'static str {
        match self {
            Step::EmptyArgv => "empty-argv",
            Step::NulByte => "nul-byte",
            Step::EnvironmentName => "environment-name",
            Step::Account => "account",
            Step::Descriptors => "descriptors",
            Step::TooManyProcesses => "too-many-processes",
            Step::Memory => "memory",
            Step::Session => "session",
            Step::Terminal => "terminal",
            Step::Limits => "limits",
            Step::WorkingDirectory => "working-directory",
            Step::Shell => "shell",
            Step::NotFound => "not-found",
            Step::NotExecutable => "not-executable",
            Step::InterpreterMissing => "interpreter-missing",
            Step::ArgumentListTooLong => "argument-list-too-long",
            Step::Runtime => "runtime",
            Step::Spawner => "spawner",
            Step::Keeper => "keeper",
            Step::KeeperLost => "keeper-lost",
            Step::Spool => "spool",
            Step::DropOldest => "drop-oldest",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Step::EmptyArgv => "there is no command to run",
            Step::NulByte => "a NUL byte can't be passed on",
            Step::EnvironmentName => "not a name for an environment variable",
            Step::Account => "this process can't run commands as",
            Step::Descriptors => "can't set up descriptors",
            Step::TooManyProcesses => "can't start another process",
            Step::Memory => "no memory to start",
            Step::Session => "can't make a session of its own",
            Step::Terminal => "can't set up a terminal",
            Step::Limits => "can't set the limits",
            Step::WorkingDirectory => "can't go to the working directory",
            Step::Shell => "the shell is missing",
            Step::NotFound => "command not found",
            Step::NotExecutable => "can't execute",
            Step::InterpreterMissing => "its interpreter is missing",
            Step::ArgumentListTooLong => "argument list too long",
            Step::Runtime => "no runtime to drive the job",
            Step::Spawner => "the start hung, or the process that starts commands was killed",
            Step::Keeper => "the host has no room to keep the job",
            Step::KeeperLost => {
                "keeper lost: the process that was to keep the command was killed, or hung, as it started it"
            }
            Step::Spool => "no room to keep a detached command's output",
            Step::DropOldest => "the file system of the state directory can't drop the oldest output",
        }
    }
}

/// A job that was not started. Nothing of it has run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotStarted {
    /// Which step failed.
    pub step: Step,
    /// What the kernel said, if it was asked.
    pub errno: Option<i32>,
    /// What the step was about: a path, a command, a name. May hold any bytes but is bounded by the request.
    pub what: OsString,
}

impl NotStarted {
    pub(crate) fn new(step: Step, errno: Option<i32>, what: impl AsRef<OsStr>) -> Self {
        NotStarted { step, errno, what: what.as_ref().to_owned() }
    }

    pub(crate) fn bytes(step: Step, errno: Option<i32>, what: &[u8]) -> Self {
        NotStarted::new(step, errno, OsStr::from_bytes(what))
    }

    /// Whether it wasn't started because there is a job of its key.
    pub fn is_taken(&self) -> bool {
        self.step == Step::Keeper && self.errno == Some(libc::EEXIST)
    }

    /// Whom it concerns.
    pub fn blame(&self) -> Blame {
        match self.step {
            Step::NotFound => Blame::NotFound,
            Step::Descriptors
            | Step::TooManyProcesses
            | Step::Memory
            | Step::Terminal
            | Step::Keeper
            | Step::Spool => Blame::HostFull,
            Step::Account | Step::Session | Step::Runtime | Step::Spawner => Blame::Internal,
            Step::KeeperLost => Blame::Unknown,
            Step::EmptyArgv
            | Step::NulByte
            | Step::EnvironmentName
            | Step::Limits
            | Step::WorkingDirectory
            | Step::Shell
            | Step::NotExecutable
            | Step::DropOldest
            | Step::InterpreterMissing
            | Step::ArgumentListTooLong => Blame::CannotExec,
        }
    }
}

impl std::error::Error for NotStarted {}

impl std::fmt::Display for NotStarted {
    /// One line; what comes from the request is escaped and cut at 200 bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.step.text())?;
        let what = self.what.as_bytes();
        if !what.is_empty() {
            let (shown, cut) = match what.get(..200) {
                Some(head) => (head, what.len() > 200),
                None => (what, false),
            };
            f.write_str(": ")?;
            for chunk in shown.utf8_chunks() {
                for c in chunk.valid().chars() {
                    if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
                }
                write!(f, "{}", chunk.invalid().escape_ascii())?;
            }
            f.write_str(if cut { "…" } else { "" })?;
        }
        match self.errno {
            Some(errno) => write!(f, ": {}", io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

/// Input that was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// Not where the input so far ends.
    #[error("input at offset {offset}, expected at {expected}")]
    OutOfOrder {
        /// Where it was said to begin.
        offset: u64,
        /// Where it had to begin.
        expected: u64,
    },
    /// Further than the window allows.
    #[error("input up to offset {end}, allowed up to {limit}")]
    BeyondWindow {
        /// Where it would end.
        end: u64,
        /// Where it had to end at the latest.
        limit: u64,
    },
    /// Behind the end of input, or an end before bytes that were already given.
    #[error("input up to offset {end}, behind its end at {at}")]
    BehindEnd {
        /// Where it would end.
        end: u64,
        /// Where input ends.
        at: u64,
    },
}

/// Output that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// It was acknowledged, and is gone.
    #[error("output at offset {from} is gone, kept from {kept}")]
    Gone {
        /// Asked for.
        from: u64,
        /// The first offset that is kept.
        kept: u64,
    },
    /// It isn't there yet.
    #[error("output at offset {from} isn't there yet, produced up to {produced}")]
    NotYet {
        /// Asked for.
        from: u64,
        /// Where output ends at the moment.
        produced: u64,
    },
}
