//! The exit status of every class in docs/EXIT-STATUS.md, and the line that says why.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use remora_testkit::{eventually, group_members};

use crate::bench::{Client, Home, PATIENCE, Server, run};

fn status_of(line: &str) -> i32 {
    let home = Home::with_key();
    let server = Server::start(&home);
    run(home.exec([&server.target(), line])).status
}

#[test]
fn the_commands_own_status_is_never_rewritten() {
    let home = Home::with_key();
    let server = Server::start(&home);
    for status in [0, 3, 124, 193, 198, 255] {
        let done = run(home.exec([server.target(), format!("exit {status}")])).ended(status);
        assert_eq!((done.out(), done.err()), (String::new(), String::new()));
    }
}

#[test]
fn a_signal_is_128_and_its_number() {
    assert_eq!(status_of("kill -TERM $$"), 143);
    assert_eq!(status_of("kill -KILL $$"), 137);
}

#[test]
fn a_deadline_is_124_and_ends_the_whole_process_group() {
    let home = Home::with_key();
    let server = Server::start(&home);
    // The shell and its child both ignore the polite signal.
    let line = "trap '' TERM; echo $$; sleep 1000 & wait; sleep 1000";
    let mut client = Client::start(home.exec(["--timeout", "400ms", &server.target(), line]));
    let group = client.number();
    client.finish().complained(
        124,
        &format!("remora: {}: deadline: ", server.target()),
        "its time limit of 400ms",
    );
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
}

#[test]
fn what_cannot_be_executed_is_126_and_names_the_step() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let script = home.write("script", "#!/nonexistent/interpreter\n");
    let plain = home.write("plain", "no program\n");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let run_argv = |word: &str| run(home.exec(["--argv", &server.target(), word]));
    let class = format!("remora: {}: cannot-exec: ", server.target());
    run_argv(plain.to_str().unwrap()).complained(126, &class, "ermission denied");
    run_argv(script.to_str().unwrap()).complained(126, &class, "interpreter");
    run_argv("/etc").complained(126, &class, "/etc");
}

#[test]
fn an_argument_list_that_is_too_long_for_the_host_is_126() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    // Arguments may take a quarter of the stack's limit (execve(2)): 256 KiB on this host, more where the client runs.
    let inner = Server::command(&home, &["host_key"]);
    let mut command = home.remora_under("sh", &["-c", "ulimit -s 1024 && exec \"$0\" \"$@\""]);
    command.args(inner.get_args()).args(["--listen", "native://127.0.0.1:0"]);
    let server = Server::spawn(&home, command);
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    let long = "x".repeat(100_000);
    let done = run(home.exec([&server.target(), "echo", &long, &long, &long, &long]));
    done.complained(126, &format!("remora: {}: cannot-exec: ", server.target()), "rgument");
}

#[test]
fn a_working_directory_that_is_not_there_is_126_and_named() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec(["--cwd", "/nonexistent/folder", &server.target(), "true"]));
    let class = format!("remora: {}: cannot-exec: ", server.target());
    done.complained(126, &class, "/nonexistent/folder");
}

#[test]
fn a_command_that_is_not_there_is_127() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec(["--argv", &server.target(), "nonexistent-command"]));
    done.complained(127, &format!("remora: {}: not-found: ", server.target()), "nonexistent-command");
}

#[test]
fn nonsense_is_193_and_nothing_is_sent() {
    let home = Home::with_key();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let here = format!("me@{target}");
    let nonsense: &[&[&str]] = &[
        &["--timeout", "soon", &target, "true"],
        &["--timeout", "0", &target, "true"],
        &["--env", "=x", &target, "true"],
        &["--env", "novalue", &target, "true"],
        &["--port", "70000", &target, "true"],
        &["--port", "1", &target, "true"],
        &["--user", "you", &here, "true"],
        &["--user", "-x", &target, "true"],
        &["--encoding", "klingon", &target, "true"],
        &["--max-output", "lots", &target, "true"],
        &["--exit-status", "perl", &target, "true"],
        &["--identity", "/nonexistent/key", &target, "true"],
        &["--status-file", "/nonexistent/folder/file", &target, "true"],
        &["--cwd", "", &target, "true"],
        &["--save", "/tmp", &target, "true"],
        &["--silence", &target, "true"],
        &["--max-output", "1k", &target, "true"],
        &["--accept-new", "local", "true"],
        &["--bogus", &target, "true"],
        &[&target],
        &[&target, ""],
        &[&target, " \t\n"],
        &["--argv", &target, ""],
        &[],
        &["", "true"],
        &["-oProxyCommand=x", "true"],
        &["a b", "true"],
        &["http://x", "true"],
        &["::1", "true"],
    ];
    for arguments in nonsense {
        let done = run(home.exec(*arguments));
        assert_eq!(done.status, 193, "{arguments:?}: {}", done.err());
        assert!(done.err().starts_with("remora: usage: "), "{arguments:?}: {}", done.err());
    }
    let accepted = listener.accept();
    assert_eq!(accepted.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "somebody connected");
}

