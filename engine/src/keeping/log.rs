//! A detached job's output, as who reads its files sees it: [`Spool`](super::spool::Spool) writes them, and may do so meanwhile.

use std::fs::File;
use std::io;

use rustix::fs::OFlags;
use rustix::io::{Errno, pread};

use super::folder::Folder;
use super::spool::{FIRST, HEADER, MARK, ORDER, RUN, STDERR, STDOUT};
use crate::request::Output;
use crate::runs::Run;

/// Pieces of [`Log::read_both`] at the most.
const MOST_PIECES: usize = 1024;

/// Bytes of runs that are read at once.
const RUNS: usize = 64 * 1024;

/// A detached job's output.
#[derive(Debug)]
pub struct Log {
    streams: [File; 2],
    order: File,
}

/// Bytes of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPart {
    /// The bytes; none where the offset isn't kept any more, or there are none yet.
    pub bytes: Vec<u8>,
    /// Offset from which on the stream is kept.
    pub start: u64,
    /// Offset up to which it is there.
    pub end: u64,
}

/// Bytes of either stream, in the order in which they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPiece {
    /// Which.
    pub output: Output,
    /// Offset in that stream.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Log {
    /// Opens the files of a job.
    ///
    /// # Errors
    /// What open(2) says.
    pub(crate) fn open(folder: &Folder) -> io::Result<Self> {
        let open = |name| folder.file(name, OFlags::RDONLY);
        Ok(Log { streams: [open(STDOUT)?, open(STDERR)?], order: open(ORDER)? })
    }

    pub(super) fn file(&self, output: Output) -> &File {
        let [stdout, stderr] = &self.streams;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    /// Offset from which on a stream is kept.
    ///
    /// # Errors
    /// What pread(2) says, or a file that isn't what it should be.
    pub fn start(&self, output: Output) -> io::Result<u64> {
        let mut header = [[0; 8]; 4];
        read_exact(&self.order, header.as_flattened_mut(), 0)?;
        let [mark, stdout, stderr, _] = header;
        if mark != MARK {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a job's order of output is none"));
        }
        Ok(u64::from_le_bytes(match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }))
    }

    /// Offset up to which a stream is there.
    ///
    /// # Errors
    /// What fstat(2) says.
    pub fn end(&self, output: Output) -> io::Result<u64> {
        Ok(self.file(output).metadata()?.len())
    }

    /// Reads a stream from an offset on.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, output: Output, from: u64, most: usize) -> io::Result<LogPart> {
        let end = self.end(output)?;
        let length = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX).min(most);
        let mut bytes = vec![0; length];
        read_exact(self.file(output), &mut bytes, from)?;
        // Asked behind it: what was dropped meanwhile was read as zeros.
        let start = self.start(output)?;
        if from < start {
            bytes.clear();
        }
        Ok(LogPart { bytes, start, end })
    }

    /// Reads both streams in the order in which they came, from an offset on that counts the bytes of both; and where to go on. What
    /// is not kept any more is left out. `is_over`: nothing comes any more, and what `order` doesn't tell of is told behind the rest.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read_both(&self, from: u64, most: usize, is_over: bool) -> io::Result<(Vec<LogPiece>, u64)> {
        let mut reading =
            Reading { log: self, from, left: most, pieces: Vec::new(), at: 0, next: from, is_full: false };
        // Before that of the order: all that it tells of is there then.
        let mut offsets = [self.first(Output::Stdout)?, self.first(Output::Stderr)?];
        let mut place = HEADER;
        let mut bytes = vec![0; RUNS];
        while !reading.is_full {
            let read = pread_some(&self.order, &mut bytes, place)?;
            let runs = bytes.get(..read / 8 * 8).unwrap_or_default();
            if runs.is_empty() {
                break;
            }
            for run in runs.as_chunks().0.iter().map(|bytes| Run::from_bytes(*bytes)) {
                reading.run(run.output, run.length, &mut offsets)?;
            }
            place += runs.len() as u64;
        }
        debug_assert_eq!(RUN, 8);
        if is_over {
            for output in Output::ALL {
                let told = *offset(&mut offsets, output);
                reading.run(output, self.end(output)?.saturating_sub(told), &mut offsets)?;
            }
        }
        Ok((reading.pieces, reading.next))
    }

    /// Where the last lines of a stream begin, or of both in their order: an offset as [`Log::read`] or [`Log::read_both`] takes it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn tail(&self, output: Option<Output>, lines: u64, is_over: bool) -> io::Result<u64> {
        let mut back = Back { left: lines, is_last: true };
        let Some(output) = output else {
            let runs = self.runs(is_over)?;
            let mut at: u64 = runs.iter().map(|run| run.length).sum();
            for RunAt { output, begins, length } in runs.into_iter().rev() {
                let found = back.find(self, output, begins, begins + length)?;
                if let Some(found) = found {
                    return Ok(at - (begins + length - found));
                }
                at -= length;
            }
            return Ok(0);
        };
        let start = self.start(output)?;
        Ok(back.find(self, output, start, self.end(output)?)?.unwrap_or(start))
    }

    /// All runs.
    fn runs(&self, is_over: bool) -> io::Result<Vec<RunAt>> {
        let mut offsets = [self.first(Output::Stdout)?, self.first(Output::Stderr)?];
        let (mut runs, mut place, mut bytes) = (Vec::new(), HEADER, vec![0; RUNS]);
        loop {
            let read = pread_some(&self.order, &mut bytes, place)?;
            let found = bytes.get(..read / 8 * 8).unwrap_or_default();
            if found.is_empty() {
                break;
            }
            for run in found.as_chunks().0.iter().map(|bytes| Run::from_bytes(*bytes)) {
                let Run { output, length } = run;
                let begins = offset(&mut offsets, output);
                runs.push(RunAt { output, begins: *begins, length });
                *begins = begins.saturating_add(length);
            }
            place += found.len() as u64;
        }
        if is_over {
            for output in Output::ALL {
                let told = *offset(&mut offsets, output);
                let length = self.end(output)?.saturating_sub(told);
                runs.push(RunAt { output, begins: told, length });
            }
        }
        // A damaged order may tell of more than was ever written.
        let ends = [self.end(Output::Stdout)?, self.end(Output::Stderr)?];
        for run in &mut runs {
            let [stdout, stderr] = ends;
            let end = if run.output == Output::Stdout { stdout } else { stderr };
            run.length = run.length.min(end.saturating_sub(run.begins));
        }
        Ok(runs)
    }

    /// Where the first run of a stream begins.
    fn first(&self, output: Output) -> io::Result<u64> {
        let mut first = [0; 8];
        let at = match output {
            Output::Stdout => FIRST,
            Output::Stderr => FIRST + 8,
        };
        read_exact(&self.order, &mut first, at)?;
        Ok(u64::from_le_bytes(first))
    }
}

