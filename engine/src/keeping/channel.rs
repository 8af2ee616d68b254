//! Messages over a stream socket, each behind its length: between a server and a keeper.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, send, sendmsg,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::sys;

/// Bytes of the longest message: what execve(2) takes at the most, and some more.
const LONGEST: usize = 8 * 1024 * 1024;

/// Bytes of a length.
const HEAD: usize = 4;

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;

/// Messages that are cut out of what was read.
#[derive(Debug, Default)]
pub(crate) struct Incoming(BytesMut);

impl Incoming {
    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// One that is longer than any may be.
    pub(crate) fn next(&mut self) -> io::Result<Option<BytesMut>> {
        let Some(head) = self.0.first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length > LONGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than any may be"));
        }
        if self.0.len() < HEAD + length {
            return Ok(None);
        }
        self.0.advance(HEAD);
        Ok(Some(self.0.split_to(length)))
    }
}

/// Puts a message behind its length.
fn put(out: &mut BytesMut, message: &[u8]) {
    // Our own messages are shorter than the limit, all of them.
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(message);
}

/// A socket before a runtime watches it: each call waits, until a deadline.
#[derive(Debug)]
pub(crate) struct Waiting {
    socket: OwnedFd,
    incoming: Incoming,
    /// A descriptor that came along.
    passed: Option<OwnedFd>,
}

impl Waiting {
    /// `socket` doesn't block.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Waiting { socket, incoming: Incoming::default(), passed: None }
    }

    /// Sends a message, and a descriptor with it.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] at the deadline, or what sendmsg(2) says.
    pub(crate) fn send(
        &mut self,
        message: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
        until: Instant,
    ) -> io::Result<()> {
        let mut out = BytesMut::with_capacity(HEAD + message.len());
        put(&mut out, message);
        let mut descriptor = descriptor;
        while !out.is_empty() {
            let fds: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(&out)], &mut ancillary, flags) {
                Ok(sent) => {
                    out.advance(sent);
                    descriptor = None;
                }
                Err(Errno::AGAIN) => wait(self.socket.as_fd(), PollFlags::OUT, until)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// The next message; none where the other end is gone.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] at the deadline, or what recvmsg(2) says.
    pub(crate) fn receive(&mut self, until: Instant) -> io::Result<Option<BytesMut>> {
        loop {
            if let Some(message) = self.incoming.next()? {
                return Ok(Some(message));
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut bytes = [0; 4096];
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
                Ok(received) if received.bytes == 0 => return Ok(None),
                Ok(received) => {
                    for message in ancillary.drain() {
                        if let RecvAncillaryMessage::ScmRights(fds) = message {
                            self.passed = fds.last().or(self.passed.take());
                        }
                    }
                    self.incoming.0.extend_from_slice(bytes.get(..received.bytes).unwrap_or_default());
                }
                Err(Errno::AGAIN) => wait(self.socket.as_fd(), PollFlags::IN, until)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Whether the other end is gone.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(
            rustix::net::recv(&self.socket, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT),
            Ok((_, 0)) | Err(Errno::CONNRESET | Errno::PIPE)
        )
    }

    /// Takes the descriptor that came along with what was received.
    pub(crate) fn take_passed(&mut self) -> Option<OwnedFd> {
        self.passed.take()
    }

    /// Has the caller's runtime watch it from now on.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub(crate) fn watched(self) -> io::Result<Channel> {
        let socket = sys::watch(self.socket, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Channel { socket, incoming: self.incoming, out: BytesMut::new(), is_over: false })
    }
}

/// Waits until something can be done with a socket.
pub(super) fn wait(socket: BorrowedFd<'_>, what: PollFlags, until: Instant) -> io::Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::from_borrowed_fd(socket, what)], Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A socket that a runtime watches.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: AsyncFd<OwnedFd>,
    incoming: Incoming,
    /// What is to be sent.
    out: BytesMut,
    /// It takes no more.
    is_over: bool,
}

impl Channel {
    /// Bytes that wait to be sent.
    pub(crate) fn pending(&self) -> usize {
        self.out.len()
    }

    /// Lets the runtime go, once all is sent.
    pub(crate) fn unwatched(self) -> Waiting {
        Waiting { socket: self.socket.into_inner(), incoming: self.incoming, passed: None }
    }

    /// Sends a message as far as there is room; the rest with [`Channel::poll_flush`].
    pub(crate) fn send(&mut self, message: &[u8]) {
        put(&mut self.out, message);
        self.flush();
    }

    /// Sends what there is room for.
    fn flush(&mut self) {
        while !self.out.is_empty() && !self.is_over {
            match send(self.socket.get_ref(), &self.out, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => self.out.advance(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // The reading side tells that it is over.
                Err(_) => self.is_over = true,
            }
        }
        if self.is_over {
            self.out.clear();
        }
    }

    /// Sends what waits, and has the task woken when there is room for more.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) {
        loop {
            self.flush();
            if self.out.is_empty() {
                return;
            }
            match self.socket.poll_write_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Ok(mut guard)) => guard.clear_ready(),
                Poll::Ready(Err(_)) => self.is_over = true,
            }
        }
    }

    /// The next message; none once the other end is gone.
    ///
    /// # Errors
    /// A message that is too long, or what recv(2) says.
    pub(crate) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<BytesMut>>> {
        loop {
            if let Some(message) = self.incoming.next()? {
                return Poll::Ready(Ok(Some(message)));
            }
            let mut guard = match self.socket.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(guard) => guard?,
            };
            let buffer = &mut self.incoming.0;
            let before = buffer.len();
            buffer.resize(before + CHUNK, 0);
            let space = buffer.get_mut(before..).unwrap_or_default();
            let read = rustix::net::recv(self.socket.get_ref(), space, RecvFlags::DONTWAIT);
            let read = read.map(|(read, _)| read);
            buffer.truncate(before + read.unwrap_or(0));
            match read {
                Ok(0) => return Poll::Ready(Ok(None)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => guard.clear_ready(),
                Err(Errno::CONNRESET | Errno::PIPE) => return Poll::Ready(Ok(None)),
                Err(errno) => return Poll::Ready(Err(errno.into())),
            }
        }
    }
}
