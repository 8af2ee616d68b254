//! The warden: the first process of a server. It has one thread and little memory, forks keepers and starts the front, which is all
//! the rest of the server, anew when that dies.
//!
//! It hands the front sockets to keepers that wait for a job, ahead of need, so that a command waits for no fork and the warden is
//! on nobody's way; and the front says when it has used one.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, FdFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::folder::{JobKey, Jobs};
use super::keeper::{Idle, Kit};
use super::orphanage::Orphanage;
use crate::cgroup::Parent;
use crate::config::EngineConfig;
use crate::enclosure::Enclosure;
use crate::sys::{self, Signals};

/// Keepers that wait ready and have had no job yet.
const SPARES: usize = 2;

/// A keeper that was used is replaced after so long, and not while its command is starting; at once where none is left.
const DELAY: Duration = Duration::from_millis(1);

/// How long a warden that ends waits for keepers that have nothing to do any more.
const SEEING_OFF: Duration = Duration::from_millis(500);

/// A pause where the kernel refuses a process.
const PAUSE: Duration = Duration::from_millis(20);

/// The first and the longest pause before a front that died soon is started anew.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A front that lived for so long has died for another reason than its start.
const SOON: Duration = Duration::from_secs(1);

/// What a message over the link is. From the warden: a keeper, with its socket, or why there is none, by its errno. From the front: that
/// one was used, that it serves, and that it waits for one.
const KEEPER: u8 = 1;
const USED: u8 = 2;
const SERVING: u8 = 3;
const WANTED: u8 = 4;
const REFUSED: u8 = 5;
/// EAGAIN, for a refusal that has no errno.
const AGAIN: u8 = 11;

/// The other end of the warden's socket: the server's.
#[derive(Debug)]
pub struct WardenLink(OwnedFd);

impl WardenLink {
    /// A link to no warden.
    #[cfg(test)]
    pub(super) fn to_nobody() -> Self {
        let (ours, _) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        WardenLink(ours)
    }

    /// The link that this process was started with, by the number of its descriptor. Signals that the warden has blocked come
    /// through again: to be called before anything handles them.
    ///
    /// # Errors
    /// There is no socket of this number.
    pub fn inherited(number: i32) -> io::Result<Self> {
        let link = sys::inherited_socket(number).map(WardenLink)?;
        sys::unblock_signals();
        Ok(link)
    }

    /// The socket of a keeper that waits for a job; none where none has been handed over.
    ///
    /// # Errors
    /// The warden is gone, or hands over something odd.
    pub(crate) fn keeper(&self) -> io::Result<Option<OwnedFd>> {
        match receive(self.0.as_fd(), RecvFlags::DONTWAIT) {
            Ok(Some((message, socket))) => match message.as_slice() {
                [KEEPER] if socket.is_some() => Ok(socket),
                // No descriptor was left for its socket, which is closed: it ends, and another one takes its place (unix(7), MSG_CTRUNC).
                [KEEPER] => {
                    self.used()?;
                    Err(Errno::MFILE.into())
                }
                [REFUSED, errno] => Err(io::Error::from_raw_os_error((*errno).into())),
                _ => Err(io::ErrorKind::InvalidData.into()),
            },
            Ok(None) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for the socket of a keeper.
    ///
    /// # Errors
    /// As [`WardenLink::keeper`], or [`io::ErrorKind::TimedOut`].
    pub(crate) fn wait_for_keeper(&self, until: Instant) -> io::Result<OwnedFd> {
        // What nobody waited for long enough to hear may be here still, and no longer be true.
        let at_hand = self.keeper().or_else(|error| match error.raw_os_error() {
            Some(_) => self.keeper(),
            None => Err(error),
        });
        if let Some(socket) = at_hand? {
            return Ok(socket);
        }
        self.send(&[WANTED], &[])?;
        loop {
            super::channel::wait(self.0.as_fd(), PollFlags::IN, until)?;
            if let Some(socket) = self.keeper()? {
                return Ok(socket);
            }
        }
    }

    /// Says that a keeper was used.
    pub(crate) fn used(&self) -> io::Result<()> {
        self.send(&[USED], &[])
    }

    /// Says that this server serves: from now on it is started anew when it dies. And again when the configuration was read anew.
    ///
    /// # Errors
    /// The warden is gone.
    pub fn serving(&self) -> io::Result<()> {
        self.send(&[SERVING], &[])
    }

    fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(self.0.as_fd(), message, fds)
    }

    /// A second descriptor of the same link, for who waits for the warden's end.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(WardenLink)
    }

