//! What a job's handles and its driver share. The lock is held briefly, never while an observer is called.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::Notify;

use crate::input::InputQueue;
use crate::outcome::{EndReason, Ended};
use crate::request::Output;
use crate::ring::Ring;
use crate::runs::Runs;
use crate::signal::Signal;
use crate::sys;

/// What is called when an observer should look.
pub(crate) type OnChange = Arc<dyn Fn() + Send + Sync>;

/// An output stream as its reader sees it.
#[derive(Debug)]
pub(crate) struct OutputState {
    pub(crate) ring: Ring,
    /// Nothing more will come.
    pub(crate) ended: bool,
    /// The reader is gone, and wants the read end closed.
    pub(crate) close: bool,
    /// Where it is to stop, if anywhere.
    pub(crate) cap: Option<Cap>,
}

/// Up to where an output stream may be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cap {
    pub(crate) upto: u64,
    /// What comes behind it ends the job; otherwise it is left in the pipe, which holds the command back.
    pub(crate) ends: bool,
    /// Something has come behind it.
    pub(crate) reached: bool,
}

/// What a command left in its pipe when it was over is kept even behind the cap: it can't be held back any more.
const LEFT_IN_PIPE: u64 = 1024 * 1024;

impl Cap {
    /// How many bytes more may be kept.
    pub(crate) fn room(&self, end: u64, exited: bool) -> u64 {
        let upto = if exited && !self.ends { self.upto.saturating_add(LEFT_IN_PIPE) } else { self.upto };
        upto.saturating_sub(end)
    }
}

/// That remora ends this job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    /// Why, if its process was still running when it was asked for.
    pub(crate) reason: Option<EndReason>,
    /// When.
    pub(crate) since: Instant,
}

/// Behind the lock.
pub(crate) struct State {
    pub(crate) outputs: [OutputState; 2],
    /// In which order they were read, since somebody wants to know.
    pub(crate) runs: Option<Runs>,
    /// They are told with the end, and nobody takes them before.
    pub(crate) keeps_order: bool,
    pub(crate) input: InputQueue,
    pub(crate) stopping: Option<Stopping>,
    /// The last handle is gone: nobody looks any more.
    pub(crate) abandoned: bool,
    /// The process is over, and may be a zombie still.
    pub(crate) exited: bool,
    /// Its number may be another's: no more signals.
    pub(crate) reaped: bool,
    /// To ask whether it is over before that was noticed; gone once it is reaped.
    pub(crate) pidfd: Option<Arc<OwnedFd>>,
    /// The command, where that has a leader, who is the process; gone once that is reaped.
    pub(crate) command: Option<OwnedFd>,
    /// The signal that stopped it, while it is stopped.
    pub(crate) stopped: Option<Signal>,
    /// Its terminal, until it is over.
    pub(crate) terminal: Option<OwnedFd>,
    /// Called when an observer should look, never under the lock.
    pub(crate) on_change: OnChange,
    waker: Option<Waker>,
}

