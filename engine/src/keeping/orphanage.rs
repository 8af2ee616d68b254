//! The warden's children: the front, the keepers, and whoever a killed keeper has left, who become the warden's own.
//!
//! A keeper lives as long as anything of its job does. So whom the warden has as a child and has never heard of is what a keeper
//! left that was killed: the rest of a job that is lost, and is to be ended, or of one that was over before, and isn't.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use crate::sys;
use crate::tree::walk;

/// Looks at most so often for whom the last look's were forking, with a pause between.
const MOST_LOOKS: usize = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// The warden's children.
#[derive(Debug)]
pub(super) struct Orphanage {
    own: i32,
    /// The front, keepers, and strangers who are let be; none of them is reaped, so that the numbers are theirs.
    known: HashSet<i32>,
}

/// A child that has ended.
pub(super) struct Ended {
    pub(super) pid: i32,
    /// Raw.
    pub(super) status: i32,
    /// Not a stranger.
    pub(super) was_known: bool,
    /// A keeper whose job was over, and who attended to what that had left in the background.
    pub(super) is_attendant: bool,
}

impl Orphanage {
    /// From now on who loses its parent comes here.
    ///
    /// # Errors
    /// What prctl(2) says.
    pub(super) fn new() -> io::Result<Self> {
        sys::adopt_orphans()?;
        let own = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        Ok(Orphanage { own, known: HashSet::new() })
    }

    /// This one was started here.
    pub(super) fn know(&mut self, pid: i32) {
        self.known.insert(pid);
    }

    /// How many there are, strangers who are let be among them.
    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    /// The next child that has ended, reaped.
    pub(super) fn next_ended(&mut self) -> Option<Ended> {
        let pid = sys::first_over()?;
        // Its name outlives it for as long as it isn't reaped.
        let is_attendant = std::fs::read(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim_ascii_end() == sys::ATTENDANT.to_bytes());
        let status = sys::reap_status(pid)?;
        Some(Ended { pid, status, was_known: self.known.remove(&pid), is_attendant })
    }

    /// Those who are known and who is below them now, of whom the end of a keeper may make strangers.
    pub(super) fn families(&self) -> HashSet<i32> {
        let mut found = HashSet::new();
        walk(self.own, &HashSet::new(), |one, stat| {
            if stat.parent != self.own && (self.known.contains(&stat.parent) || found.contains(&stat.parent))
            {
                found.insert(one.pid);
            }
        });
        found.extend(&self.known);
        found
    }

    /// Kills all strangers, and who is below them, but for these families: of keepers whose end is not noticed yet.
    pub(super) fn end_strangers(&self, families: &HashSet<i32>) {
        for _ in 0..MOST_LOOKS {
            let mut found = false;
            walk(self.own, families, |one, _| {
                found = true;
                one.kill();
            });
            if !found {
                return;
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whoever is here now is let be.
    pub(super) fn know_strangers(&mut self) {
        let mut found = Vec::new();
        walk(self.own, &self.known, |one, stat| found.extend((stat.parent == self.own).then_some(one.pid)));
        self.known.extend(found);
    }
}
