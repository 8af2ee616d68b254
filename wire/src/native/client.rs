//! The client's end of a connection, as a state machine.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

use super::fault::Fault;
use super::frame::{Decoder, Kind, Piece, Stream, data_header};
use super::queue::{check_channel, code, output_stream, output_window, parse, push, push_bytes, push_fault};
use super::stream::{Incoming, Outgoing};
use super::{VERSION_MAX, VERSION_MIN, proto};
use crate::limits;

/// Something that happened on a client's connection.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent {
    /// The server said hello. Authentication and jobs may follow at once, in one flight.
    Hello(proto::ServerHello),
    /// The answer to unsigned offers: the index of the acceptable key, if any.
    OfferReply(Option<u32>),
    /// The user is accepted; jobs that were started behind the proof run.
    Accepted {
        /// What the host calls itself.
        host_name: String,
    },
    /// The user isn't accepted; jobs that were started behind the proof are forgotten on both sides.
    Denied {
        /// Attempts this connection has left.
        attempts_left: u32,
    },
    /// The command of a job runs.
    Started {
        /// The job's channel.
        channel: u32,
        /// Process id on the host.
        pid: u64,
        /// It was gone on with: [`Client::stdin`] tells where its stdin is.
        resumed: bool,
    },
    /// The command of a job with job control was stopped, or goes on.
    Stopped {
        /// The job's channel.
        channel: u32,
        /// The signal that stopped it, its name without `SIG`, unchecked; none when it goes on.
        signal: Option<String>,
    },
    /// The answer to a question.
    Answer(Box<proto::Answer>),
    /// Bytes of an output stream, in order and without gaps.
    Data {
        /// The job's channel.
        channel: u32,
        /// Stdout or stderr.
        stream: Stream,
        /// Absolute offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// An output stream ended.
    End {
        /// The job's channel.
        channel: u32,
        /// Stdout or stderr.
        stream: Stream,
        /// Its whole length.
        length: u64,
    },
    /// The host takes more of a job's stdin, or none at all any more.
    Room {
        /// The job's channel.
        channel: u32,
    },
    /// A job is over.
    Receipt {
        /// The job's channel, which is free of it now.
        channel: u32,
        /// How it ended, with the evidence.
        receipt: Box<proto::Receipt>,
    },
    /// A job goes on, and no more on this connection.
    Detached {
        /// The job's channel, which is free of it now.
        channel: u32,
        /// Why, for people.
        text: String,
        /// It goes on without any connection.
        detached: bool,
    },
    /// No new jobs, please.
    GoAway {
        /// Why, for people.
        text: String,
    },
    /// The answer to a ping.
    Pong([u8; 8]),
    /// The server ends the connection because of this.
    Fault {
        /// Its code.
        code: u32,
        /// Its text, the server's words.
        text: String,
    },
}

/// Why a job can't be asked for on this connection. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The server hasn't said hello, or the connection has ended.
    #[error("the connection isn't open")]
    NotGreeted,
    /// Arguments and environment are longer than the server takes.
    #[error("arguments and environment take {size} bytes, and the host takes {limit}")]
    TooLarge {
        /// Encoded size, bytes.
        size: usize,
        /// The server's limit, bytes.
        limit: usize,
    },
    /// As many jobs run on this connection as the server allows.
    #[error("{0} jobs run on this connection, and the host allows no more")]
    TooManyJobs(u32),
    /// Every channel number was used.
    #[error("the connection has used all its channel numbers")]
    NoChannel,
}

/// How far a job's streams are: what a new connection needs, to go on where the last one was lost.
#[derive(Clone, Copy, Debug)]
pub struct Streams {
    stdin: Outgoing,
    stdout: Incoming,
    stderr: Incoming,
}

impl Streams {
    /// Where its client goes on. `known`: the host has said that it has the job. `attempt` counts connections from 1.
    fn resume(&self, known: bool, attempt: u32) -> proto::Resume {
        proto::Resume {
            stdout: Some(self.stdout.position()),
            stderr: Some(self.stderr.position()),
            known,
            attempt,
            stdin: None,
        }
    }
}

type Job = Streams;

