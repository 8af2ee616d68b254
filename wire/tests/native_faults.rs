//! What a peer can do wrong, each with the fault it gets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use bytes::BytesMut;
use remora_wire::limits;
use remora_wire::native::{
    Client, Fault, Greeting, Kind, Server, ServerEvent, Stream, control_header, data_header, proto,
};

use prost::Message;

fn server() -> Server {
    let mut server = Server::new(&Greeting {
        nonce: [1; limits::NONCE],
        boot_id: [2; 16],
        epoch: [3; 16],
        stdin_window: 64 * 1024,
        max_jobs: 2,
        software: String::new(),
    });
    server.output().clear();
    server
}

fn send(server: &mut Server, kind: Kind, channel: u32, message: &impl Message) {
    let body = message.encode_to_vec();
    server.input().extend_from_slice(&control_header(kind, channel, body.len() as u32));
    server.input().extend_from_slice(&body);
}

fn greet(server: &mut Server) {
    let hello = proto::ClientHello { version: 1, output_window: 1 << 20, software: String::new() };
    send(server, Kind::ClientHello, 0, &hello);
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Hello(_)))));
}

fn prove(server: &mut Server) {
    let proof = proto::authenticate::Proof::PeerCredentials(proto::PeerCredentials {});
    send(server, Kind::Authenticate, 0, &proto::Authenticate { user: "ada".into(), proof: Some(proof) });
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Authenticate { .. }))));
}

fn start() -> proto::Start {
    proto::Start {
        job_id: vec![9; 16],
        user: "ada".into(),
        command: Some(proto::start::Command::Line(b"ls".to_vec())),
        ..proto::Start::default()
    }
}

/// A server with an authenticated client and a job on channel 1.
fn open() -> Server {
    let mut server = server();
    greet(&mut server);
    prove(&mut server);
    server.accept("host");
    send(&mut server, Kind::Start, 1, &start());
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Start { channel: 1, .. }))));
    server.output().clear();
    server
}

/// The fault that some bytes get, which is told to the peer as the last frame.
fn fault(mut server: Server, bytes: &[u8]) -> Fault {
    server.input().extend_from_slice(bytes);
    let fault = loop {
        match server.poll_event() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no fault"),
            Err(fault) => break fault,
        }
    };
    let told = server.output().split();
    assert_eq!(told.get(4), Some(&Kind::Fault.code()));
    let message = proto::Fault::decode(&told[limits::FRAME_HEADER..]).unwrap();
    assert_eq!(message.code, fault.code());
    assert!(matches!(server.poll_event(), Ok(None)), "nothing is taken after a fault");
    assert!(!server.wants_input());
    fault
}

fn frame(kind: Kind, channel: u32, message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    [control_header(kind, channel, body.len() as u32).to_vec(), body].concat()
}

#[test]
fn a_length_beyond_its_limit_is_refused_before_its_body_comes() {
    for (kind, limit) in [
        (Kind::Stdin, limits::DATA_OFFSET + limits::DATA_FRAME),
        (Kind::Start, limits::CONTROL),
        (Kind::Credit, limits::CONTROL_SMALL),
        (Kind::Signal, limits::CONTROL_SMALL),
    ] {
        for length in [limit as u32 + 1, u32::MAX] {
            let got = fault(open(), &control_header(kind, 1, length));
            assert_eq!(got, Fault::FrameTooLong { kind: kind.code(), length, limit });
        }
    }
}

#[test]
fn before_authentication_the_limits_are_small() {
    let mut early = server();
    greet(&mut early);
    let got = fault(early, &control_header(Kind::Authenticate, 0, limits::CONTROL_BEFORE_AUTH as u32 + 1));
    assert!(matches!(got, Fault::FrameTooLong { .. }));
}

#[test]
fn a_data_frame_too_short_for_its_offset_is_refused() {
    assert_eq!(fault(open(), &control_header(Kind::Stdin, 1, 7)), Fault::FrameTooShort(7));
}

#[test]
fn unknown_critical_kinds_end_the_connection_and_ignorable_ones_do_not() {
    assert_eq!(fault(open(), &[0, 0, 0, 0, 0x7f, 0, 0, 0, 0]), Fault::UnknownKind(0x7f));
    let mut server = open();
    server.input().extend_from_slice(&[0, 0, 0, 3, 0x80, 0, 0, 0, 0, 1, 2, 3]);
    assert_eq!(server.poll_event(), Ok(None));
    assert!(server.at_border());
    let long = [[0, 1, 0, 0].as_slice(), &[0xff, 0, 0, 0, 0]].concat();
    assert!(matches!(fault(open(), &long), Fault::FrameTooLong { .. }));
}

