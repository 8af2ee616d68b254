//! What can be asked for on a connection, and why it can't be had.

use std::time::Duration;

use remora_wire::limits;
use remora_wire::native::proto;

use crate::job::JobError;
use crate::outage::LINGER;

/// What to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// A line for the user's shell, or an argument vector.
    pub command: proto::start::Command,
    /// Where: relative paths start at the home directory, which is also the default.
    pub working_directory: Option<Vec<u8>>,
    /// Added to what the host gives every job.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Wall-clock limit, enforced on the host.
    pub timeout: Option<Duration>,
    /// Whether the command reads from us; otherwise from /dev/null.
    pub stdin: bool,
    /// A terminal of its own, which is its stdin, stdout and stderr: all it prints comes as stdout.
    pub terminal: Option<proto::Terminal>,
    /// Wait for the end of each stream, however long background processes hold it open.
    pub wait_streams: bool,
    /// The session it is run in; what it changes there stays.
    pub session: Option<proto::SessionName>,
    /// Run a line by the shell as a login shell.
    pub login: bool,
    /// Ask for a receipt to keep, which the host signs: up to a millisecond of its time.
    pub sign_receipt: bool,
    /// For how long the host keeps the job when the connection is lost, where that is tried to be had again.
    pub linger: Duration,
    /// Have the receipt tell in which order stdout and stderr were read.
    pub keep_order: bool,
    /// Have the host detach it: it goes on without any connection.
    pub detach: Option<proto::Detach>,
}

impl Request {
    /// A line for the user's shell, without stdin.
    pub fn line(line: impl Into<Vec<u8>>) -> Self {
        Request::new(proto::start::Command::Line(line.into()))
    }

    /// An argument vector, run with no shell and byte for byte, without stdin.
    pub fn argv<A: Into<Vec<u8>>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Request::new(proto::start::Command::Argv(proto::Argv { arguments }))
    }

    /// The user's login shell.
    pub fn login_shell() -> Self {
        Request::new(proto::start::Command::LoginShell(proto::LoginShell {}))
    }

    fn new(command: proto::start::Command) -> Self {
        Request {
            command,
            working_directory: None,
            environment: Vec::new(),
            timeout: None,
            stdin: false,
            terminal: None,
            wait_streams: false,
            session: None,
            login: false,
            sign_receipt: false,
            linger: LINGER,
            keep_order: false,
            detach: None,
        }
    }
}

/// A session by its name or id: made when there is none, unless `existing`.
pub fn session_name(name: impl Into<String>, existing: bool) -> proto::SessionName {
    proto::SessionName { name: name.into(), existing }
}

/// Why a question has no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The connection has ended.
    #[error(transparent)]
    Ended(#[from] JobError),
    /// The host says why it can't answer.
    #[error("{}", .0.text.escape_debug())]
    Refused(proto::NotStarted),
    /// As many questions wait as may; ask again later.
    #[error("{} questions wait for their answers, and no more may", limits::QUESTIONS)]
    TooMany,
    /// The answer is none to this question.
    #[error("the host answered another question")]
    Other,
}

/// Why a job can't be asked for. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended(#[source] JobError),
    /// The request or the connection is at a limit.
    #[error(transparent)]
    Limit(#[from] remora_wire::native::StartError),
    /// The host stops, and takes no new jobs.
    #[error("the host takes no new jobs: {0}")]
    GoingAway(String),
}
