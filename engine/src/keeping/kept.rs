//! A job whose keeper is another process, as the server sees it: what the keeper told last, and the memory of its output.

mod finding;

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use super::channel::{Channel, Waiting};
use super::detached::Detached;
use super::folder::{JobKey, Jobs};
use super::keeper::no_keeper;
use super::messages::{FromKeeper, Produced, Snapshot, Start, ToKeeper, VERSION};
use super::warden::{WardenLink, jobs_folder};
use crate::error::{InputError, NotStarted, OutputError, Step};
use crate::job::{Job, Progress};
use crate::launch::Unlaunched;
use crate::outcome::{EndReason, Ended, How, OutputEnd, PeakMemory};
use crate::request::{Limits, Output, Stdin, WindowSize};
use crate::session::Running;
use crate::signal::Signal;
use crate::state::OnChange;
use crate::sys::{SharedMemory, View};

pub use finding::Found;

/// Bytes that wait for a keeper that doesn't read: beyond it no signal is added.
const BACKLOG: usize = 2 * Limits::WINDOW;

/// Keepers without a job that are kept for the next ones.
const MOST_IDLE: usize = 4;

/// Gets keepers for jobs, and finds those that are there.
#[derive(Debug)]
pub(crate) struct Keepers {
    link: WardenLink,
    jobs: Arc<Jobs>,
    idle: Arc<Idle>,
    running: Arc<AtomicUsize>,
    leaving: Arc<AtomicBool>,
}

/// Keepers without a job.
type Idle = Mutex<Vec<(Waiting, View)>>;

/// How a job is to be kept.
pub(crate) struct Keep {
    pub(crate) start: Start,
    pub(crate) patience: Duration,
    pub(crate) on_change: OnChange,
    pub(crate) session: Option<Running>,
}

/// A start that is under way.
pub(crate) struct Asking {
    message: Vec<u8>,
    about: About,
    on_change: OnChange,
    session: Option<Running>,
    until: Instant,
    /// Who was told to.
    keeper: Option<(Waiting, View)>,
}

impl Keepers {
    /// `state_dir` is the warden's.
    ///
    /// # Errors
    /// The folder of jobs can't be used.
    pub(crate) fn new(link: WardenLink, state_dir: &Path) -> io::Result<Self> {
        let jobs = Arc::new(Jobs::open(&jobs_folder(state_dir))?);
        Ok(Keepers { link, jobs, idle: Arc::default(), running: Arc::default(), leaving: Arc::default() })
    }

    /// Jobs that are not finished.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// From now on jobs are left to their keepers, whoever drops them.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// What it takes to have a keeper start a job, within the patience that it is asked with from now on.
    pub(crate) fn ask(&self, keep: Keep) -> Asking {
        let Keep { start, patience, on_change, session } = keep;
        let about = About {
            key: start.key,
            pid: 0,
            in_root: false,
            stdin_window: start.limits.stdin_window as u64,
            has_stdin: start.order.terminal.is_some() || start.order.stdin == Stdin::Piped,
            is_detached: start.detach.is_some(),
        };
        let message = ToKeeper::Start(Box::new(start)).compose();
        let until = Instant::now() + patience;
        Asking { message, about, on_change, session, until, keeper: None }
    }

    /// Has a keeper start a job, or looks on: the calling thread waits until its program is executed, that has failed, or that time has
    /// come (none; to be asked again). `may_replace`: a keeper that hasn't begun by then is given up for another.
    ///
    /// # Errors
    /// [`Unlaunched`].
    pub(crate) fn look(
        &self,
        asking: &mut Asking,
        until: Instant,
        may_replace: bool,
    ) -> Option<Result<Job, Unlaunched>> {
        let until = until.min(asking.until);
        let is_early = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut && until < asking.until;
        let failed = |error: io::Error| Some(Err(Unlaunched::NotStarted(no_keeper(&error))));
        if asking.keeper.is_none() {
            let (mut keeper, view) = match self.next(until) {
                Ok(next) => next,
                Err(error) if is_early(&error) => return None,
                Err(error) => return failed(error),
            };
            if let Err(error) = keeper.send(&asking.message, None, until) {
                return failed(error);
            }
            asking.keeper = Some((keeper, view));
        }
        let (mut keeper, view) = asking.keeper.take()?;
        match receive(&mut keeper, until) {
            Ok(FromKeeper::Started { pid, in_root }) => {
                let about = About { pid, in_root, ..asking.about };
                let (on_change, session) = (asking.on_change.clone(), asking.session.take());
                let taken = self.take(keeper, view, about, Snapshot::default(), on_change, session);
                taken.map(Ok).map_or_else(failed, Some)
            }
            Ok(FromKeeper::NotStarted(why)) => Some(Err(why.into())),
            Ok(FromKeeper::Failed(why)) => Some(Err(Unlaunched::Failed(why))),
            Ok(_) => failed(io::ErrorKind::InvalidData.into()),
            // It stands still, and hasn't begun: what it was told is taken back, and another one is told. Whichever makes the job's folder has it.
            Err(error) if is_early(&error) && may_replace && !self.has_begun(asking.about.key) => {
                let _ = keeper.send(&ToKeeper::Forget.compose(), None, Instant::now());
                None
            }
            Err(error) if is_early(&error) => {
                asking.keeper = Some((keeper, view));
                None
            }
            Err(error) => Some(Err(self.give_up(&mut keeper, asking.about.key, &error))),
        }
    }

