//! Output: separate, binary-clean, held back by a full window, cut off by a closed one.

use remora_engine::{JobRequest, Limits, Outcome, Output, OutputError, Signal};
use remora_testkit::{eventually_async, pattern};

use crate::common::{Host, PATIENCE, odd, quick};

#[tokio::test]
async fn stdout_and_stderr_are_separate_and_binary_clean() {
    let done = Host::new(quick()).odd(&["flood", "3000000", "2000001"]).await;
    assert_eq!(done.outcome(), Outcome::Exited(0));
    assert!(done.stdout == pattern(3_000_000));
    assert!(done.stderr == pattern(2_000_001));
    assert!(!done.ended.stdout.held_open && !done.ended.stdout.closed_early && !done.ended.stdout.cut);
}

#[tokio::test]
async fn tiny_writes_arrive_whole() {
    let done = Host::new(quick()).odd(&["drip", "50000"]).await;
    assert!(done.stdout == pattern(50_000));
}

#[tokio::test]
async fn stderr_after_the_end_of_stdout_is_delivered() {
    let done = Host::new(quick()).odd(&["close-stdout", "late words"]).await;
    assert_eq!((done.stdout.as_slice(), done.stderr.as_slice()), (&b"out"[..], &b"late words"[..]));
    assert_eq!(done.outcome(), Outcome::Exited(0));
}

#[tokio::test]
async fn sixty_four_mebibytes_pass_a_slow_reader_within_the_window() {
    const TOTAL: u64 = 64 << 20;
    let host = Host::new(quick());
    let limits = Limits { window: 256 * 1024, ..Limits::default() };
    let job = host.start(odd(&["flood", &TOTAL.to_string(), "0"]), limits).unwrap();
    let mut digest = blake3::Hasher::new();
    let mut from: u64 = 0;
    let mut step: u64 = 1;
    let ended = tokio::time::timeout(PATIENCE, async {
        loop {
            let finished = job.job.finished();
            // Acknowledges odd amounts, small and large, never all.
            let (available, taken) = job
                .job
                .output(Output::Stdout, from, |first, second| {
                    let available = first.len() + second.len();
                    assert!(available <= 256 * 1024);
                    step = step * 5 % 262_147;
                    let n = available.min(step as usize);
                    let head = &first[..n.min(first.len())];
                    digest.update(head).update(&second[..n - head.len()]);
                    (available, n)
                })
                .unwrap();
            from += taken as u64;
            job.job.acknowledge(Output::Stdout, from);
            match finished {
                Some(ended) if available == taken => break ended,
                Some(_) => {}
                None if taken == 0 => job.bell.notified().await,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await
    .unwrap();
    assert_eq!(ended.outcome(), Outcome::Exited(0));
    assert_eq!((from, ended.stdout.length), (TOTAL, TOTAL));
    assert_eq!(ended.stdout.blake3, *digest.finalize().as_bytes());
    assert_eq!(ended.stdout.blake3, *blake3::hash(&pattern(TOTAL as usize)).as_bytes());
}

#[tokio::test]
async fn a_full_window_holds_the_command_back_until_it_is_acknowledged() {
    let host = Host::new(quick());
    let limits = Limits { window: 1000, ..Limits::default() };
    let job = host.start(odd(&["flood", "5000000", "10"]), limits).unwrap();
    let full = async {
        while job.job.produced(Output::Stdout) < 1000 {
            job.bell.notified().await;
        }
    };
    tokio::time::timeout(PATIENCE, full).await.unwrap();
    // However long nobody reads, no more is taken, and the command isn't over.
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(job.job.produced(Output::Stdout), 1000);
    assert!(job.job.finished().is_none());
    assert_eq!(
        job.job.output(Output::Stdout, 1001, |_, _| ()),
        Err(OutputError::NotYet { from: 1001, produced: 1000 })
    );
    let done = job.collect().await;
    assert!(done.stdout == pattern(5_000_000));
    assert!(done.stderr == pattern(10));
}

#[tokio::test]
async fn what_is_acknowledged_is_gone() {
    let host = Host::new(quick());
    let job = host.start(odd(&["flood", "100", "0"]), Limits::default()).unwrap();
    job.job.wait().await;
    job.job.acknowledge(Output::Stdout, 40);
    assert_eq!(job.job.output(Output::Stdout, 39, |_, _| ()), Err(OutputError::Gone { from: 39, kept: 40 }));
    let rest = job.job.output(Output::Stdout, 40, |first, second| [first, second].concat()).unwrap();
    assert_eq!(rest, pattern(100)[40..]);
    assert!(job.job.ended(Output::Stdout));
}

#[tokio::test]
async fn closing_an_output_gives_the_command_sigpipe() {
    let host = Host::new(quick());
    let job = host.start(JobRequest::argv(["yes"]), Limits::default()).unwrap();
    job.expect(b"y\ny\n").await;
    job.job.close_output(Output::Stdout);
    let ended = tokio::time::timeout(PATIENCE, job.job.wait()).await.unwrap();
    assert!(matches!(ended.outcome(), Outcome::Signaled { signal: Signal::PIPE, by: None, .. }), "{ended:?}");
    assert!(ended.stdout.closed_early && !ended.stderr.closed_early);
}

#[tokio::test]
async fn everything_stays_readable_after_the_end() {
    let host = Host::new(quick());
    let job = host.start(JobRequest::line("printf 12345; printf 678 >&2"), Limits::default()).unwrap();
    let ended = tokio::time::timeout(PATIENCE, job.job.wait()).await.unwrap();
    eventually_async(PATIENCE, "the engine counts none", || host.engine.running() == 0).await;
    assert_eq!((ended.stdout.length, ended.stderr.length), (5, 3));
    let done = job.collect().await;
    assert_eq!((done.text(), done.stderr.as_slice()), ("12345", &b"678"[..]));
}