#[test]
fn nothing_comes_before_the_hello_and_no_job_before_the_proof() {
    for kind in Kind::ALL {
        if matches!(kind, Kind::ClientHello | Kind::Ping | Kind::Pong | Kind::Fault)
            || kind.stream().is_some()
        {
            continue;
        }
        let channel = u32::from(kind.code() >= Kind::Start.code());
        let got = fault(server(), &control_header(*kind, channel, 0));
        assert_eq!(got, Fault::UnexpectedKind(*kind), "{kind}");
    }
    let mut early = server();
    greet(&mut early);
    assert_eq!(fault(early, &frame(Kind::Start, 1, &start())), Fault::UnexpectedKind(Kind::Start));
    let mut early = server();
    greet(&mut early);
    let data = [data_header(Stream::Stdin, 1, 0, 1).as_slice(), b"x"].concat();
    assert_eq!(fault(early, &data), Fault::UnexpectedKind(Kind::Stdin));
}

#[test]
fn an_offer_without_a_signature_opens_nothing() {
    // PITFALLS 20.
    let mut early = server();
    greet(&mut early);
    send(&mut early, Kind::Offer, 0, &proto::Offer { user: "ada".into(), keys: vec![b"K".to_vec()] });
    assert!(matches!(early.poll_event(), Ok(Some(ServerEvent::Offer { .. }))));
    early.reply_offer(Some(0));
    early.output().clear();
    assert_eq!(fault(early, &frame(Kind::Start, 1, &start())), Fault::UnexpectedKind(Kind::Start));
}

#[test]
fn a_second_hello_and_a_second_proof_are_refused() {
    let hello = proto::ClientHello { version: 1, output_window: 1, software: String::new() };
    assert_eq!(fault(open(), &frame(Kind::ClientHello, 0, &hello)), Fault::UnexpectedKind(Kind::ClientHello));
    let again = proto::Authenticate { user: "eve".into(), proof: None };
    assert_eq!(
        fault(open(), &frame(Kind::Authenticate, 0, &again)),
        Fault::UnexpectedKind(Kind::Authenticate)
    );
}

#[test]
fn a_server_does_not_take_what_only_servers_send() {
    for kind in
        [Kind::ServerHello, Kind::OfferReply, Kind::AuthReply, Kind::GoAway, Kind::Started, Kind::Receipt]
    {
        let channel = u32::from(kind.code() >= Kind::Start.code());
        assert_eq!(fault(open(), &control_header(kind, channel, 0)), Fault::UnexpectedKind(kind));
    }
    for stream in [Stream::Stdout, Stream::Stderr] {
        let got = fault(open(), &data_header(stream, 1, 0, 0));
        assert_eq!(got, Fault::UnexpectedKind(stream.kind()));
    }
}

#[test]
fn channels_are_opened_in_order_and_used_once() {
    assert_eq!(fault(open(), &frame(Kind::Start, 1, &start())), Fault::ChannelReused(1));
    assert_eq!(fault(open(), &frame(Kind::Start, 0, &start())), Fault::UnknownChannel(0));
    assert_eq!(fault(open(), &frame(Kind::Close, 7, &proto::Close {})), Fault::UnknownChannel(7));
    assert_eq!(fault(open(), &frame(Kind::Offer, 1, &proto::Offer::default())), Fault::UnknownChannel(1));
    let data = [data_header(Stream::Stdin, 7, 0, 1).as_slice(), b"x"].concat();
    assert_eq!(fault(open(), &data), Fault::UnknownChannel(7));
}

#[test]
fn more_jobs_than_allowed_are_refused() {
    let mut server = open();
    send(&mut server, Kind::Start, 2, &start());
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Start { channel: 2, .. }))));
    assert_eq!(fault(server, &frame(Kind::Start, 3, &start())), Fault::TooManyJobs(2));
}

