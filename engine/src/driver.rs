//! The task that drives one job: its pipes, its end, its limits, its drain rule. One task, no thread of its own.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use crate::cgroup::JobCgroup;
use crate::discard::discard;
use crate::group;
use crate::job::stop;
use crate::outcome::{EndReason, Ended, How, LimitKind, MemoryMeans, PeakMemory};
use crate::reader::{Reader, Turn};
use crate::reports::Reports;
use crate::request::Output;
use crate::runs::Runs;
use crate::session::Running;
use crate::signal::Signal;
use crate::spawners::Spawners;
use crate::state::{Pids, Shared, State};
use crate::sys;
use crate::terminal;
use crate::tree::Tree;
use crate::writer::Writer;

/// The first pause between two looks at what is left of a process group that is ended; doubled each time.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// A pause between two looks at what is left of a tree that is killed.
const REST_PAUSE: Duration = Duration::from_millis(2);

/// How long the end of a runtime waits for a process that was just killed.
const LAST_WAIT: Duration = Duration::from_millis(500);

/// A job's driver. A future that is done when the job is.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) pidfd: AsyncFd<Arc<OwnedFd>>,
    pub(crate) stdout: Reader,
    pub(crate) stderr: Reader,
    pub(crate) stdin: Option<Writer>,
    /// What the command's leader says, if it has one.
    pub(crate) reports: Option<Reports>,
    pub(crate) clock: Clock,
    pub(crate) kill_grace: Duration,
    pub(crate) wait_streams: bool,
    /// Bytes of output the job may still print.
    pub(crate) allowance: Option<u64>,
    pub(crate) exceeded: bool,
    /// It printed more than may be kept, and ends for it.
    pub(crate) overflowed: bool,
    pub(crate) memory: Option<MemoryLimit>,
    /// Peak memory in bytes of the process that spawned it.
    pub(crate) floor: u64,
    pub(crate) killing: Killing,
    /// What its process leaves behind, where that can be found.
    pub(crate) tree: Option<Arc<Tree>>,
    pub(crate) timer: Option<Pin<Box<Sleep>>>,
    /// Streams that are read to nowhere.
    pub(crate) held: Arc<AtomicUsize>,
    /// The session it runs in.
    pub(crate) session: Option<Running>,
    /// Ends what it started when it is dropped.
    pub(crate) _spawners: Option<Arc<Mutex<Spawners>>>,
}

/// When things happened.
pub(crate) struct Clock {
    pub(crate) started: SystemTime,
    pub(crate) start: Instant,
    /// When the time limit is reached.
    pub(crate) deadline: Option<Instant>,
    /// When the process was over.
    pub(crate) over: Option<(SystemTime, Instant)>,
}

/// How the memory limit is enforced.
pub(crate) enum MemoryLimit {
    Cgroup(JobCgroup),
    AddressSpace,
}

