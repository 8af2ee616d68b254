//! What a simulated command must know of the machine. Asked without waiting for long: what the kernel doesn't have at hand a
//! thread of its own looks up, and where that takes its time the shell looks for itself.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// The machine, or a test's.
pub(crate) trait World {
    /// Whether this is a directory that can be gone to. False also where that isn't known in time.
    fn is_directory(&self, path: &[u8]) -> bool;
    /// The directory's path without symbolic links.
    fn physical(&self, path: &[u8]) -> Option<Vec<u8>>;
    /// The home directory of another user.
    fn home_of(&self, user: &str) -> Option<Vec<u8>>;
}

/// This machine.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    looker: Mutex<Looker>,
}

/// Largest user database that is read for a `~user`; a larger one is for the shell.
const DATABASE: u64 = 256 * 1024;

/// How long a look at a file system may take. A local disk needs less; a network that is away takes for ever.
const PATIENCE: Duration = Duration::from_millis(50);

impl World for Machine {
    fn is_directory(&self, path: &[u8]) -> bool {
        self.open(path).is_some()
    }

    fn physical(&self, path: &[u8]) -> Option<Vec<u8>> {
        let directory = self.open(path)?;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())).ok()?;
        Some(link.into_os_string().into_vec()).filter(|path| path.starts_with(b"/"))
    }

    fn home_of(&self, user: &str) -> Option<Vec<u8>> {
        let file = std::fs::File::open("/etc/passwd").ok()?;
        let reader = BufReader::new(std::io::Read::take(file, DATABASE));
        reader.split(b'\n').map_while(Result::ok).find_map(|line| {
            let mut fields = line.split(|byte| *byte == b':');
            let name = fields.next()?;
            let home = fields.nth(4)?;
            (name == user.as_bytes() && home.starts_with(b"/")).then(|| home.to_vec())
        })
    }
}

impl Machine {
    /// Opens a directory as chdir(2) would go to it.
    fn open(&self, path: &[u8]) -> Option<OwnedFd> {
        match open(path, ResolveFlags::CACHED) {
            Ok(directory) => Some(directory),
            Err(Errno::AGAIN) => self.looker.lock().unwrap_or_else(PoisonError::into_inner).look(path),
            Err(_) => None,
        }
    }
}

/// The last "." is looked up in the directory, so its search permission counts. With `RESOLVE_CACHED` (Linux 5.12) nothing is
/// read from a disk or a network, so a dead file system can't make the calling thread wait.
fn open(path: &[u8], resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, [path, b"/."].concat(), flags, Mode::empty(), resolve)
}

/// The paths it is asked for, and what it has found.
type Thread = (Sender<Vec<u8>>, Receiver<Option<OwnedFd>>);

/// A thread that looks and may have to wait. While it does, nobody waits for it.
#[derive(Debug, Default)]
struct Looker {
    thread: Option<Thread>,
    /// It was given up in the middle of a look.
    is_stuck: bool,
}

impl Looker {
    fn look(&mut self, path: &[u8]) -> Option<OwnedFd> {
        let (paths, found) = self.thread.get_or_insert_with(|| {
            let (paths, wanted) = channel::<Vec<u8>>();
            let (answers, found) = channel();
            std::thread::spawn(move || {
                for path in wanted {
                    if answers.send(open(&path, ResolveFlags::empty()).ok()).is_err() {
                        return;
                    }
                }
            });
            (paths, found)
        });
        if self.is_stuck {
            // Its late answer is to an old question.
            self.is_stuck = found.try_recv().is_err();
            if self.is_stuck {
                return None;
            }
        }
        paths.send(path.to_vec()).ok()?;
        match found.recv_timeout(PATIENCE) {
            Ok(directory) => directory,
            Err(_) => {
                self.is_stuck = true;
                None
            }
        }
    }
}
