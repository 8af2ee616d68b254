//! The bytes of every frame kind, as docs/PROTOCOL.md gives them. A change here is a change of the protocol.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use bytes::BytesMut;
use remora_wire::limits;
use remora_wire::native::{Client, Greeting, Server, ServerEvent, Stream, proto};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn greeting() -> Greeting {
    Greeting {
        nonce: [0x4e; limits::NONCE],
        boot_id: [0xb0; 16],
        epoch: [0xe0; 16],
        stdin_window: 0x10_0000,
        max_jobs: 256,
        software: "remora 0".to_owned(),
    }
}

/// Both ends with a job on channel 1, nothing left to write.
fn open() -> (Client, Server) {
    let (mut client, mut server) = (Client::new(0x10_0000), Server::new(&greeting()));
    client.input().unsplit(server.output().split());
    while client.poll_event().unwrap().is_some() {}
    client.hello("remora 0");
    client.authenticate("ada", proto::authenticate::Proof::PeerCredentials(proto::PeerCredentials {}));
    let start = proto::Start {
        job_id: vec![0x1d; 16],
        user: "ada".to_owned(),
        command: Some(proto::start::Command::Line(b"ls".to_vec())),
        ..proto::Start::default()
    };
    assert_eq!(client.start(&start), Ok(1));
    server.input().unsplit(client.output().split());
    while let Some(event) = server.poll_event().unwrap() {
        if let ServerEvent::Authenticate { .. } = event {
            server.accept("host");
        }
    }
    client.input().unsplit(server.output().split());
    while client.poll_event().unwrap().is_some() {}
    (client, server)
}

