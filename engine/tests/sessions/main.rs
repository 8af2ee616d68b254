//! What sessions do, compared with real shells and real processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

mod capture;
mod common;
mod compare;
mod faults;
mod owners;
