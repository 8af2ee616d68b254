//! `remora logs --keep`: all that a detached command has printed, its order and its receipt, in a folder.

use std::path::Path;

use remora_client::{Class, proto};

use super::super::ending::lost;
use super::super::folder::{Folder, Run};
use super::ask::At;
use super::end::lost_bytes;
use super::list::id;
use super::wait::{WAIT, look};
use crate::terminal::Failure;

/// Keeps it, once it is over.
pub(super) async fn keep(path: &Path, waits: bool, at: &At, job: &proto::JobInfo) -> Result<(), Failure> {
    let name = at.name.as_str();
    let mut job = look(at, job, 0, true).await?;
    while job.receipt.is_none() && waits {
        job = look(at, &job, WAIT, true).await?;
    }
    let Some(receipt) = &job.receipt else {
        let failure = Failure::new(Class::Refused, name, "the command runs, and has no receipt yet");
        return Err(failure.with_hint("--follow waits for its end"));
    };
    for (stream, start) in [("stdout", job.stdout_start), ("stderr", job.stderr_start)] {
        if start > 0 {
            let text = format!("the host keeps {stream} from offset {start} only: it isn't whole");
            return Err(Failure::new(Class::Refused, name, text)
                .with_hint("remora logs without --keep prints what is left"));
        }
    }
    if let Some(text) = receipt.spool.as_ref().and_then(lost_bytes) {
        return Err(Failure::new(Class::Refused, name, format!("it isn't whole: {text}"))
            .with_hint("remora logs without --keep prints what is left"));
    }
    let kept = at.connection.receipt_to_keep(&job).map_err(|error| lost(name, &error))?;
    let (mut folder, mut copies) = Folder::begin(path)?;
    let mut digests = [blake3::Hasher::new(), blake3::Hasher::new()];
    let mut ask = proto::ReadLog { job: id(&job), ..proto::ReadLog::default() };
    loop {
        let log = at.read_log(ask.clone()).await?;
        let is_over = log.over || log.pieces.is_empty();
        for piece in log.pieces {
            let is_stderr = piece.stream() == proto::Stream::Stderr;
            let [stdout, stderr] = &mut copies;
            let [out, err] = &mut digests;
            let (copy, digest) = if is_stderr { (stderr, err) } else { (stdout, out) };
            copy.take(&piece.bytes);
            digest.update(&piece.bytes);
            folder.add(Run { is_stderr, length: piece.bytes.len() as u64 });
        }
        ask.offset = log.next;
        if is_over {
            break;
        }
    }
    for (stream, report, digest) in
        [("stdout", &receipt.stdout, &digests[0]), ("stderr", &receipt.stderr, &digests[1])]
    {
        let is_right = |report: &proto::StreamReport| {
            report.length == digest.count() && report.blake3 == digest.finalize().as_bytes()
        };
        // A job that was lost has no report.
        if report.as_ref().is_some_and(|report| !is_right(report)) {
            let text = format!("{stream} is not what the receipt says: {} bytes in doubt", digest.count());
            return Err(Failure::new(Class::Lost, name, text));
        }
    }
    folder.finish(name, copies, kept.as_ref())
}
