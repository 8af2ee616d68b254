//! What a peer can do wrong on the wire: each is named to it, ends its connection, and nothing else.

use prost::Message;
use remora_testkit::{eventually_async, group_members};
use remora_wire::limits;
use remora_wire::native::{Kind, proto};
use tokio::time::timeout;

use crate::host::Host;
use crate::peer::{PATIENCE, Peer, Stream, data, frame, proof, raw_frame, start};

fn header(length: u32, kind: u8, channel: u32) -> Vec<u8> {
    [length.to_be_bytes().as_slice(), &[kind], &channel.to_be_bytes()].concat()
}

fn hello(version: u32) -> Vec<u8> {
    let hello = proto::ClientHello { version, output_window: 1, software: String::new() };
    frame(Kind::ClientHello, 0, &hello)
}

fn offer(keys: usize) -> Vec<u8> {
    frame(Kind::Offer, 0, &proto::Offer { user: "x".to_owned(), keys: vec![vec![0; 32]; keys] })
}

#[tokio::test]
async fn before_its_hello_a_client_may_say_nothing_else() {
    let host = Host::start().await;
    let wrong = [
        ("a job", frame(Kind::Start, 1, &start(&host.user, "true")), 4),
        ("stdin", data(Stream::Stdin, 1, 0, b"x"), 4),
        ("an offer", offer(1), 4),
        ("a proof", frame(Kind::Authenticate, 0, &proof(&host.user, host.key.public(), Vec::new())), 4),
        ("the server's hello", frame(Kind::ServerHello, 0, &proto::ServerHello::default()), 4),
        ("another version", hello(99), 13),
        ("no message", raw_frame(Kind::ClientHello, 0, b"\xff\xff\xff"), 12),
        ("a hello on a channel", raw_frame(Kind::ClientHello, 1, b""), 5),
        ("four gibibytes", header(u32::MAX, Kind::ClientHello.code(), 0), 1),
        ("an unknown kind", header(0, 0x7f, 0), 3),
    ];
    for (what, bytes, code) in wrong {
        let mut peer = Peer::connect(host.stream().await).await;
        peer.send_bytes(&bytes).await;
        timeout(PATIENCE, peer.expect_fault(code, what)).await.expect(what);
    }
    host.is_alive().await;
    host.stop().await;
}

#[tokio::test]
async fn before_its_proof_a_client_may_start_nothing() {
    let host = Host::start().await;
    let mark = host.folder.path().join("mark");
    let line = format!("touch {}", mark.display());
    let accepted = proto::AuthReply { accepted: true, attempts_left: 0, host_name: String::new() };
    let wrong = [
        ("a job", frame(Kind::Start, 1, &start(&host.user, &line)), 4),
        ("stdin", data(Stream::Stdin, 1, 0, b"x"), 4),
        ("the server's own acceptance", frame(Kind::AuthReply, 0, &accepted), 4),
        ("a second hello", hello(1), 4),
        ("a signal", frame(Kind::Signal, 1, &proto::Signal { name: "KILL".to_owned() }), 4),
        ("a job on no channel", frame(Kind::Start, 0, &start(&host.user, &line)), 5),
        ("a proof on a channel", frame(Kind::Authenticate, 1, &proto::Authenticate::default()), 5),
        ("no proof", frame(Kind::Authenticate, 0, &proto::Authenticate::default()), 12),
        ("an offer of nothing", offer(0), 12),
        ("nine keys", offer(9), 14),
        ("a short ping", raw_frame(Kind::Ping, 0, b"1234567"), 12),
        ("a proof too long", header(limits::CONTROL_BEFORE_AUTH as u32 + 1, Kind::Authenticate.code(), 0), 1),
        ("a job too long", header(limits::CONTROL_BEFORE_AUTH as u32 + 1, Kind::Start.code(), 1), 1),
        ("a nested length", raw_frame(Kind::Authenticate, 0, b"\x12\xff\xff\xff\xff\x0f"), 12),
        ("an endless number", raw_frame(Kind::Offer, 0, &[0xff; 64]), 12),
    ];
    for (what, bytes, code) in wrong {
        let mut peer = Peer::greeted(host.stream().await).await;
        peer.send_bytes(&bytes).await;
        timeout(PATIENCE, peer.expect_fault(code, what)).await.expect(what);
    }
    assert!(!mark.exists());
    host.is_alive().await;
    host.stop().await;
}

