//! What can be typed, and what `--help` says about it.

mod jobs;
mod receipt;

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::TypedValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use jobs::{
    Attach, Detach, Detaching, Forget, Jobs, LogStream, Logs, OnFull, Renew, SignalJob, Stop, Wait, Watching,
    Which,
};
pub(crate) use receipt::{Receipt, ReceiptCommand, Replay, Show, Verify};

/// The default of `--connect-timeout`.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Run commands on other machines and know exactly what they did
#[derive(Debug, Parser)]
#[command(
    name = "remora",
    version,
    max_term_width = 80,
    disable_help_subcommand = false,
    after_help = "exit status: the command's own, or one of those in docs/EXIT-STATUS.md"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Exec(Box<Exec>),
    Shell(Box<Shell>),
    Pty(Box<Pty>),
    Sessions(Box<Sessions>),
    Jobs(Box<Jobs>),
    Attach(Box<Attach>),
    Logs(Box<Logs>),
    Wait(Box<Wait>),
    Signal(Box<SignalJob>),
    Stop(Box<Stop>),
    Forget(Box<Forget>),
    Renew(Box<Renew>),
    Detach(Box<Detach>),
    Serve(Box<Serve>),
    /// Check or read the receipt of a command
    Receipt(Receipt),
    Replay(Replay),
    /// Look at what travels on a wire
    Wire(Wire),
}

/// Run one command on a host
///
/// One word is a line for the user's shell on the host; several words are an
/// argument vector, run byte for byte with no shell in between:
///
///   remora exec web1 'ls | wc -l'
///   remora exec web1 ls -l 'a b' '$x'
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "environment: SSH_AUTH_SOCK (the agent), HOME, USER, XDG_STATE_HOME"
)]
pub(crate) struct Exec {
    /// host, user@host:port, local, unix:PATH, or raw://, length://, header://
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,

    /// The command: one word is a shell line, several are an argument vector
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<std::ffi::OsString>,

    /// Take one word as an argument vector too
    #[arg(long)]
    pub(crate) argv: bool,

    /// Give the command no standard input
    #[arg(short = 'n', long)]
    pub(crate) no_stdin: bool,

    /// Give it a terminal if ours is one; twice (-tt): in any case
    #[arg(short = 't', long, action = clap::ArgAction::Count, conflicts_with_all = ["no_stdin", "json"])]
    pub(crate) tty: u8,

    /// Start the login shell instead of a command: `remora pty`.
    #[arg(skip)]
    pub(crate) login: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,

    /// Run in this directory [default: the home directory on the host]
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) cwd: Option<std::ffi::OsString>,

    /// Add a variable to the command's environment; may be repeated
    #[arg(short = 'e', long, value_name = "NAME=VALUE",
        value_parser = clap::builder::OsStringValueParser::new().try_map(environment))]
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,

    /// Run in this session of yours on the host, by its name or whole id; one
    /// of that name is made when there is none. Its directory, variables and
    /// umask hold, and what changes stays
    #[arg(long, value_name = "NAME", value_parser = session)]
    pub(crate) session: Option<String>,

    /// End the command after this time, as 30s, 5m, 1h30m, 250ms; on a plain
    /// wire, which can't end it, stop waiting for it
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// Wait for the end of each stream, not only of the command
    #[arg(long)]
    pub(crate) wait_streams: bool,

    #[command(flatten)]
    pub(crate) staying: Staying,

    #[command(flatten)]
    pub(crate) detaching: Detaching,

    /// Print one JSON object: the receipt, with the output in it
    #[arg(long)]
    pub(crate) json: bool,

    /// With --json, keep at most this much of each stream, as 64k, 1m
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1m", requires = "json")]
    pub(crate) max_output: u64,

    #[command(flatten)]
    pub(crate) report: Report,

    /// Write the receipt, signed by the host, to this file, for `remora receipt`
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,

    /// Keep the command's output, the order in which the host read it, and the
    /// signed receipt in this new directory, for `remora replay`
    #[arg(long, value_name = "DIR", conflicts_with = "receipt")]
    pub(crate) keep: Option<PathBuf>,

    /// Decode the output from this encoding, as gbk, shift_jis, latin1
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    pub(crate) encoding: Option<&'static encoding_rs::Encoding>,

    /// Store the payload of a header:// reply under its filename in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) save: Option<PathBuf>,

    /// With --save, replace an existing file
    #[arg(long, requires = "save")]
    pub(crate) overwrite: bool,

    /// On raw://, take 500 ms of silence for the end of the reply: a guess, for
    /// peers that don't answer once the input has ended
    #[arg(long)]
    pub(crate) silence: bool,
}

