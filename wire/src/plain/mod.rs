//! The plain wires: `raw`, `length` and `header`. Unencrypted, unauthenticated, and small enough for a peer of twenty lines.
//!
//! A request is bytes without any frame. A reply is, on
//!
//! - `raw`: bytes until the connection ends;
//! - `length`: a signed 32-bit little-endian length, then that many bytes;
//! - `header`: a signed 32-bit little-endian length, a JSON object of that many bytes ([`Header`]), then as many bytes as
//!   its `total_size` says.
//!
//! [`Decoder`] reads replies, however they are cut, and hands out their bytes as they come. [`length_prefix`] and
//! [`Header::encode`] write them. What a server must refuse to take for a request is in [`web_sign`].

mod decoder;
mod digest;
mod fault;
mod file_name;
mod header;
mod number;
mod web;

pub use decoder::{Decoder, Event, Part};
pub use digest::{Digests, Verdict, Verdicts};
pub use fault::Fault;
pub use file_name::safe_file_name;
pub use header::{EndedBy, Ending, Header, Streams};
pub use web::web_sign;

use crate::limits;

/// One of the plain wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wire {
    /// Replies are unframed.
    Raw,
    /// Replies carry their length.
    Length,
    /// Replies carry a JSON object that describes them.
    Header,
}

/// What a reply on the `length` wire begins with; none for a length beyond [`limits::PLAIN_LENGTH`].
pub fn length_prefix(length: u64) -> Option<[u8; 4]> {
    i32::try_from(length).ok().filter(|_| length <= limits::PLAIN_LENGTH).map(i32::to_le_bytes)
}
