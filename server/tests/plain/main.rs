//! The plain wires, served to real sockets and to the examples' twenty-line peers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

mod common;
mod endings;
mod examples;
mod replies;
mod sessions;
mod who;