impl Job {
    fn incoming(&mut self, stream: Stream) -> Option<&mut Incoming> {
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
    Greeted { stdin_window: u64, control_limit: usize, max_jobs: u32, open: bool },
    Ended,
}

/// The client's end.
#[derive(Debug)]
pub struct Client {
    decoder: Decoder,
    input: BytesMut,
    out: BytesMut,
    phase: Phase,
    jobs: HashMap<u32, Job>,
    last_channel: u32,
    output_window: u64,
}

impl Client {
    /// A client that keeps up to `output_window` bytes of each output stream until they are consumed.
    pub fn new(output_window: u64) -> Self {
        let mut decoder = Decoder::new();
        decoder.set_control_limit(limits::CONTROL);
        Client {
            decoder,
            input: BytesMut::new(),
            out: BytesMut::new(),
            phase: Phase::AwaitHello,
            jobs: HashMap::new(),
            last_channel: 0,
            output_window: output_window.clamp(1, limits::WINDOW_MAX),
        }
    }

    /// Where received bytes are appended, before [`Client::poll_event`].
    pub fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Control bytes to write, which the caller takes away from the front.
    pub fn output(&mut self) -> &mut BytesMut {
        &mut self.out
    }

    /// Whether input should be read: not while answers to earlier input pile up.
    pub fn wants_input(&self) -> bool {
        self.out.len() < limits::CONTROL_BACKLOG
    }

    /// Whether the input so far ends at a frame's border. False at the end of input: the server stopped half-way.
    pub fn at_border(&self) -> bool {
        self.input.is_empty() && self.decoder.at_border()
    }

    /// Jobs that have no receipt yet.
    pub fn running(&self) -> usize {
        self.jobs.len()
    }

    /// Says hello. To be called once, after the server's hello.
    pub fn hello(&mut self, software: &str) {
        let hello = proto::ClientHello {
            version: VERSION_MAX,
            output_window: self.output_window,
            software: software.to_owned(),
        };
        push(&mut self.out, Kind::ClientHello, 0, &hello);
    }

    /// Asks which of these keys would be accepted.
    pub fn offer(&mut self, user: &str, keys: Vec<Vec<u8>>) {
        push(&mut self.out, Kind::Offer, 0, &proto::Offer { user: user.to_owned(), keys });
    }

    /// Sends the proof of who the user is. Jobs may be started behind it without waiting.
    pub fn authenticate(&mut self, user: &str, proof: proto::authenticate::Proof) {
        let message = proto::Authenticate { user: user.to_owned(), proof: Some(proof) };
        push(&mut self.out, Kind::Authenticate, 0, &message);
    }

    /// Sends eight bytes that come back.
    pub fn ping(&mut self, payload: [u8; 8]) {
        push_bytes(&mut self.out, Kind::Ping, 0, &payload);
    }

    /// Starts a job, and gives its channel.
    ///
    /// # Errors
    /// [`StartError`]; nothing was sent then.
    pub fn start(&mut self, start: &proto::Start) -> Result<u32, StartError> {
        let channel = self.last_channel.checked_add(1).ok_or(StartError::NoChannel)?;
        self.start_on(channel, start)?;
        Ok(channel)
    }

    /// Starts a job on a channel of the caller's choice, above all before it: one that was asked for while there was no connection.
    ///
    /// # Errors
    /// [`StartError`]; nothing was sent then.
    pub fn start_on(&mut self, channel: u32, start: &proto::Start) -> Result<(), StartError> {
        let Phase::Greeted { stdin_window, control_limit, max_jobs, .. } = self.phase else {
            return Err(StartError::NotGreeted);
        };
        let size = prost::Message::encoded_len(start);
        if size > control_limit {
            return Err(StartError::TooLarge { size, limit: control_limit });
        }
        if self.jobs.len() >= max_jobs as usize {
            return Err(StartError::TooManyJobs(max_jobs));
        }
        if channel <= self.last_channel {
            return Err(StartError::NoChannel);
        }
        self.last_channel = channel;
        let mut stdin = Outgoing::new(if start.no_stdin { 0 } else { stdin_window });
        if start.no_stdin {
            // The start has said so: there is no end to tell.
            stdin.end();
        }
        let window = output_window(start, self.output_window);
        let mut job = Job { stdin, stdout: Incoming::new(window), stderr: Incoming::new(window) };
        if let (Some(_), Some(resume)) = (&start.attach, &start.resume) {
            let at = |position: Option<proto::Position>| {
                let proto::Position { received, consumed } = position.unwrap_or_default();
                Incoming::at(received, consumed, window)
            };
            job = Job { stdin: Outgoing::anywhere(), stdout: at(resume.stdout), stderr: at(resume.stderr) };
        }
        self.jobs.insert(channel, job);
        push(&mut self.out, Kind::Start, channel, start);
        Ok(())
    }

