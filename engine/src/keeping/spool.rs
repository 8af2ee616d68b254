//! The files that a detached job's output is kept in, for the keeper who writes them: `stdout` and `stderr`, each byte at its offset
//! in the stream, and `order`, which tells in which order they were read ([`Log`](super::log::Log) reads them).
//!
//! `order` begins with a header: its mark, then the offsets from which on stdout and stderr are kept, and those at which its runs
//! begin, eight bytes each, little-endian. Then come runs of eight bytes: how many bytes were read, and in the highest bit from which
//! stream. A run is there once its bytes are.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FallocateFlags, OFlags, fallocate, fstatvfs};
use rustix::io::{Errno, pwrite};

use super::detached::{Detached, OnFull, Spooled};
use super::folder::Folder;
use crate::error::{NotStarted, Step};
use crate::job::Job;
use crate::request::Output;
use crate::runs::{Run, Runs};
use crate::state::Cap;

pub(super) const STDOUT: &str = "stdout";
pub(super) const STDERR: &str = "stderr";
pub(super) const ORDER: &str = "order";

/// What `order` begins with.
pub(super) const MARK: [u8; 8] = *b"remora\0\x01";
/// Bytes of its header.
pub(super) const HEADER: u64 = 64;
/// Where in it it says at which offsets the runs begin.
pub(super) const FIRST: u64 = 24;
/// Bytes of a run.
pub(super) const RUN: u64 = 8;

/// Runs that are written one by one. Beyond it they are gathered, so that they cost little beside what they tell of.
const FINE: u64 = 2 * 1024 * 1024;
/// Bytes of output that are gathered in two runs then.
const COARSE: u64 = 1024 * 1024;

/// Free bytes below which no detached job is started: those that run need some.
const LEAST_FREE: u64 = 4 * 1024 * 1024;

/// Free bytes that the output of those that run leaves alone: who comes to make room needs some, and so do their outcomes.
const LEFT_FREE: u64 = 2 * 1024 * 1024;

/// Bytes that are dropped at once at the least.
const BLOCK: u64 = 4096;
/// And at the most.
const MOST_DROPPED: u64 = 1024 * 1024;

/// One of the two streams.
#[derive(Debug)]
struct Kept {
    file: File,
    /// Offset up to which it is in the file.
    written: u64,
    /// Offset from which on it is.
    start: u64,
    /// Offset up to which the file's blocks were given back.
    punched: u64,
}

/// A detached job's files.
#[derive(Debug)]
pub(crate) struct Spool {
    plan: Detached,
    streams: [Kept; 2],
    order: File,
    /// The offsets at which its runs begin.
    first: [u64; 2],
    /// What was read, and isn't told in `order` yet.
    runs: Runs,
    /// The last run in `order`.
    last: Option<Run>,
    /// How many there are.
    count: u64,
    /// Offsets up to which the runs are written, or gathered.
    told: [u64; 2],
    /// Runs that are to become two, and how many bytes they tell of.
    gathered: Runs,
    sum: u64,
    dropped: bool,
    disk_was_full: bool,
    wants_room: bool,
    has_given_up: bool,
}