    /// Whether some keeper has begun a job.
    fn has_begun(&self, key: JobKey) -> bool {
        !matches!(self.jobs.folder(key), Err(Errno::NOENT))
    }

    /// A keeper that was told to start a job says nothing: whatever it has started, or starts late, is ended.
    fn give_up(&self, keeper: &mut Waiting, key: JobKey, error: &io::Error) -> Unlaunched {
        let _ = keeper.send(&ToKeeper::Forget.compose(), None, Instant::now());
        if error.kind() != io::ErrorKind::TimedOut {
            self.forget(key);
        }
        Unlaunched::NotStarted(NotStarted::bytes(Step::KeeperLost, error.raw_os_error(), b""))
    }

    /// A keeper that waits for a job.
    fn next(&self, until: Instant) -> io::Result<(Waiting, View)> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some((keeper, _)) if keeper.is_gone() => continue,
                Some(idle) => return Ok(idle),
                None => {}
            }
            let mut keeper = Waiting::new(self.link.wait_for_keeper(until)?);
            let first = receive(&mut keeper, until);
            // Its successor is made meanwhile, and is needed whatever came of this one.
            self.link.used()?;
            match first {
                Ok(FromKeeper::Hello { version, .. }) => {
                    let view = greeted(&mut keeper, version)?;
                    return Ok((keeper, view));
                }
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                // It was killed while it waited: another one will do.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn take(
        &self,
        keeper: Waiting,
        view: View,
        about: About,
        now: Snapshot,
        on_change: OnChange,
        session: Option<Running>,
    ) -> io::Result<Job> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        self.running.fetch_add(1, Ordering::Relaxed);
        let kept = Arc::new(Kept {
            state: Mutex::new(State {
                channel: Some(keeper.watched()?),
                acknowledged: [now.stdout.start, now.stderr.start],
                given: now.stdin.given,
                end: now.stdin.end,
                now,
                on_change,
                session,
                told: None,
                is_detached: about.is_detached,
                detaching: None,
                abandoned: false,
                waker: None,
            }),
            about,
            view,
            jobs: Arc::clone(&self.jobs),
            idle: Arc::clone(&self.idle),
            finished: OnceLock::new(),
            over: Notify::new(),
            running: Arc::clone(&self.running),
            leaving: Arc::clone(&self.leaving),
        });
        let task = Arc::clone(&kept);
        runtime.spawn(async move { poll_fn(|cx| task.poll(cx)).await });
        Ok(Job::kept(kept))
    }
}

fn receive(keeper: &mut Waiting, until: Instant) -> io::Result<FromKeeper> {
    let gone = || io::Error::new(io::ErrorKind::UnexpectedEof, "the keeper is gone");
    let message = keeper.receive(until)?.ok_or_else(gone)?;
    FromKeeper::parse(&message)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a keeper says something odd"))
}

/// The memory that came with a keeper's first word.
fn greeted(keeper: &mut Waiting, version: u64) -> io::Result<View> {
    if version > VERSION {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a keeper of a newer version"));
    }
    // It always sends one: here was no descriptor left for it.
    let memory = keeper.take_passed().ok_or(Errno::MFILE)?;
    SharedMemory::received(memory, 2 * Limits::WINDOW)?.view()
}

/// What doesn't change of a job.
#[derive(Clone, Copy, Debug)]
struct About {
    key: JobKey,
    pid: i32,
    in_root: bool,
    stdin_window: u64,
    has_stdin: bool,
    is_detached: bool,
}

/// A kept job.
pub(crate) struct Kept {
    state: Mutex<State>,
    about: About,
    view: View,
    jobs: Arc<Jobs>,
    idle: Arc<Idle>,
    finished: OnceLock<Arc<Ended>>,
    over: Notify,
    running: Arc<AtomicUsize>,
    leaving: Arc<AtomicBool>,
}

