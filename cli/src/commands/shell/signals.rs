//! What the system tells the shell while it runs.

use remora_client::proto::WindowSize;
use signal_hook::consts::{SIGHUP, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::super::tty;

/// What was told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// Ctrl-C, where the terminal isn't raw, or somebody's SIGINT.
    Interrupt,
    /// To end: SIGTERM or SIGHUP, its number.
    End(i32),
    /// The window has this size.
    Resized(WindowSize),
}

/// Handlers that are there for as long as the shell is: none of these signals ends it with the terminal out of order.
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    window: Signal,
    /// Ctrl-C was seen.
    pub(super) interrupted: bool,
}

impl Signals {
    /// # Errors
    /// The kernel's.
    pub(super) fn watch() -> std::io::Result<Self> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            window: signal(SignalKind::window_change())?,
            interrupted: false,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Told {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Told::End(SIGTERM),
                _ = self.hangup.recv() => return Told::End(SIGHUP),
                _ = self.interrupt.recv() => {
                    self.interrupted = true;
                    return Told::Interrupt;
                }
                _ = self.window.recv() => if let Some(size) = tty::size() {
                    return Told::Resized(size);
                },
            }
        }
    }
}