impl Spool {
    /// Makes the files. The job's output is kept from `from` on, and the order in which it is read from now on.
    ///
    /// # Errors
    /// No room, or the file system can't do what is asked for.
    pub(crate) fn create(folder: &Folder, plan: Detached, from: [u64; 2]) -> Result<Self, NotStarted> {
        let failed = |errno: Errno| NotStarted::bytes(Step::Spool, Some(errno.raw_os_error()), b"");
        if free(folder.as_fd()).map_err(failed)? < LEAST_FREE {
            return Err(failed(Errno::NOSPC));
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let stream = |name, start| {
            let file = folder.file(name, flags).map_err(failed)?;
            if plan.on_full == OnFull::DropOldest
                && let Err(errno) = punch(&file, 0, BLOCK)
            {
                return Err(NotStarted::bytes(Step::DropOldest, Some(errno.raw_os_error()), b""));
            }
            Ok(Kept { file, written: start, start, punched: 0 })
        };
        let [stdout, stderr] = from;
        let streams = [stream(STDOUT, stdout)?, stream(STDERR, stderr)?];
        let order = folder.file(ORDER, flags).map_err(failed)?;
        let spool = Spool {
            plan,
            streams,
            order,
            first: from,
            runs: Runs::default(),
            last: None,
            count: 0,
            told: from,
            gathered: Runs::default(),
            sum: 0,
            dropped: false,
            disk_was_full: false,
            wants_room: false,
            has_given_up: false,
        };
        spool.write_header().map_err(failed)?;
        // What the streams lie at by then, so that who has the files alone knows their ends.
        for stream in &spool.streams {
            rustix::fs::ftruncate(&stream.file, stream.written).map_err(failed)?;
        }
        Ok(spool)
    }

    /// Up to where the job's streams may be kept.
    pub(crate) fn caps(&self) -> [Option<Cap>; 2] {
        self.streams.each_ref().map(|stream| match self.plan.on_full {
            OnFull::DropOldest => None,
            OnFull::Wait | OnFull::Kill => Some(Cap {
                upto: stream.start.saturating_add(self.plan.limit),
                ends: self.plan.on_full == OnFull::Kill,
                reached: false,
            }),
        })
    }

    /// Writes what the job has printed, and frees it there; whether all of it is written.
    pub(crate) fn drive(&mut self, job: &Job) -> bool {
        self.runs.append(job.take_runs());
        let mut done = true;
        self.wants_room = false;
        if self.has_given_up {
            Output::ALL.iter().for_each(|output| job.acknowledge(*output, job.produced(*output)));
            return true;
        }
        for output in Output::ALL {
            while job.produced(output) > self.written(output) {
                let written = self.write(job, output);
                job.acknowledge(output, self.written(output));
                if let Err(errno) = written {
                    if matches!(errno, Errno::NOSPC | Errno::DQUOT) {
                        (self.disk_was_full, self.wants_room) = (true, true);
                    } else {
                        tracing::error!(%errno, "a detached job's output can't be kept");
                    }
                    done = false;
                    break;
                }
            }
        }
        // Its want of room holds nobody up: it is written when there is some.
        let _ = self.tell_order(false);
        done
    }

    /// All is in the files: to be asked once the job is over.
    ///
    /// # Errors
    /// What the file system says; to be tried again.
    pub(crate) fn finish(&mut self) -> Result<(), Errno> {
        self.tell_order(true)?;
        for file in self.streams.iter().map(|stream| &stream.file).chain([&self.order]) {
            rustix::fs::fdatasync(file)?;
        }
        Ok(())
    }

    /// What became of it.
    pub(crate) fn spooled(&self, job: &Job) -> Spooled {
        Spooled {
            on_full: self.plan.on_full,
            limit: self.plan.limit,
            was_full: self.dropped || job.is_capped(),
            disk_was_full: self.disk_was_full,
            start: self.streams.each_ref().map(|stream| stream.start),
            lost: self.lost(job),
        }
    }

    fn stream(&mut self, output: Output) -> &mut Kept {
        let [stdout, stderr] = &mut self.streams;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    fn written(&mut self, output: Output) -> u64 {
        self.stream(output).written
    }

    /// Writes what there is of a stream, as far as it goes.
    fn write(&mut self, job: &Job, output: Output) -> Result<(), Errno> {
        let from = self.written(output);
        let limit = match self.plan.on_full {
            OnFull::DropOldest => self.plan.limit.max(BLOCK),
            OnFull::Wait | OnFull::Kill => u64::MAX,
        };
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let waiting = job.produced(output) - from;
        let dropped = self.make_room(output, waiting.min(limit), limit)?;
        self.dropped |= dropped;
        let stream = self.stream(output);
        let most = match free(stream.file.as_fd())?.saturating_sub(LEFT_FREE) {
            0 => return Err(Errno::NOSPC),
            room => most.min(usize::try_from(room).unwrap_or(usize::MAX)),
        };
        let result = job.output(output, from, |first, second| {
            let first = first.get(..most).unwrap_or(first);
            let second = second.get(..most - first.len()).unwrap_or(second);
            for mut piece in [first, second] {
                while !piece.is_empty() {
                    match pwrite(&stream.file, piece, stream.written) {
                        Ok(written) => {
                            stream.written += written as u64;
                            piece = piece.get(written..).unwrap_or_default();
                        }
                        Err(Errno::INTR) => {}
                        Err(errno) => return Err(errno),
                    }
                }
            }
            Ok(())
        });
        match result {
            Ok(result) => result,
            Err(error) => {
                tracing::error!(%error, "a detached job's output isn't where it was");
                Err(Errno::IO)
            }
        }
    }

    /// Drops the oldest bytes of a stream, so that so many more fit; whether there were any.
    fn make_room(&mut self, output: Output, wanted: u64, limit: u64) -> Result<bool, Errno> {
        let stream = self.stream(output);
        let end = stream.written.saturating_add(wanted);
        if end - stream.start <= limit {
            return Ok(false);
        }
        let step = (limit / 16).clamp(BLOCK, MOST_DROPPED);
        let start = (end - limit).max(stream.start.saturating_add(step)).min(stream.written);
        if start == stream.start {
            return Ok(false);
        }
        stream.start = start;
        // Told before they are gone: who reads meanwhile sees that it has read nothing.
        self.write_header()?;
        let stream = self.stream(output);
        let upto = start / BLOCK * BLOCK;
        if upto > stream.punched {
            punch(&stream.file, stream.punched, upto - stream.punched)?;
            stream.punched = upto;
        }
        Ok(true)
    }

    /// Bytes at the end of each stream that are given up.
    fn lost(&self, job: &Job) -> [u64; 2] {
        let [stdout, stderr] = self.streams.each_ref().map(|stream| stream.written);
        [job.produced(Output::Stdout) - stdout, job.produced(Output::Stderr) - stderr]
    }

    /// Whether it could not write all there was when it was asked last, for want of room on the disk.
    pub(crate) fn wants_room(&self) -> bool {
        self.wants_room
    }

    /// Gives up what is not written, and what comes from now on: somebody wants the job to be over.
    pub(crate) fn give_up(&mut self) {
        self.has_given_up = true;
    }

    fn write_header(&self) -> Result<(), Errno> {
        let [stdout, stderr] = self.streams.each_ref().map(|stream| stream.start.to_le_bytes());
        let [first_stdout, first_stderr] = self.first.map(u64::to_le_bytes);
        let header = [MARK, stdout, stderr, first_stdout, first_stderr];
        write_all(&self.order, header.as_flattened(), 0)
    }

    /// Writes the runs whose bytes are in the files.
    fn tell_order(&mut self, is_last: bool) -> Result<(), Errno> {
        let [stdout, stderr] = self.streams.each_ref().map(|stream| stream.written);
        let written = |output| match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        };
        loop {
            let [stdout, stderr] = self.told;
            let told = |output| match output {
                Output::Stdout => stdout,
                Output::Stderr => stderr,
            };
            let Some(run) = self.runs.take(|output| written(output) - told(output)) else { break };
            *self.told(run.output) += run.length;
            if self.count < FINE {
                if let Err(errno) = self.write_run(run) {
                    *self.told(run.output) -= run.length;
                    self.runs.put_back(run);
                    return Err(errno);
                }
            } else {
                self.gathered.push(run.output, run.length);
                self.sum += run.length;
            }
        }
        if self.sum >= COARSE || is_last {
            let mut lengths = [(Output::Stdout, 0), (Output::Stderr, 0)];
            let mut gathered = std::mem::take(&mut self.gathered);
            while let Some(run) = gathered.take(|_| u64::MAX) {
                lengths
                    .iter_mut()
                    .filter(|(output, _)| *output == run.output)
                    .for_each(|(_, n)| *n += run.length);
            }
            for (output, length) in lengths {
                // What fails here is told later, and nobody waits for it.
                if length > 0 && self.write_run(Run { output, length }).is_err() {
                    self.gathered.push(output, length);
                }
            }
            self.sum = 0;
        }
        Ok(())
    }

    /// Writes a run behind the last, or as a part of that.
    fn write_run(&mut self, run: Run) -> Result<(), Errno> {
        let (whole, place) = match self.last {
            Some(last) if last.output == run.output => {
                (Run { length: last.length + run.length, ..run }, self.count.saturating_sub(1))
            }
            _ => (run, self.count),
        };
        write_all(&self.order, &whole.to_bytes(), HEADER + place * RUN)?;
        self.last = Some(whole);
        self.count = place + 1;
        Ok(())
    }

    fn told(&mut self, output: Output) -> &mut u64 {
        let [stdout, stderr] = &mut self.told;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }
}

fn punch(file: &File, from: u64, length: u64) -> Result<(), Errno> {
    fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, length)
}

