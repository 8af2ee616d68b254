//! The folder of a job, by which it is found again: made before anything of the job is, removed when nobody needs it any more.
//!
//! It holds `keeper`, the socket of the keeper, and `record`, which says whose processes those are; of a detached job also its output
//! ([`spool`](super::spool)) and, once it is over, `outcome`. Only this account can enter it. To make it is the moment at which a job begins: whoever makes it second has come too late.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::detached::Detached;
use super::fields::{Fields, Found};
use super::messages::{ended_fields, ended_of};
use super::spool::{ORDER, STDERR, STDOUT};
use crate::enclosure::Enclosure;
use crate::incarnation::{Incarnation, kill_session};
use crate::outcome::Ended;
use crate::sys::boot_id;

/// The socket of a keeper.
const SOCKET: &str = "keeper";
/// Whose the processes are.
const RECORD: &str = "record";
/// The FIFO through which a session's shell tells its state.
const TOLD: &str = "told";
/// How a detached job ended, once it has.
const OUTCOME: &str = "outcome";
/// The same, while it is being written. It has its room from the start, so that a full disk can't keep it from being written.
const NEXT_OUTCOME: &str = "outcome.new";
/// That room, bytes: what was typed and not read is in it, 64 KiB at the most.
const OUTCOME_ROOM: u64 = 80 * 1024;

/// Bytes of the longest record: a session's state and a long command are in it.
const LONGEST_RECORD: usize = 8 * 1024 * 1024;

/// Beside the folders: the boot and the epoch of whoever made it, 16 bytes each.
const EPOCH: &str = "epoch";
/// The next one, while it is being written.
const NEXT_EPOCH: &str = "epoch.new";

/// Which job: what makes it this one to whoever asks, in 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobKey(pub [u8; 16]);

impl fmt::Debug for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl JobKey {
    /// One that is nobody else's.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        rustix::rand::getrandom(bytes.as_mut_slice(), rustix::rand::GetRandomFlags::empty())?;
        Ok(JobKey(bytes))
    }

    fn parse(name: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        if name.len() != 32 || !name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(name.get(index * 2..index * 2 + 2)?, 16).ok()?;
        }
        Some(JobKey(bytes))
    }
}

/// The folder that jobs' folders are in.
#[derive(Debug)]
pub(crate) struct Jobs {
    fd: OwnedFd,
    path: PathBuf,
}

impl Jobs {
    /// Opens it, and makes it if need be.
    ///
    /// # Errors
    /// It can't be made, or others can enter it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let found = rustix::fs::fstat(&fd)?;
        if found.st_uid != rustix::process::geteuid().as_raw() || found.st_mode & 0o077 != 0 {
            let text = format!("{} is not a folder that only this account can use", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Jobs { fd, path: path.to_owned() })
    }

    /// Makes the folder of a job.
    ///
    /// # Errors
    /// [`Errno::EXIST`] where there is one, or what mkdirat(2) says.
    pub(crate) fn make(&self, key: JobKey) -> Result<Folder, Errno> {
        rustix::fs::mkdirat(&self.fd, key.to_string(), Mode::RWXU)?;
        self.folder(key)
    }

    /// The folder of a job.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn folder(&self, key: JobKey) -> Result<Folder, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, key.to_string(), flags, Mode::empty())?;
        Ok(Folder { jobs: self.fd.try_clone().map_err(|_| Errno::MFILE)?, key, fd })
    }

    /// Where the shell of a session's job tells its state.
    pub(crate) fn told_path(&self, key: JobKey) -> PathBuf {
        self.path.join(key.to_string()).join(TOLD)
    }

    /// The time within which no job was forgotten that somebody may ask for again. It goes on from one server to the next, and ends
    /// with the machine's boot: what wasn't written to the disk is forgotten then.
    ///
    /// To be asked behind [`Jobs::all`]: a keeper that gives its job up ends the epoch first, and removes the folder then.
    ///
    /// # Errors
    /// No new one can be had.
    pub(crate) fn epoch(&self) -> io::Result<[u8; 16]> {
        let boot_id = boot_id()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut found = [[0; 16]; 2];
        let read = rustix::fs::openat(&self.fd, EPOCH, flags, Mode::empty())
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).read_exact(found.as_flattened_mut()));
        match (read, found) {
            (Ok(()), [boot, epoch]) if boot == boot_id => Ok(epoch),
            _ => self.begin_epoch(),
        }
    }

    /// A job was forgotten that somebody may ask for again: the next epoch begins.
    ///
    /// # Errors
    /// It can't be written. The one before is over in any case.
    pub(crate) fn begin_epoch(&self) -> io::Result<[u8; 16]> {
        self.end_epoch();
        let JobKey(epoch) = JobKey::random()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, NEXT_EPOCH, flags, Mode::RUSR | Mode::WUSR)?;
        File::from(file).write_all([boot_id()?, epoch].as_flattened())?;
        rustix::fs::renameat(&self.fd, NEXT_EPOCH, &self.fd, EPOCH)?;
        Ok(epoch)
    }

    /// The epoch is over, and whoever asks begins the next.
    pub(crate) fn end_epoch(&self) {
        let _ = rustix::fs::unlinkat(&self.fd, EPOCH, AtFlags::empty());
    }

    /// All jobs that have a folder.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(crate) fn all(&self) -> io::Result<Vec<JobKey>> {
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            keys.extend(entry?.file_name().to_str().and_then(JobKey::parse));
        }
        Ok(keys)
    }
}