    /// Waits until the warden is gone.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn ended(&self) -> io::Result<()> {
        let watched = sys::watch(self.0.try_clone()?, tokio::io::Interest::READABLE)?;
        loop {
            let mut ready = watched.readable().await?;
            // Behind keepers that nobody has taken yet, so that reading wouldn't tell.
            if ready.ready().is_read_closed() {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

/// That this process is the one front of a state directory. The one before may live for a moment longer than its warden.
#[derive(Debug)]
pub struct OnlyFront(#[expect(dead_code, reason = "held, not read")] File);

/// How long the front before may take to end.
const FAREWELL: Duration = Duration::from_secs(5);

impl OnlyFront {
    /// Waits until no other process serves this state directory.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] where one does for too long, or the file can't be opened.
    pub fn wait(state_dir: &Path) -> io::Result<Self> {
        let file = File::options().create(true).truncate(false).write(true).open(state_dir.join("front"))?;
        let until = Instant::now() + FAREWELL;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(OnlyFront(file)),
                Err(Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(DELAY),
                Err(Errno::WOULDBLOCK) => return Err(io::ErrorKind::TimedOut.into()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn send(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a packet and the descriptor that came along; nothing where the other end is gone.
fn receive(socket: BorrowedFd<'_>, flags: RecvFlags) -> io::Result<Option<(Vec<u8>, Option<OwnedFd>)>> {
    let mut bytes = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        match recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut passed = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            passed = fds.last();
        }
    }
    Ok(Some((bytes.get(..received.bytes).unwrap_or_default().to_vec(), passed)))
}

/// Why there is no warden.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WardenError {
    /// Another server uses the state directory.
    #[error("another server runs on {}", .0.display())]
    Taken(PathBuf),
    /// The state directory can't be used.
    #[error("can't use {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others could put there what they like: jobs, and sockets that pass for keepers'.
    #[error("can't use {}: {why}", path.display())]
    Open {
        /// Which folder.
        path: PathBuf,
        /// Who else has a hand in it.
        why: &'static str,
    },
    /// This process has threads.
    #[error("a warden has one thread, and this process has more")]
    Threads,
    /// Anything else the kernel says.
    #[error("can't set up the warden")]
    Io(#[from] io::Error),
}

/// What a service manager wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It serves, with the configuration as it was read last.
    Ready,
    /// It was told to read its configuration again.
    Reloading,
    /// It was told to end.
    Stopping,
}

/// How a warden ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WardenEnd {
    /// Its front ended with this status, as it was told to, or before it served anybody.
    Status(i32),
    /// A signal ended the front before it served anybody.
    Signaled(i32),
}

/// A warden. Jobs go on when it ends.
#[derive(Debug)]
pub struct Warden {
    /// Held for as long as this process lives.
    lock: File,
    signals: Signals,
    kit: Kit,
    children: Orphanage,
}

/// The folder of jobs, in a state directory.
pub(crate) fn jobs_folder(state_dir: &Path) -> PathBuf {
    state_dir.join("jobs")
}

/// Who else than this account and root may change what is in a folder, if anybody.
fn others_hand_in(path: &Path) -> io::Result<Option<&'static str>> {
    let found = rustix::fs::stat(path)?;
    let own = rustix::process::geteuid().as_raw();
    Ok(match found.st_uid {
        owner if owner != own && owner != 0 => Some("it is another account's"),
        _ if found.st_mode & 0o022 != 0 => Some("others can write to it"),
        _ => None,
    })
}

/// The first folder above one in which others may put another in its place, if there is any. Where an account has a group of its own
/// (of the account's number, as most distributions make them), folders made under umask 002 are that group's, and so nobody else's.
fn replaceable(path: &Path) -> io::Result<Option<PathBuf>> {
    let whole = path.canonicalize()?;
    let (own, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    for above in whole.ancestors().skip(1) {
        let found = rustix::fs::stat(above)?;
        let is_sticky = found.st_mode & 0o1000 != 0;
        let is_own_group = found.st_gid == group && group == own;
        let others = if is_own_group { 0o002 } else { 0o022 };
        if found.st_mode & others != 0 && !is_sticky {
            return Ok(Some(above.to_owned()));
        }
    }
    Ok(None)
}

impl Warden {
    /// Takes a state directory, and ends what is left of jobs whose keepers are gone. The process has no thread yet.
    ///
    /// # Errors
    /// [`WardenError`].
    pub fn new(state_dir: &Path, config: EngineConfig) -> Result<Self, WardenError> {
        if !sys::is_single_threaded() {
            return Err(WardenError::Threads);
        }
        let in_folder = |source| WardenError::Folder { path: state_dir.to_owned(), source };
        let jobs = Jobs::open(&jobs_folder(state_dir)).map_err(in_folder)?;
        for path in [state_dir, &jobs_folder(state_dir)] {
            if let Some(why) = others_hand_in(path).map_err(in_folder)? {
                return Err(WardenError::Open { path: path.to_owned(), why });
            }
        }
        if let Some(path) = replaceable(state_dir).map_err(in_folder)? {
            let why = "others can write to it, and put another state directory in place of the one in there";
            return Err(WardenError::Open { path, why });
        }
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(state_dir.join("lock"))
            .map_err(in_folder)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(WardenError::Taken(state_dir.to_owned())),
            Err(errno) => return Err(in_folder(errno.into())),
        }
        sys::waitable_children();
        let numbers = [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP];
        let signals = Signals::block(&numbers)?;
        let null = sys::above_stdio(OwnedFd::from(File::open("/dev/null")?)).map_err(io::Error::from)?;
        let cgroups = Parent::find(&config.cgroup);
        // What a library finds out once about the processor, each keeper finds known: asking costs tens of microseconds on a
        // virtual machine, each time (CPUID leaves the guest).
        blake3::hash(&[0; 64 * 1024]);
        let kit = Kit { jobs, config, null, cgroups, boot_id: sys::boot_id()? };
        let warden = Warden { lock, signals, kit, children: Orphanage::new()? };
        warden.bury_all();
        if let Some(cgroups) = &warden.kit.cgroups {
            Enclosure::sweep(cgroups.path());
        }
        Ok(warden)
    }

    /// Starts the front, and serves it until it ends as it was told to. `start` is given the number of a descriptor that the front
    /// must inherit, `report` whatever a person should know, and `tell` what a service manager should.
    ///
    /// # Errors
    /// The front can't be started the first time.
    pub fn run(
        mut self,
        mut start: impl FnMut(i32) -> io::Result<Child>,
        report: impl Fn(&str),
        tell: impl Fn(Stage),
    ) -> io::Result<WardenEnd> {
        let mut pause = FIRST_PAUSE;
        let (mut is_first, mut has_served) = (true, false);
        loop {
            let begun = Instant::now();
            let front = match self.start_front(&mut start) {
                Ok(front) => front,
                Err(error) if is_first => return Err(error),
                Err(error) => {
                    report(&format!("the server can't be started anew: {error}"));
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            is_first = false;
            let (end, was_told, has_ever_served) = self.serve(front, has_served, &tell)?;
            has_served = has_ever_served;
            // One that was never ready would not be the next time.
            if was_told || !has_served {
                self.see_off();
                return Ok(end);
            }
            report(&match end {
                WardenEnd::Signaled(signal) => {
                    format!("the server was killed by signal {signal}; starting it anew, commands go on")
                }
                WardenEnd::Status(status) => {
                    format!("the server ended with status {status}; starting it anew, commands go on")
                }
            });
            if begun.elapsed() > SOON {
                pause = FIRST_PAUSE;
            } else {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    fn start_front(&mut self, start: &mut impl FnMut(i32) -> io::Result<Child>) -> io::Result<Front> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let theirs = sys::above_stdio(theirs)?;
        // Open in the front alone: no keeper is forked, and nothing else is executed, before it is closed here.
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty())?;
        let child = start(theirs.as_raw_fd())?;
        let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
        self.children.know(pid);
        Ok(Front {
            pid,
            link: Some(ours),
            spares: 0,
            since: None,
            serves: false,
            waits: false,
            stopping: false,
        })
    }

    /// Serves a front until it has ended; whether it was told to, and whether it or one before it has served anybody.
    fn serve(
        &mut self,
        mut front: Front,
        has_served: bool,
        tell: &impl Fn(Stage),
    ) -> io::Result<(WardenEnd, bool, bool)> {
        loop {
            let pause = self.supply(&mut front);
            let mut ready = vec![PollFd::new(&self.signals, PollFlags::IN)];
            if let Some(link) = &front.link {
                ready.push(PollFd::new(link, PollFlags::IN));
            }
            let pause = pause.map(|pause| Timespec { tv_sec: 0, tv_nsec: pause.subsec_nanos().into() });
            match poll(&mut ready, pause.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let has_word = ready.get(1).is_some_and(|link| !link.revents().is_empty());
            drop(ready);
            if has_word {
                Self::listen(&mut front, tell);
            }
            while let Some(signal) = self.signals.next() {
                if signal != libc::SIGCHLD {
                    tell(if signal == libc::SIGHUP { Stage::Reloading } else { Stage::Stopping });
                    front.stopping |= signal != libc::SIGHUP;
                    sys::signal_process(front.pid, signal);
                }
            }
            if let Some(status) = self.reap(&front) {
                let end = if libc::WIFSIGNALED(status) {
                    WardenEnd::Signaled(libc::WTERMSIG(status))
                } else {
                    WardenEnd::Status(libc::WEXITSTATUS(status))
                };
                return Ok((end, front.stopping, front.serves || has_served));
            }
        }
    }

    fn listen(front: &mut Front, tell: &impl Fn(Stage)) {
        let Some(link) = &front.link else { return };
        match receive(link.as_fd(), RecvFlags::DONTWAIT) {
            Ok(Some((message, _))) => match message.first() {
                Some(&USED) => {
                    front.spares = front.spares.saturating_sub(1);
                    front.since = front.since.or_else(|| Some(Instant::now()));
                }
                Some(&SERVING) => {
                    front.serves = true;
                    tell(Stage::Ready);
                }
                // It has them all, and waits, unless one is on its way.
                Some(&WANTED) => front.waits = front.spares == 0,
                _ => {}
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Its end is told by the kernel.
            Ok(None) | Err(_) => front.link = None,
        }
    }

    /// Hands keepers over, as many as are to wait ready; or says for how long that can wait.
    fn supply(&mut self, front: &mut Front) -> Option<Duration> {
        while front.link.is_some() && front.spares < SPARES {
            if let (Some(since), true) = (front.since, front.spares > 0) {
                let waited = since.elapsed();
                if waited < DELAY {
                    return Some(DELAY - waited);
                }
            }
            match self.hand_over(front) {
                Ok(()) => (front.spares, front.waits) = (front.spares + 1, false),
                // No process or descriptor is to be had.
                Err(error) => {
                    if let (true, Some(link)) = (front.waits, &front.link) {
                        let errno = error.raw_os_error().and_then(|errno| u8::try_from(errno).ok());
                        let _ = send(link.as_fd(), &[REFUSED, errno.unwrap_or(AGAIN)], &[]);
                        front.waits = false;
                    }
                    return Some(PAUSE);
                }
            }
        }
        front.since = None;
        None
    }

    /// Forks a keeper and hands the front its socket.
    fn hand_over(&mut self, front: &Front) -> io::Result<()> {
        let Some(link) = &front.link else { return Ok(()) };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        let (lock, signals) = (self.lock.as_raw_fd(), self.signals.as_fd().as_raw_fd());
        let wardens = [lock, signals, ours.as_raw_fd(), link.as_raw_fd()];
        let kit = &self.kit;
        let keeper = sys::fork(move || {
            sys::become_keeper(kit.null.as_fd(), &wardens);
            if let Ok(idle) = Idle::new(kit) {
                idle.keep(kit, theirs);
            }
        })?;
        self.children.know(keeper);
        send(link.as_fd(), &[KEEPER], &[ours.as_fd()])
    }

    /// Reaps what has ended; the front's raw status if that has.
    fn reap(&mut self, front: &Front) -> Option<i32> {
        let (mut ended, mut gone, mut left, mut spared) = (None, false, false, None);
        loop {
            let mut lost = false;
            while let Some(child) = self.children.next_ended() {
                if child.pid == front.pid {
                    ended = Some(child.status);
                } else if child.was_known {
                    gone = true;
                    // One that ended by itself has left nothing.
                    lost |= child.status != 0 && !child.is_attendant;
                    left |= child.status != 0 && child.is_attendant;
                }
            }
            if !lost {
                break;
            }
            self.bury_all();
            // Once more then: whoever has ended by now is known to have, and whom others leave from now on is spared.
            spared = Some(self.children.families());
        }
        if left {
            // Its job was over: what it had left in the background goes on; and so does, where one of each was killed at the same
            // moment, who has left the session of the other's job, as nobody can tell them apart.
            self.children.know_strangers();
        } else if let Some(spared) = spared {
            self.children.end_strangers(&spared);
        }
        if let (true, Some(cgroups)) = (gone, &self.kit.cgroups) {
            Enclosure::sweep(cgroups.path());
        }
        ended
    }

    /// Waits for a moment for the keepers that have no job any more, so that nothing of theirs is left.
    fn see_off(&mut self) {
        let until = Instant::now() + SEEING_OFF;
        loop {
            while self.children.next_ended().is_some() {}
            if let Some(cgroups) = &self.kit.cgroups {
                Enclosure::sweep(cgroups.path());
            }
            let keep = |key: &JobKey| {
                let record = self.kit.jobs.folder(*key).ok().and_then(|folder| folder.read());
                record.is_some_and(|record| record.keeper.is_alive())
            };
            let busy = self.kit.jobs.all().unwrap_or_default().iter().filter(|key| keep(key)).count();
            if self.children.count() <= busy || Instant::now() >= until {
                return;
            }
            std::thread::sleep(DELAY);
        }
    }

    /// Ends what runs of jobs whose keepers are gone. Their folders are left to the server, which tells.
    fn bury_all(&self) {
        for key in self.kit.jobs.all().unwrap_or_default() {
            let Ok(folder) = self.kit.jobs.folder(key) else { continue };
            let Some(record) = folder.read() else { continue };
            if record.boot_id == self.kit.boot_id && !record.keeper.is_alive() {
                record.end_rest();
            }
        }
    }
}

/// The server's process.
struct Front {
    pid: i32,
    link: Option<OwnedFd>,
    /// Keepers that it has, and hasn't used.
    spares: usize,
    /// When it used one that isn't replaced yet.
    since: Option<Instant>,
    /// It has said so.
    serves: bool,
    /// It has none and waits for one.
    waits: bool,
    /// It was told to end.
    stopping: bool,
}
