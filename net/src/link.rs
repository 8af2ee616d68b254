//! One end of the protocol on one carrier.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};

use remora_wire::native::{Endpoint, Fault};

use crate::buffers::Buffers;
use crate::carrier::{Carrier, HIGH_WATER};

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The byte stream failed.
    #[error("the connection failed")]
    Io(#[source] io::Error),
    /// TLS failed.
    #[error("TLS failed")]
    Tls(#[source] rustls::Error),
    /// The other side closed the connection.
    #[error("the other side closed the connection")]
    Closed,
    /// The other side closed the connection in the middle of a message.
    #[error("the other side closed the connection in the middle of a message")]
    ClosedHalfWay,
    /// The other side is there, perhaps, and says nothing.
    #[error("the other side has not answered for {:?}", .0)]
    Silent(std::time::Duration),
    /// The other side broke the protocol.
    #[error("the other side broke the protocol")]
    Fault(#[source] Fault),
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(tls) => LinkError::Tls(tls),
            Err(error) => match error.kind() {
                // A reset is how an ended connection looks from some sides; rustls reports a missing close_notify so.
                io::ErrorKind::UnexpectedEof => LinkError::Closed,
                _ => LinkError::Io(error),
            },
        }
    }
}

/// One end of the protocol on one carrier.
pub struct Link<E> {
    /// The byte stream and what lies between.
    pub carrier: Carrier,
    /// The end of the protocol.
    pub end: E,
    buffers: Buffers,
}

impl<E: Endpoint> Link<E> {
    /// Joins the two.
    pub fn new(carrier: Carrier, end: E) -> Self {
        Link { carrier, end, buffers: Buffers::default() }
    }

    /// The next event, reading what is there; pending when more bytes must come first. What the end wants to say in the
    /// meantime is for [`Link::poll_flush`].
    ///
    /// # Errors
    /// [`LinkError`]; the connection is unusable then, but for a last flush.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<E::Event, LinkError>> {
        loop {
            if let Some(event) = self.end.poll_event().map_err(LinkError::Fault)? {
                return Poll::Ready(Ok(event));
            }
            if self.is_full() {
                // Writing makes room. To wait for the caller's own flush would be to wait without a waker: once that has
                // written everything, nobody would read on.
                if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                    return Poll::Ready(Err(error.into()));
                }
                if self.is_full() {
                    return Poll::Pending;
                }
            }
            self.buffers.make_room(self.end.input());
            match self.carrier.poll_read(cx, self.end.input()) {
                Poll::Ready(Ok(0)) if self.end.at_border() => return Poll::Ready(Err(LinkError::Closed)),
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(LinkError::ClosedHalfWay)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Gives the memory of receive buffers back, when nothing is going on: an idle connection keeps none.
    pub fn release(&mut self) {
        self.buffers.release(self.end.input());
    }

    /// Whether no more input may be taken, since too much waits to be written, or since a verdict is due first.
    fn is_full(&self) -> bool {
        !self.end.wants_input() || self.carrier.pending() > 2 * HIGH_WATER
    }

    /// Hands over a data frame, behind every control message so far.
    ///
    /// # Errors
    /// When TLS has failed.
    pub fn write_data(&mut self, header: &[u8], first: &[u8], second: &[u8]) -> io::Result<()> {
        self.hand_over()?;
        self.carrier.write(&[header, first, second])
    }

    /// Hands over the control messages so far.
    ///
    /// # Errors
    /// When TLS has failed.
    pub fn hand_over(&mut self) -> io::Result<()> {
        let output = self.end.output();
        if output.is_empty() {
            return Ok(());
        }
        let bytes = output.split();
        self.carrier.write(&[&bytes])
    }

    /// Writes what waits. Ready once nothing waits any more.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.hand_over()?;
        self.carrier.poll_flush(cx)
    }

    /// The next event, with what the end has to say written in the meantime. For the phases of a connection in which
    /// nothing else happens.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn event(&mut self) -> Result<E::Event, LinkError> {
        poll_fn(|cx| {
            let event = self.poll_event(cx);
            // A flush that can't go on now wakes this task again when it can.
            match self.poll_flush(cx) {
                Poll::Ready(Err(error)) if event.is_pending() => Poll::Ready(Err(error.into())),
                _ => event,
            }
        })
        .await
    }

    /// Writes all that waits.
    ///
    /// # Errors
    /// I/O errors, or a failed TLS connection.
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        poll_fn(|cx| self.poll_flush(cx)).await.map_err(LinkError::from)
    }
}
