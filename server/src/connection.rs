//! One native connection after its handshake: its jobs, and the way of their bytes.

mod detached;
mod waiting;

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use remora_engine::{Begun, EndReason, Engine, Job, Outcome, Output, Session, Signal};
use remora_identity::Authenticated;
use remora_identity::statement::ReceiptKey;
use remora_net::{HIGH_WATER, Link, LinkError};
use remora_wire::limits;
use remora_wire::native::{Server, ServerEvent, Stream, proto};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::attachment::{Attachment, Bell};
use crate::detached::{Watching, reply};
use crate::job::{self, Subject};
use crate::record::{Owner, Record};
use crate::registry::{Asked, Claim, Entry, Unbegun, end_unseen};
use crate::serve::Phase;
use crate::sessions::{self, Replied};
use crate::settings::Settings;
use waiting::{Waiting, channel_of};

/// How long a client may take to take the last word of a server that goes.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Why a channel is closed whose job goes on.
const ELSEWHERE: &str = "another connection has taken the job up";
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
        watching: HashMap::new(),
        waiting: HashMap::new(),
        starting: 0,
        unsettled: VecDeque::new(),
        bell: Bell::default(),
        ended: Vec::new(),
        draining: false,
        left: false,
    };
    connection.run(phase).await;
    connection.leave();
}

