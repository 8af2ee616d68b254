//! A connection that is lost, and how it is had again: by whom, for how long, with which pauses, and who is told.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use remora_net::LinkError;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::connect::{ConnectError, Greeted};

/// For how long a lost connection is tried to be had again, unless somebody says otherwise.
pub const RECONNECT: Duration = Duration::from_secs(600);
/// For how long a host keeps a job that nobody is connected to, unless somebody says otherwise.
pub const LINGER: Duration = Duration::from_secs(600);

/// The longest first pause; each next one may be twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a connection is held on to.
#[derive(Clone)]
pub struct Lasting {
    /// For how long a lost connection is tried to be had again; zero: it isn't.
    pub reconnect: Duration,
    /// When a silent host is asked whether it is there.
    pub heartbeat: Heartbeat,
    /// Is told of losses.
    pub news: Option<NewsObserver>,
}

impl Default for Lasting {
    fn default() -> Self {
        Lasting { reconnect: RECONNECT, heartbeat: Heartbeat::Usual, news: None }
    }
}

impl Lasting {
    /// A loss is the end.
    pub fn once() -> Self {
        Lasting { reconnect: Duration::ZERO, ..Lasting::default() }
    }
}

/// When a host that owes us a word, and says nothing, is asked whether it is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Heartbeat {
    /// After 3 s, with 3 s to answer: a false alarm costs a moment. Where a loss is the end: after 15 s, with 30 s to answer.
    #[default]
    Usual,
    /// After this time, with as long to answer.
    Every(Duration),
    /// Never: only TCP finds out.
    Off,
}

/// What happens to a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum News {
    /// It is lost, and is tried to be had again.
    Lost {
        /// Why it was lost.
        why: String,
        /// For how long the host had said nothing by then, where that is why; otherwise zero.
        silence: Duration,
    },
    /// An attempt to have it again has failed; another one follows.
    Failed {
        /// Why.
        why: String,
    },
    /// It is there again, and the host has accepted the user.
    Back,
}

/// Is told the news. It is called by the connection's task: it must be quick, and must not call the connection.
pub type NewsObserver = Arc<dyn Fn(News) + Send + Sync>;

/// A connection's loss, until the host has accepted the user again.
pub(crate) struct Outage {
    pub(crate) since: Instant,
    /// What the loss was.
    pub(crate) error: Arc<LinkError>,
    failures: u32,
    /// Why the last attempt failed.
    pub(crate) last: Option<String>,
    /// When it is given up.
    pub(crate) deadline: Pin<Box<Sleep>>,
    /// When a connection that is there again must have been accepted.
    pub(crate) verdict: Option<Pin<Box<Sleep>>>,
}

impl Outage {
    pub(crate) fn new(error: Arc<LinkError>, limit: Duration) -> Self {
        let since = Instant::now();
        // Farther than a clock reaches is for ever.
        let deadline = since.checked_add(limit).unwrap_or_else(|| since + Duration::from_secs(1 << 32));
        Outage {
            since,
            error,
            failures: 0,
            last: None,
            deadline: Box::pin(sleep_until(deadline)),
            verdict: None,
        }
    }

    pub(crate) fn failed(&mut self, why: String) {
        self.failures = self.failures.saturating_add(1);
        self.last = Some(why);
        self.verdict = None;
    }

    /// The pause before the next attempt: any length up to a limit that grows ("full jitter"), so that a thousand clients that lost the
    /// same host don't come back in step.
    pub(crate) fn pause(&self) -> Trying {
        let most = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        let mut random = [0; 4];
        let _ = rustix::rand::getrandom(random.as_mut_slice(), rustix::rand::GetRandomFlags::empty());
        let part = f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX);
        Trying::Pause(Box::pin(sleep(most.mul_f64(part))))
    }
}

/// A connection that is being opened.
pub(crate) type Opening = Pin<Box<dyn Future<Output = Result<Greeted, ConnectError>> + Send>>;

/// What is done about a loss.
pub(crate) enum Trying {
    Pause(Pin<Box<Sleep>>),
    Opening(Opening),
}

/// An error with its causes, on one line; where it holds words of a peer they are escaped already.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
