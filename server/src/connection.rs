//! One native connection after its handshake: its jobs, and the way of their bytes.

use std::collections::HashMap;
use std::future::poll_fn;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use remora_engine::{EndReason, Job, Outcome, Output, Session, Signal};
use remora_identity::Authenticated;
use remora_identity::statement::ReceiptKey;
use remora_net::{HIGH_WATER, Link, LinkError};
use remora_wire::limits;
use remora_wire::native::{Server, ServerEvent, Stream, proto};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::evidence::Evidence;
use crate::job::{self, Subject};
use crate::serve::Phase;
use crate::sessions::{self, Replied};
use crate::settings::Settings;

/// How often the output of a vanished client's job is thrown away.
const DISCARD_PAUSE: Duration = Duration::from_millis(20);
/// Events handled before the task lets others run.
const EVENTS_PER_TURN: usize = 64;

/// Serves a client that has proven who it is, to the end of its connection.
pub(crate) async fn serve(
    link: Link<Server>,
    who: Authenticated,
    peer: String,
    host_key: Option<ReceiptKey>,
    settings: watch::Receiver<Arc<Settings>>,
    phase: watch::Receiver<Phase>,
) {
    let mut connection = Connection {
        link,
        who,
        peer,
        host_key,
        settings,
        jobs: HashMap::new(),
        ready: Arc::default(),
        ended: Vec::new(),
        draining: false,
    };
    connection.run(phase).await;
    connection.leave();
}

/// What has come up besides the client's frames: the channels whose jobs have something new, and answers; and the task to wake.
#[derive(Default)]
struct Ready {
    channels: Vec<u32>,
    /// Answers to questions, as many as may be asked at a time.
    answers: Vec<proto::Answer>,
    task: Option<Waker>,
}

impl Ready {
    fn wake(&mut self) {
        if let Some(task) = self.task.take() {
            task.wake();
        }
    }
}

struct Served {
    job: Job,
    subject: Subject,
    /// The stop that the client was told of.
    stopped: Option<Signal>,
}

struct Connection {
    link: Link<Server>,
    who: Authenticated,
    peer: String,
    /// Signs receipts; none where the kernel vouches for both ends.
    host_key: Option<ReceiptKey>,
    settings: watch::Receiver<Arc<Settings>>,
    jobs: HashMap<u32, Served>,
    ready: Arc<Mutex<Ready>>,
    /// Jobs that ended and are not yet in the log: process id and outcome.
    ended: Vec<(i32, Outcome)>,
    draining: bool,
}

impl Connection {
    async fn run(&mut self, mut phase: watch::Receiver<Phase>) {
        loop {
            let now = *phase.borrow_and_update();
            match now {
                Phase::Serving => {}
                Phase::Draining if self.draining => {}
                Phase::Draining => {
                    self.draining = true;
                    self.link.end.go_away("the server stops");
                }
                Phase::Ending => self.jobs.values().for_each(|served| served.job.close(EndReason::Shutdown)),
            }
            let ended = tokio::select! {
                biased;
                ended = poll_fn(|cx| self.poll(cx)) => Some(ended),
                changed = phase.changed() => changed.err().map(|_| None),
            };
            match ended {
                None => {}
                Some(None) => return info!(peer = %self.peer, "closed"),
                Some(Some(error)) => {
                    // A fault is told to the client, if it still listens.
                    let limit = self.settings.borrow().handshake_timeout;
                    let _ = timeout(limit, self.link.flush()).await;
                    return match error {
                        LinkError::Closed => info!(peer = %self.peer, "closed by the client"),
                        error => warn!(peer = %self.peer, error = %chain(&error), "connection failed"),
                    };
                }
            }
        }
    }

