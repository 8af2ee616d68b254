//! One open connection: many jobs, one task that moves their bytes.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use remora_identity::PublicKey;
use remora_net::{HIGH_WATER, Link, LinkError, command_of};
use remora_wire::limits;
use remora_wire::native::{Client, ClientEvent, Stream, proto};
use tokio::time::timeout;

use crate::evidence::Expected;
use crate::job::{Job, JobError, JobState};
use crate::liveness::{ANSWER, Liveness, Pulse};

/// How long the host may take to judge who the user is: it answers a good proof at once, and a bad one in less than a second.
pub const VERDICT: Duration = Duration::from_secs(30);

/// Events handled before the task lets others run.
const EVENTS_PER_TURN: usize = 64;

/// Bytes of a terminal's output that may be on their way.
const TERMINAL_WINDOW: u64 = 128 * 1024;

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

/// An open connection. Dropping it ends the jobs that still run on it.
pub struct Connection {
    shared: Arc<Shared>,
    user: String,
    host_name: String,
}

impl Connection {
    /// Takes over a link whose greeting is done and whose proof of identity is handed over, if not yet judged. Its task is
    /// spawned on the current tokio runtime.
    pub(crate) fn new(
        link: Link<Client>,
        user: String,
        host_name: String,
        boot_id: Vec<u8>,
        host_key: Option<PublicKey>,
    ) -> Self {
        let state = State {
            link,
            jobs: HashMap::new(),
            sending: VecDeque::new(),
            task: None,
            verdict: Verdict::Waiting(Vec::new()),
            failed: None,
            going_away: None,
            leaving: false,
            boot_id,
            host_key,
            liveness: Liveness::new(),
            questions: HashMap::new(),
            last_question: 0,
            ended: Vec::new(),
            pings: Pings::default(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
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
        if let Some(error) = &state.failed {
            return Err(StartError::Ended(error.clone()));
        }
        if let Some(text) = &state.going_away {
            return Err(StartError::GoingAway(text.clone()));
        }
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
            boot_id: state.boot_id.clone(),
            session: request.session,
            login: request.login,
            sign_receipt: request.sign_receipt,
        };
        let channel = state.link.end.start(&start)?;
        state.jobs.insert(channel, JobState::new(request.stdin || request.terminal.is_some(), expected));
        state.wake();
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
        let verdict = poll_fn(|cx| self.shared.lock().poll_verdict(cx));
        timeout(VERDICT, verdict).await.unwrap_or(Err(JobError::NoVerdict))
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
        let mut state = self.shared.lock();
        state.leaving = true;
        state.wake();
    }
}

/// What the handles and the task share.
pub(crate) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state as whole as a lost connection does: each step changes it completely or not.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Verdict {
    Waiting(Vec<Waker>),
    Accepted(String),
}

pub(crate) struct State {
    pub(crate) link: Link<Client>,
    pub(crate) jobs: HashMap<u32, JobState>,
    /// Jobs that have stdin to send.
    sending: VecDeque<u32>,
    task: Option<Waker>,
    verdict: Verdict,
    failed: Option<JobError>,
    going_away: Option<String>,
    leaving: bool,
    boot_id: Vec<u8>,
    /// The key that the host has proven to have.
    host_key: Option<PublicKey>,
    liveness: Liveness,
    /// Questions by their numbers: those that wait, and answers that nobody took yet.
    questions: HashMap<u32, Question>,
    last_question: u32,
    /// Those who wait for the connection's end.
    ended: Vec<Waker>,
    pings: Pings,
}

/// Round trips that are waited for. Their numbers begin at 1: liveness pings with 0.
#[derive(Default)]
struct Pings {
    sent: u64,
    returned: u64,
    wakers: Vec<Waker>,
}

/// A question that was asked.
enum Question {
    Waits(Option<Waker>),
    Answered(Option<proto::answer::Answer>),
    /// Nobody waits for the answer any more.
    Abandoned,
}

impl State {
    pub(crate) fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }

    /// Notes that a job has stdin to send, or its end.
    pub(crate) fn send(&mut self, channel: u32) {
        if !self.sending.contains(&channel) {
            self.sending.push_back(channel);
        }
        self.wake();
    }

    fn ping(&mut self) -> u64 {
        self.pings.sent += 1;
        self.link.end.ping(self.pings.sent.to_be_bytes());
        self.wake();
        self.pings.sent
    }

