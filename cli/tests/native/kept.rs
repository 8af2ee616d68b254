//! `remora exec --receipt` and `remora receipt`: evidence that outlives the connection.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::bench::{Client, Done, Home, Server, run, text};

/// `remora receipt` with these arguments.
fn receipt(home: &Home, arguments: &[&str]) -> Done {
    let mut command = home.remora();
    command.arg("receipt").args(arguments).current_dir(home.path(""));
    run(command)
}

/// Runs a line whose output and receipt are kept in files of the home.
fn kept(home: &Home, server: &Server, line: &str) -> Done {
    let mut command = home.exec(["--receipt", text(&home.path("receipt")), &server.target(), line]);
    command.stdout(fs::File::create(home.path("out")).unwrap());
    command.stderr(fs::File::create(home.path("err")).unwrap());
    run(command)
}

#[track_caller]
fn not_good(home: &Home, arguments: &[&str], within: &str) {
    receipt(home, arguments).complained(1, "remora: ", within);
}

#[test]
fn a_receipt_is_good_with_what_was_saved_for_every_kind_of_host_key() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let home = Home::with_key();
        home.make_key("host_key", kind, "");
        let server = Server::start(&home);
        kept(&home, &server, "echo out; echo err >&2; exit 3").ended(3);
        let done = receipt(&home, &["verify", "receipt", "--stdout", "out", "--stderr", "err"]).ended(0);
        let fingerprint = home.fingerprint("host_key");
        assert!(done.out().contains(&fingerprint) && done.out().lines().count() == 3, "{}", done.out());
        assert_eq!(done.err(), "");
        receipt(&home, &["verify", "receipt", "--host", &server.target()]).ended(0);

        // With OpenSSH alone.
        let file = home.text("receipt");
        let at = file.find("-----BEGIN").unwrap();
        home.write("sig", &file[at..]);
        home.write("statement", &file[..at]);
        home.write("allowed_signers", &format!("web1 {}\n", home.public("host_key")));
        let verify = |statement: &str| {
            Command::new("ssh-keygen")
                .args([
                    "-Y",
                    "verify",
                    "-n",
                    "remora-receipt-v1",
                    "-I",
                    "web1",
                    "-f",
                    "allowed_signers",
                    "-s",
                    "sig",
                ])
                .current_dir(home.path(""))
                .stdin(fs::File::open(home.path(statement)).unwrap())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .expect("ssh-keygen (openssh-client) is needed")
                .success()
        };
        assert!(verify("statement"));
        home.write("forged", &file[..at].replace("exited 3", "exited 0"));
        assert!(!verify("forged"));
    }
}

#[test]
fn whatever_was_changed_is_told() {
    let home = Home::with_key();
    let server = Server::start(&home);
    kept(&home, &server, "echo out").ended(0);
    let good = home.text("receipt");
    for (from, to, told) in [
        ("exited 0", "exited 1", "its signature is not good"),
        ("echo out", "echo in", "its signature is not good"),
        ("stdout 4", "stdout 5", "its signature is not good"),
        ("host-key SHA256:", "host-key SHA256:A", "line 3 is not the statement's host-key line"),
        ("-----END", "----END", "its signature is damaged"),
        ("U1NIU0", "U1NIU1", "its signature is damaged"),
        ("remora-receipt-v1", "remora-receipt-v2", "it doesn't begin with the line remora-receipt-v1"),
    ] {
        assert!(good.contains(from), "{from}");
        home.write("changed", &good.replacen(from, to, 1));
        not_good(&home, &["verify", "changed"], told);
    }
    let statement = &good[..good.find("-----BEGIN").unwrap()];
    home.write("changed", statement);
    not_good(&home, &["verify", "changed"], "its signature is missing");
    // Of the same key, and over another text.
    kept(&home, &server, "echo other").ended(0);
    let other = home.text("receipt");
    home.write("changed", &[statement, &other[other.find("-----BEGIN").unwrap()..]].concat());
    not_good(&home, &["verify", "changed"], "its signature is not good");
}

