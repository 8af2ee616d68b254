//! A connection that is cut again and again while a command prints: every byte arrives, and no cut has more than a window sent again.
//!
//! The client is the library, in this process: what it asks for on each connection is seen before it is encrypted.
//!
//! The long form, a thousand cuts over 4 GiB: `cargo test --release -p remora --test native four_gib -- --ignored --nocapture`.
//! `REMORA_SEED` replays a run.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use remora_client::{HostTrust, Options, PublicKey, Request, Signer, Step, UserKey, connect, proto};
use remora_identity::KeyFile;
use remora_net::Direction;
use remora_testkit::{Fault, FaultyProxy, fill_pattern, odd_child};
use remora_wire::limits::WINDOW;
use remora_wire::native::{Decoder, Kind, Piece};

use crate::bench::{Home, Server, own_name, text};
use crate::reconnecting::{address, seed};

/// What a connection needs besides what it carries: handshakes, heartbeats, what is said of jobs.
const AROUND: u64 = 16 << 10;
/// Before it the first connection isn't cut: there would be nothing to come back to.
const FIRST: u64 = 64 << 10;

/// What the client sends on one connection, up to its start of the job.
struct Asked {
    decoder: Decoder,
    input: BytesMut,
    /// The offset of stdout that it asked for.
    at: Option<u64>,
}

impl Asked {
    fn new() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_control_limit(1 << 20);
        Asked { decoder, input: BytesMut::new(), at: None }
    }

    fn handle(&mut self, bytes: &[u8]) {
        if self.at.is_some() {
            return;
        }
        self.input.extend_from_slice(bytes);
        while let Some(piece) = self.decoder.next(&mut self.input).unwrap() {
            if let Piece::Control { kind: Kind::Start, body, .. } = piece {
                let start = proto::Start::decode(body).unwrap();
                let stdout = start.resume.and_then(|resume| resume.stdout);
                self.at = Some(stdout.map_or(0, |stdout| stdout.received));
            }
        }
    }
}

/// Every connection that was made, in order.
type All = Arc<Mutex<Vec<Asked>>>;

fn options(home: &Home, all: &All) -> Options {
    let key = KeyFile::parse(home.text(".ssh/id_ed25519").as_bytes()).unwrap().into_plain().unwrap();
    let (made, sent) = (all.clone(), all.clone());
    Options {
        user: own_name(),
        trust: HostTrust {
            accepted: Some(PublicKey::from_text(&home.public("host_key")).unwrap()),
            ..HostTrust::default()
        },
        keys: vec![UserKey {
            public: key.public().clone(),
            signer: Signer::Key(key),
            source: "a test".to_owned(),
        }],
        sure: true,
        lasting: remora_client::Lasting {
            heartbeat: remora_client::Heartbeat::Every(Duration::from_millis(300)),
            ..remora_client::Lasting::default()
        },
        connect_timeout: Duration::from_secs(30),
        observer: Some(Arc::new(move |step| {
            if let Step::Connected(_) = step {
                made.lock().unwrap().push(Asked::new());
            }
        })),
        tap: Some(Arc::new(move |direction, bytes| {
            if direction == Direction::Sent {
                sent.lock().unwrap().last_mut().unwrap().handle(bytes);
            }
        })),
    }
}

#[test]
#[ignore = "takes minutes: a thousand cuts over 4 GiB"]
fn four_gibibytes_survive_a_thousand_cuts() {
    cut_again_and_again(1000, 4 << 30);
}

#[test]
fn sixty_four_mebibytes_survive_forty_cuts() {
    cut_again_and_again(40, 64 << 20);
}

fn cut_again_and_again(cuts: u64, whole: u64) {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut random = seed();
    let mut next = || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        random >> 33
    };
    // One in each stretch: what passes is more than is printed, so all of them come.
    let stretch = whole / cuts;
    let faults = (0..cuts).map(|cut| {
        let fault = if next() % 2 == 0 { Fault::Cut } else { Fault::Reset };
        ((cut * stretch + next() % stretch).max(FIRST), fault)
    });
    let proxy = FaultyProxy::with(address(server.port), faults.collect()).unwrap();
    let all = All::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let opened = connect("127.0.0.1", proxy.address().port(), options(&home, &all)).await.unwrap();
        let line = format!("'{}' flood {whole} 0", text(&odd_child()));
        let mut job = opened.connection.start([7; 16], Request::line(line)).unwrap();
        let mut out = job.stdout().unwrap();
        let (mut at, mut want) = (0, Vec::new());
        while let Some(got) = out.next().await {
            want.resize(got.len(), 0);
            fill_pattern(at, &mut want);
            assert!(got == want, "other bytes at {at}");
            at += got.len() as u64;
        }
        assert_eq!(at, whole);
        // Its receipt has the length and the digest of what came.
        let receipt = job.wait().await.unwrap().receipt;
        assert!(matches!(receipt.outcome, Some(proto::receipt::Outcome::Exited(ref end)) if end.status == 0));
        opened.connection.leave().await;
    });
    assert_eq!(proxy.left(), 0);
    let (made, came) = (all.lock().unwrap(), proxy.received());
    assert_eq!(made.len(), came.len(), "connections of the client and of the proxy");
    assert!(came.len() as u64 > cuts, "{} connections", came.len());

    // From where on each connection went on, and what came from the server until the next one that did. What one carried beyond where
    // the next one goes on is sent again.
    let mut asked: Vec<(u64, u64)> = Vec::new();
    for (made, came) in made.iter().zip(came) {
        match (made.at, asked.last_mut()) {
            (Some(at), _) => asked.push((at, came)),
            // It was cut before it got so far.
            (None, Some((_, before))) => *before += came,
            (None, None) => panic!("the first connection carried nothing"),
        }
    }
    let ends = asked.iter().skip(1).map(|(at, _)| *at).chain([whole]);
    let again: Vec<u64> = asked
        .iter()
        .zip(ends)
        .map(|((at, came), end)| {
            assert!(*at <= end, "it went on at {end}, having been at {at}");
            // Headers of frames and records take less than a 200th.
            came.saturating_sub(end - at + came / 200 + AROUND)
        })
        .collect();
    let _ = writeln!(
        std::io::stderr(),
        "{} connections, {} went on with the command; sent again at a cut: {} bytes at most, {} altogether",
        made.len(),
        asked.len(),
        again.iter().max().unwrap(),
        again.iter().sum::<u64>()
    );
    for (number, again) in again.iter().enumerate() {
        assert!(*again <= WINDOW, "{again} bytes were sent again at cut {number}");
    }
    assert_eq!(again.last(), Some(&0), "the last connection was not cut");
}
