//! What a reply holds.

use std::io::{Read, Write};

use remora_wire::plain::{Digests, EndedBy, Ending, Streams};

use crate::common::{Server, read_header, read_length};

#[test]
fn raw_is_stdout_then_stderr() {
    let server = Server::start("raw");
    assert_eq!(server.ask(b"echo err >&2; echo out"), b"out\nerr\n");
}

#[test]
fn an_empty_reply_on_raw_is_one_newline() {
    let server = Server::start("raw");
    let mut stream = server.connect();
    // Not half-closed: a peer that waits for a byte gets one.
    stream.write_all(b"true").unwrap();
    let mut byte = [0; 8];
    assert_eq!(stream.read(&mut byte).unwrap(), 1);
    assert_eq!(byte[0], b'\n');
}

#[test]
fn raw_is_streamed_while_the_command_runs() {
    let server = Server::start("raw");
    let folder = crate::common::scratch();
    let fifo = folder.path().join("fifo");
    let mut stream = server.connect();
    let command = format!("mkfifo {0} && echo first && cat {0}", fifo.display());
    stream.write_all(command.as_bytes()).unwrap();
    let mut first = [0; 6];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first\n");
    // Only now can the command go on.
    std::fs::write(&fifo, "second").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "second");
}

#[test]
fn length_counts_stdout_then_stderr() {
    let server = Server::start("length");
    assert_eq!(server.ask(b"echo err >&2; echo out"), b"\x08\0\0\0out\nerr\n");
    assert_eq!(server.ask(b"true"), b"\0\0\0\0");
}

#[test]
fn header_describes_its_payload() {
    let server = Server::start("header");
    let mut stream = server.connect();
    stream.write_all(b"printf out; printf error >&2; exit 3").unwrap();
    let (header, payload) = read_header(&mut stream);
    assert_eq!(payload, b"outerror");
    let mut digests = Digests::new();
    digests.update(&payload);
    let (md5, blake3) = digests.finish();
    assert_eq!((header.md5, header.blake3), (Some(md5), Some(blake3)));
    assert_eq!(header.streams, Some(Streams { stdout: 3, stderr: 5 }));
    assert_eq!(header.ending, Some(Ending::Exited(3)));
    assert_eq!(header.file_name.as_deref(), Some("output.txt"));
    stream.write_all(b"kill -9 $$").unwrap();
    assert_eq!(read_header(&mut stream).0.ending, Some(Ending::Signaled(9)));
}

#[test]
fn commands_are_run_by_sh_with_an_empty_input() {
    let server = Server::start("length");
    let mut stream = server.connect();
    stream.write_all(b"cat; readlink /proc/self/fd/0; readlink /proc/$$/exe").unwrap();
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    let reply = String::from_utf8(read_length(&mut stream)).unwrap();
    assert_eq!(reply, format!("/dev/null\n{}\n", shell.display()));
}

#[test]
fn requests_are_answered_one_at_a_time_in_order() {
    let server = Server::start("length");
    let folder = crate::common::scratch();
    let mut stream = server.connect();
    for turn in 0..20 {
        let request = format!("cd {} && mkdir busy && printf {turn} && rmdir busy", folder.path().display());
        stream.write_all(request.as_bytes()).unwrap();
        if turn % 2 == 0 {
            // What is sent meanwhile waits for its turn.
            stream.write_all(b"\n").unwrap();
        }
        let mut reply = read_length(&mut stream);
        while reply.is_empty() {
            // The newline was a request of its own.
            reply = read_length(&mut stream);
        }
        assert_eq!(String::from_utf8(reply).unwrap(), turn.to_string());
    }
}

