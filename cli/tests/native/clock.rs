//! The host's clock is set back or forward while commands run: none is harmed, and what has a limit of time ends no earlier, and ends.
//!
//! The server and its keepers are shown another time by libfaketime (the package `faketime`), in the place of the one that everybody
//! has. The monotonic clock, which nobody sets, is left to them.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use remora_testkit::{eventually, group_members, odd_child, pattern};
use serde_json::Value;

use crate::bench::{Client, Done, Home, PATIENCE, Server, run, signal, text};

/// Of each command that has one.
const LIMIT: Duration = Duration::from_secs(3);
const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;
/// Bytes that a command prints at its end: more than fits into any buffer on the way.
const FLOOD: usize = 3 << 20;

/// A clock that can be set, for who is told to look at it.
struct Clock(PathBuf);

impl Clock {
    fn new(home: &Home) -> Self {
        let clock = Clock(home.path("clock"));
        clock.set(0);
        clock
    }

    /// Seconds before or behind the true one.
    fn set(&self, offset: i64) {
        let draft = self.0.with_extension("draft");
        fs::write(&draft, format!("{offset:+}\n")).unwrap();
        fs::rename(draft, &self.0).unwrap();
    }

    fn show(&self, command: &mut Command) {
        let folders = fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
        let library = |folder: PathBuf| folder.join("faketime/libfaketimeMT.so.1");
        let library = folders.map(library).find(|path| path.exists()).expect("libfaketime is needed");
        command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", &self.0);
        for name in ["FAKETIME_NO_CACHE", "FAKETIME_DONT_FAKE_MONOTONIC", "NO_FAKE_STAT"] {
            command.env(name, "1");
        }
    }

    fn server(&self, home: &Home, flags: &[&str]) -> Server {
        // On a port of its own, which each front has again.
        let port = Server::start(home).port;
        let mut command = Server::command(home, &["host_key"]);
        command.args(["--listen", &format!("native://127.0.0.1:{port}")]).args(flags);
        self.show(&mut command);
        Server::spawn(home, command)
    }
}

/// The process group of a command that has written it there.
#[track_caller]
fn group(file: &Path) -> i32 {
    let mut group = None;
    eventually(PATIENCE, "the command runs", || {
        group = fs::read_to_string(file).ok().and_then(|text| text.strip_suffix('\n')?.parse().ok());
        group.is_some()
    });
    group.unwrap()
}

fn verb(home: &Home, server: &Server, words: &[&str]) -> Done {
    let mut command = home.remora();
    command.arg(words[0]).arg(server.target()).args(&words[1..]);
    run(command)
}

/// What a receipt says of time, as `--json` gives it: how long it took, and how much later it ended, by the host's clock.
fn times(done: &Done) -> (Duration, Value, f64) {
    let object: Value = serde_json::from_str(&done.out()).unwrap();
    let at = |name: &str| -> jiff::Timestamp { object[name].as_str().unwrap().parse().unwrap() };
    let later = at("ended").duration_since(at("started")).as_secs_f64();
    (Duration::from_secs_f64(object["wall_seconds"].as_f64().unwrap()), object["outcome"].clone(), later)
}

fn kill_front(server: &Server) {
    let front = server.front();
    signal(front, "KILL");
    eventually(PATIENCE, "another front", || {
        server.front() != front && TcpStream::connect(server.target()).is_ok()
    });
}

