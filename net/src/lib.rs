//! Runs one native connection on tokio and rustls, for both ends, over any byte stream.
//!
//! [`Carrier`] moves bytes, through TLS or not; [`Link`] joins it with an end of the protocol from `remora-wire`. [`tls`] says
//! how hosts prove who they are, [`agent`] asks the user's SSH agent, [`statement_of`] is what both ends understand by a receipt. It never decides who may do what.

pub mod agent;
mod buffers;
mod carrier;
mod link;
mod statement;
pub mod tls;
mod tune;

pub use buffers::Buffers;
pub use carrier::{ByteStream, Carrier, Direction, HIGH_WATER, Tap};
pub use link::{Link, LinkError};
pub use statement::{command_of, statement_of};
pub use tune::tune;