#[test]
fn data_beyond_credit_is_refused() {
    // PITFALLS 11.
    let window = 64 * 1024;
    let whole = [data_header(Stream::Stdin, 1, 0, window).as_slice(), &vec![7; window as usize]].concat();
    let mut server = open();
    server.input().extend_from_slice(&whole);
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Data { offset: 0, .. }))));
    let more = [data_header(Stream::Stdin, 1, u64::from(window), 1).as_slice(), b"x"].concat();
    let limit = u64::from(window);
    assert_eq!(fault(server, &more), Fault::BeyondCredit { end: limit + 1, limit });
}

#[test]
fn offsets_are_the_next_one_or_nothing() {
    for offset in [1, u64::MAX, u64::MAX - 1] {
        let data = [data_header(Stream::Stdin, 1, offset, 2).as_slice(), b"xy"].concat();
        assert_eq!(fault(open(), &data), Fault::WrongOffset { got: offset, expected: 0 });
    }
    let end = proto::End { stream: proto::Stream::Stdin as i32, length: 5 };
    assert_eq!(fault(open(), &frame(Kind::End, 1, &end)), Fault::WrongOffset { got: 5, expected: 0 });
}

#[test]
fn nothing_follows_the_end_of_a_stream() {
    let end = frame(Kind::End, 1, &proto::End { stream: proto::Stream::Stdin as i32, length: 0 });
    assert_eq!(fault(open(), &[end.clone(), end.clone()].concat()), Fault::AfterEnd);
    let data = [data_header(Stream::Stdin, 1, 0, 1).as_slice(), b"x"].concat();
    assert_eq!(fault(open(), &[end, data].concat()), Fault::AfterEnd);
}

#[test]
fn credit_never_goes_back_nor_ahead_of_what_was_sent() {
    // PITFALLS 10.
    let credit = |consumed, limit| {
        frame(Kind::Credit, 1, &proto::Credit { stream: proto::Stream::Stdout as i32, consumed, limit })
    };
    assert_eq!(fault(open(), &credit(1, u64::MAX)), Fault::WrongCredit, "consumed what was never sent");
    assert_eq!(fault(open(), &credit(0, 1)), Fault::WrongCredit, "limit goes back");
    let mut server = open();
    server.input().extend_from_slice(&credit(0, u64::MAX));
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Credit { .. }))));
    assert_eq!(server.outgoing(1, Stream::Stdout).unwrap().room(), u64::MAX);
    let stdin =
        frame(Kind::Credit, 1, &proto::Credit { stream: proto::Stream::Stdin as i32, consumed: 0, limit: 9 });
    assert!(matches!(fault(open(), &stdin), Fault::Malformed { kind: Kind::Credit, .. }));
}

#[test]
fn malformed_messages_are_refused() {
    let garbage = [control_header(Kind::Start, 2, 3).as_slice(), &[0x0a, 0xff, 0xff]].concat();
    assert!(matches!(fault(open(), &garbage), Fault::Malformed { kind: Kind::Start, .. }));
    for broken in [
        proto::Start { job_id: vec![1; 15], ..start() },
        proto::Start { command: None, ..start() },
        proto::Start { command: Some(proto::start::Command::Argv(proto::Argv::default())), ..start() },
    ] {
        assert!(matches!(fault(open(), &frame(Kind::Start, 2, &broken)), Fault::Malformed { .. }));
    }
    let ping = [control_header(Kind::Ping, 0, 7).as_slice(), &[0; 7]].concat();
    assert!(matches!(fault(open(), &ping), Fault::Malformed { kind: Kind::Ping, .. }));
}

#[test]
fn hostile_lengths_inside_a_message_allocate_nothing() {
    // A bytes field that announces 4 GiB in a message of seven bytes.
    let body = [0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00];
    let bytes = [control_header(Kind::Start, 2, body.len() as u32).as_slice(), &body].concat();
    assert!(matches!(fault(open(), &bytes), Fault::Malformed { .. }));
}

#[test]
fn unsigned_offers_are_counted() {
    // PITFALLS 28.
    let mut early = server();
    greet(&mut early);
    for _ in 0..limits::OFFERS {
        send(&mut early, Kind::Offer, 0, &proto::Offer { user: "ada".into(), keys: vec![b"K".to_vec()] });
        assert!(matches!(early.poll_event(), Ok(Some(ServerEvent::Offer { .. }))));
        early.reply_offer(None);
    }
    early.output().clear();
    let one_more = frame(Kind::Offer, 0, &proto::Offer { user: "ada".into(), keys: vec![b"K".to_vec()] });
    assert_eq!(fault(early, &one_more), Fault::TooManyAttempts);
}

