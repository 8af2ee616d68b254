//! The finishing rule: over when the process is, and no byte that was written is cut.

use std::time::Duration;

use remora_engine::{DrainRule, EndReason, EngineConfig, JobRequest, Limits, Outcome, Output};
use remora_testkit::{eventually_async, pattern};

use crate::common::{Host, PATIENCE, odd, quick};

#[tokio::test]
async fn a_background_process_that_holds_a_stream_does_not_hold_up_the_end_nor_die_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let host = Host::new(quick());
    // It writes four times what a pipe holds, long after the job is over.
    let done = host.odd(&["grandchild", report.to_str().unwrap(), "1500", "1048576"]).await;
    assert_eq!(done.outcome(), Outcome::Exited(0));
    assert!(done.ended.stdout.held_open);
    assert_eq!(done.ended.stdout.length, 0);
    assert!(!report.exists());
    eventually_async(PATIENCE, "the background process reports", || report.exists()).await;
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "written");
    eventually_async(PATIENCE, "its stream is let go", || host.engine.held_open() == 0).await;
}

#[tokio::test]
async fn wait_streams_waits_for_the_end_of_streams() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let host = Host::new(quick());
    let mut request = odd(&["grandchild", report.to_str().unwrap(), "1500", "1048576"]);
    request.wait_streams = true;
    let done = host.run(request).await;
    assert!(!done.ended.stdout.held_open);
    assert!(done.stdout == pattern(1 << 20));
}

#[tokio::test]
async fn output_behind_a_process_substitution_is_complete() {
    let host = Host::new(EngineConfig { drain: DrainRule::default(), ..quick() });
    for _ in 0..10 {
        let mut request = JobRequest::line("exec > >(gzip | gunzip); seq 1 20000");
        request.shell = Some("/bin/bash".into());
        let done = host.run(request).await;
        let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(done.text().len(), expected.len());
        assert!(done.text() == expected);
    }
}

#[tokio::test]
async fn bytes_already_written_are_never_cut_by_a_reader_slower_than_the_drain_rule() {
    // A rule so short that it would cut at once if it counted while the window is full.
    let millisecond = Duration::from_millis(1);
    let host =
        Host::new(EngineConfig { drain: DrainRule { quiet: millisecond, total: millisecond }, ..quick() });
    let limits = Limits { window: 512, ..Limits::default() };
    // The shell is over with all of it in the pipe, and a background process holds the pipe open.
    let mut request = JobRequest::line("head -c 30000 /dev/zero; sleep 100 & exit 5");
    request.stdin = remora_engine::Stdin::Null;
    let job = host.start(request, limits).unwrap();
    let mut length = 0;
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            tokio::time::sleep(Duration::from_millis(3)).await;
            if let Some(ended) = job.job.finished() {
                break ended;
            }
            length = job.job.produced(Output::Stdout);
            job.job.acknowledge(Output::Stdout, length);
        }
    })
    .await
    .unwrap();
    assert_eq!(ended.outcome(), Outcome::Exited(5));
    assert_eq!(ended.stdout.length, 30_000);
    assert!(ended.stdout.held_open);
    kill_session(ended.pid);
}

#[tokio::test]
async fn a_background_process_that_never_stops_writing_is_given_up() {
    let rule = DrainRule { quiet: Duration::from_secs(3600), total: Duration::from_millis(100) };
    let host = Host::new(EngineConfig { drain: rule, ..quick() });
    let done = host.run(JobRequest::line("yes & exit 0")).await;
    assert_eq!(done.outcome(), Outcome::Exited(0));
    assert!(done.ended.stdout.held_open);
    kill_session(done.ended.pid);
    eventually_async(PATIENCE, "its stream is let go", || host.engine.held_open() == 0).await;
}

#[tokio::test]
async fn closing_a_job_that_waits_for_its_streams_ends_who_holds_them_and_keeps_its_status() {
    let host = Host::new(quick());
    let mut request = JobRequest::line("sleep 1000 & echo ready; exit 6");
    request.wait_streams = true;
    let job = host.start(request, Limits::default()).unwrap();
    let said = job.expect(b"ready\n").await;
    // The shell is over, or will be in a moment; wait until it is, so that it isn't ended by us.
    let pid = job.job.pid();
    eventually_async(PATIENCE, "the shell is over", || !remora_testkit::is_alive(pid)).await;
    job.job.close(EndReason::ClientGone);
    let done = job.collect_after(said).await;
    assert_eq!(done.outcome(), Outcome::Exited(6));
    assert!(!done.ended.stdout.held_open);
    eventually_async(PATIENCE, "nobody is left", || remora_testkit::session_members(pid).is_empty()).await;
}

#[tokio::test]
async fn who_leaves_the_group_does_not_hold_up_a_job_that_is_closed() {
    let host = Host::new(quick());
    let mut request = JobRequest::line("setsid sh -c 'echo $$; exec sleep 1000' & wait");
    request.wait_streams = true;
    let job = host.start(request, Limits::default()).unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"\n") {
        job.bell.notified().await;
        job.take(Output::Stdout, &mut said);
    }
    job.job.close(EndReason::Stop);
    let done = job.collect_after(said).await;
    assert!(done.ended.stdout.held_open);
    kill_session(done.text().trim().parse().unwrap());
    assert!(matches!(done.outcome(), Outcome::Signaled { by: Some(EndReason::Stop), .. }));
}

fn kill_session(session: i32) {
    for pid in remora_testkit::session_members(session) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}
