//! What the command on the host sees: words, directory, environment; and the other targets.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use remora_testkit::odd_child;

use crate::bench::{Home, Server, own_name, run, text};

#[test]
fn one_word_is_a_line_for_the_shell() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec([&server.target(), "x=5; printf '%s|' \"$x\" a\\ b; echo c | tr c d"])).ended(0);
    assert_eq!(done.out(), "5|a b|d\n");
}

#[test]
fn several_words_are_a_vector_byte_for_byte() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let words: [&[u8]; 12] = [
        b"argv",
        b"a b",
        b"$x",
        b"'\"",
        b"new\nline",
        b"",
        b"*",
        b"--json",
        b"\xff\xfe\x80",
        b"\\",
        b"`id`",
        b"\x1b[2J",
    ];
    let target = server.target();
    let child = odd_child();
    let all =
        [target.as_bytes(), child.as_os_str().as_bytes()].into_iter().chain(words).map(OsStr::from_bytes);
    let done = run(home.exec(all)).ended(0);
    let seen: Vec<&[u8]> = done.stdout.strip_suffix(b"\0").unwrap().split(|byte| *byte == 0).collect();
    assert_eq!(seen[1..], words);
}

#[test]
fn with_argv_one_word_is_a_program_and_no_line() {
    let home = Home::with_key();
    let server = Server::start(&home);
    assert!(run(home.exec(["--argv", &server.target(), "pwd"])).ended(0).out().starts_with('/'));
    run(home.exec(["--argv", &server.target(), "pwd; true"])).ended(127);
}

#[test]
fn a_line_keeps_its_bytes() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let target = server.target();
    let done =
        run(home.exec([target.as_bytes(), b"printf '%s' '\xff\n\x01'"].map(OsStr::from_bytes))).ended(0);
    assert_eq!(done.stdout, b"\xff\n\x01");
}

#[test]
fn the_working_directory_is_the_home_or_the_one_asked_for() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let account = run(home.exec([&server.target(), "cd; pwd"])).ended(0).out();
    assert_eq!(run(home.exec([&server.target(), "pwd"])).ended(0).out(), account);
    let folder = home.path("a folder");
    std::fs::create_dir(&folder).unwrap();
    let done = run(home.exec(["--cwd", text(&folder), &server.target(), "pwd"])).ended(0);
    assert_eq!(done.out(), format!("{}\n", folder.display()));
}

#[test]
fn variables_reach_the_command_and_nothing_of_the_servers_does() {
    let home = Home::with_key();
    let mut command = Server::command(&home, &[]);
    home.make_key("host_key", "ed25519", "");
    command.arg("--host-key").arg(home.path("host_key")).args(["--listen", "native://127.0.0.1:0"]);
    command.env("SERVER_SECRET", "x").env("LD_PRELOAD", "");
    let server = Server::spawn(&home, command);
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    let mut client = home.exec([
        "-e",
        "A=1",
        "-e",
        "B=x=y z",
        "-e",
        "C=",
        &server.target(),
        text(&odd_child()),
        "environment",
    ]);
    client.env("CLIENT_SECRET", "y");
    let done = run(client).ended(0);
    let seen: Vec<&[u8]> = done.stdout.split(|byte| *byte == 0).collect();
    for wanted in ["A=1", "B=x=y z", "C="] {
        assert!(seen.contains(&wanted.as_bytes()), "{wanted}: {}", done.out());
    }
    for secret in ["SECRET", "LD_PRELOAD", "SSH_AUTH_SOCK"] {
        assert!(!done.out().contains(secret), "{}", done.out());
    }
}

#[test]
fn the_command_inherits_three_descriptors_and_a_session_of_its_own() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let child = odd_child();
    assert_eq!(run(home.exec([&server.target(), text(&child), "fds"])).ended(0).out(), "0\n1\n2\n");
    let ids = run(home.exec([&server.target(), text(&child), "ids"])).ended(0).out();
    let ids: Vec<&str> = ids.split_whitespace().collect();
    assert_eq!((ids[0], ids[0], "no"), (ids[1], ids[2], ids[3]));
}

