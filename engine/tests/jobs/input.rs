//! Input: written at offsets, half-closed, and given up by commands that don't read it.

use bytes::Bytes;
use remora_engine::{InputError, JobRequest, Limits, Outcome, Stdin};
use remora_testkit::pattern;

use crate::common::{Host, Running, odd, quick};

fn piped(mut request: JobRequest) -> JobRequest {
    request.stdin = Stdin::Piped;
    request
}

/// Gives all of `bytes`, as far as the window allows each time, taking output meanwhile.
async fn feed(running: &Running, bytes: &Bytes, stdout: &mut Vec<u8>) {
    let mut given = 0;
    while given < bytes.len() {
        let limit = running.job.input_limit().min(bytes.len() as u64) as usize;
        if limit > given {
            let piece = bytes.slice(given..limit.min(given + 100_000));
            running.job.write(given as u64, piece.clone()).unwrap();
            given += piece.len();
        } else {
            running.bell.notified().await;
        }
        running.take(remora_engine::Output::Stdout, stdout);
    }
}

#[tokio::test]
async fn input_comes_back_whole_through_windows_and_a_half_close() {
    let host = Host::new(quick());
    let limits = Limits { stdin_window: 300_000, window: 100_000, ..Limits::default() };
    let job = host.start(piped(odd(&["echo"])), limits).unwrap();
    let bytes = Bytes::from(pattern(5 << 20));
    let mut stdout = Vec::new();
    tokio::time::timeout(crate::common::PATIENCE, feed(&job, &bytes, &mut stdout)).await.unwrap();
    job.job.end_input(bytes.len() as u64).unwrap();
    let done = job.collect_after(stdout).await;
    assert_eq!(done.outcome(), Outcome::Exited(0));
    assert!(done.stdout == bytes);
    let stdin = done.ended.stdin.clone().unwrap();
    assert_eq!((stdin.length, stdin.closed_early), (bytes.len() as u64, false));
    assert_eq!(stdin.blake3, *blake3::hash(&bytes).as_bytes());
}

#[tokio::test]
async fn end_of_input_may_be_told_before_the_last_bytes() {
    let host = Host::new(quick());
    let job = host.start(piped(odd(&["count"])), Limits::default()).unwrap();
    job.job.end_input(3).unwrap();
    job.job.write(0, Bytes::from_static(b"ab")).unwrap();
    job.job.write(2, Bytes::from_static(b"c")).unwrap();
    assert!(matches!(job.job.write(3, Bytes::from_static(b"d")), Err(InputError::BehindEnd { .. })));
    assert_eq!(job.collect().await.text(), "3\n");
}

#[tokio::test]
async fn a_command_that_closes_its_input_takes_the_rest_as_consumed() {
    let host = Host::new(quick());
    let job = host.start(piped(odd(&["close-stdin", "1000000"])), Limits::default()).unwrap();
    let mut stdout = job.expect(b"closed\n").await;
    let bytes = Bytes::from(pattern(10 << 20));
    tokio::time::timeout(crate::common::PATIENCE, feed(&job, &bytes, &mut stdout)).await.unwrap();
    let consumed = async {
        while job.job.input_consumed() < bytes.len() as u64 {
            job.bell.notified().await;
        }
    };
    tokio::time::timeout(crate::common::PATIENCE, consumed).await.unwrap();
    assert!(job.job.input_closed());
    job.job.close(remora_engine::EndReason::Stop);
    let done = job.collect_after(stdout).await;
    let stdin = done.ended.stdin.clone().unwrap();
    assert!(stdin.closed_early);
    assert_eq!(stdin.length, 0);
}

#[tokio::test]
async fn a_command_that_reads_only_the_beginning_does_not_hang() {
    let host = Host::new(quick());
    let job = host.start(piped(JobRequest::line("head -c 5; exit 4")), Limits::default()).unwrap();
    let bytes = Bytes::from(pattern(10 << 20));
    let mut stdout = Vec::new();
    tokio::time::timeout(crate::common::PATIENCE, feed(&job, &bytes, &mut stdout)).await.unwrap();
    let done = job.collect_after(stdout).await;
    assert_eq!(done.outcome(), Outcome::Exited(4));
    assert_eq!(done.stdout, bytes[..5]);
    assert!(done.ended.stdin.as_ref().unwrap().closed_early);
}

#[tokio::test]
async fn no_input_is_dev_null() {
    let host = Host::new(quick());
    let job = host.start(odd(&["count"]), Limits::default()).unwrap();
    assert!(job.job.input_closed());
    job.job.write(0, Bytes::from_static(b"into the void")).unwrap();
    assert_eq!(job.job.input_consumed(), 13);
    let done = job.collect().await;
    assert_eq!(done.text(), "0\n");
    assert_eq!(done.ended.stdin, None);
}
