//! Who is served, and who is turned away.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::common::{PATIENCE, Server, scratch};

/// Whether the server closes without a byte.
fn is_closed(mut stream: TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn a_browser_is_closed_on_and_nothing_of_it_runs() {
    let folder = scratch();
    let mark = folder.path().join("ran");
    for wire in ["raw", "length", "header"] {
        let server = Server::start(wire);
        for start in [
            "GET / HTTP/1.1\r\n",
            "POST /x HTTP/1.1\r\nHost: a\r\n\r\n",
            "foo / HTTP/1.1\r\n",
            "\u{16}\u{3}\u{1}\n",
        ] {
            let mut stream = server.connect();
            stream.write_all(format!("{start}\ntouch {}\n", mark.display()).as_bytes()).unwrap();
            // A form's body may come later.
            let _ = stream.write_all(format!("\ntouch {}\n", mark.display()).as_bytes());
            assert!(is_closed(stream), "{wire} {start:?}");
        }
        // Not as the second request either.
        let mut stream = server.connect();
        stream.write_all(b"true").unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
        let folder = mark.display();
        stream.write_all(format!("POST / HTTP/1.1\r\n\r\ntouch {folder}\n").as_bytes()).unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(!server.ask(b"echo alive").is_empty());
    }
    assert!(!mark.exists());
}

#[test]
fn only_processes_of_the_served_account_are_served() {
    // A server of another account than the one that connects: the same check, seen from the other side.
    let server = Server::with("raw", |settings| {
        let mut account = settings.policy.served().clone();
        account.uid += 4321;
        settings.policy = remora_identity::Policy::serving(account);
    });
    let mut stream = server.connect();
    let _ = stream.write_all(b"echo served");
    assert!(is_closed(stream));
}

/// Another user's process can be started by root alone; the test above shows the same check for everybody.
#[test]
#[ignore = "needs root"]
fn a_real_process_of_another_user_is_turned_away() {
    let server = Server::start("raw");
    let script = format!(
        "import os, socket\n'x'.encode('idna')\nos.setgid(65534); os.setuid(65534)\n\
         s = socket.create_connection(('127.0.0.1', {}))\ns.settimeout(60)\n\
         try:\n  s.sendall(b'echo served')\n  s.shutdown(1)\n  print(s.recv(100))\nexcept OSError: print('closed')\n",
        server.address.port()
    );
    let output = Command::new("python3").args(["-c", &script]).output().expect("python3 is needed");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        ["b''\n", "closed\n"].contains(&text.as_str()),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    // And the server lives.
    assert_eq!(server.ask(b"echo mine"), b"mine\n");
}

#[test]
fn peers_of_both_families_are_found() {
    let server = Server::at("raw://[::1]:0", |_| {});
    assert_eq!(server.ask(b"echo six"), b"six\n");
    // A socket of IPv6 that speaks IPv4 is listed in the other table.
    let server = Server::start("raw");
    let mapped = format!("[::ffff:127.0.0.1]:{}", server.address.port());
    let mut stream = TcpStream::connect(mapped).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"echo mapped").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "mapped\n");
}

#[test]
fn silent_connections_keep_nobody_out() {
    let server = Server::start("raw");
    let silent: Vec<_> = (0..300).map(|_| server.connect()).collect();
    assert_eq!(server.ask(b"echo served"), b"served\n");
    drop(silent);
}
