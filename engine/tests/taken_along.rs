//! A process with an engine that is killed outright: what it ran on a terminal with job control ends with it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use remora_engine::{JobRequest, Limits, Signal, Terminal};
use remora_testkit::{eventually, group_members, is_alive};
use rustix::process::{Pid, kill_process};

#[path = "jobs/common.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use common::{Host, PATIENCE, leader, quick};

/// Says to this program that it is the process with the engine, and what it runs.
const PLAYED: &str = "REMORA_TEST_SERVER";

/// Not a test unless it is asked to play: runs a line on a terminal, stops it if it says so, prints its number, and stands still.
#[test]
fn plays_the_server() {
    let Ok(line) = std::env::var(PLAYED) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let host = Host::new(quick());
        let terminal = Terminal { modes: vec![(53, 0), (72, 0)], job_control: true, ..Terminal::default() };
        let request = JobRequest { terminal: Some(terminal), ..JobRequest::line(line.as_str()) };
        let job = host.start(request, Limits::default()).unwrap();
        job.expect(b"ready\n").await;
        if line.contains("stopped") {
            job.job.signal(Signal::from_name("STOP").unwrap());
            while job.job.stopped().is_none() {
                job.bell.notified().await;
            }
        }
        println!("\nits number: {}", job.job.pid());
        std::future::pending::<()>().await;
    });
}

/// A process with an engine, and the command that it runs.
fn server(line: &str) -> (Child, i32) {
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "plays_the_server", "--nocapture"])
        .env(PLAYED, line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    let number = lines.find_map(|line| line.strip_prefix("its number: ")?.parse().ok()).unwrap();
    (server, number)
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn is_taken_along(line: &str) {
    let (mut server, command) = server(line);
    let leader = leader(command);
    assert!(is_alive(command) && is_alive(leader));
    server.kill().unwrap();
    server.wait().unwrap();
    eventually(PATIENCE, "nobody is left", || group_members(command).is_empty() && !is_alive(leader));
}

#[test]
fn a_command_is_ended() {
    is_taken_along("echo ready; sleep 100000; exit 1");
}

#[test]
fn a_stopped_command_is_ended() {
    is_taken_along("echo ready; read stopped; exit 1");
}

#[test]
fn who_ignores_it_is_killed() {
    is_taken_along("trap '' HUP TERM; echo ready; while :; do sleep 0.05; done");
}

#[test]
fn a_leader_that_somebody_stopped_ends_too() {
    let (mut server, command) = server("echo ready; sleep 100000; exit 1");
    let leader = leader(command);
    signal(leader, rustix::process::Signal::STOP);
    server.kill().unwrap();
    server.wait().unwrap();
    eventually(PATIENCE, "nobody is left", || group_members(command).is_empty() && !is_alive(leader));
}

/// Where the spawner is gone too there is still the terminal, whose end is told to the leader alone.
#[test]
fn the_end_of_the_terminal_is_passed_on_to_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let line =
        format!("trap 'echo hup > {}; exit' HUP; echo ready; while :; do sleep 0.05; done", mark.display());
    let (mut server, command) = server(&line);
    let spawner = std::fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok();
        (name == "remora-spawner\n" && parent == Some(server.id())).then_some(pid)
    });
    signal(spawner.unwrap(), rustix::process::Signal::KILL);
    std::thread::sleep(Duration::from_millis(20));
    server.kill().unwrap();
    server.wait().unwrap();
    eventually(PATIENCE, "it is told", || std::fs::read_to_string(&mark).is_ok_and(|text| text == "hup\n"));
    eventually(PATIENCE, "nobody is left", || group_members(command).is_empty());
}
