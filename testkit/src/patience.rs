//! Waiting for what must come to pass, without fixed sleeps.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(2);

/// Waits until a condition holds.
///
/// # Panics
/// Where it doesn't before the deadline; `what` says what was waited for.
#[track_caller]
pub fn eventually(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// As [`eventually`], letting other tasks of the runtime run meanwhile.
///
/// # Panics
/// Where it doesn't hold before the deadline.
pub async fn eventually_async(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + deadline;
    while !condition() {
        assert!(Instant::now() < end, "not within {deadline:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
