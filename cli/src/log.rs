//! The daemon's log on standard error, which never holds the daemon up.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::EnvFilter;

use crate::terminal::say;

/// Longest line: what a pipe that is ready takes without blocking (pipe(7), PIPE_BUF).
const LINE: usize = 4096;

/// Lines that nobody took.
static LOST: AtomicU64 = AtomicU64::new(0);

/// Logs to standard error from now on, as `REMORA_LOG` says: a level, or a filter such as `remora_server=debug`.
pub(crate) fn start() {
    let filter = std::env::var("REMORA_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|error| {
        say(&format!("REMORA_LOG: {error}; logging at info"));
        EnvFilter::new("info")
    });
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Log).with_ansi(false).try_init();
}

/// Writes a line if standard error takes it now. The one thread of the server also serves every connection, and must not wait for a
/// log that nobody reads: what isn't taken is counted, and the count is the next line.
struct Log;

impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let mut ready = [PollFd::new(&stderr, PollFlags::OUT)];
        let now = Timespec::try_from(Duration::ZERO).map_err(io::Error::other)?;
        let takes = matches!(poll(&mut ready, Some(&now)), Ok(1..))
            && ready.iter().all(|fd| fd.revents().contains(PollFlags::OUT));
        if !takes {
            LOST.fetch_add(1, Ordering::Relaxed);
            return Ok(line.len());
        }
        let lost = LOST.swap(0, Ordering::Relaxed);
        let mut text = if lost > 0 {
            format!("remora: {lost} lines of the log were lost\n").into_bytes()
        } else {
            Vec::new()
        };
        let room = LINE - text.len();
        match line.get(..room) {
            Some(head) if line.len() > room => {
                text.extend_from_slice(head.get(..room - 1).unwrap_or(head));
                text.push(b'\n');
            }
            _ => text.extend_from_slice(line),
        }
        // A log that is gone is no reason to stop serving.
        let _ = stderr.lock().write_all(&text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