/// How a host is reached, and who it is reached as.
#[derive(Debug, Args)]
pub(crate) struct Reach {
    /// Log in as this user [default: yours]
    #[arg(short = 'u', long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// Connect to this port [default: 7366]
    #[arg(short = 'p', long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,

    /// Prove who you are with the key in this file; may be repeated
    #[arg(short = 'i', long, value_name = "FILE")]
    pub(crate) identity: Vec<PathBuf>,

    /// Look up host keys in this file [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "FILE")]
    pub(crate) known_hosts: Option<PathBuf>,

    /// Accept and record the key of a host never seen before
    #[arg(long)]
    pub(crate) accept_new: bool,

    /// Give up connecting after this time
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(crate) connect_timeout: Duration,

    /// Write what travels, unencrypted, to this file for `remora wire decode`
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Option<PathBuf>,

    /// Tell what happened when
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
}

/// What is done when the connection is lost.
#[derive(Debug, Default, Args)]
pub(crate) struct Staying {
    /// When the connection is lost, try for this long to have it again, and go
    /// on where it was [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) reconnect: Option<Duration>,

    /// When the connection is lost, it is over: the host ends the command
    #[arg(long, conflicts_with_all = ["reconnect", "linger"])]
    pub(crate) no_reconnect: bool,

    /// Have the host keep the command for this long while nobody is connected
    /// to it [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) linger: Option<Duration>,

    /// Ask a host that has said nothing for this long whether it is there, and
    /// take the connection for lost after as long again; 0: never [default: 3s]
    #[arg(long, value_name = "TIME", value_parser = heartbeat)]
    pub(crate) heartbeat: Option<Duration>,
}

/// Where else it is told how the command ended.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Write how it ended to this file, as one JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) status_file: Option<PathBuf>,

    /// Use ssh's exit statuses: 255 for all that isn't the command's own
    #[arg(long, value_name = "STYLE")]
    pub(crate) exit_status: Option<ExitStyle>,
}

/// Work on a host: the user's login shell, on a terminal
///
/// As `ssh HOST` does. At the beginning of a line ~. leaves, also when the host
/// answers no more; ~? shows what else there is.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "environment: SSH_AUTH_SOCK (the agent), HOME, USER, XDG_STATE_HOME; TERM,\nCOLORTERM, LANG and LC_* travel to the host"
)]
pub(crate) struct Pty {
    /// host, user@host:port, local, or unix:PATH
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,

    #[command(flatten)]
    pub(crate) reach: Reach,

    /// Start in this directory [default: the home directory on the host]
    #[arg(short = 'C', long, value_name = "DIR")]
    pub(crate) cwd: Option<std::ffi::OsString>,

    /// Add a variable to the shell's environment; may be repeated
    #[arg(short = 'e', long, value_name = "NAME=VALUE",
        value_parser = clap::builder::OsStringValueParser::new().try_map(environment))]
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,

    #[command(flatten)]
    pub(crate) staying: Staying,

    #[command(flatten)]
    pub(crate) report: Report,
}

impl From<Pty> for Exec {
    fn from(pty: Pty) -> Self {
        let Pty { target, reach, cwd, env, staying, report } = pty;
        Exec {
            target,
            command: Vec::new(),
            argv: false,
            no_stdin: false,
            tty: 1,
            login: true,
            reach,
            cwd,
            env,
            session: None,
            timeout: None,
            wait_streams: false,
            staying,
            detaching: Detaching::default(),
            json: false,
            max_output: 0,
            report,
            receipt: None,
            keep: None,
            encoding: None,
            save: None,
            overwrite: false,
            silence: false,
        }
    }
}

/// Work on a host: lines edited here, run there, in one session
///
/// Each line is a job with a status and a time of its own. What it changes of
/// the directory, the variables and the umask stays. jobs, fg, bg and history
/// are the shell's own; Ctrl-D leaves. From a file or pipe it runs line after
/// line, without a prompt:
///
///   remora shell web1
///   remora shell --exit-on-error web1 < script
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "environment: SSH_AUTH_SOCK (the agent), HOME, USER, XDG_STATE_HOME, NO_COLOR;\nTERM, COLORTERM, LANG and LC_* travel to the host"
)]
pub(crate) struct Shell {
    /// host, user@host:port, local, unix:PATH, or raw://, length://, header://
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,

