//! Moves bytes between a connection's end and a byte stream, through TLS or not.

use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use rustls::Connection;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Anything that carries bytes in order, both ways: TCP, a Unix socket, a broker's stream.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// Bytes waiting to be written above which nothing more should be handed over.
pub const HIGH_WATER: usize = 512 * 1024;

/// Most plaintext of one TLS record (RFC 8446, 5.1).
const RECORD: usize = 16 * 1024;

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the peer: what one write handed over.
    Sent,
    /// From the peer: what one read returned.
    Received,
}

/// Is told what travels, before encryption and after decryption: a debugging aid.
pub type Tap = std::sync::Arc<dyn Fn(Direction, &[u8]) + Send + Sync>;

/// A byte stream with what is between it and the frames.
pub struct Carrier {
    stream: Box<dyn ByteStream>,
    layer: Layer,
    pending: usize,
    ended: bool,
    tap: Option<Tap>,
}

enum Layer {
    Clear { out: BytesMut },
    Tls(Box<Connection>),
}

impl Carrier {
    /// Frames as they are, for streams whose peer the kernel vouches for.
    pub fn clear(stream: impl ByteStream + 'static) -> Self {
        Carrier {
            stream: Box::new(stream),
            layer: Layer::Clear { out: BytesMut::new() },
            pending: 0,
            ended: false,
            tap: None,
        }
    }

    /// Frames inside a TLS connection, whose handshake may still be going on.
    pub fn tls(stream: Box<dyn ByteStream>, mut connection: Connection) -> Self {
        // What waits is bounded by who writes, against HIGH_WATER; a limit in here would cut writes in two.
        connection.set_buffer_limit(None);
        Carrier { stream, layer: Layer::Tls(Box::new(connection)), pending: 0, ended: false, tap: None }
    }

    /// Has somebody told what travels from now on.
    pub fn set_tap(&mut self, tap: Option<Tap>) {
        self.tap = tap;
    }

