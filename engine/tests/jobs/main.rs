//! What jobs do, tested with real processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

mod common;
mod draining;
mod endings;
mod inheritance;
mod input;
mod job_control;
mod limits;
mod not_started;
mod output;
mod terminals;
