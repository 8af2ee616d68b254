//! The plain wires' replies: golden bytes, every split, every cut, every fault, arbitrary bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use bytes::BytesMut;
use remora_wire::limits;
use remora_wire::plain::{
    Decoder, Digests, EndedBy, Ending, Event, Fault, Header, Part, Streams, Verdict, Verdicts, Wire,
    length_prefix,
};

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same everywhere.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn header_reply(stdout: &[u8], stderr: &[u8]) -> Vec<u8> {
    let mut digests = Digests::new();
    digests.update(stdout);
    digests.update(stderr);
    let (md5, blake3) = digests.finish();
    let header = Header {
        total_size: (stdout.len() + stderr.len()) as u64,
        md5: Some(md5),
        blake3: Some(blake3),
        file_name: Some("output.txt".to_owned()),
        streams: Some(Streams { stdout: stdout.len() as u64, stderr: stderr.len() as u64 }),
        ending: Some(Ending::Exited(3)),
        ended_by: None,
        ignored: Vec::new(),
    };
    [header.encode(), stdout.to_vec(), stderr.to_vec()].concat()
}

fn framed(json: &str, payload: &[u8]) -> Vec<u8> {
    [&(json.len() as i32).to_le_bytes(), json.as_bytes(), payload].concat()
}

fn length_reply(payload: &[u8]) -> Vec<u8> {
    [&length_prefix(payload.len() as u64).unwrap(), payload].concat()
}

/// What a client gets out of the pieces: payload bytes of one part are joined, since the splits decide how they come.
fn decode<'a>(wire: Wire, pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Event>, Fault> {
    let mut decoder = Decoder::new(wire);
    let mut input = BytesMut::new();
    let mut events: Vec<Event> = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        while let Some(event) = decoder.next(&mut input)? {
            match (events.last_mut(), event) {
                (Some(Event::Payload { part: last, bytes: joined }), Event::Payload { part, bytes })
                    if *last == part =>
                {
                    assert!(!bytes.is_empty());
                    *joined = [&joined[..], &bytes[..]].concat().into();
                }
                (_, event) => events.push(event),
            }
        }
    }
    decoder.handle_end(input.len()).map(|_| events.clone()).or_else(|fault| match fault {
        Fault::NoReply => Ok(events),
        other => Err(other),
    })
}

fn fault(json: &str) -> Fault {
    decode(Wire::Header, [&framed(json, b"")[..]]).unwrap_err()
}

fn header(json: &str) -> Header {
    Header::parse(json.as_bytes()).unwrap()
}

#[test]
fn bytes_are_as_the_specification_says() {
    assert_eq!(length_prefix(0), Some([0, 0, 0, 0]));
    assert_eq!(length_prefix(0x0102), Some([2, 1, 0, 0]));
    assert_eq!(length_prefix(i32::MAX as u64), Some([0xff, 0xff, 0xff, 0x7f]));
    assert_eq!(length_prefix(i32::MAX as u64 + 1), None);
    let golden = concat!(
        "{\"total_size\":3,\"md5\":\"900150983cd24fb0d6963f7d28e17f72\",\"filename\":\"output.txt\",",
        "\"stdout_size\":2,\"stderr_size\":1,\"exit_code\":3,\"signal\":null,",
        "\"blake3\":\"6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85\"}"
    );
    assert_eq!(
        header_reply(b"ab", b"c").escape_ascii().to_string(),
        framed(golden, b"abc").escape_ascii().to_string()
    );
}

#[test]
fn a_header_reads_as_it_was_written() {
    for (ending, ended_by) in [
        (None, None),
        (Some(Ending::Exited(0)), None),
        (Some(Ending::Exited(255)), None),
        (Some(Ending::Exited(124)), Some(EndedBy::Deadline)),
        (Some(Ending::Signaled(9)), None),
        (Some(Ending::Signaled(9)), Some(EndedBy::Memory)),
        (Some(Ending::Signaled(15)), Some(EndedBy::Output)),
        (Some(Ending::Signaled(15)), Some(EndedBy::Shutdown)),
        (Some(Ending::Unknown), None),
    ] {
        let written = Header {
            total_size: 7,
            md5: None,
            blake3: Some([7; 32]),
            file_name: Some("a \"quoted\" \u{1b} 名".to_owned()),
            streams: Some(Streams { stdout: 3, stderr: 4 }),
            ending,
            ended_by,
            ignored: Vec::new(),
        };
        assert_eq!(Header::parse(&written.encode()[4..]), Ok(written));
    }
}

