//! `--json`, `--status-file` and `-v`: what a program, or a curious person, is told.

use std::os::unix::ffi::OsStrExt;

use remora_testkit::{eventually, odd_child, pattern};
use serde_json::Value;

use crate::bench::{Client, Home, PATIENCE, Server, own_name, run, run_with, text};

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

#[test]
fn the_receipt_is_one_json_object_with_digests_of_what_came() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run_with(home.exec(["--json", &server.target(), "cat; echo err >&2; exit 3"]), b"in and out")
        .ended(3);
    assert_eq!(done.err(), "");
    assert_eq!(done.out().lines().count(), 1);
    let receipt = json(&done.out());
    assert_eq!(receipt["outcome"]["class"], "exited");
    assert_eq!(receipt["outcome"]["status"], 3);
    assert_eq!(receipt["proven"], true);
    assert_eq!(receipt["target"], server.target());
    assert_eq!(receipt["command"]["line"], "cat; echo err >&2; exit 3");
    assert_eq!(receipt["user"], own_name());
    assert_eq!(receipt["job_id"].as_str().unwrap().len(), 32);
    for (stream, bytes) in [("stdin", "in and out"), ("stdout", "in and out"), ("stderr", "err\n")] {
        assert_eq!(receipt[stream]["length"], bytes.len(), "{stream}");
        assert_eq!(receipt[stream]["blake3"], digest(bytes.as_bytes()), "{stream}");
        assert_eq!(receipt[stream]["held_open"], false, "{stream}");
        assert_eq!(receipt[stream]["closed_early"], false, "{stream}");
    }
    assert_eq!(receipt["stdout"]["text"], "in and out");
    assert_eq!(receipt["stderr"]["text"], "err\n");
    assert_eq!(receipt["stdout"]["cut_bytes"], 0);
    assert!(receipt["stdin"]["text"].is_null());
}

#[test]
fn the_receipt_tells_what_the_command_used() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let child = odd_child();
    let done = run(home.exec(["--json", &server.target(), text(&child), "burn", "100", "64"])).ended(0);
    let receipt = json(&done.out());
    let number = |name: &str| receipt[name].as_f64().unwrap_or_else(|| panic!("{name}: {receipt}"));
    assert!(number("user_seconds") + number("system_seconds") >= 0.1, "{receipt}");
    assert!(number("wall_seconds") >= 0.1, "{receipt}");
    assert!(number("peak_memory_bytes") >= 64.0 * 1024.0 * 1024.0, "{receipt}");
    let time = |name: &str| receipt[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert!(time("started") < time("ended"));

    // The figure is its own, of a command that is smaller than this process, too; and larger than what it was forked from, which is
    // a few MiB in a build of this profile where that is a keeper.
    for (target, mebibytes, least) in [(&*server.target(), "16", 16e6), ("local", "4", 4e6)] {
        let words = ["--json", target, text(&child), "burn", "1", mebibytes];
        let receipt = json(&run(home.exec(words)).ended(0).out());
        let peak = receipt["peak_memory_bytes"].as_f64().unwrap_or_else(|| panic!("{target}: {receipt}"));
        assert!((least..least + 7e6).contains(&peak), "{target}: {receipt}");
    }
}

#[test]
fn output_that_is_no_text_is_base64() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec(["--json", &server.target(), "printf '\\377\\000'"])).ended(0);
    let receipt = json(&done.out());
    assert_eq!(receipt["stdout"]["base64"], "/wA=");
    assert!(receipt["stdout"]["text"].is_null());
}

#[test]
fn what_max_output_cuts_is_told_and_the_digest_is_of_all() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let child = odd_child();
    let all = [server.target().as_bytes(), child.as_os_str().as_bytes(), b"flood", b"300000", b"10"]
        .map(|word| std::ffi::OsStr::from_bytes(word).to_owned());
    let mut command = home.exec(["--json", "--max-output", "1k"]);
    command.args(all);
    let receipt = json(&run(command).ended(0).out());
    let kept =
        data_encoding::BASE64.decode(receipt["stdout"]["base64"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(kept, pattern(1024));
    assert_eq!(receipt["stdout"]["cut_bytes"], 300_000 - 1024);
    assert_eq!(receipt["stdout"]["length"], 300_000);
    assert_eq!(receipt["stdout"]["blake3"], digest(&pattern(300_000)));
    assert_eq!(receipt["stderr"]["cut_bytes"], 0);
}

#[test]
fn text_that_max_output_cuts_within_a_character_stays_text() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec(["--json", "--max-output", "4", &server.target(), "printf 'ab€€'"])).ended(0);
    let receipt = json(&done.out());
    assert_eq!(receipt["stdout"]["text"], "ab", "{receipt}");
    assert_eq!(receipt["stdout"]["cut_bytes"], 6);
}

