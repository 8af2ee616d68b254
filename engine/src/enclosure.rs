//! The cgroup (v2) of a keeper and of all that runs below it, where the host delegates one. What runs in it can't leave it, so that
//! the kernel ends all of it at once (`cgroup.kill`), a swarm that forks faster than anybody looks included.
//!
//! It is the keeper's and not the job's: making one and moving into it costs a command nothing, since keepers are forked ahead
//! of need and used again when nothing is left of their job.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::incarnation::Incarnation;

/// What the name of each begins with.
const PREFIX: &str = "remora-";

/// Where the keeper stands while the rest is killed.
const ASIDE: &str = "-aside";

/// A cgroup of a keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Enclosure(PathBuf);

impl Enclosure {
    /// Makes one below a cgroup, and moves this process, the keeper, into it.
    ///
    /// # Errors
    /// What mkdir(2) says, or the move, or where the kernel is older than `cgroup.kill` (5.14).
    pub(crate) fn enter(parent: &Path, keeper: Incarnation) -> io::Result<Self> {
        let enclosure = Enclosure::of(parent, keeper);
        fs::create_dir(&enclosure.0)?;
        let entered = fs::metadata(enclosure.0.join("cgroup.kill")).and_then(|_| join(&enclosure.0));
        if let Err(error) = entered {
            let _ = fs::remove_dir(&enclosure.0);
            return Err(error);
        }
        Ok(enclosure)
    }

    /// The one that a keeper has, if it has one.
    pub(crate) fn of(parent: &Path, keeper: Incarnation) -> Self {
        Enclosure(parent.join(format!("{PREFIX}{}-{}", keeper.pid, keeper.started)))
    }

    /// What a further cgroup of a process is called: it is found by the name of the first.
    pub(crate) fn sister(process: Incarnation, number: u64) -> String {
        format!("{PREFIX}{}-{}-{number}", process.pid, process.started)
    }

    /// One that was noted; none where there is no such name.
    pub(crate) fn noted(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        (path.is_absolute() && name.starts_with(PREFIX)).then_some(Enclosure(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Kills all that is in it but this process, which steps aside meanwhile.
    pub(crate) fn kill_others(&self) {
        let aside = self.named(ASIDE);
        let killed = (|| {
            fs::create_dir(&aside)?;
            join(&aside)?;
            let killed = self.kill();
            join(&self.0)?;
            killed
        })();
        let _ = fs::remove_dir(&aside);
        if let Err(error) = killed {
            tracing::warn!(path = %self.0.display(), %error, "a cgroup can't be killed");
        }
    }

    /// Kills all that is in it, and in the cgroups of memory limits that are its sisters.
    ///
    /// # Errors
    /// It is gone, for one.
    pub(crate) fn kill(&self) -> io::Result<()> {
        for sister in self.sisters() {
            let _ = fs::write(sister.join("cgroup.kill"), "1");
        }
        fs::write(self.0.join("cgroup.kill"), "1")
    }

    /// Removes it, if nobody is in it any more.
    pub(crate) fn remove(&self) {
        for path in self.sisters().into_iter().chain([self.0.clone()]) {
            let _ = fs::remove_dir(path);
        }
    }

    /// Removes those below a cgroup that nobody is in any more, and whose process is gone.
    pub(crate) fn sweep(parent: &Path) {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_str().and_then(owner).is_some_and(|owner| !owner.is_alive()) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }

    /// The cgroups that are named after it.
    fn sisters(&self) -> Vec<PathBuf> {
        let (Some(parent), Some(name)) = (self.0.parent(), self.0.file_name().and_then(|name| name.to_str()))
        else {
            return Vec::new();
        };
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        let named = |entry: fs::DirEntry| {
            let file_name = entry.file_name();
            let rest = file_name.to_str()?.strip_prefix(name)?;
            (rest.starts_with('-') && rest != ASIDE).then(|| entry.path())
        };
        entries.filter_map(named).collect()
    }

    fn named(&self, more: &str) -> PathBuf {
        let mut name = self.0.clone().into_os_string();
        name.push(more);
        name.into()
    }
}

/// Whose cgroup has this name.
fn owner(name: &str) -> Option<Incarnation> {
    let mut numbers = name.strip_prefix(PREFIX)?.split('-');
    Some(Incarnation { pid: numbers.next()?.parse().ok()?, started: numbers.next()?.parse().ok()? })
}

/// Moves this process into a cgroup.
fn join(path: &Path) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_whose_it_is_and_others_are_left_alone() {
        let one = Incarnation { pid: 12, started: 345 };
        let enclosure = Enclosure::of(Path::new("/c"), one);
        let name = enclosure.path().file_name().unwrap().to_str().unwrap();
        assert_eq!((owner(name), owner(&Enclosure::sister(one, 7))), (Some(one), Some(one)));
        assert!(Enclosure::sister(one, 7).starts_with(&format!("{name}-")));
        assert_eq!((owner("remora-x-1"), owner("ssh.service"), owner("remora-1")), (None, None, None));
        assert_eq!(Enclosure::noted(enclosure.path().to_owned()), Some(enclosure));
        assert_eq!(Enclosure::noted("/c/system.slice".into()), None);
        assert_eq!(Enclosure::noted("remora-1-2".into()), None);
    }
}
