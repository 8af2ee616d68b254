//! Remora's protocols without I/O: bytes in, events out, and back.
//!
//! No runtime, socket, clock or randomness: whoever owns those hands over bytes and takes bytes away. [`native`] is the
//! multiplexed protocol of remora itself, [`plain`] the three small ones. Every length is compared with
//! [`limits`] before memory is asked for.

pub mod explain;
pub mod limits;
pub mod native;
pub mod plain;
