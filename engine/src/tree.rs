//! All that runs of a job, however far it has gone: what a keeper's child leaves behind becomes the keeper's own child
//! (`PR_SET_CHILD_SUBREAPER`, prctl(2)), so that a session of its own, or a parent that is gone, takes nobody out of reach. Where the
//! host delegates a cgroup, the kernel itself keeps the list.
//!
//! For jobs that remora ends. What a job that ended by itself has left in the background isn't touched.

use std::collections::HashSet;

use rustix::process::Signal;

use crate::enclosure::Enclosure;
use crate::incarnation::{Incarnation, Stat, all};

/// What runs below a keeper.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Process id of the keeper: this process.
    root: i32,
    enclosure: Option<Enclosure>,
}

impl Tree {
    /// The tree below this process, which adopts orphans.
    pub(crate) fn new(root: i32, enclosure: Option<Enclosure>) -> Self {
        Tree { root, enclosure }
    }

    /// The cgroup of this process and of all that runs below it.
    pub(crate) fn enclosure(&self) -> Option<&Enclosure> {
        self.enclosure.as_ref()
    }

    /// Asks all but a process group, who were asked already, to end: SIGTERM, and SIGCONT for who is stopped.
    pub(crate) fn ask(&self, but: i32) {
        walk(self.root, &HashSet::new(), |one, stat| {
            if stat.group != but {
                one.signal(Signal::TERM);
                one.signal(Signal::CONT);
            }
        });
    }

    /// Whether anybody is left but this child of ours.
    pub(crate) fn has_others(&self, but: i32) -> bool {
        let mut found = false;
        walk(self.root, &HashSet::new(), |one, _| found |= one.pid != but);
        found
    }

    /// Kills all but this child of ours; whether anybody was there, so that another look is needed: who dies leaves us whom it was
    /// just forking. Once the child is over, all at once where there is a cgroup.
    pub(crate) fn kill(&self, but: i32, is_over: bool) -> bool {
        if let Some(enclosure) = self.enclosure.as_ref().filter(|_| is_over && self.has_others(but)) {
            enclosure.kill_others();
        }
        let mut found = false;
        walk(self.root, &HashSet::new(), |one, _| {
            if one.pid != but {
                found = true;
                // As soon as it is found: a chain of processes that each fork the next and end has no time for that.
                one.kill();
            }
        });
        found
    }
}

/// Calls `f` with each living process below a root, but not with those spared and who is below them.
pub(crate) fn walk(root: i32, spared: &HashSet<i32>, mut f: impl FnMut(Incarnation, &Stat)) {
    let mut family = HashSet::from([root]);
    let mut later = Vec::new();
    for (pid, stat) in all().filter(|(pid, stat)| !stat.is_dead && !spared.contains(pid)) {
        let one = Incarnation { pid, started: stat.started };
        if family.contains(&stat.parent) {
            family.insert(pid);
            f(one, &stat);
        } else {
            later.push((one, stat));
        }
    }
    // Numbers begin anew when they have come to their end, and then a child's is the lower one.
    loop {
        let before = later.len();
        later.retain(|(one, stat)| {
            let is_ours = family.contains(&stat.parent);
            if is_ours {
                family.insert(one.pid);
                f(*one, stat);
            }
            !is_ours
        });
        if later.len() == before {
            return;
        }
    }
}