#[tokio::test]
async fn a_key_that_is_only_offered_grants_nothing() {
    let host = Host::start().await;
    let mark = host.folder.path().join("mark");
    let mut peer = Peer::greeted(host.stream().await).await;
    let keys = vec![vec![0; 32], host.key.public().blob().to_vec()];
    peer.send(Kind::Offer, 0, &proto::Offer { user: host.user.clone(), keys }).await;
    let reply: proto::OfferReply = peer.message(Kind::OfferReply).await;
    assert_eq!(reply.acceptable, Some(1));
    peer.send(Kind::Start, 1, &start(&host.user, &format!("touch {}", mark.display()))).await;
    peer.expect_fault(4, "a job behind an offer").await;
    assert!(!mark.exists());
    host.is_alive().await;
    host.stop().await;
}

#[tokio::test]
async fn eight_offers_are_all_a_connection_has() {
    let host = Host::start().await;
    let mut peer = Peer::greeted(host.stream().await).await;
    for _ in 0..4 {
        peer.send_bytes(&offer(2)).await;
        let reply: proto::OfferReply = peer.message(Kind::OfferReply).await;
        assert_eq!(reply.acceptable, None);
    }
    peer.send_bytes(&offer(1)).await;
    peer.expect_fault(14, "a ninth offer").await;
    host.stop().await;
}

#[tokio::test]
async fn unknown_kinds_that_may_be_ignored_are() {
    let host = Host::start().await;
    let mut peer = host.peer().await;
    peer.send_bytes(&[header(3, 0x80, 9).as_slice(), b"xyz"].concat()).await;
    peer.send_bytes(&raw_frame(Kind::Ping, 0, b"12345678")).await;
    assert!(peer.next().await.is_some());
    peer.send_bytes(&header(limits::CONTROL_SMALL as u32 + 1, 0x80, 0)).await;
    peer.expect_fault(1, "an ignorable frame too long").await;
    host.stop().await;
}