struct Served {
    entry: Arc<Entry>,
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
    /// Channels that watch detached jobs.
    watching: HashMap<u32, Watching>,
    /// Starts whose jobs' keepers have not answered.
    waiting: HashMap<u32, Waiting>,
    /// Detached jobs that are being started.
    starting: usize,
    /// Jobs whose receipts are sent, and whose clients haven't said yet that they have them; with the channels they had.
    unsettled: VecDeque<(u32, Arc<Entry>)>,
    bell: Bell,
    /// Jobs that ended and are not yet in the log: process id and outcome.
    ended: Vec<(i32, Outcome)>,
    draining: bool,
    /// The client has said that it goes for good.
    left: bool,
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
                Phase::Leaving => {
                    self.link.end.go_away("the server stops, and what it runs goes on");
                    let _ = timeout(LAST_WORD, self.link.flush()).await;
                    return info!(peer = %self.peer, "left");
                }
                Phase::Ending => {
                    self.jobs.values().for_each(|served| served.entry.job.close(EndReason::Shutdown))
                }
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
                Poll::Ready(Ok(ServerEvent::Leave)) => {
                    self.left = true;
                    return Poll::Ready(Some(LinkError::Closed));
                }
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
            let (channels, answers, taken, begun, detached, again) = {
                let mut ready = self.bell.lock();
                ready.task = Some(cx.waker().clone());
                (
                    std::mem::take(&mut ready.channels),
                    std::mem::take(&mut ready.answers),
                    std::mem::take(&mut ready.taken),
                    std::mem::take(&mut ready.begun),
                    std::mem::take(&mut ready.detached),
                    std::mem::take(&mut ready.again),
                )
            };
            for channel in taken {
                self.jobs.remove(&channel);
                self.unsettled.retain(|(unsettled, _)| *unsettled != channel);
                self.link.end.detach(channel, ELSEWHERE);
            }
            for channel in detached {
                self.jobs.remove(&channel);
                self.tell_detached(channel);
            }
            for channel in again {
                self.start_again(channel);
            }
            answers.iter().for_each(|answer| self.link.end.answer(answer));
            for (channel, subject, result) in begun {
                self.starting -= 1;
                self.tell_begun(channel, &subject, result);
            }
            for channel in &channels {
                let attended = self.attend(*channel).and_then(|()| self.attend_watching(*channel));
                if let Err(error) = attended {
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
                Poll::Ready(Ok(())) if self.draining && self.is_idle() => {
                    return Poll::Ready(None);
                }
                Poll::Ready(Ok(())) => return Poll::Pending,
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty() && self.waiting.is_empty() && self.starting == 0
    }

    fn has_ready(&self) -> bool {
        !self.bell.lock().channels.is_empty()
    }

    fn place(&self, channel: u32) -> Attachment {
        Attachment { bell: self.bell.clone(), channel }
    }

    /// The job of a channel, while it is still here: another connection may have taken it just now.
    fn entry(&self, channel: u32) -> Option<&Entry> {
        self.jobs.get(&channel).map(|served| &*served.entry).filter(|entry| entry.is_at(&self.place(channel)))
    }

    /// The job that a channel may do something to.
    fn job(&self, channel: u32) -> Option<&Job> {
        let watched = self.watching.get(&channel).filter(|watching| watching.is_typist());
        self.entry(channel)
            .map(|entry| &entry.job)
            .or_else(|| watched.and_then(|watching| watching.entry.running()))
    }

    fn handle(&mut self, event: ServerEvent) {
        if !self.waiting.is_empty()
            && let Some(waiting) = channel_of(&event).and_then(|channel| self.waiting.get_mut(&channel))
        {
            return waiting.hold(event);
        }
        match event {
            ServerEvent::Start { channel, start } => self.start(channel, &start),
            ServerEvent::Data { channel, offset, bytes } if self.watching.contains_key(&channel) => {
                self.type_detached(channel, offset, bytes);
            }
            ServerEvent::Data { channel, offset, bytes } => {
                if let Some(entry) = self.entry(channel)
                    && let Err(error) = entry.write(offset, bytes)
                    && !entry.is_detaching()
                {
                    // The end of the protocol has checked order and credit; the engine can only disagree by a fault of ours.
                    warn!(peer = %self.peer, %error, "stdin refused by the engine");
                    entry.job.close(EndReason::Stop);
                }
            }
            ServerEvent::End { channel, length } => {
                if let Some(watching) = self.watching.get(&channel) {
                    watching.end_input(length);
                }
                if let Some(entry) = self.entry(channel) {
                    entry.end_input(length);
                }
            }
            ServerEvent::Credit { channel, stream } => {
                if let Some(consumed) =
                    self.link.end.outgoing(channel, stream).map(|outgoing| outgoing.consumed())
                    && let (Some(entry), Some(output)) = (self.entry(channel), output(stream))
                {
                    entry.job.acknowledge(output, consumed);
                }
                self.bell.mark(channel);
            }
            ServerEvent::Stop { channel, stream } => {
                if let (Some(entry), Some(output)) = (self.entry(channel), output(stream)) {
                    entry.job.close_output(output);
                }
                self.bell.mark(channel);
            }
            ServerEvent::Signal { channel, name } => match (self.job(channel), Signal::from_name(&name)) {
                (Some(job), Some(signal)) => job.signal(signal),
                _ => debug!(peer = %self.peer, name = %name.escape_debug(), "signal ignored"),
            },
            ServerEvent::Resize { channel, size } => {
                if let Some(job) = self.job(channel) {
                    job.resize(job::window_size(&size));
                }
            }
            ServerEvent::Close { channel } => {
                // Who watches a detached job leaves it alone.
                if self.watching.remove(&channel).is_some() {
                    self.link.end.detached(channel, "you left");
                }
                if let Some(entry) = self.entry(channel) {
                    entry.job.close(EndReason::Stop);
                }
            }
            ServerEvent::Settled { job_id } => {
                self.settings.borrow().registry.settle(&Owner::of(&self.who), &job_id);
                self.unsettled.retain(|(_, entry)| *entry.subject().job_id != job_id);
            }
            ServerEvent::Fault { code, text } => {
                info!(peer = %self.peer, code, text = %text.escape_debug(), "the client ended the connection");
            }
            ServerEvent::Ask(ask) => self.ask(&ask),
            ServerEvent::Hello(_)
            | ServerEvent::Offer { .. }
            | ServerEvent::Authenticate { .. }
            | ServerEvent::Leave => {}
        }
    }

    fn ask(&mut self, ask: &proto::Ask) {
        let settings = self.settings.borrow().clone();
        let number = ask.number;
        if let Some(answer) = reply(ask, &self.who, self.host_key.as_ref(), &settings) {
            let bell = self.bell.clone();
            tokio::spawn(async move {
                let answer = proto::Answer { number, answer: Some(answer.await) };
                let mut ready = bell.lock();
                ready.answers.push(answer);
                ready.wake();
            });
            return;
        }
        match sessions::reply(ask, &self.who, &settings) {
            Replied::Now(answer) => self.link.end.answer(&proto::Answer { number, answer: Some(answer) }),
            Replied::Later(find) => {
                let bell = self.bell.clone();
                tokio::task::spawn_blocking(move || {
                    let answer = proto::Answer { number, answer: Some(find()) };
                    let mut ready = bell.lock();
                    ready.answers.push(answer);
                    ready.wake();
                });
            }
        }
    }

    fn start(&mut self, channel: u32, start: &proto::Start) {
        match start {
            proto::Start { attach: Some(_), .. } => return self.watch_detached(channel, start),
            proto::Start { detach: Some(_), .. } => return self.start_detached(channel, start),
            _ => {}
        }
        let settings = self.settings.borrow().clone();
        if self.is_detached(start, &settings) {
            return self.tell_detached(channel);
        }
        let place = self.place(channel);
        let asked = Asked {
            owner: Owner::of(&self.who),
            start,
            linger: Duration::from_millis(start.linger_ms).min(settings.max_linger),
            place: &place,
            is_remembered: start.resume.is_some() && self.is_remembered(start, &settings),
        };
        let mut subject = Subject::of(start, &self.who);
        let claim = match self.check(start, &settings) {
            Ok(()) => settings
                .registry
                .claim(&asked, &mut subject, |record| self.begin(start, &settings, &place, record)),
            Err(why) => Claim::NotStarted(why),
        };
        let (entry, at) = match claim {
            Claim::Started(entry) => {
                // What a session carried out itself has ended as well: one line of the log is enough.
                if entry.job.finished().is_none() {
                    info!(peer = %self.peer, user = %self.who.user(), pid = entry.job.pid(), "job started");
                }
                (entry, proto::StdinPosition::default())
            }
            Claim::Resumed(entry, at) => {
                info!(peer = %self.peer, user = %self.who.user(), pid = entry.job.pid(), "job gone on with");
                (entry, at)
            }
            Claim::Elsewhere => return self.link.end.detach(channel, ELSEWHERE),
            Claim::Later(pending) => return self.start_later(channel, start, pending),
            // It was detached just now.
            Claim::NotStarted(_) if self.is_detached(start, &settings) => return self.tell_detached(channel),
            Claim::NotStarted(why) => {
                info!(peer = %self.peer, user = %self.who.user(), reason = %why.text, "job not started");
                let receipt = subject.not_started(&settings, why, self.host_key.as_ref());
                return self.link.end.receipt(channel, &receipt);
            }
        };
        self.link.end.resumed(channel, u64::try_from(entry.job.pid()).unwrap_or(0), &at);
        self.jobs.insert(channel, Served { entry, stopped: None });
        self.bell.mark(channel);
    }

    /// Whether the session of a start that is sent again has carried it out itself, perhaps under the server before.
    fn is_remembered(&self, start: &proto::Start, settings: &Settings) -> bool {
        let Some(name) = &start.session else { return false };
        let there = proto::SessionName { existing: true, ..name.clone() };
        let Ok(id) = start.job_id.as_slice().try_into() else { return false };
        let session = sessions::find(Some(&there), &self.who, settings);
        session.is_ok_and(|(session, _)| session.has_answered(Owner::of(&self.who).key(&id)))
    }

    /// What is asked of every start, of one that is sent again as well: policy may have changed since.
    fn check(&self, start: &proto::Start, settings: &Settings) -> Result<(), proto::NotStarted> {
        if start.user != self.who.user() {
            let text = "the job is for another user than the one who logged in";
            return Err(job::unsuitable(proto::NotStartedClass::Refused, text));
        }
        settings.policy.permit(&self.who, ()).map(drop).map_err(|refusal| job::refused(&refusal))
    }

    /// Where a start's job runs: in which session, made if need be, and in which directory.
    fn place_of(
        &self,
        start: &proto::Start,
        settings: &Settings,
    ) -> Result<(Option<Session>, Vec<u8>), proto::NotStarted> {
        let session = match &start.session {
            Some(_) => Some(sessions::find(start.session.as_ref(), &self.who, settings)?.0),
            None => None,
        };
        let here = match &session {
            Some(session) => session.working_directory(),
            None => settings.policy.served().home.clone(),
        };
        let here = match &start.working_directory {
            Some(path) => here.join(std::ffi::OsStr::from_bytes(path)),
            None => here,
        };
        Ok((session, here.into_os_string().into_vec()))
    }

    fn begin(
        &self,
        start: &proto::Start,
        settings: &Settings,
        place: &Attachment,
        record: &mut Record,
    ) -> Result<Job, Unbegun> {
        if self.draining {
            return Err(job::unsuitable(proto::NotStartedClass::HostFull, "the server stops").into());
        }
        let (session, directory) = self.place_of(start, settings)?;
        record.subject.working_directory = directory;
        let mut request = job::request(start, session)
            .ok_or_else(|| job::unsuitable(proto::NotStartedClass::Incompatible, "there is no command"))?;
        request.key = Some(record.owner.key(&record.id));
        request.note = record.note(start);
        request.linger = record.linger;
        let permitted =
            settings.policy.permit(&self.who, request).map_err(|refusal| job::refused(&refusal))?;
        let limits = settings.limits.engine(job::timeout(start));
        let begun = Engine::begin(&settings.engine, permitted, limits, place.observer());
        match begun.map_err(|error| Unbegun::of(&error))? {
            Begun::Started(job) => Ok(job),
            Begun::Later(later) => Err(Unbegun::Later(later)),
        }
    }

    /// Moves what is new of a job: credit for its stdin, its output, its receipt.
    fn attend(&mut self, channel: u32) -> std::io::Result<()> {
        let place = self.place(channel);
        let Some(Served { entry, stopped }) = self.jobs.get_mut(&channel) else { return Ok(()) };
        if !entry.is_at(&place) || entry.is_detaching() {
            return Ok(());
        }
        let job = &entry.job;
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
            let receipt = entry.subject().ended(&self.settings.borrow(), &ended, self.host_key.as_ref());
            self.ended.push((job.pid(), ended.outcome()));
            self.link.end.receipt(channel, &receipt);
            if let Some(Served { entry, .. }) = self.jobs.remove(&channel) {
                self.keep_until_settled(channel, entry);
            }
            if self.jobs.is_empty() {
                self.link.release();
            }
        } else if self.link.carrier.pending() >= HIGH_WATER {
            self.bell.mark(channel);
        }
        Ok(())
    }

