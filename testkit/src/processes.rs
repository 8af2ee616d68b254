//! What this process owns, and which processes are alive: for tests that prove that nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::eventually;

/// Descriptors and children of this process, zombies included, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belongings {
    descriptors: BTreeMap<i32, PathBuf>,
    children: BTreeSet<i32>,
}

impl Belongings {
    /// What this process has now.
    pub fn now() -> Self {
        Belongings::of(i32::try_from(std::process::id()).unwrap_or_default())
    }

    /// What another process has now.
    pub fn of(pid: i32) -> Self {
        let names: Vec<i32> = numbers(&format!("/proc/{pid}/fd"));
        // The folder's own descriptor is closed by now, and has no target any more.
        let descriptors = names
            .into_iter()
            .filter_map(|fd| Some((fd, fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?)))
            .collect();
        let children = children(pid).into_iter().collect();
        Belongings { descriptors, children }
    }

    /// Waits until this process has no descriptor and no child that it didn't have then. No other test of this process
    /// may run at the same time.
    ///
    /// # Panics
    /// Where some are left at the deadline.
    #[track_caller]
    pub fn assert_nothing_new(&self, deadline: Duration) {
        self.assert_nothing_new_of(i32::try_from(std::process::id()).unwrap_or_default(), deadline);
    }

    /// As [`Belongings::assert_nothing_new`], of another process, and of descriptors alone.
    ///
    /// # Panics
    /// Where some are left at the deadline.
    #[track_caller]
    pub fn assert_no_new_descriptor_of(&self, pid: i32, deadline: Duration) {
        eventually(deadline, "no descriptor is left", || {
            Belongings::of(pid).descriptors.keys().all(|fd| self.descriptors.contains_key(fd))
        });
    }

    /// As [`Belongings::assert_nothing_new`], of another process.
    ///
    /// # Panics
    /// Where some are left at the deadline.
    #[track_caller]
    pub fn assert_nothing_new_of(&self, pid: i32, deadline: Duration) {
        let mut left = String::new();
        eventually(deadline, "no process, descriptor or zombie is left", || {
            let now = Belongings::of(pid);
            let descriptors: Vec<_> =
                now.descriptors.iter().filter(|(fd, _)| !self.descriptors.contains_key(fd)).collect();
            let children: Vec<_> = now.children.difference(&self.children).collect();
            let nothing = descriptors.is_empty() && children.is_empty();
            let text = format!("descriptors {descriptors:?}, children {children:?}");
            if !nothing && text != left {
                left = text;
            }
            nothing
        });
    }
}

/// The children of a process, zombies included.
pub fn children(pid: i32) -> Vec<i32> {
    let pid = pid.to_string();
    numbers("/proc").into_iter().filter(|child| field(*child, 1).as_ref() == Some(&pid)).collect()
}

/// Living processes (no zombies) of a session.
pub fn session_members(session: i32) -> Vec<i32> {
    let session = session.to_string();
    numbers("/proc")
        .into_iter()
        .filter(|pid| field(*pid, 3).as_ref() == Some(&session) && is_alive(*pid))
        .collect()
}

/// Living processes (no zombies) of a process group.
pub fn group_members(group: i32) -> Vec<i32> {
    let group = group.to_string();
    numbers("/proc")
        .into_iter()
        .filter(|pid| field(*pid, 2).as_ref() == Some(&group) && is_alive(*pid))
        .collect()
}

/// Whether a process runs, zombies excluded.
pub fn is_alive(pid: i32) -> bool {
    field(pid, 0).is_some_and(|state| !matches!(state.as_str(), "Z" | "X" | "x"))
}

/// A field of `/proc/PID/stat` behind the command's name: 0 is the state, 1 the parent, 2 the group, 3 the session.
fn field(pid: i32, index: usize) -> Option<String> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(index).map(str::to_owned)
}

fn numbers(folder: &str) -> Vec<i32> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
