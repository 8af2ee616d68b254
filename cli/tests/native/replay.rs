//! `--keep` and `remora replay`: a command that is kept, and shown again as it looked.

use std::fs;
use std::process::Command;

use crate::bench::{Client, Done, Home, REMORA, Server, run, text};
use crate::detached::{detach, server, target, verb};

/// Lines of both streams in turn, with time in between so that a reader can tell.
const TURNS: &str =
    "for i in 1 2 3; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done; printf tail; exit 3";
const LOOK: &str = "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\ntail";

/// `remora replay`, both streams in one pipe.
fn replay(home: &Home, folder: &str) -> Done {
    let mut command = Command::new("sh");
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.arg("-c").arg(format!("exec {REMORA} replay {} 2>&1", home.path(folder).display()));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    run(command)
}

fn verify(home: &Home, folder: &str) -> Done {
    let mut command = home.remora();
    command.args(["receipt", "verify", text(&home.path(folder))]);
    run(command)
}

#[test]
fn a_kept_command_is_shown_again_in_the_order_in_which_it_was_read() {
    let home = Home::with_key();
    let server = Server::start(&home);
    let kept = text(&home.path("kept")).to_owned();
    let done = run(home.exec(["--keep", &kept, &server.target(), TURNS])).ended(3);
    assert_eq!(
        (done.out(), done.err()),
        ("out 1\nout 2\nout 3\ntail".into(), "err 1\nerr 2\nerr 3\n".into())
    );
    assert_eq!(replay(&home, "kept").ended(0).out(), LOOK);
    assert!(home.text("kept/order").starts_with("stdout 6\nstderr 6\nstdout 6\n"));
    assert_eq!(verify(&home, "kept").ended(0).out().lines().count(), 3);
    // Nothing is written over.
    run(home.exec(["--keep", &kept, &server.target(), "true"])).complained(
        193,
        "remora: ",
        "something in it",
    );
    assert_eq!(replay(&home, "kept").ended(0).out(), LOOK);
    // What was changed isn't shown, nor is what can't be all.
    home.write("kept/stdout", "out 1\nout 2\nout 9\ntail");
    replay(&home, "kept").ended(1);
    verify(&home, "kept").complained(1, "remora: ", "is not its stdout");
    home.write("kept/stdout", "out 1\nout 2\nout 3\ntail");
    home.write("kept/order", "stdout 6\nstderr 99\n");
    assert!(replay(&home, "kept").ended(1).out().contains("its order tells of more than was printed"));
    // Without an order it is shown all the same, one stream behind the other.
    home.write("kept/order", "");
    let looked = replay(&home, "kept").ended(0).out();
    assert!(looked.ends_with("out 1\nout 2\nout 3\ntailerr 1\nerr 2\nerr 3\n"), "{looked}");
    assert!(looked.contains("its order tells of less than was printed"), "{looked}");
    // Whoever gave this away may have put something else there.
    fs::rename(home.path("kept/stdout"), home.path("stdout")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", home.path("kept/stdout")).unwrap();
    assert!(replay(&home, "kept").ended(1).out().contains("no regular file"));
    fs::remove_file(home.path("kept/stdout")).unwrap();
    assert!(Command::new("mkfifo").arg(home.path("kept/stdout")).status().unwrap().success());
    assert!(replay(&home, "kept").ended(1).out().contains("no regular file"));
    verify(&home, "kept").complained(1, "remora: ", "no regular file");
    fs::remove_file(home.path("kept/receipt")).unwrap();
    assert!(replay(&home, "kept").ended(1).out().contains("no whole command"));
}

#[test]
fn what_is_kept_is_whole_whatever_dies_meanwhile() {
    let home = Home::with_key();
    let server = server(&home);
    let kept = text(&home.path("kept")).to_owned();
    let go = home.path("go");
    let line = format!(
        "echo first; sleep 0.05; echo second >&2; while [ ! -e {} ]; do sleep 0.02; done; seq 1 300000; sleep 0.1; \
         echo last >&2",
        go.display()
    );
    let mut client = Client::start(home.exec(["--keep", &kept, &target(&home), &line]));
    assert_eq!(client.line(), "first");
    crate::detached::kill_front(&home, &server);
    fs::write(&go, "").unwrap();
    client.finish().ended(0);
    let looked = replay(&home, "kept").ended(0).out();
    let numbers: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    assert!(looked == format!("first\nsecond\n{numbers}last\n"), "{}", looked.len());
    // Nobody reads any more: as of any other command.
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("{REMORA} replay {kept} 2>&1 | head -n 1; echo ${{PIPESTATUS[0]}}"));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    assert_eq!(run(command).ended(0).out(), "first\n141\n");
}

#[test]
fn a_reader_that_goes_leaves_nothing_that_looks_whole() {
    let home = Home::with_key();
    let _server = server(&home);
    let kept = home.path("kept");
    let line = format!(
        "set -o pipefail; {REMORA} exec --keep {} {} 'yes | head -c 4000000; echo >&2' | head -n 1",
        kept.display(),
        target(&home)
    );
    let mut command = Command::new("bash");
    command.env("HOME", home.path("")).arg("-c").arg(line);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let done = run(command).ended(199);
    assert!(done.err().contains("the command is not kept whole"), "{}", done.err());
    assert!(!kept.join("receipt").exists());
}

#[test]
fn a_detached_command_is_kept_from_its_host() {
    let home = Home::with_key();
    let _server = server(&home);
    let id = detach(&home, &[], TURNS);
    let keep = |more: &[&str], folder: &str| {
        verb(&home, &[&["logs", "--keep", text(&home.path(folder))] as &[&str], more, &[&id]].concat())
    };
    keep(&[], "early").complained(196, "remora: unix:", "the command runs");
    assert!(!home.path("early").exists());
    assert_eq!(keep(&["--follow"], "kept").ended(0).out(), "");
    assert_eq!(replay(&home, "kept").ended(0).out(), LOOK);
    keep(&[], "again").ended(0);
    assert_eq!(home.text("kept/order"), home.text("again/order"));
    // What the host has dropped can't be whole.
    let id = detach(&home, &["--on-full", "drop-oldest", "--spool-limit", "64k"], "seq 1 100000");
    verb(&home, &["wait", &id]).ended(0);
    verb(&home, &["logs", "--keep", text(&home.path("cut")), &id]).complained(
        196,
        "remora: unix:",
        "from offset",
    );
}
