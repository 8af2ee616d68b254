//! What the handles of a connection share, and what its task does: it moves the bytes of many jobs, and has the connection again when
//! it is lost.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use remora_identity::PublicKey;
use remora_net::{HIGH_WATER, Link, LinkError};
use remora_wire::limits;
use remora_wire::native::{Client, ClientEvent, Stream, proto};
use tokio::time::sleep;

use crate::connect::{ConnectError, Door, Greeted, Pinned};
use crate::evidence::Expected;
use crate::job::{JobError, JobState};
use crate::liveness::{Liveness, Pulse};
use crate::outage::{Lasting, News, Outage, Trying, chain};
use crate::request::{AskError, StartError};

/// Events handled before the task lets others run.
const EVENTS_PER_TURN: usize = 64;

/// What the handles and the task share.
pub(crate) struct Shared {
    state: Mutex<State>,
}

impl Shared {
    pub(crate) fn new(state: State) -> Arc<Self> {
        Arc::new(Shared { state: Mutex::new(state) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the state as whole as a lost connection does: each step changes it completely or not.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's byte stream, or what is done to have another one.
enum Line {
    Up(Box<Link<Client>>),
    Down(Trying),
}

/// What the task has come to.
enum Turn {
    /// The line has changed: look again.
    Again,
    /// It is over.
    Over(JobError),
}

enum Verdict {
    Waiting(Vec<Waker>),
    Accepted(String),
}

pub(crate) struct State {
    line: Line,
    pub(crate) jobs: HashMap<u32, JobState>,
    /// The last channel that a job was given. Each keeps its own whatever connection it is on.
    last_channel: u32,
    /// Jobs that nobody waits for, and that the host has to end.
    dropped: Vec<u32>,
    /// How often it was had again.
    attempt: u32,
    /// Its loss, until the host has accepted us again.
    outage: Option<Outage>,
    /// How to have it again; none where a loss is the end.
    again: Option<(Arc<Door>, Pinned)>,
    lasting: Lasting,
    /// Jobs that have stdin to send.
    sending: VecDeque<u32>,
    task: Option<Waker>,
    verdict: Verdict,
    failed: Option<JobError>,
    going_away: Option<String>,
    leaving: bool,
    epoch: Vec<u8>,
    /// The key that the host has proven to have, and must have each time.
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
    Waits(proto::ask::Question, Option<Waker>),
    Answered(Option<proto::answer::Answer>),
    /// Nobody waits for the answer any more.
    Abandoned,
}

impl State {
    /// The state of a connection that is up.
    pub(crate) fn new(
        link: Link<Client>,
        epoch: Vec<u8>,
        host_key: Option<PublicKey>,
        lasting: Lasting,
        again: Option<(Arc<Door>, Pinned)>,
    ) -> Self {
        State {
            line: Line::Up(Box::new(link)),
            jobs: HashMap::new(),
            last_channel: 0,
            dropped: Vec::new(),
            attempt: 0,
            outage: None,
            again,
            sending: VecDeque::new(),
            task: None,
            verdict: Verdict::Waiting(Vec::new()),
            failed: None,
            going_away: None,
            leaving: false,
            epoch,
            host_key,
            liveness: Liveness::new(&lasting),
            lasting,
            questions: HashMap::new(),
            last_question: 0,
            ended: Vec::new(),
            pings: Pings::default(),
        }
    }

    /// Whether a job may be asked for.
    ///
    /// # Errors
    /// [`StartError`].
    pub(crate) fn check_start(&self) -> Result<(), StartError> {
        if let Some(error) = &self.failed {
            return Err(StartError::Ended(error.clone()));
        }
        match &self.going_away {
            Some(text) => Err(StartError::GoingAway(text.clone())),
            None => Ok(()),
        }
    }

    /// Asks for a job, as soon as there is a connection, and gives its channel.
    ///
    /// # Errors
    /// [`StartError`]; nothing is sent then.
    pub(crate) fn start(
        &mut self,
        start: proto::Start,
        stdin: bool,
        expected: Option<Expected>,
    ) -> Result<u32, StartError> {
        let channel = self.last_channel.checked_add(1).ok_or(remora_wire::native::StartError::NoChannel)?;
        let mut job = JobState::new(stdin, expected);
        if let Line::Up(link) = &mut self.line {
            link.end.start_on(channel, &start)?;
            job.sent = true;
        }
        // Kept to be sent again; where it isn't sent yet, to be sent at all.
        job.start = start;
        self.last_channel = channel;
        self.jobs.insert(channel, job);
        self.wake();
        Ok(channel)
    }

    /// Whether a loss isn't the end.
    pub(crate) fn may_come_back(&self) -> bool {
        self.again.is_some()
    }

    /// The key that the host has proven to have.
    pub(crate) fn host_key(&self) -> Option<&PublicKey> {
        self.host_key.as_ref()
    }

    /// The host's epoch, as its last hello told it.
    pub(crate) fn epoch(&self) -> &[u8] {
        &self.epoch
    }

    /// Whether it was never lost.
    pub(crate) fn is_first(&self) -> bool {
        self.attempt == 0 && self.outage.is_none()
    }

    /// For how long it has been lost.
    pub(crate) fn lost(&self) -> Option<Duration> {
        self.outage.as_ref().map(|outage| outage.since.elapsed())
    }

    /// Leaves. The runtime may be over before the task is polled again: what can be written now is.
    pub(crate) fn leave_now(&mut self) {
        self.say_leave();
        if let Line::Up(link) = &mut self.line {
            let _ = link.poll_flush(&mut Context::from_waker(Waker::noop()));
        }
        self.wake();
    }

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

    /// The end of the protocol, while there is a connection.
    pub(crate) fn end(&mut self) -> Option<&mut Client> {
        match &mut self.line {
            Line::Up(link) => Some(&mut link.end),
            Line::Down(_) => None,
        }
    }

    /// Tells the host, once, that nobody comes back, if anything runs.
    pub(crate) fn say_leave(&mut self) {
        if !std::mem::replace(&mut self.leaving, true)
            && self.jobs.values().any(|job| !job.is_over())
            && let Some(end) = self.end()
        {
            end.leave();
        }
    }

    /// Has the host end a job that nobody waits for.
    pub(crate) fn drop_job(&mut self, channel: u32) {
        self.dropped.push(channel);
        self.wake();
    }

    pub(crate) fn ping(&mut self) -> u64 {
        self.pings.sent += 1;
        let number = self.pings.sent;
        if let Some(end) = self.end() {
            end.ping(number.to_be_bytes());
        }
        self.wake();
        self.pings.sent
    }

    pub(crate) fn poll_pong(&mut self, number: u64, cx: &Context<'_>) -> Poll<Result<(), JobError>> {
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

    pub(crate) fn ask(&mut self, question: proto::ask::Question) -> Result<u32, AskError> {
        if let Some(error) = &self.failed {
            return Err(AskError::Ended(error.clone()));
        }
        if self.questions.len() >= limits::QUESTIONS {
            return Err(AskError::TooMany);
        }
        self.last_question = self.last_question.wrapping_add(1);
        let number = self.last_question;
        if let Some(end) = self.end() {
            end.ask(&proto::Ask { number, question: Some(question.clone()) });
        }
        self.questions.insert(number, Question::Waits(question, None));
        self.wake();
        Ok(number)
    }

    pub(crate) fn poll_answer(
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
            Some(Question::Waits(_, waker)) => match &self.failed {
                Some(error) => Poll::Ready(Err(error.clone())),
                None => {
                    *waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            },
            Some(Question::Abandoned) | None => Poll::Ready(Ok(None)),
        }
    }

    pub(crate) fn abandon_question(&mut self, number: u32) {
        match self.questions.get_mut(&number) {
            Some(question @ Question::Waits(..)) => *question = Question::Abandoned,
            Some(Question::Answered(_)) => drop(self.questions.remove(&number)),
            Some(Question::Abandoned) | None => {}
        }
    }

    fn handle_answer(&mut self, answer: proto::Answer) {
        let number = answer.number;
        match self.questions.remove(&number) {
            Some(Question::Waits(_, waker)) => {
                self.questions.insert(number, Question::Answered(answer.answer));
                waker.into_iter().for_each(Waker::wake);
            }
            // A number that nobody asked under changes nothing.
            Some(Question::Abandoned | Question::Answered(_)) | None => {}
        }
    }

    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<JobError> {
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

    pub(crate) fn poll_verdict(&mut self, cx: &mut Context<'_>) -> Poll<Result<String, JobError>> {
        match (&self.failed, &mut self.verdict) {
            (_, Verdict::Accepted(host)) => Poll::Ready(Ok(host.clone())),
            (Some(error), _) => Poll::Ready(Err(error.clone())),
            (None, Verdict::Waiting(wakers)) => {
                wakers.push(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Does what can be done. Ready when the connection is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.task = Some(cx.waker().clone());
        loop {
            let turn = match &self.line {
                Line::Up(_) => self.poll_up(cx),
                Line::Down(_) => self.poll_down(cx),
            };
            match turn {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Turn::Again) => {}
                Poll::Ready(Turn::Over(error)) => return self.fail(cx, error),
            }
        }
    }

    /// Reads, distributes, sends.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        for turn in 0.. {
            if turn == EVENTS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
            let Line::Up(link) = &mut self.line else { return Poll::Ready(Turn::Again) };
            match link.poll_event(cx) {
                Poll::Ready(Ok(event)) => {
                    self.liveness.rest();
                    // A server that waited too long for us, on a connection that was slow to death.
                    if matches!(event, ClientEvent::Fault { code: 15, .. }) && self.again.is_some() {
                        return self.lose(LinkError::Closed);
                    }
                    if let Some(error) = self.handle(event) {
                        return Poll::Ready(Turn::Over(error));
                    }
                }
                Poll::Ready(Err(error)) => return self.lose(error),
                Poll::Pending => break,
            }
        }
        if let Some(turn) = self.poll_outage(cx) {
            return Poll::Ready(turn);
        }
        if !self.leaving {
            self.end_dropped();
        }
        let Line::Up(link) = &mut self.line else { return Poll::Ready(Turn::Again) };
        let judged = self.outage.is_none() && matches!(self.verdict, Verdict::Accepted(_));
        if !judged || link.end.running() == 0 && self.questions.is_empty() {
            // Nobody waits for a word of the host's, or there is another limit: a host takes its time to judge.
            self.liveness.rest();
        }
        while let Poll::Ready(pulse) = self.liveness.poll(cx) {
            match pulse {
                Pulse::Ask => link.end.ping([0; 8]),
                Pulse::Gone => return self.lose(LinkError::Silent(self.liveness.answer())),
            }
        }
        if !self.leaving
            && let Err(error) = self.send_stdin()
        {
            return self.lose(error.into());
        }
        let Line::Up(link) = &mut self.line else { return Poll::Ready(Turn::Again) };
        match link.poll_flush(cx) {
            Poll::Ready(Err(error)) => self.lose(error.into()),
            // Nobody can come back for what runs: the host ends it.
            Poll::Ready(Ok(())) if self.leaving => Poll::Ready(Turn::Over(JobError::Left)),
            Poll::Ready(Ok(())) if !self.sending.is_empty() => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Waits and tries, until the connection is there again or given up.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        if self.leaving {
            return Poll::Ready(Turn::Over(JobError::Left));
        }
        if let Some(turn) = self.poll_outage(cx) {
            return Poll::Ready(turn);
        }
        let (Line::Down(trying), Some((door, pinned))) = (&mut self.line, &self.again) else {
            return Poll::Ready(Turn::Again);
        };
        match trying {
            Trying::Pause(pause) => {
                if pause.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let (door, pinned) = (door.clone(), pinned.clone());
                *trying = Trying::Opening(Box::pin(async move { door.open(Some(&pinned)).await }));
                Poll::Ready(Turn::Again)
            }
            Trying::Opening(opening) => match opening.as_mut().poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Ok(greeted)) => {
                    self.go_on(greeted);
                    Poll::Ready(Turn::Again)
                }
                Poll::Ready(Err(error)) => Poll::Ready(self.not_opened(&error)),
            },
        }
    }

    /// The limits of a loss: how long it is tried to be mended, and how long a host may take to accept who comes back.
    fn poll_outage(&mut self, cx: &mut Context<'_>) -> Option<Turn> {
        let outage = self.outage.as_mut()?;
        if outage.deadline.as_mut().poll(cx).is_ready() {
            let why = outage.last.clone().unwrap_or_else(|| "no answer".to_owned());
            return Some(Turn::Over(given_up(outage, &why)));
        }
        let limit = self.again.as_ref()?.0.limit();
        if outage.verdict.as_mut()?.as_mut().poll(cx).is_ready() {
            return match self.lose(LinkError::Silent(limit)) {
                Poll::Ready(turn) => Some(turn),
                Poll::Pending => None,
            };
        }
        None
    }

    /// The connection is lost: by a fault for good, otherwise until it is had again.
    fn lose(&mut self, error: LinkError) -> Poll<Turn> {
        if self.again.is_none() || self.leaving || matches!(error, LinkError::Fault(_)) {
            return Poll::Ready(Turn::Over(match &self.outage {
                Some(outage) => given_up(outage, &chain(&error)),
                None => error.into(),
            }));
        }
        if let Line::Up(link) = &self.line {
            for (channel, job) in &mut self.jobs {
                job.streams = link.end.streams(*channel).or(job.streams);
            }
        }
        let why = chain(&error);
        let limit = self.lasting.reconnect;
        let silence =
            if matches!(error, LinkError::Silent(_)) { self.liveness.silence() } else { Duration::ZERO };
        let news = match &mut self.outage {
            Some(outage) => {
                outage.failed(why.clone());
                News::Failed { why }
            }
            None => {
                self.outage = Some(Outage::new(Arc::new(error), limit));
                News::Lost { why, silence }
            }
        };
        self.tell(news);
        if let Some(outage) = &self.outage {
            self.line = Line::Down(outage.pause());
        }
        Poll::Ready(Turn::Again)
    }

    fn not_opened(&mut self, error: &ConnectError) -> Turn {
        let why = chain(error);
        let Some(outage) = &mut self.outage else { return Turn::Again };
        if error.is_final() {
            return Turn::Over(given_up(outage, &why));
        }
        outage.failed(why.clone());
        self.line = Line::Down(outage.pause());
        self.tell(News::Failed { why });
        Turn::Again
    }

    /// Goes on with everything on another connection, in one flight with the proof of who we are.
    fn go_on(&mut self, greeted: Greeted) {
        let Greeted { mut link, epoch, .. } = greeted;
        self.attempt = self.attempt.saturating_add(1);
        let mut channels: Vec<u32> = self.jobs.keys().copied().collect();
        channels.sort_unstable();
        for channel in channels {
            let Some(job) = self.jobs.get_mut(&channel).filter(|job| !job.is_over()) else { continue };
            if let Err(error) = job.go_on(&mut link.end, channel, &epoch, self.attempt) {
                job.fail(&JobError::NotResumed(error));
            }
        }
        self.epoch = epoch;
        self.questions.retain(|_, question| !matches!(question, Question::Abandoned));
        for (number, question) in &self.questions {
            if let Question::Waits(question, _) = question {
                link.end.ask(&proto::Ask { number: *number, question: Some(question.clone()) });
            }
        }
        if self.pings.sent > self.pings.returned {
            link.end.ping(self.pings.sent.to_be_bytes());
        }
        if let (Some(outage), Some((door, _))) = (&mut self.outage, &self.again) {
            outage.verdict = Some(Box::pin(sleep(door.limit())));
        }
        self.going_away = None;
        self.liveness = Liveness::new(&self.lasting);
        self.line = Line::Up(Box::new(link));
    }

    /// Has the host end those jobs that nobody waits for.
    fn end_dropped(&mut self) {
        let Line::Up(link) = &mut self.line else { return };
        for channel in self.dropped.drain(..) {
            link.end.close(channel);
        }
    }

    fn tell(&self, news: News) {
        if let Some(observer) = &self.lasting.news {
            observer(news);
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
            if let Question::Waits(_, waker) = question {
                waker.take().into_iter().for_each(Waker::wake);
            }
        }
        self.pings.wakers.drain(..).for_each(Waker::wake);
        self.failed = Some(error);
        self.ended.drain(..).for_each(Waker::wake);
        self.outage = None;
        if let Line::Up(link) = &mut self.line {
            // Best effort: a fault is told to the server, TLS is closed in order.
            let _ = link.hand_over();
            link.carrier.close();
            let _ = link.poll_flush(cx);
        }
        Poll::Ready(())
    }

    fn handle(&mut self, event: ClientEvent) -> Option<JobError> {
        match event {
            ClientEvent::Data { channel, stream, bytes, .. } => {
                if let Some(job) = self.jobs.get_mut(&channel) {
                    job.handle_data(stream, bytes);
                }
            }
            ClientEvent::Started { channel, pid, resumed } => {
                let sent = self.end().and_then(|end| end.stdin(channel)).map(|stdin| stdin.sent());
                if let Some(job) = self.jobs.get_mut(&channel) {
                    if let (true, Some(sent)) = (resumed, sent) {
                        job.stdin.go_on(sent);
                    }
                    job.handle_started(pid);
                }
                if resumed {
                    self.send(channel);
                }
            }
            ClientEvent::Detached { channel, text, detached } => {
                if let Some(job) = self.jobs.get_mut(&channel) {
                    let text = text.escape_debug().to_string();
                    job.fail(&if detached { JobError::Detached(text) } else { JobError::Elsewhere(text) });
                    if job.dropped {
                        self.jobs.remove(&channel);
                    }
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
            ClientEvent::Room { channel } => {
                let consumed = self.end().and_then(|end| end.stdin(channel)).map(|stdin| stdin.consumed());
                if let (Some(consumed), Some(job)) = (consumed, self.jobs.get_mut(&channel)) {
                    job.stdin.release(consumed);
                }
                self.send(channel);
            }
            ClientEvent::Receipt { channel, receipt } => {
                let Line::Up(link) = &mut self.line else { return None };
                if let Some(job) = self.jobs.get_mut(&channel) {
                    if job.handle_receipt(*receipt, self.host_key.as_ref()) {
                        link.end.settle(&job.start.job_id);
                    }
                    if job.dropped {
                        self.jobs.remove(&channel);
                    }
                }
                if link.end.running() == 0 {
                    link.release();
                }
            }
            ClientEvent::Accepted { host_name } => {
                if self.outage.take().is_some() {
                    self.tell(News::Back);
                }
                if let Verdict::Waiting(wakers) = &mut self.verdict {
                    wakers.drain(..).for_each(Waker::wake);
                }
                self.verdict = Verdict::Accepted(host_name);
            }
            ClientEvent::Denied { .. } => {
                return Some(match &self.outage {
                    // Something may run there.
                    Some(outage) if matches!(self.verdict, Verdict::Accepted(_)) => {
                        given_up(outage, "the host does not accept this user any more")
                    }
                    _ => JobError::Denied,
                });
            }
            ClientEvent::GoAway { text } => {
                let text = text.escape_debug().to_string();
                // Before the user is accepted nothing can have run, unless on a connection of before.
                if self.attempt == 0 && matches!(self.verdict, Verdict::Waiting(_)) {
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
        let keep = self.again.is_some();
        let Line::Up(link) = &mut self.line else { return Ok(()) };
        while link.carrier.pending() < HIGH_WATER {
            let Some(channel) = self.sending.pop_front() else { return Ok(()) };
            let Some(job) = self.jobs.get_mut(&channel) else { continue };
            let Some((room, stopped)) = link.end.stdin(channel).map(|stdin| (stdin.room(), stdin.stopped()))
            else {
                job.stdin.discard();
                continue;
            };
            if stopped {
                job.stdin.discard();
            }
            if let Some(chunk) = job.stdin.take(room.min(limits::DATA_FRAME as u64), keep) {
                if let Some(header) = link.end.stdin_header(channel, chunk.len()) {
                    link.write_data(&header, &chunk, &[])?;
                }
                self.sending.push_back(channel);
            } else if job.stdin.finished() {
                link.end.end_stdin(channel);
            }
        }
        Ok(())
    }

    pub(crate) fn consume(&mut self, channel: u32, stream: Stream, upto: u64) {
        let Some(end) = self.end() else { return };
        end.consume(channel, stream, upto);
        if !end.output().is_empty() {
            self.wake();
        }
    }
}

/// A loss for good.
fn given_up(outage: &Outage, why: &str) -> JobError {
    JobError::GivenUp { tried: outage.since.elapsed(), why: why.to_owned(), lost: outage.error.clone() }
}
