//! Servers with keepers: a process for each command, which outlives the server.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use remora_testkit::{children, eventually, group_members, is_alive};

use crate::bench::{Client, Done, Home, PATIENCE, Server, run, run_with, signal};

pub(crate) fn keeper_of(server: &Server, command: i32) -> i32 {
    let all = children(server.pid());
    all.into_iter().find(|keeper| children(*keeper).contains(&command)).expect("a keeper")
}

pub(crate) fn jobs(home: &Home) -> usize {
    fs::read_dir(home.path("state/jobs"))
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().is_dir())
        .count()
}

#[test]
fn commands_end_as_they_do_without_and_leave_nothing() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let open = || fs::read_dir(format!("/proc/{}/fd", server.front())).unwrap().count();
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
    assert!(children(server.front()).is_empty());
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
}

/// Lines on stdout and stderr, for as long as it takes, and what came in on stdin behind them.
const TALKER: &str = "echo $$; for i in $(seq 2000); do echo out $i; echo err $i >&2; [ $((i % 20)) = 0 ] && sleep 0.01; done; cat; exit 7";

fn told(start: &str) -> String {
    (1..=2000).map(|number| format!("{start} {number}\n")).collect()
}

/// What came on stderr but for what the client itself says of its connection.
fn from_the_command(done: &Done) -> String {
    done.err().split_inclusive('\n').filter(|line| !line.starts_with("remora: ")).collect()
}

#[test]
fn a_killed_front_loses_no_byte_and_no_outcome() {
    let home = Home::with_key();
    // On a port of its own, which each front has again.
    let port = Server::start(&home).port;
    let server = again(&home, port, &[]);
    let mut command = home.exec([&server.target(), TALKER]);
    command.stdin(std::process::Stdio::piped());
    let mut client = Client::start(command);
    let group = client.number();
    for _ in 0..3 {
        let first = server.front();
        signal(first, "KILL");
        eventually(PATIENCE, "the next front", || server.front() != first);
        assert!(!group_members(group).is_empty(), "the command runs on");
    }
    let mut stdin = client.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"typed late\n").unwrap();
    drop(stdin);
    let done = client.finish().ended(7);
    assert_eq!(done.out(), told("out") + "typed late\n");
    assert_eq!(from_the_command(&done), told("err"));
    assert!(server.log().contains("starting it anew"), "{}", server.log());
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
}

/// The next server on the state directory and the port of this one.
fn again(home: &Home, port: u16, flags: &[&str]) -> Server {
    let mut command = Server::command(home, &["host_key"]);
    command.args(["--listen", &format!("native://127.0.0.1:{port}")]).args(flags);
    Server::spawn(home, command)
}

#[test]
fn a_killed_warden_loses_no_byte_and_no_outcome() {
    let home = Home::with_key();
    let mut server = Server::start(&home);
    let mut client = Client::start(home.exec([&server.target(), TALKER]));
    let group = client.number();
    for _ in 0..2 {
        server.kill();
        assert!(!group_members(group).is_empty(), "the command runs on");
        server = again(&home, server.port, &[]);
    }
    let done = client.finish().ended(7);
    assert_eq!((done.out(), from_the_command(&done)), (told("out"), told("err")));
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
}

#[test]
fn commands_go_on_while_a_server_is_replaced_and_so_do_sessions() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let mut first = Server::start_to_leave(&home, 0);
    home.write(".ssh/known_hosts", &first.known_line(&home, "host_key"));
    let target = first.target();
    run(home.exec(["--session", "s", &target, "cd /usr; export A=1; f() { echo f; }"])).ended(0);
    let mut client =
        Client::start(home.exec(["--session", "s", &target, "echo $$; sleep 0.3; cd /tmp; export A=2"]));
    let group = client.number();
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(0));
    assert!(first.log().contains("one command runs on"), "{}", first.log());
    assert!(!group_members(group).is_empty());
    // It may end while nobody is there to see it.
    let _second = again(&home, first.port, &[]);
    client.finish().ended(0);
    let done = run(home.exec(["--session", "s", &target, "pwd; echo $A; f"])).ended(0);
    assert_eq!(done.out(), "/tmp\n2\nf\n");
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
}

#[test]
fn what_nobody_comes_back_for_is_ended_without_a_server_too() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let mut server = Server::start_to_leave(&home, 0);
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    let mut groups = Vec::new();
    for flags in [&["--linger", "100ms"][..], &["--no-reconnect"]] {
        let mut command = home.remora();
        command.arg("exec").args(flags).args([&server.target(), "echo $$; sleep 1000"]);
        let mut client = Client::start(command);
        groups.push((client.number(), client));
    }
    server.kill();
    for (group, client) in &groups {
        eventually(PATIENCE, "its command is ended", || group_members(*group).is_empty());
        client.signal("KILL");
    }
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
    assert!(!home.path("state/jobs/epoch").exists(), "a start that is sent again is not run twice");
}

