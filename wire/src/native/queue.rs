//! Control messages on their way in and out.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::fault::Fault;
use super::frame::{Kind, Stream, control_header};
use super::proto;

/// Appends a control frame.
pub(super) fn push(out: &mut BytesMut, kind: Kind, channel: u32, message: &impl Message) {
    let length = message.encoded_len();
    out.reserve(crate::limits::FRAME_HEADER + length);
    out.put_slice(&control_header(kind, channel, u32::try_from(length).unwrap_or(u32::MAX)));
    // Room was reserved above, and BytesMut grows besides: there is nothing this could fail of.
    let _ = message.encode(out);
}

/// Appends a control frame whose body isn't a message.
pub(super) fn push_bytes(out: &mut BytesMut, kind: Kind, channel: u32, body: &[u8]) {
    out.put_slice(&control_header(kind, channel, u32::try_from(body.len()).unwrap_or(u32::MAX)));
    out.put_slice(body);
}

/// Appends the last frame of a connection that ends by a fault of the other side.
pub(super) fn push_fault(out: &mut BytesMut, fault: &Fault) {
    push(out, Kind::Fault, 0, &proto::Fault { code: fault.code(), text: fault.to_string() });
}

/// Parses a control frame's body.
pub(super) fn parse<M: Message + Default>(kind: Kind, body: Bytes) -> Result<M, Fault> {
    M::decode(body).map_err(|_| Fault::Malformed { kind, what: "it isn't the message it should be" })
}

/// Whether a message belongs to the connection or to a channel, as its kind demands.
pub(super) fn check_channel(kind: Kind, channel: u32) -> Result<(), Fault> {
    let of_connection = kind.code() < Kind::Start.code();
    if of_connection == (channel == 0) { Ok(()) } else { Err(Fault::UnknownChannel(channel)) }
}

/// A stream's number in control messages.
pub(super) fn code(stream: Stream) -> i32 {
    match stream {
        Stream::Stdin => proto::Stream::Stdin as i32,
        Stream::Stdout => proto::Stream::Stdout as i32,
        Stream::Stderr => proto::Stream::Stderr as i32,
    }
}

/// The output stream that a control message names.
pub(super) fn output_stream(kind: Kind, code: i32) -> Result<Stream, Fault> {
    match proto::Stream::try_from(code) {
        Ok(proto::Stream::Stdout) => Ok(Stream::Stdout),
        Ok(proto::Stream::Stderr) => Ok(Stream::Stderr),
        _ => Err(Fault::Malformed { kind, what: "it names no stream that the server sends" }),
    }
}

/// The initial limit of a job's output streams, when the connection's is `usual`.
pub(super) fn output_window(start: &proto::Start, usual: u64) -> u64 {
    if start.output_window == 0 { usual } else { start.output_window.min(usual) }
}
