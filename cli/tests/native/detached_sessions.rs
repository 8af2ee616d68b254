//! Detached commands in sessions: they begin as their session is, and what they change is their own.

use std::fs;

use serde_json::Value;

use crate::bench::{Client, Home, REMORA, own_name, run};
use crate::detached::{attached, detach, jobs, kill_front, server, target, verb};
use crate::screen::Screen;

/// Runs a line in the session `s`.
fn line(home: &Home, line: &str) -> String {
    run(home.exec(["--session", "s", &target(home), line])).ended(0).out()
}

#[test]
fn a_line_begins_as_its_session_is_and_moves_nothing_of_it() {
    let home = Home::with_key();
    let _server = server(&home);
    line(&home, "cd /usr; export A=1; umask 027; f() { echo \"f in $PWD\"; }");
    for (detached, printed, status) in [
        ("f; echo $A; umask; cd /; A=2; f; echo $A; exit 3", "f in /usr\n1\n0027\nf in /\n2\n", 3),
        // What a session carries out itself elsewhere.
        ("cd /etc", "", 0),
        ("pwd", "/usr\n", 0),
        ("export A=9; unset A", "", 0),
        // What a program alone can be.
        ("printenv A", "1\n", 0),
        ("cd /nowhere", "", 1),
    ] {
        let id = detach(&home, &["--session", "s"], detached);
        verb(&home, &["wait", &id]).ended(status);
        assert_eq!(verb(&home, &["logs", "--stream", "stdout", &id]).ended(0).out(), printed, "{detached}");
        let object: Value =
            serde_json::from_str(&verb(&home, &["wait", "--json", &id]).ended(status).out()).unwrap();
        assert_eq!(object["session"]["name"], "s", "{object}");
        assert_eq!(object["session"]["carried"], "detached");
        assert_eq!(object["working_directory"], "/usr", "{object}");
    }
    assert_eq!(line(&home, "pwd; echo $A; umask; f"), "/usr\n1\n0027\nf in /usr\n");
    // An argument vector runs there, too, and where one asks for it.
    let target = target(&home);
    let exec = ["--detach", "--session", "s", "--cwd", "lib", &target, "pwd", "-P"];
    let id = run(home.exec(exec)).ended(0).out();
    verb(&home, &["wait", id.trim_end()]).ended(0);
    assert_eq!(verb(&home, &["logs", id.trim_end()]).ended(0).out(), "/usr/lib\n");
}

#[test]
fn a_line_that_runs_in_a_session_is_detached_and_what_it_changes_is_its_own() {
    let home = Home::with_key();
    let server = server(&home);
    let go = home.path("go");
    line(&home, "cd /usr");
    let wait = format!("while [ ! -e {} ]; do sleep 0.02; done", go.display());
    let text = format!("cd /etc; export A=2; echo ready; {wait}; pwd; exit 5");
    let mut client = Client::start(home.exec(["--session", "s", &target(&home), &text]));
    assert_eq!(client.line(), "ready");
    let id = attached(&home, 6);
    verb(&home, &["detach", &id]).ended(0);
    client.finish().complained(198, "remora: unix:", "the command is detached, and goes on");
    // Nothing runs in the session any more, so that it may be ended while the command goes on.
    let sessions = || {
        let done = run({
            let mut command = home.remora();
            command.args(["sessions", "--json", &target(&home)]);
            command
        });
        serde_json::from_str::<Value>(&done.ended(0).out()).unwrap()["sessions"][0].clone()
    };
    assert_eq!((&sessions()["jobs"], &sessions()["name"]), (&0.into(), &"s".into()));
    assert_eq!(line(&home, "pwd; echo \"<$A>\""), "/usr\n<>\n");
    kill_front(&home, &server);
    fs::write(&go, "").unwrap();
    verb(&home, &["wait", &id]).ended(5);
    assert!(verb(&home, &["logs", &id]).ended(0).out().ends_with("/etc\n"));
    assert_eq!(line(&home, "pwd; echo \"<$A>\""), "/usr\n<>\n");
    assert_eq!(jobs(&home).len(), 1);
}

