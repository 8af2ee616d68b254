//! Sessions over the wire: whose they are, how long they last, and what is said when something is wrong with them.

use remora_testkit::eventually;

use crate::bench::{Client, Done, Home, PATIENCE, Server, run, text};

/// Runs a command in a session, with options in front.
fn exec(home: &Home, server: &Server, options: &[&str], line: &str) -> Done {
    run(home.exec(options.iter().copied().chain([server.target().as_str(), line])))
}

fn sessions(home: &Home, server: &Server, options: &[&str]) -> serde_json::Value {
    let mut command = home.remora();
    command.args(["sessions", "--json"]).args(options).arg(server.target());
    let done = run(command).ended(0);
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Two keys that log in as the same user, and a server.
fn two_keys() -> (Home, Server, [String; 2]) {
    let home = Home::empty();
    home.make_key("one", "ed25519", "");
    home.make_key("other", "ed25519", "");
    home.authorize(&["one", "other"]);
    let server = Server::start(&home);
    let keys = ["one", "other"].map(|name| text(&home.path(name)).to_owned());
    (home, server, keys)
}

#[test]
fn anothers_session_is_refused_as_one_that_does_not_exist() {
    let (home, server, [one, other]) = two_keys();
    exec(&home, &server, &["-i", &one, "--session", "build"], "cd /usr").ended(0);
    let list = sessions(&home, &server, &["-i", &one]);
    let id = list["sessions"][0]["id"].as_str().unwrap().to_owned();
    exec(&home, &server, &["-i", &one, "--session", &id], "[ $PWD = /usr ]").ended(0);
    let refused: Vec<String> = [id.as_str(), "0123456789abcdef0123456789abcdef"]
        .into_iter()
        .map(|id| {
            exec(&home, &server, &["-i", &other, "--session", id], "echo ran")
                .ended(196)
                .err()
                .replace(id, "ID")
        })
        .collect();
    assert_eq!(refused[0], refused[1]);
    assert!(refused[0].contains("there is no such session"), "{}", refused[0]);
    // Its name is free for others, and their list is their own.
    let done = exec(&home, &server, &["-i", &other, "--session", "build"], "pwd").ended(0);
    assert_ne!(done.out(), "/usr\n");
    let theirs = sessions(&home, &server, &["-i", &other]);
    assert_eq!(theirs["sessions"].as_array().unwrap().len(), 1);
    assert_ne!(theirs["sessions"][0]["id"].as_str(), Some(id.as_str()));
}

#[test]
fn a_session_outlives_connections_and_a_reload_and_has_room_for_so_many() {
    let home = Home::with_key();
    home.make_key("host_key", "ed25519", "");
    let config = home.write("config.toml", "max_sessions = 2\nsession_idle_seconds = 3600\n");
    let mut command = Server::command(&home, &["host_key"]);
    command.args(["--listen", "native://127.0.0.1:0", "--config", text(&config)]);
    let server = Server::spawn(&home, command);
    home.write(".ssh/known_hosts", &server.known_line(&home, "host_key"));
    exec(&home, &server, &["--session", "one"], "cd /usr; export A='x  y'; umask 077").ended(0);
    server.signal("HUP");
    server.wait_for_log("configuration read again");
    let done = exec(&home, &server, &["--session", "one"], "pwd; echo \"$A\"; umask").ended(0);
    assert_eq!(done.out(), "/usr\nx  y\n0077\n");
    // An argument vector runs there, too.
    let words = ["--session", "one", &server.target(), "printenv", "PWD", "A"];
    assert_eq!(run(home.exec(words)).ended(0).out(), "/usr\nx  y\n");
    exec(&home, &server, &["--session", "two"], "true").ended(0);
    exec(&home, &server, &["--session", "three"], "true").complained(
        194,
        &format!("remora: {}: unreachable: there are 2 sessions", server.target()),
        "--end",
    );
    // A job that runs counts.
    let mut slow =
        Client::start(home.exec(["--session", "two", &server.target(), "echo $$; sleep 100; true"]));
    slow.number();
    let jobs = || {
        let list = sessions(&home, &server, &[]);
        let of = |one: &serde_json::Value| one["jobs"].as_u64().unwrap();
        let mut jobs: Vec<u64> = list["sessions"].as_array().unwrap().iter().map(of).collect();
        jobs.sort_unstable();
        jobs
    };
    assert_eq!(jobs(), [0, 1]);
    slow.signal("TERM");
    slow.finish().ended(143);
    eventually(PATIENCE, "its job is over", || jobs() == [0, 0]);
}

#[test]
fn what_can_not_be_kept_is_told_and_what_is_gone_too() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let line = "export BIG=$(head -c 300000 /dev/zero | tr '\\0' x); echo ran";
    let done = exec(&home, &server, &["--session", "s"], line).ended(0);
    assert_eq!(done.out(), "ran\n");
    assert!(
        done.err().contains("what the line changed is lost: ") && done.err().contains("131072"),
        "{}",
        done.err()
    );
    // Whoever replaces the shell knows it; with -v it is said.
    let done = exec(&home, &server, &["--session", "s"], "cd /usr; exec echo replaced").ended(0);
    assert_eq!((done.out().as_str(), done.err().as_str()), ("replaced\n", ""));
    let done = exec(&home, &server, &["-v", "--session", "s"], "trap 'echo mine' EXIT; cd /usr").ended(0);
    assert_eq!(done.out(), "mine\n");
    assert!(done.err().contains("nothing was captured"), "{}", done.err());
    // A directory that vanished.
    let gone = home.path("gone");
    std::fs::create_dir(&gone).unwrap();
    exec(&home, &server, &["--session", "s"], &format!("cd {}", text(&gone))).ended(0);
    std::fs::remove_dir(&gone).unwrap();
    let start = format!("remora: {}: cannot-exec: ", server.target());
    exec(&home, &server, &["--session", "s"], "ls").complained(
        126,
        &start,
        "gone: No such file or directory",
    );
    assert_eq!(exec(&home, &server, &["--session", "s"], "cd /usr && pwd").ended(0).out(), "/usr\n");
    // A time limit holds whatever the shell is doing.
    let done = exec(&home, &server, &["--session", "s", "--timeout", "300ms"], "cd /; while :; do :; done")
        .ended(124);
    assert_eq!(done.out(), "");
    // bash tells its state as SIGTERM ends it, too: the session is where the line was, and of use.
    assert_eq!(exec(&home, &server, &["--session", "s"], "pwd").ended(0).out(), "/\n");
}

