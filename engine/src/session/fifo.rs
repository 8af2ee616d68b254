//! The FIFO through which a shell tells its state: made before the shell is started, read while it ends.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::limits;
use crate::sys;

/// The folder that FIFOs are made in: nobody's but this account's.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    ready: std::sync::OnceLock<Result<(), String>>,
    count: AtomicU64,
}

impl Folder {
    /// A folder that is made when it is first needed.
    pub(crate) fn new(path: PathBuf) -> Self {
        Folder { path, ready: std::sync::OnceLock::new(), count: AtomicU64::new(0) }
    }

    /// Makes a FIFO that a shell can open by its name.
    ///
    /// # Errors
    /// Why nothing can be captured, for people.
    pub(crate) fn fifo(&self) -> Result<Fifo, String> {
        self.ready.get_or_init(|| self.prepare()).clone()?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{}-{number}", std::process::id()));
        let failed = |error: io::Error| format!("can't make {}: {error}", path.display());
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .map_err(|error| failed(error.into()))?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        match opened {
            Ok(fd) => Ok(Fifo { path, fd }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(failed(error.into()))
            }
        }
    }

    /// Makes the folder, or sees to it that it is ours alone; and removes what a server that was killed has left.
    fn prepare(&self) -> Result<(), String> {
        let failed = |error: io::Error| format!("can't use {}: {error}", self.path.display());
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(failed)?;
        let found = fs::symlink_metadata(&self.path).map_err(failed)?;
        let own =
            found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
        if !own {
            return Err(format!("{} is not a folder that only this account can use", self.path.display()));
        }
        for entry in fs::read_dir(&self.path).map_err(failed)?.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.split_once('-')).map(|(pid, _)| pid);
            let stale = pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists());
            if stale && entry.file_type().is_ok_and(|kind| kind.is_fifo()) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// A FIFO. Its name goes when this does.
#[derive(Debug)]
pub(crate) struct Fifo {
    path: PathBuf,
    fd: OwnedFd,
}

impl Fifo {
    /// Its absolute path.
    pub(crate) fn path(&self) -> &[u8] {
        self.path.as_os_str().as_bytes()
    }

    /// Reads it from now on, on the current tokio runtime, so that a shell that tells much isn't held up.
    ///
    /// # Errors
    /// I/O errors of the runtime.
    pub(crate) fn collect(self) -> io::Result<Collector> {
        let Fifo { path, fd } = self;
        let name = Name(path);
        Ok(Collector { _name: Some(name), ..Collector::new(fd)? })
    }
}

/// Removes a name.
#[derive(Debug)]
struct Name(PathBuf);

impl Drop for Name {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[derive(Debug, Default)]
struct Told {
    bytes: Vec<u8>,
    /// Bytes that came in all.
    length: usize,
}

impl Told {
    /// Reads what is there; false at the end, and true where more may come.
    fn read(&mut self, fd: &OwnedFd) -> bool {
        let mut buffer = [0; 16 * 1024];
        loop {
            match rustix::io::read(fd, &mut buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    self.length = self.length.saturating_add(count);
                    if self.length <= limits::CAPTURE {
                        self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    }
                }
                Err(Errno::INTR) => {}
                Err(errno) => return errno == Errno::AGAIN,
            }
        }
    }
}

async fn follow(watched: AsyncFd<Arc<OwnedFd>>, told: Arc<Mutex<Told>>) {
    loop {
        let Ok(mut ready) = watched.readable().await else { return };
        let more = told.lock().unwrap_or_else(PoisonError::into_inner).read(watched.get_ref());
        if !more {
            return;
        }
        ready.clear_ready();
    }
}

/// What a shell tells, as it comes.
#[derive(Debug)]
pub(crate) struct Collector {
    fd: Arc<OwnedFd>,
    told: Arc<Mutex<Told>>,
    _task: Task,
    _name: Option<Name>,
}

impl Collector {
    /// Reads a FIFO from now on, on the current tokio runtime.
    ///
    /// # Errors
    /// I/O errors of the runtime.
    pub(crate) fn new(fifo: OwnedFd) -> io::Result<Self> {
        let fd = Arc::new(fifo);
        let watched = sys::watch(Arc::clone(&fd), Interest::READABLE)?;
        let told = Arc::new(Mutex::new(Told::default()));
        let task = Task(tokio::spawn(follow(watched, Arc::clone(&told))));
        Ok(Collector { fd, told, _task: task, _name: None })
    }

    /// All that was told, once the shell is over, and its length; longer than it may be, the bytes aren't whole.
    pub(crate) fn told(&self) -> (Vec<u8>, usize) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.read(&self.fd);
        (told.bytes.clone(), told.length)
    }
}

/// A task that ends with its handle.
#[derive(Debug)]
struct Task(tokio::task::JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
