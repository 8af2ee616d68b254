//! What comes out of a command on a plain wire.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use remora_testkit::{eventually, is_alive};

use crate::bench::{PATIENCE, REMORA, Serve, remora, sending, status, stderr, stdout};

#[test]
fn raw_and_length_print_the_reply_and_have_no_status() {
    let serve = Serve::start();
    for url in [&serve.raw, &serve.length] {
        let output = remora(&["exec", url, "echo out; echo err >&2; exit 3"]);
        assert_eq!((stdout(&output).as_str(), status(&output)), ("out\nerr\n", 0), "{url}");
    }
    assert_eq!(stdout(&remora(&["exec", &serve.raw, "true"])), "\n");
    assert_eq!(stdout(&remora(&["exec", &serve.length, "true"])), "");
}

#[test]
fn header_tells_streams_and_status_apart() {
    let serve = Serve::start();
    let output = remora(&["exec", &serve.header, "echo out; echo err >&2; exit 3"]);
    assert_eq!((stdout(&output), stderr(&output), status(&output)), ("out\n".into(), "err\n".into(), 3));
    let killed = remora(&["exec", &serve.header, "kill -9 $$"]);
    assert_eq!(status(&killed), 137);
    assert!(String::from_utf8_lossy(&killed.stderr).contains("signaled: the command was killed by SIGKILL"));
    assert_eq!(status(&remora(&["exec", "--exit-status", "ssh", &serve.header, "kill -9 $$"])), 255);
    assert_eq!(status(&remora(&["exec", &serve.header, "no-such-command-here 2>/dev/null"])), 127);
}

#[test]
fn several_words_pass_the_shell_unchanged() {
    let serve = Serve::start();
    let output = remora(&["exec", &serve.length, "printf", "%s|", "a b", "$x", "it's", "", "*"]);
    assert_eq!(stdout(&output), "a b|$x|it's||*|");
}

#[test]
fn large_and_binary_output_comes_through() {
    let serve = Serve::start();
    for url in [&serve.raw, &serve.length, &serve.header] {
        let output = remora(&["exec", url, "seq 1 400000; printf '\\000\\377'"]);
        let mut expected = (1..=400_000).map(|n| format!("{n}\n")).collect::<String>().into_bytes();
        expected.extend([0, 255]);
        assert!(output.stdout == expected, "{url}");
    }
}

#[test]
fn json_says_unproven() {
    let serve = Serve::start();
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = remora(&[&["exec", "--json"], arguments].concat());
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", stderr(&output)))
    };
    let header = json(&[&serve.header, "echo out; echo err >&2; exit 3"]);
    assert_eq!(header["unproven"], true);
    assert_eq!(header["proven"], false);
    assert_eq!(header["outcome"]["status"], 3);
    assert_eq!((&header["stdout"]["text"], &header["stderr"]["text"]), (&"out\n".into(), &"err\n".into()));
    let raw = json(&[&serve.raw, "echo out; echo err >&2"]);
    assert_eq!(raw["unproven"], true);
    assert!(raw["outcome"].is_null() && raw["stderr"].is_null());
    let cut = json(&["--max-output", "4", &serve.length, "printf 1234567"]);
    assert_eq!((&cut["stdout"]["text"], &cut["stdout"]["cut_bytes"]), (&"1234".into(), &3.into()));
    let binary = json(&[&serve.length, "printf '\\377'"]);
    assert_eq!(binary["stdout"]["base64"], "/w==");
}

#[test]
fn the_status_file_says_how_it_ended() {
    let serve = Serve::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("status");
    remora(&["exec", "--status-file", file.to_str().unwrap(), &serve.header, "exit 4"]);
    let object: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((&object["status"], &object["outcome"]["class"]), (&4.into(), &"exited".into()));
}

#[test]
fn output_is_decoded_across_chunks() {
    let serve = Serve::start();
    let output = remora(&[
        "exec",
        "--encoding",
        "gbk",
        &serve.raw,
        "printf '\\326\\320'; sleep 0.1; printf '\\316'; sleep 0.1; printf '\\304'",
    ]);
    assert_eq!(stdout(&output), "中文");
}

