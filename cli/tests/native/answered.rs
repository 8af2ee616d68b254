//! A line that a session has carried out itself, and whose answer is lost together with the process that gave it.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use crate::bench::{Home, run, signal};
use crate::detached::{server, target};

/// A frame's header: length, kind, channel (docs/PROTOCOL.md).
const HEADER: usize = 9;
const STARTED: u8 = 0x11;

/// The next frame, header and body; none at the end.
fn frame(from: &mut UnixStream) -> Option<Vec<u8>> {
    let mut frame = vec![0; HEADER];
    from.read_exact(&mut frame).ok()?;
    let length = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
    frame.resize(HEADER + length, 0);
    from.read_exact(&mut frame[HEADER..]).ok()?;
    Some(frame)
}

/// Passes frames on between a client and the server. With `front`, `started` is the last one that the client gets: then that process
/// is killed.
fn pass(client: UnixStream, server: &Path, front: Option<i32>) {
    let Ok(mut server) = UnixStream::connect(server) else { return };
    let (mut from_client, mut to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let there = thread::spawn(move || {
        while let Some(frame) = frame(&mut from_client) {
            if to_server.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = to_server.shutdown(std::net::Shutdown::Both);
    });
    let mut to_client = &client;
    while let Some(frame) = frame(&mut server) {
        if to_client.write_all(&frame).is_err() {
            break;
        }
        if let (STARTED, Some(front)) = (frame[4], front) {
            signal(front, "KILL");
            break;
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
    there.join().unwrap();
}

#[test]
fn a_line_that_was_carried_out_is_answered_by_the_next_server_and_not_carried_out_again() {
    let home = Home::with_key();
    let server = server(&home);
    let session = |line: &str| run(home.exec(["--session", "s", &target(&home), line])).ended(0).out();
    session("cd /usr");
    let listener = UnixListener::bind(home.path("between")).unwrap();
    let (behind, front) = (home.path("s"), server.front());
    thread::spawn(move || {
        for (attempt, client) in listener.incoming().enumerate() {
            pass(client.unwrap(), &behind, (attempt == 0).then_some(front));
        }
    });
    let between = format!("unix:{}", home.path("between").display());
    // Carried out twice, it would end in /usr/lib/python3 or so, or fail.
    let done = run(home.exec(["-v", "--session", "s", &between, "pushd lib"])).ended(0);
    assert_eq!(done.out(), "/usr/lib /usr\n");
    assert!(done.err().contains("carried out by the host, no process; in /usr/lib"), "{}", done.err());
    assert_ne!(server.front(), front);
    assert_eq!(session("dirs"), "/usr/lib /usr\n");
}