#[test]
fn failed_proofs_are_counted() {
    let mut early = server();
    greet(&mut early);
    for left in (0..limits::AUTH_ATTEMPTS).rev() {
        prove(&mut early);
        assert_eq!(early.deny(), left > 0);
    }
    early.output().clear();
    let proof = proto::authenticate::Proof::PeerCredentials(proto::PeerCredentials {});
    let again = proto::Authenticate { user: "ada".into(), proof: Some(proof) };
    assert_eq!(fault(early, &frame(Kind::Authenticate, 0, &again)), Fault::TooManyAttempts);
}

#[test]
fn what_was_sent_behind_a_failed_proof_is_thrown_away_up_to_a_bound() {
    let mut early = server();
    greet(&mut early);
    prove(&mut early);
    // The job and its input are in flight before the verdict.
    send(&mut early, Kind::Start, 1, &start());
    early.input().extend_from_slice(&data_header(Stream::Stdin, 1, 0, 3));
    early.input().extend_from_slice(b"abc");
    assert_eq!(early.poll_event(), Ok(None), "nothing is looked at before the verdict");
    assert!(early.deny());
    assert_eq!(early.poll_event(), Ok(None), "nothing of it runs after a failed one");
    // The next proof is judged on its own, and jobs behind it run.
    prove(&mut early);
    early.accept("host");
    send(&mut early, Kind::Start, 2, &start());
    assert!(matches!(early.poll_event(), Ok(Some(ServerEvent::Start { channel: 2, .. }))));

    let mut flooded = server();
    greet(&mut flooded);
    prove(&mut flooded);
    assert!(flooded.deny());
    flooded.output().clear();
    let chunk = [data_header(Stream::Stdin, 1, 0, 256 * 1024).as_slice(), &vec![0; 256 * 1024]].concat();
    let flood = chunk.repeat(80);
    assert_eq!(fault(flooded, &flood), Fault::UnexpectedKind(Kind::Stdin));
}

#[test]
fn terminals_are_bounded() {
    let start = |terminal: proto::Terminal, no_stdin: bool| proto::Start {
        job_id: vec![7; 16],
        command: Some(proto::start::Command::Line(b"true".to_vec())),
        terminal: Some(terminal),
        no_stdin,
        ..proto::Start::default()
    };
    let size = |rows| proto::WindowSize { rows, columns: 80, width: 0, height: 0 };
    let mode = proto::TerminalMode { opcode: 1, argument: 3 };
    let huge = proto::Terminal { size: Some(size(65_536)), modes: Vec::new(), ..proto::Terminal::default() };
    let many = proto::Terminal {
        size: Some(size(24)),
        modes: vec![mode; limits::TERMINAL_MODES + 1],
        ..proto::Terminal::default()
    };
    let good = proto::Terminal {
        size: Some(size(65_535)),
        modes: vec![mode; limits::TERMINAL_MODES],
        ..proto::Terminal::default()
    };
    for bad in [start(huge, false), start(many, false), start(good.clone(), true)] {
        let got = fault(open(), &frame(Kind::Start, 2, &bad));
        assert!(matches!(got, Fault::Malformed { kind: Kind::Start, .. }), "{got:?}");
    }
    let mut server = open();
    send(&mut server, Kind::Start, 2, &start(good, false));
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Start { channel: 2, .. }))));
    send(&mut server, Kind::Resize, 2, &size(1));
    assert_eq!(server.poll_event(), Ok(Some(ServerEvent::Resize { channel: 2, size: size(1) })));
    let got = fault(server, &frame(Kind::Resize, 2, &size(65_536)));
    assert!(matches!(got, Fault::Malformed { kind: Kind::Resize, .. }), "{got:?}");
}