/// Everything that has a limit of time, and one command that has none, run while the clock is moved by so many seconds.
fn moved(offset: i64) {
    let home = Home::with_key();
    let clock = Clock::new(&home);
    let server = clock.server(&home, &[]);
    let target = server.target();
    let in_session = |line: &str| run(home.exec(["--session", "s", &target, line]));
    in_session("cd /usr").ended(0);

    let receipt = home.path("receipt");
    let line = format!("echo first; read x; exec '{}' flood {FLOOD} 0", text(&odd_child()));
    let mut command = home.exec(["--receipt", text(&receipt), &target, &line]);
    command.stdin(Stdio::piped());
    let mut unlimited = Client::start(command);
    assert_eq!(unlimited.line(), "first");

    let limit = format!("{}s", LIMIT.as_secs());
    let sleeps = |name: &str| {
        let file = home.path(name);
        (format!("echo $$ > '{}'; exec sleep 1000", text(&file)), file)
    };
    let begun = Instant::now();
    let (line, file) = sleeps("timed");
    let timed = Client::start(home.exec(["--json", "--timeout", &limit, &target, &line]));
    group(&file);
    let (line, file) = sleeps("leased");
    let leased = run(home.exec(["--detach", "--lease", &limit, &target, &line])).ended(0).out();
    let leased_group = group(&file);
    let (line, file) = sleeps("left");
    let mut left = Client::start(home.exec(["--linger", &limit, &target, &line]));
    let left_group = group(&file);
    let gone = Instant::now();
    left.child.kill().unwrap();

    clock.set(offset);
    run(home.exec([&target, "true"])).ended(0);

    let done = timed.finish().ended(124);
    let elapsed = begun.elapsed();
    let (wall, outcome, later) = times(&done);
    assert!(LIMIT <= wall && wall <= elapsed, "{wall:?} of {elapsed:?}");
    assert_eq!(outcome["class"], "deadline");
    // So it is known that its keeper saw the clock move.
    let unmoved = later - offset as f64;
    assert!((0.0..=elapsed.as_secs_f64()).contains(&unmoved), "it ended {later} s later by the host's clock");

    eventually(PATIENCE, "who is gone is waited for no longer", || group_members(left_group).is_empty());
    assert!(gone.elapsed() >= LIMIT, "{:?}", gone.elapsed());
    server.wait_for_log("nobody has come back for a job");

    eventually(PATIENCE, "the lease is over", || group_members(leased_group).is_empty());
    let elapsed = begun.elapsed();
    let done = verb(&home, &server, &["wait", "--json", leased.trim_end()]).ended(143);
    let (wall, outcome, _) = times(&done);
    assert!(LIMIT <= wall && wall <= elapsed, "{wall:?} of {elapsed:?}");
    assert_eq!(outcome["by"], "lease", "{outcome}");

    // The next front has never seen another time.
    kill_front(&server);
    unlimited.child.stdin.take().unwrap().write_all(b"go on\n").unwrap();
    let done = unlimited.finish().ended(0);
    let out = [b"first\n".as_slice(), &pattern(FLOOD)].concat();
    assert!(out.ends_with(&done.stdout) && done.stdout.len() == FLOOD, "{} bytes", done.stdout.len());
    fs::write(home.path("out"), out).unwrap();
    let mut verify = home.remora();
    verify.args(["receipt", "verify", text(&receipt), "--host", &target]);
    verify.args(["--stdout", text(&home.path("out"))]);
    run(verify).ended(0);
    assert_eq!(in_session("pwd").ended(0).out(), "/usr\n");
}

#[test]
fn a_clock_set_back_an_hour_harms_no_command_and_no_limit() {
    moved(-HOUR);
}

#[test]
fn a_clock_set_forward_a_day_harms_no_command_and_no_limit() {
    moved(DAY);
}

#[test]
fn a_clock_set_back_has_what_is_over_kept_for_longer_and_never_for_less() {
    let home = Home::with_key();
    let clock = Clock::new(&home);
    home.write("config", &format!("detached_kept_seconds = {HOUR}\n"));
    let server = clock.server(&home, &["--config", text(&home.path("config"))]);
    let target = server.target();
    let id = run(home.exec(["--detach", &target, "echo out; echo err >&2; exit 3"])).ended(0).out();
    let id = id.trim_end();
    verb(&home, &server, &["wait", id]).ended(3);
    for offset in [-DAY, 0, -HOUR] {
        clock.set(offset);
        // Each one collects as it begins.
        kill_front(&server);
        verb(&home, &server, &["wait", id]).ended(3);
        let done = verb(&home, &server, &["logs", id]).ended(0);
        assert_eq!((done.out().as_str(), done.err().as_str()), ("out\n", "err\n"));
    }
    clock.set(2 * HOUR);
    kill_front(&server);
    server.wait_for_log("a detached job that is over is removed");
    verb(&home, &server, &["wait", id]).ended(196);
}