fn offset(offsets: &mut [u64; 2], output: Output) -> &mut u64 {
    let [stdout, stderr] = offsets;
    match output {
        Output::Stdout => stdout,
        Output::Stderr => stderr,
    }
}

/// A run, and where in its stream it begins.
struct RunAt {
    output: Output,
    begins: u64,
    length: u64,
}

/// Bytes that are searched at once for the ends of lines.
const SEARCHED: u64 = 64 * 1024;

/// A search for the last lines.
struct Back {
    left: u64,
    /// Nothing was seen yet: a line's end at the very end begins no line.
    is_last: bool,
}

impl Back {
    /// Looks backwards through a part of a stream; where the lines begin, if there.
    fn find(&mut self, log: &Log, output: Output, from: u64, to: u64) -> io::Result<Option<u64>> {
        let from = from.max(log.start(output)?);
        let mut to = to;
        while to > from {
            let begins = from.max(to.saturating_sub(SEARCHED));
            let most = usize::try_from(to - begins).unwrap_or(usize::MAX);
            let part = log.read(output, begins, most)?;
            for (place, byte) in part.bytes.iter().enumerate().rev() {
                if *byte == b'\n' && !self.is_last {
                    self.left = self.left.saturating_sub(1);
                    if self.left == 0 {
                        return Ok(Some(begins + place as u64 + 1));
                    }
                }
                self.is_last = false;
            }
            to = begins;
        }
        Ok(None)
    }
}