/// The folder of a job.
#[derive(Debug)]
pub(crate) struct Folder {
    jobs: OwnedFd,
    key: JobKey,
    fd: OwnedFd,
}

/// What is written of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) boot_id: [u8; 16],
    /// The keeper.
    pub(crate) keeper: Incarnation,
    /// The leader of the job's session; none until its command has been started.
    pub(crate) leader: Option<Incarnation>,
    /// What the server wants to know when it finds the job again.
    pub(crate) note: Vec<u8>,
    /// The cgroup that the keeper and all of the job are in, where there is one.
    pub(crate) enclosure: Option<Enclosure>,
    /// The session's part of it.
    pub(crate) session: Vec<u8>,
    /// How it is detached, if it is.
    pub(crate) detached: Option<Detached>,
}

fn process(one: Incarnation) -> Fields {
    Fields::new().signed(1, one.pid.into()).number(2, one.started)
}

impl Record {
    fn compose(&self) -> Vec<u8> {
        let enclosure = self.enclosure.as_ref().map(|enclosure| enclosure.path().as_os_str().as_bytes());
        let fields = Fields::new()
            .bytes(1, &self.boot_id)
            .nested(2, process(self.keeper))
            .bytes(4, &self.note)
            .bytes(5, &self.session)
            .bytes(6, enclosure.unwrap_or_default());
        match &self.detached {
            Some(plan) => fields.nested(20, plan.fields()),
            None => fields,
        }
        .into_bytes()
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let found = Found::parse(bytes)?;
        let process =
            |tag| found.nested(tag).map(|one| Incarnation { pid: one.small(1), started: one.number(2) });
        Some(Record {
            boot_id: found.array(1),
            keeper: process(2)?,
            leader: process(3),
            // One that was detached later has another note since.
            note: found.all(21).next().unwrap_or_else(|| found.bytes(4)).to_vec(),
            detached: found.nested(20).map(Detached::of),
            session: found.bytes(5).to_vec(),
            enclosure: Enclosure::noted(OsStr::from_bytes(found.bytes(6)).into()),
        })
    }

    /// Ends what is left of the job: its keeper is gone.
    pub(crate) fn end_rest(&self) {
        if let Some(enclosure) = &self.enclosure {
            // Gone with the last process in it, for one.
            let _ = enclosure.kill();
        }
        self.leader.map(kill_session);
        if let Some(enclosure) = &self.enclosure {
            enclosure.remove();
        }
    }

    /// Whether it was written since this machine was started.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        boot_id().is_ok_and(|id| id == self.boot_id)
    }
}