    /// A receipt that is lost on its way is given again, until the client says that it has it.
    fn keep_until_settled(&mut self, channel: u32, entry: Arc<Entry>) {
        let registry = self.settings.borrow().registry.clone();
        if entry.linger().is_zero() {
            return registry.forget(&entry);
        }
        self.unsettled.push_back((channel, entry));
        if self.unsettled.len() > limits::JOBS as usize
            && let Some((_, oldest)) = self.unsettled.pop_front()
        {
            registry.forget_unsettled(&oldest);
        }
    }

    /// The connection is over. Where the client has said that it goes, its jobs are ended; where it is lost, they are kept for
    /// who comes back.
    fn leave(self) {
        if self.settings.borrow().engine.is_leaving() {
            return;
        }
        let settings = self.settings.borrow().clone();
        for waiting in self.waiting.values() {
            if self.left || waiting.start.linger_ms == 0 {
                settings.registry.give_up(&Owner::of(&self.who), &waiting.start.job_id);
            }
        }
        for (channel, Served { entry, .. }) in self.jobs {
            let place = Attachment { bell: self.bell.clone(), channel };
            if !entry.is_at(&place) {
                continue;
            }
            if entry.is_detaching() {
                // Whoever asked for that wants it to go on.
                settings.registry.lose(&entry, &place, settings.max_unattended);
            } else if self.left || entry.linger().is_zero() {
                settings.registry.forget(&entry);
                end_unseen(entry.job.clone(), settings.vanished_grace, EndReason::ClientGone);
            } else {
                settings.registry.lose(&entry, &place, settings.max_unattended);
            }
        }
        for (channel, entry) in self.unsettled {
            if self.left {
                settings.registry.forget(&entry);
            } else {
                let place = Attachment { bell: self.bell.clone(), channel };
                settings.registry.lose(&entry, &place, settings.max_unattended);
            }
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