    /// Ready when the connection is over: with an error, or with none when it was drained.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<LinkError>> {
        let mut turn = 0;
        loop {
            match self.link.poll_event(cx) {
                Poll::Ready(Ok(event)) => self.handle(event),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(error)),
                Poll::Pending => break,
            }
            turn += 1;
            if turn == EVENTS_PER_TURN {
                cx.waker().wake_by_ref();
                break;
            }
        }
        loop {
            let (channels, answers) = {
                let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
                ready.task = Some(cx.waker().clone());
                (std::mem::take(&mut ready.channels), std::mem::take(&mut ready.answers))
            };
            answers.iter().for_each(|answer| self.link.end.answer(answer));
            for channel in &channels {
                if let Err(error) = self.attend(*channel) {
                    return Poll::Ready(Some(error.into()));
                }
            }
            let flushed = self.link.poll_flush(cx);
            // Logged once the client has it: nobody waits for a log.
            for (pid, outcome) in self.ended.drain(..) {
                info!(peer = %self.peer, pid, ?outcome, "job ended");
            }
            match flushed {
                Poll::Ready(Err(error)) => return Poll::Ready(Some(error.into())),
                Poll::Pending => return Poll::Pending,
                // What was written made room for what a full carrier held back.
                Poll::Ready(Ok(())) if self.has_ready() => {
                    if turn < EVENTS_PER_TURN {
                        turn += 1;
                        continue;
                    }
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if self.draining && self.jobs.is_empty() => return Poll::Ready(None),
                Poll::Ready(Ok(())) => return Poll::Pending,
            }
        }
    }

    fn has_ready(&self) -> bool {
        !self.ready.lock().unwrap_or_else(PoisonError::into_inner).channels.is_empty()
    }

    fn mark(&self, channel: u32) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if !ready.channels.contains(&channel) {
            ready.channels.push(channel);
        }
    }

    fn handle(&mut self, event: ServerEvent) {
        match event {
            ServerEvent::Start { channel, start } => self.start(channel, &start),
            ServerEvent::Data { channel, offset, bytes } => {
                if let Some(served) = self.jobs.get(&channel)
                    && let Err(error) = served.job.write(offset, bytes)
                {
                    // The end of the protocol has checked order and credit; the engine can only disagree by a fault of ours.
                    warn!(peer = %self.peer, %error, "stdin refused by the engine");
                    served.job.close(EndReason::Stop);
                }
            }
            ServerEvent::End { channel, length } => {
                if let Some(served) = self.jobs.get(&channel) {
                    let _ = served.job.end_input(length);
                }
            }
            ServerEvent::Credit { channel, stream } => {
                if let Some(consumed) =
                    self.link.end.outgoing(channel, stream).map(|outgoing| outgoing.consumed())
                    && let (Some(served), Some(output)) = (self.jobs.get(&channel), output(stream))
                {
                    served.job.acknowledge(output, consumed);
                }
                self.mark(channel);
            }
            ServerEvent::Stop { channel, stream } => {
                if let (Some(served), Some(output)) = (self.jobs.get(&channel), output(stream)) {
                    served.job.close_output(output);
                }
                self.mark(channel);
            }
            ServerEvent::Signal { channel, name } => {
                match (self.jobs.get(&channel), Signal::from_name(&name)) {
                    (Some(served), Some(signal)) => served.job.signal(signal),
                    _ => debug!(peer = %self.peer, name = %name.escape_debug(), "signal ignored"),
                }
            }
            ServerEvent::Resize { channel, size } => {
                if let Some(served) = self.jobs.get(&channel) {
                    served.job.resize(job::window_size(&size));
                }
            }
            ServerEvent::Close { channel } => {
                if let Some(served) = self.jobs.get(&channel) {
                    served.job.close(EndReason::Stop);
                }
            }
            ServerEvent::Fault { code, text } => {
                info!(peer = %self.peer, code, text = %text.escape_debug(), "the client ended the connection");
            }
            ServerEvent::Ask(ask) => self.ask(&ask),
            ServerEvent::Hello(_) | ServerEvent::Offer { .. } | ServerEvent::Authenticate { .. } => {}
        }
    }

    fn ask(&mut self, ask: &proto::Ask) {
        let settings = self.settings.borrow().clone();
        let number = ask.number;
        match sessions::reply(ask, &self.who, &settings) {
            Replied::Now(answer) => self.link.end.answer(&proto::Answer { number, answer: Some(answer) }),
            Replied::Later(find) => {
                let ready = Arc::clone(&self.ready);
                tokio::task::spawn_blocking(move || {
                    let answer = proto::Answer { number, answer: Some(find()) };
                    let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
                    ready.answers.push(answer);
                    ready.wake();
                });
            }
        }
    }

    fn start(&mut self, channel: u32, start: &proto::Start) {
        let settings = self.settings.borrow().clone();
        let account = settings.policy.served().clone();
        let session = start.session.as_ref().map(|_| {
            let found = sessions::find(start.session.as_ref(), &self.who, &settings);
            found.map(|(session, _)| session)
        });
        let here = match &session {
            Some(Ok(session)) => session.working_directory(),
            _ => account.home.clone(),
        };
        let here = match &start.working_directory {
            Some(path) => here.join(std::ffi::OsStr::from_bytes(path)),
            None => here,
        };
        let mut subject = Subject {
            job_id: start.job_id.clone(),
            user: self.who.user().to_owned(),
            working_directory: here.as_os_str().as_bytes().to_vec(),
            evidence: Evidence::new(start),
        };
        match self.try_start(channel, start, session, &settings) {
            Ok(job) => {
                if job.is_in_root() {
                    subject.working_directory = b"/".to_vec();
                }
                // What a session carried out itself has ended as well: one line of the log is enough.
                if job.finished().is_none() {
                    info!(peer = %self.peer, user = %subject.user, pid = job.pid(), "job started");
                }
                self.link.end.started(channel, u64::try_from(job.pid()).unwrap_or(0));
                self.jobs.insert(channel, Served { job, subject, stopped: None });
                self.mark(channel);
            }
            Err(why) => {
                info!(peer = %self.peer, user = %subject.user, reason = %why.text, "job not started");
                let receipt = subject.not_started(&settings, why, self.host_key.as_ref());
                self.link.end.receipt(channel, &receipt);
            }
        }
    }

    fn try_start(
        &self,
        channel: u32,
        start: &proto::Start,
        session: Option<Result<Session, proto::NotStarted>>,
        settings: &Settings,
    ) -> Result<Job, proto::NotStarted> {
        if self.draining {
            return Err(job::unsuitable(proto::NotStartedClass::HostFull, "the server stops"));
        }
        if start.user != self.who.user() {
            let text = "the job is for another user than the one who logged in";
            return Err(job::unsuitable(proto::NotStartedClass::Refused, text));
        }
        let request = job::request(start, session.transpose()?)
            .ok_or_else(|| job::unsuitable(proto::NotStartedClass::Incompatible, "there is no command"))?;
        let permitted =
            settings.policy.permit(&self.who, request).map_err(|refusal| job::refused(&refusal))?;
        let limits = settings.limits.engine(job::timeout(start));
        let ready = self.ready.clone();
        let on_change = move || {
            let mut ready = ready.lock().unwrap_or_else(PoisonError::into_inner);
            if !ready.channels.contains(&channel) {
                ready.channels.push(channel);
            }
            ready.wake();
        };
        settings
            .engine
            .start(permitted, limits, Arc::new(on_change))
            .map_err(|error| job::not_started(&error))
    }

    /// Moves what is new of a job: credit for its stdin, its output, its receipt.
    fn attend(&mut self, channel: u32) -> std::io::Result<()> {
        let Some(served) = self.jobs.get_mut(&channel) else { return Ok(()) };
        let Served { job, subject, stopped } = served;
        let now = job.stopped();
        if now != *stopped {
            *stopped = now;
            self.link.end.stopped(channel, now.and_then(Signal::name));
        }
        self.link.end.consume(channel, job.input_consumed());
        if job.input_closed() {
            self.link.end.stop_stdin(channel);
        }
        // Asked before the streams: what was read by then is sent before the receipt.
        let finished = job.finished();
        let mut over = true;
        for (stream, output) in [(Stream::Stdout, Output::Stdout), (Stream::Stderr, Output::Stderr)] {
            over &= send(&mut self.link, channel, stream, job, output)?;
        }
        if let (Some(ended), true) = (finished, over) {
            let receipt = subject.ended(&self.settings.borrow(), &ended, self.host_key.as_ref());
            self.ended.push((job.pid(), ended.outcome()));
            self.link.end.receipt(channel, &receipt);
            self.jobs.remove(&channel);
            if self.jobs.is_empty() {
                self.link.release();
            }
        } else if self.link.carrier.pending() >= HIGH_WATER {
            self.mark(channel);
        }
        Ok(())
    }

    /// The client is gone. Its jobs get a moment to end by themselves, then their process groups are ended. What they still write is
    /// read and thrown away: a command that tidies up must neither be held back by a full window nor die of SIGPIPE.
    fn leave(self) {
        let grace = self.settings.borrow().vanished_grace;
        for (_, Served { job, .. }) in self.jobs {
            tokio::spawn(async move {
                let until = Instant::now() + grace;
                let mut closed = false;
                while job.finished().is_none() {
                    for output in Output::ALL {
                        job.acknowledge(output, job.produced(output));
                    }
                    if !closed && Instant::now() >= until {
                        closed = true;
                        job.close(EndReason::ClientGone);
                    }
                    let _ = timeout(DISCARD_PAUSE, job.wait()).await;
                }
            });
        }
    }
}