#[test]
fn a_host_that_is_not_there_is_194() {
    let home = Home::with_key();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let target = format!("127.0.0.1:{port}");
    let class = format!("remora: {target}: unreachable: ");
    run(home.exec([&target, "true"])).complained(194, &class, "hint: does `remora serve` run there");
    let done = run(home.exec(["nonexistent.invalid", "true"]));
    done.complained(194, "remora: nonexistent.invalid: unreachable: ", "can't resolve");
    let done = run(home.exec(["unix:/nonexistent/socket", "true"]));
    done.complained(194, "remora: unix:/nonexistent/socket: unreachable: ", "/nonexistent/socket");
}

#[test]
fn a_host_that_does_not_answer_is_given_up_after_the_connect_timeout() {
    let home = Home::with_key();
    let silence = remora_testkit::Silence::new().unwrap();
    let target = silence.address().to_string();
    for (wire, hint) in
        [("", "hint: does `remora serve` run there"), ("length://", "hint: does a server listen")]
    {
        let start = Instant::now();
        let target = format!("{wire}{target}");
        let done = run(home.exec(["--connect-timeout", "300ms", &target, "true"]));
        done.complained(194, &format!("remora: {target}: unreachable: "), hint);
        // Well before the default of 10 s.
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(300) && elapsed < Duration::from_secs(8), "{elapsed:?}");
    }
}

#[test]
fn a_user_whom_the_host_does_not_know_is_195() {
    let home = Home::with_key();
    let server = Server::start(&home);
    home.authorize(&[]);
    let done = run(home.exec([&server.target(), "touch started"]));
    done.complained(195, &format!("remora: {}: unauthenticated: ", server.target()), "authorized_keys");
    let other = Home::empty();
    other.write(".ssh/known_hosts", &home.text(".ssh/known_hosts"));
    let done = run(other.exec([&server.target(), "true"]));
    done.complained(
        195,
        &format!("remora: {}: unauthenticated: ", server.target()),
        "hint: make one with ssh-keygen",
    );
}

#[test]
fn another_user_is_refused_by_name_with_196() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec(["--user", "somebody-else", &server.target(), "true"]));
    done.complained(196, &format!("remora: {}: refused: ", server.target()), "somebody-else");
}

#[test]
fn a_server_of_another_kind_is_197() {
    let home = Home::with_key();
    for reply in [
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\0\0\0\0garbage",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // Reads before it answers, so that closing is no reset.
            let _ = stream.read(&mut [0; 65536]).unwrap();
            stream.write_all(reply.as_bytes()).unwrap();
            let _ = stream.read(&mut [0; 65536]);
        });
        let class = format!("remora: {target}: incompatible: ");
        run(home.exec([&target, "true"])).complained(197, &class, "hint: is it a remora server");
        peer.join().unwrap();
    }
}

#[test]
fn a_server_that_hangs_up_during_the_handshake_is_194() {
    let home = Home::with_key();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 65536]).unwrap();
    });
    run(home.exec([&target, "true"])).complained(194, &format!("remora: {target}: unreachable: "), "");
    peer.join().unwrap();
}

#[test]
fn a_server_killed_in_the_middle_is_198() {
    let home = Home::with_key();
    let mut server = Server::start(&home);
    let words = ["--no-reconnect", &server.target(), "echo $$; exec sleep 1000"];
    let mut client = Client::start(home.exec(words));
    let command = client.number();
    server.kill();
    let class = format!("remora: {}: lost: ", server.target());
    client.finish().complained(198, &class, "hint: the command may have run");
    eventually(PATIENCE, "its keeper ends the command", || !remora_testkit::is_alive(command));
}

#[test]
fn sshs_statuses_fold_all_that_is_not_the_commands_own() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let exec = |target: &str, line: &str| run(home.exec(["--exit-status", "ssh", target, line])).status;
    assert_eq!(exec(&server.target(), "exit 7"), 7);
    assert_eq!(exec(&server.target(), "exit 194"), 194);
    assert_eq!(exec(&server.target(), "kill -TERM $$"), 255);
    assert_eq!(exec("127.0.0.1:1", "true"), 255);
    assert_eq!(exec("a b", "true"), 255);
}