#[test]
fn what_a_plain_wire_cannot_carry_is_refused_before_anything_is_sent() {
    // Nobody listens there: what is refused first is refused as usage.
    for (options, words) in [
        (&["--cwd", "/"][..], "--cwd"),
        (&["--env", "A=1"], "--env"),
        (&["--user", "ada"], "--user"),
        (&["--port", "7"], "--port"),
        (&["--identity", "key"], "--identity"),
        (&["--save", "."], "--save"),
    ] {
        let output = remora(&[&["exec"], options, &["length://127.0.0.1:1", "ls"]].concat());
        assert_eq!(status(&output), 193, "{options:?}");
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    assert_eq!(status(&remora(&["exec", "length://127.0.0.1:1", " "])), 193);
    assert_eq!(status(&remora(&["exec", "length://127.0.0.1:1", &"x".repeat(65_537)])), 193);
    assert_eq!(status(&remora(&["exec", "length://127.0.0.1:1", "ls"])), 194);
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let serve = Serve::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let mut child = Command::new(REMORA)
        .args(["exec", &serve.raw, &format!("echo $$ >{}; exec yes", file.display())])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = child.stdout.take().unwrap();
    reader.read_exact(&mut [0; 100]).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert_eq!((status(&output), stderr(&output).as_str()), (0, ""));
    let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    eventually(PATIENCE, "the command has ended", || !is_alive(pid));
}

#[test]
fn a_stream_closed_early_has_an_unchecked_digest_and_the_commands_status() {
    let serve = Serve::start();
    let line = format!(
        "{REMORA} exec -v {} 'yes | head -c 20000000; exit 3' </dev/null | head -c 1; echo ${{PIPESTATUS[0]}}",
        serve.header
    );
    let output = Command::new("bash").args(["-c", &line]).output().unwrap();
    assert_eq!(stdout(&output), "y3\n");
    assert!(stderr(&output).contains("md5: unchecked"), "{}", stderr(&output));
}

#[test]
fn ctrl_c_ends_the_command() {
    let serve = Serve::start();
    for url in [&serve.raw, &serve.length, &serve.header] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let child = Command::new(REMORA)
            .args(["exec", url, &format!("echo $$ >{}; sleep 1000", file.display())])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut pid = None;
        eventually(PATIENCE, "the command runs", || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            pid = text.strip_suffix('\n').and_then(|text| text.parse().ok());
            pid.is_some()
        });
        let us = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(us, rustix::process::Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        // It died of the signal itself, so that a shell's loop stops too.
        assert_eq!(output.status.signal(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains("lost: you left on Ctrl-C (198)"), "{}", stderr(&output));
        eventually(PATIENCE, "the command has ended", || !is_alive(pid.unwrap()));
    }
}

#[test]
fn no_digest_is_reported_under_v_and_is_no_error() {
    for md5 in ["null", "\"\"", "\"see the web site\"", "12"] {
        let json = format!("{{\"total_size\":2,\"md5\":{md5},\"filename\":\"x\"}}");
        let address = sending(crate::bench::framed(&json, b"ok"));
        let output = remora(&["exec", "-v", &format!("header://{address}"), "x"]);
        assert_eq!((status(&output), stdout(&output).as_str()), (0, "ok"), "{md5}");
        assert!(stderr(&output).contains("md5: no digest"), "{}", stderr(&output));
    }
}

#[test]
fn input_that_no_plain_wire_carries_is_not_dropped_without_a_word() {
    let serve = Serve::start();
    let folder = tempfile::tempdir().unwrap();
    let (full, empty) = (folder.path().join("full"), folder.path().join("empty"));
    std::fs::write(&full, "input").unwrap();
    std::fs::write(&empty, "").unwrap();
    let file = |path: &std::path::Path| Stdio::from(std::fs::File::open(path).unwrap());
    let pipe = |bytes: &[u8]| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(bytes).unwrap();
        Stdio::from(reader)
    };
    let socket = |bytes: &[u8]| {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        (&theirs).write_all(bytes).unwrap();
        Stdio::from(std::os::fd::OwnedFd::from(ours))
    };
    for (stdin, options, told) in [
        (file(&full), &[][..], true),
        (pipe(b"input"), &[], true),
        (socket(b"input"), &[], true),
        (file(&full), &["-n"], false),
        (file(&empty), &[], false),
        (pipe(b""), &[], false),
        (socket(b""), &[], false),
        (Stdio::null(), &[], false),
    ] {
        let mut command = Command::new(REMORA);
        command.arg("exec").args(options).args([&serve.length, "cat; echo ran"]).stdin(stdin);
        let output = command.output().unwrap();
        assert_eq!((status(&output), stdout(&output).as_str()), (0, "ran\n"));
        let words = if told {
            format!("remora: {}: this wire carries no standard input; yours was not read\n", serve.length)
        } else {
            String::new()
        };
        assert_eq!(stderr(&output), words);
    }
}

#[test]
fn a_time_limit_is_ours_and_ends_the_waiting() {
    let serve = Serve::start();
    for url in [&serve.raw, &serve.header] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let line = format!("echo $$ >{}; exec sleep 1000", file.display());
        let output = remora(&["exec", "--json", "--timeout", "2s", url, &line]);
        assert_eq!(status(&output), 198, "{}", stderr(&output));
        assert!(stderr(&output).contains("lost: the reply was not there within 2s"), "{}", stderr(&output));
        assert!(stderr(&output).contains("may run on"), "{}", stderr(&output));
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["outcome"]["class"], "lost");
        let pid = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        eventually(PATIENCE, "the command has ended", || !is_alive(pid));
    }
    assert_eq!(status(&remora(&["exec", "--timeout", "60s", &serve.header, "exit 3"])), 3);
}

#[test]
fn a_guess_is_told_under_v() {
    let serve = Serve::start();
    let output = remora(&["exec", "-v", "--silence", &serve.raw, "echo one; exec sleep 1000"]);
    assert_eq!((status(&output), stdout(&output).as_str()), (0, "one\n"));
    assert!(stderr(&output).contains("guess"), "{}", stderr(&output));
}
