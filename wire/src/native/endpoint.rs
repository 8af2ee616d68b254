//! What both ends have in common for whoever does their I/O.

use bytes::BytesMut;

use super::client::{Client, ClientEvent};
use super::fault::Fault;
use super::server::{Server, ServerEvent};

/// An end of a connection: bytes go in, events and bytes come out.
pub trait Endpoint {
    /// What it reports.
    type Event;
    /// Where received bytes are appended.
    fn input(&mut self) -> &mut BytesMut;
    /// Control bytes to write, taken away from the front.
    fn output(&mut self) -> &mut BytesMut;
    /// Whether input should be read now.
    fn wants_input(&self) -> bool;
    /// Whether the input so far ends at a frame's border.
    fn at_border(&self) -> bool;
    /// The next event of the input so far.
    ///
    /// # Errors
    /// The other side's fault.
    fn poll_event(&mut self) -> Result<Option<Self::Event>, Fault>;
}

macro_rules! endpoint {
    ($end:ty, $event:ty) => {
        impl Endpoint for $end {
            type Event = $event;
            fn input(&mut self) -> &mut BytesMut {
                <$end>::input(self)
            }
            fn output(&mut self) -> &mut BytesMut {
                <$end>::output(self)
            }
            fn wants_input(&self) -> bool {
                <$end>::wants_input(self)
            }
            fn at_border(&self) -> bool {
                <$end>::at_border(self)
            }
            fn poll_event(&mut self) -> Result<Option<$event>, Fault> {
                <$end>::poll_event(self)
            }
        }
    };
}

endpoint!(Client, ClientEvent);
endpoint!(Server, ServerEvent);