#[test]
fn local_needs_no_home_no_keys_and_no_server() {
    let home = Home::empty();
    std::fs::remove_dir(home.path(".ssh")).unwrap();
    let done = run(home.exec(["local", "echo here; exit 3"])).ended(3);
    assert_eq!((done.out().as_str(), done.err().as_str()), ("here\n", ""));
    let left: Vec<_> = std::fs::read_dir(home.path("")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let mut bare = home.exec(["local", "exit 4"]);
    bare.env_clear();
    run(bare).ended(4);
}

#[test]
fn a_unix_socket_needs_no_keys() {
    let home = Home::empty();
    let socket = home.path("socket");
    let url = format!("unix:{}", text(&socket));
    let mut command = Server::command(&home, &[]);
    command.args(["--listen", &url]);
    let server = Server::spawn(&home, command);
    assert_eq!(server.listening(), std::slice::from_ref(&url));
    assert_eq!(run(home.exec([&url, "echo $0; exit 3"])).ended(3).err(), "");
    let done = run(home.exec(["--user", "somebody-else", &url, "true"]));
    done.complained(196, &format!("remora: {url}: refused: "), "somebody-else");
    drop(server);
    assert!(!socket.exists(), "the socket is removed at the end");
}

#[test]
fn names_and_messages_are_escaped_on_standard_error() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let hostile = "nosuch\x1b]0;x\x07\u{9b}2J\nremora: a line of its own";
    for target in ["local", &server.target()] {
        let done = run(home.exec(["--argv", target, hostile])).ended(127);
        assert_eq!(done.err().lines().count(), 1, "{:?}", done.err());
        assert!(done.err().trim_end().chars().all(|c| !c.is_control()), "{:?}", done.err());
        let done = run(home.exec(["--cwd", hostile, target, "true"])).ended(126);
        assert!(done.err().trim_end().chars().all(|c| !c.is_control()), "{:?}", done.err());
    }
    for arguments in
        [["--user", hostile, "127.0.0.1:1", "x"], ["--env", hostile, "local", "x"], ["-i", hostile, "h", "x"]]
    {
        let done = run(home.exec(arguments)).ended(193);
        assert!(done.err().chars().all(|c| c == '\n' || !c.is_control()), "{:?}", done.err());
    }
    let done = run(home.exec([hostile, "true"])).ended(193);
    assert!(done.err().trim_end().chars().all(|c| !c.is_control()), "{:?}", done.err());
    // Nor do they forge lines in the server's log.
    server.wait_for_log("nosuch");
    let log = server.log();
    assert!(log.chars().all(|c| c == '\n' || !c.is_control()), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("remora: a line of its own")), "{log:?}");
}

#[test]
fn the_user_is_told_apart_from_the_account() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let me = own_name();
    let done = run(home.exec([&format!("{me}@{}", server.target()), "id -un"])).ended(0);
    assert_eq!(done.out().trim(), me);
}

#[test]
fn the_port_and_the_name_of_a_host_are_looked_up_together() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let port = server.port.to_string();
    run(home.exec(["--port", &port, "127.0.0.1", "true"])).ended(0);
    run(home.exec([&format!("native://127.0.0.1:{port}/"), "true"])).ended(0);
    // The same machine under another name is another host, as for ssh.
    let localhost = format!("localhost:{port}");
    run(home.exec([&localhost, "true"])).complained(
        195,
        &format!("remora: {localhost}: unauthenticated: "),
        "--accept-new",
    );
    run(home.exec(["--accept-new", &localhost, "true"])).ended(0);
    run(home.exec([&localhost, "true"])).ended(0);
}

#[test]
fn what_is_secret_is_not_logged() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", "native://127.0.0.1:0"]).env("REMORA_LOG", "trace");
    let server = Server::spawn(&home, command);
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    let mut command =
        home.exec(["-v", "-e", "TOKEN=hunter2", &server.target(), "cat; echo $TOKEN; : hunter2"]);
    command.stdout(std::process::Stdio::null());
    let done = crate::bench::run_with(command, b"hunter2\n").ended(0);
    server.wait_for_log("job ended");
    assert!(
        !done.err().contains("hunter2") && !server.log().contains("hunter2"),
        "{}{}",
        done.err(),
        server.log()
    );
}
