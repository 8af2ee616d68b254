//! What a job used. Alone in its process: the memory of the process that spawns is the least that can be told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

use std::time::Duration;

use remora_engine::{JobRequest, Outcome, PeakMemory};

#[path = "jobs/common.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod common;

use common::{Host, quick};

#[tokio::test]
async fn resource_use_is_plausible() {
    let host = Host::new(quick());
    let done = host.odd(&["burn", "120", "200"]).await;
    assert_eq!(done.outcome(), Outcome::Exited(0));
    let ended = &done.ended;
    assert!(ended.user + ended.system >= Duration::from_millis(120), "{ended:?}");
    assert!(ended.wall >= Duration::from_millis(120) / 2);
    assert!(ended.ended >= ended.started);
    match ended.peak_memory {
        PeakMemory::Measured(bytes) => assert!((200 << 20..400 << 20).contains(&bytes), "{bytes}"),
        other => panic!("{other:?}"),
    }
    // This process is larger than `true`: no figure is claimed for it.
    let done = host.run(JobRequest::argv(["true"])).await;
    assert!(matches!(done.ended.peak_memory, PeakMemory::AtMost(_)), "{:?}", done.ended);
}
