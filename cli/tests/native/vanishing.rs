//! Signals, clients that leave, clients that are gone.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use remora_testkit::{eventually, group_members, odd_child};

use crate::bench::{Client, Home, PATIENCE, Server, signal, text};

/// A client that died of SIGINT itself, which a shell shows as 130.
const INTERRUPTED: i32 = 1002;

/// Tells which signals it got, and ends on TERM.
const TELLS: &str = "trap 'echo got INT' INT; trap 'echo got TERM; exit 7' TERM; trap 'echo got HUP' HUP; \
     echo $$; while :; do sleep 0.05; done";

#[test]
fn ctrl_c_and_sigterm_reach_the_commands_process_group() {
    let home = Home::with_key();
    let server = Server::start(&home);
    for target in ["local", &server.target()] {
        let mut client = Client::start(home.exec([target, TELLS]));
        let group = client.number();
        client.signal("INT");
        assert_eq!(client.line(), "got INT");
        client.signal("HUP");
        assert_eq!(client.line(), "got HUP");
        client.signal("TERM");
        assert_eq!(client.finish().ended(7).out(), "got TERM\n");
        eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
    }
}

#[test]
fn ctrl_c_ends_all_of_a_pipeline() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut client = Client::start(home.exec([&server.target(), "echo $$; sleep 1000 | sleep 1000"]));
    let group = client.number();
    eventually(PATIENCE, "the pipeline runs", || group_members(group).len() == 3);
    client.signal("INT");
    client.finish().ended(INTERRUPTED);
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
}

#[test]
fn a_second_ctrl_c_leaves_and_the_command_is_ended() {
    let home = Home::with_key();
    let server = Server::start(&home);
    for target in ["local", &server.target()] {
        let mut client = Client::start(home.exec([target, TELLS]));
        let group = client.number();
        client.signal("INT");
        assert_eq!(client.line(), "got INT");
        client.signal("INT");
        client.finish().complained(INTERRUPTED, &format!("remora: {target}: lost: "), "second Ctrl-C (198)");
        eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
    }
}

#[test]
fn ctrl_c_stops_a_shells_loop_too() {
    let home = Home::with_key();
    let server = Server::start(&home);
    // The shell that loops, and the client, are a process group of their own, as on a terminal.
    let twice = "trap 'echo again' INT; echo ready; while :; do sleep 0.05; done";
    for (line, answers) in [("echo ready; exec sleep 1000", &["ready"][..]), (twice, &["ready", "again"])] {
        let script = r#"for turn in 1 2; do [ $turn = 1 ] || exec echo went on; "$0" "$@"; done"#;
        let mut command = home.remora_under("bash", &["-c", script]);
        command.args(["exec", &server.target(), line]);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut shell = Client::start(command);
        for answer in answers {
            assert_eq!(shell.line(), *answer);
            signal(-shell.pid(), "INT");
        }
        assert_eq!(shell.finish().ended(INTERRUPTED).out(), "");
    }
}

#[test]
fn a_command_that_answers_ctrl_c_itself_has_its_own_status_and_the_loop_goes_on() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut client =
        Client::start(home.exec([&server.target(), "trap 'exit 5' INT; echo; while :; do sleep 0.05; done"]));
    client.line();
    client.signal("INT");
    client.finish().ended(5);
}

#[test]
fn as_ssh_the_status_of_an_interrupt_is_255_and_the_status_file_tells_what_it_was() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let file = home.path("status");
    for (style, ended) in [("ssh", 255), ("remora", INTERRUPTED)] {
        let options = ["--exit-status", style, "--status-file", text(&file)];
        let mut client =
            Client::start(home.exec(options.into_iter().chain([&*server.target(), "echo; exec sleep 1000"])));
        client.line();
        client.signal("INT");
        client.finish().ended(ended);
        let told = home.text("status");
        assert!(told.contains(r#""class":"signaled""#) && told.contains(r#""signal":2"#), "{told}");
    }
}

#[test]
fn who_leaves_before_the_host_has_answered_does_not_know_what_became_of_the_command() {
    let home = Home::empty();
    // A host that greets and says nothing more: what it greets with was learned from a real one.
    let real = format!("unix:{}", text(&home.path("real")));
    let mut command = Server::command(&home, &[]);
    command.args(["--listen", &real]);
    let server = Server::spawn(&home, command);
    let mut stream = UnixStream::connect(home.path("real")).unwrap();
    let mut hello = vec![0; 9];
    stream.read_exact(&mut hello).unwrap();
    let length = u32::from_be_bytes(hello[..4].try_into().unwrap());
    hello.resize(9 + length as usize, 0);
    stream.read_exact(&mut hello[9..]).unwrap();
    drop(server);
    let listener = UnixListener::bind(home.path("mute")).unwrap();
    let target = format!("unix:{}", text(&home.path("mute")));
    for (name, key, status) in
        [("TERM", "SIGTERM", 198), ("HUP", "SIGHUP", 198), ("INT", "Ctrl-C", INTERRUPTED)]
    {
        let client = Client::start(home.exec([&target, "true"]));
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&hello).unwrap();
        // Its request is there, so it waits for an answer.
        stream.read_exact(&mut [0]).unwrap();
        client.signal(name);
        let words = format!("you left on {key} before the host answered (198); the command may have run");
        client.finish().complained(status, &format!("remora: {target}: lost: "), &words);
    }
}

