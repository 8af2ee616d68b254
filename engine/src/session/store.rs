//! Sessions on the disk: a file each, so that they outlive the server. Written anew whenever one has changed, and not synced: a
//! process that dies loses nothing, a machine that does may.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::state::{Map, State};
use super::{Carried, Owner, SessionChange, is_id, limits};
use crate::keeping::JobKey;
use crate::keeping::fields::{Fields, Found};

/// Jobs of a session that are known to be merged: far more than wait for their clients' word at a time, as a rule.
const MOST_DONE: usize = 128;

/// Bytes that a file may have: a session, and what its jobs have done.
const LONGEST: u64 = (4 * limits::ENVIRONMENT) as u64;

/// What a job did to its session, for who asks again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) key: JobKey,
    pub(crate) change: SessionChange,
    /// What the session itself answered, and with which status; none where a process ran.
    pub(crate) answer: Option<(Vec<u8>, u8)>,
}

/// A session as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Saved {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) owner: Owner,
    pub(crate) home: PathBuf,
    pub(crate) created: SystemTime,
    pub(crate) state: State,
    pub(crate) done: VecDeque<Done>,
}

/// The folder of sessions.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    /// Opens it, and makes it if need be.
    ///
    /// # Errors
    /// It can't be made, or others can enter it.
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let found = fs::symlink_metadata(&path)?;
        let is_own =
            found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
        if !is_own {
            let text = format!("{} is not a folder that only this account can use", path.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Store { path })
    }

    /// Writes a session, in place of what was written of it. Whoever reads sees the one or the other.
    ///
    /// # Errors
    /// No room, for one: what was written stays.
    pub(crate) fn write(&self, id: &str, bytes: &[u8]) -> io::Result<()> {
        let next = self.path.join(format!("{id}.new"));
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&next)?;
        file.write_all(bytes).and_then(|()| fs::rename(&next, self.path.join(id))).inspect_err(|_| {
            let _ = fs::remove_file(&next);
        })
    }

    /// Removes one. What isn't there is no fault.
    pub(crate) fn remove(&self, id: &str) {
        let _ = fs::remove_file(self.path.join(id));
    }

    /// All that can be read.
    pub(crate) fn all(&self) -> Vec<Saved> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        let mut all = Vec::new();
        for entry in entries.flatten() {
            let Some(id) = entry.file_name().to_str().filter(|name| is_id(name)).map(str::to_owned) else {
                // Half of one, which a server was writing as it was killed.
                let _ = fs::remove_file(entry.path());
                continue;
            };
            match read(&entry.path()).as_deref().and_then(Saved::parse) {
                Some(saved) if saved.id == id => all.push(saved),
                _ => tracing::error!(id, "a session can't be read"),
            }
        }
        all
    }
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Remembers one more, and forgets the oldest.
pub(crate) fn remember(all: &mut VecDeque<Done>, done: Done) {
    all.push_back(done);
    if all.len() > MOST_DONE {
        all.pop_front();
    }
}

impl Saved {
    pub(crate) fn compose(&self) -> Vec<u8> {
        let since = self.created.duration_since(UNIX_EPOCH).unwrap_or_default();
        let owner = Fields::new().number(1, self.owner.uid.into()).bytes(2, self.owner.authority.as_bytes());
        let mut fields = Fields::new()
            .bytes(1, self.id.as_bytes())
            .bytes(2, self.name.as_bytes())
            .nested(3, owner)
            .bytes(4, self.home.as_os_str().as_encoded_bytes())
            .number(5, u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
            .nested(6, state_fields(&self.state));
        for done in &self.done {
            fields = fields.nested(7, done.fields());
        }
        fields.into_bytes()
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let found = Found::parse(bytes)?;
        let owner = found.nested(3)?;
        Some(Saved {
            id: text(found, 1)?,
            name: text(found, 2)?,
            owner: Owner { uid: u32::try_from(owner.number(1)).ok()?, authority: text(owner, 2)? },
            home: path(found.bytes(4)),
            created: UNIX_EPOCH + Duration::from_nanos(found.number(5)),
            state: state_of(found.nested(6)?)?,
            done: found.all(7).filter_map(|one| Done::of(Found::parse(one)?)).collect(),
        })
    }
}

impl Done {
    fn fields(&self) -> Fields {
        let SessionChange { carried, working_directory, left, note, name } = &self.change;
        let mut fields = Fields::new()
            .bytes(1, &self.key.0)
            .number(2, number_of(*carried))
            .bytes(3, working_directory.as_os_str().as_encoded_bytes())
            .flag(4, *left)
            .bytes(5, note.as_bytes())
            .bytes(6, name.as_bytes());
        if let Some((stdout, status)) = &self.answer {
            fields = fields.nested(7, Fields::new().bytes(1, stdout).number(2, (*status).into()));
        }
        fields
    }

