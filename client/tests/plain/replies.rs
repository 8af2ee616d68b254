//! Replies of any size, however their bytes are split.

use std::io::{Read, Write};
use std::time::Duration;

use remora_client::Plain;
use remora_client::plain::{Ending, Exchange, Piece, PlainOptions, RawEnd, Verdict};
use remora_testkit::{fill_pattern, pattern};

use crate::common::{Peer, ask, framed};

/// An `md5` and `blake3` of bytes, as JSON members.
fn digests(bytes: &[u8]) -> String {
    let mut digests = remora_wire::plain::Digests::new();
    digests.update(bytes);
    let (md5, blake3) = digests.finish();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("\"md5\":\"{}\",\"blake3\":\"{}\"", hex(&md5), hex(&blake3))
}

#[test]
fn one_byte_at_a_time_or_all_at_once() {
    let payload = b"out and err";
    let json = format!(
        "{{\"total_size\":11,{},\"filename\":\"x\",\"stdout_size\":3,\"stderr_size\":8,\"exit_code\":7}}",
        digests(payload)
    );
    let bytes = framed(&json, payload);
    for size in [1, 2, 3, 7, bytes.len()] {
        let pieces: Vec<Vec<u8>> = bytes.chunks(size).map(<[u8]>::to_vec).collect();
        let peer = Peer::new(move |stream| {
            for piece in pieces {
                stream.write_all(&piece).unwrap();
                // Without Nagle each is a segment of its own; the reader may still find several.
                std::thread::yield_now();
            }
        });
        let (reply, result) = ask(Plain::Header, peer.port, PlainOptions::default());
        result.unwrap();
        assert_eq!((reply.stdout, reply.stderr), (b"out".to_vec(), b" and err".to_vec()), "{size} at a time");
        assert_eq!(reply.header.unwrap().ending, Some(Ending::Exited(7)));
        let verdicts = reply.done.unwrap().verdicts;
        assert_eq!((verdicts.md5, verdicts.blake3), (Verdict::Matches, Verdict::Matches));
        assert_eq!(peer.request(), b"the request");
    }
}

#[test]
fn a_wrong_digest_is_told_after_the_output() {
    let wrong = "0".repeat(32);
    let peer = Peer::sending(framed(&format!("{{\"total_size\":2,\"md5\":\"{wrong}\"}}"), b"ok"));
    let (reply, result) = ask(Plain::Header, peer.port, PlainOptions::default());
    result.unwrap();
    assert_eq!(reply.both, b"ok");
    assert_eq!(reply.done.unwrap().verdicts.md5, Verdict::Differs);
}

#[test]
fn bytes_behind_a_reply_are_counted_and_not_given() {
    let peer = Peer::sending(b"\x02\0\0\0okrest".to_vec());
    let (reply, result) = ask(Plain::Length, peer.port, PlainOptions::default());
    result.unwrap();
    assert_eq!(reply.both, b"ok");
    assert!(reply.done.unwrap().behind <= 4);
}

#[test]
fn raw_half_closes_and_reads_to_the_end_whatever_the_pauses() {
    let peer = Peer::new(|stream| {
        let mut rest = Vec::new();
        // Nothing is answered before the input has ended.
        stream.read_to_end(&mut rest).unwrap();
        stream.write_all(b"one ").unwrap();
        std::thread::sleep(Duration::from_millis(700));
        stream.write_all(b"two").unwrap();
    });
    let (reply, result) = ask(Plain::Raw, peer.port, PlainOptions::default());
    result.unwrap();
    assert_eq!(reply.both, b"one two");
    assert!(!reply.done.unwrap().guessed);
}

#[test]
fn raw_may_guess_by_silence_and_says_so() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let peer = Peer::new(move |stream| {
        // Silence before the first byte is the command's.
        std::thread::sleep(Duration::from_millis(200));
        stream.write_all(b"one").unwrap();
        let _ = released.recv();
    });
    let options =
        PlainOptions { raw_end: RawEnd::Silence(Duration::from_millis(100)), ..PlainOptions::default() };
    let (reply, result) = ask(Plain::Raw, peer.port, options);
    result.unwrap();
    assert_eq!(reply.both, b"one");
    assert!(reply.done.unwrap().guessed);
    drop(release);
}

/// Peak resident memory of this process, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_large_reply_takes_no_more_memory_than_a_small_one() {
    const SIZE: u64 = 256 * 1024 * 1024;
    let peer = Peer::new(|stream| {
        stream.write_all(&(SIZE as i32).to_le_bytes()).unwrap();
        let mut chunk = vec![0; 1 << 20];
        for offset in (0..SIZE).step_by(chunk.len()) {
            fill_pattern(offset, &mut chunk);
            stream.write_all(&chunk).unwrap();
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = peak();
    let received = runtime.block_on(async {
        let options = PlainOptions::default();
        let mut exchange =
            Exchange::begin(Plain::Length, "127.0.0.1", peer.port, b"x".to_vec(), &options).await.unwrap();
        let mut received = 0u64;
        let mut expected = Vec::new();
        while let Some(piece) = exchange.next().await.unwrap() {
            if let Piece::Payload { bytes, .. } = piece {
                expected.resize(bytes.len(), 0);
                fill_pattern(received, &mut expected);
                assert!(expected == bytes, "at {received}");
                received += bytes.len() as u64;
            }
        }
        received
    });
    assert_eq!(received, SIZE);
    let grown = peak() - before;
    assert!(grown < 64 << 20, "{grown} bytes for a reply of {SIZE}");
}

#[test]
fn replies_of_many_sizes_come_out_whole() {
    for size in [0, 1, 4, 65_535, 65_536, 65_537, 1_000_003, 8_388_608] {
        let payload = pattern(size);
        let stdout = size / 3;
        let json = format!(
            "{{\"total_size\":{size},{},\"stdout_size\":{stdout},\"stderr_size\":{}}}",
            digests(&payload),
            size - stdout
        );
        let peer = Peer::sending(framed(&json, &payload));
        let (reply, result) = ask(Plain::Header, peer.port, PlainOptions::default());
        result.unwrap();
        assert!(reply.stdout == payload[..stdout] && reply.stderr == payload[stdout..], "{size}");
        assert!(!reply.done.unwrap().verdicts.differ());
    }
}
