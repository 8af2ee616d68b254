//! `remora shell` on plain wires: one connection for all lines.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use crate::bench::{PATIENCE, REMORA, Serve, framed, status, stderr, stdout};

/// Runs `remora shell` with lines on its standard input.
fn shell(arguments: &[&str], lines: &[u8]) -> Output {
    let mut child = Command::new(REMORA)
        .arg("shell")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(lines);
    child.wait_with_output().unwrap()
}

#[test]
fn lines_share_a_connection_and_so_a_directory() {
    let serve = Serve::start();
    let lines = b"cd /usr\nexport A=1\n\n  \npwd\necho $A >&2\nif true\nthen echo joined\nfi\n(exit 3)";
    let output = shell(&[&serve.header], lines);
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str()), ("/usr\njoined\n", "1\n"));
    assert_eq!(status(&output), 3);
    for url in [&serve.length, &serve.raw] {
        let output = shell(&[url], b"cd /usr\nexport A=1\npwd; echo $A");
        let text = stdout(&output);
        let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
        assert_eq!((lines, status(&output)), (vec!["/usr", "1"], 0), "{url}: {}", stderr(&output));
    }
}

#[test]
fn a_script_stops_where_it_should() {
    let serve = Serve::start();
    let lines = b"echo a\nfalse\necho b\nexit 4\necho c";
    let output = shell(&[&serve.header], lines);
    assert_eq!((stdout(&output).as_str(), status(&output)), ("a\nb\n", 4));
    let output = shell(&["--exit-on-error", &serve.header], lines);
    assert_eq!((stdout(&output).as_str(), status(&output)), ("a\n", 1));
    let output = shell(&[&serve.header], b"kill -9 $$");
    assert_eq!((stdout(&output).as_str(), status(&output)), ("", 137));
    let told = stderr(&output);
    assert!(
        told.starts_with("remora: header://")
            && told.ends_with(": signaled: the command was killed by SIGKILL\n"),
        "{told}"
    );
    let output = shell(&["--session", "x", &serve.header], b"");
    assert_eq!(status(&output), 193);
    assert!(
        stderr(&output).contains("--session makes no sense for header://: a session there ends with its"),
        "{}",
        stderr(&output)
    );
}

/// A peer that answers as many requests as there are replies, on one connection, and closes; its address.
fn peer(replies: Vec<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for reply in replies {
            if matches!(stream.read(&mut [0; 65536]), Ok(1..)) {
                stream.write_all(&reply).unwrap();
            }
        }
    });
    address
}

fn reply(payload: &[u8]) -> Vec<u8> {
    use std::fmt::Write as _;
    let digest = Command::new("python3")
        .args(["-c", "import hashlib, sys; print(hashlib.md5(sys.stdin.buffer.read()).hexdigest())"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .and_then(|mut child| {
            child.stdin.take().unwrap().write_all(payload)?;
            child.wait_with_output()
        })
        .unwrap();
    let digest = String::from_utf8(digest.stdout).unwrap();
    let mut header = String::new();
    write!(header, r#"{{"filename":"x","md5":"{}","total_size":{}}}"#, digest.trim(), payload.len()).unwrap();
    framed(&header, payload)
}

#[test]
fn replies_in_another_encoding_are_text() {
    let (half, rest) = (b"\xd6\xd0\xce".as_slice(), b"\xc4 abc\n".as_slice());
    let address = peer(vec![reply(&[half, rest].concat()), reply(b"\xce\xc4\n")]);
    let output = shell(&["--encoding", "gbk", &format!("header://{address}")], b"a\nb\n");
    assert_eq!(stdout(&output), "中文 abc\n文\n", "{}", stderr(&output));
}

#[test]
fn a_peer_that_closes_between_two_requests_is_told_as_such() {
    let address = peer(vec![b"only\n".to_vec()]);
    let output = shell(&[&format!("raw://{address}")], b"a\nb\n");
    assert_eq!((stdout(&output).as_str(), status(&output)), ("only\n", 198));
    let text =
        format!("remora: raw://{address}: lost: the peer closed the connection between two requests\n");
    assert_eq!(stderr(&output), text);
    let address = peer(vec![reply(b"one\n")]);
    let output = shell(&[&format!("header://{address}")], b"a\nb\n");
    assert_eq!((stdout(&output).as_str(), status(&output)), ("one\n", 198), "{}", stderr(&output));
}

#[test]
fn a_digest_that_differs_is_the_lines_status_and_the_next_line_runs() {
    let wrong = framed(r#"{"filename":"x","md5":"00000000000000000000000000000000","total_size":2}"#, b"a\n");
    let address = peer(vec![wrong.clone(), reply(b"b\n")]);
    let output = shell(&[&format!("header://{address}")], b"a\nb\n");
    assert_eq!((stdout(&output).as_str(), status(&output)), ("a\nb\n", 0));
    assert!(stderr(&output).contains("digest differs"));
    let address = peer(vec![wrong]);
    assert_eq!(status(&shell(&[&format!("header://{address}")], b"a\n")), 198);
}