    /// Work in this session, by its name or whole id, and keep it; one of
    /// that name is made when there is none
    /// [default: a new one, which ends with the shell]
    #[arg(long, value_name = "NAME", value_parser = session)]
    pub(crate) session: Option<String>,

    /// Give the commands no terminal: standard error comes apart, in red
    #[arg(long)]
    pub(crate) no_pty: bool,

    /// Stop at the first line of a file or pipe that fails
    #[arg(long)]
    pub(crate) exit_on_error: bool,

    /// Record all that is shown in this file, which must not exist (asciicast)
    #[arg(long, value_name = "FILE")]
    pub(crate) record: Option<PathBuf>,

    /// Decode the output from this encoding, as gbk, shift_jis, latin1
    #[arg(long, value_name = "NAME", value_parser = encoding)]
    pub(crate) encoding: Option<&'static encoding_rs::Encoding>,

    #[command(flatten)]
    pub(crate) reach: Reach,

    #[command(flatten)]
    pub(crate) staying: Staying,
}

/// List your sessions on a host, or end one
#[derive(Debug, Args)]
#[command(after_help = "environment: SSH_AUTH_SOCK (the agent), HOME, USER, XDG_STATE_HOME")]
pub(crate) struct Sessions {
    /// host, user@host:port, or unix:PATH
    #[arg(value_name = "TARGET")]
    pub(crate) target: String,

    /// End this session, by its name or whole id; its jobs go on
    #[arg(long, value_name = "NAME", value_parser = session)]
    pub(crate) end: Option<String>,

    /// Print one JSON object, with the sessions' ids and homes
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) reach: Reach,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExitStyle {
    /// docs/EXIT-STATUS.md
    Remora,
    /// 255 for 128+n and 193 to 199
    Ssh,
}

/// Serve this machine's commands to others
///
/// Serves the account it runs as, to whoever holds a key from its
/// authorized_keys. Stops on SIGTERM, rereads its configuration on SIGHUP.
#[derive(Debug, Args)]
#[command(
    verbatim_doc_comment,
    after_help = "environment: REMORA_LOG (a filter, as debug or remora_server=debug)"
)]
pub(crate) struct Serve {
    /// Listen here; may be repeated [default: native://0.0.0.0:7366]
    ///
    /// native://ADDR:PORT, unix:PATH, or, unencrypted and without
    /// authentication, raw://, length://, header://ADDR:PORT. Port 0 picks one.
    #[arg(long, value_name = "URL")]
    pub(crate) listen: Vec<String>,

    /// Read this TOML file; flags win over it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Prove the host's identity with this key; may be repeated [default: sshd's]
    #[arg(long, value_name = "FILE")]
    pub(crate) host_key: Vec<PathBuf>,

    /// Accept the keys in this file; %h, %u and %% expand; may be repeated
    /// [default: .ssh/authorized_keys]
    #[arg(long, value_name = "PATH")]
    pub(crate) authorized_keys: Vec<String>,

    /// Keep what must be remembered here [default: ~/.local/state/remora]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    /// End running commands when this is told to stop; without it they run on, and the next server on this state directory takes them up
    #[arg(long)]
    pub(crate) stop_jobs: bool,

    /// Run commands as children of this process, as it was before there were keepers: to measure what those cost
    #[arg(long, hide = true)]
    pub(crate) no_keepers: bool,

    /// The socket to the warden that started this process, by its descriptor
    #[arg(long, hide = true, value_name = "FD")]
    pub(crate) warden_link: Option<i32>,

    /// Serve plain wires on other than loopback addresses, to anybody
    #[arg(long)]
    pub(crate) allow_plaintext_network: bool,

