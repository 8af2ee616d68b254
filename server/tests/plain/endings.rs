//! How connections end, and what that means for what runs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;

use remora_testkit::{eventually, is_alive, session_members};

use crate::common::{PATIENCE, Server, read_length, scratch};

/// Closes with a reset (socket(7), SO_LINGER of zero).
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
}

/// The pid that a command wrote into a file, once it has.
fn pid(path: &Path) -> i32 {
    let mut pid = None;
    eventually(PATIENCE, "the command says its pid", || {
        pid = std::fs::read_to_string(path)
            .ok()
            .filter(|text| text.ends_with('\n'))
            .map(|text| text.trim().parse().unwrap());
        pid.is_some()
    });
    pid.unwrap()
}

#[test]
fn what_was_asked_before_the_end_of_input_is_answered() {
    let server = Server::start("length");
    assert_eq!(server.ask(b"sleep 0.1; echo answered"), b"\x09\0\0\0answered\n");
    assert_eq!(server.ask(b""), b"");
}

#[test]
fn a_reset_ends_the_whole_process_group() {
    for wire in ["raw", "length", "header"] {
        let server = Server::start(wire);
        let folder = scratch();
        let file = folder.path().join("pid");
        let mut stream = server.connect();
        stream.write_all(format!("sleep 1000 & echo $$ >{}; wait", file.display()).as_bytes()).unwrap();
        let pid = pid(&file);
        assert!(is_alive(pid));
        reset(stream);
        eventually(PATIENCE, "the group is gone", || session_members(pid).is_empty());
    }
}

#[test]
fn what_a_command_left_running_ends_with_the_connection() {
    for wire in ["raw", "length"] {
        let server = Server::start(wire);
        let folder = scratch();
        let file = folder.path().join("pid");
        let mut stream = server.connect();
        let left = "trap '' HUP; sleep 1000 >/dev/null 2>&1 &";
        stream.write_all(format!("{left} echo $! >{}; echo x", file.display()).as_bytes()).unwrap();
        let mut some = [0; 1];
        stream.read_exact(&mut some).unwrap();
        let left = pid(&file);
        // Another request on the same connection doesn't touch it.
        stream.write_all(b"echo again").unwrap();
        stream.read_exact(&mut [0; 4]).unwrap();
        assert!(is_alive(left));
        drop(stream);
        eventually(PATIENCE, "it is gone", || !is_alive(left));
    }
}

#[test]
fn a_reset_is_noticed_behind_requests_that_wait() {
    let server = Server::start("length");
    let folder = scratch();
    let file = folder.path().join("pid");
    let mut stream = server.connect();
    stream.write_all(format!("echo $$ >{}; sleep 1000", file.display()).as_bytes()).unwrap();
    let pid = pid(&file);
    stream.write_all(&vec![b'#'; 100_000]).unwrap();
    reset(stream);
    eventually(PATIENCE, "the group is gone", || session_members(pid).is_empty());
}

#[test]
fn a_reset_after_half_closing_ends_the_job_too() {
    let server = Server::start("length");
    let folder = scratch();
    let file = folder.path().join("pid");
    let mut stream = server.connect();
    stream.write_all(format!("echo $$ >{}; sleep 1000", file.display()).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let pid = pid(&file);
    assert!(is_alive(pid));
    reset(stream);
    eventually(PATIENCE, "the group is gone", || session_members(pid).is_empty());
}

#[test]
fn a_raw_peer_that_closes_while_the_command_writes_ends_it() {
    let server = Server::start("raw");
    let folder = scratch();
    let file = folder.path().join("pid");
    let mut stream = server.connect();
    stream.write_all(format!("echo $$ >{}; exec yes", file.display()).as_bytes()).unwrap();
    let mut some = [0; 1000];
    stream.read_exact(&mut some).unwrap();
    let pid = pid(&file);
    drop(stream);
    eventually(PATIENCE, "the command is gone", || !is_alive(pid));
}

#[test]
fn a_stalled_reader_holds_up_nobody_else() {
    let server = Server::start("raw");
    let mut stalled = server.connect();
    stalled.write_all(b"yes").unwrap();
    let mut some = [0; 10];
    stalled.read_exact(&mut some).unwrap();
    for _ in 0..5 {
        assert_eq!(server.ask(b"echo served"), b"served\n");
    }
}

#[test]
fn a_server_that_stops_closes_idle_connections_and_lets_jobs_end() {
    let mut server = Server::with("length", |settings| settings.stop_grace = PATIENCE);
    let folder = scratch();
    let fifo = folder.path().join("fifo");
    let mut idle = server.connect();
    let mut busy = server.connect();
    idle.write_all(b"true").unwrap();
    assert_eq!(read_length(&mut idle), b"");
    busy.write_all(format!("mkfifo {0}; cat {0}", fifo.display()).as_bytes()).unwrap();
    eventually(PATIENCE, "the command runs", || fifo.exists());
    server.stop();
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    // Sent too late.
    busy.write_all(b"echo late").unwrap();
    std::fs::write(&fifo, "complete").unwrap();
    assert_eq!(read_length(&mut busy), b"complete");
    assert_eq!(busy.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn after_the_grace_time_what_runs_is_ended_and_told() {
    let mut server =
        Server::with("header", |settings| settings.stop_grace = std::time::Duration::from_millis(50));
    let folder = scratch();
    let file = folder.path().join("pid");
    let mut stream = server.connect();
    stream.write_all(format!("echo $$ >{}; sleep 1000", file.display()).as_bytes()).unwrap();
    pid(&file);
    server.stop();
    let (header, payload) = crate::common::read_header(&mut stream);
    assert_eq!(header.ending, Some(remora_wire::plain::Ending::Signaled(15)));
    assert!(String::from_utf8(payload).unwrap().contains("the server stops"));
}

#[test]
fn a_stalled_reader_does_not_hold_up_the_end_of_the_server() {
    let mut server =
        Server::with("length", |settings| settings.stop_grace = std::time::Duration::from_millis(50));
    let mut stream = server.connect();
    stream.write_all(b"head -c 50000000 /dev/zero").unwrap();
    let mut some = [0; 10];
    stream.read_exact(&mut some).unwrap();
    server.stop();
    drop(server);
    // And what came can't be taken for all of it.
    let mut rest = Vec::new();
    let result = stream.read_to_end(&mut rest);
    assert!(result.is_err() && rest.len() < 50_000_000);
}
