//! Our own terminal while a program on the host has it: raw, and as it was afterwards, whatever happens.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::termios::{LocalModes, OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

/// Whether the terminal is raw: what is said to a person then needs its own carriage returns.
static RAW: AtomicBool = AtomicBool::new(false);

/// The terminal on our standard input, raw for as long as this lives. Dropped also when a panic unwinds.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Makes it raw.
    ///
    /// # Errors
    /// What the kernel says; `ENOTTY` where standard input is no terminal.
    pub(crate) fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        RAW.store(true, Ordering::Relaxed);
        Ok(RawMode { before })
    }

    /// As it was, for a while: the client is about to be stopped.
    pub(crate) fn suspend(&self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
        RAW.store(false, Ordering::Relaxed);
    }

    /// Raw again, and what it was before is what it is now.
    ///
    /// # Errors
    /// As [`RawMode::enter`].
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        let again = RawMode::enter()?;
        self.before = again.before.clone();
        std::mem::forget(again);
        Ok(())
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Now, not once all is written: a terminal that is held by Ctrl-S would keep us here.
        self.suspend();
    }
}

/// Whether our terminal is raw by our doing.
pub(crate) fn is_raw() -> bool {
    RAW.load(Ordering::Relaxed)
}

/// Whether the terminal on our standard input was left raw by a program that had no chance to restore it.
pub(crate) fn was_left_raw() -> bool {
    tcgetattr(io::stdin()).is_ok_and(|modes| {
        !modes.local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
            && !modes.output_modes.contains(OutputModes::OPOST)
    })
}
