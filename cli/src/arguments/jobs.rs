//! The verbs for detached jobs.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{Reach, Staying, duration, heartbeat, job_name, size};

const ENVIRONMENT: &str = "environment: SSH_AUTH_SOCK (the agent), HOME, USER, XDG_STATE_HOME";

/// How a command is detached from its start.
#[derive(Debug, Default, Args)]
pub(crate) struct Detaching {
    /// Detach the command: print its id, and return as soon as the host has it
    /// safely. See `remora jobs`, `logs`, `wait`, `stop`
    #[arg(long, conflicts_with_all = ["json", "receipt", "keep", "save", "encoding", "reconnect"])]
    pub(crate) detach: bool,

    /// With --detach: a name for it; no two of one name run at a time
    #[arg(long, value_name = "NAME", value_parser = job_name, requires = "detach")]
    pub(crate) name: Option<String>,

    /// With --detach: end it when nobody watches or renews it for this long
    #[arg(long, value_name = "TIME", value_parser = duration, requires = "detach")]
    pub(crate) lease: Option<Duration>,

    /// With --detach: what is done when a stream is at its limit
    #[arg(long, value_name = "WHAT", requires = "detach")]
    pub(crate) on_full: Option<OnFull>,

    /// With --detach: keep at most this much of each stream on the host
    /// [default: 1g]
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "detach")]
    pub(crate) spool_limit: Option<u64>,

    /// With --detach: its standard input is open for those who attach, instead
    /// of empty
    #[arg(long, requires = "detach")]
    pub(crate) open_stdin: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnFull {
    /// The command is held back
    Wait,
    /// The command is ended
    Kill,
    /// The oldest output is dropped
    DropOldest,
}

/// List your commands on a host: the detached ones, and those that run
#[derive(Debug, Args)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct Jobs {
    /// host, user@host:port, or unix:PATH
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,

    /// Print one JSON object, with whole ids and receipts
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// Which command, on which host.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// host, user@host:port, or unix:PATH
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,

    /// Its id, the beginning of it, or its name
    #[arg(value_name = "JOB")]
    pub(crate) job: String,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// What is done when the connection is lost, of who looks at a command that goes on without it.
#[derive(Debug, Default, Args)]
pub(crate) struct Watching {
    /// When the connection is lost, try for this long to have it again, and go
    /// on where it was [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) reconnect: Option<Duration>,

    /// When the connection is lost, give up; the command goes on
    #[arg(long, conflicts_with = "reconnect")]
    pub(crate) no_reconnect: bool,

    /// Ask a host that has said nothing for this long whether it is there, and
    /// take the connection for lost after as long again; 0: never [default: 3s]
    #[arg(long, value_name = "TIME", value_parser = heartbeat)]
    pub(crate) heartbeat: Option<Duration>,
}

impl Watching {
    /// As of who has a command of its own.
    pub(crate) fn staying(&self) -> Staying {
        let Watching { reconnect, no_reconnect, heartbeat } = *self;
        Staying { reconnect, no_reconnect, linger: None, heartbeat }
    }
}

/// Print what a detached command has printed
///
/// Both streams come in the order in which the host read them, each to its own
/// of ours.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = ENVIRONMENT)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Go on as it prints more, until it is over
    #[arg(short = 'f', long)]
    pub(crate) follow: bool,

    /// Which stream
    #[arg(long, value_name = "STREAM", default_value = "both")]
    pub(crate) stream: LogStream,

    /// Begin at this offset: of the stream, or of both, counted together
    #[arg(long, value_name = "BYTES", conflicts_with = "tail", default_value = "0")]
    pub(crate) since_offset: u64,

    /// Begin this many lines before the end; 0, with -f: only what comes now
    #[arg(short = 'n', long, value_name = "LINES")]
    pub(crate) tail: Option<u64>,

    /// Print at most this much, as 64k
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) max_bytes: Option<u64>,

    /// Print one JSON object, with the pieces and the offset to go on at; 64k
    /// at most unless --max-bytes says otherwise
    #[arg(long, conflicts_with = "follow")]
    pub(crate) json: bool,

    /// Print nothing: keep all of it, its order and the signed receipt in this
    /// new directory, for `remora replay`. The command must be over, or
    /// --follow waits for its end
    #[arg(long, value_name = "DIR",
        conflicts_with_all = ["json", "max_bytes", "tail", "since_offset", "stream"])]
    pub(crate) keep: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) watching: Watching,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogStream {
    Stdout,
    Stderr,
    /// In the order in which they were read
    Both,
}

