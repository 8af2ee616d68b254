//! The twenty-line servers of examples/plain, asked by this client.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use remora_client::Plain;
use remora_client::plain::Verdict;

use crate::common::run;

struct Example {
    child: Child,
    port: u16,
}

impl Example {
    fn start(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/plain").join(name);
        let mut child = Command::new("python3")
            .arg(path)
            .arg("0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is needed");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Example { port: line.trim().parse().unwrap(), child }
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_raw_server_in_python() {
    let server = Example::start("raw_server.py");
    let reply = run(Plain::Raw, server.port, "echo out; echo err >&2");
    assert_eq!(reply.both, b"out\nerr\n");
    assert!(!reply.done.unwrap().guessed);
    assert_eq!(run(Plain::Raw, server.port, "true").both, b"\n");
}

#[test]
fn a_length_server_in_python() {
    let server = Example::start("length_server.py");
    let reply = run(Plain::Length, server.port, "echo out; echo err >&2");
    assert_eq!((reply.both, reply.length), (b"out\nerr\n".to_vec(), Some(8)));
    let large = run(Plain::Length, server.port, "seq 1 500000").both;
    assert!(large == (1..=500_000).map(|n| format!("{n}\n")).collect::<String>().into_bytes());
}

#[test]
fn a_header_server_in_python() {
    let server = Example::start("header_server.py");
    let reply = run(Plain::Header, server.port, "echo out; echo err >&2");
    // Only the three members: nothing is told apart.
    assert_eq!(reply.both, b"out\nerr\n");
    let header = reply.header.unwrap();
    assert_eq!((header.file_name.as_deref(), header.streams, header.ending), (Some("reply.txt"), None, None));
    let verdicts = reply.done.unwrap().verdicts;
    assert_eq!((verdicts.md5, verdicts.blake3), (Verdict::Matches, Verdict::Absent));
}