#[test]
fn every_split_of_a_reply_gives_the_same_events() {
    let matches = Verdicts { md5: Verdict::Matches, blake3: Verdict::Matches };
    for (wire, bytes) in [
        (Wire::Header, header_reply(b"out", b"err")),
        (Wire::Header, header_reply(b"", b"")),
        (Wire::Header, header_reply(b"", b"err")),
        (Wire::Length, length_reply(b"hello")),
        (Wire::Length, length_reply(b"")),
    ] {
        // Two replies stuck together.
        let bytes = [&bytes[..], &bytes[..]].concat();
        let whole = decode(wire, [&bytes[..]]).unwrap();
        let done = whole.iter().filter(|event| match (wire, event) {
            (Wire::Header, Event::Done(verdicts)) => *verdicts == matches,
            (_, Event::Done(verdicts)) => *verdicts == Verdicts::ABSENT,
            _ => false,
        });
        assert_eq!(done.count(), 2, "{wire:?}");
        assert_eq!(decode(wire, bytes.chunks(1)).unwrap(), whole, "{wire:?}, byte by byte");
        for first in 0..=bytes.len() {
            let (a, rest) = bytes.split_at(first);
            assert_eq!(decode(wire, [a, rest]).unwrap(), whole, "{wire:?}, split at {first}");
        }
        for size in 2..9 {
            assert_eq!(decode(wire, bytes.chunks(size)).unwrap(), whole, "{wire:?}, {size} at a time");
        }
    }
}

#[test]
fn stdout_and_stderr_are_told_apart() {
    let events = decode(Wire::Header, [&header_reply(b"out", b"err")[..]]).unwrap();
    let parts: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Payload { part, bytes } => Some((*part, bytes.to_vec())),
            _ => None,
        })
        .collect();
    assert_eq!(parts, [(Part::Stdout, b"out".to_vec()), (Part::Stderr, b"err".to_vec())]);
}

#[test]
fn a_reply_cut_anywhere_is_a_cut_and_nothing_else() {
    for (wire, bytes) in
        [(Wire::Header, header_reply(b"out", b"err")), (Wire::Length, length_reply(b"hello"))]
    {
        for end in 0..bytes.len() {
            let mut decoder = Decoder::new(wire);
            let mut input = BytesMut::from(&bytes[..end]);
            while decoder.next(&mut input).unwrap().is_some() {}
            let fault = decoder.handle_end(input.len()).unwrap_err();
            assert!(fault.is_cut(), "{wire:?} at {end}: {fault}");
            assert_eq!(fault == Fault::NoReply, end == 0);
        }
    }
    let mut decoder = Decoder::new(Wire::Length);
    let mut input = BytesMut::from(&length_reply(b"hello")[..6]);
    while decoder.next(&mut input).unwrap().is_some() {}
    assert_eq!(decoder.handle_end(0), Err(Fault::CutPayload { got: 2, expected: 5 }));
}

#[test]
fn each_malformed_reply_has_its_own_fault() {
    let start = |bytes: &[u8]| decode(Wire::Header, [bytes]).unwrap_err();
    assert_eq!(start(&(-1i32).to_le_bytes()), Fault::NegativeLength(-1));
    assert_eq!(
        decode(Wire::Length, [&i32::MIN.to_le_bytes()[..]]).unwrap_err(),
        Fault::NegativeLength(i32::MIN)
    );
    let limit = limits::PLAIN_HEADER;
    assert_eq!(start(&65_537i32.to_le_bytes()), Fault::HeaderTooLong { length: 65_537, limit });
    assert_eq!(start(&[2, 0, 0, 0, b'{', 0xff]), Fault::NotUtf8(1));
    assert_eq!(fault("{\"total_size\":1,}"), Fault::NotJson { line: 1, column: 17 });
    assert!(matches!(fault(""), Fault::NotJson { .. }));
    assert!(matches!(fault("\u{feff}{}"), Fault::NotJson { .. }));
    assert!(matches!(fault("{\"total_size\":1} {}"), Fault::NotJson { .. }));
    for json in ["[1]", "7", "null", "\"{}\""] {
        assert_eq!(fault(json), Fault::NotAnObject, "{json}");
    }
    assert_eq!(fault("{}"), Fault::NoSize);
    for value in ["\"7\"", "null", "[7]", "{}", "true"] {
        assert_eq!(fault(&format!("{{\"total_size\":{value}}}")), Fault::SizeNotANumber, "{value}");
    }
    assert_eq!(fault("{\"total_size\":-1}"), Fault::NotASize("negative"));
    assert_eq!(fault("{\"total_size\":1.5}"), Fault::NotASize("not whole"));
    assert_eq!(fault("{\"total_size\":1,\"total_size\":1}"), Fault::Repeated("total_size"));
    let limit = limits::PLAIN_TOTAL;
    let digits = "9".repeat(200);
    assert_eq!(fault(&format!("{{\"total_size\":{digits}}}")), Fault::SizeTooLarge { digits: 200, limit });
    assert_eq!(fault("{\"total_size\":9223372036854775808}"), Fault::SizeTooLarge { digits: 19, limit });
    assert_eq!(header("{\"total_size\":9223372036854775807}").total_size, limit);
}