/// Wait until a command is over; the exit status is its own
#[derive(Debug, Args)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct Wait {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Print one JSON object: its receipt
    #[arg(long)]
    pub(crate) json: bool,

    /// Write its receipt, signed by the host, to this file, for `remora receipt`
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) watching: Watching,
}

/// Send a command a signal, to its process group
#[derive(Debug, Args)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct SignalJob {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Its name, as INT or SIGHUP, or its number, as 15
    #[arg(value_name = "SIGNAL")]
    pub(crate) signal: String,
}

/// End a command: SIGTERM, SIGKILL after 2 s; wait for its end
#[derive(Debug, Args)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct Stop {
    #[command(flatten)]
    pub(crate) which: Which,
}

/// Remove a detached command that is over from its host, with its output
#[derive(Debug, Args)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct Forget {
    #[command(flatten)]
    pub(crate) which: Which,
}

/// Have the lease of a detached command begin anew
#[derive(Debug, Args)]
#[command(after_help = ENVIRONMENT)]
pub(crate) struct Renew {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Of this length from now on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) lease: Option<Duration>,
}

/// Detach a command that runs: it goes on without its client
///
/// JOB is the id that `remora jobs` lists it by, or the beginning of that; the
/// whole id is printed. Its client ends with status 198. Its standard input
/// ends, unless it has a terminal. What a command in a session changes is its
/// own from then on.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = ENVIRONMENT)]
pub(crate) struct Detach {
    #[command(flatten)]
    pub(crate) which: Which,

    /// A name for it; no two of one name run at a time
    #[arg(long, value_name = "NAME", value_parser = job_name)]
    pub(crate) name: Option<String>,

    /// End it when nobody watches or renews it for this long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) lease: Option<Duration>,

    /// What is done when a stream is at its limit
    #[arg(long, value_name = "WHAT")]
    pub(crate) on_full: Option<OnFull>,

    /// Keep at most this much of each stream on the host [default: 1g]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) spool_limit: Option<u64>,
}

/// Watch a detached command, and type into it
///
/// What it has printed comes first, then what it prints. Many can watch at a
/// time; who attached last, without --read-only, types. Ctrl-\ leaves, and the
/// command goes on. The exit status is the command's, or 0 after leaving.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment, after_help = ENVIRONMENT)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) which: Which,

    /// Watch only: type nothing, and leave who types alone
    #[arg(short = 'r', long)]
    pub(crate) read_only: bool,

    /// Begin stdout at this offset [default: with what is kept]
    #[arg(long, value_name = "BYTES")]
    pub(crate) since_offset: Option<u64>,

    /// Begin stderr at this offset
    #[arg(long, value_name = "BYTES")]
    pub(crate) since_stderr: Option<u64>,

    /// Begin with what it prints from now on
    #[arg(long, conflicts_with_all = ["since_offset", "since_stderr"])]
    pub(crate) live: bool,

    /// The end of our input is the end of the command's, too
    #[arg(long, conflicts_with = "read_only")]
    pub(crate) end_input: bool,

    /// Leave by this key, of a command that has a terminal
    #[arg(long, value_name = "KEY", value_parser = key, default_value = "ctrl-\\")]
    pub(crate) detach_key: u8,

    #[command(flatten)]
    pub(crate) watching: Watching,
}

/// A key with Ctrl, as the byte that a terminal sends for it.
fn key(text: &str) -> Result<u8, String> {
    let wrong = || "it isn't a key such as ctrl-\\, ctrl-] or ctrl-a".to_owned();
    let lower = text.to_ascii_lowercase();
    match lower.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([byte @ (b'a'..=b'z' | b'\\' | b']' | b'^' | b'_')]) => Ok(byte.to_ascii_uppercase() & 0x1f),
        _ => Err(wrong()),
    }
}