impl Folder {
    /// Writes the record, all but the leader. It is there before the command is: a job that has none has never run.
    ///
    /// # Errors
    /// No room, for one.
    pub(crate) fn write(&self, record: &Record) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, RECORD, flags, Mode::RUSR | Mode::WUSR)?;
        let mut file = File::from(file);
        file.write_all(&record.compose())?;
        Ok(file)
    }

    /// Adds the leader to a record that was just written.
    ///
    /// # Errors
    /// No room, for one.
    pub(crate) fn add_leader(mut record: File, leader: Incarnation) -> io::Result<()> {
        record.write_all(&Fields::new().nested(3, process(leader)).into_bytes())
    }

    /// Reads the record; none where there is none, or half of one.
    pub(crate) fn read(&self) -> Option<Record> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, RECORD, flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file).take(LONGEST_RECORD as u64).read_to_end(&mut bytes).ok()?;
        Record::parse(&bytes)
    }

    /// Listens for servers.
    ///
    /// # Errors
    /// What bind(2) or listen(2) says.
    pub(crate) fn listen(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &self.address()?)?;
        rustix::net::listen(&socket, 8)?;
        Ok(socket)
    }

    /// Connects to the keeper. The socket doesn't block.
    ///
    /// # Errors
    /// [`Errno::CONNREFUSED`] or [`Errno::NOENT`] where it is gone.
    pub(crate) fn connect(&self) -> Result<OwnedFd, Errno> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &self.address()?)?;
        Ok(socket)
    }

    /// By way of the descriptor: a path of any length would be too long for some (unix(7)).
    fn address(&self) -> Result<SocketAddrUnix, Errno> {
        SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", self.fd.as_raw_fd()))
    }

    /// Makes the FIFO through which a session's shell tells its state, and opens it to be read.
    ///
    /// # Errors
    /// No room, for one.
    pub(crate) fn told(&self) -> Result<OwnedFd, Errno> {
        rustix::fs::mknodat(&self.fd, TOLD, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(&self.fd, TOLD, flags, Mode::empty())
    }

    /// Removes a folder in which there is nothing: whose job has not begun, and can't any more then.
    ///
    /// # Errors
    /// [`Errno::NOTEMPTY`]: it has.
    pub(crate) fn remove_empty(&self) -> Result<(), Errno> {
        rustix::fs::unlinkat(&self.jobs, self.key.to_string(), AtFlags::REMOVEDIR)
    }

    /// Whether there is a record, readable or not.
    pub(crate) fn has_record(&self) -> bool {
        !matches!(rustix::fs::statat(&self.fd, RECORD, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
    }

    /// Removes the folder of a job whose keeper is gone, and ends what is left of the job: nobody finds that afterwards.
    pub(crate) fn bury(&self) {
        let record = self.read();
        if let Some(record) = record.as_ref().filter(|record| record.is_of_this_boot()) {
            record.end_rest();
        }
        // What a detached job has printed is its user's to forget.
        if record.is_none_or(|record| record.detached.is_none()) {
            let _ = self.remove();
        }
    }

    /// Opens one of its files.
    ///
    /// # Errors
    /// What openat(2) says.
    pub(super) fn file(&self, name: &str, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
    }

    /// The record of a job that is detached from now on.
    ///
    /// # Errors
    /// No room, for one.
    pub(super) fn add_detached(&self, plan: &Detached, note: &[u8]) -> io::Result<()> {
        let mut file = self.file(RECORD, OFlags::WRONLY | OFlags::APPEND)?;
        file.write_all(&Fields::new().nested(20, plan.fields()).bytes(21, note).into_bytes())
    }

    /// Makes room for the outcome.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn reserve_outcome(&self) -> Result<(), Errno> {
        let file = self.file(NEXT_OUTCOME, OFlags::WRONLY | OFlags::CREATE)?;
        match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, OUTCOME_ROOM) {
            Err(Errno::OPNOTSUPP) => Ok(()),
            reserved => reserved,
        }
    }

    /// Writes the outcome, to stay.
    ///
    /// # Errors
    /// What the file system says; to be tried again.
    pub(super) fn write_outcome(&self, ended: &Ended) -> io::Result<()> {
        let mut file = self.file(NEXT_OUTCOME, OFlags::WRONLY | OFlags::CREATE)?;
        let bytes = Fields::new().nested(1, ended_fields(ended)).into_bytes();
        file.write_all(&bytes)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()?;
        rustix::fs::renameat(&self.fd, NEXT_OUTCOME, &self.fd, OUTCOME)?;
        self.sync()
    }

    /// Reads the outcome; none where there is none.
    pub(super) fn outcome(&self) -> Option<Ended> {
        let file = self.file(OUTCOME, OFlags::RDONLY).ok()?;
        let mut bytes = Vec::new();
        file.take(LONGEST_RECORD as u64).read_to_end(&mut bytes).ok()?;
        ended_of(Found::parse(&bytes)?.nested(1)?)
    }

    /// Has what is written of the folder on the disk: its record, its names, and its own name.
    ///
    /// # Errors
    /// What fsync(2) says.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file(RECORD, OFlags::RDONLY)?.sync_all()?;
        self.file(".", OFlags::RDONLY | OFlags::DIRECTORY)?.sync_all()?;
        rustix::fs::fsync(&self.jobs)?;
        Ok(())
    }

    /// Removes what a detached job has, but its outcome.
    ///
    /// # Errors
    /// What unlinkat(2) says.
    pub(super) fn remove_spool(&self) -> Result<(), Errno> {
        [STDOUT, STDERR, ORDER, NEXT_OUTCOME].into_iter().try_for_each(|name| self.remove_file(name))
    }

    fn remove_file(&self, name: &str) -> Result<(), Errno> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// Removes the socket: whoever looks for the keeper knows that it is gone.
    pub(super) fn remove_socket(&self) {
        let _ = rustix::fs::unlinkat(&self.fd, SOCKET, AtFlags::empty());
    }

    /// Removes it. What isn't there any more is no fault.
    ///
    /// # Errors
    /// What unlinkat(2) says.
    pub(crate) fn remove(&self) -> Result<(), Errno> {
        // Nothing else is there as a rule, and each name that isn't costs.
        self.remove_file(SOCKET)?;
        self.remove_file(RECORD)?;
        match self.remove_empty() {
            Err(Errno::NOTEMPTY) => {}
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        self.remove_spool()?;
        self.remove_file(TOLD)?;
        self.remove_file(OUTCOME)?;
        match self.remove_empty() {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl std::os::fd::AsFd for Folder {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_of_a_record_are_a_panic_or_take_more_room_than_they_have() {
        let one = Incarnation { pid: 1, started: 2 };
        let record = Record {
            boot_id: [3; 16],
            keeper: one,
            leader: Some(one),
            note: b"n".to_vec(),
            session: b"session".to_vec(),
            enclosure: Enclosure::noted("/c/remora-1-2".into()),
            detached: Some(Detached::default()),
        };
        for bytes in remora_testkit::mutants(8, &record.compose(), 50_000) {
            if let Some(read) = Record::parse(&bytes) {
                assert!(read.compose().len() <= bytes.len() + 200, "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_folder_is_made_once_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        // Longer than the path of a socket may be.
        let path = root.path().join("x".repeat(200)).join("jobs");
        let jobs = Jobs::open(&path).unwrap();
        let key = JobKey::random().unwrap();
        let folder = jobs.make(key).unwrap();
        assert_eq!(jobs.make(key).unwrap_err(), Errno::EXIST);
        assert_eq!(folder.read(), None);
        let one = Incarnation { pid: 1, started: 2 };
        let mut record = Record {
            boot_id: [0; 16],
            keeper: one,
            leader: None,
            note: b"n".to_vec(),
            session: Vec::new(),
            enclosure: None,
            detached: None,
        };
        let file = folder.write(&record).unwrap();
        assert_eq!(folder.read(), Some(record.clone()));
        Folder::add_leader(file, one).unwrap();
        record.leader = Some(one);
        assert_eq!(folder.read(), Some(record.clone()));
        assert!(!record.is_of_this_boot());
        assert_eq!(folder.connect().unwrap_err(), Errno::NOENT);
        let listener = folder.listen().unwrap();
        assert!(jobs.folder(key).unwrap().connect().is_ok());
        drop(listener);
        assert_eq!(folder.connect().unwrap_err(), Errno::CONNREFUSED);
        assert_eq!(jobs.all().unwrap(), [key]);
        folder.remove().unwrap();
        folder.remove().unwrap();
        assert!(jobs.all().unwrap().is_empty());
    }

    #[test]
    fn an_epoch_lasts_until_something_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let jobs = Jobs::open(&root.path().join("jobs")).unwrap();
        let first = jobs.epoch().unwrap();
        assert_eq!(jobs.epoch().unwrap(), first);
        let second = jobs.begin_epoch().unwrap();
        assert_ne!(second, first);
        assert_eq!(jobs.epoch().unwrap(), second);
        jobs.end_epoch();
        assert_ne!(jobs.epoch().unwrap(), second);
        // Of another boot, or half of one.
        for found in [&[7; 32][..], &[7; 5]] {
            std::fs::write(root.path().join("jobs/epoch"), found).unwrap();
            assert_ne!(jobs.epoch().unwrap(), [7; 16]);
        }
        assert!(jobs.all().unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_others_can_enter_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("jobs");
        Jobs::open(&path).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o750)).unwrap();
        assert!(Jobs::open(&path).unwrap_err().to_string().contains("only this account"));
    }
}
