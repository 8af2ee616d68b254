//! A job as its client sees it: streams while it runs, a checked receipt at its end.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use remora_identity::PublicKey;
use remora_identity::statement::{ReceiptFile, VerifyStatementError};
use remora_net::LinkError;
use remora_wire::native::{Client, StartError, Stream, Streams, proto};

use crate::connection::VERDICT;
use crate::evidence::Expected;
use crate::state::Shared;
use crate::stdin::StdinQueue;

/// Why a job has no receipt.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobError {
    /// The host doesn't accept this user. The job was not started.
    #[error("the host does not accept this user")]
    Denied,
    /// The host stops, and has not started the job.
    #[error("the host takes no new jobs: {0}")]
    GoneAway(String),
    /// The connection was lost. Whether and how the job ended is unknown.
    #[error("the connection was lost")]
    Lost(#[source] Arc<LinkError>),
    /// The connection was lost, and couldn't be had again. Whether and how the job ended is unknown.
    #[error("the connection was lost ({lost}), and {} s of trying did not bring it back: {why}", tried.as_secs())]
    GivenUp {
        /// For how long it was tried.
        tried: Duration,
        /// Why the last attempt failed, escaped.
        why: String,
        /// Why it was lost.
        lost: Arc<LinkError>,
    },
    /// Another connection goes on with the job.
    #[error("the job goes on elsewhere: {0}")]
    Elsewhere(String),
    /// The job is detached: it goes on at the host, and can be asked for by its id.
    #[error("the job is detached: {0}")]
    Detached(String),
    /// The connection is there again, and doesn't take the job. Whether and how the job ended is unknown.
    #[error("can't go on with the job")]
    NotResumed(#[source] StartError),
    /// The host ended the connection, naming a fault of ours.
    #[error("the host ended the connection: {text}")]
    Fault {
        /// Its code (docs/PROTOCOL.md).
        code: u32,
        /// Its words, escaped.
        text: String,
    },
    /// The host hasn't said in time whether it accepts this user. What was sent behind the proof may have run.
    #[error("no answer to who you are within {} s", VERDICT.as_secs())]
    NoVerdict,
    /// This side dropped the connection.
    #[error("the connection was given up")]
    Left,
    /// What arrived isn't what the receipt says was sent.
    #[error(
        "{stream} is not what the host sent: {received} bytes arrived, the receipt says {sent}, in doubt are {in_doubt}"
    )]
    Mismatch {
        /// Which stream.
        stream: Stream,
        /// Bytes that arrived.
        received: u64,
        /// Bytes the receipt tells of.
        sent: u64,
        /// Bytes that can't be trusted.
        in_doubt: u64,
    },
    /// The host keeps less than was printed, and says so: the disk that a detached job's output is kept on was full as the job was ended.
    #[error("the host kept {received} bytes of {stream}, and not the {lost} behind them: its disk was full")]
    NotKept {
        /// Which stream.
        stream: Stream,
        /// Bytes that are kept, and arrived.
        received: u64,
        /// Bytes that are gone.
        lost: u64,
    },
    /// The signature over the receipt isn't the host's.
    #[error("the receipt can't be trusted")]
    Signature(#[source] VerifyStatementError),
    /// The receipt contradicts what was asked for, or its own signed statement.
    #[error("the receipt contradicts itself: {0}")]
    Contradiction(String),
}

impl From<LinkError> for JobError {
    fn from(error: LinkError) -> Self {
        JobError::Lost(Arc::new(error))
    }
}

/// A job that is over, with its evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The receipt, which matches what arrived.
    pub receipt: proto::Receipt,
    /// Output streams that this side closed before their end, and that therefore couldn't be checked.
    pub unchecked: Vec<Stream>,
    /// The receipt to keep, where [`Request::sign_receipt`](crate::Request::sign_receipt) asked for it and the host made one: its signature is
    /// verified, and it says what `receipt` says. Not signed on a connection without a host key.
    pub kept: Option<ReceiptFile>,
}

struct Incoming {
    chunks: VecDeque<Bytes>,
    /// Where it begins.
    since: u64,
    received: u64,
    /// Up to here chunks were handed to the reader.
    taken: u64,
    /// Up to here the reader has put them where they belong.
    consumed: u64,
    digest: blake3::Hasher,
    ended: bool,
    stopped: bool,
    waker: Option<Waker>,
}