impl State {
    pub(crate) fn output(&self, which: Output) -> &OutputState {
        let [stdout, stderr] = &self.outputs;
        match which {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    pub(crate) fn output_mut(&mut self, which: Output) -> &mut OutputState {
        let [stdout, stderr] = &mut self.outputs;
        match which {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    /// Has the driver woken when a handle changed something.
    pub(crate) fn register(&mut self, waker: &Waker) {
        match &self.waker {
            Some(known) if known.will_wake(waker) => {}
            _ => self.waker = Some(waker.clone()),
        }
    }

    /// Wakes the driver.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Whether the process is over, noticed or not.
    pub(crate) fn is_over(&self) -> bool {
        // A command is over before its leader is.
        self.command.as_ref().is_some_and(|command| sys::is_over(command.as_fd()))
            || self.exited
            || self.pidfd.as_ref().is_some_and(|pidfd| sys::has_exited(pidfd.as_fd()).unwrap_or(true))
    }

    /// Signals the process group, while it is still this job's.
    pub(crate) fn signal(&self, pids: Pids, signal: Signal) {
        match &self.command {
            _ if self.reaped => {}
            None => sys::signal_group(pids.command, signal.number()),
            Some(command) => {
                sys::signal_command(command.as_fd(), pids.command, pids.child, signal.number());
                if matches!(signal, Signal::CONT | Signal::KILL) {
                    sys::continue_leader(pids.child);
                }
            }
        }
    }
}

/// Process ids of a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pids {
    /// Our child, which is waited for; also its session.
    pub(crate) child: i32,
    /// The command, which is what people see; also its process group. The child itself, or the child of that.
    pub(crate) command: i32,
}

/// A job's process.
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) pidfd: Arc<OwnedFd>,
    /// The command, where that isn't the process.
    pub(crate) command: Option<sys::Command>,
    /// Its working directory is the root, since its home can't be gone to.
    pub(crate) in_root: bool,
}

/// Shared by all handles of a job and its driver.
pub(crate) struct Shared {
    pub(crate) pids: Pids,
    pub(crate) in_root: bool,
    state: Mutex<State>,
    finished: OnceLock<Arc<Ended>>,
    over: Notify,
    pub(crate) running: Arc<AtomicUsize>,
}

impl Shared {
    pub(crate) fn new(
        process: Process,
        [stdout, stderr]: [Ring; 2],
        input: InputQueue,
        on_change: OnChange,
        running: Arc<AtomicUsize>,
        terminal: Option<OwnedFd>,
    ) -> Self {
        let Process { pid, pidfd, command, in_root } = process;
        let pids = Pids { child: pid, command: command.as_ref().map_or(pid, |command| command.pid) };
        running.fetch_add(1, Ordering::Relaxed);
        let output = |ring, ended| OutputState { ring, ended, close: false, cap: None };
        Shared {
            pids,
            in_root,
            state: Mutex::new(State {
                // On a terminal stdout and stderr are one stream.
                outputs: [output(stdout, false), output(stderr, terminal.is_some())],
                runs: None,
                keeps_order: false,
                input,
                stopping: None,
                abandoned: false,
                exited: false,
                reaped: false,
                pidfd: Some(pidfd),
                command: command.map(|command| command.pidfd),
                stopped: None,
                terminal,
                on_change,
                waker: None,
            }),
            finished: OnceLock::new(),
            over: Notify::new(),
            running,
        }
    }

    /// Notes in which order the streams are read, for the end.
    pub(crate) fn keep_order(&self) {
        let mut state = self.lock();
        (state.runs, state.keeps_order) = (Some(Runs::default()), true);
    }

    /// A job without a process, which is over: all it printed is here.
    pub(crate) fn answered(
        stdout: &[u8],
        window: usize,
        on_change: OnChange,
        running: Arc<AtomicUsize>,
    ) -> Self {
        let mut ring = Ring::new(window);
        let mut rest = stdout;
        while !rest.is_empty() {
            let space = ring.space(rest.len());
            let (now, later) = rest.split_at(space.len().min(rest.len()));
            if now.is_empty() {
                break;
            }
            space.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            ring.commit(now.len());
            rest = later;
        }
        let output = |ring| OutputState { ring, ended: true, close: false, cap: None };
        running.fetch_add(1, Ordering::Relaxed);
        Shared {
            pids: Pids { child: 0, command: 0 },
            in_root: false,
            state: Mutex::new(State {
                outputs: [output(ring), output(Ring::new(window))],
                runs: None,
                keeps_order: false,
                input: InputQueue::new(window, true),
                stopping: None,
                abandoned: false,
                exited: true,
                reaped: true,
                pidfd: None,
                command: None,
                stopped: None,
                terminal: None,
                on_change,
                waker: None,
            }),
            finished: OnceLock::new(),
            over: Notify::new(),
            running,
        }
    }

    /// Calls the observer.
    pub(crate) fn tell(&self) {
        let on_change = Arc::clone(&self.lock().on_change);
        on_change();
    }

    /// Locks. Nothing in here is left half-done by a panic, so a poisoned lock is taken as it is.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn finished(&self) -> Option<Arc<Ended>> {
        self.finished.get().cloned()
    }

    /// Says that the job is over. Only the first time counts.
    pub(crate) fn finish(&self, ended: Ended) {
        if self.finished.set(Arc::new(ended)).is_ok() {
            self.running.fetch_sub(1, Ordering::Relaxed);
            self.over.notify_waiters();
        }
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
}
