//! Each connection has a session of its own, so that a peer of twenty lines can `cd` and `export`.

use std::io::{Read, Write};

use remora_wire::plain::Ending;

use crate::common::{PATIENCE, Server, read_header, read_length, scratch};

#[test]
fn what_a_request_changes_stays_for_the_next_of_its_connection_alone() {
    for wire in ["length", "header"] {
        let server = Server::start(wire);
        let folder = scratch();
        std::fs::create_dir(folder.path().join("a b")).unwrap();
        let ask = |stream: &mut std::net::TcpStream, line: &str| {
            stream.write_all(line.as_bytes()).unwrap();
            let reply = if wire == "length" { read_length(stream) } else { read_header(stream).1 };
            String::from_utf8(reply).unwrap()
        };
        let (mut one, mut other) = (server.connect(), server.connect());
        let inside = format!("{}/a b", folder.path().display());
        assert_eq!(ask(&mut one, &format!("cd '{inside}'\n")), "");
        assert_eq!(ask(&mut one, "pwd"), format!("{inside}\n"));
        assert_eq!(ask(&mut one, "export A=1; umask 077; touch f && ls -l | grep -c rw-------"), "1\n");
        assert_eq!(
            ask(&mut one, "echo $A; cd .. && pwd; umask"),
            format!("1\n{}\n0077\n", folder.path().display())
        );
        assert_eq!(ask(&mut one, "cd -"), format!("{inside}\n"));
        // Another connection knows nothing of it.
        assert_eq!(ask(&mut other, "echo ${A:-none}; [ \"$PWD\" = \"$HOME\" ] && echo home"), "none\nhome\n");
        let said = ask(&mut one, "cd /nope");
        assert!(said.contains("can't cd to /nope"), "{said}");
    }
}

#[test]
fn exit_answers_with_its_status_and_the_connection_goes_on() {
    let server = Server::start("header");
    let mut stream = server.connect();
    for (line, ending) in [("exit 3", Ending::Exited(3)), ("cd /usr && exit 4", Ending::Exited(4))] {
        stream.write_all(line.as_bytes()).unwrap();
        assert_eq!(read_header(&mut stream).0.ending, Some(ending), "{line}");
    }
    stream.write_all(b"pwd").unwrap();
    assert_eq!(read_header(&mut stream).1, b"/usr\n");
}

#[test]
fn a_simulated_command_is_answered_on_raw_too() {
    let server = Server::start("raw");
    let mut stream = server.connect();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for (line, reply) in [("cd /usr", "\n"), ("pwd", "/usr\n"), ("cd bin; pwd", "/usr/bin\n")] {
        stream.write_all(line.as_bytes()).unwrap();
        let mut got = vec![0; reply.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, reply.as_bytes(), "{line}");
    }
}
