//! Where this process may make cgroups (v2): one around a job with a memory limit, and one around each keeper
//! ([`Enclosure`](crate::enclosure::Enclosure)). See cgroups(7) and `Documentation/admin-guide/cgroup-v2.rst` in the kernel.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::CgroupParent;
use crate::enclosure::Enclosure;
use crate::incarnation::Incarnation;

/// A cgroup below which jobs' cgroups are made.
#[derive(Debug)]
pub(crate) struct Parent {
    path: PathBuf,
    /// It hands the memory controller to its children.
    hands_memory_on: bool,
    count: AtomicU64,
    /// Cgroups that background processes outlived; tried again with the next job.
    left: Arc<Mutex<Vec<PathBuf>>>,
}

impl Parent {
    /// The parent that the configuration means, if it can be used: it hands the memory controller to its children, or is
    /// delegated to this process, or named.
    pub(crate) fn find(config: &CgroupParent) -> Option<Self> {
        let candidates = match config {
            CgroupParent::Off => Vec::new(),
            CgroupParent::At(path) => vec![path.clone()],
            CgroupParent::Detect => own_cgroup().map_or_else(Vec::new, |own| {
                let above = own.parent().filter(|above| is_delegated(above)).map(Path::to_owned);
                std::iter::once(own).chain(above).collect()
            }),
        };
        let with_memory = candidates.iter().find(|path| match hands_memory_on(path) {
            Ok(hands_on) => hands_on,
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "no cgroups for memory limits");
                false
            }
        });
        let is_ours = |path: &PathBuf| matches!(config, CgroupParent::At(_)) || is_delegated(path);
        let hands_memory_on = with_memory.is_some();
        let path =
            with_memory.or_else(|| candidates.iter().find(|path| is_ours(path) && is_writable(path)))?;
        Some(Parent { path: path.clone(), hands_memory_on, count: AtomicU64::new(0), left: Arc::default() })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a cgroup that may use so many bytes of memory, swap included; none where it has no such controller to hand on.
    pub(crate) fn limit_memory(&self, bytes: u64) -> io::Result<Option<JobCgroup>> {
        if !self.hands_memory_on {
            return Ok(None);
        }
        self.sweep();
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let own = i32::try_from(std::process::id()).ok().and_then(Incarnation::now);
        let path = self.path.join(Enclosure::sister(own.ok_or(io::ErrorKind::NotFound)?, number));
        fs::create_dir(&path)?;
        let left = Arc::clone(&self.left);
        let made = (|| {
            fs::write(path.join("memory.max"), bytes.to_string())?;
            // The one that isn't there without swap accounting, and the one that kills the job as a whole.
            let _ = fs::write(path.join("memory.swap.max"), "0");
            let _ = fs::write(path.join("memory.oom.group"), "1");
            File::options().write(true).open(path.join("cgroup.procs"))
        })();
        match made {
            Ok(procs) => Ok(Some(JobCgroup { path, procs, left })),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    fn sweep(&self) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(
            |path| matches!(fs::remove_dir(path), Err(error) if error.kind() != io::ErrorKind::NotFound),
        );
    }
}

/// The cgroup of one job. Removed when dropped, or later if background processes are still in it.
#[derive(Debug)]
pub(crate) struct JobCgroup {
    path: PathBuf,
    procs: File,
    left: Arc<Mutex<Vec<PathBuf>>>,
}

impl JobCgroup {
    /// `cgroup.procs`, to be written "0" to by who joins.
    pub(crate) fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }

    /// Peak memory in bytes, since 5.19.
    pub(crate) fn peak(&self) -> Option<u64> {
        fs::read_to_string(self.path.join("memory.peak")).ok()?.trim().parse().ok()
    }

    /// Whether the kernel killed for the limit.
    pub(crate) fn was_exceeded(&self) -> bool {
        fs::read_to_string(self.path.join("memory.events")).is_ok_and(|events| {
            events
                .lines()
                .filter_map(|line| line.split_once(' '))
                .any(|(name, count)| name == "oom_kill" && count.trim() != "0")
        })
    }
}

impl Drop for JobCgroup {
    fn drop(&mut self) {
        if fs::remove_dir(&self.path).is_err() {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).push(self.path.clone());
        }
    }
}

/// The folder of this process's own cgroup in the unified hierarchy.
fn own_cgroup() -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/').to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after.starts_with("cgroup2 ").then(|| before.split(' ').nth(4)).flatten()
    })?;
    Some(Path::new(mount).join(own))
}

/// Whether systemd handed this cgroup over to the service in it (`Delegate=`), which it marks by an extended attribute: only
/// then may it be used from a child that the service was put into (`DelegateSubgroup=`).
fn is_delegated(path: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].into_iter().any(|name| {
        let mut value = [0; 4];
        rustix::fs::getxattr(path, name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    })
}

/// Whether children of a cgroup get the memory controller; turned on if it is there and this process may.
fn hands_memory_on(path: &Path) -> io::Result<bool> {
    let has = |file: &str| -> io::Result<bool> {
        Ok(fs::read_to_string(path.join(file))?.split_ascii_whitespace().any(|name| name == "memory"))
    };
    if !has("cgroup.controllers")? {
        return Ok(false);
    }
    if !has("cgroup.subtree_control")? {
        // EBUSY while this process itself is in it ("no internal processes"): a unit file with `Delegate=memory` and
        // `DelegateSubgroup=` puts the server into a child of its own.
        fs::write(path.join("cgroup.subtree_control"), "+memory")?;
    }
    Ok(is_writable(path))
}

/// Asks for the permission to make children without making one.
fn is_writable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok()
}
