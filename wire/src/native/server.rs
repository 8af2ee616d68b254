//! The server's end of a connection, as a state machine.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::fault::Fault;
use super::frame::{Decoder, Kind, Piece, Stream, data_header};
use super::queue::{check_channel, code, output_stream, output_window, parse, push, push_bytes, push_fault};
use super::stream::{Incoming, Outgoing};
use super::{VERSION_MAX, VERSION_MIN, proto};
use crate::limits;

/// Something that happened on a server's connection.
#[derive(Clone, Debug, PartialEq)]
pub enum ServerEvent {
    /// The client said hello.
    Hello(proto::ClientHello),
    /// Unsigned offers. To be answered with [`Server::reply_offer`].
    Offer {
        /// The account they are for.
        user: String,
        /// Public key blobs.
        keys: Vec<Vec<u8>>,
    },
    /// A proof of identity. To be answered with [`Server::accept`] or [`Server::deny`]; until then no event follows.
    Authenticate {
        /// The account asked for.
        user: String,
        /// The proof.
        proof: proto::authenticate::Proof,
    },
    /// A job is asked for, or is gone on with where the start has a `resume`. Its last answer is [`Server::receipt`], or
    /// [`Server::detach`].
    Start {
        /// Its channel.
        channel: u32,
        /// The request.
        start: Box<proto::Start>,
    },
    /// Bytes of a job's stdin, in order and without gaps.
    Data {
        /// The job's channel.
        channel: u32,
        /// Absolute offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// A job's stdin ended.
    End {
        /// The job's channel.
        channel: u32,
        /// Its whole length.
        length: u64,
    },
    /// The client takes more of an output stream.
    Credit {
        /// The job's channel.
        channel: u32,
        /// Which stream.
        stream: Stream,
    },
    /// The client wants no more of an output stream.
    Stop {
        /// The job's channel.
        channel: u32,
        /// Which stream.
        stream: Stream,
    },
    /// A signal for a job's process group.
    Signal {
        /// The job's channel.
        channel: u32,
        /// The signal's name without `SIG`, unchecked.
        name: String,
    },
    /// The window of a job's terminal has another size.
    Resize {
        /// The job's channel.
        channel: u32,
        /// Each number is 65535 at most.
        size: proto::WindowSize,
    },
    /// A job is to be ended.
    Close {
        /// The job's channel.
        channel: u32,
    },
    /// A question that needs no job. To be answered with [`Server::answer`].
    Ask(Box<proto::Ask>),
    /// The client has a job's receipt: the job may be forgotten.
    Settled {
        /// Whatever the client says is the job's id: 16 bytes.
        job_id: Vec<u8>,
    },
    /// The client goes for good: nobody comes back for what runs here.
    Leave,
    /// The client ends the connection because of this.
    Fault {
        /// Its code.
        code: u32,
        /// Its text, the client's words.
        text: String,
    },
}

/// What the server says of itself in its hello.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// 32 fresh random bytes.
    pub nonce: [u8; limits::NONCE],
    /// This boot of the host.
    pub boot_id: [u8; 16],
    /// The time within which it forgets no job.
    pub epoch: [u8; 16],
    /// Initial credit of every stdin, bytes.
    pub stdin_window: u64,
    /// Jobs at a time.
    pub max_jobs: u32,
    /// Name and version of the software.
    pub software: String,
}

#[derive(Debug)]
struct Job {
    stdin: Incoming,
    stdout: Outgoing,
    stderr: Outgoing,
    /// It is gone on with, and the client doesn't know yet where its stdin is.
    held: bool,
}

impl Job {
    fn outgoing(&mut self, stream: Stream) -> Option<&mut Outgoing> {
        match stream {
            Stream::Stdin => None,
            Stream::Stdout => Some(&mut self.stdout),
            Stream::Stderr => Some(&mut self.stderr),
        }
    }
}

