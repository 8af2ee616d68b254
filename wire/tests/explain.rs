//! What `remora wire decode` says of captured bytes: golden text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use prost::Message;
use remora_wire::explain::{Explainer, Protocol, Side};
use remora_wire::native::{Kind, Stream, control_header, data_header, proto};
use remora_wire::plain::{Wire, length_prefix};

fn explain(protocol: Protocol, side: Side, reads: &[&[u8]], known: bool) -> (Vec<String>, bool) {
    let mut explainer = Explainer::new(protocol, side, known);
    let mut lines = Vec::new();
    for read in reads {
        explainer.begin_read(&mut |line| lines.push(line));
        explainer.handle_bytes(read, &mut |line| lines.push(line));
    }
    explainer.handle_end(&mut |line| lines.push(line));
    (lines, explainer.is_malformed())
}

fn control(kind: Kind, channel: u32, message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    [&control_header(kind, channel, body.len() as u32)[..], &body].concat()
}

fn data(stream: Stream, channel: u32, offset: u64, bytes: &[u8]) -> Vec<u8> {
    [&data_header(stream, channel, offset, bytes.len() as u32)[..], bytes].concat()
}

fn native() -> Vec<u8> {
    let command = proto::start::Command::Line(b"ls -l".to_vec());
    let start = proto::Start {
        job_id: vec![0xab; 16],
        user: "ada\u{1b}[2J".into(),
        command: Some(command),
        ..Default::default()
    };
    [
        control(Kind::Start, 1, &start),
        data(Stream::Stdout, 1, 7, b"hello\x1b]0;x\x07\n"),
        data(Stream::Stderr, 1, 0, &[b'x'; 100]),
        control(Kind::End, 1, &proto::End { stream: 2, length: 18 }),
        control_header(Kind::Ping, 0, 8).to_vec(),
        b"12345678".to_vec(),
    ]
    .concat()
}

#[test]
fn native_frames_are_told_with_their_fields() {
    let (lines, malformed) = explain(Protocol::Native, Side::Client, &[&native()], false);
    let golden = [
        "       0  start, channel 1, 34 bytes: Start { job_id: 0xabababababababababababababababab, user: \"ada\\u{1b}[2J\", working_directory: None, environment: [], timeout_ms: 0, no_stdin: false, wait_streams: false, epoch: [], terminal: None, output_window: 0, session: None, login: false, resume: None, linger_ms: 0, sign_receipt: false, keep_order: false, detach: None, attach: None, command: Some(Line(b\"ls -l\")) }",
        "      43  stdout, channel 1, 12 bytes at offset 7: \"hello\\x1b]0;x\\x07\\n\"",
        "      72  stderr, channel 1, 100 bytes at offset 0: \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"…",
        "     189  end, channel 1, 4 bytes: End { stream: Stdout, length: 18 }",
        "     202  ping, channel 0, 8 bytes: \"12345678\"",
    ];
    assert_eq!(lines, golden);
    assert!(!malformed);
    assert!(lines.iter().all(|line| !line.chars().any(char::is_control)));
}

#[test]
fn what_was_split_or_stuck_together_is_marked() {
    let bytes = native();
    let (lines, _) =
        explain(Protocol::Native, Side::Client, &[&bytes[..50], &bytes[50..60], &bytes[60..]], true);
    let marks: Vec<_> =
        lines.iter().map(|line| line.split_once("  [").map_or("", |(_, marks)| marks)).collect();
    assert_eq!(
        marks,
        [
            "",
            "split over reads 1 to 3]  [stuck to the one before it in read 1]",
            "stuck to the one before it in read 3]",
            "stuck to the one before it in read 3]",
            "stuck to the one before it in read 3]",
        ]
    );
    // The lines are the same however the reads fall.
    let plain = |(lines, _): (Vec<String>, bool)| -> Vec<String> {
        lines.iter().map(|line| line.split("  [").next().unwrap().to_owned()).collect()
    };
    let whole = plain(explain(Protocol::Native, Side::Client, &[&bytes], true));
    for size in 1..40 {
        let reads: Vec<&[u8]> = bytes.chunks(size).collect();
        assert_eq!(plain(explain(Protocol::Native, Side::Client, &reads, true)), whole, "{size} at a time");
    }
}