/// How the shell's prompt ends.
fn prompt() -> &'static str {
    if own_name() == "root" { "~#" } else { "~$" }
}

#[test]
fn disown_in_the_shell_detaches_what_is_stopped_or_in_the_background() {
    let home = Home::with_key();
    let server = server(&home);
    let (one, two) = (home.path("one"), home.path("two"));
    let screen = Screen::open(&home, 40);
    screen.enter(&format!("clear; {REMORA} shell {}; echo left with $?", target(&home)));
    screen.ends_with(prompt());
    let until = |path: &std::path::Path| format!("until test -e {}; do sleep 0.02; done", path.display());
    screen.enter("disown");
    screen.shows("disown: no current job");
    // In the background, with a directory of its own.
    screen.enter(&format!("cd /usr; echo in $PWD; {}; pwd; exit 5", until(&one)));
    screen.shows("in /usr\n");
    screen.press(&["C-z"]);
    screen.shows("[1]+  Stopped ");
    screen.enter(&format!("({}; exit 6) &", until(&two)));
    screen.shows("[2] (until");
    screen.enter("sleep 1000 &");
    screen.shows("[3] sleep 1000 &");
    // All or none: a word that means nothing is no reason to lose sight of the others.
    screen.enter("disown %1 %7");
    screen.shows("disown: %7: no such job");
    screen.enter("jobs");
    screen.shows("[1]   Stopped ");
    screen.enter("clear");
    screen.enter("disown %1 2");
    screen.shows("[1]   Detached                cd /usr");
    screen.shows("[2]   Detached                (until");
    screen.shows(&format!("remora attach {}", target(&home)));
    screen.enter("clear");
    screen.enter("jobs");
    let shown = screen.shows("[3]+  Running                 sleep 1000 &");
    assert!(!shown.contains("[1]") && !shown.contains("[2]"), "{shown}");
    // What was detached is no reason to stay; what runs is.
    screen.enter("exit");
    screen.shows("there are running jobs");
    screen.enter("disown -a");
    screen.shows("[3]   Detached                sleep 1000");
    screen.enter("exit");
    screen.shows("left with 0");
    kill_front(&home, &server);
    fs::write(&one, "").unwrap();
    fs::write(&two, "").unwrap();
    let list = jobs(&home);
    assert_eq!(list.len(), 3, "{list:?}");
    let found = |text: &str| {
        let one = list.iter().find(|job| job["command"]["line"].as_str().unwrap().contains(text));
        one.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let first = found("cd /usr");
    verb(&home, &["wait", &first]).ended(5);
    // A terminal's: what was shown and acknowledged is gone.
    assert!(verb(&home, &["logs", &first]).ended(0).out().ends_with("/usr\r\n"));
    verb(&home, &["wait", &found("exit 6")]).ended(6);
    verb(&home, &["stop", &found("sleep 1000")]).ended(0);
}

#[test]
fn a_line_of_the_shell_that_somebody_detaches_gives_the_prompt_back() {
    let home = Home::with_key();
    let _server = server(&home);
    let screen = Screen::open(&home, 40);
    screen.enter(&format!("clear; {REMORA} shell {}; echo left with $?", target(&home)));
    screen.ends_with(prompt());
    screen.enter("clear");
    screen.enter("echo begun; cat");
    screen.shows("begun\n");
    let id = attached(&home, 7);
    verb(&home, &["detach", &id]).ended(0);
    screen.shows(&format!(
        "the command is detached, and goes on; remora attach {} {}",
        target(&home),
        &id[..12]
    ));
    screen.shows("\n198 ");
    verb(&home, &["stop", &id]).ended(0);
    screen.enter("exit");
    screen.shows("left with 0");
}
