//! Both ends against each other: random work, random cuts of the bytes, and what must hold at each step. The seed is printed and
//! replays a failure: `REMORA_SEED=… cargo test -p remora-wire --test native_model`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use remora_wire::limits;
use remora_wire::native::{
    Client, ClientEvent, Decoder, Greeting, Piece, Server, ServerEvent, Stream, proto,
};

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

/// The byte at an offset of a stream.
fn byte(channel: u32, stream: Stream, offset: u64) -> u8 {
    (offset.wrapping_mul(31) ^ u64::from(channel) << 3 ^ stream as u64) as u8
}

fn bytes(channel: u32, stream: Stream, offset: u64, length: u64) -> Vec<u8> {
    (offset..offset + length).map(|at| byte(channel, stream, at)).collect()
}

#[derive(Default)]
struct Seen {
    received: BTreeMap<Stream, u64>,
    ended: BTreeMap<Stream, bool>,
    receipt: bool,
}

impl Seen {
    fn take(&mut self, channel: u32, stream: Stream, offset: u64, data: &Bytes) {
        let at = self.received.entry(stream).or_default();
        assert_eq!(*at, offset, "a gap or a repetition in {stream} of {channel}");
        assert!(!self.ended.get(&stream).copied().unwrap_or_default());
        for (index, got) in data.iter().enumerate() {
            assert_eq!(*got, byte(channel, stream, offset + index as u64));
        }
        *at += data.len() as u64;
    }
}

/// What a job will produce and take, and how far it is.
struct Plan {
    stdin: u64,
    output: BTreeMap<Stream, u64>,
    stdin_consumed: u64,
}

