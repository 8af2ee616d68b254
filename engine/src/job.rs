//! The handle of a job: what a server does with it.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;

use crate::error::{InputError, NotStarted, OutputError, Step};
use crate::keeping::{Detached, Input, JobKey, Kept, Produced, Snapshot};
use crate::outcome::{EndReason, Ended};
use crate::request::{Output, WindowSize};
use crate::runs::Runs;
use crate::signal::Signal;
use crate::state::{Cap, OutputState, Shared, Stopping};
use crate::terminal;

/// How far an output stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Offset up to which it was acknowledged; what lies before is gone.
    pub acknowledged: u64,
    /// Offset up to which it was read from the command.
    pub produced: u64,
    /// Nothing will come after `produced`.
    pub ended: bool,
}

/// A running or finished job. Clones are the same job.
///
/// Dropping the last handle kills what still runs of it (SIGKILL to the process group) and forgets its output. That is a
/// backstop; a server calls [`Job::close`].
#[derive(Clone)]
pub struct Job {
    handle: Arc<Handle>,
}

struct Handle {
    body: Body,
}

/// Where a job is.
enum Body {
    /// In this process.
    Here(Arc<Shared>),
    /// At a keeper.
    Kept(Arc<Kept>),
}

impl Drop for Handle {
    fn drop(&mut self) {
        match &self.body {
            Body::Here(shared) => {
                let mut state = shared.lock();
                if !state.exited {
                    state.signal(shared.pids, Signal::KILL);
                }
                state.abandoned = true;
                state.wake();
            }
            Body::Kept(kept) => kept.abandon(),
        }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Job {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Job { handle: Arc::new(Handle { body: Body::Here(shared) }) }
    }

    pub(crate) fn kept(kept: Arc<Kept>) -> Self {
        Job { handle: Arc::new(Handle { body: Body::Kept(kept) }) }
    }

    fn body(&self) -> &Body {
        &self.handle.body
    }

    /// Another observer looks from now on, instead of the one before. What happened before is for it to look at by itself.
    pub fn observe(&self, on_change: Arc<dyn Fn() + Send + Sync>) {
        match self.body() {
            Body::Here(shared) => shared.lock().on_change = on_change,
            Body::Kept(kept) => kept.observe(on_change),
        }
    }

    /// Process id of the leader of its session.
    pub(crate) fn session(&self) -> i32 {
        match self.body() {
            Body::Here(shared) => shared.pids.child,
            Body::Kept(kept) => kept.pid(),
        }
    }

    /// Its process id, which is its process group too. For display: once the job is finished it may be another's.
    pub fn pid(&self) -> i32 {
        match self.body() {
            Body::Here(shared) => shared.pids.command,
            Body::Kept(kept) => kept.pid(),
        }
    }

    /// The signal that stopped it (SIGTSTP is Ctrl-Z), while it is stopped: [`Job::signal`] with SIGCONT has it go on. Only
    /// told of a job on a terminal with [`job_control`](crate::Terminal::job_control).
    pub fn stopped(&self) -> Option<Signal> {
        match self.body() {
            Body::Here(shared) => shared.lock().stopped,
            Body::Kept(kept) => kept.stopped(),
        }
    }

    /// Whether the command of a detached job is held back, since the disk is full that its output is kept on.
    pub fn wants_room(&self) -> bool {
        match self.body() {
            Body::Here(_) => false,
            Body::Kept(kept) => kept.wants_room(),
        }
    }

    /// The lease that a detached job has now.
    pub fn lease(&self) -> Option<Duration> {
        match self.body() {
            Body::Here(_) => None,
            Body::Kept(kept) => kept.lease(),
        }
    }

    /// Whether its working directory is the root, since it asked for none and its account's home can't be gone to.
    pub fn is_in_root(&self) -> bool {
        match self.body() {
            Body::Here(shared) => shared.in_root,
            Body::Kept(kept) => kept.is_in_root(),
        }
    }

    /// Gives input at an absolute offset. It is queued, not copied, and written as fast as the command reads.
    ///
    /// Once the command has closed its input, or has none, the bytes are discarded and count as consumed.
    ///
    /// # Errors
    /// [`InputError`] where it doesn't begin where the last ended, or goes beyond [`Job::input_limit`] or the end.
    pub fn write(&self, offset: u64, bytes: Bytes) -> Result<(), InputError> {
        match self.body() {
            Body::Here(shared) => {
                let mut state = shared.lock();
                state.input.give(offset, bytes)?;
                state.wake();
                Ok(())
            }
            Body::Kept(kept) => kept.write(offset, bytes),
        }
    }

    /// Ends the input at an absolute offset: the command reads end-of-file behind it. Bytes up to there may still be given.
    ///
    /// # Errors
    /// [`InputError::BehindEnd`] where bytes behind it were given already, or another end was.
    pub fn end_input(&self, at: u64) -> Result<(), InputError> {
        match self.body() {
            Body::Here(shared) => {
                let mut state = shared.lock();
                state.input.end_at(at)?;
                state.wake();
                Ok(())
            }
            Body::Kept(kept) => kept.end_input(at),
        }
    }

    /// Offset up to which input was given.
    pub fn input_given(&self) -> u64 {
        match self.body() {
            Body::Here(shared) => shared.lock().input.given(),
            Body::Kept(kept) => kept.input_given(),
        }
    }

    /// Where the input ends, if that was said.
    pub fn input_end(&self) -> Option<u64> {
        match self.body() {
            Body::Here(shared) => shared.lock().input.end(),
            Body::Kept(kept) => kept.input_end(),
        }
    }

    /// Offset up to which input was written into the command's pipe, or discarded because it no longer reads.
    pub fn input_consumed(&self) -> u64 {
        match self.body() {
            Body::Here(shared) => shared.lock().input.consumed(),
            Body::Kept(kept) => kept.input_consumed(),
        }
    }

    /// Offset up to which input is taken at the moment: what was consumed, and the window.
    pub fn input_limit(&self) -> u64 {
        match self.body() {
            Body::Here(shared) => shared.lock().input.limit(),
            Body::Kept(kept) => kept.input_limit(),
        }
    }

    /// Whether the command no longer reads input, or has none.
    pub fn input_closed(&self) -> bool {
        match self.body() {
            Body::Here(shared) => shared.lock().input.is_closed(),
            Body::Kept(kept) => kept.input_closed(),
        }
    }

    /// Lends the retained output from an absolute offset on, in two pieces, without copying it.
    ///
    /// `f` runs under the job's lock: it must be quick, and must not call this job.
    ///
    /// # Errors
    /// [`OutputError`] where the offset isn't retained: acknowledged already, or not yet produced.
    pub fn output<R>(
        &self,
        which: Output,
        from: u64,
        f: impl FnOnce(&[u8], &[u8]) -> R,
    ) -> Result<R, OutputError> {
        let shared = match self.body() {
            Body::Here(shared) => shared,
            Body::Kept(kept) => return kept.output(which, from, f),
        };
        let state = shared.lock();
        let ring = &state.output(which).ring;
        match ring.from(from) {
            Some((first, second)) => Ok(f(first, second)),
            None if from < ring.start() => Err(OutputError::Gone { from, kept: ring.start() }),
            None => Err(OutputError::NotYet { from, produced: ring.end() }),
        }
    }

    /// How far an output stream is.
    pub fn progress(&self, which: Output) -> Progress {
        let shared = match self.body() {
            Body::Here(shared) => shared,
            Body::Kept(kept) => return kept.progress(which),
        };
        let state = shared.lock();
        let output = state.output(which);
        Progress { acknowledged: output.ring.start(), produced: output.ring.end(), ended: output.ended }
    }

    /// Everything of it that may change, at one moment. Of a job in this process.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let Body::Here(shared) = self.body() else { return Snapshot::default() };
        let state = shared.lock();
        let produced = |which| {
            let OutputState { ring, ended, .. } = state.output(which);
            let (place, capacity) = ring.place();
            Produced {
                start: ring.start(),
                upto: ring.end(),
                place: place as u64,
                capacity: capacity as u64,
                ended: *ended,
            }
        };
        Snapshot {
            stdin: Input {
                given: state.input.given(),
                consumed: state.input.consumed(),
                end: state.input.end(),
                closed: state.input.is_closed(),
            },
            stdout: produced(Output::Stdout),
            stderr: produced(Output::Stderr),
            stopped: state.stopped.map_or(0, Signal::number),
            wants_room: false,
            lease: 0,
        }
    }

