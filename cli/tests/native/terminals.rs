//! `exec -t` and `pty`, with a person at a real terminal.

use std::process::Command;

use serde_json::{Value, json};

use crate::bench::{Done, Home, REMORA, Server, run};

const PERSON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/native/terminal.py");

/// Runs remora on a terminal and does these steps.
#[track_caller]
fn at_terminal(home: &Home, arguments: &[&str], steps: Value) -> Done {
    let mut command = home.remora_under("python3", &[PERSON, &steps.to_string()]);
    command.args(arguments).env("TERM", "xterm-256color").env("LC_TIME", "C").env("COLORTERM", "truecolor");
    run(command).ended(0)
}

/// What a word of the driver's told.
fn told(done: &Done, word: &str) -> Vec<String> {
    let out = done.out();
    out.lines().filter_map(|line| line.strip_prefix(word)).map(|rest| rest.trim().to_owned()).collect()
}

#[test]
fn a_command_gets_a_terminal_like_ours_and_ours_is_as_it_was_afterwards() {
    let home = Home::with_key();
    let server = Server::start(&home);
    for target in ["local", &server.target()] {
        let line = "test -t 0 && test -t 1 && test -t 2 && tty && stty size && echo $TERM $COLORTERM $LC_TIME; stty -a; echo asking; read line; echo \"got $line\"; exit 9";
        let done = at_terminal(
            &home,
            &["exec", "-t", target, line],
            json!([
                ["resize", 33, 99],
                ["modes"],
                ["expect", "/dev/pts/"],
                ["expect", "33 99\r\n"],
                ["expect", "xterm-256color truecolor C\r\n"],
                ["expect", "icanon"],
                ["expect", "asking\r\n"],
                ["modes"],
                ["type", "hello\r"],
                ["expect", "hello\r\ngot hello\r\n"],
                ["end"],
                ["modes"]
            ]),
        );
        assert_eq!(told(&done, "status"), ["9"]);
        let modes = told(&done, "modes");
        assert_eq!(modes.len(), 3);
        assert_ne!(modes[0], modes[1], "it is raw meanwhile");
        assert_eq!(modes[0], modes[2], "it is as it was");
    }
}

#[test]
fn characters_reach_the_command_and_statuses_come_back() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = at_terminal(
        &home,
        &["exec", "-t", &server.target(), "echo ready; exec sleep 1000"],
        json!([["expect", "ready\r\n"], ["type", "\u{3}"], ["end"]]),
    );
    assert_eq!(told(&done, "status"), ["130"]);
    let done = at_terminal(
        &home,
        &["exec", "-t", &server.target(), "echo ready; cat; echo done; exit 4"],
        json!([["expect", "ready\r\n"], ["type", "\u{4}"], ["expect", "done\r\n"], ["end"]]),
    );
    assert_eq!(told(&done, "status"), ["4"]);
}

#[test]
fn the_window_is_followed() {
    let home = Home::with_key();
    let server = Server::start(&home);
    // Asked again and again: a trap of bash's loses a signal that comes while it runs.
    let line = "old=; echo ready; while :; do new=$(stty size); [ \"$new\" = \"$old\" ] || echo \"$new\"; old=$new; \
                [ \"$new\" = '65535 65535' ] && exit 7; sleep 0.02; done";
    let done = at_terminal(
        &home,
        &["exec", "-t", &server.target(), line],
        json!([
            ["expect", "ready\r\n"],
            ["resize", 40, 111],
            ["expect", "40 111\r\n"],
            ["resize", 0, 0],
            ["expect", "0 0\r\n"],
            ["resize", 65535, 65535],
            ["expect", "65535 65535\r\n"],
            ["end"]
        ]),
    );
    assert_eq!(told(&done, "status"), ["7"]);
}

#[test]
fn a_flood_stops_at_ctrl_c() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = at_terminal(
        &home,
        &["exec", "-t", &server.target(), "exec yes"],
        json!([["expect", "y\r\ny\r\n"], ["type", "\u{3}"], ["end"]]),
    );
    assert_eq!(told(&done, "status"), ["130"]);
}

#[test]
fn a_login_shell_is_left_by_itself_or_by_an_escape() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let target = server.target();
    let done = at_terminal(
        &home,
        &["pty", "-e", "PS1=[ready]", "-e", "ENV=", &target],
        json!([
            ["type", "case $0 in -*) echo lo''gin;; esac\r"],
            ["expect", "login\r\n"],
            ["type", "exit 3\r"],
            ["end"]
        ]),
    );
    assert_eq!(told(&done, "status"), ["3"]);
    let done = at_terminal(
        &home,
        &["pty", &target],
        json!([
            ["modes"],
            ["type", "echo re''ady\r"],
            ["expect", "ready\r\n"],
            ["type", "~?"],
            ["expect", "~. leaves"],
            ["type", "\r~."],
            ["expect", "lost: you left by ~."],
            ["end"],
            ["modes"]
        ]),
    );
    assert_eq!(told(&done, "status"), ["198"]);
    let modes = told(&done, "modes");
    assert_eq!(modes[0], modes[1]);
}

