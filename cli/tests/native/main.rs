//! The `remora` binary on the native wire, driven as a user drives it: real servers, real clients, real keys.
//!
//! Needs ssh-keygen, ssh-agent (openssh-client), python3 and libfaketime, as root also ip (iproute2); a test that doesn't find what it needs fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

mod answered;
mod bench;
mod clock;
mod commands;
mod cuts;
mod daemon;
mod detached;
mod detached_sessions;
mod exhaustion;
mod hosts;
mod keepers;
mod kept;
mod kills;
mod limits;
mod many_jobs;
mod others_jobs;
mod receipts;
mod reconnecting;
mod replay;
mod round_trips;
mod screen;
mod service;
mod sessions;
mod shell;
mod statuses;
mod streams;
mod terminals;
mod told;
mod trees;
mod users;
mod vanishing;
