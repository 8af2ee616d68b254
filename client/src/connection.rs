//! A connection, as its user sees it: jobs are started on it, questions asked.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use remora_identity::PublicKey;
use remora_net::{Link, command_of};
use remora_wire::limits;
use remora_wire::native::{Client, proto};
use tokio::time::timeout;

use crate::connect::{Door, Pinned};
use crate::evidence::Expected;
use crate::job::{Job, JobError};
use crate::outage::Lasting;
use crate::request::{AskError, Request, StartError};
use crate::state::{Shared, State};

/// How long the host may take to judge who the user is: it answers a good proof at once, and a bad one in less than a second.
pub const VERDICT: Duration = Duration::from_secs(30);

/// How long the last word of who leaves may take.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Bytes of a terminal's output that may be on their way.
const TERMINAL_WINDOW: u64 = 128 * 1024;

/// An open connection. Dropping it ends the jobs that still run on it.
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) user: String,
    host_name: String,
}

impl Connection {
    /// Takes over a link whose greeting is done and whose proof of identity is handed over, if not yet judged. Its task is
    /// spawned on the current tokio runtime.
    ///
    /// `host_key` is the key that the host has proven to have. `again` is how to have it again once it is lost, and who must be at its ends then; none where a loss is the end.
    pub(crate) fn new(
        link: Link<Client>,
        user: String,
        host_name: String,
        epoch: Vec<u8>,
        host_key: Option<PublicKey>,
        lasting: Lasting,
        again: Option<(Arc<Door>, Pinned)>,
    ) -> Self {
        let state = State::new(link, epoch, host_key, lasting, again);
        let shared = Shared::new(state);
        let task = shared.clone();
        tokio::spawn(poll_fn(move |cx| task.lock().poll(cx)));
        Connection { shared, user, host_name }
    }

