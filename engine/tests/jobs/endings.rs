//! How jobs end: by themselves, by signals, by us.

use std::time::Duration;

use remora_engine::{EndReason, How, JobRequest, Limits, Outcome, Signal};
use remora_testkit::{eventually_async, is_alive, session_members};

use crate::common::{Host, PATIENCE, odd, quick};

#[tokio::test]
async fn exit_statuses_come_back_as_they_are() {
    let host = Host::new(quick());
    for status in [0, 1, 42, 126, 127, 199, 255] {
        let done = host.odd(&["exit", &status.to_string()]).await;
        assert_eq!(done.outcome(), Outcome::Exited(status));
        assert_eq!(done.ended.how, How::Exited(status));
    }
    assert_eq!(host.run(JobRequest::line("exit 7")).await.outcome(), Outcome::Exited(7));
}

#[tokio::test]
async fn death_by_a_signal_is_told_from_an_exit() {
    let host = Host::new(quick());
    for name in ["KILL", "TERM", "SEGV", "PIPE", "HUP"] {
        let expected = Signal::from_name(name).unwrap();
        // A Rust program ignores SIGPIPE, so a shell does that one.
        let done = match name {
            "PIPE" => host.run(JobRequest::line("kill -PIPE $$")).await,
            _ => host.odd(&["die", &expected.number().to_string()]).await,
        };
        match done.outcome() {
            Outcome::Signaled { signal, by: None, .. } => assert_eq!(signal, expected),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_signal_reaches_the_whole_process_group() {
    let host = Host::new(quick());
    let job = host.start(JobRequest::line("sleep 100 & echo ready; wait"), Limits::default()).unwrap();
    job.expect(b"ready\n").await;
    let pid = job.job.pid();
    job.job.signal(Signal::INT);
    // A background process of a shell without job control ignores SIGINT; the shell itself doesn't.
    let done = {
        job.job.signal(Signal::TERM);
        job.collect_after(b"ready\n".to_vec()).await
    };
    assert!(matches!(done.outcome(), Outcome::Signaled { by: None, .. }), "{:?}", done.ended);
    eventually_async(PATIENCE, "nobody of the group is left", || session_members(pid).is_empty()).await;
}

#[tokio::test]
async fn close_ends_a_job_and_says_who_did_it_and_why() {
    let host = Host::new(quick());
    let job = host.start(odd(&["sleep", "100000"]), Limits::default()).unwrap();
    let said = job.expect(b"ready\n").await;
    job.job.close(EndReason::ClientGone);
    job.job.close(EndReason::Shutdown);
    let done = job.collect_after(said).await;
    assert_eq!(
        done.outcome(),
        Outcome::Signaled { signal: Signal::TERM, core_dumped: false, by: Some(EndReason::ClientGone) }
    );
}

#[tokio::test]
async fn a_command_that_exits_with_0_on_our_signal_does_not_look_like_a_success() {
    let host = Host::new(quick());
    let line = r#"trap "exit 0" TERM; echo ready; while :; do sleep 0.01; done"#;
    let job = host.start(JobRequest::line(line), Limits::default()).unwrap();
    let said = job.expect(b"ready\n").await;
    job.job.close(EndReason::Stop);
    let done = job.collect_after(said).await;
    assert_eq!(done.ended.how, How::Exited(0));
    assert_eq!(
        done.outcome(),
        Outcome::Signaled { signal: Signal::TERM, core_dumped: false, by: Some(EndReason::Stop) }
    );
}

#[tokio::test]
async fn a_stopped_job_can_be_closed() {
    let host = Host::new(quick());
    let job = host.start(odd(&["sleep", "100000"]), Limits::default()).unwrap();
    let said = job.expect(b"ready\n").await;
    job.job.signal(Signal::from_name("STOP").unwrap());
    job.job.close(EndReason::Linger);
    let done = job.collect_after(said).await;
    assert!(matches!(
        done.outcome(),
        Outcome::Signaled { signal: Signal::TERM, by: Some(EndReason::Linger), .. }
    ));
}

#[tokio::test]
async fn the_deadline_kills_the_whole_group_even_who_ignores_sigterm() {
    let host = Host::new(quick());
    // Time enough for it to say so: what counts is that the deadline comes after that.
    let limits = Limits { wall: Some(Duration::from_secs(2)), ..Limits::default() };
    let job = host.start(odd(&["ignore-term", "1000000"]), limits.clone()).unwrap();
    let done = job.collect().await;
    assert_eq!(done.outcome(), Outcome::Deadline);
    assert_eq!(done.text(), "ready\n");
    assert_eq!(done.ended.how, How::Signaled { signal: Signal::KILL, core_dumped: false });
    assert!(done.ended.wall >= Duration::from_secs(2));

    // The leader dies of SIGTERM; its child ignores it, holds nothing open, and is killed all the same.
    let job = host.start(odd(&["ignore-term-too", "1000000"]), limits).unwrap();
    let done = job.collect().await;
    assert_eq!(done.outcome(), Outcome::Deadline);
    assert_eq!(done.ended.how, How::Signaled { signal: Signal::TERM, core_dumped: false });
    let child: i32 = done.text().trim().parse().unwrap();
    eventually_async(PATIENCE, "the child is dead", || !is_alive(child)).await;
}

#[tokio::test]
async fn background_processes_outlive_a_job_that_ends_by_itself() {
    let host = Host::new(quick());
    let done = host.odd(&["hold", "100000"]).await;
    assert_eq!(done.outcome(), Outcome::Exited(0));
    assert!(done.ended.stdout.held_open && done.ended.stderr.held_open);
    let child: i32 = done.text().trim().parse().unwrap();
    assert!(is_alive(child));
    assert_eq!(host.engine.held_open(), 2);
    let child_pid = rustix::process::Pid::from_raw(child).unwrap();
    rustix::process::kill_process(child_pid, rustix::process::Signal::KILL).unwrap();
    eventually_async(PATIENCE, "the streams end with it", || host.engine.held_open() == 0).await;
}

#[tokio::test]
async fn dropping_the_last_handle_kills_the_job() {
    let host = Host::new(quick());
    let job = host.start(odd(&["ignore-term", "1000000"]), Limits::default()).unwrap();
    job.expect(b"ready\n").await;
    let pid = job.job.pid();
    let second = job.job.clone();
    drop(job);
    assert!(is_alive(pid));
    drop(second);
    eventually_async(PATIENCE, "it is killed and reaped", || {
        host.engine.running() == 0 && !std::path::Path::new(&format!("/proc/{pid}")).exists()
    })
    .await;
}

#[test]
fn the_end_of_the_runtime_kills_the_job_and_says_so() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let host = Host::new(quick());
    let job =
        runtime.block_on(async { host.start(odd(&["ignore-term", "1000000"]), Limits::default()).unwrap() });
    drop(runtime);
    let ended = job.job.finished().unwrap();
    assert_eq!(ended.stopped, Some(EndReason::Shutdown));
    assert!(!std::path::Path::new(&format!("/proc/{}", ended.pid)).exists());
}
