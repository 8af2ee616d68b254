//! Both ends of a job whose connection is cut again and again, at any byte: random work, random cuts, a virtual network, and what
//! must hold at each step. A cut connection's last bytes may still reach the host, even behind the next connection's first ones.
//!
//! The seed is printed and replays a failure: `REMORA_SEED=… cargo test -p remora-wire --test native_resume`. A thousand
//! schedules by default, of a million steps together; `REMORA_MODEL_RUNS=100000` is the long form.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::BytesMut;
use remora_wire::limits;
use remora_wire::native::{Client, ClientEvent, Greeting, Server, ServerEvent, Stream, Streams, proto};

/// xorshift64*: enough chance for a test, and the same on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

const OUTPUTS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

fn byte(job: u32, stream: Stream, offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ u64::from(job) << 3 ^ stream as u64) as u8
}

fn bytes(job: u32, stream: Stream, offset: u64, length: u64) -> Vec<u8> {
    (offset..offset + length).map(|at| byte(job, stream, at)).collect()
}

fn check(job: u32, stream: Stream, offset: u64, data: &[u8]) {
    assert_eq!(data, bytes(job, stream, offset, data.len() as u64), "{stream} of {job} at {offset}");
}

/// How long a job's streams are.
struct Plan {
    stdin: u64,
    output: BTreeMap<Stream, u64>,
}

/// A job as its client keeps it beyond connections.
#[derive(Default)]
struct Mine {
    start: proto::Start,
    /// Its start was written to some connection.
    sent: bool,
    known: bool,
    streams: Option<Streams>,
    stdin_sent: u64,
    received: BTreeMap<Stream, u64>,
    consumed: BTreeMap<Stream, u64>,
    over: bool,
}

/// A job as its host keeps it beyond connections.
#[derive(Default)]
struct Theirs {
    /// The connection that has it, and its attempt.
    owner: Option<u64>,
    attempt: u32,
    received: u64,
    consumed: u64,
    ended: bool,
    produced: BTreeMap<Stream, u64>,
    acknowledged: BTreeMap<Stream, u64>,
    sent: BTreeMap<Stream, u64>,
    receipt: bool,
}

/// A connection: two ends, and what is on its way between them.
struct Connection {
    number: u64,
    client: Option<Client>,
    server: Server,
    to_server: BytesMut,
    to_client: BytesMut,
}

struct World {
    chance: Chance,
    window: u64,
    stdin_window: u64,
    plans: BTreeMap<u32, Plan>,
    mine: BTreeMap<u32, Mine>,
    theirs: BTreeMap<u32, Theirs>,
    /// Jobs the host has run, to run none twice.
    ran: BTreeSet<u32>,
    settled: BTreeSet<u32>,
    now: Connection,
    /// Cut ones, whose last bytes haven't reached the host yet.
    past: Vec<Connection>,
    attempt: u32,
    jobs: u32,
    started: u32,
    cuts: u64,
    resent: u64,
}

