//! What is left after many jobs: nothing. Alone in its process, since it counts all that the process owns.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

use std::time::Duration;

use remora_engine::{JobRequest, Limits, Outcome, Stdin, Terminal};
use remora_testkit::Belongings;

#[path = "jobs/common.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use common::{Host, quick};

#[test]
fn five_hundred_jobs_leave_no_process_descriptor_or_zombie() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Whatever is made once is made by then.
    runtime().block_on(async { Host::new(quick()).run(JobRequest::line("true")).await });
    let before = Belongings::now();
    runtime().block_on(async {
        let host = Host::new(quick());
        for round in 0..25 {
            let jobs: Vec<_> = (0..20)
                .map(|number| {
                    let mut request = match number % 4 {
                        0 => JobRequest::argv(["true"]),
                        1 => JobRequest::line("echo out; echo err >&2; exit 3"),
                        2 => JobRequest::line("cat"),
                        _ => JobRequest::line("sleep 0.2 & echo held"),
                    };
                    request.stdin = if number % 3 == 0 { Stdin::Null } else { Stdin::Piped };
                    if number % 5 < 2 {
                        let job_control = number % 5 == 0;
                        request.terminal = Some(Terminal { job_control, ..Terminal::default() });
                    }
                    host.start(request, Limits::default()).unwrap()
                })
                .collect();
            for (number, job) in jobs.into_iter().enumerate() {
                if (number + round) % 7 == 0 {
                    // Dropped while it may be running: killed.
                    drop(job);
                    continue;
                }
                let _ = job.job.end_input(0);
                let done = job.collect().await;
                assert!(matches!(done.ended.outcome(), Outcome::Exited(0 | 3)), "{:?}", done.ended);
            }
            // What can't be started leaves nothing either.
            let missing = JobRequest::argv(["no-such-command"]);
            host.start(missing.clone(), Limits::default()).unwrap_err();
            let terminal = Some(Terminal { job_control: true, ..Terminal::default() });
            host.start(JobRequest { terminal, ..missing }, Limits::default()).unwrap_err();
        }
        remora_testkit::eventually_async(Duration::from_secs(30), "all jobs and streams ended", || {
            host.engine.running() == 0 && host.engine.held_open() == 0
        })
        .await;
    });
    before.assert_nothing_new(Duration::from_secs(10));
}
