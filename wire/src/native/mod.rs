//! The native wire: one connection, many jobs, every stream at absolute offsets under credit.
//!
//! [`Client`] and [`Server`] are the two ends as state machines: bytes go in by `handle_input`, events come out by
//! `poll_event`, bytes to write come out by `poll_output`. The specification is docs/PROTOCOL.md.

mod client;
mod endpoint;
mod fault;
mod frame;
#[allow(missing_docs, reason = "made from the .proto file, whose comments are the documentation")]
#[rustfmt::skip]
pub mod proto;
mod queue;
mod server;
mod stream;

pub use client::{Client, ClientEvent, StartError, Streams};
pub use endpoint::Endpoint;
pub use fault::Fault;
pub use frame::{Decoder, FIRST_IGNORABLE, Kind, Piece, Stream, control_header, data_header};
pub use server::{Greeting, Server, ServerEvent};
pub use stream::{Incoming, Outgoing};

/// ALPN protocol name of the major version.
pub const ALPN: &str = "remora/1";
/// Lowest minor version spoken here.
pub const VERSION_MIN: u32 = 1;
/// Highest minor version spoken here.
pub const VERSION_MAX: u32 = 1;