/// Bytes that are free to this account on a file's file system.
fn free(file: BorrowedFd<'_>) -> Result<u64, Errno> {
    let found = fstatvfs(file)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

fn write_all(file: &File, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match pwrite(file.as_fd(), bytes, at) {
            Ok(written) => {
                at += written as u64;
                bytes = bytes.get(written..).unwrap_or_default();
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use remora_identity::{Account, Authenticated, Permitted, Policy};

    use super::super::folder::{JobKey, Jobs};
    use super::super::log::{Log, LogPiece};
    use super::*;
    use crate::config::EngineConfig;
    use crate::engine::Engine;
    use crate::outcome::{EndReason, Ended, LimitKind};
    use crate::request::{JobRequest, Limits};

    struct Done {
        ended: Arc<Ended>,
        spooled: Spooled,
        log: Log,
        _root: tempfile::TempDir,
    }

    fn permitted(request: JobRequest) -> Permitted<JobRequest> {
        let uid = rustix::process::geteuid().as_raw();
        let account = crate::sys::account(crate::sys::AccountKey::Uid(uid)).unwrap().unwrap();
        let account = Account { shell: "/bin/sh".into(), ..account };
        let who = Authenticated::by_peer_uid(uid, &account, &account.name).unwrap();
        Policy::serving(account).permit(&who, request).unwrap()
    }

    /// Runs a line whose output is spooled, and looks on with its files' reader.
    async fn run(line: &str, plan: Detached, mut look: impl FnMut(&Job, &Log)) -> Done {
        let root = tempfile::tempdir().unwrap();
        let jobs = Jobs::open(&root.path().join("jobs")).unwrap();
        let key = JobKey([1; 16]);
        let folder = jobs.make(key).unwrap();
        let mut spool = Spool::create(&folder, plan, [0; 2]).unwrap();
        let log = Log::open(&folder).unwrap();
        let config = EngineConfig { kill_grace: Duration::from_millis(100), ..EngineConfig::default() };
        let engine = Engine::new(config).unwrap();
        let news = Arc::new(tokio::sync::Notify::new());
        let on_change = Arc::clone(&news);
        let job = engine
            .start(
                permitted(JobRequest::line(line)),
                Limits::default(),
                Arc::new(move || on_change.notify_one()),
            )
            .unwrap();
        job.spool(spool.caps());
        let ended = loop {
            let finished = job.finished();
            assert!(spool.drive(&job));
            look(&job, &log);
            if let Some(ended) = finished {
                break ended;
            }
            let _ = tokio::time::timeout(Duration::from_millis(20), news.notified()).await;
        };
        spool.finish().unwrap();
        Done { ended, spooled: spool.spooled(&job), log, _root: root }
    }

    fn all(log: &Log, output: Output) -> Vec<u8> {
        let start = log.start(output).unwrap();
        log.read(output, start, usize::MAX).unwrap().bytes
    }

    /// Both streams, read a few bytes at a time.
    fn both(log: &Log, most: usize) -> Vec<LogPiece> {
        let (mut all, mut at) = (Vec::new(), 0);
        loop {
            let (pieces, next) = log.read_both(at, most, true).unwrap();
            if next == at {
                return all;
            }
            all.extend(pieces);
            at = next;
        }
    }

    fn plan(limit: u64, on_full: OnFull) -> Detached {
        Detached { limit, on_full, lease: None }
    }

    #[tokio::test]
    async fn what_is_printed_is_in_the_files_and_in_its_order() {
        let line = "for i in 1 2 3 4; do echo out$i; sleep 0.1; echo err$i >&2; sleep 0.1; done";
        let done = run(line, Detached::default(), |_, _| {}).await;
        assert_eq!(all(&done.log, Output::Stdout), b"out1\nout2\nout3\nout4\n");
        assert_eq!(all(&done.log, Output::Stderr), b"err1\nerr2\nerr3\nerr4\n");
        assert_eq!(done.ended.stdout.length, 20);
        assert!(!done.spooled.was_full && done.spooled.start == [0; 2]);
        for most in [1, 3, 7, 1000] {
            let text: Vec<u8> = both(&done.log, most).into_iter().flat_map(|piece| piece.bytes).collect();
            assert_eq!(
                String::from_utf8(text).unwrap(),
                "out1\nerr1\nout2\nerr2\nout3\nerr3\nout4\nerr4\n",
                "{most}"
            );
        }
    }

    #[tokio::test]
    async fn a_full_spool_holds_the_command_back_and_what_it_leaves_in_its_pipe_is_kept() {
        let mut asked = false;
        let line = "head -c 3000000 /dev/zero; echo never";
        let done = run(line, plan(100_000, OnFull::Wait), |job, log| {
            assert!(asked || log.end(Output::Stdout).unwrap() <= 100_000);
            if job.is_capped() && !std::mem::replace(&mut asked, true) {
                assert_eq!(log.end(Output::Stdout).unwrap(), 100_000);
                job.close(EndReason::Stop);
            }
        })
        .await;
        assert!(asked && done.spooled.was_full);
        assert_eq!(done.ended.stopped, Some(EndReason::Stop));
        // A pipe's worth more, and all of it counted.
        let kept = all(&done.log, Output::Stdout).len() as u64;
        assert!((100_000..2_000_000).contains(&kept), "{kept}");
        assert_eq!(done.ended.stdout.length, kept);
        assert!(!done.ended.stdout.cut);
    }

    #[tokio::test]
    async fn what_fits_exactly_is_no_excess() {
        for on_full in [OnFull::Wait, OnFull::Kill] {
            let done = run("head -c 100000 /dev/zero", plan(100_000, on_full), |_, _| {}).await;
            assert!(!done.spooled.was_full, "{on_full:?}");
            assert_eq!((done.ended.stopped, done.ended.stdout.length), (None, 100_000));
        }
    }

    #[tokio::test]
    async fn a_full_spool_ends_the_command_and_says_so() {
        let done = run("exec cat /dev/zero", plan(100_000, OnFull::Kill), |_, _| {}).await;
        assert!(done.spooled.was_full);
        assert_eq!(done.ended.stopped, Some(EndReason::Limit(LimitKind::Spool)));
        assert!(done.ended.stdout.cut);
        assert_eq!((done.ended.stdout.length, all(&done.log, Output::Stdout).len()), (100_000, 100_000));
    }

    #[tokio::test]
    async fn the_oldest_output_is_dropped_and_the_rest_is_where_it_was() {
        use std::os::unix::fs::MetadataExt;
        let line = "seq 1 400000; echo end >&2";
        let done = run(line, plan(300_000, OnFull::DropOldest), |_, log| {
            let (start, end) = (log.start(Output::Stdout).unwrap(), log.end(Output::Stdout).unwrap());
            assert!(end - start <= 300_000, "{start} {end}");
        })
        .await;
        let whole: Vec<u8> = (1..=400_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let start = done.log.start(Output::Stdout).unwrap();
        assert_eq!((done.ended.stopped, done.ended.stdout.length), (None, whole.len() as u64));
        assert!(done.spooled.was_full && done.spooled.start == [start, 0]);
        assert!(start >= whole.len() as u64 - 300_000 && start < whole.len() as u64 - 200_000, "{start}");
        assert!(all(&done.log, Output::Stdout) == whole[start as usize..]);
        assert_eq!(done.log.read(Output::Stdout, start - 1, 10).unwrap().bytes, b"");
        // Which of the two was read first at the end is chance.
        let (stdout, stderr): (Vec<_>, Vec<_>) =
            both(&done.log, 1000).into_iter().partition(|piece| piece.output == Output::Stdout);
        assert_eq!(stdout.first().map(|piece| piece.offset), Some(start));
        assert_eq!(stderr.iter().map(|piece| piece.bytes.as_slice()).collect::<Vec<_>>(), [b"end\n"]);
        let blocks = done.log.file(Output::Stdout).metadata().unwrap().blocks();
        assert!(blocks * 512 <= 320_000, "{blocks}");
    }
}