    fn poll_pong(&mut self, number: u64, cx: &Context<'_>) -> Poll<Result<(), JobError>> {
        match &self.failed {
            _ if self.pings.returned >= number => Poll::Ready(Ok(())),
            Some(error) => Poll::Ready(Err(error.clone())),
            None => {
                self.pings.wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn handle_pong(&mut self, payload: [u8; 8]) {
        self.pings.returned = self.pings.returned.max(u64::from_be_bytes(payload)).min(self.pings.sent);
        self.pings.wakers.drain(..).for_each(Waker::wake);
    }

    fn ask(&mut self, question: proto::ask::Question) -> Result<u32, AskError> {
        if let Some(error) = &self.failed {
            return Err(AskError::Ended(error.clone()));
        }
        if self.questions.len() >= limits::QUESTIONS {
            return Err(AskError::TooMany);
        }
        self.last_question = self.last_question.wrapping_add(1);
        let number = self.last_question;
        self.link.end.ask(&proto::Ask { number, question: Some(question) });
        self.questions.insert(number, Question::Waits(None));
        self.wake();
        Ok(number)
    }

    fn poll_answer(
        &mut self,
        number: u32,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<proto::answer::Answer>, JobError>> {
        match self.questions.get_mut(&number) {
            Some(Question::Answered(answer)) => {
                let answer = answer.take();
                self.questions.remove(&number);
                Poll::Ready(Ok(answer))
            }
            Some(Question::Waits(waker)) => match &self.failed {
                Some(error) => Poll::Ready(Err(error.clone())),
                None => {
                    *waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            },
            Some(Question::Abandoned) | None => Poll::Ready(Ok(None)),
        }
    }

    fn abandon_question(&mut self, number: u32) {
        match self.questions.get_mut(&number) {
            Some(question @ Question::Waits(_)) => *question = Question::Abandoned,
            Some(Question::Answered(_)) => drop(self.questions.remove(&number)),
            Some(Question::Abandoned) | None => {}
        }
    }

    fn handle_answer(&mut self, answer: proto::Answer) {
        let number = answer.number;
        match self.questions.remove(&number) {
            Some(Question::Waits(waker)) => {
                self.questions.insert(number, Question::Answered(answer.answer));
                waker.into_iter().for_each(Waker::wake);
            }
            // A number that nobody asked under changes nothing.
            Some(Question::Abandoned | Question::Answered(_)) | None => {}
        }
    }

    fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<JobError> {
        match &self.failed {
            Some(error) => Poll::Ready(error.clone()),
            None => {
                if !self.ended.iter().any(|waker| waker.will_wake(cx.waker())) {
                    self.ended.push(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    fn poll_verdict(&mut self, cx: &mut Context<'_>) -> Poll<Result<String, JobError>> {
        match (&self.failed, &mut self.verdict) {
            (_, Verdict::Accepted(host)) => Poll::Ready(Ok(host.clone())),
            (Some(error), _) => Poll::Ready(Err(error.clone())),
            (None, Verdict::Waiting(wakers)) => {
                wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Reads, distributes, sends. Ready when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.task = Some(cx.waker().clone());
        for turn in 0.. {
            if turn == EVENTS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
            match self.link.poll_event(cx) {
                Poll::Ready(Ok(event)) => {
                    self.liveness.rest();
                    if let Some(error) = self.handle(event) {
                        return self.fail(cx, error);
                    }
                }
                Poll::Ready(Err(error)) => return self.fail(cx, error.into()),
                Poll::Pending => break,
            }
        }
        if self.leaving && !self.jobs.is_empty() {
            // Nobody can come back for these: the host ends them when the connection goes.
            return self.fail(cx, JobError::Left);
        }
        if self.link.end.running() == 0 && self.questions.is_empty() {
            // Nobody waits for a word of the host's.
            self.liveness.rest();
        }
        while let Poll::Ready(pulse) = self.liveness.poll(cx) {
            match pulse {
                Pulse::Ask => self.link.end.ping([0; 8]),
                Pulse::Gone => return self.fail(cx, LinkError::Silent(ANSWER).into()),
            }
        }
        if let Err(error) = self.send_stdin() {
            return self.fail(cx, LinkError::from(error).into());
        }
        match self.link.poll_flush(cx) {
            Poll::Ready(Err(error)) => self.fail(cx, LinkError::from(error).into()),
            Poll::Ready(Ok(())) if !self.sending.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Ok(())) if self.leaving => self.fail(cx, JobError::Left),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Tells everybody that the connection is over, and why.
    fn fail(&mut self, cx: &mut Context<'_>, error: JobError) -> Poll<()> {
        for job in self.jobs.values_mut() {
            job.fail(&error);
        }
        if let Verdict::Waiting(wakers) = &mut self.verdict {
            wakers.drain(..).for_each(Waker::wake);
        }
        for question in self.questions.values_mut() {
            if let Question::Waits(waker) = question {
                waker.take().into_iter().for_each(Waker::wake);
            }
        }
        self.pings.wakers.drain(..).for_each(Waker::wake);
        self.failed = Some(error);
        self.ended.drain(..).for_each(Waker::wake);
        // Best effort: a fault is told to the server, TLS is closed in order.
        let _ = self.link.hand_over();
        self.link.carrier.close();
        let _ = self.link.poll_flush(cx);
        Poll::Ready(())
    }

    fn handle(&mut self, event: ClientEvent) -> Option<JobError> {
        match event {
            ClientEvent::Data { channel, stream, bytes, .. } => {
                if let Some(job) = self.jobs.get_mut(&channel) {
                    job.handle_data(stream, bytes);
                }
            }
            ClientEvent::Started { channel, pid } => {
                if let Some(job) = self.jobs.get_mut(&channel) {
                    job.handle_started(pid);
                }
            }
            ClientEvent::Stopped { channel, signal } => {
                if let Some(job) = self.jobs.get_mut(&channel) {
                    job.handle_stopped(signal);
                }
            }
            ClientEvent::Answer(answer) => self.handle_answer(*answer),
            ClientEvent::End { channel, stream, .. } => {
                if let Some(job) = self.jobs.get_mut(&channel) {
                    job.handle_end(stream);
                }
            }
            ClientEvent::Room { channel } => self.send(channel),
            ClientEvent::Receipt { channel, receipt } => {
                if let Some(job) = self.jobs.get_mut(&channel) {
                    job.handle_receipt(*receipt, self.host_key.as_ref());
                }
                if self.link.end.running() == 0 {
                    self.link.release();
                }
            }
            ClientEvent::Accepted { host_name } => {
                if let Verdict::Waiting(wakers) = &mut self.verdict {
                    wakers.drain(..).for_each(Waker::wake);
                }
                self.verdict = Verdict::Accepted(host_name);
            }
            ClientEvent::Denied { .. } => return Some(JobError::Denied),
            ClientEvent::GoAway { text } => {
                let text = text.escape_debug().to_string();
                // Before the user is accepted nothing can have run.
                if matches!(self.verdict, Verdict::Waiting(_)) {
                    return Some(JobError::GoneAway(text));
                }
                self.going_away = Some(text);
            }
            ClientEvent::Fault { code, text } => {
                return Some(JobError::Fault { code, text: text.escape_debug().to_string() });
            }
            ClientEvent::Pong(payload) => self.handle_pong(payload),
            ClientEvent::Hello(_) | ClientEvent::OfferReply(_) => {}
        }
        None
    }

    /// Sends queued stdin, one frame of each job in turn, as far as credit and the carrier allow.
    fn send_stdin(&mut self) -> std::io::Result<()> {
        while self.link.carrier.pending() < HIGH_WATER {
            let Some(channel) = self.sending.pop_front() else { return Ok(()) };
            let Some(job) = self.jobs.get_mut(&channel) else { continue };
            let Some((room, stopped)) =
                self.link.end.stdin(channel).map(|stdin| (stdin.room(), stdin.stopped()))
            else {
                job.stdin.discard();
                continue;
            };
            if stopped {
                job.stdin.discard();
            }
            if let Some(chunk) = job.stdin.take(room.min(limits::DATA_FRAME as u64)) {
                if let Some(header) = self.link.end.stdin_header(channel, chunk.len()) {
                    self.link.write_data(&header, &chunk, &[])?;
                }
                self.sending.push_back(channel);
            } else if job.stdin.finished() {
                self.link.end.end_stdin(channel);
            }
        }
        Ok(())
    }

    pub(crate) fn consume(&mut self, channel: u32, stream: Stream, upto: u64) {
        self.link.end.consume(channel, stream, upto);
        if !self.link.end.output().is_empty() {
            self.wake();
        }
    }
}

/// The chunks of a job's stdin that wait for credit.
#[derive(Default)]
pub(crate) struct StdinQueue {
    chunks: VecDeque<Bytes>,
    queued: usize,
    finished: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl StdinQueue {
    /// Most bytes that wait here.
    const LIMIT: usize = 512 * 1024;

    pub(crate) fn closed() -> Self {
        StdinQueue { finished: true, closed: true, ..StdinQueue::default() }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn has_room(&self) -> bool {
        self.queued < StdinQueue::LIMIT || self.closed
    }

    pub(crate) fn wait(&mut self, cx: &Context<'_>) {
        self.waker = Some(cx.waker().clone());
    }

    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !self.closed && !bytes.is_empty() {
            self.queued += bytes.len();
            self.chunks.push_back(bytes);
        }
    }

    pub(crate) fn finish(&mut self) {
        self.finished = true;
    }

    fn finished(&self) -> bool {
        self.finished && self.chunks.is_empty()
    }

    /// The command takes no more: what waits is dropped, and so is what still comes.
    pub(crate) fn discard(&mut self) {
        self.closed = true;
        self.chunks.clear();
        self.queued = 0;
        self.finished = true;
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn take(&mut self, most: u64) -> Option<Bytes> {
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        if most == 0 {
            return None;
        }
        let front = self.chunks.front_mut()?;
        let chunk = if front.len() <= most { self.chunks.pop_front()? } else { front.split_to(most) };
        self.queued -= chunk.len();
        if self.has_room() {
            self.waker.take().into_iter().for_each(Waker::wake);
        }
        Some(chunk)
    }
}
