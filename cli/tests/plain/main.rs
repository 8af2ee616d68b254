//! `remora exec` on plain wires and `remora wire decode`: the real binary, against a real `remora serve` and against
//! peers that misbehave.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

mod bench;
mod decode;
mod exec;
mod faults;
mod save;
mod shell;