#[test]
fn a_job_that_was_not_started_has_a_receipt_too() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec(["--json", "--cwd", "/nonexistent", &server.target(), "true"])).ended(126);
    let receipt = json(&done.out());
    assert_eq!(receipt["outcome"]["class"], "cannot-exec");
    assert_eq!(receipt["outcome"]["step"], "working-directory");
    assert_eq!(receipt["outcome"]["errno"], 2);
}

#[test]
fn a_command_that_closed_its_stdin_early_is_told() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done =
        run_with(home.exec(["--json", &server.target(), "exec <&-; sleep 0.1"]), &pattern(4 << 20)).ended(0);
    assert_eq!(json(&done.out())["stdin"]["closed_early"], true);
}

#[test]
fn a_stream_that_is_held_open_is_told() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec(["--json", &server.target(), text(&odd_child()), "hold", "600000"])).ended(0);
    let receipt = json(&done.out());
    assert_eq!(
        (&receipt["stdout"]["held_open"], &receipt["stderr"]["held_open"]),
        (&true.into(), &true.into())
    );
    let holder = receipt["stdout"]["text"].as_str().unwrap().trim().parse().unwrap();
    crate::bench::signal(holder, "KILL");
}

#[test]
fn without_a_receipt_a_stream_that_is_held_open_is_told_on_one_line() {
    let home = Home::with_key();
    let server = Server::start(&home);
    for (redirected, held) in [("", "stdout and stderr"), ("2>/dev/null", "stdout"), (">/dev/null", "stderr")]
    {
        let line = format!("sleep 600 {redirected} & echo $! early");
        let done = run(home.exec([&server.target(), &line])).ended(0);
        let out = done.out();
        let holder = out.strip_suffix(" early\n").unwrap().parse().unwrap();
        crate::bench::signal(holder, "KILL");
        let told = format!(
            "remora: {}: a background process holds {held} open; what it still writes is not shown (--wait-streams waits for its end)\n",
            server.target()
        );
        assert_eq!(done.err(), told);
    }
    let done = run(home.exec([&server.target(), "sleep 600 >/dev/null 2>&1 & echo $!"])).ended(0);
    crate::bench::signal(done.out().trim().parse().unwrap(), "KILL");
    assert_eq!(done.err(), "");
}

#[test]
fn the_status_file_tells_every_class_apart() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let file = home.path("status");
    let exec = |flags: &[&str], target: &str, line: &str| {
        let mut command = home.exec(["--status-file", text(&file)]);
        run({
            command.args(flags).args([target, line]);
            command
        });
        json(&home.text("status"))
    };
    let told = exec(&[], &server.target(), "exit 194");
    assert_eq!((&told["outcome"]["class"], &told["status"]), (&"exited".into(), &194.into()));
    let told = exec(&[], "127.0.0.1:1", "true");
    assert_eq!((&told["outcome"]["class"], &told["status"]), (&"unreachable".into(), &194.into()));
    let told = exec(&["--exit-status", "ssh"], &server.target(), "kill -TERM $$");
    assert_eq!(
        (&told["outcome"]["class"], &told["outcome"]["signal"], &told["status"]),
        (&"signaled".into(), &15.into(), &255.into())
    );
    let told = exec(&["--timeout", "50ms"], &server.target(), "sleep 1000");
    assert_eq!((&told["outcome"]["class"], &told["status"]), (&"deadline".into(), &124.into()));
    let told = exec(&["--user", "other"], &server.target(), "true");
    assert_eq!((&told["outcome"]["class"], &told["status"]), (&"refused".into(), &196.into()));
}

