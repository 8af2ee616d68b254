//! What a job is asked to be: program, place, environment, limits. Plain data, checked when it is started.

use std::path::PathBuf;
use std::time::Duration;

use crate::keeping::{Detached, JobKey};
use crate::session::Session;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A line for a shell: run as `shell -c LINE`, where the shell is [`JobRequest::shell`] or else the account's.
    Line(Vec<u8>),
    /// An argument vector, byte for byte, with no shell. The first is the command: a path where it holds a slash, else
    /// looked up in the `PATH` of the job's environment.
    Argv(Vec<Vec<u8>>),
    /// The shell of [`JobRequest::shell`], or else the account's, as a login shell: without arguments, and its name begins
    /// with a dash.
    LoginShell,
}

/// Where a job's input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Stdin {
    /// From [`Job::write`](crate::Job::write), until [`Job::end_input`](crate::Job::end_input).
    Piped,
    /// `/dev/null`.
    #[default]
    Null,
}

/// One of the two output streams of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Output {
    /// Both, in the order of their descriptors.
    pub const ALL: [Output; 2] = [Output::Stdout, Output::Stderr];
}

/// The size of a terminal's window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WindowSize {
    /// Lines of characters; 0 is unknown.
    pub rows: u16,
    /// Characters of a line; 0 is unknown.
    pub columns: u16,
    /// Width in pixels; 0 is unknown.
    pub width: u16,
    /// Height in pixels; 0 is unknown.
    pub height: u16,
}

/// A terminal for a job.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Terminal {
    /// The size of its window.
    pub size: WindowSize,
    /// How its modes differ from what the kernel makes: opcodes and arguments of RFC 4254, section 8. Unknown ones are passed
    /// over.
    pub modes: Vec<(u8, u32)>,
    /// A small process leads the session and has the command as its child, as a shell has: so the command can be stopped by the
    /// terminal (Ctrl-Z) and continued, [`Job::stopped`](crate::Job::stopped) tells, and what was typed and not read is handed
    /// back ([`Ended::unread_input`](crate::Ended)).
    pub job_control: bool,
}

/// A command to run, as an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRequest {
    /// What to run.
    pub program: Program,
    /// The shell for [`Program::Line`]; `None`: the account's login shell.
    pub shell: Option<PathBuf>,
    /// Working directory; `None`: the account's home, or the root where that can't be gone to. A relative one is taken from the home.
    pub cwd: Option<PathBuf>,
    /// Names and values, added to the base environment; the last one of a name wins.
    pub env: Vec<(Vec<u8>, Vec<u8>)>,
    /// File mode creation mask; `None`: this process's.
    pub umask: Option<u32>,
    /// Where input comes from.
    pub stdin: Stdin,
    /// A terminal of its own (pty(7)), which is its stdin, stdout and stderr: what it writes to either comes as stdout, in its
    /// true order, and [`JobRequest::stdin`] doesn't count.
    pub terminal: Option<Terminal>,
    /// Wait for the end of stdout and stderr even while other processes hold them open, however long that takes.
    pub wait_streams: bool,
    /// Tell in which order stdout and stderr were read ([`Ended::order`](crate::Ended)).
    pub keep_order: bool,
    /// Run a line by the shell as a login shell (`shell -l -c LINE`).
    pub login: bool,
    /// The session to run it in: there, with its environment and umask. [`JobRequest::cwd`], relative to the session's, and
    /// [`JobRequest::env`] hold for this job alone; [`JobRequest::umask`] doesn't count.
    pub session: Option<Session>,
    /// What makes it this job and no other, where keepers are: a second one of the same key isn't started. `None`: one of its own.
    pub key: Option<JobKey>,
    /// What a later server is told of it when it finds the job at its keeper.
    pub note: Vec<u8>,
    /// For how long it goes on at its keeper while there is no server.
    pub linger: Duration,
    /// It is detached: its keeper keeps its output in files, and lets it go on whoever is there. Where keepers are.
    pub detach: Option<Detached>,
}

impl JobRequest {
    /// Runs `program` in the account's home with the base environment and no input.
    pub fn new(program: Program) -> Self {
        JobRequest {
            program,
            shell: None,
            cwd: None,
            env: Vec::new(),
            umask: None,
            stdin: Stdin::Null,
            terminal: None,
            wait_streams: false,
            keep_order: false,
            login: false,
            session: None,
            key: None,
            note: Vec::new(),
            linger: Duration::ZERO,
            detach: None,
        }
    }

    /// Runs a line of the account's shell.
    pub fn line(line: impl Into<Vec<u8>>) -> Self {
        JobRequest::new(Program::Line(line.into()))
    }

    /// Runs an argument vector.
    pub fn argv<A: Into<Vec<u8>>>(argv: impl IntoIterator<Item = A>) -> Self {
        JobRequest::new(Program::Argv(argv.into_iter().map(Into::into).collect()))
    }
}

/// What a job may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time from start to end; past it the whole process group is ended, and the outcome is [`Outcome::Deadline`](crate::Outcome).
    pub wall: Option<Duration>,
    /// Bytes of memory: of the whole job where there is a cgroup, else of address space per process (`RLIMIT_AS`).
    pub memory: Option<u64>,
    /// Open descriptors per process (`RLIMIT_NOFILE`); never above what this process has.
    pub open_files: Option<u64>,
    /// Bytes of stdout and stderr together; one more ends the job.
    pub output: Option<u64>,
    /// Bytes of each output stream that are kept until acknowledged.
    pub window: usize,
    /// Bytes of input that are queued for the command.
    pub stdin_window: usize,
}

impl Limits {
    /// Bytes of a window unless told: enough to keep a fast network busy.
    pub const WINDOW: usize = 1 << 20;
}

impl Default for Limits {
    /// No limit but the windows, 1 MiB each.
    fn default() -> Self {
        Limits {
            wall: None,
            memory: None,
            open_files: None,
            output: None,
            window: Limits::WINDOW,
            stdin_window: Limits::WINDOW,
        }
    }
}