/// Of jobs that were there when the machine went down.
#[test]
fn what_a_reboot_took_along_is_told_and_forgotten() {
    let home = Home::with_key();
    let mut server = Server::start(&home);
    let mut client = Client::start(home.exec([&server.target(), "echo $$; sleep 1000"]));
    let group = client.number();
    let keeper = keeper_of(&server, group);
    server.kill_at_once();
    signal(keeper, "KILL");
    signal(-group, "KILL");
    // Written by another boot: the file begins with a field of 16 bytes.
    for entry in fs::read_dir(home.path("state/jobs")).unwrap() {
        let record = entry.unwrap().path().join("record");
        let Ok(mut bytes) = fs::read(&record) else { continue };
        bytes[5..21].fill(7);
        fs::write(&record, bytes).unwrap();
    }
    let server = again(&home, server.port, &[]);
    let done = client.finish().ended(198);
    assert!(done.err().contains("lost at reboot"), "{}", done.err());
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
    drop(server);
}

#[test]
fn a_killed_keeper_takes_its_command_along_and_that_is_told() {
    let home = Home::with_key();
    let server = Server::start(&home);
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
    let _first = Server::start(&home);
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", "native://127.0.0.1:0"]);
    run(command).complained(193, "remora: usage: another server runs on ", "--state-dir");
}

#[test]
fn a_keeper_that_stands_still_holds_up_nobody_else_and_is_found_once_it_goes_on() {
    let home = Home::with_key();
    let server = crate::detached::server(&home);
    let target = crate::detached::target(&home);
    let go = home.path("go");
    let line = format!("echo $$; while [ ! -e {} ]; do sleep 0.02; done; seq 1 100000; exit 7", go.display());
    let mut client = Client::start(home.exec([&target, &line]));
    let command: i32 = client.line().parse().unwrap();
    let id = crate::detached::detach(&home, &["--name", "silent"], &line);
    let logs = || crate::detached::verb(&home, &["logs", &id]);
    eventually(PATIENCE, "its number", || logs().out().ends_with('\n'));
    let detached: i32 = logs().out().trim().parse().unwrap();
    let keepers = [keeper_of(&server, command), keeper_of(&server, detached)];
    keepers.iter().for_each(|keeper| signal(*keeper, "STOP"));
    crate::detached::kill_front(&home, &server);
    server.wait_for_log("a job's keeper doesn't answer; it is asked again");
    server.wait_for_log("a detached job's keeper doesn't answer; it is asked again");
    // It is listed, what its keeper alone can do is refused for now, and its name is taken.
    let verb = |words: &[&str]| crate::detached::verb(&home, words);
    assert!(verb(&["jobs"]).ended(0).out().contains(" no answer "));
    verb(&["stop", &id]).complained(194, "remora: unix:", "keeper doesn't answer");
    verb(&["attach", &id]).complained(194, "remora: unix:", "keeper doesn't answer");
    run(home.exec(["--detach", "--name", "silent", &target, "true"])).complained(
        196,
        "remora: unix:",
        "a job named silent runs already",
    );
    // Its client is there again, and waits; others are served.
    run(home.exec([&target, "exit 3"])).ended(3);
    std::fs::write(&go, "").unwrap();
    assert!(client.child.try_wait().unwrap().is_none());
    keepers.iter().for_each(|keeper| signal(*keeper, "CONT"));
    let numbers: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
    let done = client.finish().ended(7);
    assert!(done.stdout == numbers.as_bytes(), "{}", done.stdout.len());
    verb(&["wait", &id]).ended(7);
    assert!(logs().ended(0).out() == format!("{detached}\n{numbers}"));
}

