//! The job of a line that a session carried out itself: over as soon as it begins, with no process.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant, SystemTime};

use crate::job::Job;
use crate::outcome::{Ended, How, InputEnd, OutputEnd, PeakMemory};
use crate::session::SessionChange;
use crate::state::{OnChange, Shared};

/// Makes it. On a terminal each line goes to its beginning, as the kernel's would.
pub(crate) fn job(
    stdout: Vec<u8>,
    status: u8,
    change: SessionChange,
    is_terminal: bool,
    on_change: OnChange,
    running: &Arc<AtomicUsize>,
) -> Job {
    let (start, started) = (Instant::now(), SystemTime::now());
    let stdout = if is_terminal {
        stdout.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(b"\r\n".as_slice())
    } else {
        stdout
    };
    let shared = Arc::new(Shared::answered(&stdout, stdout.len().max(1), on_change, Arc::clone(running)));
    let end = |bytes: &[u8]| OutputEnd {
        length: bytes.len() as u64,
        blake3: *blake3::hash(bytes).as_bytes(),
        held_open: false,
        closed_early: false,
        cut: false,
    };
    shared.finish(Ended {
        how: How::Exited(status.into()),
        stopped: None,
        started,
        ended: SystemTime::now(),
        wall: start.elapsed(),
        user: Duration::ZERO,
        system: Duration::ZERO,
        peak_memory: PeakMemory::AtMost(0),
        memory_limited_by: None,
        stdout: end(&stdout),
        stderr: end(b""),
        stdin: Some(InputEnd { length: 0, blake3: *blake3::hash(b"").as_bytes(), closed_early: true }),
        unread_input: Vec::new(),
        unread_upto: 0,
        pid: 0,
        session: Some(change),
        spooled: None,
        order: Vec::new(),
    });
    Job::new(shared)
}
