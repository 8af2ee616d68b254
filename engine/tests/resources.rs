//! What a job used. Alone in its process, since the memory that its spawner was forked with is the least that can be told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

use std::time::Duration;

use remora_engine::{Outcome, PeakMemory};

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
    // Smaller than this process, and told all the same: the spawner is smaller still.
    let ballast = vec![1_u8; 64 << 20];
    let done = host.odd(&["burn", "1", "4"]).await;
    match done.ended.peak_memory {
        PeakMemory::Measured(bytes) => assert!((4 << 20..32 << 20).contains(&bytes), "{bytes}"),
        other => panic!("{other:?}"),
    }
    drop(ballast);
}