#[test]
fn a_job_with_a_window_of_its_own_gets_no_more_than_that() {
    let mut server = open();
    let start = proto::Start {
        job_id: vec![7; 16],
        command: Some(proto::start::Command::Line(b"true".to_vec())),
        output_window: 100,
        ..proto::Start::default()
    };
    send(&mut server, Kind::Start, 2, &start);
    server.poll_event().unwrap();
    assert_eq!(server.outgoing(2, Stream::Stdout).unwrap().room(), 100);
    server.receipt(2, &proto::Receipt::default());
    send(&mut server, Kind::Start, 3, &proto::Start { output_window: u64::MAX, ..start });
    server.poll_event().unwrap();
    assert_eq!(
        server.outgoing(3, Stream::Stdout).unwrap().room(),
        server.outgoing(1, Stream::Stdout).unwrap().room()
    );
}

#[test]
fn frames_that_crossed_a_receipt_are_ignored() {
    let mut server = open();
    server.receipt(1, &proto::Receipt::default());
    send(&mut server, Kind::Signal, 1, &proto::Signal { name: "INT".into() });
    server.input().extend_from_slice(&data_header(Stream::Stdin, 1, 0, 3));
    server.input().extend_from_slice(b"abc");
    send(&mut server, Kind::End, 1, &proto::End { stream: proto::Stream::Stdin as i32, length: 3 });
    assert_eq!(server.poll_event(), Ok(None));
}

#[test]
fn pings_are_answered_and_a_flood_of_them_stops_the_reading() {
    // PITFALLS 14.
    let mut server = open();
    let ping = [control_header(Kind::Ping, 0, 8).as_slice(), b"abcdefgh"].concat();
    server.input().extend_from_slice(&ping);
    assert_eq!(server.poll_event(), Ok(None));
    let pong = server.output().split();
    assert_eq!(&pong[..], &[control_header(Kind::Pong, 0, 8).as_slice(), b"abcdefgh"].concat()[..]);
    assert!(server.wants_input());
    server.input().extend_from_slice(&ping.repeat(limits::CONTROL_BACKLOG / ping.len() + 1));
    assert_eq!(server.poll_event(), Ok(None));
    assert!(!server.wants_input(), "answers pile up, so no more is read");
}

#[test]
fn versions_without_overlap_end_the_connection_on_either_side() {
    let hello = proto::ClientHello { version: 99, output_window: 1, software: String::new() };
    assert_eq!(fault(server(), &frame(Kind::ClientHello, 0, &hello)), Fault::Version { min: 99, max: 99 });
    let mut client = Client::new(1);
    let hello =
        proto::ServerHello { version_min: 7, version_max: 9, nonce: vec![0; 32], ..Default::default() };
    client.input().extend_from_slice(&frame(Kind::ServerHello, 0, &hello));
    assert_eq!(client.poll_event(), Err(Fault::Version { min: 7, max: 9 }));
}

/// A client that has greeted, proven itself and started a job on channel 1.
fn open_client() -> Client {
    let mut client = Client::new(64 * 1024);
    let hello = proto::ServerHello {
        version_min: 1,
        version_max: 1,
        nonce: vec![0; 32],
        stdin_window: 1024,
        max_jobs: 1,
        max_control: limits::CONTROL as u32,
        ..Default::default()
    };
    client.input().extend_from_slice(&frame(Kind::ServerHello, 0, &hello));
    client.poll_event().unwrap();
    client.hello("");
    client.start(&start()).unwrap();
    client.input().extend_from_slice(&frame(
        Kind::AuthReply,
        0,
        &proto::AuthReply { accepted: true, ..Default::default() },
    ));
    client.poll_event().unwrap();
    client
}

fn client_fault(bytes: &[u8]) -> Fault {
    let mut client = open_client();
    client.input().extend_from_slice(bytes);
    loop {
        match client.poll_event() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no fault"),
            Err(fault) => return fault,
        }
    }
}

#[test]
fn a_client_takes_no_receipt_before_the_end_of_the_streams() {
    let receipt = proto::Receipt {
        outcome: Some(proto::receipt::Outcome::Exited(proto::Exited { status: 0 })),
        ..Default::default()
    };
    assert!(matches!(client_fault(&frame(Kind::Receipt, 1, &receipt)), Fault::Malformed { .. }));
    let end = |stream: proto::Stream| frame(Kind::End, 1, &proto::End { stream: stream as i32, length: 0 });
    let ends = [end(proto::Stream::Stdout), end(proto::Stream::Stderr)].concat();
    let no_outcome = [ends.clone(), frame(Kind::Receipt, 1, &proto::Receipt::default())].concat();
    assert!(matches!(client_fault(&no_outcome), Fault::Malformed { .. }));
    let mut client = open_client();
    client.input().extend_from_slice(&[ends, frame(Kind::Receipt, 1, &receipt)].concat());
    let mut events = 0;
    while client.poll_event().unwrap().is_some() {
        events += 1;
    }
    assert_eq!((events, client.running()), (3, 0));
}