#[tokio::test]
async fn an_accepted_client_that_breaks_the_protocol_is_told_and_its_job_ended() {
    let host = Host::start().await;
    let credit = |consumed, limit| {
        let credit = proto::Credit { stream: proto::Stream::Stdout as i32, consumed, limit };
        frame(Kind::Credit, 1, &credit)
    };
    let end = |stream, length| frame(Kind::End, 1, &proto::End { stream: stream as i32, length });
    // What fits into the pipe of a command that reads nothing, a mebibyte at most, counts as consumed and becomes credit.
    let beyond: Vec<u8> = (0..=(limits::WINDOW as usize + (1 << 20)) / limits::DATA_FRAME)
        .flat_map(|at| data(Stream::Stdin, 1, (at * limits::DATA_FRAME) as u64, &vec![0; limits::DATA_FRAME]))
        .collect();
    let stdin = proto::Stream::Stdin;
    let good = start(&host.user, "true");
    let wrong = [
        ("a data frame too short for its offset", raw_frame(Kind::Stdin, 1, b"1234567"), 2),
        (
            "a data frame too long",
            header((limits::DATA_FRAME + limits::DATA_OFFSET) as u32 + 1, Kind::Stdin.code(), 1),
            1,
        ),
        ("four gibibytes of stdin", header(u32::MAX, Kind::Stdin.code(), 1), 1),
        ("a job too long", header(limits::CONTROL as u32 + 1, Kind::Start.code(), 2), 1),
        ("a signal too long", header(limits::CONTROL_SMALL as u32 + 1, Kind::Signal.code(), 1), 1),
        ("an unknown kind", header(0, 0x1f, 1), 3),
        ("stdin of no job", data(Stream::Stdin, 9, 0, b"x"), 5),
        ("a signal to no job", frame(Kind::Signal, 9, &proto::Signal::default()), 5),
        ("a channel again", frame(Kind::Start, 1, &good), 6),
        (
            "a channel that goes back",
            [frame(Kind::Start, 5, &good), frame(Kind::Start, 4, &good)].concat(),
            6,
        ),
        ("beyond its credit", beyond, 8),
        ("a gap", data(Stream::Stdin, 1, 1, b"x"), 9),
        (
            "the same bytes again",
            [data(Stream::Stdin, 1, 0, b"x"), data(Stream::Stdin, 1, 0, b"x")].concat(),
            9,
        ),
        ("the end of the range", data(Stream::Stdin, 1, u64::MAX, b"xy"), 9),
        ("a wrong length", [data(Stream::Stdin, 1, 0, b"x"), end(stdin, 2)].concat(), 9),
        ("data behind the end", [end(stdin, 0), data(Stream::Stdin, 1, 0, b"x")].concat(), 10),
        ("a second end", [end(stdin, 0), end(stdin, 0)].concat(), 10),
        ("credit for what was not sent", credit(1 << 40, 1 << 41), 11),
        ("credit that takes back", credit(0, 1), 11),
        ("the end of an output stream", end(proto::Stream::Stdout, 0), 12),
        ("credit for stdin", frame(Kind::Credit, 1, &proto::Credit { stream: 1, consumed: 0, limit: 9 }), 12),
        (
            "credit for no stream",
            frame(Kind::Credit, 1, &proto::Credit { stream: 77, consumed: 0, limit: 9 }),
            12,
        ),
        ("no command", frame(Kind::Start, 2, &proto::Start { command: None, ..good.clone() }), 12),
        ("a short job id", frame(Kind::Start, 2, &proto::Start { job_id: vec![0; 15], ..good.clone() }), 12),
        (
            "an empty vector",
            frame(
                Kind::Start,
                2,
                &proto::Start {
                    command: Some(proto::start::Command::Argv(proto::Argv::default())),
                    ..good.clone()
                },
            ),
            12,
        ),
        ("no message", raw_frame(Kind::Start, 2, b"\x0a\xff"), 12),
        ("output from a client", data(Stream::Stdout, 1, 0, b"x"), 4),
        ("a receipt from a client", frame(Kind::Receipt, 1, &proto::Receipt::default()), 4),
        ("a second proof", frame(Kind::Authenticate, 0, &proof("x", host.key.public(), Vec::new())), 4),
        ("a second hello", hello(1), 4),
    ];
    for (what, bytes, code) in wrong {
        let attempt = async {
            let mut peer = host.peer().await;
            let group = peer.start(1, &host.user, "exec sleep 1000").await;
            peer.send_bytes(&bytes).await;
            peer.expect_fault(code, what).await;
            eventually_async(PATIENCE, what, || group_members(group).is_empty()).await;
        };
        timeout(PATIENCE, attempt).await.expect(what);
    }
    host.is_alive().await;
    host.stop().await;
}

#[tokio::test]
async fn more_jobs_at_a_time_than_allowed_are_a_fault() {
    let host = Host::start().await;
    let mut peer = host.peer().await;
    let waiting = |channel: u32| proto::Start {
        job_id: u128::from(channel).to_be_bytes().to_vec(),
        ..start(&host.user, "read x")
    };
    let all: Vec<u8> =
        (1..=limits::JOBS + 1).flat_map(|channel| frame(Kind::Start, channel, &waiting(channel))).collect();
    peer.send_bytes(&all).await;
    timeout(PATIENCE, peer.expect_fault(7, "one job too many")).await.expect("a fault");
    host.is_alive().await;
    host.stop().await;
}