#[derive(Debug)]
enum Phase {
    AwaitHello,
    /// `discarded` counts the frames of jobs that were started behind a proof that failed.
    Unauthenticated {
        output_window: u64,
        discarded: usize,
    },
    Verifying {
        output_window: u64,
    },
    Open {
        output_window: u64,
    },
    Ended,
}

/// The server's end.
#[derive(Debug)]
pub struct Server {
    decoder: Decoder,
    input: BytesMut,
    out: BytesMut,
    phase: Phase,
    jobs: HashMap<u32, Job>,
    last_channel: u32,
    offers_left: usize,
    attempts_left: u32,
    stdin_window: u64,
    max_jobs: u32,
    /// Questions that wait for their answers.
    questions: usize,
}

/// Most bytes behind a failed proof that are thrown away before the connection ends.
const DISCARD: usize = limits::WINDOW_MAX as usize + limits::CONTROL;

impl Server {
    /// A server whose hello is ready to be written.
    pub fn new(greeting: &Greeting) -> Self {
        let mut out = BytesMut::new();
        let stdin_window = greeting.stdin_window.clamp(1, limits::WINDOW_MAX);
        let hello = proto::ServerHello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            nonce: greeting.nonce.to_vec(),
            boot_id: greeting.boot_id.to_vec(),
            epoch: greeting.epoch.to_vec(),
            stdin_window,
            max_jobs: greeting.max_jobs,
            max_control: limits::CONTROL as u32,
            host_certificate: Vec::new(),
            software: greeting.software.clone(),
        };
        push(&mut out, Kind::ServerHello, 0, &hello);
        Server {
            decoder: Decoder::new(),
            input: BytesMut::new(),
            out,
            phase: Phase::AwaitHello,
            jobs: HashMap::new(),
            last_channel: 0,
            offers_left: limits::OFFERS,
            attempts_left: limits::AUTH_ATTEMPTS,
            stdin_window,
            max_jobs: greeting.max_jobs,
            questions: 0,
        }
    }

    /// Where received bytes are appended, before [`Server::poll_event`].
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Control bytes to write, which the caller takes away from the front.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Whether input should be read: not while a proof is being verified, nor while answers to earlier input pile up.
    pub fn wants_input(&self) -> bool {
        self.out.len() < limits::CONTROL_BACKLOG
            && !matches!(self.phase, Phase::Verifying { .. } | Phase::Ended)
    }

    /// Whether the input so far ends at a frame's border.
    pub fn at_border(&self) -> bool {
        self.input.is_empty() && self.decoder.at_border()
    }

    /// Whether the user is authenticated.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    /// Answers unsigned offers with the index of the first acceptable key.
    pub fn reply_offer(&mut self, acceptable: Option<u32>) {
        push(&mut self.out, Kind::OfferReply, 0, &proto::OfferReply { acceptable });
    }

    /// Accepts the user whose proof was the last event.
    pub fn accept(&mut self, host_name: &str) {
        if let Phase::Verifying { output_window } = self.phase {
            self.phase = Phase::Open { output_window };
            self.decoder.set_control_limit(limits::CONTROL);
            let reply =
                proto::AuthReply { accepted: true, attempts_left: 0, host_name: host_name.to_owned() };
            push(&mut self.out, Kind::AuthReply, 0, &reply);
        }
    }

    /// Denies the user whose proof was the last event. False when that was the last attempt: close the connection
    /// once the output is written.
    pub fn deny(&mut self) -> bool {
        if let Phase::Verifying { output_window } = self.phase {
            self.phase = Phase::Unauthenticated { output_window, discarded: 0 };
            self.attempts_left = self.attempts_left.saturating_sub(1);
            let reply = proto::AuthReply {
                accepted: false,
                attempts_left: self.attempts_left,
                host_name: String::new(),
            };
            push(&mut self.out, Kind::AuthReply, 0, &reply);
        }
        self.attempts_left > 0
    }

    /// Tells that no new jobs are wanted.
    pub fn go_away(&mut self, text: &str) {
        push(&mut self.out, Kind::GoAway, 0, &proto::GoAway { text: text.to_owned() });
    }

    /// Ends the connection because of a fault.
    pub fn fail(&mut self, fault: &Fault) {
        push_fault(&mut self.out, fault);
        self.phase = Phase::Ended;
    }

    /// Tells that a job's command runs, its stdin at offset 0.
    pub fn started(&mut self, channel: u32, pid: u64) {
        self.resumed(channel, pid, &proto::StdinPosition::default());
    }

    /// Tells that a job is gone on with, and where its stdin is. To be said before anything else of it.
    pub fn resumed(&mut self, channel: u32, pid: u64, at: &proto::StdinPosition) {
        let Some(job) = self.jobs.get_mut(&channel) else { return };
        let stdin = std::mem::take(&mut job.held).then(|| {
            let window = job.stdin.window();
            job.stdin = Incoming::at(at.received, at.consumed, window);
            // A job that has no stdin is told of none.
            let ended = at.ended || window == 0;
            job.stdin.set_ended(ended);
            if at.stopped {
                job.stdin.stop();
            }
            proto::StdinPosition { ended, ..*at }
        });
        push(&mut self.out, Kind::Started, channel, &proto::Started { pid, stdin });
    }

    /// Closes the channel of a job that goes on elsewhere. Frames for it that are still on their way are ignored.
    pub fn detach(&mut self, channel: u32, text: &str) {
        self.push_detached(channel, text, false);
    }

    /// Closes the channel of a job that is detached, and goes on without any.
    pub fn detached(&mut self, channel: u32, text: &str) {
        self.push_detached(channel, text, true);
    }

    fn push_detached(&mut self, channel: u32, text: &str, detached: bool) {
        if self.jobs.remove(&channel).is_some() {
            let message = proto::Detached { text: text.to_owned(), detached };
            push(&mut self.out, Kind::Detached, channel, &message);
        }
    }

    /// Tells that the command of a job was stopped by a signal (its name without `SIG`), or, without one, that it goes on.
    pub fn stopped(&mut self, channel: u32, signal: Option<&str>) {
        if self.jobs.contains_key(&channel) {
            let signal = signal.unwrap_or_default().to_owned();
            push(&mut self.out, Kind::Stopped, channel, &proto::Stopped { signal });
        }
    }

    /// Answers a question.
    pub fn answer(&mut self, answer: &proto::Answer) {
        self.questions = self.questions.saturating_sub(1);
        push(&mut self.out, Kind::Answer, 0, answer);
    }

    /// An output stream of a job; none when the job is over.
    pub fn outgoing(&mut self, channel: u32, stream: Stream) -> Option<&Outgoing> {
        self.jobs.get_mut(&channel).and_then(|job| job.outgoing(stream)).map(|outgoing| &*outgoing)
    }

    /// Counts `length` bytes of an output stream as sent and gives the frame's header, to be written with them behind all
    /// that is in [`Server::output`]. None beyond the credit, or beyond one frame.
    pub fn data_header(
        &mut self,
        channel: u32,
        stream: Stream,
        length: usize,
    ) -> Option<[u8; limits::FRAME_HEADER + limits::DATA_OFFSET]> {
        if length > limits::DATA_FRAME {
            return None;
        }
        let offset = self.jobs.get_mut(&channel)?.outgoing(stream)?.send(length as u64)?;
        Some(data_header(stream, channel, offset, length as u32))
    }

    /// Ends an output stream after what was sent.
    pub fn end(&mut self, channel: u32, stream: Stream) {
        if let Some(outgoing) = self.jobs.get_mut(&channel).and_then(|job| job.outgoing(stream))
            && !outgoing.ended()
        {
            outgoing.end();
            let end = proto::End { stream: code(stream), length: outgoing.sent() };
            push(&mut self.out, Kind::End, channel, &end);
        }
    }

    /// Notes that a job's stdin is in the command's pipe up to an offset.
    pub fn consume(&mut self, channel: u32, upto: u64) {
        if let Some(job) = self.jobs.get_mut(&channel)
            && let Some((consumed, limit)) = job.stdin.consume(upto)
        {
            let credit = proto::Credit { stream: proto::Stream::Stdin as i32, consumed, limit };
            push(&mut self.out, Kind::Credit, channel, &credit);
        }
    }

    /// The command wants no more stdin.
    pub fn stop_stdin(&mut self, channel: u32) {
        if let Some(job) = self.jobs.get_mut(&channel)
            && job.stdin.stop()
        {
            push(&mut self.out, Kind::Stop, channel, &proto::Stop { stream: proto::Stream::Stdin as i32 });
        }
    }

    /// Ends a job with its receipt. Frames for its channel that are still on their way are ignored.
    pub fn receipt(&mut self, channel: u32, receipt: &proto::Receipt) {
        if self.jobs.remove(&channel).is_some() {
            push(&mut self.out, Kind::Receipt, channel, receipt);
        }
    }

    /// The next event of the input so far; none when more is needed, or while a proof waits for its verdict.
    ///
    /// # Errors
    /// The client's fault. It is told in [`Server::output`], and the connection is unusable.
    pub fn poll_event(&mut self) -> Result<Option<ServerEvent>, Fault> {
        match self.next_event() {
            Ok(event) => Ok(event),
            Err(fault) => {
                self.fail(&fault);
                Err(fault)
            }
        }
    }

    fn next_event(&mut self) -> Result<Option<ServerEvent>, Fault> {
        loop {
            if matches!(self.phase, Phase::Verifying { .. } | Phase::Ended) {
                return Ok(None);
            }
            let before = self.input.len();
            let Some(piece) = self.decoder.next(&mut self.input)? else { return Ok(None) };
            let size = before - self.input.len();
            let event = match piece {
                Piece::Control { kind, channel, body } => self.handle_control(kind, channel, body, size)?,
                Piece::Data { stream, channel, offset, bytes } => {
                    self.handle_data(stream, channel, offset, bytes, size)?
                }
                Piece::Ignored { .. } => None,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// What is sent behind a proof is for an open connection; when the proof failed it is thrown away, up to a bound.
    fn discard(&mut self, kind: Kind, size: usize) -> Result<(), Fault> {
        match &mut self.phase {
            // Without a failed proof nothing can have been sent behind one.
            Phase::Unauthenticated { discarded, .. } if self.attempts_left < limits::AUTH_ATTEMPTS => {
                *discarded += size;
                if *discarded > DISCARD { Err(Fault::UnexpectedKind(kind)) } else { Ok(()) }
            }
            _ => Err(Fault::UnexpectedKind(kind)),
        }
    }

    fn handle_data(
        &mut self,
        stream: Stream,
        channel: u32,
        offset: u64,
        bytes: Bytes,
        size: usize,
    ) -> Result<Option<ServerEvent>, Fault> {
        if stream != Stream::Stdin {
            return Err(Fault::UnexpectedKind(stream.kind()));
        }
        if !self.is_open() {
            return self.discard(stream.kind(), size).map(|()| None);
        }
        let Some(job) = self.jobs.get_mut(&channel) else { return self.late(channel).map(|()| None) };
        if job.held {
            return Err(Fault::UnexpectedKind(stream.kind()));
        }
        job.stdin.handle_data(offset, bytes.len() as u64)?;
        Ok(Some(ServerEvent::Data { channel, offset, bytes }))
    }

    /// A frame for a job that is over crossed its receipt; one for a job that never was is a fault.
    fn late(&self, channel: u32) -> Result<(), Fault> {
        if channel != 0 && channel <= self.last_channel {
            Ok(())
        } else {
            Err(Fault::UnknownChannel(channel))
        }
    }

    fn handle_control(
        &mut self,
        kind: Kind,
        channel: u32,
        body: Bytes,
        size: usize,
    ) -> Result<Option<ServerEvent>, Fault> {
        check_channel(kind, channel)?;
        match kind {
            Kind::Fault => {
                let fault: proto::Fault = parse(kind, body)?;
                self.phase = Phase::Ended;
                return Ok(Some(ServerEvent::Fault { code: fault.code, text: fault.text }));
            }
            Kind::Ping => {
                if body.len() != 8 {
                    return Err(Fault::Malformed { kind, what: "its body isn't eight bytes" });
                }
                push_bytes(&mut self.out, Kind::Pong, 0, &body);
                return Ok(None);
            }
            Kind::Pong => return Ok(None),
            _ => {}
        }
        match (&mut self.phase, kind) {
            (Phase::AwaitHello, Kind::ClientHello) => {
                let hello: proto::ClientHello = parse(kind, body)?;
                if !(VERSION_MIN..=VERSION_MAX).contains(&hello.version) {
                    return Err(Fault::Version { min: hello.version, max: hello.version });
                }
                let output_window = hello.output_window.clamp(1, limits::WINDOW_MAX);
                self.phase = Phase::Unauthenticated { output_window, discarded: 0 };
                Ok(Some(ServerEvent::Hello(hello)))
            }
            (Phase::Unauthenticated { .. }, Kind::Offer) => {
                let offer: proto::Offer = parse(kind, body)?;
                let left = self.offers_left.checked_sub(offer.keys.len()).ok_or(Fault::TooManyAttempts)?;
                if offer.keys.is_empty() {
                    return Err(Fault::Malformed { kind, what: "it offers no key" });
                }
                self.offers_left = left;
                Ok(Some(ServerEvent::Offer { user: offer.user, keys: offer.keys }))
            }
            (Phase::Unauthenticated { output_window, .. }, Kind::Authenticate) => {
                let message: proto::Authenticate = parse(kind, body)?;
                let proof = message.proof.ok_or(Fault::Malformed { kind, what: "it has no proof" })?;
                if self.attempts_left == 0 {
                    return Err(Fault::TooManyAttempts);
                }
                self.phase = Phase::Verifying { output_window: *output_window };
                Ok(Some(ServerEvent::Authenticate { user: message.user, proof }))
            }
            (Phase::Open { output_window }, Kind::Start) => {
                let usual = *output_window;
                self.handle_start(channel, parse(kind, body)?, usual).map(Some)
            }
            (Phase::Open { .. }, Kind::Ask) => {
                self.questions += 1;
                if self.questions > limits::QUESTIONS {
                    return Err(Fault::Malformed { kind, what: "there are too many questions at a time" });
                }
                Ok(Some(ServerEvent::Ask(Box::new(parse(kind, body)?))))
            }
            (Phase::Open { .. }, Kind::Settled) => {
                let job_id = parse::<proto::Settled>(kind, body)?.job_id;
                if job_id.len() != limits::JOB_ID {
                    return Err(Fault::Malformed { kind, what: "its job id isn't 16 bytes" });
                }
                Ok(Some(ServerEvent::Settled { job_id }))
            }
            (Phase::Open { .. }, Kind::Leave) => {
                let _: proto::Leave = parse(kind, body)?;
                Ok(Some(ServerEvent::Leave))
            }
            (Phase::Open { .. }, _) => self.handle_job(kind, channel, body),
            (Phase::Unauthenticated { .. }, kind)
                if kind.code() >= Kind::Start.code()
                    || matches!(kind, Kind::Ask | Kind::Settled | Kind::Leave) =>
            {
                self.discard(kind, size).map(|()| None)
            }
            _ => Err(Fault::UnexpectedKind(kind)),
        }
    }

    fn handle_start(
        &mut self,
        channel: u32,
        start: proto::Start,
        usual_window: u64,
    ) -> Result<ServerEvent, Fault> {
        let malformed = |what| Fault::Malformed { kind: Kind::Start, what };
        if channel <= self.last_channel {
            return Err(Fault::ChannelReused(channel));
        }
        if self.jobs.len() >= self.max_jobs as usize {
            return Err(Fault::TooManyJobs(self.max_jobs));
        }
        if start.job_id.len() != limits::JOB_ID {
            return Err(malformed("its job id isn't 16 bytes"));
        }
        match &start.command {
            None if start.attach.is_some() && start.resume.is_some() => {}
            _ if start.attach.is_some() => {
                return Err(malformed("it attaches and has a command, or no place"));
            }
            None => return Err(malformed("it has no command")),
            Some(proto::start::Command::Argv(argv)) if argv.arguments.is_empty() => {
                return Err(malformed("its argument vector is empty"));
            }
            Some(_) => {}
        }
        if let Some(terminal) = &start.terminal {
            if start.no_stdin {
                return Err(malformed("it has a terminal and no stdin"));
            }
            if terminal.modes.len() > limits::TERMINAL_MODES {
                return Err(malformed("it has too many terminal modes"));
            }
            check_size(Kind::Start, &terminal.size.unwrap_or_default())?;
        }
        let window = output_window(&start, usual_window);
        let position = |position: Option<proto::Position>| match position.unwrap_or_default() {
            at if at.consumed <= at.received && at.received <= at.consumed.saturating_add(window) => {
                Ok(Outgoing::at(at.received, at.consumed, window))
            }
            _ => Err(malformed("it goes on with a stream where nobody can be")),
        };
        let resume = start.resume.unwrap_or_default();
        self.last_channel = channel;
        let job = Job {
            stdin: Incoming::new(if start.no_stdin { 0 } else { self.stdin_window }),
            stdout: position(resume.stdout)?,
            stderr: position(resume.stderr)?,
            held: start.resume.is_some(),
        };
        self.jobs.insert(channel, job);
        Ok(ServerEvent::Start { channel, start: Box::new(start) })
    }

    fn handle_job(&mut self, kind: Kind, channel: u32, body: Bytes) -> Result<Option<ServerEvent>, Fault> {
        let known =
            matches!(kind, Kind::End | Kind::Credit | Kind::Stop | Kind::Signal | Kind::Close | Kind::Resize);
        if !known {
            return Err(Fault::UnexpectedKind(kind));
        }
        let Some(job) = self.jobs.get_mut(&channel) else { return self.late(channel).map(|()| None) };
        match kind {
            Kind::End if job.held => Err(Fault::UnexpectedKind(kind)),
            Kind::End => {
                let end: proto::End = parse(kind, body)?;
                if end.stream() != proto::Stream::Stdin {
                    return Err(Fault::Malformed { kind, what: "it names no stream that the client sends" });
                }
                job.stdin.handle_end(end.length)?;
                Ok(Some(ServerEvent::End { channel, length: end.length }))
            }
            Kind::Credit => {
                let credit: proto::Credit = parse(kind, body)?;
                let stream = output_stream(kind, credit.stream)?;
                let outgoing = job.outgoing(stream).ok_or(Fault::UnexpectedKind(kind))?;
                outgoing.handle_credit(credit.consumed, credit.limit)?;
                Ok(Some(ServerEvent::Credit { channel, stream }))
            }
            Kind::Stop => {
                let stop: proto::Stop = parse(kind, body)?;
                let stream = output_stream(kind, stop.stream)?;
                job.outgoing(stream).ok_or(Fault::UnexpectedKind(kind))?.handle_stop();
                Ok(Some(ServerEvent::Stop { channel, stream }))
            }
            Kind::Signal => {
                Ok(Some(ServerEvent::Signal { channel, name: parse::<proto::Signal>(kind, body)?.name }))
            }
            Kind::Resize => {
                let size: proto::WindowSize = parse(kind, body)?;
                check_size(kind, &size)?;
                Ok(Some(ServerEvent::Resize { channel, size }))
            }
            _ => {
                let _: proto::Close = parse(kind, body)?;
                Ok(Some(ServerEvent::Close { channel }))
            }
        }
    }
}

/// A window's size is four 16-bit numbers (`struct winsize`).
fn check_size(kind: Kind, size: &proto::WindowSize) -> Result<(), Fault> {
    if [size.rows, size.columns, size.width, size.height]
        .into_iter()
        .all(|number| number <= u32::from(u16::MAX))
    {
        Ok(())
    } else {
        Err(Fault::Malformed { kind, what: "its window is larger than any" })
    }
}