#[test]
fn a_client_takes_nothing_for_a_job_that_is_over_or_never_was() {
    let data = [data_header(Stream::Stdout, 2, 0, 1).as_slice(), b"x"].concat();
    assert_eq!(client_fault(&data), Fault::UnknownChannel(2));
    assert_eq!(
        client_fault(&frame(Kind::Started, 2, &proto::Started { pid: 1, stdin: None })),
        Fault::UnknownChannel(2)
    );
}

#[test]
fn a_client_holds_the_server_to_its_window() {
    let data = [data_header(Stream::Stdout, 1, 0, 65537).as_slice(), &[0; 65537]].concat();
    assert_eq!(client_fault(&data), Fault::BeyondCredit { end: 65537, limit: 65536 });
}

#[test]
fn a_client_starts_no_more_and_no_larger_jobs_than_the_server_takes() {
    let mut client = open_client();
    assert!(client.start(&start()).is_err(), "one job is the limit");
    let mut client = Client::new(1);
    assert!(client.start(&start()).is_err(), "no hello yet");
    let hello = proto::ServerHello {
        version_min: 1,
        version_max: 1,
        nonce: vec![0; 32],
        max_jobs: 1,
        max_control: 100,
        ..Default::default()
    };
    client.input().extend_from_slice(&frame(Kind::ServerHello, 0, &hello));
    client.poll_event().unwrap();
    let large = proto::Start { command: Some(proto::start::Command::Line(vec![b'x'; 101])), ..start() };
    assert!(client.start(&large).is_err());
    assert!(client.start(&start()).is_ok());
}

#[test]
fn a_nonce_of_the_wrong_length_is_refused() {
    let mut client = Client::new(1);
    let hello =
        proto::ServerHello { version_min: 1, version_max: 1, nonce: vec![0; 31], ..Default::default() };
    client.input().extend_from_slice(&frame(Kind::ServerHello, 0, &hello));
    assert!(matches!(client.poll_event(), Err(Fault::Malformed { .. })));
    let _: BytesMut = client.output().split();
}

#[test]
fn questions_are_bounded_and_wait_for_a_login() {
    let ask = |number| proto::Ask {
        number,
        question: Some(proto::ask::Question::ListSessions(proto::ListSessions {})),
    };
    let mut stranger = server();
    greet(&mut stranger);
    assert_eq!(fault(stranger, &frame(Kind::Ask, 0, &ask(1))), Fault::UnexpectedKind(Kind::Ask));
    assert_eq!(fault(open(), &frame(Kind::Ask, 1, &ask(1))), Fault::UnknownChannel(1));

    let mut server = open();
    for number in 0..limits::QUESTIONS as u32 {
        send(&mut server, Kind::Ask, 0, &ask(number));
        assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Ask(_)))));
    }
    server.answer(&proto::Answer { number: 0, answer: None });
    send(&mut server, Kind::Ask, 0, &ask(99));
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Ask(_)))), "an answer makes room");
    server.output().clear();
    let got = fault(server, &frame(Kind::Ask, 0, &ask(100)));
    assert!(matches!(got, Fault::Malformed { kind: Kind::Ask, .. }), "{got:?}");
}

fn at(received: u64, consumed: u64) -> Option<proto::Position> {
    Some(proto::Position { received, consumed })
}

#[test]
fn a_job_is_gone_on_with_where_its_client_can_be_and_nowhere_else() {
    let resume = |stdout, stderr| proto::Start {
        resume: Some(proto::Resume { stdout, stderr, known: true, attempt: 1, stdin: None }),
        ..start()
    };
    for (stdout, stderr) in [
        (at(1, 2), at(0, 0)),
        (at(0, 0), at((1 << 20) + 1, 0)),
        (at(u64::MAX, 0), None),
        (None, at(0, u64::MAX)),
    ] {
        let got = fault(open(), &frame(Kind::Start, 2, &resume(stdout, stderr)));
        assert!(matches!(got, Fault::Malformed { kind: Kind::Start, .. }), "{stdout:?} {stderr:?}");
    }
    let mut server = open();
    send(&mut server, Kind::Start, 2, &resume(at(u64::MAX, u64::MAX), at(1 << 20, 0)));
    assert!(matches!(server.poll_event(), Ok(Some(ServerEvent::Start { channel: 2, .. }))));
    assert_eq!(server.outgoing(2, Stream::Stdout).unwrap().room(), 0);
    assert_eq!(server.outgoing(2, Stream::Stderr).unwrap().sent(), 1 << 20);
}

