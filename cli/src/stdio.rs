//! Our own standard streams, read and written without blocking the one thread there is.
//!
//! A pipe or terminal is opened anew through /proc/self/fd, so that O_NONBLOCK holds for us alone: the flag belongs to
//! the open file description (fcntl(2)), which we share with whoever gave it to us.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use bytes::{Bytes, BytesMut};
use remora_net::Buffers;
use rustix::fs::FileType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

/// Most bytes read at once.
const READ: usize = 256 * 1024;

/// Which of the two output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Stdout,
    Stderr,
}

/// Bytes for a writing thread, and where it says how that went.
type Write1 = (Bytes, oneshot::Sender<io::Result<()>>);

/// A stream to write to.
pub(crate) enum Sink {
    /// Always ready: a file, /dev/null.
    Direct(File),
    /// Waited for: a pipe, a terminal.
    Polled(pipe::Sender),
    /// A thread writes: a socket, or what can't be opened anew.
    Thread(mpsc::Sender<Write1>),
    /// There is no such stream, or nobody reads it.
    Closed,
}

impl Sink {
    pub(crate) fn open(which: Which) -> Self {
        let stdout = io::stdout();
        let stderr = io::stderr();
        let (fd, path) = match which {
            Which::Stdout => (stdout.as_fd(), "/proc/self/fd/1"),
            Which::Stderr => (stderr.as_fd(), "/proc/self/fd/2"),
        };
        let Ok(own) = fd.try_clone_to_owned() else { return Sink::Closed };
        match kind(&own) {
            Ok(Kind::Ready) => Sink::Direct(File::from(own)),
            Ok(Kind::Stream) => match pipe::OpenOptions::new().unchecked(true).open_sender(path) {
                Ok(polled) => Sink::Polled(polled),
                // The reader of the pipe is gone already (fifo(7), ENXIO).
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                    Sink::Closed
                }
                Err(_) => Sink::thread(File::from(own)),
            },
            Ok(Kind::Socket) => Sink::thread(File::from(own)),
            Err(_) => Sink::Closed,
        }
    }

    fn thread(mut file: File) -> Self {
        let (queue, mut work) = mpsc::channel::<Write1>(1);
        std::thread::spawn(move || {
            while let Some((bytes, done)) = work.blocking_recv() {
                let _ = done.send(file.write_all(&bytes));
            }
        });
        Sink::Thread(queue)
    }

    /// Writes all of it.
    ///
    /// # Errors
    /// I/O errors; [`io::ErrorKind::BrokenPipe`] when nobody reads any more.
    pub(crate) async fn write(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Sink::Direct(file) => file.write_all(&bytes),
            Sink::Polled(pipe) => pipe.write_all(&bytes).await,
            Sink::Thread(queue) => {
                let (done, written) = oneshot::channel();
                let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
                queue.send((bytes, done)).await.map_err(|_| gone())?;
                written.await.map_err(|_| gone())?
            }
            Sink::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

/// Our standard input.
pub(crate) struct Source {
    stream: Stream,
    buffer: BytesMut,
    buffers: Buffers,
}

enum Stream {
    Direct(File),
    Polled(pipe::Receiver),
    Thread(mpsc::Receiver<io::Result<Bytes>>),
    Ended,
}

impl Source {
    pub(crate) fn open() -> Self {
        Source { stream: Stream::open(), buffer: BytesMut::new(), buffers: Buffers::default() }
    }

    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Bytes>> {
        self.buffers.make_room(&mut self.buffer);
        let count = match &mut self.stream {
            Stream::Direct(file) => {
                let room = self.buffer.capacity().min(READ);
                self.buffer.resize(room, 0);
                let count = file.read(&mut self.buffer)?;
                self.buffer.truncate(count);
                count
            }
            Stream::Polled(pipe) => pipe.read_buf(&mut self.buffer).await?,
            Stream::Thread(chunks) => return chunks.recv().await.transpose(),
            Stream::Ended => 0,
        };
        Ok((count > 0).then(|| self.buffer.split().freeze()))
    }
}

impl Stream {
    fn open() -> Self {
        let stdin = io::stdin();
        let Ok(own) = stdin.as_fd().try_clone_to_owned() else { return Stream::Ended };
        match kind(&own) {
            Ok(Kind::Ready) => Stream::Direct(File::from(own)),
            Ok(Kind::Stream) => {
                match pipe::OpenOptions::new().unchecked(true).open_receiver("/proc/self/fd/0") {
                    Ok(polled) => Stream::Polled(polled),
                    Err(_) => Stream::thread(File::from(own)),
                }
            }
            Ok(Kind::Socket) => Stream::thread(File::from(own)),
            Err(_) => Stream::Ended,
        }
    }

    fn thread(mut file: File) -> Self {
        let (queue, chunks) = mpsc::channel(1);
        std::thread::spawn(move || {
            let mut buffer = vec![0; READ];
            loop {
                let chunk = match file.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => Ok(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = chunk.is_err();
                if queue.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        Stream::Thread(chunks)
    }
}

/// Whether our stdin holds something that nobody has read: the rest of a file, or what a pipe or socket has ready. A terminal
/// holds what a person types to whoever reads next, and doesn't count.
pub(crate) fn input_waits() -> bool {
    let stdin = io::stdin();
    let Ok(stat) = rustix::fs::fstat(&stdin) else { return false };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {
            let size = u64::try_from(stat.st_size).unwrap_or_default();
            rustix::fs::tell(&stdin).is_ok_and(|offset| offset < size)
        }
        FileType::Fifo | FileType::Socket => rustix::io::ioctl_fionread(&stdin).is_ok_and(|count| count > 0),
        _ => false,
    }
}

/// Whether somebody gives us a stdin to read: a pipe, the rest of a file, or what a socket holds. A terminal, a device and none are nothing
/// of the kind, and a socket that says nothing is how some programs start others.
pub(crate) fn is_given() -> bool {
    let is_pipe = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    rustix::fs::fstat(io::stdin()).is_ok_and(is_pipe) || input_waits()
}

enum Kind {
    Ready,
    Stream,
    Socket,
}

fn kind(fd: &OwnedFd) -> io::Result<Kind> {
    let mode = rustix::fs::fstat(fd)?.st_mode;
    Ok(match FileType::from_raw_mode(mode) {
        FileType::Fifo => Kind::Stream,
        FileType::CharacterDevice if rustix::termios::isatty(fd) => Kind::Stream,
        FileType::Socket => Kind::Socket,
        _ => Kind::Ready,
    })
}
