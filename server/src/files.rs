//! Opens files that others may have put there.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file for reading without waiting for anybody: a FIFO in its place would hold up the one thread that serves every
/// connection until somebody writes to it (fifo(7)). What it is must be checked on the open file.
///
/// # Errors
/// What the kernel says.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(i32::try_from(flags.bits()).unwrap_or(0)).open(path)
}