    fn of(found: Found<'_>) -> Option<Self> {
        let answer = found
            .nested(7)
            .map(|answer| (answer.bytes(1).to_vec(), u8::try_from(answer.number(2)).unwrap_or(u8::MAX)));
        let change = SessionChange {
            carried: CARRIED.into_iter().find(|carried| number_of(*carried) == found.number(2))?,
            working_directory: path(found.bytes(3)),
            left: found.flag(4),
            note: text(found, 5)?,
            name: text(found, 6)?,
        };
        Some(Done { key: JobKey(found.array(1)), change, answer })
    }
}

const CARRIED: [Carried; 5] =
    [Carried::Simulated, Carried::Captured, Carried::Unchanged, Carried::NotCaptured, Carried::Lost];

fn number_of(carried: Carried) -> u64 {
    match carried {
        Carried::Simulated => 1,
        Carried::Captured => 2,
        Carried::Unchanged => 3,
        Carried::NotCaptured => 4,
        Carried::Lost => 5,
    }
}

fn text(found: Found<'_>, tag: u8) -> Option<String> {
    String::from_utf8(found.bytes(tag).to_vec()).ok()
}

fn path(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(bytes).into()
}

/// A session's state in fields.
pub(crate) fn state_fields(state: &State) -> Fields {
    let State { cwd, previous, stack, environment, umask, aliases, functions, marked, status } = state;
    let mut fields = Fields::new()
        .bytes(1, cwd)
        .list(2, previous.as_deref())
        .list(3, stack.iter().map(Vec::as_slice))
        .number(5, (*umask).into())
        .number(9, (*status).into());
    for (tag, map) in [(4, environment), (6, aliases), (7, functions), (8, marked)] {
        let pairs = map.iter().flat_map(|(name, value)| [name.as_slice(), value.as_slice()]);
        fields = fields.list(tag, pairs);
    }
    fields
}

/// What [`state_fields`] has put.
pub(crate) fn state_of(found: Found<'_>) -> Option<State> {
    let map = |tag| {
        let mut all = found.all(tag);
        let mut map = Map::new();
        while let Some(name) = all.next() {
            map.insert(name.to_vec(), all.next()?.to_vec());
        }
        Some(map)
    };
    Some(State {
        cwd: Some(found.bytes(1)).filter(|cwd| cwd.starts_with(b"/"))?.to_vec(),
        previous: found.all(2).next().map(<[u8]>::to_vec),
        stack: found.all(3).map(<[u8]>::to_vec).collect(),
        environment: map(4)?,
        umask: u32::try_from(found.number(5)).ok()?,
        aliases: map(6)?,
        functions: map(7)?,
        marked: map(8)?,
        status: u8::try_from(found.number(9)).ok()?,
    })
}

#[cfg(test)]
pub(in crate::session) mod tests {
    use super::super::state::tests::state;
    use super::*;

    pub(in crate::session) fn saved() -> Saved {
        let mut state = state("/a\nb", &[("A", "1"), ("EMPTY", "")]);
        state.previous = Some(Vec::new());
        state.stack = vec![b"/x".to_vec(), b"/y".to_vec()];
        state.functions.insert(b"f".to_vec(), b"f () \n{ \n}".to_vec());
        state.marked.insert(b"M".to_vec(), Vec::new());
        state.status = 255;
        let change = SessionChange {
            carried: Carried::Simulated,
            working_directory: "/a".into(),
            left: true,
            note: "n".to_owned(),
            name: "s".to_owned(),
        };
        let done = |key, answer| Done { key: JobKey([key; 16]), change: change.clone(), answer };
        Saved {
            id: "0123456789abcdef0123456789abcdef".to_owned(),
            name: "s".to_owned(),
            owner: Owner { uid: 7, authority: "key SHA256:x".to_owned() },
            home: "/root".into(),
            created: UNIX_EPOCH + Duration::from_nanos(3),
            state,
            done: [done(1, Some((b"out\n".to_vec(), 3))), done(2, None)].into(),
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_half_of_it_is_not() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path().join("sessions")).unwrap();
        let saved = saved();
        store.write(&saved.id, b"something else").unwrap();
        assert!(store.all().is_empty());
        store.write(&saved.id, &saved.compose()).unwrap();
        fs::write(root.path().join("sessions/0123.new"), "half").unwrap();
        assert_eq!(store.all(), std::slice::from_ref(&saved));
        assert_eq!(fs::read_dir(root.path().join("sessions")).unwrap().count(), 1);
        let whole = saved.compose();
        for cut in 0..whole.len() {
            let _ = Saved::parse(&whole[..cut]);
        }
        store.remove(&saved.id);
        store.remove(&saved.id);
        assert!(store.all().is_empty());
    }

    #[test]
    fn no_bytes_of_a_file_are_a_panic_or_take_more_room_than_they_have() {
        for bytes in remora_testkit::mutants(6, &saved().compose(), 50_000) {
            if let Some(read) = Saved::parse(&bytes) {
                let size = read.compose().len();
                // Each of those that are done takes a few fields, whatever of them is written.
                assert!(size <= bytes.len() + 100 * (1 + read.done.len()), "{size} bytes of {bytes:?}");
            }
        }
    }

    #[test]
    fn a_folder_that_others_can_enter_is_not_used() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(Store::open(root.path().to_owned()).unwrap_err().to_string().contains("only this account"));
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let one = saved().done.remove(0).unwrap();
        let mut all = VecDeque::new();
        for _ in 0..MOST_DONE + 5 {
            remember(&mut all, one.clone());
        }
        assert_eq!(all.len(), MOST_DONE);
    }
}