    /// Sends again the start of a job that a lost connection had, on the channel it had there, to go on with it where `streams`
    /// are. Jobs come in the order of their channels. `known`: the host has said that it has the job. `attempt` counts
    /// connections from 1.
    ///
    /// # Errors
    /// [`StartError`]; nothing was sent then.
    pub fn resume(
        &mut self,
        channel: u32,
        start: &mut proto::Start,
        streams: &Streams,
        known: bool,
        attempt: u32,
    ) -> Result<(), StartError> {
        let mut resume = streams.resume(known, attempt);
        if start.attach.is_some() && !streams.stdin.held() {
            let (received, consumed) = (streams.stdin.sent(), streams.stdin.consumed());
            resume.stdin = Some(proto::Position { received, consumed });
        }
        start.resume = Some(resume);
        self.start_on(channel, start)?;
        if let Some(job) = self.jobs.get_mut(&channel) {
            job.stdin = streams.stdin.hold();
            job.stdout = streams.stdout.again();
            job.stderr = streams.stderr.again();
        }
        Ok(())
    }

    /// The streams of a job, to go on with it on another connection; none when it is over.
    pub fn streams(&self, channel: u32) -> Option<Streams> {
        self.jobs.get(&channel).copied()
    }

    /// Number of the last channel that was used.
    pub fn last_channel(&self) -> u32 {
        self.last_channel
    }

    /// Tells that the receipt of a job is here and was checked: the host may forget the job.
    pub fn settle(&mut self, job_id: &[u8]) {
        push(&mut self.out, Kind::Settled, 0, &proto::Settled { job_id: job_id.to_vec() });
    }

    /// Tells that nobody comes back for what runs here.
    pub fn leave(&mut self) {
        push(&mut self.out, Kind::Leave, 0, &proto::Leave {});
    }

    /// The stdin of a job; none when the job is over.
    pub fn stdin(&self, channel: u32) -> Option<&Outgoing> {
        self.jobs.get(&channel).map(|job| &job.stdin)
    }

    /// Counts `length` bytes of stdin as sent and gives the frame's header, to be written with them behind all that is
    /// in [`Client::output`]. None beyond the credit, or beyond one frame.
    pub fn stdin_header(
        &mut self,
        channel: u32,
        length: usize,
    ) -> Option<[u8; limits::FRAME_HEADER + limits::DATA_OFFSET]> {
        if length > limits::DATA_FRAME {
            return None;
        }
        let offset = self.jobs.get_mut(&channel)?.stdin.send(length as u64)?;
        Some(data_header(Stream::Stdin, channel, offset, length as u32))
    }

    /// Ends a job's stdin after what was sent.
    pub fn end_stdin(&mut self, channel: u32) {
        if let Some(job) = self.jobs.get_mut(&channel)
            && !job.stdin.ended()
            && !job.stdin.held()
        {
            job.stdin.end();
            let end = proto::End { stream: proto::Stream::Stdin as i32, length: job.stdin.sent() };
            push(&mut self.out, Kind::End, channel, &end);
        }
    }

    /// Notes that an output stream is where it belongs up to an offset.
    pub fn consume(&mut self, channel: u32, stream: Stream, upto: u64) {
        if let Some(incoming) = self.jobs.get_mut(&channel).and_then(|job| job.incoming(stream))
            && let Some((consumed, limit)) = incoming.consume(upto)
        {
            push(
                &mut self.out,
                Kind::Credit,
                channel,
                &proto::Credit { stream: code(stream), consumed, limit },
            );
        }
    }

    /// Wants no more of an output stream.
    pub fn stop(&mut self, channel: u32, stream: Stream) {
        if let Some(incoming) = self.jobs.get_mut(&channel).and_then(|job| job.incoming(stream))
            && incoming.stop()
        {
            push(&mut self.out, Kind::Stop, channel, &proto::Stop { stream: code(stream) });
        }
    }

    /// Sends a signal to a job's process group, by its name without `SIG`.
    pub fn signal(&mut self, channel: u32, name: &str) {
        if self.jobs.contains_key(&channel) {
            push(&mut self.out, Kind::Signal, channel, &proto::Signal { name: name.to_owned() });
        }
    }

    /// Tells that the window of a job's terminal has another size.
    pub fn resize(&mut self, channel: u32, size: &proto::WindowSize) {
        if self.jobs.contains_key(&channel) {
            push(&mut self.out, Kind::Resize, channel, size);
        }
    }

