//! A job that has the terminal: what it writes is shown, what is typed is sent, until it ends, stops, or a person leaves.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use remora_client::{Connection, Finished, JobError, Reader};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::super::outage;
use super::super::tty::Interrupts;
use super::jobs::{Jobs, Live, News};
use super::keys::{Keys, Leaving};
use super::screen::{Of, Screen};
use super::signals::{Signals, Told};

/// How long a command runs before it gets what was typed ahead: most are over by then, and each that gets it shows it anew.
const BEFORE_TYPED: Duration = Duration::from_millis(50);

/// Ctrl-Z, as a terminal's usual SUSP character.
const STOP: u8 = 0x1a;
/// How long what is typed behind it waits for the command to be stopped, and so to be for the prompt. Some take it for a key as any.
const BEHIND_STOP: Duration = Duration::from_millis(300);

/// Where a job runs.
pub(super) struct Around<'a> {
    pub(super) screen: &'a Mutex<Screen>,
    /// Where its terminal's input is typed; none where it has no terminal.
    pub(super) keys: Option<&'a Keys>,
    pub(super) signals: &'a mut Signals,
    /// The others.
    pub(super) jobs: &'a mut Jobs,
    pub(super) connection: &'a Connection,
    /// Rings when a line was drawn over what is shown, and is gone.
    pub(super) redrawn: &'a Notify,
}

/// What came of it.
pub(super) enum Ran {
    /// It has ended.
    Ended(Box<Result<Finished, JobError>>),
    /// It was stopped; this was typed behind that.
    Stopped { typed: Vec<u8> },
    /// A person wants its prompt back: the host ends the job.
    GivenUp,
    /// A person left, by `~.`.
    Left,
    /// The shell is to end, by this signal.
    End(i32),
    /// Our own terminal can't be written or read.
    Broken(io::Error),
}

/// Gives a job the terminal. `typed` is for it, from before it began.
pub(super) async fn run(live: &mut Live, around: &mut Around<'_>, typed: Vec<u8>) -> Ran {
    let Live { job, stdin, stdout, stderr, sent, .. } = live;
    let screen = around.screen;
    screen.lock().await.begin();
    let leaving = RefCell::new(Leaving::new());
    // Bytes that are on their way to the screen: a job that is stopped meanwhile is told of behind them.
    let busy = Cell::new(0_u32);
    // What was typed behind a Ctrl-Z.
    let held = RefCell::new(Vec::new());
    let heard = || leaving.borrow_mut().heard();
    let pump = async {
        let streams = async {
            tokio::try_join!(
                show(stdout, Of::Stdout, screen, &busy, heard),
                show(stderr, Of::Stderr, screen, &busy, heard)
            )
        };
        streams.await.map(|_| ())?;
        Ok(job.wait().await)
    };
    let feed = async {
        let Some(keys) = around.keys else { return std::future::pending().await };
        let mut given_up = Interrupts::default();
        if !typed.is_empty() {
            sent.add(&typed);
            tokio::time::sleep(BEFORE_TYPED).await;
            if !stdin.write(typed.into()).await {
                return std::future::pending().await;
            }
        }
        loop {
            let bytes = match keys.read().await {
                Ok(Some(bytes)) => bytes,
                // The terminal is gone; a signal says so, too.
                Ok(None) => return Ran::End(signal_hook::consts::SIGHUP),
                Err(error) => return Ran::Broken(error),
            };
            let lost = around.connection.lost().is_some();
            if leaving.borrow_mut().typed(&bytes, lost, Instant::now()) || given_up.typed(&bytes, lost) {
                return Ran::Left;
            }
            // Before it is written: what the job doesn't take any more is typed again at the prompt.
            let (now, later) = up_to_stop(bytes);
            sent.add(&now);
            if !stdin.write(now).await {
                held.borrow_mut().extend_from_slice(&later);
                return std::future::pending().await;
            }
            if sent.ends_with(STOP) {
                held.borrow_mut().extend_from_slice(&later);
                tokio::time::sleep(BEHIND_STOP).await;
                let later: Bytes = held.take().into();
                sent.add(&later);
                if !stdin.write(later).await {
                    return std::future::pending().await;
                }
            }
        }
    };
    let stopped = poll_fn(|cx| {
        if busy.get() > 0 {
            return Poll::Pending;
        }
        pin!(job.stopped()).poll(cx)
    });
    let (mut pump, mut feed, mut stopped) = (pin!(pump), pin!(feed), pin!(stopped));
    let mut interrupts = 0;
    let redraw = async {
        loop {
            around.redrawn.notified().await;
            if screen.lock().await.is_filled() {
                outage::redraw(job).await;
            }
        }
    };
    let mut redraw = pin!(redraw);
    loop {
        tokio::select! {
            biased;
            ended = &mut pump => return match ended {
                Ok(result) => Ran::Ended(Box::new(result)),
                Err(error) => Ran::Broken(error),
            },
            _ = &mut stopped => return Ran::Stopped { typed: held.take() },
            ran = &mut feed => return ran,
            () = &mut redraw => {}
            told = around.signals.next() => match told {
                // Nobody there could be told.
                Told::Interrupt if around.connection.lost().is_some() => return Ran::Left,
                Told::Interrupt => {
                    // The terminal shows ^C.
                    screen.lock().await.at_start = false;
                    interrupts += 1;
                    if interrupts > 1 {
                        return Ran::GivenUp;
                    }
                    job.signal("INT");
                }
                Told::End(signal) => return Ran::End(signal),
                Told::Resized(size) => {
                    screen.lock().await.resized(&size);
                    job.resize(&size);
                }
            },
            news = around.jobs.news() => if let News::Output(_, of, bytes) = news
                && let Err(error) = screen.lock().await.show(of, bytes).await
            {
                return Ran::Broken(error);
            },
        }
    }
}

/// What may be sent now, and what is behind a Ctrl-Z in it.
fn up_to_stop(mut bytes: Bytes) -> (Bytes, Bytes) {
    match bytes.iter().position(|byte| *byte == STOP) {
        Some(at) => (bytes.split_to(at + 1), bytes),
        None => (bytes, Bytes::new()),
    }
}

async fn show(
    reader: &mut Reader,
    of: Of,
    screen: &Mutex<Screen>,
    busy: &Cell<u32>,
    heard: impl Fn(),
) -> io::Result<()> {
    while let Some(bytes) = reader.next().await {
        heard();
        busy.set(busy.get() + 1);
        let shown = screen.lock().await.show(of, bytes).await;
        busy.set(busy.get() - 1);
        shown?;
    }
    Ok(())
}
