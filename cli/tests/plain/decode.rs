//! `remora wire decode`.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::bench::{REMORA, Serve, remora, status, stderr, stdout};

#[test]
fn bytes_of_one_direction_are_told_with_offsets_and_reads() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bytes");
    std::fs::write(&file, b"\x05\0\0\0hello\x02\0\0\0hi\x01\0").unwrap();
    let output = remora(&["wire", "decode", "--wire", "length", file.to_str().unwrap()]);
    assert_eq!(
        stdout(&output),
        "       0  reply, 5 bytes: \"hello\"\n       9  reply, 2 bytes: \"hi\"\n      15  cut off: 2 of the 4 bytes of a length\n"
    );
    assert_eq!(status(&output), 197);
    let output = remora(&["wire", "decode", "--wire", "length", "--reads", "2,10", file.to_str().unwrap()]);
    let text = stdout(&output);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "       0  reply, 5 bytes: \"hello\"  [split over reads 1 to 2]");
    assert_eq!(
        lines[1],
        "       9  reply, 2 bytes: \"hi\"  [split over reads 2 to 3]  [stuck to the one before it in read 2]"
    );
}

#[test]
fn reads_of_nothing_and_beyond_the_end_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bytes");
    std::fs::write(&file, b"\x02\0\0\0hi").unwrap();
    for (reads, expected, words) in [
        ("2,4", 0, ""),
        ("0", 193, "at least one byte"),
        ("2,0,4", 193, "at least one byte"),
        ("7", 193, "1 bytes beyond the end"),
        ("6,1,2", 193, "3 bytes beyond the end"),
        ("x", 193, "isn't a number of bytes"),
    ] {
        let output =
            remora(&["wire", "decode", "--wire", "length", "--reads", reads, file.to_str().unwrap()]);
        assert_eq!(status(&output), expected, "{reads}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{reads}: {}", stderr(&output));
    }
}

#[test]
fn a_conversation_is_told_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture");
    std::fs::write(&file, "> 6c73\n< 01000000\n< 61\n> 7064\n> 77\n< 01000000 62\n").unwrap();
    let told = |wire| {
        let output = remora(&["wire", "decode", "--wire", wire, file.to_str().unwrap()]);
        assert_eq!(status(&output), 0, "{}", stderr(&output));
        stdout(&output)
    };
    assert_eq!(
        told("length"),
        "> \u{20}      0  request bytes without a frame, read 1, 2 bytes: \"ls\"
< \u{20}      0  reply, 1 bytes: \"a\"  [split over reads 1 to 2]
> \u{20}      2  request bytes without a frame, read 2, 2 bytes: \"pd\"
> \u{20}      4  request bytes without a frame, read 3, 1 bytes: \"w\"
< \u{20}      5  reply, 1 bytes: \"b\"
"
    );
    let marks = |text: String| text.lines().map(|line| line[..1].to_owned()).collect::<String>();
    assert_eq!(marks(told("raw")), "><<>><");
}

#[test]
fn a_capture_that_stops_half_way_is_197() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture");
    for (text, expected) in
        [("> 6c73\n< 0100000061\n", 0), ("> 6c73\n< 0200000061\n", 197), ("> 6c73\n< 01\n", 197)]
    {
        std::fs::write(&file, text).unwrap();
        let output = remora(&["wire", "decode", "--wire", "length", file.to_str().unwrap()]);
        assert_eq!(status(&output), expected, "{text}");
        assert_eq!(stdout(&output).contains("cut off: "), expected == 197, "{text}");
    }
}

#[test]
fn garbage_is_197_and_says_where() {
    let mut child = Command::new(REMORA)
        .args(["wire", "decode", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[0xff; 20]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(stdout(&output).starts_with("       0  malformed: "), "{}", stdout(&output));
    assert_eq!(status(&output), 197);
    assert_eq!(status(&remora(&["wire", "decode", "/nonexistent"])), 193);
}

#[test]
fn a_capture_of_a_real_exchange_reads_back() {
    let serve = Serve::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture");
    let file = file.to_str().unwrap();
    let output = remora(&["exec", "--capture", file, &serve.header, "echo hello"]);
    assert_eq!(status(&output), 0, "{}", stderr(&output));
    let output = remora(&["wire", "decode", "--wire", "header", file]);
    let text = stdout(&output);
    assert!(
        text.contains(">        0  request bytes without a frame, read 1, 10 bytes: \"echo hello\"\n"),
        "{text}"
    );
    assert!(text.contains("\"total_size\":6") && text.contains("then 6 bytes: \"hello\\n\""), "{text}");
}

#[test]
fn a_broken_capture_names_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("capture");
    for (text, words) in [("> 6c73\n< 0x\n", "line 2"), ("> 6c73\n= 00\n", "line 2"), ("> 6\n", "line 1")] {
        std::fs::write(&file, text).unwrap();
        let output = remora(&["wire", "decode", "--wire", "length", file.to_str().unwrap()]);
        assert_eq!(status(&output), 193);
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}