    /// Asks something that needs no job. Up to [`limits::QUESTIONS`] may wait for their answers.
    pub fn ask(&mut self, ask: &proto::Ask) {
        push(&mut self.out, Kind::Ask, 0, ask);
    }

    /// Asks the host to end a job. Its receipt still comes.
    pub fn close(&mut self, channel: u32) {
        if self.jobs.contains_key(&channel) {
            push(&mut self.out, Kind::Close, channel, &proto::Close {});
        }
    }

    /// The next event of the input so far; none when more is needed.
    ///
    /// # Errors
    /// The server's fault. It is told in [`Client::output`], and the connection is unusable.
    pub fn poll_event(&mut self) -> Result<Option<ClientEvent>, Fault> {
        if matches!(self.phase, Phase::Ended) {
            return Ok(None);
        }
        match self.next_event() {
            Ok(event) => Ok(event),
            Err(fault) => {
                push_fault(&mut self.out, &fault);
                self.phase = Phase::Ended;
                Err(fault)
            }
        }
    }

    fn next_event(&mut self) -> Result<Option<ClientEvent>, Fault> {
        while let Some(piece) = self.decoder.next(&mut self.input)? {
            let event = match piece {
                Piece::Control { kind, channel, body } => self.handle_control(kind, channel, body)?,
                Piece::Data { stream, channel, offset, bytes } => {
                    self.expect_open(stream.kind())?;
                    let job = self.jobs.get_mut(&channel).ok_or(Fault::UnknownChannel(channel))?;
                    if job.stdin.held() {
                        return Err(Fault::UnexpectedKind(stream.kind()));
                    }
                    let incoming = job.incoming(stream).ok_or(Fault::UnexpectedKind(stream.kind()))?;
                    incoming.handle_data(offset, bytes.len() as u64)?;
                    Some(ClientEvent::Data { channel, stream, offset, bytes })
                }
                Piece::Ignored { .. } => None,
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn expect_open(&self, kind: Kind) -> Result<(), Fault> {
        match self.phase {
            Phase::Greeted { open: true, .. } => Ok(()),
            _ => Err(Fault::UnexpectedKind(kind)),
        }
    }

    fn handle_control(
        &mut self,
        kind: Kind,
        channel: u32,
        body: Bytes,
    ) -> Result<Option<ClientEvent>, Fault> {
        check_channel(kind, channel)?;
        match kind {
            Kind::Fault => {
                let fault: proto::Fault = parse(kind, body)?;
                self.phase = Phase::Ended;
                return Ok(Some(ClientEvent::Fault { code: fault.code, text: fault.text }));
            }
            Kind::GoAway => {
                return Ok(Some(ClientEvent::GoAway { text: parse::<proto::GoAway>(kind, body)?.text }));
            }
            Kind::Ping | Kind::Pong => {
                let payload: [u8; 8] = body
                    .as_ref()
                    .try_into()
                    .map_err(|_| Fault::Malformed { kind, what: "its body isn't eight bytes" })?;
                if kind == Kind::Pong {
                    return Ok(Some(ClientEvent::Pong(payload)));
                }
                push_bytes(&mut self.out, Kind::Pong, 0, &payload);
                return Ok(None);
            }
            _ => {}
        }
        match (&mut self.phase, kind) {
            (Phase::AwaitHello, Kind::ServerHello) => self.handle_hello(parse(kind, body)?).map(Some),
            (Phase::Greeted { open: false, .. }, Kind::OfferReply) => {
                Ok(Some(ClientEvent::OfferReply(parse::<proto::OfferReply>(kind, body)?.acceptable)))
            }
            (Phase::Greeted { open, .. }, Kind::AuthReply) if !*open => {
                let reply: proto::AuthReply = parse(kind, body)?;
                *open = reply.accepted;
                if reply.accepted {
                    return Ok(Some(ClientEvent::Accepted { host_name: reply.host_name }));
                }
                self.jobs.clear();
                Ok(Some(ClientEvent::Denied { attempts_left: reply.attempts_left }))
            }
            (Phase::Greeted { open: true, .. }, Kind::Answer) => {
                Ok(Some(ClientEvent::Answer(Box::new(parse(kind, body)?))))
            }
            (Phase::Greeted { open: true, .. }, _) => self.handle_job(kind, channel, body),
            _ => Err(Fault::UnexpectedKind(kind)),
        }
    }

    fn handle_hello(&mut self, hello: proto::ServerHello) -> Result<ClientEvent, Fault> {
        let malformed = |what| Fault::Malformed { kind: Kind::ServerHello, what };
        if hello.version_min > VERSION_MAX || hello.version_max < VERSION_MIN {
            return Err(Fault::Version { min: hello.version_min, max: hello.version_max });
        }
        if hello.nonce.len() != limits::NONCE {
            return Err(malformed("its nonce isn't 32 bytes"));
        }
        self.phase = Phase::Greeted {
            stdin_window: hello.stdin_window,
            control_limit: limits::CONTROL.min(hello.max_control as usize),
            max_jobs: hello.max_jobs,
            open: false,
        };
        Ok(ClientEvent::Hello(hello))
    }

    fn handle_job(&mut self, kind: Kind, channel: u32, body: Bytes) -> Result<Option<ClientEvent>, Fault> {
        let unknown = Fault::UnknownChannel(channel);
        let window = match self.phase {
            Phase::Greeted { stdin_window, .. } => stdin_window,
            _ => 0,
        };
        // Where a job goes on is said before anything else of it.
        let first = matches!(kind, Kind::Started | Kind::Receipt | Kind::Detached);
        if !first && self.jobs.get(&channel).is_some_and(|job| job.stdin.held()) {
            return Err(Fault::UnexpectedKind(kind));
        }
        match kind {
            Kind::Started => {
                let started: proto::Started = parse(kind, body)?;
                let job = self.jobs.get_mut(&channel).ok_or(unknown)?;
                let resumed = job.stdin.held();
                if resumed != started.stdin.is_some() {
                    return Err(Fault::Malformed { kind, what: "it doesn't fit its start" });
                }
                if let Some(position) = &started.stdin {
                    job.stdin.handle_position(position, window)?;
                }
                Ok(Some(ClientEvent::Started { channel, pid: started.pid, resumed }))
            }
            Kind::Detached => {
                let detached: proto::Detached = parse(kind, body)?;
                self.jobs.remove(&channel).ok_or(unknown)?;
                let proto::Detached { text, detached } = detached;
                Ok(Some(ClientEvent::Detached { channel, text, detached }))
            }
            Kind::Stopped => {
                let stopped: proto::Stopped = parse(kind, body)?;
                if !self.jobs.contains_key(&channel) {
                    return Err(unknown);
                }
                let signal = Some(stopped.signal).filter(|signal| !signal.is_empty());
                Ok(Some(ClientEvent::Stopped { channel, signal }))
            }
            Kind::End => {
                let end: proto::End = parse(kind, body)?;
                let job = self.jobs.get_mut(&channel).ok_or(unknown)?;
                let stream = output_stream(kind, end.stream)?;
                let incoming = job.incoming(stream).ok_or(Fault::UnexpectedKind(kind))?;
                incoming.handle_end(end.length)?;
                Ok(Some(ClientEvent::End { channel, stream, length: end.length }))
            }
            Kind::Credit => {
                let credit: proto::Credit = parse(kind, body)?;
                if credit.stream() != proto::Stream::Stdin {
                    return Err(Fault::Malformed { kind, what: "credit for a stream that the server sends" });
                }
                let job = self.jobs.get_mut(&channel).ok_or(unknown)?;
                job.stdin.handle_credit(credit.consumed, credit.limit)?;
                Ok(Some(ClientEvent::Room { channel }))
            }
            Kind::Stop => {
                let stop: proto::Stop = parse(kind, body)?;
                if stop.stream() != proto::Stream::Stdin {
                    return Err(Fault::Malformed { kind, what: "a stop of a stream that the server sends" });
                }
                let job = self.jobs.get_mut(&channel).ok_or(unknown)?;
                job.stdin.handle_stop();
                Ok(Some(ClientEvent::Room { channel }))
            }
            Kind::Receipt => {
                let receipt: proto::Receipt = parse(kind, body)?;
                let job = self.jobs.remove(&channel).ok_or(unknown)?;
                if receipt.outcome.is_none() {
                    return Err(Fault::Malformed { kind, what: "it has no outcome" });
                }
                let ran = !matches!(receipt.outcome, Some(proto::receipt::Outcome::NotStarted(_)));
                if ran && !(job.stdout.ended() && job.stderr.ended()) {
                    return Err(Fault::Malformed { kind, what: "it came before the end of a stream" });
                }
                Ok(Some(ClientEvent::Receipt { channel, receipt: Box::new(receipt) }))
            }
            _ => Err(Fault::UnexpectedKind(kind)),
        }
    }
}
