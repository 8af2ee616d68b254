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

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

    use super::*;

    /// Set for the process that is to panic.
    const PANICS: &str = "REMORA_TEST_PANICS";

    #[test]
    fn panics_while_the_terminal_is_raw() {
        if std::env::var_os(PANICS).is_some() {
            let _raw = RawMode::enter().unwrap();
            assert!(was_left_raw(), "it is raw by now");
            panic!("as it was to");
        }
    }

    #[test]
    fn a_panic_leaves_the_terminal_as_it_was() {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let terminal = ioctl_tiocgptpeer(&master, flags).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "raw_mode::tests::panics_while_the_terminal_is_raw"])
            .env(PANICS, "1")
            .stdin(Stdio::from(terminal.try_clone().unwrap()))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr).into_owned();
        assert!(!child.status.success() && said.contains("as it was to"), "{said}");
        let after = tcgetattr(&terminal).unwrap();
        assert_eq!(
            (after.local_modes, after.input_modes, after.output_modes),
            (before.local_modes, before.input_modes, before.output_modes)
        );
    }
}
