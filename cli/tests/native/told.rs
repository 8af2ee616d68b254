//! What the verbs for jobs tell of what isn't there, and of what they can't do.

use std::fs;
use std::process::Stdio;

use remora_testkit::{children, eventually};
use serde_json::Value;

use crate::bench::{Client, Done, Home, PATIENCE, run, run_with, signal};
use crate::detached::{attached, detach, jobs, kill_front, server, target, verb};

/// A whole stdout, of which the host keeps the end only, and a stderr between its halves, likewise.
const FLOOD: &str = "seq 1 100000; seq 1 50000 >&2; seq 100001 200000";

fn flood(home: &Home) -> String {
    let id = detach(home, &["--spool-limit", "100k", "--on-full", "drop-oldest"], FLOOD);
    verb(home, &["wait", &id]).ended(0);
    id
}

fn object(done: &Done) -> Value {
    let text = done.out();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn what_was_dropped_is_told_for_each_stream_where_it_was_asked_for() {
    let home = Home::with_key();
    let _server = server(&home);
    let id = flood(&home);
    let job = jobs(&home).remove(0);
    let [out, err] = ["stdout", "stderr"].map(|stream| job[stream]["start"].as_u64().unwrap());
    assert!(out > 0 && err > 0, "{job}");
    let line = |stream: &str, to: u64| {
        format!("remora: {}: {stream} from offset 0 to {to} was dropped on the host\n", target(&home))
    };
    let logs = |words: &[&str]| verb(&home, &[&["logs", &id], words].concat()).ended(0);
    // As much of one order as is kept comes: which of the two begins first is the order's.
    let told = |words: &[&str], of: &[(&str, u64)]| {
        let done = logs(words);
        let mut lines: Vec<String> = done
            .err()
            .lines()
            .filter(|line| line.starts_with("remora: "))
            .map(|line| format!("{line}\n"))
            .collect();
        lines.sort();
        let mut expected: Vec<String> = of.iter().map(|(stream, to)| line(stream, *to)).collect();
        expected.sort();
        assert_eq!(lines, expected, "{words:?}");
    };
    told(&[], &[("stdout", out), ("stderr", err)]);
    told(&["--stream", "stderr"], &[("stderr", err)]);
    told(&["--stream", "stdout"], &[("stdout", out)]);
    told(&["--tail", "1000000"], &[("stdout", out), ("stderr", err)]);
    told(&["--tail", "1000000", "--stream", "stdout"], &[("stdout", out)]);
    // Of what nobody asked for nothing is said.
    told(&["--tail", "5"], &[]);
    told(&["--tail", "5", "--stream", "stdout"], &[]);
    told(&["--stream", "stdout", "--since-offset", &out.to_string()], &[]);
    // An offset of both: of what was dropped behind it.
    told(&["--since-offset", "1000"], &[("stdout", out), ("stderr", err)]);

    let json = object(&logs(&["--json", "--max-bytes", "1m"]));
    assert_eq!(json["dropped"]["stdout"], serde_json::json!([{ "from": 0, "to": out }]));
    assert_eq!(json["dropped"]["stderr"], serde_json::json!([{ "from": 0, "to": err }]));
    let json = object(&logs(&["--json", "--tail", "3"]));
    assert_eq!(json["dropped"], serde_json::json!({ "stdout": [], "stderr": [] }));
    // A program that goes on at `next` is told once.
    let first = object(&logs(&["--json", "--max-bytes", "1000"]));
    let next = first["next"].to_string();
    let second = object(&logs(&["--json", "--max-bytes", "1000", "--since-offset", &next]));
    assert_eq!(second["dropped"], serde_json::json!({ "stdout": [], "stderr": [] }));
}

#[test]
fn what_a_job_gave_its_client_before_it_was_detached_is_not_called_dropped() {
    let home = Home::with_key();
    let _server = server(&home);
    let mut client = Client::start(home.exec([&target(&home), "seq 1 1000000"]));
    let mut seen = vec![0; 1_500_000];
    std::io::Read::read_exact(client.child.stdout.as_mut().unwrap(), &mut seen).unwrap();
    let id = attached(&home, 1_500_000);
    verb(&home, &["detach", &id]).ended(0);
    client.finish().ended(198);
    verb(&home, &["wait", &id]).ended(0);
    let start = jobs(&home)[0]["stdout"]["start"].as_u64().unwrap();
    assert!(start > 0);
    let done = verb(&home, &["logs", &id]).ended(0);
    let text = format!("stdout from offset 0 to {start} was its client's, before it was detached\n");
    assert!(done.err().ends_with(&text), "{}", done.err());
}

#[test]
fn an_offset_behind_the_end_is_a_mistake_and_not_the_end() {
    let home = Home::with_key();
    let _server = server(&home);
    let id = detach(&home, &[], "echo four; echo 3 >&2");
    verb(&home, &["wait", &id]).ended(0);
    for (stream, end) in [("stdout", 5), ("stderr", 2), ("both", 7)] {
        let logs = |at: u64, more: &[&str]| {
            let at = at.to_string();
            verb(&home, &[&["logs", &id, "--stream", stream, "--since-offset", &at], more].concat())
        };
        assert_eq!(logs(end, &[]).ended(0).out(), "");
        let text = format!("end{} at offset {end}", if stream == "both" { "" } else { "s" });
        logs(end + 1, &[]).complained(193, "remora: usage: --since-offset ", &text);
        let json = object(&logs(end + 1, &["--json"]).ended(193));
        assert_eq!(json["outcome"]["class"], "usage");
    }
}

#[test]
fn no_line_of_the_end_is_what_comes_from_now_on() {
    let home = Home::with_key();
    let _server = server(&home);
    let (begin, end) = (home.path("begin"), home.path("end"));
    let until = |path: &std::path::Path, what: &str| {
        format!("until test -e {}; do {what}; sleep 0.02; done", path.display())
    };
    let line = format!(
        "echo old; echo older >&2; printf half; {}; {}; echo end",
        until(&begin, ":"),
        until(&end, "echo tick")
    );
    let id = detach(&home, &[], &line);
    eventually(PATIENCE, "it has printed", || jobs(&home)[0]["bytes"] == 14);
    for stream in ["both", "stdout"] {
        let done = verb(&home, &["logs", "--tail", "0", "--stream", stream, &id]).ended(0);
        assert_eq!((done.out(), done.err()), (String::new(), String::new()));
    }
    let json = object(&verb(&home, &["logs", "--tail", "0", "--json", &id]).ended(0));
    assert_eq!((&json["next"], &json["pieces"]), (&14.into(), &serde_json::json!([])));
    fs::write(&begin, "").unwrap();
    eventually(PATIENCE, "it ticks", || jobs(&home)[0]["bytes"].as_u64() > Some(24));
    let mut command = home.remora();
    command.args(["logs", "-f", "--tail", "0", &target(&home), &id]);
    let mut client = Client::start(command);
    assert_eq!(client.line(), "tick");
    fs::write(&end, "").unwrap();
    let done = client.finish().ended(0);
    let (text, err) = (done.out(), done.err());
    assert!(text.ends_with("end\n") && !text.contains("half") && err.is_empty(), "{text:?} {err:?}");
}

#[test]
fn a_lease_that_is_not_there_is_not_renewed() {
    let home = Home::with_key();
    let server = server(&home);
    let id = detach(&home, &[], "sleep 1000");
    verb(&home, &["renew", &id]).complained(196, "remora: unix:", "--lease gives it one");
    verb(&home, &["renew", "--lease", "1h", &id]).ended(0);
    // Its keeper has it, whoever serves.
    eventually(PATIENCE, "the lease is told", || jobs(&home)[0]["lease_seconds"] == 3600.0);
    kill_front(&home, &server);
    assert_eq!(jobs(&home)[0]["lease_seconds"], 3600.0);
    verb(&home, &["renew", &id]).ended(0);
    verb(&home, &["renew", "--lease", "500ms", &id]).ended(0);
    eventually(PATIENCE, "it is over", || jobs(&home)[0]["state"] == "ended");
    let leased = detach(&home, &["--lease", "1h"], "sleep 1000");
    verb(&home, &["renew", &leased]).ended(0);
}

#[test]
fn json_says_nothing_of_output_that_it_has_not_and_something_when_it_fails() {
    let home = Home::with_key();
    let server = server(&home);
    let id = detach(&home, &[], "echo out; sleep 0.1");
    let json = object(&verb(&home, &["wait", "--json", &id]).ended(0));
    let stream = json["stdout"].as_object().unwrap();
    assert_eq!(stream["length"], 4);
    assert!(!stream.contains_key("text") && !stream.contains_key("cut_bytes"), "{json}");
    let receipt = &jobs(&home)[0]["receipt"];
    assert!(receipt["proven"] == true && receipt["stdout"].get("text").is_none(), "{receipt}");
    // What a client has captured is there, empty or not.
    let done = run(home.exec(["--json", &target(&home), "true"])).ended(0);
    assert_eq!(object(&done)["stdout"]["text"], "");

    let id = detach(&home, &[], "echo $$; sleep 1000");
    eventually(PATIENCE, "its number", || verb(&home, &["logs", &id]).out().ends_with('\n'));
    let group: i32 = verb(&home, &["logs", &id]).out().trim().parse().unwrap();
    let keeper = children(server.pid()).into_iter().find(|pid| children(*pid).contains(&group)).unwrap();
    signal(keeper, "KILL");
    let json = object(&verb(&home, &["wait", "--json", &id]).ended(198));
    assert_eq!((&json["outcome"]["class"], &json["proven"]), (&"lost".into(), &false.into()));
    // For how long it ran nobody knows.
    let table = verb(&home, &["jobs"]).ended(0).out();
    let row = table.lines().find(|line| line.contains("lost")).unwrap();
    assert_eq!(row.split_whitespace().nth(5), Some("-"), "{table}");

    for words in [&["wait", "--json", "0000"][..], &["logs", "--json", "0000"]] {
        let json = object(&verb(&home, words).ended(196));
        assert_eq!(
            (&json["outcome"]["class"], &json["proven"]),
            (&"refused".into(), &false.into()),
            "{words:?}"
        );
        assert_eq!(json["target"], target(&home), "{words:?}");
    }
    let mut command = home.remora();
    command.args(["jobs", "--json", "unix:/nowhere/at/all"]);
    assert_eq!(object(&run(command).ended(194))["outcome"]["class"], "unreachable");
    for verb in ["jobs", "logs", "wait"] {
        let mut command = home.remora();
        command.args([verb, "--json", "--nosuch"]);
        assert_eq!(object(&run(command).ended(193))["outcome"]["class"], "usage", "{verb}");
    }
}

#[test]
fn the_table_shows_where_words_end_and_when_a_command_began() {
    let home = Home::with_key();
    let _server = server(&home);
    let argv = run(home.exec(["--detach", &target(&home), "true", "a b", ""])).ended(0).out();
    verb(&home, &["wait", argv.trim()]).ended(0);
    let long = format!("exec sleep 1000 # {}", "x".repeat(100));
    detach(&home, &["--name", "long"], &long);
    let table = verb(&home, &["jobs"]).ended(0).out();
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(
        table.contains(" true \"a b\" \"\"\n") && table.contains("exec sl") && table.contains("…\n"),
        "{table}"
    );
    let started = table.lines().nth(1).unwrap().split_whitespace().nth(4).unwrap().to_owned();
    let is_time = started.len() == 5 && started.as_bytes()[2] == b':';
    assert!(table.lines().next().unwrap().contains("STARTED") && is_time, "{table}");
}

#[test]
fn names_and_numbers_that_make_no_sense_are_told_with_what_does() {
    let home = Home::with_key();
    let _server = server(&home);
    let words = |words: &[&str]| {
        let mut command = home.remora();
        command.args(words);
        run(command)
    };
    let usage = |line: &[&str], text: &str| {
        let done = words(line).complained(193, "remora: usage: ", text);
        assert!(!done.err().contains("use '-- "), "{}", done.err());
    };
    let target = target(&home);
    usage(&["exec", "--detach", "--name", "a b", &target, "true"], "a job's name is 1 to 64");
    usage(&["detach", "--name", "a b", &target, "x"], "a job's name is 1 to 64");
    usage(&["exec", "--session", "a b", &target, "true"], "a session's name is 1 to 64");
    usage(&["logs", &target, "x", "--tail", "-1"], "unexpected argument '-1'");
    usage(&["logs", &target, "x", "--since-offset", "-1"], "unexpected argument '-1'");
    usage(&["stop", &target, "x", "--json"], "unexpected argument '--json'");
    usage(&["signal", &target, "x", "FOO"], "hint: HUP INT QUIT ");
    usage(&["signal", &target, "x", "32"], "or 1 to 31");

    let id = detach(&home, &["--name", "build"], "exec sleep 1000");
    let hint = format!("remora attach {target} build, or remora stop {target} build first");
    let again = || home.exec(["--detach", "--name", "build", &target, "true"]);
    run(again()).complained(196, "remora: unix:", &hint);
    let mut client = Client::start(home.exec([&target, "echo ready; sleep 1000"]));
    assert_eq!(client.line(), "ready");
    let runs = attached(&home, 6);
    verb(&home, &["detach", &runs, "--name", "build"]).complained(196, "remora: unix:", &hint);
    // By its number.
    verb(&home, &["signal", &id, "9"]).ended(0);
    verb(&home, &["wait", &id]).ended(137);
    run(again()).ended(0);
}

#[test]
fn a_stdin_that_stays_behind_is_told_of() {
    let home = Home::with_key();
    let _server = server(&home);
    let target = target(&home);
    let exec = |options: &[&str]| home.exec([&["--detach"], options, &[&target, "cat"]].concat());
    let told =
        |done: Done| done.complained(0, "remora: standard input stays here: ", "remora attach sends it");
    let silent = |done: Done| assert_eq!(done.ended(0).err(), "");
    told(run_with(exec(&[]), b"x"));
    let file = home.write("input", "x");
    let from_file = |options: &[&str]| {
        let mut command = exec(options);
        command.stdin(Stdio::from(fs::File::open(&file).unwrap()));
        run(command)
    };
    let done = told(from_file(&[]));
    assert!(done.err().contains("(--open-stdin, then remora attach"), "{}", done.err());
    told(from_file(&["--open-stdin"]));
    silent(from_file(&["-n"]));
    silent(run(exec(&[])));
    let mut closed = std::process::Command::new("sh");
    closed.args(["-c", "exec \"$@\" <&-", "sh"]).arg(crate::bench::REMORA);
    closed.args(["exec", "--detach", &target, "true"]).env("HOME", home.path(""));
    closed.stdout(Stdio::piped()).stderr(Stdio::piped());
    silent(run(closed));
    let done = crate::bench::run_on_terminal(&home, &exec(&[]), &[]).ended(0);
    assert!(!done.out().contains("standard input"), "{}", done.out());
}