    /// The TLS connection, if there is one.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        match &mut self.layer {
            Layer::Clear { .. } => None,
            Layer::Tls(connection) => Some(connection),
        }
    }

    /// Whether the peer has ended its side.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes that were handed over and not written yet, about.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Hands over bytes to be written by [`Carrier::poll_flush`]. Parts that belong together should come together.
    ///
    /// # Errors
    /// When TLS has failed.
    pub fn write(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if length == 0 {
            return Ok(());
        }
        if let Some(tap) = &self.tap {
            tap(Direction::Sent, &parts.concat());
        }
        match &mut self.layer {
            Layer::Clear { out } => {
                out.reserve(length);
                parts.iter().for_each(|part| out.extend_from_slice(part));
            }
            Layer::Tls(connection) => {
                let slices: [IoSlice<'_>; 4] =
                    std::array::from_fn(|at| IoSlice::new(parts.get(at).copied().unwrap_or_default()));
                let taken =
                    connection.writer().write_vectored(slices.get(..parts.len()).unwrap_or(&slices))?;
                if taken != length {
                    return Err(io::Error::other("TLS took only a part of a frame"));
                }
            }
        }
        self.pending += length;
        Ok(())
    }

    /// Says that nothing more will be written.
    pub fn close(&mut self) {
        if let Layer::Tls(connection) = &mut self.layer {
            connection.send_close_notify();
        }
    }

    /// Writes what waits. Ready once nothing waits any more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.layer {
            Layer::Clear { out } => {
                while !out.is_empty() {
                    let written = ready!(Pin::new(&mut self.stream).poll_write(cx, out))?;
                    if written == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    let _ = out.split_to(written);
                    self.pending = out.len();
                }
                // An idle connection keeps no buffer.
                *out = BytesMut::new();
            }
            Layer::Tls(connection) => {
                while connection.wants_write() {
                    match connection.write_tls(&mut Blocking { stream: &mut self.stream, cx }) {
                        Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Ok(written) => self.pending = self.pending.saturating_sub(written),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
            }
        }
        self.pending = 0;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Appends received bytes to `input`: at least one byte, or none at the end of the stream. Takes what is there as far as
    /// `input` has room, so that digests and writes further on work on long pieces.
    ///
    /// # Errors
    /// I/O errors as they are; a TLS failure as [`io::ErrorKind::InvalidData`], with the rustls error inside.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        let before = input.len();
        let result = match self.layer {
            Layer::Clear { .. } => self.poll_read_clear(cx, input),
            Layer::Tls(_) => self.poll_read_tls(cx, input),
        };
        match result {
            // What came before the failure is delivered first; the failure is found again by the next call.
            _ if input.len() > before => {
                if let Some(tap) = &self.tap {
                    tap(Direction::Received, input.get(before..).unwrap_or_default());
                }
                Poll::Ready(Ok(input.len() - before))
            }
            Poll::Ready(Ok(())) => {
                self.ended = true;
                Poll::Ready(Ok(0))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Drives a TLS handshake to its end, flushing and reading as it goes.
    ///
    /// # Errors
    /// I/O errors as they are, [`io::ErrorKind::UnexpectedEof`] when the peer closes, a TLS failure as
    /// [`io::ErrorKind::InvalidData`] with the rustls error inside.
    pub fn poll_until_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            // A client's Finished isn't flushed here: it leaves together with what the client has to say.
            if self.connection().is_none_or(|connection| !connection.is_handshaking()) {
                return Poll::Ready(Ok(()));
            }
            // What can't be written now wakes this task when it can.
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            let Layer::Tls(connection) = &mut self.layer else { return Poll::Ready(Ok(())) };
            match connection.read_tls(&mut Blocking { stream: &mut self.stream, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Err(error) = connection.process_new_packets() {
                // The alert that tells the peer why is written as far as it goes.
                let _ = connection.write_tls(&mut Blocking { stream: &mut self.stream, cx });
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }

    fn poll_read_clear(&mut self, cx: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<()>> {
        // Polled once and dropped: read_buf keeps nothing between polls.
        std::pin::pin!(self.stream.read_buf(input)).poll(cx).map_ok(|_| ())
    }

    fn poll_read_tls(&mut self, cx: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<()>> {
        let Layer::Tls(connection) = &mut self.layer else { return Poll::Ready(Ok(())) };
        let start = input.len();
        let mut closed = false;
        loop {
            // Plaintext first: rustls takes no more records while some waits.
            let mut reader = connection.reader();
            loop {
                let at = input.len();
                match io::BufRead::fill_buf(&mut reader) {
                    Ok([]) => return Poll::Ready(Ok(())),
                    Ok(plain) => {
                        input.extend_from_slice(plain);
                        io::BufRead::consume(&mut reader, input.len() - at);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            if closed || (input.len() > start && input.capacity() - input.len() < RECORD) {
                return Poll::Ready(Ok(()));
            }
            match connection.read_tls(&mut Blocking { stream: &mut self.stream, cx }) {
                Ok(0) => closed = true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
            if let Err(error) = connection.process_new_packets() {
                // The alert that tells the peer why is written as far as it goes.
                let _ = connection.write_tls(&mut Blocking { stream: &mut self.stream, cx });
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
        }
    }
}

/// rustls reads and writes synchronously; this shows it an asynchronous stream that would block.
struct Blocking<'a, 'b> {
    stream: &'a mut Box<dyn ByteStream>,
    cx: &'a mut Context<'b>,
}

impl Read for Blocking<'_, '_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(into);
        match Pin::new(&mut self.stream).poll_read(self.cx, &mut buffer) {
            Poll::Ready(result) => result.map(|()| buffer.filled().len()),
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Write for Blocking<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match Pin::new(&mut self.stream).poll_write(self.cx, bytes) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match Pin::new(&mut self.stream).poll_write_vectored(self.cx, slices) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