/// A reading of both streams.
struct Reading<'a> {
    log: &'a Log,
    from: u64,
    left: usize,
    pieces: Vec<LogPiece>,
    /// How many bytes the runs so far tell of.
    at: u64,
    /// Where to go on.
    next: u64,
    is_full: bool,
}

impl Reading<'_> {
    fn run(&mut self, output: Output, length: u64, offsets: &mut [u64; 2]) -> io::Result<()> {
        let begins = *offset(offsets, output);
        *offset(offsets, output) = begins.saturating_add(length);
        let skip = self.from.saturating_sub(self.at).min(length);
        self.at = self.at.saturating_add(length);
        if skip == length || self.is_full {
            return Ok(());
        }
        let (mut begins, mut wanted) = (begins.saturating_add(skip), length - skip);
        let start = self.log.start(output)?;
        let gone = start.saturating_sub(begins).min(wanted);
        (begins, wanted) = (begins.saturating_add(gone), wanted - gone);
        self.next = self.next.saturating_add(gone);
        if wanted == 0 {
            return Ok(());
        }
        let most = usize::try_from(wanted).unwrap_or(usize::MAX).min(self.left);
        let part = self.log.read(output, begins, most)?;
        let read = part.bytes.len();
        self.left -= read;
        self.next += read as u64;
        self.is_full = (read as u64) < wanted || self.left == 0 || self.pieces.len() + 1 >= MOST_PIECES;
        if read > 0 {
            self.pieces.push(LogPiece { output, offset: begins, bytes: part.bytes });
        }
        Ok(())
    }
}

fn pread_some(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match pread(file, rest, at + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(done)
}

fn read_exact(file: &File, bytes: &mut [u8], at: u64) -> io::Result<()> {
    let length = bytes.len();
    match pread_some(file, bytes, at)? {
        read if read == length => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::super::folder::{JobKey, Jobs};
    use super::*;

    /// A log whose `order` was damaged tells less, or something else, and comes to an end.
    #[test]
    fn no_bytes_of_an_order_are_a_panic_or_have_more_read_than_there_is() {
        let root = tempfile::tempdir().unwrap();
        let folder = Jobs::open(&root.path().join("jobs")).unwrap().make(JobKey([1; 16])).unwrap();
        let create = |name| folder.file(name, OFlags::RDWR | OFlags::CREATE).unwrap();
        let (stdout, stderr, order) = (create(STDOUT), create(STDERR), create(ORDER));
        stdout.write_all_at(b"one\ntwo\nthree\n", 0).unwrap();
        stderr.write_all_at(b"not\nso\n", 0).unwrap();
        let mut whole = MARK.to_vec();
        whole.resize(usize::try_from(HEADER).unwrap(), 0);
        for (output, length) in
            [(Output::Stdout, 8), (Output::Stderr, 4), (Output::Stdout, 6), (Output::Stderr, 3)]
        {
            whole.extend_from_slice(&Run { output, length }.to_bytes());
        }
        let log = Log::open(&folder).unwrap();
        for (number, bytes) in remora_testkit::mutants(9, &whole, 3000).enumerate() {
            order.set_len(0).unwrap();
            order.write_all_at(&bytes, 0).unwrap();
            for from in [0, 5, u64::MAX - 1] {
                if let Ok((pieces, _)) = log.read_both(from, 1000, true) {
                    let read: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
                    assert!(read <= 1000, "{number}: {read} bytes of {bytes:?}");
                }
            }
            for lines in [1, 3, u64::MAX] {
                for output in [None, Some(Output::Stdout), Some(Output::Stderr)] {
                    // A stream's own beginning is whatever the header says.
                    if let Ok(at) = log.tail(output, lines, true) {
                        assert!(at <= 21 || output.is_some(), "{number}: {at} of {bytes:?}");
                    }
                }
            }
        }
    }
}