    /// From now on it is told in which order the streams are read, and each is kept up to its cap. Of a job in this process.
    pub(crate) fn spool(&self, caps: [Option<Cap>; 2]) {
        let Body::Here(shared) = self.body() else { return };
        let mut state = shared.lock();
        (state.runs, state.keeps_order) = (Some(Runs::default()), false);
        for (output, cap) in state.outputs.iter_mut().zip(caps) {
            output.cap = cap;
        }
        state.wake();
    }

    /// In which order the streams were read since this was asked last.
    pub(crate) fn take_runs(&self) -> Runs {
        let Body::Here(shared) = self.body() else { return Runs::default() };
        shared.lock().runs.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Whether some output has come behind its cap.
    pub(crate) fn is_capped(&self) -> bool {
        let Body::Here(shared) = self.body() else { return false };
        shared.lock().outputs.iter().any(|output| output.cap.is_some_and(|cap| cap.reached))
    }

    /// Offset up to which an output stream was read from the command.
    pub fn produced(&self, which: Output) -> u64 {
        self.progress(which).produced
    }

    /// Whether nothing more will come on an output stream.
    pub fn ended(&self, which: Output) -> bool {
        self.progress(which).ended
    }

    /// Frees output up to an absolute offset; where that makes room, the command's pipe is read on.
    pub fn acknowledge(&self, which: Output, upto: u64) {
        let shared = match self.body() {
            Body::Here(shared) => shared,
            Body::Kept(kept) => return kept.acknowledge(which, upto),
        };
        let mut state = shared.lock();
        let output = state.output_mut(which);
        let was_full = output.ring.is_full();
        if output.ring.release(upto) {
            if output.ended {
                output.ring.shrink_if_empty();
            } else if was_full {
                state.wake();
            }
        }
    }

    /// Nobody reads this stream any more: closes our end of its pipe, so that the command gets SIGPIPE or `EPIPE` when it
    /// writes on. The stream ends where it is; what is retained stays readable.
    pub fn close_output(&self, which: Output) {
        match self.body() {
            Body::Here(shared) => {
                let mut state = shared.lock();
                state.output_mut(which).close = true;
                state.wake();
            }
            Body::Kept(kept) => kept.close_output(which),
        }
    }

    /// Sends a signal to the job's process group, while its process is running or its streams are drained.
    pub fn signal(&self, signal: Signal) {
        match self.body() {
            Body::Here(shared) => shared.lock().signal(shared.pids, signal),
            Body::Kept(kept) => kept.signal(signal),
        }
    }

    /// Tells a job on a terminal that the window has another size; its foreground process group gets SIGWINCH. A job without
    /// a terminal, or one that is over, isn't touched.
    pub fn resize(&self, size: WindowSize) {
        match self.body() {
            Body::Here(shared) => {
                if let Some(terminal) = &shared.lock().terminal {
                    terminal::resize(terminal, size);
                }
            }
            Body::Kept(kept) => kept.resize(size),
        }
    }

    /// Detaches the job: its keeper keeps its output in files from now on, what nobody has acknowledged included, and lets it go on
    /// whoever is there. `note` takes the place of the one before.
    ///
    /// # Errors
    /// It has no keeper, or that can't.
    pub async fn detach(&self, plan: Detached, note: Vec<u8>) -> Result<(), NotStarted> {
        match self.body() {
            Body::Here(_) => Err(NotStarted::bytes(Step::Keeper, None, b"")),
            Body::Kept(kept) => kept.detach(plan, note).await,
        }
    }

    /// The lease of a detached job begins anew, and is of this length if one is named.
    pub fn renew(&self, lease: Option<std::time::Duration>) {
        if let Body::Kept(kept) = self.body() {
            kept.renew(lease);
        }
    }

    /// What makes it this job, where it has a keeper.
    pub fn key(&self) -> Option<JobKey> {
        match self.body() {
            Body::Here(_) => None,
            Body::Kept(kept) => Some(kept.key()),
        }
    }

    /// How it ended, once its process was reaped and its streams were read to their end, or given up by the drain rule.
    pub fn finished(&self) -> Option<Arc<Ended>> {
        match self.body() {
            Body::Here(shared) => shared.finished(),
            Body::Kept(kept) => kept.finished(),
        }
    }

    /// Waits until it is finished. Somebody must acknowledge or close its output meanwhile, or a window that is full
    /// holds it up.
    pub async fn wait(&self) -> Arc<Ended> {
        match self.body() {
            Body::Here(shared) => shared.wait().await,
            Body::Kept(kept) => kept.wait().await,
        }
    }

    /// Ends the job: SIGTERM and SIGCONT to its process group now, SIGKILL after the grace. The first reason counts, and
    /// only if the process was still running. What it printed can still be read.
    pub fn close(&self, reason: EndReason) {
        match self.body() {
            Body::Here(shared) => {
                let mut state = shared.lock();
                stop(shared, &mut state, reason);
            }
            Body::Kept(kept) => kept.close(reason),
        }
    }
}

/// Begins to end a job, if that hasn't begun.
pub(crate) fn stop(shared: &Shared, state: &mut crate::state::State, reason: EndReason) {
    if state.stopping.is_some() || state.reaped {
        return;
    }
    let reason = (!state.is_over()).then_some(reason);
    state.stopping = Some(Stopping { reason, since: Instant::now() });
    if state.terminal.is_some() && reason == Some(EndReason::ClientGone) {
        // Whose person is gone is hung up, as it is under ssh: an interactive shell ignores SIGTERM, and passes this on.
        state.signal(shared.pids, Signal::HUP);
    }
    state.signal(shared.pids, Signal::TERM);
    state.signal(shared.pids, Signal::CONT);
    state.wake();
}