#[test]
fn a_host_that_is_stuck_is_left_by_an_escape_too() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let pid = server.pid().to_string();
    // The person stops the server from another window.
    let line = format!("echo ready; sleep 0.3; kill -STOP {pid}; sleep 1000");
    let done = at_terminal(
        &home,
        &["exec", "-t", &server.target(), &line],
        json!([["expect", "ready\r\n"], ["pause", 1], ["type", "x\r~."], ["expect", "you left"], ["end"]]),
    );
    assert_eq!(told(&done, "status"), ["198"]);
    server.signal("CONT");
}

#[test]
fn it_is_stopped_and_continued_with_the_terminal_in_order() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = at_terminal(
        &home,
        &["exec", "-t", &server.target(), "echo ready; cat"],
        json!([
            ["modes"],
            ["expect", "ready\r\n"],
            ["type", "~\u{1a}"],
            ["stopped"],
            ["modes"],
            ["signal", "CONT"],
            ["type", "again\r"],
            ["expect", "again\r\nagain\r\n"],
            ["modes"],
            ["type", "\u{4}"],
            ["end"]
        ]),
    );
    let modes = told(&done, "modes");
    assert_eq!(modes[0], modes[1], "in order while it is stopped");
    assert_ne!(modes[0], modes[2], "raw again");
}

#[test]
fn the_terminal_is_restored_when_the_client_is_ended_or_the_connection_lost() {
    let home = Home::with_key();
    for signal in ["TERM", "HUP"] {
        let server = Server::start(&home);
        let done = at_terminal(
            &home,
            &["exec", "-t", &server.target(), "echo ready; exec sleep 1000"],
            json!([["modes"], ["expect", "ready\r\n"], ["signal", signal], ["end"], ["modes"]]),
        );
        let modes = told(&done, "modes");
        assert_eq!(modes[0], modes[1], "{signal}");
    }
    let mut server = Server::start(&home);
    let line = format!("echo ready; sleep 0.3; kill -KILL {}; sleep 1000", server.pid());
    let done = at_terminal(
        &home,
        &["exec", "-t", "--no-reconnect", &server.target(), &line],
        json!([
            ["modes"],
            ["expect", "ready\r\n"],
            ["expect", "lost: the connection was lost"],
            ["end"],
            ["modes"]
        ]),
    );
    server.wait();
    assert_eq!(told(&done, "status"), ["198"]);
    let modes = told(&done, "modes");
    assert_eq!(modes[0], modes[1]);
}

#[test]
fn after_a_kill_the_next_one_tells_how_to_repair_the_terminal() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let target = server.target();
    // python3 starts one, kills it, and starts another on the same terminal.
    let twice = format!(
        "import subprocess,sys,time\n\
         one = subprocess.Popen(['{REMORA}', 'exec', '-t', '{target}', 'echo ready; sleep 1000'], stdout=subprocess.PIPE)\n\
         one.stdout.readline(); one.kill(); one.wait()\n\
         sys.exit(subprocess.call(['{REMORA}', 'exec', 'local', 'true']))"
    );
    let steps = json!([["expect", "`reset` puts it right"], ["end"]]).to_string();
    let mut command = Command::new("python3");
    command
        .args([PERSON, &steps, "python3", "-c", &twice])
        .env("HOME", home.path(""))
        .stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    assert_eq!(told(&run(command).ended(0), "status"), ["0"]);
}

#[test]
fn without_a_terminal_of_ours_there_is_one_only_when_it_is_insisted_on() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let target = server.target();
    let done = run(home.exec(["-t", &target, "test -t 0 || echo none"])).ended(0);
    assert_eq!(done.out(), "none\n");
    assert!(done.err().contains("-tt"), "{}", done.err());
    let done = run(home.exec(["-tt", &target, "stty size; cat; echo end >&2"])).ended(0);
    assert_eq!(done.out(), "24 80\r\nend\r\n");
    assert_eq!(done.err(), "");
    let mut pty = home.remora();
    pty.args(["pty", &target]);
    run(pty).complained(193, "remora: usage: standard input is no terminal", "-tt");
    run(home.exec(["-t", "-n", &target, "true"])).ended(193);
    run(home.exec(["-t", "--json", &target, "true"])).ended(193);
    run(home.exec(["-tt", "length://127.0.0.1:1", "true"])).ended(193);
}

#[test]
fn vim_edits_a_file() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let file = home.path("text");
    let line = format!("exec vi '{}'", file.display());
    at_terminal(
        &home,
        &["exec", "-t", &server.target(), &line],
        json!([["expect", "text"], ["type", "ione two\u{1b}:wq\r"], ["end"]]),
    );
    assert_eq!(home.text("text"), "one two\n");
}

#[test]
fn ctrl_c_at_a_question_for_a_passphrase_stops_a_loop_as_well() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let key = home.make_key("locked", "ed25519", "secret");
    let script = format!(
        "for i in 1 2 3; do '{REMORA}' exec -i '{}' {} true; echo again; done; echo after",
        key.display(),
        server.target()
    );
    let steps =
        json!([["modes"], ["expect", "Passphrase"], ["pause", 0.2], ["type", "\u{3}"], ["end"], ["modes"]]);
    let mut command = home.remora_under("python3", &[PERSON, &steps.to_string(), "bash", "-c", &script]);
    command.env("TERM", "dumb");
    let done = run(command).ended(0);
    assert!(!done.out().contains("again") && !done.out().contains("after"), "{}", done.out());
    let modes = told(&done, "modes");
    assert_eq!(modes[0], modes[1]);
    assert_eq!(told(&done, "status"), ["-2"]);
}
