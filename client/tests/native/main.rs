//! The client library against servers that lie, stop half-way, or break the protocol.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

mod connecting;
mod faults;
mod foe;
mod receipts;