impl Incoming {
    fn new() -> Self {
        Incoming {
            chunks: VecDeque::new(),
            since: 0,
            received: 0,
            taken: 0,
            consumed: 0,
            digest: blake3::Hasher::new(),
            ended: false,
            stopped: false,
            waker: None,
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Whether what arrived is what was printed, but for its last bytes, of which the host says that it doesn't keep them.
    fn check(&self, stream: Stream, report: Option<&proto::StreamReport>, lost: u64) -> Result<(), JobError> {
        let (sent, digest) =
            report.map_or((0, [].as_slice()), |report| (report.length, report.blake3.as_slice()));
        let mismatch = |in_doubt| JobError::Mismatch { stream, received: self.received, sent, in_doubt };
        if lost > 0 && self.received.checked_add(lost) == Some(sent) {
            return Err(JobError::NotKept { stream, received: self.received, lost });
        }
        if sent != self.received {
            return Err(mismatch(self.received.max(sent)));
        }
        // A job that never ran has no digests, and nothing to check.
        if report.is_some() && self.since == 0 && digest != self.digest.finalize().as_bytes() {
            return Err(mismatch(self.received));
        }
        Ok(())
    }
}

/// Signals that wait for a connection, at the most.
const SIGNALS: usize = 16;

pub(crate) struct JobState {
    /// What asks for it, again on each connection.
    pub(crate) start: proto::Start,
    /// Some connection has been asked for it.
    pub(crate) sent: bool,
    /// Where its streams were when the last connection was lost.
    pub(crate) streams: Option<Streams>,
    /// Nobody waits for it.
    pub(crate) dropped: bool,
    /// The host was asked to end it.
    closing: bool,
    /// Signals that wait for a connection.
    signals: Vec<String>,
    /// The last size of its terminal that was told.
    size: Option<proto::WindowSize>,
    stdout: Incoming,
    stderr: Incoming,
    pub(crate) stdin: StdinQueue,
    pid: Option<u64>,
    /// The signal that stopped the command, while it is stopped.
    stopped: Option<String>,
    /// What the receipt is compared with, where it is to be kept.
    expected: Option<Expected>,
    result: Option<Result<Finished, JobError>>,
    waker: Option<Waker>,
    stop_waker: Option<Waker>,
}

impl JobState {
    pub(crate) fn new(stdin: bool, expected: Option<Expected>) -> Self {
        JobState {
            expected,
            start: proto::Start::default(),
            sent: false,
            streams: None,
            dropped: false,
            closing: false,
            signals: Vec::new(),
            size: None,
            stdout: Incoming::new(),
            stderr: Incoming::new(),
            stdin: if stdin { StdinQueue::default() } else { StdinQueue::closed() },
            pid: None,
            stopped: None,
            result: None,
            waker: None,
            stop_waker: None,
        }
    }

    /// Its streams begin here: what lies before nobody has asked for.
    pub(crate) fn begin_at(&mut self, since: [u64; 2]) {
        let [stdout, stderr] = since;
        for (incoming, at) in [(&mut self.stdout, stdout), (&mut self.stderr, stderr)] {
            (incoming.since, incoming.received, incoming.taken, incoming.consumed) = (at, at, at, at);
        }
    }

    fn incoming(&mut self, stream: Stream) -> &mut Incoming {
        if stream == Stream::Stderr { &mut self.stderr } else { &mut self.stdout }
    }

    pub(crate) fn handle_data(&mut self, stream: Stream, bytes: Bytes) {
        let incoming = self.incoming(stream);
        incoming.received += bytes.len() as u64;
        if !incoming.stopped {
            incoming.digest.update(&bytes);
            incoming.chunks.push_back(bytes);
            incoming.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    pub(crate) fn handle_end(&mut self, stream: Stream) {
        self.incoming(stream).end();
    }

    pub(crate) fn handle_started(&mut self, pid: u64) {
        self.pid = Some(pid);
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    pub(crate) fn handle_stopped(&mut self, signal: Option<String>) {
        self.stopped = signal;
        self.stop_waker.take().into_iter().for_each(Waker::wake);
    }

    /// Whether there is a result.
    pub(crate) fn is_over(&self) -> bool {
        self.result.is_some()
    }

    /// Asks another connection for it: to go on with it, or at all.
    pub(crate) fn go_on(
        &mut self,
        end: &mut Client,
        channel: u32,
        epoch: &[u8],
        attempt: u32,
    ) -> Result<(), StartError> {
        match &self.streams {
            Some(streams) if self.sent => {
                end.resume(channel, &mut self.start, streams, self.pid.is_some(), attempt)?;
            }
            _ => {
                epoch.clone_into(&mut self.start.epoch);
                end.start_on(channel, &self.start)?;
                self.sent = true;
            }
        }
        for (stream, incoming) in [(Stream::Stdout, &self.stdout), (Stream::Stderr, &self.stderr)] {
            if incoming.stopped {
                end.stop(channel, stream);
            } else {
                end.consume(channel, stream, incoming.consumed);
            }
        }
        if let Some(size) = &self.size {
            end.resize(channel, size);
        }
        self.signals.drain(..).for_each(|name| end.signal(channel, &name));
        if self.closing || self.dropped {
            end.close(channel);
        }
        Ok(())
    }

    /// Takes the receipt; whether the host waits for a word that it is here. `host_key` is the one that the host has proven to have.
    pub(crate) fn handle_receipt(
        &mut self,
        mut receipt: proto::Receipt,
        host_key: Option<&PublicKey>,
    ) -> bool {
        // What is proven is not taken from what is said.
        receipt.host_key_fingerprint = host_key.map(PublicKey::fingerprint).unwrap_or_default();
        let mut unchecked = Vec::new();
        let mut result = Ok(());
        let not_started = match &receipt.outcome {
            Some(proto::receipt::Outcome::NotStarted(why)) => Some(why.class()),
            _ => None,
        };
        if not_started == Some(proto::NotStartedClass::Unknown) {
            // What arrived before is all there is, and nothing can be said of it.
            let unchecked = vec![Stream::Stdout, Stream::Stderr];
            self.finish(Ok(Finished { receipt, unchecked, kept: None }));
            return self.start.linger_ms > 0;
        }
        let spool = receipt.spool.unwrap_or_default();
        for (stream, incoming, report, lost) in [
            (Stream::Stdout, &self.stdout, receipt.stdout.as_ref(), spool.stdout_lost),
            (Stream::Stderr, &self.stderr, receipt.stderr.as_ref(), spool.stderr_lost),
        ] {
            if incoming.stopped || incoming.since > 0 {
                unchecked.push(stream);
            }
            if !incoming.stopped {
                result = result.and_then(|()| incoming.check(stream, report, lost));
            }
        }
        let kept = result.and_then(|()| match &self.expected {
            Some(expected) => expected.check(&receipt, host_key),
            None => Ok(None),
        });
        self.finish(kept.map(|kept| Finished { receipt, unchecked, kept }));
        self.start.linger_ms > 0 && not_started.is_none()
    }

    pub(crate) fn fail(&mut self, error: &JobError) {
        if self.result.is_none() {
            self.finish(Err(error.clone()));
        }
    }

    fn finish(&mut self, result: Result<Finished, JobError>) {
        self.result = Some(result);
        self.stdout.end();
        self.stderr.end();
        self.stdin.discard();
        self.stopped = None;
        self.waker.take().into_iter().for_each(Waker::wake);
        self.stop_waker.take().into_iter().for_each(Waker::wake);
    }
}

/// A job: its signals and its end. Its streams are taken from it once each.
pub struct Job {
    shared: Arc<Shared>,
    channel: u32,
    taken: [bool; 3],
}

impl Job {
    pub(crate) fn new(shared: Arc<Shared>, channel: u32) -> Self {
        Job { shared, channel, taken: [false; 3] }
    }

    /// The writing end of its stdin; none the second time.
    pub fn stdin(&mut self) -> Option<Writer> {
        let [taken, ..] = &mut self.taken;
        (!std::mem::replace(taken, true)).then(|| Writer {
            shared: self.shared.clone(),
            channel: self.channel,
            finished: false,
        })
    }

    /// The reading end of its stdout; none the second time. Dropping it early closes the stream on the host.
    pub fn stdout(&mut self) -> Option<Reader> {
        let [_, taken, _] = &mut self.taken;
        (!std::mem::replace(taken, true)).then(|| Reader::new(&self.shared, self.channel, Stream::Stdout))
    }

    /// The reading end of its stderr; none the second time. Dropping it early closes the stream on the host.
    pub fn stderr(&mut self) -> Option<Reader> {
        let [_, _, taken] = &mut self.taken;
        (!std::mem::replace(taken, true)).then(|| Reader::new(&self.shared, self.channel, Stream::Stderr))
    }

    /// Sends a signal to the job's process group, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let mut state = self.shared.lock();
        if let Some(end) = state.end() {
            end.signal(self.channel, name);
        } else if let Some(job) = state.jobs.get_mut(&self.channel)
            && job.signals.len() < SIGNALS
        {
            job.signals.push(name.to_owned());
        }
        state.wake();
    }

    /// Tells the job that the window of its terminal has another size.
    pub fn resize(&self, size: &proto::WindowSize) {
        let mut state = self.shared.lock();
        if let Some(job) = state.jobs.get_mut(&self.channel) {
            job.size = Some(*size);
        }
        if let Some(end) = state.end() {
            end.resize(self.channel, size);
        }
        state.wake();
    }

    /// Asks the host to end the job: SIGTERM, then SIGKILL after the host's grace time. Its receipt still comes.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        if let Some(job) = state.jobs.get_mut(&self.channel) {
            job.closing = true;
        }
        if let Some(end) = state.end() {
            end.close(self.channel);
        }
        state.wake();
    }

    /// Waits until the command runs and gives its process id on the host; none when the job ended without running.
    pub async fn started(&self) -> Option<u64> {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            let Some(job) = state.jobs.get_mut(&self.channel) else { return Poll::Ready(None) };
            if job.pid.is_some() || job.result.is_some() {
                return Poll::Ready(job.pid);
            }
            job.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until the host tells that the command was stopped, and gives the signal's name without `SIG`, unchecked. Never ready
    /// for a job without job control, nor once it is over.
    pub async fn stopped(&self) -> String {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            let Some(job) = state.jobs.get_mut(&self.channel) else { return Poll::Pending };
            match &job.stopped {
                Some(signal) => Poll::Ready(signal.clone()),
                None => {
                    job.stop_waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Lets a stopped command go on.
    pub fn resume(&self) {
        if let Some(job) = self.shared.lock().jobs.get_mut(&self.channel) {
            // Known at once here, so that who waits for the next stop doesn't see the last one.
            job.stopped = None;
        }
        self.signal("CONT");
    }

    /// Waits for the receipt. Lengths and digests of both output streams have been compared with what arrived. Both
    /// must be read meanwhile, or dropped: a full window holds the command back.
    ///
    /// # Errors
    /// [`JobError`] where there is no receipt, or one that doesn't match.
    pub async fn wait(&self) -> Result<Finished, JobError> {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            let Some(job) = state.jobs.get_mut(&self.channel) else {
                return Poll::Ready(Err(JobError::Left));
            };
            match &job.result {
                Some(result) => Poll::Ready(result.clone()),
                None => {
                    job.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        match state.jobs.get_mut(&self.channel) {
            Some(job) if !job.is_over() => {
                // A job that nobody waits for must not run on unseen.
                job.dropped = true;
                state.drop_job(self.channel);
            }
            _ => drop(state.jobs.remove(&self.channel)),
        }
    }
}

/// The reading end of an output stream.
pub struct Reader {
    shared: Arc<Shared>,
    channel: u32,
    stream: Stream,
}

impl Reader {
    fn new(shared: &Arc<Shared>, channel: u32, stream: Stream) -> Self {
        Reader { shared: shared.clone(), channel, stream }
    }

    /// The next bytes; none at the end. Asking for more says that what came before is where it belongs.
    pub async fn next(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`Reader::next`] as a poll function.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.shared.lock();
        let Some(job) = state.jobs.get_mut(&self.channel) else { return Poll::Ready(None) };
        let incoming = job.incoming(self.stream);
        let taken = incoming.taken;
        incoming.consumed = taken;
        let next = match incoming.chunks.pop_front() {
            Some(chunk) => {
                incoming.taken += chunk.len() as u64;
                Poll::Ready(Some(chunk))
            }
            None if incoming.ended => Poll::Ready(None),
            None => {
                incoming.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        };
        state.consume(self.channel, self.stream, taken);
        next
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        let Some(job) = state.jobs.get_mut(&self.channel) else { return };
        let incoming = job.incoming(self.stream);
        if !incoming.ended {
            incoming.stopped = true;
            incoming.chunks.clear();
            if let Some(end) = state.end() {
                end.stop(self.channel, self.stream);
            }
            state.wake();
        }
    }
}

/// The writing end of a job's stdin. Dropping it ends the stream.
pub struct Writer {
    shared: Arc<Shared>,
    channel: u32,
    finished: bool,
}

impl Writer {
    /// Hands over bytes, once there is room for them. False when the command reads no more.
    pub async fn write(&mut self, bytes: Bytes) -> bool {
        let mut bytes = Some(bytes);
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            let Some(job) = state.jobs.get_mut(&self.channel) else { return Poll::Ready(false) };
            if job.stdin.is_closed() {
                return Poll::Ready(false);
            }
            if !job.stdin.has_room() {
                job.stdin.wait(cx);
                return Poll::Pending;
            }
            job.stdin.push(bytes.take().unwrap_or_default());
            state.send(self.channel);
            Poll::Ready(true)
        })
        .await
    }

    /// Lets it go without an end: others may write on.
    pub fn leave_open(mut self) {
        self.finished = true;
    }

    /// Waits until the command reads no more, or the job is over.
    pub async fn closed(&self) {
        poll_fn(|cx| {
            let mut state = self.shared.lock();
            match state.jobs.get_mut(&self.channel) {
                Some(job) if !job.stdin.is_closed() => {
                    job.stdin.wait(cx);
                    Poll::Pending
                }
                _ => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Ends the stream.
    pub fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let mut state = self.shared.lock();
        if let Some(job) = state.jobs.get_mut(&self.channel) {
            job.stdin.finish();
            state.send(self.channel);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.finish();
    }
}