fn connection(number: u64, window: u64, stdin_window: u64) -> Connection {
    let server = Server::new(&Greeting {
        nonce: [0; limits::NONCE],
        boot_id: [0; 16],
        epoch: [0; 16],
        stdin_window,
        max_jobs: 64,
        software: "model".to_owned(),
    });
    Connection {
        number,
        client: Some(Client::new(window)),
        server,
        to_server: BytesMut::new(),
        to_client: BytesMut::new(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed | 1);
        let window = 1 + chance.below(if seed.is_multiple_of(3) { 20 } else { 3_000 });
        let stdin_window = 1 + chance.below(window * 2);
        let jobs = 1 + chance.below(4) as u32;
        World {
            window,
            stdin_window,
            plans: BTreeMap::new(),
            mine: BTreeMap::new(),
            theirs: BTreeMap::new(),
            ran: BTreeSet::new(),
            settled: BTreeSet::new(),
            now: connection(1, window, stdin_window),
            past: Vec::new(),
            attempt: 0,
            jobs,
            started: 0,
            cuts: 2 + chance.below(40),
            resent: 0,
            chance,
        }
    }

    /// The connection is cut: some of what is on its way still reaches the host, sooner or later.
    fn cut(&mut self) {
        let next = connection(self.now.number + 1, self.window, self.stdin_window);
        let mut old = std::mem::replace(&mut self.now, next);
        let mut client = old.client.take().unwrap();
        // What the client had handed over to the network may be on its way, or not.
        if self.chance.below(2) == 0 {
            old.to_server.unsplit(client.output().split());
        }
        let reaches = self.chance.below(old.to_server.len() as u64 + 1) as usize;
        old.to_server.truncate(reaches);
        for (channel, mine) in &mut self.mine {
            if let Some(streams) = client.streams(*channel) {
                mine.streams = Some(streams);
            }
        }
        if self.chance.below(2) == 0 {
            self.past.push(old);
        }
        self.attempt += 1;
    }

    /// Sends again what was started before, and what never was.
    fn greet(&mut self) {
        let client = self.now.client.as_mut().unwrap();
        client.hello("model");
        let proof = proto::authenticate::Proof::PeerCredentials(proto::PeerCredentials {});
        client.authenticate("ada", proof);
        for (channel, mine) in self.mine.iter_mut().filter(|(_, mine)| !mine.over) {
            match &mine.streams {
                Some(streams) if mine.sent => {
                    client.resume(*channel, &mut mine.start, streams, mine.known, self.attempt).unwrap();
                }
                _ => client.start_on(*channel, &mine.start).unwrap(),
            }
            mine.sent = true;
        }
    }

    fn start(&mut self) {
        self.started += 1;
        let channel = self.started;
        let longest = self.window * 6;
        let chance = &mut self.chance;
        let mut length = |longest| if chance.below(4) == 0 { 0 } else { chance.below(longest) };
        let output = OUTPUTS.map(|stream| (stream, length(longest))).into();
        let no_stdin = length(8) == 1;
        let stdin = if no_stdin { 0 } else { length(self.stdin_window * 6) };
        self.plans.insert(channel, Plan { stdin, output });
        let start = proto::Start {
            job_id: u128::from(channel).to_be_bytes().to_vec(),
            user: "ada".to_owned(),
            command: Some(proto::start::Command::Line(b"model".to_vec())),
            no_stdin,
            ..Default::default()
        };
        let mut mine = Mine { start, ..Mine::default() };
        // Only a connection that is greeted takes it; otherwise it waits for one.
        if let Some(client) = &mut self.now.client
            && client.start_on(channel, &mine.start).is_ok()
        {
            mine.sent = true;
        }
        self.mine.insert(channel, mine);
    }

    /// Bytes reach the host, on this connection or on one of the past.
    fn deliver_to_server(&mut self, past: bool) {
        let at = self.chance.below(self.past.len() as u64) as usize;
        let connection = if past { self.past.get_mut(at) } else { Some(&mut self.now) };
        let Some(connection) = connection else { return };
        let cut = self.chance.below(connection.to_server.len() as u64 + 1) as usize;
        connection.server.input().extend_from_slice(&connection.to_server.split_to(cut));
        let number = connection.number;
        while let Some(event) = connection.server.poll_event().unwrap() {
            match event {
                ServerEvent::Authenticate { .. } => connection.server.accept("model"),
                ServerEvent::Start { channel, start } => {
                    let attempt = start.resume.map_or(0, |resume| resume.attempt);
                    let known = start.resume.is_some_and(|resume| resume.known);
                    let resume = start.resume.unwrap_or_default();
                    match self.theirs.get_mut(&channel) {
                        None => {
                            // Settled and forgotten, and this came late.
                            if self.settled.contains(&channel) {
                                connection.server.detach(channel, "over");
                                continue;
                            }
                            assert!(!known, "the host has lost a job that it had");
                            assert!(self.ran.insert(channel), "run twice");
                            let theirs = Theirs {
                                owner: Some(number),
                                attempt,
                                ended: start.no_stdin,
                                ..Theirs::default()
                            };
                            self.theirs.insert(channel, theirs);
                            connection.server.started(channel, 1);
                        }
                        // From a connection that was given up since.
                        Some(theirs) if attempt <= theirs.attempt && theirs.owner != Some(number) => {
                            connection.server.detach(channel, "late");
                        }
                        Some(theirs) => {
                            for (stream, at) in OUTPUTS.into_iter().zip([resume.stdout, resume.stderr]) {
                                let at = at.unwrap();
                                let acknowledged = theirs.acknowledged.entry(stream).or_default();
                                let produced = theirs.produced.get(&stream).copied().unwrap_or_default();
                                assert!((*acknowledged..=produced).contains(&at.received), "not kept");
                                *acknowledged = at.consumed.max(*acknowledged);
                                let again =
                                    theirs.sent.insert(stream, at.received).unwrap_or_default() - at.received;
                                assert!(again <= self.window, "{again} bytes again, window {}", self.window);
                                self.resent += again;
                            }
                            theirs.owner = Some(number);
                            theirs.attempt = attempt;
                            // What is resumed says all of it again, the receipt too.
                            theirs.receipt = false;
                            let at = proto::StdinPosition {
                                received: theirs.received,
                                consumed: theirs.consumed,
                                ended: theirs.ended,
                                stopped: false,
                            };
                            connection.server.resumed(channel, 1, &at);
                        }
                    }
                }
                ServerEvent::Data { channel, offset, bytes } => {
                    let Some(theirs) = self.theirs.get_mut(&channel).filter(|one| one.owner == Some(number))
                    else {
                        continue;
                    };
                    assert_eq!(offset, theirs.received, "a gap or a repetition in stdin of {channel}");
                    check(channel, Stream::Stdin, offset, &bytes);
                    theirs.received += bytes.len() as u64;
                    assert!(theirs.received - theirs.consumed <= self.stdin_window, "beyond credit");
                }
                ServerEvent::End { channel, length } => {
                    let Some(theirs) = self.theirs.get_mut(&channel).filter(|one| one.owner == Some(number))
                    else {
                        continue;
                    };
                    assert_eq!((length, theirs.received), (self.plans[&channel].stdin, length));
                    theirs.ended = true;
                }
                ServerEvent::Credit { channel, stream } => {
                    let consumed = connection.server.outgoing(channel, stream).unwrap().consumed();
                    if let Some(theirs) = self.theirs.get_mut(&channel) {
                        let acknowledged = theirs.acknowledged.entry(stream).or_default();
                        *acknowledged = consumed.max(*acknowledged);
                    }
                }
                ServerEvent::Settled { job_id } => {
                    let channel = u128::from_be_bytes(job_id.try_into().unwrap()) as u32;
                    self.theirs.remove(&channel);
                    self.settled.insert(channel);
                }
                _ => {}
            }
        }
        if past && self.past[at].to_server.is_empty() {
            self.past.remove(at);
        }
    }

    fn deliver_to_client(&mut self) {
        let cut = self.chance.below(self.now.to_client.len() as u64 + 1) as usize;
        let piece = self.now.to_client.split_to(cut);
        let mut greeted = false;
        let client = self.now.client.as_mut().unwrap();
        client.input().extend_from_slice(&piece);
        while let Some(event) = client.poll_event().unwrap() {
            match event {
                ClientEvent::Hello(_) => greeted = true,
                ClientEvent::Started { channel, resumed, .. } => {
                    let mine = self.mine.get_mut(&channel).unwrap();
                    mine.known = true;
                    if resumed {
                        let sent = client.stdin(channel).unwrap().sent();
                        let again = mine.stdin_sent - sent;
                        assert!(
                            again <= self.stdin_window,
                            "{again} bytes again, window {}",
                            self.stdin_window
                        );
                        self.resent += again;
                    }
                }
                ClientEvent::Data { channel, stream, offset, bytes } => {
                    let mine = self.mine.get_mut(&channel).unwrap();
                    let received = mine.received.entry(stream).or_default();
                    assert_eq!(offset, *received, "a gap or a repetition in {stream} of {channel}");
                    check(channel, stream, offset, &bytes);
                    *received += bytes.len() as u64;
                    let kept = *received - mine.consumed.get(&stream).copied().unwrap_or_default();
                    assert!(kept <= self.window, "beyond credit");
                }
                ClientEvent::End { channel, stream, length } => {
                    assert_eq!(length, self.plans[&channel].output[&stream]);
                }
                ClientEvent::Receipt { channel, .. } => {
                    let mine = self.mine.get_mut(&channel).unwrap();
                    for (stream, length) in &self.plans[&channel].output {
                        assert_eq!(mine.received.get(stream).copied().unwrap_or_default(), *length);
                    }
                    assert!(!mine.over, "two receipts");
                    mine.over = true;
                    client.settle(&mine.start.job_id);
                }
                ClientEvent::Detached { channel, .. } => {
                    panic!("job {channel} was taken from its newest connection")
                }
                _ => {}
            }
        }
        if greeted {
            self.greet();
        }
    }

    fn write_stdin(&mut self) {
        let client = self.now.client.as_mut().unwrap();
        for (channel, plan) in &self.plans {
            let Some(stdin) = client.stdin(*channel) else { continue };
            let (sent, room) = (stdin.sent(), stdin.room());
            if stdin.held() || stdin.ended() {
                assert_eq!(room, 0);
                continue;
            }
            if sent == plan.stdin {
                client.end_stdin(*channel);
                continue;
            }
            let length = self.chance.below((plan.stdin - sent).min(room) + 1);
            if let Some(header) = client.stdin_header(*channel, length as usize) {
                self.now.to_server.unsplit(client.output().split());
                self.now.to_server.extend_from_slice(&header);
                self.now.to_server.extend_from_slice(&bytes(*channel, Stream::Stdin, sent, length));
                let mine = self.mine.get_mut(channel).unwrap();
                mine.stdin_sent = mine.stdin_sent.max(sent + length);
            }
        }
    }

    /// The host's jobs produce and consume, whoever is connected, and its connection sends.
    fn work(&mut self) {
        let server = &mut self.now.server;
        for (channel, theirs) in &mut self.theirs {
            let plan = &self.plans[channel];
            theirs.consumed += self.chance.below(theirs.received - theirs.consumed + 1);
            for (stream, length) in &plan.output {
                let acknowledged = theirs.acknowledged.get(stream).copied().unwrap_or_default();
                let produced = theirs.produced.entry(*stream).or_default();
                // The window holds the command back.
                let most = (*length).min(acknowledged + self.window) - *produced;
                *produced += self.chance.below(most + 1);
            }
            if theirs.owner != Some(self.now.number) || theirs.receipt {
                continue;
            }
            server.consume(*channel, theirs.consumed);
            let mut over = theirs.ended;
            for (stream, length) in &plan.output {
                let Some(outgoing) = server.outgoing(*channel, *stream) else { continue };
                let (sent, room, ended) = (outgoing.sent(), outgoing.room(), outgoing.ended());
                over &= ended;
                if ended {
                    continue;
                }
                if sent == *length {
                    server.end(*channel, *stream);
                    continue;
                }
                let take = self.chance.below((theirs.produced[stream] - sent).min(room) + 1);
                if let Some(header) = server.data_header(*channel, *stream, take as usize) {
                    self.now.to_client.unsplit(server.output().split());
                    self.now.to_client.extend_from_slice(&header);
                    self.now.to_client.extend_from_slice(&bytes(*channel, *stream, sent, take));
                    theirs.sent.insert(*stream, sent + take);
                }
            }
            if over {
                let outcome = Some(proto::receipt::Outcome::Exited(proto::Exited { status: 0 }));
                server.receipt(*channel, &proto::Receipt { outcome, ..Default::default() });
                theirs.receipt = true;
            }
        }
    }

    fn consume(&mut self) {
        let client = self.now.client.as_mut().unwrap();
        for (channel, mine) in &mut self.mine {
            for stream in OUTPUTS {
                let received = mine.received.get(&stream).copied().unwrap_or_default();
                let consumed = mine.consumed.entry(stream).or_default();
                *consumed += self.chance.below(received - *consumed + 1);
                client.consume(*channel, stream, *consumed);
            }
        }
    }

    fn step(&mut self) {
        match self.chance.below(40) {
            0 if self.cuts > 0 => {
                self.cuts -= 1;
                self.cut();
            }
            0..=9 => self.deliver_to_server(false),
            10..=11 => self.deliver_to_server(true),
            12..=20 => self.deliver_to_client(),
            21 if self.started < self.jobs => self.start(),
            21..=26 => self.write_stdin(),
            27..=33 => self.work(),
            _ => self.consume(),
        }
        self.now.to_client.unsplit(self.now.server.output().split());
        let client = self.now.client.as_mut().unwrap();
        self.now.to_server.unsplit(client.output().split());
    }

    fn is_over(&self) -> bool {
        self.started == self.jobs
            && self.mine.values().all(|mine| mine.over)
            && (self.theirs.is_empty() || self.cuts == 0)
    }
}

/// Runs one schedule; gives its steps and the bytes that were sent again.
fn run(seed: u64) -> (u64, u64) {
    let mut world = World::new(seed);
    for step in 0..4_000_000 {
        if world.is_over() {
            assert_eq!(world.ran.len(), world.jobs as usize);
            return (step, world.resent);
        }
        world.step();
    }
    panic!("no progress: {} of {} jobs started", world.started, world.jobs);
}

#[test]
fn every_byte_arrives_once_however_often_the_connection_is_cut() {
    if let Some(seed) = std::env::var("REMORA_SEED").ok().and_then(|seed| seed.parse().ok()) {
        println!("{:?}", run(seed));
        return;
    }
    let runs = std::env::var("REMORA_MODEL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1_200);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let first = clock.as_nanos() as u64 & 0xffff_ffff_ffff;
    let (mut steps, mut resent) = (0, 0);
    for seed in first..first + runs {
        println!("REMORA_SEED={seed}");
        let (took, again) = run(seed);
        steps += took;
        resent += again;
    }
    println!("{runs} schedules, {steps} steps, {resent} bytes again");
    assert!(resent > 0, "no cut has cost a byte: they cut nothing");
}
