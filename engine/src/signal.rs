//! Signal numbers with names, as this machine has them.

use std::fmt;

/// A signal of this machine, 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(i32);

/// Names without `SIG`, as `kill -l` prints them. The first name of a number is the one that is printed.
const NAMES: [(&str, i32); 34] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

impl Signal {
    /// The terminal or its connection is gone.
    pub const HUP: Signal = Signal(libc::SIGHUP);
    /// Ctrl-C.
    pub const INT: Signal = Signal(libc::SIGINT);
    /// Ctrl-\.
    pub const QUIT: Signal = Signal(libc::SIGQUIT);
    /// The end that can't be caught.
    pub const KILL: Signal = Signal(libc::SIGKILL);
    /// Wrote where nobody reads.
    pub const PIPE: Signal = Signal(libc::SIGPIPE);
    /// The polite end.
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// Go on after a stop.
    pub const CONT: Signal = Signal(libc::SIGCONT);

    /// The signal of this number, if there is one (1 to 64).
    pub fn from_number(number: i32) -> Option<Self> {
        (1..=64).contains(&number).then_some(Signal(number))
    }

    /// The signal of this name, with or without `SIG`, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let bare = match name.get(..3) {
            Some(prefix) if prefix.eq_ignore_ascii_case("SIG") => name.get(3..).unwrap_or_default(),
            _ => name,
        };
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(bare)).map(|(_, number)| Signal(*number))
    }

    /// Its number here.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its name without `SIG`; `None` for real-time signals.
    pub fn name(self) -> Option<&'static str> {
        NAMES.iter().find(|(_, number)| *number == self.0).map(|(name, _)| *name)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "SIG{name}"),
            None => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Signal;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(Signal::from_name("sigterm"), Some(Signal::TERM));
        assert_eq!(Signal::from_name("INT"), Some(Signal::INT));
        assert_eq!(Signal::from_name("SIG"), None);
        assert_eq!(Signal::from_name(""), None);
        assert_eq!(Signal::from_number(9), Some(Signal::KILL));
        assert_eq!(Signal::from_number(0), None);
        assert_eq!(Signal::from_number(65), None);
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!(Signal::from_number(40).map(|s| s.to_string()), Some("signal 40".to_owned()));
    }
}