#[test]
fn no_stdin_comes_before_the_host_has_said_where_it_goes_on() {
    let again = proto::Start { resume: Some(proto::Resume::default()), ..start() };
    let data = [&data_header(Stream::Stdin, 2, 0, 1)[..], b"x"].concat();
    let end = frame(Kind::End, 2, &proto::End { stream: proto::Stream::Stdin as i32, length: 0 });
    for (bytes, kind) in [(data, Kind::Stdin), (end, Kind::End)] {
        let mut server = open();
        send(&mut server, Kind::Start, 2, &again);
        assert_eq!(fault(server, &bytes), Fault::UnexpectedKind(kind));
    }
}

/// A client on a new connection, with a job on channel 1 that had sent bytes 0 to 5 of stdin, of which 2 were consumed.
fn resuming() -> Client {
    let greeting = || {
        let hello = proto::ServerHello {
            version_min: 1,
            version_max: 1,
            nonce: vec![1; limits::NONCE],
            stdin_window: 64 * 1024,
            max_jobs: 2,
            max_control: limits::CONTROL as u32,
            ..proto::ServerHello::default()
        };
        let accepted = proto::AuthReply { accepted: true, ..proto::AuthReply::default() };
        [frame(Kind::ServerHello, 0, &hello), frame(Kind::AuthReply, 0, &accepted)].concat()
    };
    let mut client = Client::new(1 << 20);
    client.input().extend_from_slice(&greeting());
    while client.poll_event().unwrap().is_some() {}
    client.start(&start()).unwrap();
    client.stdin_header(1, 5).unwrap();
    let credit = proto::Credit { stream: proto::Stream::Stdin as i32, consumed: 2, limit: 64 * 1024 + 2 };
    client.input().extend_from_slice(&frame(Kind::Credit, 1, &credit));
    while client.poll_event().unwrap().is_some() {}
    let streams = client.streams(1).unwrap();
    let mut client = Client::new(1 << 20);
    client.input().extend_from_slice(&greeting());
    while client.poll_event().unwrap().is_some() {}
    client.resume(1, &mut start(), &streams, true, 1).unwrap();
    assert_eq!(client.stdin_header(1, 1), None, "the host has yet to say where it goes on");
    client
}

#[test]
fn a_host_goes_on_with_what_is_kept_of_stdin_and_nothing_else() {
    let started = |received, consumed| proto::Started {
        pid: 1,
        stdin: Some(proto::StdinPosition { received, consumed, ..proto::StdinPosition::default() }),
    };
    for received in [0, 1, 6, u64::MAX] {
        let mut client = resuming();
        client.input().extend_from_slice(&frame(Kind::Started, 1, &started(received, 0)));
        assert_eq!(client.poll_event(), Err(Fault::WrongResume { at: received, kept: 2, sent: 5 }));
    }
    let mut client = resuming();
    client.input().extend_from_slice(&frame(Kind::Started, 1, &started(4, 5)));
    assert!(matches!(client.poll_event(), Err(Fault::WrongResume { .. })), "consumed and not received");
    let mut client = resuming();
    client.input().extend_from_slice(&frame(Kind::Started, 1, &started(3, 3)));
    client.poll_event().unwrap();
    assert_eq!(client.stdin(1).unwrap().sent(), 3);
    // A start that is no resume has no such answer, and one that is has nothing else first.
    let mut client = resuming();
    client.input().extend_from_slice(&frame(Kind::Started, 1, &proto::Started { pid: 1, stdin: None }));
    assert!(matches!(client.poll_event(), Err(Fault::Malformed { kind: Kind::Started, .. })));
    let mut client = resuming();
    client.input().extend_from_slice(&data_header(Stream::Stdout, 1, 0, 0));
    assert_eq!(client.poll_event(), Err(Fault::UnexpectedKind(Kind::Stdout)));
}