#[test]
fn a_script_ends_where_it_says_exit() {
    let home = Home::with_key();
    let server = Server::start(&home);
    for (script, out, status) in [
        ("test -e /nosuch || { echo missing; exit 3; }\necho went on\n", "missing\n", 3),
        ("false\necho st=$?\n(exit 5)\nexit\necho went on\n", "st=1\n", 5),
        ("die() { echo \"$1\"; exit 9; }\necho on\ndie bad\necho went on", "on\nbad\n", 9),
    ] {
        let mut shell = home.remora();
        shell.args(["shell", &server.target()]);
        assert_eq!(crate::bench::run_with(shell, script.as_bytes()).ended(status).out(), out, "{script}");
    }
}

#[test]
fn a_captured_line_keeps_streams_and_status_apart() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let line = "cd /usr; cat; echo err >&2; exit 7";
    let command = home.exec(["--session", "s", &server.target(), line]);
    let done = crate::bench::run_with(command, b"in\n").ended(7);
    assert_eq!((done.out().as_str(), done.err().as_str()), ("in\n", "err\n"));
    assert_eq!(exec(&home, &server, &["--session", "s"], "pwd").ended(0).out(), "/usr\n");
}

/// PITFALLS 34 and 60: a job has no way to the terminal that its server or client was started on.
#[test]
fn no_terminal_of_ours_is_a_jobs() {
    let home = Home::empty();
    let inside = "exec 2>&1; sh -c ': < /dev/tty' || echo no terminal; ps -o tty= -p \\$\\$";
    let line = format!("{} exec local \"{inside}\"", env!("CARGO_BIN_EXE_remora"));
    // Gives the client a terminal (script(1)).
    let mut command = std::process::Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("HOME", home.path("")).stdin(std::process::Stdio::null());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("No such device or address") && text.contains("no terminal"), "{text}");
    assert!(text.trim_end().ends_with('?'), "{text}");
}