#[test]
fn v_tells_what_happened_when() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let done = run(home.exec(["-v", &server.target(), "echo x"])).ended(0);
    assert_eq!(done.out(), "x\n");
    let log = done.err();
    let mut rest = log.as_str();
    let key = home.path(".ssh/id_ed25519");
    let authenticating = format!("({})", text(&key));
    for step in [
        "resolved to 127.0.0.1",
        "connected to 127.0.0.1",
        "TLS X25519MLKEM768",
        "host key",
        "authenticating with key SHA256:",
        &authenticating,
        "authenticated as",
        "started, pid",
        "first byte",
        "ended",
    ] {
        let at = rest.find(step).unwrap_or_else(|| panic!("{step:?} isn't next in {log:?}"));
        rest = &rest[at + step.len()..];
    }
    for line in log.lines() {
        let time = line.strip_prefix("remora: ").and_then(|rest| rest.split_once(" ms  "));
        assert!(time.is_some_and(|(time, _)| time.trim().parse::<f64>().is_ok()), "{line:?}");
    }
}

#[test]
fn the_status_file_holds_a_usage_error_of_the_whole_line_too() {
    let home = Home::with_key();
    let file = home.path("status.json");
    std::fs::write(&file, "{\"status\":0}").unwrap();
    run(home.exec(["--status-file", text(&file), "--timeout", "zzz", "host", "true"])).ended(193);
    let told: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(told["outcome"]["class"], "usage");
    assert_eq!(told["status"], 193);
}

#[test]
fn json_is_printed_without_a_receipt_too() {
    let home = Home::with_key();
    let done = run(home.exec(["--json", "127.0.0.1:1", "true"])).ended(194);
    let told: Value = serde_json::from_str(&done.out()).unwrap();
    assert_eq!(told["outcome"]["class"], "unreachable");
    assert_eq!(told["proven"], false);
    let mut server = Server::start(&home);
    let mark = home.path("mark");
    let line = format!("echo part; touch {}; exec sleep 1000", text(&mark));
    let client = Client::start(home.exec(["--json", "-v", "--no-reconnect", &server.target(), &line]));
    eventually(PATIENCE, "the output was written", || mark.exists());
    // Another command comes and goes behind it, on the same thread of the server.
    run(home.exec([&server.target(), "true"])).ended(0);
    server.kill();
    let done = client.finish().ended(198);
    let told: Value = serde_json::from_str(&done.out()).unwrap();
    assert_eq!(told["outcome"]["class"], "lost");
    assert_eq!(told["stdout"]["text"], "part\n");
}

#[test]
fn a_receipt_that_cannot_be_written_is_no_success() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let mut command = home.exec(["--json", &server.target(), "true"]);
    command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    run(command).ended(199);
}

#[test]
fn the_status_file_says_why_and_json_speaks_of_mistakes_too() {
    let home = Home::with_key();
    let file = home.path("status");
    run(home.exec(["--status-file", text(&file), "127.0.0.1:1", "true"])).ended(194);
    let status = json(&home.text("status"));
    assert_eq!(status["outcome"]["class"], "unreachable");
    assert!(status["text"].as_str().unwrap().contains("Connection refused"), "{status}");
    assert!(status["hint"].as_str().unwrap().contains("remora serve"), "{status}");
    for mistake in [&["--bogus"][..], &["--encoding", "nosuch"]] {
        let mut command = home.exec(["--json"]);
        command.args(mistake).args(["host", "true"]);
        let object = json(&run(command).ended(193).out());
        assert_eq!(object["outcome"]["class"], "usage", "{object}");
        assert!(object["outcome"]["text"].as_str().unwrap().contains(mistake[0]), "{object}");
    }
}

#[test]
fn a_death_by_a_signal_is_told_with_json_and_without() {
    let home = Home::with_key();
    let server = Server::start(&home);
    for json in [&[][..], &["--json"]] {
        let mut command = home.exec(json);
        command.args([&server.target(), "kill -KILL $$"]);
        run(command).complained(137, "remora: 127.0.0.1:", "signaled: the command was killed by SIGKILL");
        let mut command = home.exec(json);
        command.args([&server.target(), "no-such-command-at-all"]).arg("x");
        run(command).complained(127, "remora: 127.0.0.1:", "not found");
    }
}