#[tokio::test]
async fn frames_for_a_job_that_is_just_over_are_no_fault() {
    let host = Host::start().await;
    let mut peer = host.peer().await;
    let receipt = peer.run(1, &host.user, "exit 3").await;
    assert!(receipt.outcome.is_some());
    peer.send_bytes(&data(Stream::Stdin, 1, 0, b"late")).await;
    peer.send(Kind::Signal, 1, &proto::Signal { name: "TERM".to_owned() }).await;
    peer.send(Kind::Close, 1, &proto::Close {}).await;
    peer.send_bytes(&raw_frame(Kind::Ping, 0, b"12345678")).await;
    let pong = peer.next().await;
    assert!(matches!(pong, Some(remora_wire::native::Piece::Control { kind: Kind::Pong, .. })), "{pong:?}");
    host.stop().await;
}

#[tokio::test]
async fn the_shutdown_of_a_client_half_way_is_an_ordinary_end() {
    let host = Host::start().await;
    for cut in [1, 8, 9, 12] {
        let mut peer = host.peer().await;
        let whole = frame(Kind::Start, 1, &start(&host.user, "true"));
        peer.send_bytes(&whole[..cut]).await;
        drop(peer);
    }
    host.is_alive().await;
    host.stop().await;
}

#[tokio::test]
async fn pings_that_nobody_reads_the_answers_of_hold_up_only_their_own_connection() {
    let host = Host::start().await;
    let mut peer = host.peer().await;
    let flood = raw_frame(Kind::Ping, 0, b"12345678").repeat(100_000);
    // More than the buffers between hold: without somebody reading the answers this write never ends.
    let stuck = timeout(std::time::Duration::from_millis(300), async {
        for _ in 0..20 {
            peer.send_bytes(&flood).await;
        }
    });
    assert!(stuck.await.is_err(), "the server takes no more than it can answer");
    host.is_alive().await;
    drop(peer);
    host.stop().await;
}

#[tokio::test]
async fn a_receipt_is_well_formed_and_last() {
    let host = Host::start().await;
    let mut peer = host.peer().await;
    peer.send(Kind::Start, 1, &start(&host.user, "echo x; echo y >&2")).await;
    let mut kinds = Vec::new();
    let receipt = loop {
        match peer.next().await.unwrap() {
            remora_wire::native::Piece::Control { kind: Kind::Receipt, body, .. } => {
                break proto::Receipt::decode(body).unwrap();
            }
            remora_wire::native::Piece::Control { kind, .. } => kinds.push(kind),
            _ => {}
        }
    };
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::End).count(), 2);
    assert_eq!(receipt.stdout.unwrap().length, 2);
    assert_eq!(receipt.job_id, vec![7; 16]);
    assert_eq!(receipt.boot_id, peer.hello.boot_id);
    host.stop().await;
}

#[tokio::test]
async fn a_stalled_reader_of_one_job_holds_up_no_other() {
    let host = Host::start().await;
    let mut peer = host.peer().await;
    // No credit is ever given for this one.
    let group = peer.start(1, &host.user, "exec yes").await;
    let mut stalled = 0;
    for channel in 2..10 {
        peer.send(Kind::Start, channel, &start(&host.user, "echo x")).await;
        loop {
            match timeout(PATIENCE, peer.next()).await.expect("the other job goes on").unwrap() {
                remora_wire::native::Piece::Control { kind: Kind::Receipt, .. } => break,
                remora_wire::native::Piece::Data { channel: 1, bytes, .. } => stalled += bytes.len() as u64,
                _ => {}
            }
        }
    }
    assert!(stalled <= limits::WINDOW, "{stalled} bytes came without credit");
    drop(peer);
    eventually_async(PATIENCE, "the stalled job is ended", || group_members(group).is_empty()).await;
    host.stop().await;
}