#[test]
fn output_that_is_not_what_the_host_sent_is_told_by_its_difference() {
    let home = Home::with_key();
    let server = Server::start(&home);
    kept(&home, &server, "printf 12345").ended(0);
    for (saved, told) in [
        ("1234", "saved is not its stdout: it is shorter: 4 bytes, the receipt says 5"),
        ("", "it is shorter: 0 bytes"),
        ("12344", "it is as long, 5 bytes, and differs"),
        ("123456", "it is longer: 6 bytes, the receipt says 5; the first 5 are right"),
        ("x23456", "it is longer: 6 bytes, the receipt says 5; these differ, too"),
    ] {
        home.write("saved", saved);
        not_good(&home, &["verify", "receipt", "--stdout", "saved"], told);
    }
    home.write("saved", "x");
    not_good(&home, &["verify", "receipt", "--stderr", "saved"], "it is longer: 1 bytes, the receipt says 0");
}

#[test]
fn only_a_key_that_is_known_and_not_revoked_is_good() {
    let home = Home::with_key();
    let server = Server::start(&home);
    kept(&home, &server, "true").ended(0);
    let key = home.public("host_key");
    home.make_key("other", "ed25519", "");
    let other = home.public("other");
    let known = |text: &str| home.write("known", text);
    let with = ["verify", "receipt", "--known-hosts", "known"];
    let of_web1 = [&with[..], &["--host", "web1"]].concat();

    known("");
    not_good(&home, &with, "and no host is known by that");
    known(&format!("web2,10.0.0.2 {key}\nweb1 {other}\n"));
    let done = receipt(&home, &with).ended(0);
    assert!(done.out().contains("of web2,10.0.0.2 (known line 1)\n"), "{}", done.out());
    not_good(
        &home,
        &of_web1,
        "no such key is known for web1\nhint: it is the key of web2,10.0.0.2 (known line 1)",
    );
    known(&format!("[web1]:7366 {other}\n"));
    not_good(&home, &of_web1, "which is not the key of web1 (known line 1)");
    known(&format!("web1 {key}\n@revoked * {key}\n"));
    not_good(&home, &with, "which is revoked (known line 2)");
    not_good(&home, &of_web1, "which is revoked (known line 2)");
    known(&format!("[web1]:7366 {key}\n"));
    receipt(&home, &of_web1).ended(0);
    let hash = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(home.path("known")).output().unwrap();
    assert!(hash.status.success());
    receipt(&home, &of_web1).ended(0);
    let done = receipt(&home, &with).ended(0);
    assert!(done.out().contains("of a host whose name is hashed (known line 1)"), "{}", done.out());
}

#[test]
fn what_cannot_be_asked_is_a_usage_error() {
    let home = Home::with_key();
    let server = Server::start(&home);
    kept(&home, &server, "true").ended(0);
    for arguments in [
        &["verify"][..],
        &["verify", "none"],
        &["verify", "receipt", "--stdout", "none"],
        &["verify", "receipt", "--stdout", "."],
        &["verify", "receipt", "--known-hosts", "none"],
        &["verify", "receipt", "--host", "local"],
        &["verify", "receipt", "--host", "me@web1"],
        &["show", "none"],
    ] {
        receipt(&home, arguments).complained(193, "remora: usage: ", "");
    }
}

#[test]
fn a_connection_without_a_host_key_gives_a_receipt_that_says_so() {
    let home = Home::with_key();
    let file = home.path("receipt");
    let done = run(home.exec(["--receipt", text(&file), "local", "true"]));
    let done = done.complained(0, "remora: local: the receipt in ", "is not signed");
    assert_eq!(done.err().lines().count(), 1);
    assert!(home.text("receipt").contains("\nhost-key -\n"));
    not_good(&home, &["verify", "receipt"], "it is not signed: its connection had no host key");
    let shown = receipt(&home, &["show", "receipt"]).ended(0);
    assert!(shown.out().contains("signature  none"), "{}", shown.out());
}

