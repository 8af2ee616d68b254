//! Where a reply waits until its size is known: in memory, then in files without a name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use remora_engine::Output;
use remora_wire::limits;
use remora_wire::plain::Wire;

/// Most bytes of a reply kept in memory.
const MEMORY: usize = 1024 * 1024;
/// Most bytes of a reply where the configuration sets no limit.
const DEFAULT: u64 = 1024 * 1024 * 1024;

/// Longest reply that can be kept for a wire, under the configured limit of a job's output.
pub(super) fn limit(wire: Wire, configured: Option<u64>) -> u64 {
    let limit = configured.unwrap_or(DEFAULT);
    match wire {
        Wire::Length => limit.min(limits::PLAIN_LENGTH),
        Wire::Header => limit.min(limits::PLAIN_TOTAL),
        Wire::Raw => limit,
    }
}

/// Why a reply can't be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoolError {
    #[error("the reply is larger than {0} bytes")]
    TooLarge(u64),
    #[error("the reply can't be kept")]
    Io(#[from] io::Error),
}

/// stdout and stderr of one reply.
#[derive(Debug)]
pub(super) struct Spool {
    stdout: Stream,
    stderr: Stream,
    limit: u64,
    folder: PathBuf,
}

#[derive(Debug, Default)]
struct Stream {
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
}

impl Spool {
    /// An empty reply that may grow to `limit` bytes, on disk in `folder`.
    pub(super) fn new(limit: u64, folder: PathBuf) -> Self {
        Spool { stdout: Stream::default(), stderr: Stream::default(), limit, folder }
    }

    fn stream(&self, which: Output) -> &Stream {
        match which {
            Output::Stdout => &self.stdout,
            Output::Stderr => &self.stderr,
        }
    }

    /// Bytes of a stream.
    pub(super) fn length(&self, which: Output) -> u64 {
        self.stream(which).length
    }

    /// Bytes in all.
    pub(super) fn total(&self) -> u64 {
        self.stdout.length + self.stderr.length
    }

    /// Keeps more of a stream.
    ///
    /// # Errors
    /// [`SpoolError`]; nothing of `bytes` is kept for sure then.
    pub(super) fn push(&mut self, which: Output, bytes: &[u8]) -> Result<(), SpoolError> {
        if self.total() + bytes.len() as u64 > self.limit {
            return Err(SpoolError::TooLarge(self.limit));
        }
        let in_memory = self.stdout.memory.len() + self.stderr.memory.len();
        let stream = match which {
            Output::Stdout => &mut self.stdout,
            Output::Stderr => &mut self.stderr,
        };
        if stream.file.is_none() && in_memory + bytes.len() > MEMORY {
            // Without a name from the start where the file system can (open(2), O_TMPFILE), else removed at once.
            let file = tempfile::tempfile_in(&self.folder)?;
            file.write_all_at(&stream.memory, 0)?;
            stream.memory = Vec::new();
            stream.file = Some(file);
        }
        match &stream.file {
            Some(file) => file.write_all_at(bytes, stream.length)?,
            None => stream.memory.extend_from_slice(bytes),
        }
        stream.length += bytes.len() as u64;
        Ok(())
    }

    /// Adds a line of our own to stderr, which may go beyond the configured limit: it is what tells of it. Beyond what a
    /// wire can announce it is left out.
    pub(super) fn notice(&mut self, text: &str) {
        let bytes = text.as_bytes();
        if self.total() + bytes.len() as u64 > limits::PLAIN_LENGTH {
            return;
        }
        let limit = std::mem::replace(&mut self.limit, u64::MAX);
        if let Err(error) = self.push(Output::Stderr, bytes) {
            tracing::warn!(error = %crate::connection::chain(&error), "a reply lacks its notice");
        }
        self.limit = limit;
    }

    /// Reads a stream from an offset on, at most as much as `buffer` holds; 0 at its end.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn read(&self, which: Output, from: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let stream = self.stream(which);
        if let Some(file) = &stream.file {
            return file.read_at(buffer, from);
        }
        let start = usize::try_from(from).unwrap_or(usize::MAX);
        let rest = stream.memory.get(start..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, byte) in buffer.iter_mut().zip(rest) {
            *to = *byte;
        }
        Ok(count)
    }

    /// Forgets it all.
    pub(super) fn clear(&mut self) {
        self.stdout = Stream::default();
        self.stderr = Stream::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wire_has_its_largest_reply() {
        assert_eq!(limit(Wire::Length, None), DEFAULT);
        assert_eq!(limit(Wire::Length, Some(u64::MAX)), 2_147_483_647);
        assert_eq!(limit(Wire::Header, Some(1 << 40)), 1 << 40);
        assert_eq!(limit(Wire::Raw, Some(7)), 7);
    }

    #[test]
    fn beyond_a_mebibyte_a_reply_is_on_disk_and_nameless() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(10 << 20, folder.path().to_owned());
        let chunk: Vec<u8> = (0..100_003u32).map(|n| (n % 251) as u8).collect();
        spool.push(Output::Stderr, b"few").unwrap();
        for _ in 0..20 {
            spool.push(Output::Stdout, &chunk).unwrap();
            assert!(spool.stdout.memory.len() + spool.stderr.memory.len() <= MEMORY);
        }
        assert!(spool.stdout.file.is_some() && spool.stderr.file.is_none());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut got = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = spool.read(Output::Stdout, got.len() as u64, &mut buffer).unwrap();
            if count == 0 {
                break;
            }
            got.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(got, chunk.repeat(20));
        assert_eq!(spool.read(Output::Stderr, 1, &mut buffer).unwrap(), 2);
        assert_eq!((spool.length(Output::Stdout), spool.total()), (2_000_060, 2_000_063));
    }

    #[test]
    fn the_limit_is_exact() {
        let mut spool = Spool::new(3, "/nonexistent".into());
        spool.push(Output::Stdout, b"ab").unwrap();
        assert!(matches!(spool.push(Output::Stderr, b"cd"), Err(SpoolError::TooLarge(3))));
        spool.push(Output::Stderr, b"c").unwrap();
    }
}
