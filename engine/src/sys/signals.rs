//! Signals as something to read (signalfd(2)): for a process with one thread and no runtime.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Signals that are blocked, and wait to be read.
#[derive(Debug)]
pub(crate) struct Signals(OwnedFd);

impl Signals {
    /// Blocks signals for this thread, and takes them from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn block(numbers: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: `set` is writable; sigemptyset initialises it before anything reads it.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for number in numbers {
                libc::sigaddset(set.as_mut_ptr(), *number);
            }
            if libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut()) != 0 {
                return Err(io::Error::last_os_error());
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        Ok(Signals(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal that has come; none where none has.
    pub(crate) fn next(&self) -> Option<i32> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        let read = rustix::io::read(&self.0, &mut info).ok()?;
        // The signal's number is the first field (signalfd(2)).
        let number = info.first_chunk::<4>().filter(|_| read == info.len())?;
        i32::try_from(u32::from_ne_bytes(*number)).ok()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets all signals through to this thread.
pub(crate) fn unblock_signals() {
    super::child::set_signal_mask(0);
}

/// A socket that this process was started with, by its number.
///
/// # Errors
/// Where there is no socket of that number.
pub(crate) fn inherited_socket(number: i32) -> io::Result<OwnedFd> {
    let mut kind: libc::c_int = 0;
    let mut size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: numbers, and memory that is writable and as long as is said.
    let result = unsafe {
        libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut size)
    };
    if number <= 2 || result != 0 {
        return Err(io::Error::new(io::ErrorKind::NotFound, "no socket was handed over"));
    }
    // SAFETY: an open socket. It was left open over execve(2) for this one call, and no value of this program owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}