#[test]
fn a_request_sent_while_another_runs_is_answered_after_it() {
    let server = Server::start("length");
    let folder = crate::common::scratch();
    let fifo = folder.path().join("fifo");
    let mut stream = server.connect();
    stream.write_all(format!("mkfifo {0}; cat {0}", fifo.display()).as_bytes()).unwrap();
    remora_testkit::eventually(crate::common::PATIENCE, "the first command runs", || fifo.exists());
    stream.write_all(b"echo second").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    std::fs::write(&fifo, "first\n").unwrap();
    assert_eq!(read_length(&mut stream), b"first\n");
    assert_eq!(read_length(&mut stream), b"second\n");
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_request_of_64_kib_is_one_request() {
    let server = Server::start("length");
    let request = format!("echo {}", "x".repeat(64 * 1024 - 5));
    assert_eq!(request.len(), 64 * 1024);
    let mut stream = server.connect();
    // All of it waits before the server is looked at: the first command sees to that.
    let folder = crate::common::scratch();
    let fifo = folder.path().join("fifo");
    stream.write_all(format!("mkfifo {0}; cat {0}", fifo.display()).as_bytes()).unwrap();
    remora_testkit::eventually(crate::common::PATIENCE, "the first command runs", || fifo.exists());
    stream.write_all(request.as_bytes()).unwrap();
    std::fs::write(&fifo, "").unwrap();
    assert_eq!(read_length(&mut stream), b"");
    assert_eq!(read_length(&mut stream).len(), 64 * 1024 - 4);
}

#[test]
fn a_request_with_a_nul_is_told_so_and_the_connection_lives() {
    let server = Server::start("header");
    let mut stream = server.connect();
    stream.write_all(b"echo a\0b").unwrap();
    let (header, payload) = read_header(&mut stream);
    assert!(String::from_utf8(payload).unwrap().contains("NUL byte"));
    assert_eq!(header.ending, Some(Ending::Exited(126)));
    stream.write_all(b"echo alive").unwrap();
    assert_eq!(read_header(&mut stream).1, b"alive\n");
}

#[test]
fn large_replies_arrive_whole() {
    for wire in ["length", "header"] {
        let server = Server::start(wire);
        let mut stream = server.connect();
        // 5 MB of stdout and 3 MB of stderr, so that both go through a file.
        stream.write_all(b"seq 1 700000; seq 1 400000 >&2").unwrap();
        let payload = if wire == "length" { read_length(&mut stream) } else { read_header(&mut stream).1 };
        let seq = |last: u32| (1..=last).map(|n| format!("{n}\n")).collect::<String>();
        assert!(payload == (seq(700_000) + &seq(400_000)).into_bytes(), "{wire}");
    }
}

#[test]
fn a_reply_over_the_limit_is_replaced_and_the_connection_lives() {
    for wire in ["length", "header"] {
        let server = Server::with(wire, |settings| settings.limits.output = Some(100_000));
        let mut stream = server.connect();
        stream.write_all(b"head -c 100000 /dev/zero").unwrap();
        let read = |stream: &mut std::net::TcpStream| match wire {
            "length" => (None, read_length(stream)),
            _ => {
                let (header, payload) = read_header(stream);
                (Some(header), payload)
            }
        };
        assert_eq!(read(&mut stream).1.len(), 100_000);
        stream.write_all(b"head -c 100001 /dev/zero").unwrap();
        let (header, payload) = read(&mut stream);
        let text = String::from_utf8(payload).unwrap();
        assert!(text.starts_with("remora: ") && text.contains("limit"), "{text}");
        if let Some(header) = header {
            assert_eq!(header.ending, Some(Ending::Signaled(15)), "no success is told");
            assert_eq!(header.ended_by, Some(EndedBy::Output));
            assert_eq!(header.streams.unwrap().stdout, 0);
        }
        // A command that never ends by itself is ended.
        stream.write_all(b"cat /dev/zero").unwrap();
        assert!(String::from_utf8(read(&mut stream).1).unwrap().contains("limit"));
        stream.write_all(b"echo alive").unwrap();
        assert_eq!(read(&mut stream).1, b"alive\n");
    }
}

#[test]
fn a_raw_reply_over_the_limit_says_what_was_sent_of_it() {
    let server = Server::with("raw", |settings| settings.limits.output = Some(100_000));
    let reply = server.ask(b"echo unsent >&2; head -c 200000 /dev/zero");
    let zeros = reply.iter().take_while(|byte| **byte == 0).count();
    assert!((1..=100_000).contains(&zeros), "{zeros}");
    let notice = std::str::from_utf8(&reply[zeros..]).unwrap();
    assert!(notice.starts_with("remora: the command printed more than its limit"), "{notice}");
    assert!(notice.ends_with("what stands before this line is all of its output that is sent\n"), "{notice}");
    let reply = server.ask(b"head -c 200000 /dev/zero >&2");
    let notice = std::str::from_utf8(&reply).unwrap();
    assert!(notice.starts_with("remora: ") && notice.ends_with("its output is not sent\n"), "{notice}");
}

#[test]
fn what_only_transcoding_makes_too_large_is_replaced_too() {
    let server = Server::with("length?encoding=iso-2022-jp", |settings| settings.limits.output = Some(1000));
    let mut stream = server.connect();
    stream.write_all("for i in $(seq 200); do printf 'aあ'; done".as_bytes()).unwrap();
    let text = String::from_utf8(read_length(&mut stream)).unwrap();
    assert!(text.contains("larger than 1000 bytes"), "{text}");
    stream.write_all(b"echo alive").unwrap();
    assert_eq!(read_length(&mut stream), b"alive\n");
}

#[test]
fn a_folder_that_takes_no_file_is_told() {
    let server = Server::with("length", |settings| settings.spool_dir = "/nonexistent".into());
    let mut stream = server.connect();
    stream.write_all(b"head -c 2000000 /dev/zero").unwrap();
    assert!(String::from_utf8(read_length(&mut stream)).unwrap().contains("can't be kept"));
    stream.write_all(b"head -c 1048576 /dev/zero").unwrap();
    assert_eq!(read_length(&mut stream).len(), 1_048_576);
}

#[test]
fn replies_are_transcoded_and_counted_as_they_are_sent() {
    let server = Server::start("header?encoding=gbk");
    let mut stream = server.connect();
    stream.write_all("printf '中文😀'; printf '错' >&2".as_bytes()).unwrap();
    let (header, payload) = read_header(&mut stream);
    assert_eq!(payload, b"\xd6\xd0\xce\xc4?\xb4\xed");
    assert_eq!(header.streams, Some(Streams { stdout: 5, stderr: 2 }));
    let mut digests = Digests::new();
    digests.update(&payload);
    assert_eq!(header.md5, Some(digests.finish().0));
    let raw = Server::start("raw?encoding=gbk");
    assert_eq!(raw.ask("printf '中文'".as_bytes()), b"\xd6\xd0\xce\xc4");
}

#[test]
fn a_reader_that_takes_its_time_loses_nothing() {
    let server = Server::start("raw");
    let mut stream = server.connect();
    stream.write_all(b"seq 1 1000000").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut got = Vec::new();
    let mut small = [0; 997];
    loop {
        let count = stream.read(&mut small).unwrap();
        if count == 0 {
            break;
        }
        got.extend_from_slice(&small[..count]);
    }
    assert!(got == (1..=1_000_000).map(|n| format!("{n}\n")).collect::<String>().into_bytes());
}

#[test]
fn a_time_limit_is_told_in_the_header() {
    let server = Server::with("header", |settings| {
        settings.limits.wall = Some(std::time::Duration::from_millis(200));
    });
    let mut stream = server.connect();
    stream.write_all(b"echo begun; sleep 1000").unwrap();
    let (header, payload) = read_header(&mut stream);
    assert_eq!((header.ending, header.ended_by), (Some(Ending::Exited(124)), Some(EndedBy::Deadline)));
    assert!(
        String::from_utf8(payload).unwrap().starts_with("begun\nremora: the command ran into its time limit")
    );
}