struct State {
    /// None once the keeper is gone.
    channel: Option<Channel>,
    now: Snapshot,
    acknowledged: [u64; 2],
    /// Offset up to which input was handed to the keeper.
    given: u64,
    end: Option<u64>,
    on_change: OnChange,
    session: Option<Running>,
    /// What its shell has told.
    told: Option<(Vec<u8>, usize)>,
    /// Whoever drops it, it goes on.
    is_detached: bool,
    /// Who waits for its keeper's word that it is detached.
    detaching: Option<oneshot::Sender<Result<(), NotStarted>>>,
    /// The last handle is gone.
    abandoned: bool,
    waker: Option<Waker>,
}

impl State {
    fn send(&mut self, message: &ToKeeper) {
        let Some(channel) = &mut self.channel else { return };
        // Input is bounded by its window, and what is acknowledged by what was produced. The rest has no bound of its own: whoever
        // sends signals without end to a keeper that stands still loses those.
        let is_bounded = matches!(
            message,
            ToKeeper::Input { .. }
                | ToKeeper::EndInput { .. }
                | ToKeeper::Acknowledge { .. }
                | ToKeeper::Forget
                | ToKeeper::Detach { .. }
        );
        if !is_bounded && channel.pending() > BACKLOG {
            tracing::warn!("a keeper that doesn't read is told nothing more");
            return;
        }
        channel.send(&message.compose());
        if channel.pending() > 0 {
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn produced(&self, which: Output) -> &Produced {
        match which {
            Output::Stdout => &self.now.stdout,
            Output::Stderr => &self.now.stderr,
        }
    }

    fn acknowledged(&mut self, which: Output) -> &mut u64 {
        let [stdout, stderr] = &mut self.acknowledged;
        match which {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    fn is_closed(&self, about: &About) -> bool {
        self.now.stdin.closed || !about.has_stdin
    }

    fn consumed(&self, about: &About) -> u64 {
        if self.is_closed(about) { self.given } else { self.now.stdin.consumed }
    }
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here is left half-done by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn pid(&self) -> i32 {
        self.about.pid
    }

    pub(crate) fn is_in_root(&self) -> bool {
        self.about.in_root
    }

    pub(crate) fn observe(&self, on_change: OnChange) {
        self.lock().on_change = on_change;
    }

    pub(crate) fn stopped(&self) -> Option<Signal> {
        Signal::from_number(self.lock().now.stopped)
    }

    pub(crate) fn lease(&self) -> Option<Duration> {
        Some(self.lock().now.lease).filter(|lease| *lease > 0).map(Duration::from_nanos)
    }

    pub(crate) fn wants_room(&self) -> bool {
        self.lock().now.wants_room
    }

    pub(crate) fn write(&self, offset: u64, bytes: Bytes) -> Result<(), InputError> {
        let mut state = self.lock();
        if offset != state.given {
            return Err(InputError::OutOfOrder { offset, expected: state.given });
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if let Some(at) = state.end.filter(|at| end > *at) {
            return Err(InputError::BehindEnd { end, at });
        }
        let limit = state.consumed(&self.about).saturating_add(self.about.stdin_window);
        if end > limit {
            return Err(InputError::BeyondWindow { end, limit });
        }
        state.given = end;
        if !bytes.is_empty() && self.about.has_stdin {
            state.send(&ToKeeper::Input { offset, bytes: bytes.into() });
        }
        Ok(())
    }

    pub(crate) fn end_input(&self, at: u64) -> Result<(), InputError> {
        let mut state = self.lock();
        match state.end {
            Some(end) if end != at => return Err(InputError::BehindEnd { end: at, at: end }),
            Some(_) => return Ok(()),
            None if at < state.given => return Err(InputError::BehindEnd { end: state.given, at }),
            None => state.end = Some(at),
        }
        state.send(&ToKeeper::EndInput { at });
        Ok(())
    }

    pub(crate) fn input_given(&self) -> u64 {
        self.lock().given
    }

    pub(crate) fn input_consumed(&self) -> u64 {
        self.lock().consumed(&self.about)
    }

    pub(crate) fn input_end(&self) -> Option<u64> {
        self.lock().end
    }

    pub(crate) fn input_limit(&self) -> u64 {
        self.input_consumed().saturating_add(self.about.stdin_window)
    }

    pub(crate) fn input_closed(&self) -> bool {
        self.lock().is_closed(&self.about)
    }

    pub(crate) fn output<R>(
        &self,
        which: Output,
        from: u64,
        f: impl FnOnce(&[u8], &[u8]) -> R,
    ) -> Result<R, OutputError> {
        let mut state = self.lock();
        let kept = *state.acknowledged(which);
        let Produced { upto, place, capacity, .. } = *state.produced(which);
        if from < kept {
            return Err(OutputError::Gone { from, kept });
        }
        let length = upto.checked_sub(from).ok_or(OutputError::NotYet { from, produced: upto })?;
        let [(first, first_length), (second, second_length)] = pieces(length, place, capacity);
        let base = match which {
            Output::Stdout => 0,
            Output::Stderr => Limits::WINDOW,
        };
        let bytes = |at: u64, length: u64| {
            let at = usize::try_from(at).ok().and_then(|at| at.checked_add(base)).unwrap_or(usize::MAX);
            self.view.bytes(at, usize::try_from(length).unwrap_or(usize::MAX))
        };
        // Held under the lock: whoever acknowledged them meanwhile would let them be overwritten.
        Ok(f(bytes(first, first_length), bytes(second, second_length)))
    }

    pub(crate) fn progress(&self, which: Output) -> Progress {
        let mut state = self.lock();
        let acknowledged = *state.acknowledged(which);
        let Produced { upto, ended, .. } = *state.produced(which);
        Progress { acknowledged, produced: upto, ended }
    }

    pub(crate) fn acknowledge(&self, which: Output, upto: u64) {
        let mut state = self.lock();
        let upto = upto.min(state.produced(which).upto);
        let acknowledged = state.acknowledged(which);
        if upto > *acknowledged {
            *acknowledged = upto;
            state.send(&ToKeeper::Acknowledge { output: which, upto });
        }
    }

    pub(crate) fn close_output(&self, which: Output) {
        self.lock().send(&ToKeeper::CloseOutput { output: which });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.lock().send(&ToKeeper::Signal { signal });
    }

    pub(crate) fn resize(&self, size: WindowSize) {
        self.lock().send(&ToKeeper::Resize { size });
    }

    pub(crate) fn close(&self, reason: EndReason) {
        self.lock().send(&ToKeeper::Close { reason });
    }

    /// Has the keeper take the output from now on, and let the job go on whoever is there.
    ///
    /// # Errors
    /// The keeper can't, or is gone.
    pub(crate) async fn detach(&self, plan: Detached, note: Vec<u8>) -> Result<(), NotStarted> {
        let gone = || NotStarted::bytes(Step::Keeper, None, b"");
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.channel.is_none() || state.detaching.is_some() {
                return Err(gone());
            }
            state.detaching = Some(sender);
            state.send(&ToKeeper::Detach { plan, note });
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The lease of a detached job begins anew.
    pub(crate) fn renew(&self, lease: Option<Duration>) {
        self.lock().send(&ToKeeper::Renew { lease });
    }

    pub(crate) fn key(&self) -> JobKey {
        self.about.key
    }

    pub(crate) fn finished(&self) -> Option<Arc<Ended>> {
        self.finished.get().cloned()
    }

    pub(crate) async fn wait(&self) -> Arc<Ended> {
        loop {
            let over = self.over.notified();
            if let Some(ended) = self.finished() {
                return ended;
            }
            over.await;
        }
    }

    /// The last handle is gone: so is the job, unless this server leaves.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        if !self.leaving.load(Ordering::Relaxed) && !state.is_detached {
            state.send(&ToKeeper::Forget);
            if let (None, Ok(folder)) = (&state.channel, self.jobs.folder(self.about.key)) {
                folder.bury();
            }
        }
        state.abandoned = true;
        state.wake();
    }

    /// Ready when there is nothing more to hear, or to say.
    fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let (mut changed, mut ended) = (false, None);
        let is_over = loop {
            let Some(channel) = &mut state.channel else { break true };
            match channel.poll_message(cx) {
                Poll::Pending => break false,
                Poll::Ready(Ok(Some(message))) => match FromKeeper::parse(&message) {
                    Some(FromKeeper::Progress(now)) => {
                        state.now = now;
                        changed = true;
                    }
                    Some(FromKeeper::Told { bytes, length }) => {
                        state.told = Some((bytes, usize::try_from(length).unwrap_or(usize::MAX)));
                    }
                    Some(FromKeeper::Ended(told)) => ended = Some(*told),
                    Some(FromKeeper::Detached(why)) => {
                        state.is_detached |= why.is_none();
                        if state.is_detached {
                            // What it changes isn't its session's any more.
                            state.session = None;
                        }
                        if let Some(waits) = state.detaching.take() {
                            let _ = waits.send(why.map_or(Ok(()), Err));
                        }
                    }
                    // It was told to forget the job, and waits for another.
                    Some(FromKeeper::Hello { .. }) if state.abandoned => {
                        if let Some(channel) = state.channel.take() {
                            self.keep_idle(channel);
                        }
                    }
                    Some(_) => {}
                    None => tracing::warn!(key = %self.about.key, "a keeper says something odd"),
                },
                Poll::Ready(end) => {
                    if let Err(error) = end {
                        tracing::warn!(key = %self.about.key, %error, "a keeper's word can't be read");
                    }
                    state.channel = None;
                }
            }
        };
        if is_over && ended.is_none() && self.finished.get().is_none() && !state.abandoned {
            let left = self.jobs.folder(self.about.key).ok().filter(|_| state.is_detached);
            ended = left.and_then(|folder| folder.outcome()).or_else(|| {
                tracing::error!(key = %self.about.key, pid = self.about.pid, "a keeper is gone");
                // Its warden may be gone, too, so that nobody else would.
                if let Some(record) = self.jobs.folder(self.about.key).ok().and_then(|folder| folder.read())
                    && !record.keeper.is_alive()
                {
                    record.end_rest();
                }
                Some(lost(self.about.pid, &state.now))
            });
            (state.now.stdout.ended, state.now.stderr.ended) = (true, true);
        }
        if is_over {
            // Nobody will answer.
            state.detaching = None;
        }
        if let Some(channel) = &mut state.channel {
            channel.poll_flush(cx);
        }
        let is_done = is_over || state.channel.is_none();
        state.waker = Some(cx.waker().clone());
        let (session, told) =
            if ended.is_some() { (state.session.take(), state.told.take()) } else { (None, None) };
        let on_change = Arc::clone(&state.on_change);
        drop(state);
        if let Some(mut ended) = ended {
            ended.session = session.map(|running| running.settle(ended.how, told));
            if self.finished.set(Arc::new(ended)).is_ok() {
                self.running.fetch_sub(1, Ordering::Relaxed);
                self.over.notify_waiters();
            }
            changed = true;
        }
        if changed {
            on_change();
        }
        if is_done {
            if self.finished.get().is_none() {
                // Nobody will know any more; nothing counts it.
                self.running.fetch_sub(1, Ordering::Relaxed);
            }
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Kept {
    fn keep_idle(&self, channel: Channel) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push((channel.unwatched(), self.view.clone()));
        }
    }
}

/// Where the last `length` bytes before a place lie, in one or two pieces: offset and length of each.
fn pieces(length: u64, place: u64, capacity: u64) -> [(u64, u64); 2] {
    match place.checked_sub(length) {
        Some(at) if place <= capacity => [(at, length), (0, 0)],
        Some(at) if at >= capacity => [(at - capacity, length), (0, 0)],
        Some(at) => [(at, capacity - at), (0, place - capacity)],
        // A keeper that says so is wrong, and nothing is there.
        None => [(0, 0), (0, 0)],
    }
}

/// What is known of a job whose keeper is gone.
pub(crate) fn lost(pid: i32, now: &Snapshot) -> Ended {
    let output = |produced: &Produced| OutputEnd {
        length: produced.upto,
        blake3: [0; 32],
        held_open: false,
        closed_early: true,
        cut: false,
    };
    Ended {
        how: How::KeeperLost,
        stopped: None,
        started: SystemTime::UNIX_EPOCH,
        ended: SystemTime::now(),
        wall: Duration::ZERO,
        user: Duration::ZERO,
        system: Duration::ZERO,
        peak_memory: PeakMemory::AtMost(0),
        memory_limited_by: None,
        stdout: output(&now.stdout),
        stderr: output(&now.stderr),
        stdin: None,
        unread_input: Vec::new(),
        unread_upto: 0,
        pid,
        session: None,
        spooled: None,
        order: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::pieces;

    #[test]
    fn what_was_told_says_where_the_bytes_are() {
        assert_eq!(pieces(0, 0, 0), [(0, 0), (0, 0)]);
        assert_eq!(pieces(3, 5, 16), [(2, 3), (0, 0)]);
        assert_eq!(pieces(16, 16, 16), [(0, 16), (0, 0)]);
        assert_eq!(pieces(4, 18, 16), [(14, 2), (0, 2)]);
        assert_eq!(pieces(2, 19, 16), [(1, 2), (0, 0)]);
        assert_eq!(pieces(9, 5, 16), [(0, 0), (0, 0)]);
    }
}