    /// Serve plain wires as root
    #[arg(long)]
    pub(crate) allow_plaintext_root: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Wire {
    #[command(subcommand)]
    pub(crate) command: WireCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WireCommand {
    Decode(Decode),
}

/// Print the frames of a captured byte stream
///
/// FILE holds either the bytes of one direction as they are, or a capture: a
/// line per read, '<' (from the server) or '>' (to the server), then its bytes
/// in hexadecimal. From a capture it is told where a message was split over
/// reads, and where several were stuck together in one. The exit status is 197
/// where the bytes make no sense, or stop half-way.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Decode {
    /// The captured bytes; - is standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// Which wire it is
    #[arg(long, value_name = "WIRE", default_value = "native")]
    pub(crate) wire: WireName,

    /// Whose bytes these are, when the file has no direction marks
    #[arg(long, value_name = "SIDE", default_value = "server")]
    pub(crate) from: Side,

    /// Sizes of the reads the bytes arrived in, as 5,100,3
    #[arg(long, value_name = "SIZES", value_delimiter = ',', value_parser = read_size)]
    pub(crate) reads: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WireName {
    Native,
    Raw,
    Length,
    Header,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Server,
    Client,
}

fn environment(text: std::ffi::OsString) -> Result<(Vec<u8>, Vec<u8>), String> {
    let bytes = text.into_encoded_bytes();
    match bytes.iter().position(|byte| *byte == b'=').map(|at| bytes.split_at(at)) {
        Some((name, [_, value @ ..])) if !name.is_empty() => Ok((name.to_vec(), value.to_vec())),
        _ => Err("it isn't NAME=VALUE".to_owned()),
    }
}

/// A session's name or id (docs/PROTOCOL.md).
fn session(name: &str) -> Result<String, String> {
    named(name, "session")
}

/// A detached command's name.
fn job_name(name: &str) -> Result<String, String> {
    named(name, "job")
}

fn named(name: &str, whose: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 64 || name.starts_with('-') || !name.chars().all(good) {
        return Err(format!("a {whose}'s name is 1 to 64 letters, digits, '.', '_' and '-', no '-' first"));
    }
    Ok(name.to_owned())
}

fn encoding(name: &str) -> Result<&'static encoding_rs::Encoding, String> {
    encoding_rs::Encoding::for_label(name.as_bytes())
        .ok_or_else(|| "no such encoding (names as in the WHATWG Encoding Standard)".to_owned())
}

/// A time as 250ms, 30s, 5m, 1h30m; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "it isn't a time such as 250ms, 30s, 5m or 1h30m".to_owned();
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "" if text == number => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        total = Duration::try_from_secs_f64(number * seconds)
            .ok()
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = tail;
    }
    if total.is_zero() { Err("a time limit of nothing".to_owned()) } else { Ok(total) }
}

/// As [`duration`], or 0.
fn heartbeat(text: &str) -> Result<Duration, String> {
    if text.bytes().all(|byte| byte == b'0') && !text.is_empty() {
        Ok(Duration::ZERO)
    } else {
        duration(text)
    }
}

/// The size of one read, bytes.
fn read_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a read has at least one byte".to_owned()),
        // A read of that size would be taken for what is left.
        Ok(size) if size < usize::MAX => Ok(size),
        _ => Err("it isn't a number of bytes".to_owned()),
    }
}

/// A size as 65536, 64k, 1m, 2g; the units are powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || "it isn't a size such as 65536, 64k, 1m or 2g".to_owned();
    let lower = text.to_ascii_lowercase();
    let (digits, shift) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if lower.ends_with('k') => (digits, 10),
        Some(digits) if lower.ends_with('m') => (digits, 20),
        Some(digits) => (digits, 30),
        None => (lower.as_str(), 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn times_and_sizes() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        for text in ["", "0s", "5x", "s", "-1s", "1e400s", "99999999999999999999d"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
        assert_eq!(size("64k"), Ok(65536));
        assert_eq!(size("2G"), Ok(2 << 30));
        assert!(size("99999999999g").is_err());
        assert!(size("k").is_err());
    }

    #[test]
    fn names_of_sessions() {
        for name in ["a", "build", "a.b_c-d", "0", "a-", &"x".repeat(64)] {
            assert_eq!(session(name).as_deref(), Ok(name));
        }
        for name in ["", "-a", "a b", "a/b", "é", "a\n", "~", &"x".repeat(65)] {
            assert!(session(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn what_follows_the_target_is_the_command() {
        let arguments =
            Arguments::try_parse_from(["remora", "exec", "-n", "web1", "ls", "-l", "--json"]).unwrap();
        let Command::Exec(exec) = arguments.command else { panic!("not exec") };
        assert_eq!(exec.reach.connect_timeout, CONNECT_TIMEOUT);
        assert_eq!(exec.command, ["ls", "-l", "--json"]);
        assert!(exec.no_stdin && !exec.json);
    }
}
