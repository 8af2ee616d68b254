//! The plain wires' client, against twenty-line servers and against peers that misbehave.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

mod common;
mod examples;
mod faults;
mod replies;