fn run(seed: u64) {
    let mut chance = Chance(seed | 1);
    // Streams of some dozen windows, tiny windows among them: their credit must go on too.
    let window = 1 + chance.below(if seed.is_multiple_of(3) { 20 } else { 20_000 });
    let stdin_window = 1 + chance.below(window * 2);
    let longest = window * 8;
    let mut client = Client::new(window);
    let mut server = Server::new(&Greeting {
        nonce: [0; limits::NONCE],
        boot_id: [0; 16],
        epoch: [0; 16],
        stdin_window,
        max_jobs: 8,
        software: "model".to_owned(),
    });
    // The two directions of the network: what was written and not yet delivered.
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    let mut greeted = false;
    let mut plans: BTreeMap<u32, Plan> = BTreeMap::new();
    let mut at_client: BTreeMap<u32, Seen> = BTreeMap::new();
    let mut at_server: BTreeMap<u32, Seen> = BTreeMap::new();
    let mut unconsumed: VecDeque<(u32, Stream, u64)> = VecDeque::new();
    let mut started = 0;
    let jobs = 1 + chance.below(12);
    let mut finished = 0;
    for step in 0.. {
        assert!(
            step < 4_000_000,
            "no progress: {finished} of {jobs} jobs are over, {started} started; window {window}, stdin window {stdin_window}; \
             {} and {} bytes on the way, {} pieces unconsumed; client {client:?}, server {server:?}",
            to_server.len(),
            to_client.len(),
            unconsumed.len()
        );
        if finished == jobs {
            break;
        }
        match chance.below(9) {
            // The network delivers some bytes, cut anywhere.
            0 | 1 => {
                let cut = chance.below(to_server.len() as u64 + 1) as usize;
                server.input().extend_from_slice(&to_server.split_to(cut));
                while let Some(event) = server.poll_event().unwrap() {
                    match event {
                        ServerEvent::Authenticate { .. } => server.accept("model"),
                        ServerEvent::Start { channel, .. } => {
                            at_server.insert(channel, Seen::default());
                            server.started(channel, 1);
                        }
                        ServerEvent::Data { channel, offset, bytes } => {
                            at_server.get_mut(&channel).unwrap().take(channel, Stream::Stdin, offset, &bytes);
                        }
                        ServerEvent::End { channel, length } => {
                            assert_eq!(length, plans[&channel].stdin);
                            at_server.get_mut(&channel).unwrap().ended.insert(Stream::Stdin, true);
                        }
                        _ => {}
                    }
                }
            }
            2 | 3 => {
                let cut = chance.below(to_client.len() as u64 + 1) as usize;
                client.input().extend_from_slice(&to_client.split_to(cut));
                while let Some(event) = client.poll_event().unwrap() {
                    match event {
                        ClientEvent::Hello(_) => {
                            greeted = true;
                            client.hello("model");
                            let proof =
                                proto::authenticate::Proof::PeerCredentials(proto::PeerCredentials {});
                            client.authenticate("ada", proof);
                        }
                        ClientEvent::Data { channel, stream, offset, bytes } => {
                            at_client.get_mut(&channel).unwrap().take(channel, stream, offset, &bytes);
                            if !bytes.is_empty() {
                                unconsumed.push_back((channel, stream, offset + bytes.len() as u64));
                            }
                        }
                        ClientEvent::End { channel, stream, length } => {
                            assert_eq!(length, plans[&channel].output[&stream]);
                            at_client.get_mut(&channel).unwrap().ended.insert(stream, true);
                        }
                        ClientEvent::Receipt { channel, .. } => {
                            let seen = at_client.get_mut(&channel).unwrap();
                            for (stream, length) in &plans[&channel].output {
                                assert_eq!(seen.received.get(stream).copied().unwrap_or_default(), *length);
                                assert!(seen.ended[stream]);
                            }
                            assert!(!seen.receipt);
                            seen.receipt = true;
                            finished += 1;
                        }
                        _ => {}
                    }
                }
            }
            4 if greeted && started < jobs => {
                let start = proto::Start {
                    job_id: vec![0; 16],
                    user: "ada".to_owned(),
                    command: Some(proto::start::Command::Line(b"model".to_vec())),
                    ..Default::default()
                };
                if let Ok(channel) = client.start(&start) {
                    started += 1;
                    let mut length = |longest| if chance.below(3) == 0 { 0 } else { chance.below(longest) };
                    let output = BTreeMap::from([
                        (Stream::Stdout, length(longest)),
                        (Stream::Stderr, length(longest)),
                    ]);
                    plans
                        .insert(channel, Plan { stdin: length(stdin_window * 8), output, stdin_consumed: 0 });
                    at_client.insert(channel, Seen::default());
                }
            }
            // The client writes stdin.
            5 => {
                for (channel, plan) in &plans {
                    let Some(stdin) = client.stdin(*channel) else { continue };
                    if stdin.ended() {
                        continue;
                    }
                    let (sent, room) = (stdin.sent(), stdin.room());
                    if sent == plan.stdin {
                        client.end_stdin(*channel);
                        continue;
                    }
                    let length = chance.below((plan.stdin - sent).min(room) + 1);
                    if let Some(header) = client.stdin_header(*channel, length as usize) {
                        to_server.unsplit(client.output().split());
                        to_server.extend_from_slice(&header);
                        to_server.extend_from_slice(&bytes(*channel, Stream::Stdin, sent, length));
                    }
                    assert!(client.stdin_header(*channel, room as usize + 1).is_none(), "beyond credit");
                }
            }
            // The server writes output, consumes stdin, and ends jobs.
            6 => {
                for (channel, plan) in &mut plans {
                    let Some(seen) = at_server.get_mut(channel) else { continue };
                    if seen.receipt {
                        continue;
                    }
                    let arrived = seen.received.get(&Stream::Stdin).copied().unwrap_or_default();
                    plan.stdin_consumed += chance.below(arrived - plan.stdin_consumed + 1);
                    server.consume(*channel, plan.stdin_consumed);
                    let mut over = seen.ended.contains_key(&Stream::Stdin);
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
                        let take = chance.below((length - sent).min(room) + 1);
                        if let Some(header) = server.data_header(*channel, *stream, take as usize) {
                            to_client.unsplit(server.output().split());
                            to_client.extend_from_slice(&header);
                            to_client.extend_from_slice(&bytes(*channel, *stream, sent, take));
                        }
                    }
                    if over {
                        let receipt = proto::Receipt {
                            outcome: Some(proto::receipt::Outcome::Exited(proto::Exited { status: 0 })),
                            ..Default::default()
                        };
                        server.receipt(*channel, &receipt);
                        seen.receipt = true;
                    }
                }
            }
            // The client's readers take what has come.
            7 => {
                for _ in 0..chance.below(4) {
                    if let Some((channel, stream, upto)) = unconsumed.pop_front() {
                        client.consume(channel, stream, upto);
                    }
                }
            }
            _ => {
                to_server.unsplit(client.output().split());
                to_client.unsplit(server.output().split());
            }
        }
        // What is on the way is bounded by credit, whatever the schedule.
        for seen in at_client.values() {
            let received: u64 = seen.received.values().sum();
            assert!(received <= 2 * longest);
        }
    }
}

