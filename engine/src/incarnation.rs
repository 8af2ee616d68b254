//! One process, and not another that has its number later: number and start time, as `/proc` tells them (proc_pid_stat(5)).

use std::fs;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that was, or is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Incarnation {
    pub(crate) pid: i32,
    /// When it started, clock ticks since the machine did.
    pub(crate) started: u64,
}

/// What `/proc` says of a process.
pub(crate) struct Stat {
    pub(crate) is_dead: bool,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    session: i32,
    pub(crate) started: u64,
}

impl Incarnation {
    /// The process that has this number now.
    pub(crate) fn now(pid: i32) -> Option<Self> {
        Stat::of(pid).map(|stat| Incarnation { pid, started: stat.started })
    }

    /// Whether it runs still.
    pub(crate) fn is_alive(self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started == self.started && !stat.is_dead)
    }

    /// A descriptor for it, which can't mean another; none where it is over.
    pub(crate) fn pidfd(self) -> Option<OwnedFd> {
        let fd = pidfd_open(Pid::from_raw(self.pid).filter(|_| self.pid > 1)?, PidfdFlags::empty()).ok()?;
        // Asked behind it: what has the number now had it when the descriptor was opened, or the descriptor's process is over.
        self.is_alive().then_some(fd)
    }

    /// Kills it; whether it was there.
    pub(crate) fn kill(self) -> bool {
        self.signal(Signal::KILL)
    }

    /// Sends it a signal; whether it was there.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        self.pidfd().is_some_and(|fd| pidfd_send_signal(fd, signal).is_ok())
    }
}

impl Stat {
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The command's name is in parentheses, and may hold anything.
        let name_end = text.iter().rposition(|byte| *byte == b')')?;
        let rest = String::from_utf8_lossy(text.get(name_end + 1..)?).into_owned();
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok());
        Some(Stat {
            is_dead: matches!(fields.first(), Some(&("Z" | "X" | "x"))),
            parent: i32::try_from(number(1)?).ok()?,
            group: i32::try_from(number(2)?).ok()?,
            session: i32::try_from(number(3)?).ok()?,
            started: number(19)?,
        })
    }
}

/// Looks at most so often for what a session still has: each look finds what the last one's were forking.
const MOST_LOOKS: usize = 50;

/// Kills all processes of a session whose leader was this one; it, and whoever has the number since, are told apart by their start.
/// What has left the session isn't among them. How many were killed.
pub(crate) fn kill_session(leader: Incarnation) -> usize {
    let mut killed = 0;
    if leader.pid <= 1 {
        return 0;
    }
    for _ in 0..MOST_LOOKS {
        let found: Vec<Incarnation> = members(leader.pid)
            .into_iter()
            .filter(|one| one.started >= leader.started && (one.pid != leader.pid || *one == leader))
            .collect();
        let now = found.iter().filter(|one| one.kill()).count();
        killed += now;
        if now == 0 {
            break;
        }
    }
    killed
}

/// All processes there are, those with the lower numbers first.
pub(crate) fn all() -> impl Iterator<Item = (i32, Stat)> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    numbers
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| Some((pid, Stat::of(pid)?)))
}

/// The living processes of a session.
fn members(session: i32) -> Vec<Incarnation> {
    all()
        .filter(|(_, stat)| stat.session == session && !stat.is_dead)
        .map(|(pid, stat)| Incarnation { pid, started: stat.started })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_nobody() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let one = Incarnation::now(pid).unwrap();
        assert!(one.is_alive());
        let earlier = Incarnation { started: one.started - 1, ..one };
        assert!(!earlier.is_alive() && !earlier.kill() && one.is_alive());
        assert!(one.kill());
        child.wait().unwrap();
        assert!(!one.is_alive() && one.pidfd().is_none());
    }
}