/// The way from SIGTERM to SIGKILL.
#[derive(Default)]
pub(crate) struct Killing {
    /// Who has left the process group was asked to end, too.
    asked: bool,
    /// SIGKILL was sent, or wasn't needed.
    done: bool,
    /// Until when the rest of the tree is killed, while any of it is left.
    rest: Option<Instant>,
    /// When a leader is killed that hasn't ended with its command.
    leader: Option<Instant>,
    /// A look at the process group that is under way.
    look: Option<JoinHandle<bool>>,
    next_look: Option<Instant>,
    pause: Duration,
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = Pin::into_inner(self);
        let shared = Arc::clone(&this.shared);
        let mut state = shared.lock();
        state.register(cx.waker());
        let (turn, finished) = this.turn(&mut state, cx);
        drop(state);
        if finished {
            this.finish();
        }
        if turn.changed || finished {
            shared.tell();
        }
        if finished {
            return Poll::Ready(());
        }
        if turn.again || this.sleep_until(turn.next, cx) {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Driver {
    /// One look at everything. Returns whether the job is finished but for being reaped.
    fn turn(&mut self, state: &mut State, cx: &mut Context<'_>) -> (Turn, bool) {
        let now = Instant::now();
        if !state.exited && self.pidfd.poll_read_ready(cx).is_ready() {
            state.exited = true;
            self.clock.over = self.clock.over.or(Some((SystemTime::now(), now)));
            // A leader that was killed leaves a command behind that nobody waits for any more.
            if state.command.as_ref().is_some_and(|command| !sys::is_over(command.as_fd())) {
                state.signal(self.shared.pids, Signal::KILL);
            }
        }
        let mut turn = Turn {
            now,
            exited: state.exited,
            draining: false,
            discard: state.abandoned || self.exceeded,
            allowance: self.allowance,
            exceeded: self.exceeded,
            overflowed: false,
            changed: false,
            again: false,
            next: None,
        };
        if let Some(reports) = &mut self.reports {
            reports.drive(cx, state, &mut turn);
            if reports.is_over() && self.clock.over.is_none() {
                self.clock.over = Some((SystemTime::now(), now));
            }
        }
        self.enforce_deadline(state, &mut turn);
        self.enforce_stop(state, &mut turn, cx);
        // While a group is being ended its grace is what counts; then, whoever escaped it is not waited for.
        turn.draining = state.exited
            && match state.stopping {
                Some(_) => self.killing.done,
                None => !self.wait_streams || state.abandoned,
            };
        if let Some(writer) = &mut self.stdin {
            let is_waiting = !state.input.is_empty();
            let is_held =
                |reports: &mut Reports| reports.is_over() || is_waiting && !reports.announce_input();
            if self.reports.as_mut().is_some_and(is_held) {
                // What is queued waits for the end, and goes back to who typed it.
            } else if state.exited {
                turn.changed |= writer.close(&mut state.input);
            } else {
                let before = state.input.consumed();
                writer.drive(cx, &mut state.input, &mut turn);
                if state.input.consumed() > before {
                    self.stdout.handle_input();
                    self.stderr.handle_input();
                }
            }
        }
        for (which, reader) in [(Output::Stdout, &mut self.stdout), (Output::Stderr, &mut self.stderr)] {
            let before = state.output(which).ring.end();
            if let Some(pipe) = reader.drive(cx, state.output_mut(which), &mut turn) {
                discard(pipe, Arc::clone(&self.held));
            }
            let read = state.output(which).ring.end() - before;
            if let Some(runs) = &mut state.runs {
                runs.push(which, read);
            }
        }
        self.allowance = turn.allowance;
        if turn.exceeded && !self.exceeded {
            self.exceeded = true;
            stop(&self.shared, state, EndReason::Limit(LimitKind::Output));
            turn.again = true;
        }
        if turn.overflowed && !self.overflowed {
            self.overflowed = true;
            stop(&self.shared, state, EndReason::Limit(LimitKind::Spool));
            turn.again = true;
        }
        let finished = state.exited
            && self.stdout.is_over()
            && self.stderr.is_over()
            && (state.stopping.is_none() || self.killing.done)
            && self.killing.rest.is_none();
        (turn, finished)
    }

    fn enforce_deadline(&mut self, state: &mut State, turn: &mut Turn) {
        // A job is over when its process is: unless its streams are waited for, the rest has rules of its own.
        if let Some(deadline) = self.clock.deadline.filter(|_| !state.exited || self.wait_streams) {
            if turn.now < deadline {
                turn.look_at(deadline);
            } else {
                self.clock.deadline = None;
                stop(&self.shared, state, EndReason::Deadline);
            }
        }
    }

    /// SIGKILL to the process group once the grace is over, or nobody is left in it. The leader isn't reaped before, so
    /// the group's number is still its own.
    fn enforce_stop(&mut self, state: &mut State, turn: &mut Turn, cx: &mut Context<'_>) {
        let Some(stopping) = state.stopping else { return };
        // What a job that ended by itself has left in the background is let be.
        let tree = self.tree.clone().filter(|_| stopping.reason.is_some());
        if self.killing.done {
            if let Some(tree) = &tree {
                self.kill_rest(tree, state, turn);
            }
            match self.killing.leader.filter(|_| !state.exited) {
                Some(at) if turn.now >= at => {
                    self.killing.leader = None;
                    sys::kill_leader(self.shared.pids.child);
                }
                Some(at) => turn.look_at(at),
                None => {}
            }
            return;
        }
        if let (Some(tree), false) = (&tree, std::mem::replace(&mut self.killing.asked, true)) {
            tree.ask(self.shared.pids.command);
        }
        let last = stopping.since + self.kill_grace;
        if turn.now >= last || (state.exited && self.is_all_gone(tree.as_ref(), turn, cx)) {
            state.signal(self.shared.pids, Signal::KILL);
            self.killing.done = true;
            if let Some(tree) = &tree {
                self.killing.rest = Some(turn.now + self.kill_grace.max(LAST_WAIT));
                self.kill_rest(tree, state, turn);
            }
            if state.command.is_some() && !state.exited {
                let at = turn.now + self.kill_grace.max(LAST_WAIT);
                self.killing.leader = Some(at);
                turn.look_at(at);
            }
        } else {
            turn.look_at(last);
        }
    }

    /// One look at what is left of the tree behind the process group, and SIGKILL for it.
    fn kill_rest(&mut self, tree: &Tree, state: &State, turn: &mut Turn) {
        let Some(until) = self.killing.rest else { return };
        let is_left = tree.kill(self.shared.pids.child, state.exited);
        if !is_left && state.exited {
            self.killing.rest = None;
        } else if turn.now >= until && state.exited {
            // In a system call that nothing interrupts, or more of them by the moment.
            tracing::error!(pid = self.shared.pids.command, "some processes of a job can't be ended");
            self.killing.rest = None;
        } else {
            turn.look_at(turn.now + REST_PAUSE);
        }
    }

    /// Looks for who is left in the process group, and in the rest of the tree, off this thread, now and then.
    fn is_all_gone(&mut self, tree: Option<&Arc<Tree>>, turn: &mut Turn, cx: &mut Context<'_>) -> bool {
        let killing = &mut self.killing;
        if killing.look.is_none() {
            match killing.next_look {
                Some(at) if turn.now < at => {
                    turn.look_at(at);
                    return false;
                }
                _ => {
                    let Pids { child, command } = self.shared.pids;
                    let tree = tree.cloned();
                    killing.look = Some(tokio::task::spawn_blocking(move || {
                        group::has_living_member_in(command, Some(child))
                            || tree.is_some_and(|tree| tree.has_others(child))
                    }));
                }
            }
        }
        let Some(look) = &mut killing.look else { return false };
        match Pin::new(look).poll(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(false)) => true,
            Poll::Ready(_) => {
                killing.look = None;
                killing.pause = (killing.pause * 2).max(FIRST_LOOK);
                let at = turn.now + killing.pause;
                killing.next_look = Some(at);
                turn.look_at(at);
                false
            }
        }
    }

    /// Sets the timer; whether its time has come already.
    fn sleep_until(&mut self, next: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(at) = next else {
            self.timer = None;
            return false;
        };
        let at = tokio::time::Instant::from_std(at);
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        timer.as_mut().poll(cx).is_ready()
    }

    /// Reaps the process and says what it came to.
    fn finish(&mut self) {
        let mut state = self.shared.lock();
        let reaped = sys::reap(self.shared.pids.child);
        state.reaped = true;
        state.pidfd = None;
        state.command = None;
        state.stopped = None;
        state.terminal = None;
        let (mut unread_input, mut unread_upto) = (Vec::new(), 0);
        if let (Some(reports), Some(writer)) = (&mut self.reports, &mut self.stdin) {
            unread_input = reports.take_unread();
            if state.input.is_complete() {
                terminal::strip_end(&mut unread_input);
            }
            let room = sys::MOST_UNREAD.saturating_sub(unread_input.len());
            let waiting = state.input.waiting(room);
            unread_upto = state.input.consumed() + waiting.len() as u64;
            unread_input.extend(waiting);
            writer.close(&mut state.input);
        }
        let order = match state.keeps_order {
            true => state.runs.take().map(Runs::into_vec).unwrap_or_default(),
            false => Vec::new(),
        };
        let lengths = Output::ALL.map(|which| state.output(which).ring.end());
        if state.abandoned {
            for output in &mut state.outputs {
                output.ring.release(u64::MAX);
                output.ring.shrink_if_empty();
            }
        }
        let mut stopped = state.stopping.and_then(|stopping| stopping.reason);
        drop(state);
        // Its process may have been over before that was noticed: what was cut may not look whole.
        if self.exceeded {
            stopped = stopped.or(Some(EndReason::Limit(LimitKind::Output)));
        }
        if self.overflowed {
            stopped = stopped.or(Some(EndReason::Limit(LimitKind::Spool)));
        }

        let reaped = match reaped {
            Ok(reaped) => reaped,
            Err(error) => {
                tracing::error!(pid = self.shared.pids.child, %error, "the status of a job is lost");
                None
            }
        };
        // A leader ends as its command did, but for the core dump.
        let told = self.reports.as_ref().and_then(Reports::end);
        let core_dumped = told.is_some_and(|end| libc::WCOREDUMP(end.status));
        let how = reaped.as_ref().map_or(How::Unknown, |reaped| how(reaped.status, core_dumped));
        let (over, over_at) = self.clock.over.unwrap_or_else(|| (SystemTime::now(), Instant::now()));
        let peak = told.map(|end| end.peak_memory).or(reaped.as_ref().map(|reaped| reaped.peak_memory));
        let mut peak_memory = match peak.unwrap_or(0) {
            peak if peak > self.floor => PeakMemory::Measured(peak),
            peak => PeakMemory::AtMost(peak),
        };
        let memory_limited_by = self.memory.take().map(|memory| match memory {
            MemoryLimit::AddressSpace => MemoryMeans::AddressSpace,
            MemoryLimit::Cgroup(cgroup) => {
                if let Some(peak) = cgroup.peak() {
                    peak_memory = PeakMemory::Measured(peak);
                }
                let killed = matches!(how, How::Signaled { signal: Signal::KILL, .. });
                if stopped.is_none() && killed && cgroup.was_exceeded() {
                    stopped = Some(EndReason::Limit(LimitKind::Memory));
                }
                MemoryMeans::Cgroup
            }
        });
        let [stdout, stderr] = lengths;
        let session = self.session.take().map(|running| running.settle(how, None));
        self.shared.finish(Ended {
            how,
            stopped,
            started: self.clock.started,
            ended: over,
            wall: over_at.saturating_duration_since(self.clock.start),
            user: reaped.as_ref().map_or(Duration::ZERO, |reaped| reaped.user),
            system: reaped.as_ref().map_or(Duration::ZERO, |reaped| reaped.system),
            peak_memory,
            memory_limited_by,
            stdout: self.stdout.end(stdout),
            stderr: self.stderr.end(stderr),
            stdin: self.stdin.as_ref().map(Writer::end),
            unread_input,
            unread_upto,
            pid: self.shared.pids.command,
            session,
            spooled: None,
            order,
        });
    }
}

impl Drop for Driver {
    /// The runtime ends before the job did: kills it, and leaves no zombie if it dies in time.
    fn drop(&mut self) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        if state.reaped {
            return;
        }
        stop(&shared, &mut state, EndReason::Shutdown);
        state.signal(shared.pids, Signal::KILL);
        for output in &mut state.outputs {
            output.ended = true;
        }
        let is_led = state.command.is_some();
        drop(state);
        let timeout = rustix::time::Timespec {
            tv_sec: LAST_WAIT.as_secs() as i64,
            tv_nsec: LAST_WAIT.subsec_nanos().into(),
        };
        let mut over = [rustix::event::PollFd::new(self.pidfd.get_ref(), rustix::event::PollFlags::IN)];
        if rustix::event::poll(&mut over, Some(&timeout)) == Ok(0) && is_led {
            sys::kill_leader(shared.pids.child);
            let _ = rustix::event::poll(&mut over, Some(&timeout));
        }
        self.finish();
        shared.tell();
    }
}

/// Takes a wait status apart; somebody else may have dumped core for it.
fn how(status: i32, core_dumped: bool) -> How {
    if libc::WIFEXITED(status) {
        return How::Exited(libc::WEXITSTATUS(status));
    }
    match Signal::from_number(libc::WTERMSIG(status)) {
        Some(signal) if libc::WIFSIGNALED(status) => {
            How::Signaled { signal, core_dumped: core_dumped || libc::WCOREDUMP(status) }
        }
        _ => How::Unknown,
    }
}