    /// The account on the host.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The host, as it was asked for.
    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// Starts a job. The request is written as soon as the current task waits for something.
    ///
    /// # Errors
    /// [`StartError`]; nothing was sent.
    pub fn start(&self, job_id: [u8; limits::JOB_ID], request: Request) -> Result<Job, StartError> {
        let mut state = self.shared.lock();
        state.check_start()?;
        let expected = request.sign_receipt.then(|| Expected {
            job_id,
            user: self.user.clone(),
            command: command_of(&request.command),
        });
        let start = proto::Start {
            job_id: job_id.to_vec(),
            user: self.user.clone(),
            command: Some(request.command),
            working_directory: request.working_directory,
            environment: request
                .environment
                .into_iter()
                .map(|(name, value)| proto::EnvironmentVariable { name, value })
                .collect(),
            // A limit under a millisecond is still a limit.
            timeout_ms: request
                .timeout
                .map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1)),
            no_stdin: !request.stdin && request.terminal.is_none(),
            // What is on its way when a person interrupts a flood is still shown: a small window keeps that short.
            output_window: request.terminal.as_ref().map_or(0, |_| TERMINAL_WINDOW),
            terminal: request.terminal.clone(),
            wait_streams: request.wait_streams,
            epoch: state.epoch().to_vec(),
            session: request.session,
            login: request.login,
            resume: None,
            // Nobody comes back where a loss is the end. A time under a millisecond is still a time.
            linger_ms: match request.linger {
                linger if state.may_come_back() && !linger.is_zero() => {
                    u64::try_from(linger.as_millis()).unwrap_or(u64::MAX).max(1)
                }
                _ => 0,
            },
            sign_receipt: request.sign_receipt,
            keep_order: request.keep_order,
            detach: request.detach,
            attach: None,
        };
        let channel = state.start(start, request.stdin || request.terminal.is_some(), expected)?;
        drop(state);
        Ok(Job::new(self.shared.clone(), channel))
    }

    /// Watches a detached job, its streams from these offsets on. Unless `read_only`, its stdin is this one's from now on. `watcher`
    /// is random, and tells it from others when it comes back after a loss. Dropping the job leaves it alone.
    ///
    /// # Errors
    /// [`StartError`]; nothing was sent.
    pub fn attach(
        &self,
        job_id: [u8; limits::JOB_ID],
        since: [u64; 2],
        read_only: bool,
        watcher: [u8; limits::JOB_ID],
    ) -> Result<Job, StartError> {
        let mut state = self.shared.lock();
        state.check_start()?;
        let [stdout, stderr] = since.map(|at| Some(proto::Position { received: at, consumed: at }));
        let start = proto::Start {
            job_id: job_id.to_vec(),
            user: self.user.clone(),
            no_stdin: read_only,
            epoch: state.epoch().to_vec(),
            attach: Some(proto::Attach { watcher: watcher.to_vec() }),
            resume: Some(proto::Resume { stdout, stderr, known: true, attempt: 0, stdin: None }),
            ..proto::Start::default()
        };
        let channel = state.start(start, !read_only, None)?;
        if let Some(job) = state.jobs.get_mut(&channel) {
            job.begin_at(since);
        }
        drop(state);
        Ok(Job::new(self.shared.clone(), channel))
    }

    /// Sends eight bytes and waits until they come back: one bare round trip.
    ///
    /// # Errors
    /// What ended the connection.
    pub async fn ping(&self) -> Result<(), JobError> {
        let number = self.shared.lock().ping();
        poll_fn(|cx| self.shared.lock().poll_pong(number, cx)).await
    }

    /// Asks something that needs no job, and waits for the answer. Whoever stops waiting has asked all the same.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(&self, question: proto::ask::Question) -> Result<proto::answer::Answer, AskError> {
        let number = self.shared.lock().ask(question)?;
        let asked = Asked { shared: &self.shared, number };
        let answer = poll_fn(|cx| asked.shared.lock().poll_answer(number, cx)).await?;
        match answer {
            Some(proto::answer::Answer::Refused(why)) => Err(AskError::Refused(why)),
            Some(answer) => Ok(answer),
            None => Err(AskError::Other),
        }
    }

    /// Finds a session, or makes it.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn open_session(&self, session: proto::SessionName) -> Result<proto::SessionInfo, AskError> {
        let question = proto::OpenSession { session: Some(session) };
        let mut list = self.session_list(proto::ask::Question::OpenSession(question)).await?;
        list.pop().ok_or(AskError::Other)
    }

    /// The sessions of this user and key.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn sessions(&self) -> Result<Vec<proto::SessionInfo>, AskError> {
        self.session_list(proto::ask::Question::ListSessions(proto::ListSessions {})).await
    }

    /// Forgets a session, and gives it as it was. Its jobs go on.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn end_session(&self, session: proto::SessionName) -> Result<proto::SessionInfo, AskError> {
        let question = proto::EndSession { session: Some(session) };
        let mut list = self.session_list(proto::ask::Question::EndSession(question)).await?;
        list.pop().ok_or(AskError::Other)
    }

    async fn session_list(
        &self,
        question: proto::ask::Question,
    ) -> Result<Vec<proto::SessionInfo>, AskError> {
        match self.ask(question).await? {
            proto::answer::Answer::Sessions(list) => Ok(list.sessions),
            _ => Err(AskError::Other),
        }
    }

    /// What a word could become in a session.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn complete(&self, complete: proto::Complete) -> Result<proto::Completions, AskError> {
        match self.ask(proto::ask::Question::Complete(complete)).await? {
            proto::answer::Answer::Completions(completions) => Ok(completions),
            _ => Err(AskError::Other),
        }
    }

    /// Waits until the connection is over, by itself or by a loss, and says why: for who has no job that would tell.
    pub async fn ended(&self) -> JobError {
        poll_fn(|cx| self.shared.lock().poll_ended(cx)).await
    }

    /// Waits until the host has judged who the user is, [`VERDICT`] at most, and gives the host's own name.
    ///
    /// # Errors
    /// [`JobError::Denied`], [`JobError::NoVerdict`], or what ended the connection.
    pub async fn accepted(&self) -> Result<String, JobError> {
        loop {
            let verdict = poll_fn(|cx| self.shared.lock().poll_verdict(cx));
            if let Ok(verdict) = timeout(VERDICT, verdict).await {
                return verdict;
            }
            // While a lost connection is tried to be had again, that has a limit of its own.
            if self.shared.lock().is_first() {
                return Err(JobError::NoVerdict);
            }
        }
    }

    /// For how long the connection has been lost, where it is and is tried to be had again.
    pub fn lost(&self) -> Option<Duration> {
        self.shared.lock().lost()
    }

    /// Leaves for good: the host ends what still runs. Waits a moment until that is said.
    pub async fn leave(self) {
        {
            let mut state = self.shared.lock();
            state.say_leave();
            state.wake();
        }
        let _ = timeout(LAST_WORD, self.ended()).await;
    }
}

/// A question whose answer is waited for.
struct Asked<'a> {
    shared: &'a Shared,
    number: u32,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.shared.lock().abandon_question(self.number);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.lock().leave_now();
    }
}
