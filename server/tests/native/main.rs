//! A server in this process, and peers that are slow, mad or hostile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

mod crowds;
mod frames;
mod host;
mod peer;
mod proofs;
mod resuming;
mod signed;