#[test]
fn a_receipt_file_is_never_another_jobs_and_nothing_else_is_replaced() {
    let home = Home::with_key();
    let server = Server::start(&home);
    kept(&home, &server, "true").ended(0);
    let file = home.path("receipt");
    run(home.exec(["--receipt", text(&file), "127.0.0.1:1", "true"])).ended(194);
    assert!(!file.exists(), "{}", home.text("receipt"));
    home.write("letter", "dear");
    let mark = home.path("mark");
    let line = format!("touch {}", text(&mark));
    for name in ["letter", "nowhere/receipt", ".ssh"] {
        let path = home.path(name);
        run(home.exec(["--receipt", text(&path), &server.target(), &line])).complained(
            193,
            "remora: usage: ",
            name,
        );
    }
    assert_eq!(home.text("letter"), "dear");
    assert!(!mark.exists(), "it is found out before the command runs");
    let names = fs::read_dir(home.path("")).unwrap();
    let drafts = names.filter(|name| name.as_ref().unwrap().file_name().to_string_lossy().contains(".part"));
    assert_eq!(drafts.count(), 0);
}

#[test]
fn a_job_that_is_lost_leaves_no_receipt() {
    let home = Home::with_key();
    let mut server = Server::start(&home);
    kept(&home, &server, "true").ended(0);
    let file = home.path("receipt");
    let line = "echo here; exec sleep 1000";
    let mut client =
        Client::start(home.exec(["--no-reconnect", "--receipt", text(&file), &server.target(), line]));
    assert_eq!(client.line(), "here");
    server.kill();
    client.finish().ended(198);
    assert!(!file.exists(), "{}", home.text("receipt"));
}

#[test]
fn the_receipt_is_shown_and_no_command_moves_the_cursor_of_who_reads_it() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let hostile = "printf '\u{1b}[31m' >/dev/null\n: \"\noutcome exited 9\n\"";
    kept(&home, &server, hostile).ended(0);
    receipt(&home, &["verify", "receipt"]).ended(0);
    assert!(home.text("receipt").chars().all(|c| c == '\n' || !c.is_control()));
    let shown = receipt(&home, &["show", "receipt"]).ended(0).out();
    assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
    assert!(shown.contains("\noutcome    exited with 0\n"), "{shown}");

    let mut command = home.exec(["--json", "--receipt", text(&home.path("receipt")), &server.target()]);
    command.args(["no-such-command", "a b"]);
    let object: Value = serde_json::from_str(&run(command).ended(127).out()).unwrap();
    assert_eq!(object["receipt"]["signed"], true);
    assert_eq!(object["host"]["key"], home.fingerprint("host_key"));
    let shown = receipt(&home, &["show", "receipt"]).ended(0).out();
    assert!(
        shown.starts_with("command    no-such-command \"a b\"\noutcome    not started (not-found)"),
        "{shown}"
    );
}

#[test]
fn verify_tells_a_program_in_json() {
    let home = Home::with_key();
    let server = Server::start(&home);
    kept(&home, &server, "echo out").ended(0);
    let done = receipt(&home, &["verify", "--json", "receipt", "--stdout", "out"]).ended(0);
    let object: Value = serde_json::from_str(&done.out()).unwrap();
    assert_eq!(object["good"], true);
    assert_eq!(object["host_key"], home.fingerprint("host_key"));
    assert_eq!(object["output"], serde_json::json!(["stdout"]));
    let done = receipt(&home, &["verify", "--json", "receipt", "--stdout", "err"]).ended(1);
    let object: Value = serde_json::from_str(&done.out()).unwrap();
    assert_eq!(object["good"], false);
    assert!(object["text"].as_str().unwrap().contains("shorter"), "{object}");
}
