//! `--capture`: what travels on a connection, in a file that `remora wire decode` reads.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, PoisonError};

use remora_net::{Direction, Tap};

use super::receipt::hex;
use crate::arguments::Reach;
use crate::printable::escape;
use crate::terminal::Failure;

/// Writes what travels to a file that nobody else can read, a line per write or read.
///
/// # Errors
/// The file can't be made.
pub(super) fn tap(reach: &Reach) -> Result<Option<Tap>, Failure> {
    let Some(path) = &reach.capture else { return Ok(None) };
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path).map_err(|error| {
        Failure::usage(format!("can't write {}: {error}", escape(&path.display().to_string())))
    })?;
    let file = Mutex::new(file);
    Ok(Some(Arc::new(move |direction, bytes| {
        let mark = match direction {
            Direction::Sent => '>',
            Direction::Received => '<',
        };
        let line = format!("{mark} {}\n", hex(bytes));
        // A debugging aid; a full disk doesn't end the command.
        let _ = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    })))
}