/// Sends what credit and carrier allow of an output stream; true once its end is sent.
fn send(
    link: &mut Link<Server>,
    channel: u32,
    stream: Stream,
    job: &Job,
    output: Output,
) -> std::io::Result<bool> {
    while link.carrier.pending() < HIGH_WATER {
        let Some(outgoing) = link.end.outgoing(channel, stream) else { return Ok(true) };
        if outgoing.ended() {
            return Ok(true);
        }
        let (sent, room, stopped) = (outgoing.sent(), outgoing.room(), outgoing.stopped());
        let progress = job.progress(output);
        let waiting = progress.produced.saturating_sub(sent);
        if stopped || waiting == 0 {
            if progress.ended {
                link.end.end(channel, stream);
                return Ok(true);
            }
            return Ok(false);
        }
        let length = usize::try_from(waiting.min(room)).unwrap_or(usize::MAX).min(limits::DATA_FRAME);
        if length == 0 {
            return Ok(false);
        }
        let written = job.output(output, sent, |first, second| {
            let first = first.get(..length).unwrap_or(first);
            let second = second.get(..length - first.len()).unwrap_or(second);
            match link.end.data_header(channel, stream, first.len() + second.len()) {
                Some(header) => link.write_data(&header, first, second),
                None => Ok(()),
            }
        });
        written.map_err(std::io::Error::other)??;
    }
    Ok(false)
}

fn output(stream: Stream) -> Option<Output> {
    match stream {
        Stream::Stdin => None,
        Stream::Stdout => Some(Output::Stdout),
        Stream::Stderr => Some(Output::Stderr),
    }
}

/// An error with its causes, on one line.
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
