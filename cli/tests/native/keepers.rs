//! Servers with keepers: a process for each command, which outlives the server.

use std::fs;

use remora_testkit::{children, eventually, group_members, is_alive};

use crate::bench::{Client, Home, PATIENCE, Server, run, run_with, signal};

pub(crate) fn server(home: &Home) -> Server {
    if !home.path("host_key").exists() {
        home.make_key("host_key", "ed25519", "");
    }
    let server = Server::start_with(home, &["host_key"], &["--keepers", "--stop-jobs"]);
    home.write(".ssh/known_hosts", &server.known_line(home, "host_key"));
    server
}

/// The process that serves, which the first one has started.
fn front(server: &Server) -> i32 {
    let is_front = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains("--warden-link=") && is_alive(*pid)
    };
    let mut found = None;
    eventually(PATIENCE, "a front", || {
        found = children(server.pid()).into_iter().find(is_front);
        found.is_some()
    });
    found.unwrap()
}

pub(crate) fn keeper_of(server: &Server, command: i32) -> i32 {
    let all = children(server.pid());
    all.into_iter().find(|keeper| children(*keeper).contains(&command)).expect("a keeper")
}

pub(crate) fn jobs(home: &Home) -> usize {
    fs::read_dir(home.path("state/jobs")).unwrap().count()
}

#[test]
fn commands_end_as_they_do_without_and_leave_nothing() {
    let home = Home::with_key();
    let server = server(&home);
    let open = || fs::read_dir(format!("/proc/{}/fd", front(&server))).unwrap().count();
    let before = open();
    for _ in 0..3 {
        let done = run(home.exec([&server.target(), "echo out; echo err >&2; exit 3"])).ended(3);
        assert_eq!((done.out().as_str(), done.err().as_str()), ("out\n", "err\n"));
        let input: Vec<u8> = remora_testkit::pattern(3_000_000);
        let done = run_with(home.exec([&server.target(), "cat; cat >&2"]), &input).ended(0);
        assert!(done.stdout == input, "{} bytes", done.stdout.len());
        let done = run(home.exec([&server.target(), "head -c 5000000 /dev/zero | tr '\\0' x"])).ended(0);
        assert!(done.stdout.len() == 5_000_000 && done.stdout.iter().all(|byte| *byte == b'x'));
        run(home.exec(["--argv", &server.target(), "nonexistent"])).ended(127);
        run(home.exec([&server.target(), "kill -9 $$"])).ended(137);
        run(home.exec(["--timeout", "50ms", &server.target(), "sleep 1000"])).ended(124);
    }
    run(home.exec(["--session", "s", &server.target(), "cd /usr; A=1; export A"])).ended(0);
    let done = run(home.exec(["--session", "s", &server.target(), "pwd; echo $A"])).ended(0);
    assert_eq!(done.out(), "/usr\n1\n");
    let done = run(home.exec(["-tt", &server.target(), "tty; stty size"])).ended(0);
    assert!(done.out().contains("/dev/pts/"), "{}", done.out());
    // The sockets of a few keepers that wait for the next command.
    eventually(PATIENCE, "no descriptor is left", || open() <= before + 4);
    assert!(children(front(&server)).is_empty());
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
}

#[test]
fn a_killed_front_is_started_anew_and_commands_go_on() {
    let home = Home::with_key();
    let mut server = server(&home);
    let mut client =
        Client::start(home.exec(["--no-reconnect", &server.target(), "echo $$; sleep 1000 & sleep 1000"]));
    let group = client.number();
    let first = front(&server);
    signal(first, "KILL");
    client.finish().ended(198);
    server.wait_for_log("starting it anew");
    server.wait_for_log("job taken up");
    assert_ne!(front(&server), first);
    assert!(!group_members(group).is_empty(), "the command runs on");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
    eventually(PATIENCE, "it is ended with the server", || group_members(group).is_empty());
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
}

#[test]
fn a_killed_keeper_takes_its_command_along_and_that_is_told() {
    let home = Home::with_key();
    let server = server(&home);
    let mut client = Client::start(home.exec([&server.target(), "echo $$; sleep 1000 & sleep 1000"]));
    let group = client.number();
    signal(keeper_of(&server, group), "KILL");
    let done = client.finish().ended(198);
    assert!(done.err().contains("keeper lost"), "{}", done.err());
    eventually(PATIENCE, "its command is ended", || group_members(group).is_empty());
    run(home.exec([&server.target(), "true"])).ended(0);
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
}

#[test]
fn two_servers_do_not_share_a_state_directory() {
    let home = Home::with_key();
    let _first = server(&home);
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", "native://127.0.0.1:0", "--keepers"]);
    run(command).complained(193, "remora: usage: another server runs on ", "--state-dir");
}