#[test]
fn unknown_members_and_long_numbers_are_no_matter() {
    let nines = "9".repeat(5000);
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    let json =
        format!("{{\"n\":{nines},\"e\":1e{nines},\"deep\":{deep},\"x\":1,\"x\":2,\"total_size\":1e1}}");
    assert_eq!(header(&json).total_size, 10);
    let longest = format!("{{\"total_size\":2,\"x\":\"{}\"}}", "x".repeat(limits::PLAIN_HEADER - 23));
    assert_eq!(longest.len(), limits::PLAIN_HEADER);
    assert_eq!(decode(Wire::Header, [&framed(&longest, b"ok")[..]]).unwrap().len(), 3);
}

#[test]
fn only_32_hex_digits_are_an_md5() {
    let verdict = |md5: &str| {
        let json = format!("{{\"total_size\":3,\"md5\":{md5},\"filename\":\"x\"}}");
        match decode(Wire::Header, [&framed(&json, b"abc")[..]]).unwrap().pop() {
            Some(Event::Done(verdicts)) => verdicts.md5,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(verdict("\"900150983cd24fb0d6963f7d28e17f72\""), Verdict::Matches);
    assert_eq!(verdict("\"900150983CD24FB0D6963F7D28E17F72\""), Verdict::Matches);
    assert_eq!(verdict("\"900150983cd24fb0d6963f7d28e17f73\""), Verdict::Differs);
    for other in [
        "null",
        "\"\"",
        "\"none\"",
        "7",
        "\"+00150983cd24fb0d6963f7d28e17f72\"",
        "\"900150983cd24fb0d6963f7d28e17f7\"",
        "[]",
    ] {
        assert_eq!(verdict(other), Verdict::Absent, "{other}");
    }
    let blake3 = |digit: char| {
        let json = format!("{{\"total_size\":0,\"blake3\":\"{}\"}}", digit.to_string().repeat(64));
        decode(Wire::Header, [&framed(&json, b"")[..]]).unwrap().pop()
    };
    assert_eq!(blake3('0'), Some(Event::Done(Verdicts { md5: Verdict::Absent, blake3: Verdict::Differs })));
    assert_eq!(blake3('z'), Some(Event::Done(Verdicts::ABSENT)));
}

#[test]
fn a_payload_that_is_given_up_is_unchecked() {
    let bytes = header_reply(b"out", b"err");
    let mut decoder = Decoder::new(Wire::Header);
    let mut input = BytesMut::from(&bytes[..bytes.len() - 1]);
    while decoder.next(&mut input).unwrap().is_some() {}
    assert_eq!(decoder.unchecked(), Verdicts { md5: Verdict::Unchecked, blake3: Verdict::Unchecked });
}

#[test]
fn extra_members_that_contradict_each_other_are_ignored() {
    let streams = |json: &str| (header(json).streams, header(json).ignored);
    let sizes = vec!["stdout_size", "stderr_size"];
    assert_eq!(
        streams("{\"total_size\":3,\"stdout_size\":1,\"stderr_size\":2}"),
        (Some(Streams { stdout: 1, stderr: 2 }), vec![])
    );
    assert_eq!(streams("{\"total_size\":3}"), (None, vec![]));
    for json in [
        "{\"total_size\":3,\"stdout_size\":1,\"stderr_size\":1}",
        "{\"total_size\":3,\"stdout_size\":3}",
        "{\"total_size\":3,\"stdout_size\":-1,\"stderr_size\":4}",
        "{\"total_size\":3,\"stdout_size\":\"3\",\"stderr_size\":0}",
        "{\"total_size\":3,\"stdout_size\":18446744073709551615,\"stderr_size\":4}",
    ] {
        assert_eq!(streams(json), (None, sizes.clone()), "{json}");
    }
    let ending = |json: &str| header(&format!("{{\"total_size\":0{json}}}")).ending;
    assert_eq!(ending(""), None);
    assert_eq!(ending(",\"exit_code\":7"), Some(Ending::Exited(7)));
    assert_eq!(ending(",\"exit_code\":7,\"signal\":null"), Some(Ending::Exited(7)));
    assert_eq!(ending(",\"exit_code\":null,\"signal\":9"), Some(Ending::Signaled(9)));
    assert_eq!(ending(",\"exit_code\":137,\"signal\":9"), Some(Ending::Signaled(9)));
    assert_eq!(ending(",\"exit_code\":null,\"signal\":null"), Some(Ending::Unknown));
    // Meant to tell an ending, and doesn't: not to be taken for a good one.
    for (json, what) in [
        (",\"exit_code\":0,\"signal\":9", "contradict"),
        (",\"exit_code\":256", "an exit code that can't be"),
        (",\"exit_code\":-1", "an exit code that can't be"),
        (",\"exit_code\":300,\"signal\":0", "an exit code that can't be"),
        (",\"signal\":0", "a signal that can't be"),
    ] {
        let Some(Ending::Impossible(why)) = ending(json) else { panic!("{json}") };
        assert!(why.contains(what), "{json}: {why}");
    }
    // A member of the peer's own.
    let own = header("{\"total_size\":0,\"exit_code\":\"fine\",\"signal\":\"9\"}");
    assert_eq!((own.ending, own.ignored), (None, vec!["exit_code", "signal"]));
}

#[test]
fn what_ended_the_command_fits_how_it_ended() {
    let read = |json: &str| {
        let header = header(&format!("{{\"total_size\":0,{json}}}"));
        (header.ended_by, header.ignored)
    };
    assert_eq!(read("\"exit_code\":124,\"ended_by\":\"deadline\""), (Some(EndedBy::Deadline), vec![]));
    assert_eq!(read("\"signal\":15,\"ended_by\":\"limit: output\""), (Some(EndedBy::Output), vec![]));
    assert_eq!(read("\"signal\":15,\"ended_by\":null"), (None, vec![]));
    for json in [
        "\"exit_code\":0,\"ended_by\":\"deadline\"",
        "\"exit_code\":124,\"ended_by\":\"shutdown\"",
        "\"signal\":15,\"ended_by\":\"magic\"",
        "\"signal\":15,\"ended_by\":7",
        "\"ended_by\":\"deadline\"",
    ] {
        assert_eq!(read(json), (None, vec!["ended_by"]), "{json}");
    }
}

#[test]
fn random_replies_in_random_pieces_come_out_whole() {
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let (out, err) = (chance.below(5000), chance.below(5000));
        let (stdout, stderr) = (chance.bytes(out), chance.bytes(err));
        let bytes = header_reply(&stdout, &stderr);
        let mut pieces = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let largest = [1, 7, 100, 4000][chance.below(4)];
            let (piece, tail) = rest.split_at((1 + chance.below(largest)).min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        let mut got = [Vec::new(), Vec::new()];
        let events = decode(Wire::Header, pieces).unwrap();
        for event in &events {
            match event {
                Event::Payload { part: Part::Stdout, bytes } => got[0].extend_from_slice(bytes),
                Event::Payload { part, bytes } => {
                    assert_eq!(*part, Part::Stderr, "seed {seed}");
                    got[1].extend_from_slice(bytes);
                }
                _ => {}
            }
        }
        assert_eq!(got, [stdout, stderr], "seed {seed}");
        assert!(matches!(events.last(), Some(Event::Done(verdicts)) if !verdicts.differ()), "seed {seed}");
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    for seed in 0..3000 {
        let mut chance = Chance(seed);
        let mut bytes = if chance.below(2) == 0 {
            let length = chance.below(300);
            chance.bytes(length)
        } else {
            header_reply(b"out", b"err")
        };
        for _ in 0..chance.below(6) {
            let at = chance.below(bytes.len().max(1));
            if let Some(byte) = bytes.get_mut(at) {
                *byte = chance.next() as u8;
            }
        }
        for wire in [Wire::Raw, Wire::Length, Wire::Header] {
            let whole = decode(wire, [&bytes[..]]);
            let split = decode(wire, bytes.chunks(1 + chance.below(9)));
            // The splits change nothing, not even which fault it is.
            assert_eq!(whole, split, "seed {seed}, {wire:?}");
        }
        let _ = Header::parse(&bytes);
        let _ = remora_wire::plain::web_sign(&bytes);
        if let Some(name) = remora_wire::plain::safe_file_name(&String::from_utf8_lossy(&bytes)) {
            assert!(!name.is_empty() && name.len() <= 255 && !name.contains(['/', '\\']), "seed {seed}");
            assert!(!name.starts_with(['.', '-']) && !name.chars().any(char::is_control), "seed {seed}");
        }
    }
}