#[test]
fn every_byte_arrives_once_and_in_order_whatever_the_schedule() {
    if let Ok(seed) = std::env::var("REMORA_SEED") {
        return run(seed.parse().unwrap());
    }
    for seed in 1..=60 {
        let result = std::panic::catch_unwind(|| run(seed * 7919));
        assert!(result.is_ok(), "REMORA_SEED={} replays this", seed * 7919);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_a_decoder_panic_or_keep_more_than_its_limit(input in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut decoder = Decoder::new();
        let mut buffer = BytesMut::from(&input[..]);
        while let Ok(Some(piece)) = decoder.next(&mut buffer) {
            if let Piece::Control { body, .. } = piece {
                prop_assert!(body.len() <= limits::CONTROL_BEFORE_AUTH);
            }
        }
    }

    #[test]
    fn no_bytes_make_an_end_panic(input in proptest::collection::vec(any::<u8>(), 0..2000), cut in 0usize..2000) {
        let mut client = Client::new(1000);
        let mut server = Server::new(&Greeting {
            nonce: [0; 32], boot_id: [0; 16], epoch: [0; 16], stdin_window: 1000, max_jobs: 1, software: String::new(),
        });
        let cut = cut.min(input.len());
        for part in [&input[..cut], &input[cut..]] {
            client.input().extend_from_slice(part);
            while let Ok(Some(_)) = client.poll_event() {}
            server.input().extend_from_slice(part);
            while let Ok(Some(_)) = server.poll_event() {}
        }
    }

    #[test]
    fn a_stream_of_frames_decodes_alike_however_it_is_cut(cuts in proptest::collection::vec(1usize..40, 1..60)) {
        let mut client = Client::new(1000);
        client.hello("a");
        client.ping(*b"01234567");
        client.offer("ada", vec![vec![7; 30]]);
        let mut whole = client.output().split();
        whole.extend_from_slice(&remora_wire::native::data_header(Stream::Stdin, 1, 5, 20));
        whole.extend_from_slice(&[9; 20]);
        let pieces = |chunks: &mut dyn Iterator<Item = &[u8]>| {
            let (mut decoder, mut buffer) = (Decoder::new(), BytesMut::new());
            let (mut control, mut data) = (Vec::new(), Vec::new());
            for chunk in chunks {
                buffer.extend_from_slice(chunk);
                while let Some(piece) = decoder.next(&mut buffer).unwrap() {
                    match piece {
                        Piece::Control { kind, channel, body } => control.push((kind, channel, body)),
                        Piece::Data { offset, bytes, .. } => {
                            assert_eq!(offset, 5 + data.len() as u64);
                            data.extend_from_slice(&bytes);
                        }
                        Piece::Ignored { .. } => {}
                    }
                }
            }
            assert!(decoder.at_border() && buffer.is_empty());
            (control, data)
        };
        let at_once = pieces(&mut std::iter::once(&whole[..]));
        let mut rest = &whole[..];
        let mut parts = Vec::new();
        for cut in cuts {
            let (part, tail) = rest.split_at(cut.min(rest.len()));
            parts.push(part);
            rest = tail;
        }
        parts.push(rest);
        prop_assert_eq!(pieces(&mut parts.into_iter()), at_once);
    }
}