/// A command that nobody comes back for: there is nobody to come back to it at `local` anyway.
fn once<'a>(target: &'a str, line: &'a str) -> Vec<&'a str> {
    if target == "local" { vec![target, line] } else { vec!["--no-reconnect", target, line] }
}

#[test]
fn a_killed_client_takes_its_commands_whole_group_with_it() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let child = odd_child();
    let stubborn =
        format!("trap '' TERM HUP; echo $$; '{0}' ignore-term-too 600000 & wait; sleep 1000", text(&child));
    // `local` has its server in the client's own process, which is killed with it: its spawner is left, and tidies up.
    for target in [&server.target(), "local"] {
        for line in ["echo $$; exec sleep 1000", "echo $$; yes >&2; sleep 1000", &stubborn] {
            let mut client = Client::start(home.exec(once(target, line)));
            let group = client.number();
            eventually(PATIENCE, "the command runs", || !group_members(group).is_empty());
            client.signal("KILL");
            client.finish().ended(1009);
            eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
        }
    }
}

#[test]
fn whoever_does_not_come_back_to_a_killed_server_says_that_the_outcome_is_lost_and_the_command_is_ended() {
    let home = Home::with_key();
    let mut server = Server::start(&home);
    let target = server.target();
    let mut client = Client::start(home.exec(once(&target, "echo $$; sleep 1000 & sleep 1000")));
    let group = client.number();
    server.kill();
    client.finish().complained(198, &format!("remora: {}: lost: ", server.target()), "");
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
}

#[test]
fn a_killed_client_does_not_end_another_clients_command() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut stays = Client::start(home.exec([&server.target(), TELLS]));
    let _ = stays.number();
    let mut goes = Client::start(home.exec(once(&server.target(), "echo $$; exec sleep 1000")));
    let group = goes.number();
    goes.signal("KILL");
    goes.finish();
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
    stays.signal("TERM");
    assert_eq!(stays.finish().ended(7).out(), "got TERM\n");
}

#[test]
fn the_command_of_a_killed_client_may_tidy_up_before_it_is_killed() {
    let home = Home::with_key();
    let server = Server::start(&home);
    for target in [&server.target(), "local"] {
        let mark = home.path("mark");
        let _ = std::fs::remove_file(&mark);
        // Its streams are closed by then: whoever writes to them dies of that, as under sshd.
        let line = format!(
            "exec 2> /dev/null; trap 'echo tidy > {0}; exit' TERM; echo $$; while :; do sleep 0.05; done",
            text(&mark)
        );
        let mut client = Client::start(home.exec(once(target, &line)));
        let group = client.number();
        client.signal("KILL");
        client.finish();
        eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
        assert_eq!(home.text("mark"), "tidy\n");
    }
}

#[test]
fn a_second_sigterm_leaves_a_host_that_is_stuck() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut client = Client::start(home.exec([&server.target(), TELLS]));
    let group = client.number();
    signal(server.front(), "STOP");
    client.signal("TERM");
    client.signal("TERM");
    // Signals of a kind that come before the first is looked at are one (signal(7)): the third is the second at the latest.
    eventually(PATIENCE, "the client left", || {
        client.signal("TERM");
        !remora_testkit::is_alive(client.pid())
    });
    client.finish().complained(198, &format!("remora: {}: lost: ", server.target()), "second SIGTERM");
    signal(server.front(), "CONT");
    eventually(PATIENCE, "the group is gone", || group_members(group).is_empty());
}