#[test]
fn a_start_that_hangs_holds_up_nobody_else_and_loses_nothing_of_what_was_sent() {
    let home = Home::with_key();
    let server = crate::detached::server(&home);
    let target = crate::detached::target(&home);
    run(home.exec([&target, "true"])).ended(0);
    let front = server.front();
    // All keepers that wait for a job: as if a file system hung that a program is on.
    let idle: Vec<i32> = children(server.pid()).into_iter().filter(|child| *child != front).collect();
    assert!(!idle.is_empty());
    idle.iter().for_each(|keeper| signal(*keeper, "STOP"));
    // One that wouldn't come back: it hasn't gone.
    let mut command = home.exec(["--no-reconnect", &target, "sleep 0.3; cat; exit 7"]);
    command.stdin(std::process::Stdio::piped());
    let mut client = Client::start(command);
    let mut stdin = client.child.stdin.take().unwrap();
    let typed = "typed\n".repeat(10_000);
    std::io::Write::write_all(&mut stdin, typed.as_bytes()).unwrap();
    drop(stdin);
    // One that its client gives up is not run at all once it could be.
    let mark = home.path("mark");
    let gone = Client::start(home.exec([&target, &format!("touch {}; sleep 1000", mark.display())]));
    server.wait_for_log("a keeper takes its time to start a job");
    eventually(PATIENCE, "both are waited for", || server.log().matches("takes its time").count() == 2);
    // The server answers others meanwhile.
    crate::detached::verb(&home, &["jobs"]).ended(0);
    signal(i32::try_from(gone.child.id()).unwrap(), "INT");
    signal(i32::try_from(gone.child.id()).unwrap(), "INT");
    gone.finish();
    idle.iter().for_each(|keeper| signal(*keeper, "CONT"));
    let done = client.finish().ended(7);
    assert!(done.out() == typed, "{}", done.stdout.len());
    eventually(PATIENCE, "nothing of the other one is left", || jobs(&home) == 0);
}

#[test]
fn a_keeper_of_a_warden_that_is_gone_takes_no_other_command_and_its_own_ends_with_it() {
    let home = Home::with_key();
    let mut first = Server::start(&home);
    let go = home.path("go");
    let line = format!("echo $$; while [ ! -e {} ]; do sleep 0.02; done", go.display());
    let mut short = Client::start(home.exec([&first.target(), &line]));
    let mut long = Client::start(home.exec([&first.target(), "echo $$; sleep 1000 & sleep 1000"]));
    let groups = [short.number(), long.number()];
    let keepers = groups.map(|group| keeper_of(&first, group));
    first.kill();
    let second = again(&home, first.port, &[]);
    fs::write(&go, "").unwrap();
    short.finish().ended(0);
    // It has nothing left, and isn't kept for another.
    eventually(PATIENCE, "the keeper of the short one ends", || !is_alive(keepers[0]));
    let mut next = Client::start(home.exec([&second.target(), "echo $$; exec sleep 1000"]));
    keeper_of(&second, next.number());
    // Nobody's child: the server sees to what it leaves.
    signal(keepers[1], "KILL");
    let done = long.finish().ended(198);
    assert!(done.err().contains("keeper lost"), "{}", done.err());
    eventually(PATIENCE, "its command is ended", || group_members(groups[1]).is_empty());
    next.signal("TERM");
    next.finish();
}

#[test]
fn a_state_directory_that_others_can_write_to_is_refused() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let state = home.path("state");
    fs::create_dir(&state).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = Server::command(&home, &["host_key"]);
        command.args(["--listen", "native://127.0.0.1:0"]);
        run(command).complained(193, "remora: ", "others can write to it");
    }
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    // Nor may they put another in its place.
    let above = home.path("above");
    fs::create_dir(&above).unwrap();
    fs::set_permissions(&above, fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = Server::command_in(&home, &["host_key"], "above/state");
    command.args(["--listen", "native://127.0.0.1:0"]);
    run(command).complained(193, "remora: ", "put another state directory in place");
    // Sticky, or a group that is the account's own (root's, for one), as under umask 002.
    let own_group = rustix::process::getegid().as_raw() == rustix::process::geteuid().as_raw();
    for mode in [0o1777, if own_group { 0o775 } else { 0o755 }] {
        fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = Server::command_in(&home, &["host_key"], "above/state");
        command.args(["--listen", "native://127.0.0.1:0"]);
        drop(Server::spawn(&home, command));
    }
    drop(Server::start(&home));
}

#[test]
fn keepers_that_stand_still_are_passed_over_and_never_begin_what_was_taken_from_them() {
    let home = Home::with_key();
    let server = crate::detached::server(&home);
    let target = crate::detached::target(&home);
    run(home.exec([&target, "true"])).ended(0);
    let front = server.front();
    let idle: Vec<i32> = children(server.pid()).into_iter().filter(|child| *child != front).collect();
    idle.iter().for_each(|keeper| signal(*keeper, "STOP"));
    let mark = home.path("mark");
    let note = |what: &str| format!("echo {what} >> {}", mark.display());
    run(home.exec([&target, &note("attached")])).ended(0);
    let id = crate::detached::detach(&home, &[], &note("detached"));
    crate::detached::verb(&home, &["wait", &id]).ended(0);
    idle.iter().for_each(|keeper| signal(*keeper, "CONT"));
    eventually(PATIENCE, "those that were passed over end", || {
        idle.iter().filter(|keeper| !is_alive(**keeper)).count() >= 2
    });
    crate::detached::verb(&home, &["forget", &id]).ended(0);
    eventually(PATIENCE, "no folder is left", || jobs(&home) == 0);
    assert_eq!(home.text("mark"), "attached\ndetached\n");
}
