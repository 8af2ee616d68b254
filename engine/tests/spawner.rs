//! The process that starts commands: what happens when it is killed, stopped, or signalled by a terminal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

use std::fs;
use std::path::Path;
use std::time::Duration;

use remora_engine::{EngineConfig, JobRequest, Limits, Outcome, Signal, Step, Terminal};
use remora_testkit::{Belongings, eventually_async, is_alive};
use rustix::process::{Pid, kill_process};

#[path = "jobs/common.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use common::{Host, PATIENCE, odd, quick};

/// One test at a time: each counts the spawners of this process.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// The spawners of this test's process, and only of this one.
fn spawners() -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) else {
            continue;
        };
        let mut fields = rest.split_whitespace();
        let (state, parent) = (fields.next(), fields.next());
        if name == "remora-spawner" && parent == Some(own.as_str()) && state != Some("Z") {
            found.push(entry.file_name().to_str().unwrap().parse().unwrap());
        }
    }
    found
}

fn only(spawners: &[i32]) -> i32 {
    assert_eq!(spawners.len(), 1, "{spawners:?}");
    spawners[0]
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn impatient() -> EngineConfig {
    EngineConfig { start_patience: Duration::from_millis(500), ..quick() }
}

#[tokio::test]
async fn a_killed_spawner_is_replaced_and_what_it_started_runs_on() {
    let _alone = ALONE.lock().await;
    let host = Host::new(quick());
    let job = host.start(odd(&["sleep", "100000"]), Limits::default()).unwrap();
    let said = job.expect(b"ready\n").await;
    let first = only(&spawners());
    signal(first, rustix::process::Signal::KILL);
    eventually_async(PATIENCE, "it is dead", || !is_alive(first)).await;
    assert_eq!(host.run(JobRequest::line("exit 3")).await.outcome(), Outcome::Exited(3));
    assert_ne!(only(&spawners()), first);
    job.job.signal(Signal::TERM);
    let done = job.collect_after(said).await;
    assert!(
        matches!(done.outcome(), Outcome::Signaled { signal: Signal::TERM, by: None, .. }),
        "{:?}",
        done.ended
    );
}

#[tokio::test]
async fn signals_of_a_terminal_do_not_reach_it() {
    use rustix::process::Signal;
    let _alone = ALONE.lock().await;
    let host = Host::new(quick());
    host.run(JobRequest::line("true")).await;
    let spawner = only(&spawners());
    for number in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::PIPE] {
        signal(spawner, number);
    }
    assert_eq!(host.run(JobRequest::line("exit 4")).await.outcome(), Outcome::Exited(4));
    assert_eq!(only(&spawners()), spawner);
}

#[tokio::test]
async fn a_start_that_hangs_is_given_up_and_does_not_run_on() {
    hangs(None).await;
}

#[tokio::test]
async fn a_start_with_a_leader_that_hangs_does_not_run_on_either() {
    hangs(Some(Terminal { job_control: true, ..Terminal::default() })).await;
}

async fn hangs(terminal: Option<Terminal>) {
    use rustix::process::Signal;
    let folder = tempfile::tempdir().unwrap();
    let mark = |name: &str| folder.path().join(name);
    let _alone = ALONE.lock().await;
    let host = Host::new(impatient());
    // What started well before runs on under the spawner that is stuck.
    let well = host.start(odd(&["sleep", "100000"]), Limits::default()).unwrap();
    let said = well.expect(b"ready\n").await;
    let stuck = only(&spawners());
    signal(stuck, Signal::STOP);
    let touch = |path: &Path| JobRequest {
        terminal: terminal.clone(),
        // Nor does it where it ignores that its terminal is hung up.
        ..JobRequest::line(format!("trap '' HUP; sleep 1; echo > {}", path.display()))
    };
    let error = host.start(touch(&mark("late")), Limits::default()).map(drop).unwrap_err();
    assert_eq!(error.step, Step::Spawner, "{error}");
    // The next one doesn't wait for it.
    assert_eq!(host.run(JobRequest::line("exit 5")).await.outcome(), Outcome::Exited(5));
    let second: Vec<i32> = spawners().into_iter().filter(|pid| *pid != stuck).collect();
    let second = only(&second);
    // It wakes up: what it starts late is killed, and it can be used again.
    signal(stuck, Signal::CONT);
    tokio::time::sleep(Duration::from_millis(100)).await;
    signal(second, Signal::KILL);
    eventually_async(PATIENCE, "it is dead", || !is_alive(second)).await;
    assert_eq!(host.run(JobRequest::line("exit 6")).await.outcome(), Outcome::Exited(6));
    assert_eq!(only(&spawners()), stuck);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!mark("late").exists(), "a start that was given up has run");
    well.job.signal(remora_engine::Signal::TERM);
    assert!(matches!(well.collect_after(said).await.outcome(), Outcome::Signaled { .. }));
}

#[tokio::test]
async fn it_keeps_no_descriptor_of_what_is_over() {
    let _alone = ALONE.lock().await;
    let host = Host::new(quick());
    host.run(JobRequest::line("true")).await;
    let spawner = only(&spawners());
    let before = Belongings::of(spawner);
    let led = |request| JobRequest {
        terminal: Some(Terminal { job_control: true, ..Terminal::default() }),
        ..request
    };
    for _ in 0..50 {
        host.run(JobRequest::line("true")).await;
        host.run(led(JobRequest::line("true"))).await;
        host.start(JobRequest::argv(["no-such-command"]), Limits::default()).unwrap_err();
        host.start(led(JobRequest::argv(["no-such-command"])), Limits::default()).unwrap_err();
    }
    before.assert_nothing_new_of(spawner, Duration::from_secs(10));
}

#[tokio::test]
async fn it_inherits_nothing_of_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let _open = fs::File::create(folder.path().join("open")).unwrap();
    let _alone = ALONE.lock().await;
    let host = Host::new(quick());
    host.run(JobRequest::line("true")).await;
    let spawner = only(&spawners());
    let targets = || -> Vec<String> {
        let fds = fs::read_dir(format!("/proc/{spawner}/fd")).unwrap().flatten();
        fds.filter_map(|fd| Some(fs::read_link(fd.path()).ok()?.display().to_string())).collect()
    };
    // The job's end may reach it after us.
    eventually_async(PATIENCE, "it holds no job any more", || targets().len() == 5).await;
    let targets = targets();
    assert_eq!(targets.iter().filter(|target| *target == "/dev/null").count(), 3, "{targets:?}");
    assert!(targets.iter().any(|target| target.contains("eventpoll")), "{targets:?}");
    assert!(targets.iter().any(|target| target.starts_with("socket:")), "{targets:?}");
    assert_eq!(fs::read_link(format!("/proc/{spawner}/cwd")).unwrap(), Path::new("/"));
}