/// One frame: what made it, and its bytes.
fn frames() -> Vec<(&'static str, BytesMut)> {
    let mut all = Vec::new();
    let mut add = |name, bytes: BytesMut| all.push((name, bytes));

    add("server-hello", Server::new(&greeting()).output().split());
    let mut client = Client::new(0x10_0000);
    client.hello("remora 0");
    add("client-hello", client.output().split());
    client.offer("ada", vec![b"K1".to_vec(), b"K2".to_vec()]);
    add("offer", client.output().split());
    let proof = proto::KeyProof { key: b"K1".to_vec(), sshsig: b"SIG".to_vec() };
    client.authenticate("ada", proto::authenticate::Proof::Key(proof));
    add("authenticate, key", client.output().split());
    client.authenticate("ada", proto::authenticate::Proof::PeerCredentials(proto::PeerCredentials {}));
    add("authenticate, peer credentials", client.output().split());
    client.ping(*b"12345678");
    add("ping", client.output().split());

    let mut server = Server::new(&greeting());
    server.output().clear();
    server.reply_offer(Some(1));
    add("offer-reply, second key", server.output().split());
    server.reply_offer(None);
    add("offer-reply, none", server.output().split());
    server.go_away("bye");
    add("go-away", server.output().split());

    let (mut client, mut server) = open();
    let start = proto::Start {
        job_id: vec![0x1d; 16],
        user: "ada".to_owned(),
        command: Some(proto::start::Command::Argv(proto::Argv {
            arguments: vec![b"a b".to_vec(), b"\xff".to_vec()],
        })),
        working_directory: Some(b"/tmp".to_vec()),
        environment: vec![proto::EnvironmentVariable { name: b"A".to_vec(), value: b"1".to_vec() }],
        timeout_ms: 30_000,
        no_stdin: true,
        wait_streams: true,
        epoch: vec![0xe0; 16],
        ..proto::Start::default()
    };
    client.start(&start).unwrap();
    add("start, vector", client.output().split());
    let header = client.stdin_header(1, 5).unwrap();
    let mut data = BytesMut::from(&header[..]);
    data.extend_from_slice(b"hello");
    add("stdin", data);
    client.end_stdin(1);
    add("end of stdin", client.output().split());
    client.signal(1, "INT");
    add("signal", client.output().split());
    let size = proto::WindowSize { rows: 24, columns: 80, width: 640, height: 480 };
    client.resize(1, &size);
    add("resize", client.output().split());
    client.close(1);
    add("close", client.output().split());
    client.stop(1, Stream::Stderr);
    add("stop", client.output().split());

    server.started(1, 4711);
    add("started", server.output().split());
    let header = server.data_header(1, Stream::Stdout, 0x4_0000).unwrap();
    add("stdout, header of 256 KiB", BytesMut::from(&header[..]));
    server.end(1, Stream::Stdout);
    add("end of stdout", server.output().split());
    server.stop_stdin(1);
    add("stop of stdin", server.output().split());
    let receipt = proto::Receipt {
        job_id: vec![0x1d; 16],
        outcome: Some(proto::receipt::Outcome::Exited(proto::Exited { status: 3 })),
        started_unix_ns: 1_000_000_007,
        wall_ns: 5,
        stdout: Some(proto::StreamReport { length: 0x4_0000, blake3: vec![0xb3; 32], ..Default::default() }),
        host_name: "host".to_owned(),
        user: "ada".to_owned(),
        ..proto::Receipt::default()
    };
    server.receipt(1, &receipt);
    add("receipt", server.output().split());

    let (mut client, _) = open();
    let mode = |opcode, argument| proto::TerminalMode { opcode, argument };
    let terminal = proto::Terminal {
        size: Some(size),
        modes: vec![mode(1, 3), mode(53, 1)],
        ..proto::Terminal::default()
    };
    let start = proto::Start {
        job_id: vec![0x1d; 16],
        command: Some(proto::start::Command::LoginShell(proto::LoginShell {})),
        terminal: Some(terminal),
        output_window: 0x2_0000,
        ..proto::Start::default()
    };
    client.start(&start).unwrap();
    add("start, login shell on a terminal", client.output().split());

    let (mut client, mut server) = open();
    let session = proto::SessionName { name: "build".to_owned(), existing: true };
    let start = proto::Start {
        job_id: vec![0x1d; 16],
        command: Some(proto::start::Command::Line(b"cd /tmp && vi".to_vec())),
        terminal: Some(proto::Terminal { size: Some(size), modes: Vec::new(), job_control: true }),
        session: Some(session.clone()),
        login: true,
        ..proto::Start::default()
    };
    client.start(&start).unwrap();
    add("start, line in a session, as a login shell, with job control", client.output().split());
    server.stopped(1, Some("TSTP"));
    add("stopped", server.output().split());
    server.stopped(1, None);
    add("stopped, goes on", server.output().split());
    let change = proto::SessionChange {
        carried: proto::Carried::Captured as i32,
        working_directory: b"/tmp".to_vec(),
        note: "a note".to_owned(),
        name: "build".to_owned(),
        ..proto::SessionChange::default()
    };
    let receipt = proto::Receipt {
        outcome: Some(proto::receipt::Outcome::Exited(proto::Exited { status: 0 })),
        session: Some(change),
        unread_input: b"ls\r".to_vec(),
        ..proto::Receipt::default()
    };
    server.receipt(1, &receipt);
    add("receipt, in a session", server.output().split());

    let (mut client, mut server) = open();
    let start = proto::Start {
        job_id: vec![0x1d; 16],
        command: Some(proto::start::Command::Line(b"ls".to_vec())),
        sign_receipt: true,
        ..proto::Start::default()
    };
    client.start(&start).unwrap();
    add("start, with a receipt to be signed", client.output().split());
    let receipt = proto::Receipt {
        outcome: Some(proto::receipt::Outcome::Exited(proto::Exited { status: 0 })),
        statement: b"remora-receipt-v1\n".to_vec(),
        sshsig: b"SIG".to_vec(),
        host_key_fingerprint: "SHA256:x".to_owned(),
        ..proto::Receipt::default()
    };
    server.receipt(1, &receipt);
    add("receipt, signed", server.output().split());

    let (mut client, mut server) = open();
    let session = proto::SessionName { name: "build".to_owned(), existing: true };
    let questions = [
        proto::ask::Question::OpenSession(proto::OpenSession { session: Some(session.clone()) }),
        proto::ask::Question::ListSessions(proto::ListSessions {}),
        proto::ask::Question::EndSession(proto::EndSession { session: Some(session.clone()) }),
        proto::ask::Question::Complete(proto::Complete {
            session: Some(session),
            kind: proto::CompletionKind::Path as i32,
            word: b"/et".to_vec(),
        }),
    ];
    for (number, question) in (1..).zip(questions) {
        client.ask(&proto::Ask { number, question: Some(question) });
    }
    add("ask: open, list, end, complete", client.output().split());
    let info = proto::SessionInfo {
        id: "00112233445566778899aabbccddeeff".to_owned(),
        name: "build".to_owned(),
        working_directory: b"/tmp".to_vec(),
        home: b"/home/ada".to_vec(),
        shell: b"/bin/bash".to_vec(),
        created_unix_ns: 1,
        used_unix_ns: 2,
        jobs: 1,
        made: true,
    };
    let sessions = proto::answer::Answer::Sessions(proto::SessionList { sessions: vec![info] });
    server.answer(&proto::Answer { number: 1, answer: Some(sessions) });
    let words = vec![b"/etc/".to_vec()];
    let completions = proto::answer::Answer::Completions(proto::Completions { words, more: false });
    server.answer(&proto::Answer { number: 4, answer: Some(completions) });
    add("answers", server.output().split());

    // A job that is gone on with: three bytes of its stdout have arrived, and two of its stdin.
    let (mut client, mut server) = open();
    let header = client.stdin_header(1, 5).unwrap();
    server.input().extend_from_slice(&header);
    let header = server.data_header(1, Stream::Stdout, 3).unwrap();
    client.input().extend_from_slice(&header);
    client.input().extend_from_slice(b"abc");
    while client.poll_event().unwrap().is_some() {}
    let streams = client.streams(1).unwrap();
    let (mut client, mut server) = open();
    let mut start = proto::Start {
        job_id: vec![0x1d; 16],
        user: "ada".to_owned(),
        command: Some(proto::start::Command::Line(b"ls".to_vec())),
        epoch: vec![0xe0; 16],
        linger_ms: 600_000,
        ..proto::Start::default()
    };
    client.resume(2, &mut start, &streams, true, 1).unwrap();
    let frame = client.output().split();
    add("start again, to go on", frame.clone());
    server.input().unsplit(frame);
    while server.poll_event().unwrap().is_some() {}
    server.resumed(2, 4711, &proto::StdinPosition { received: 2, consumed: 1, ended: false, stopped: false });
    add("started, gone on with", server.output().split());
    server.detach(2, "taken up by another connection");
    add("detached", server.output().split());
    client.settle(&[0x1d; 16]);
    add("settled", client.output().split());
    client.leave();
    add("leave", client.output().split());

    // Credit: half the window is consumed, which is more than the quarter that is worth telling.
    let (mut client, mut server) = open();
    let header = server.data_header(1, Stream::Stdout, 0x4_0000).unwrap();
    client.input().extend_from_slice(&header);
    client.input().extend_from_slice(&[0; 0x4_0000]);
    while client.poll_event().unwrap().is_some() {}
    client.consume(1, Stream::Stdout, 0x4_0000);
    add("credit", client.output().split());

    let mut server = Server::new(&greeting());
    server.output().clear();
    server.input().extend_from_slice(&[0, 0, 0, 0, 0x7f, 0, 0, 0, 0]);
    assert!(server.poll_event().is_err());
    add("fault", server.output().split());
    all
}

#[test]
fn every_frame_has_the_bytes_of_the_specification() {
    let text: String = frames().iter().map(|(name, bytes)| format!("{name}\n  {}\n", hex(bytes))).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/native-frames.txt");
    if std::env::var_os("REMORA_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (line, (got, want)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(got, want, "line {}", line + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}