#[test]
fn garbage_is_told_with_its_offset_and_reason() {
    let mut bytes = control(Kind::End, 1, &proto::End { stream: 2, length: 18 });
    bytes.extend_from_slice(&[0, 0, 0, 1, 0x7f, 0, 0, 0, 9, b'x', b'y']);
    let (lines, malformed) = explain(Protocol::Native, Side::Server, &[&bytes], false);
    assert_eq!(lines[1], "      13  malformed: unknown frame kind 0x7f");
    assert_eq!(lines[2], "      22  2 bytes behind it, unexplained");
    assert!(malformed);
    let (lines, _) = explain(Protocol::Native, Side::Server, &[&[0xff; 9]], false);
    assert!(lines[0].starts_with("       0  malformed: "), "{lines:?}");
    let (lines, malformed) = explain(Protocol::Native, Side::Server, &[&native()[..20]], false);
    assert_eq!(lines, ["       0  cut off: 11 of the 34 bytes of start, channel 1"]);
    assert!(!malformed);
}

#[test]
fn plain_replies_and_requests_are_told() {
    let reply = [&length_prefix(5).unwrap()[..], b"hello", &length_prefix(0).unwrap()].concat();
    let length = Protocol::Plain(Wire::Length);
    let (lines, _) = explain(length, Side::Server, &[&reply[..2], &reply[2..]], true);
    assert_eq!(
        lines,
        [
            "       0  reply, 5 bytes: \"hello\"  [split over reads 1 to 2]",
            "       9  reply, 0 bytes: \"\"  [stuck to the one before it in read 2]",
        ]
    );
    let (lines, _) = explain(length, Side::Server, &[&reply[..6]], false);
    assert_eq!(lines, ["       0  cut off: reply, 2 of 5 bytes of a payload: \"he\""]);
    let (lines, malformed) = explain(length, Side::Server, &[&[0xff; 4]], false);
    assert_eq!(lines, ["       0  malformed: the reply announces a negative length, -1"]);
    assert!(malformed);
    let (lines, _) = explain(length, Side::Client, &[b"ls", b"pwd\n"], true);
    assert_eq!(
        lines,
        [
            "       0  request bytes without a frame, read 1, 2 bytes: \"ls\"",
            "       2  request bytes without a frame, read 2, 4 bytes: \"pwd\\n\"",
        ]
    );
    let (lines, _) = explain(Protocol::Plain(Wire::Raw), Side::Server, &[b"some", b"more"], false);
    assert_eq!(lines.len(), 2);
    let json = "{\"total_size\":2,\"filename\":\"\u{202e}x\"}";
    let bytes = [&(json.len() as i32).to_le_bytes()[..], json.as_bytes(), b"ok"].concat();
    let (lines, _) = explain(Protocol::Plain(Wire::Header), Side::Server, &[&bytes], false);
    let expected =
        "reply, header of 34 bytes {\"total_size\":2,\"filename\":\"\\u{202e}x\"}, then 2 bytes: \"ok\"";
    assert_eq!(lines, [format!("       0  {expected}")]);
}

#[test]
fn arbitrary_bytes_are_explained_without_panic_or_control_characters() {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for round in 0..2000 {
        let mut bytes: Vec<u8> =
            if round % 2 == 0 { native() } else { (0..round % 97).map(|_| next()).collect() };
        for _ in 0..4 {
            let at = usize::from(next()) % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = next();
            }
        }
        for protocol in [
            Protocol::Native,
            Protocol::Plain(Wire::Raw),
            Protocol::Plain(Wire::Length),
            Protocol::Plain(Wire::Header),
        ] {
            let (lines, _) = explain(protocol, Side::Server, &[&bytes], true);
            assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "round {round}: {lines:?}");
        }
    }
}
