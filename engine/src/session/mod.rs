//! Sessions: what a user's commands share on this machine, beyond the process of any of them.
//!
//! A line in a session is read first ([`line`]). What only changes the session is carried out on it ([`simulate`]); a program
//! runs there as it is; everything else is run by the user's shell, which tells what it has become as it ends ([`wrap`], [`fifo`],
//! [`told`]), and only what the line changed is merged ([`state`]).

mod complete;
mod dialect;
mod fifo;
mod limits;
mod line;
mod note;
mod running;
mod simulate;
mod state;
mod store;
mod told;
mod unquote;
mod words;
mod wrap;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use remora_identity::{Account, Authority, Permitted};

pub use complete::{Completions, Wanted};
pub(crate) use fifo::Collector;
pub(crate) use running::{Begun, Captures, Place, Running, Telling, begin};

use crate::config::BaseEnvironment;
use crate::environment::Environment;
use crate::keeping::JobKey;
use crate::outcome::How;
use state::{Change, Map, State, TooLarge};
use store::{Done, Saved, Store};

/// How a line's changes came into a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// The session carried the line out itself.
    Simulated,
    /// A shell ran it and told.
    Captured,
    /// It can't change a session.
    Unchanged,
    /// Nothing was merged, by the line's own doing or because its shell can't tell; the note says why.
    NotCaptured,
    /// What it changed can't be kept; the note says why.
    Lost,
}

/// What a job did to its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionChange {
    /// How.
    pub carried: Carried,
    /// The session's directory now.
    pub working_directory: PathBuf,
    /// The line was `exit`.
    pub left: bool,
    /// What a person should know, or empty.
    pub note: String,
    /// The session's name.
    pub name: String,
}

/// A session as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// 32 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its directory.
    pub working_directory: PathBuf,
    /// When it was made.
    pub created: SystemTime,
    /// When it was last used.
    pub used: SystemTime,
    /// Its jobs that run.
    pub jobs: usize,
}

/// Which session is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionName {
    /// A name or an id.
    pub name: String,
    /// It must exist.
    pub existing: bool,
}

/// Why there is no session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// Not a name.
    #[error(
        "a session's name has 1 to {} letters, digits, dots, underscores and dashes, and no dash in front",
        limits::NAME
    )]
    Name,
    /// None of this owner's, whoever else's there may be.
    #[error("there is no such session")]
    Absent,
    /// The owner has as many as may be.
    #[error("there are {0} sessions, and no more may be; end one first (remora sessions TARGET --end NAME)")]
    TooMany(usize),
    /// The account's environment can't be made.
    #[error("the session's environment can't be made")]
    Environment,
    /// The kernel gives no random bytes.
    #[error("there are no random bytes")]
    Random,
}

/// How many there may be, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Without a job for this long it is forgotten.
    pub idle: Duration,
    /// For each account and authority.
    pub per_owner: usize,
}

impl Default for SessionLimits {
    /// 24 hours, 64 sessions.
    fn default() -> Self {
        SessionLimits { idle: Duration::from_secs(24 * 60 * 60), per_owner: 64 }
    }
}

/// A session. Clones are the same one.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    id: String,
    name: String,
    home: PathBuf,
    created: SystemTime,
    state: Mutex<State>,
    usage: Mutex<Usage>,
    /// None of one that ends with its server.
    copy: Option<Copy>,
}

/// What is on the disk of a session.
struct Copy {
    store: Arc<Store>,
    owner: Owner,
    written: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    done: VecDeque<Done>,
    /// Digest of what was written last.
    digest: Option<blake3::Hash>,
    /// It was ended, and is not to be written again.
    is_ended: bool,
}

impl Copy {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Usage {
    jobs: usize,
    since: Instant,
    at: SystemTime,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its environment may hold secrets.
        f.debug_struct("Session").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl Eq for Session {}

impl Session {
    fn new(
        name: Option<&str>,
        account: &Account,
        base: &BaseEnvironment,
        umask: u32,
        copy: Option<Copy>,
    ) -> Result<Self, SessionError> {
        let mut bytes = [0; 16];
        rustix::rand::getrandom(bytes.as_mut_slice(), rustix::rand::GetRandomFlags::empty())
            .map_err(|_| SessionError::Random)?;
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let environment: Map =
            Environment::new(base, account, Vec::new()).map_err(|_| SessionError::Environment)?.into_map();
        let state = State {
            cwd: account.home.as_os_str().as_bytes().to_vec(),
            previous: None,
            stack: Vec::new(),
            environment,
            umask,
            aliases: Map::new(),
            functions: Map::new(),
            marked: Map::new(),
            status: 0,
        };
        let usage = Usage { jobs: 0, since: Instant::now(), at: SystemTime::now() };
        let inner = Inner {
            name: name.unwrap_or(&id).to_owned(),
            id,
            home: account.home.clone(),
            created: SystemTime::now(),
            state: Mutex::new(state),
            usage: Mutex::new(usage),
            copy,
        };
        let session = Session { inner: Arc::new(inner) };
        session.save();
        Ok(session)
    }

    /// One that was written by another server.
    fn restored(saved: Saved, store: Arc<Store>) -> Self {
        let Saved { id, name, owner, home, created, state, done } = saved;
        // How long nobody has used it isn't written: it begins anew.
        let usage = Usage { jobs: 0, since: Instant::now(), at: SystemTime::now() };
        let written = Mutex::new(Written { done, ..Written::default() });
        let copy = Some(Copy { store, owner, written });
        let (state, usage) = (Mutex::new(state), Mutex::new(usage));
        Session { inner: Arc::new(Inner { id, name, home, created, state, usage, copy }) }
    }

    /// Writes it to the disk, if it has changed since.
    fn save(&self) {
        let Some(copy) = &self.inner.copy else { return };
        let mut written = copy.lock();
        if written.is_ended {
            return;
        }
        let Inner { id, name, home, created, .. } = &*self.inner;
        let saved = Saved {
            id: id.clone(),
            name: name.clone(),
            owner: copy.owner.clone(),
            home: home.clone(),
            created: *created,
            state: self.state().clone(),
            done: written.done.clone(),
        };
        let bytes = saved.compose();
        let digest = blake3::hash(&bytes);
        if written.digest == Some(digest) {
            return;
        }
        match copy.store.write(id, &bytes) {
            Ok(()) => written.digest = Some(digest),
            Err(error) => {
                tracing::error!(name, %error, "a session can't be written: it ends with this server");
            }
        }
    }

    /// It is no more: nothing of it stays on the disk.
    fn end(&self) {
        if let Some(copy) = &self.inner.copy {
            copy.lock().is_ended = true;
            copy.store.remove(&self.inner.id);
        }
    }

    /// Notes what a job did to it. Written with the next save.
    fn remember(&self, done: Done) {
        if let Some(copy) = &self.inner.copy {
            store::remember(&mut copy.lock().done, done);
        }
    }

    fn done(&self, key: JobKey) -> Option<Done> {
        self.inner.copy.as_ref()?.lock().done.iter().rev().find(|done| done.key == key).cloned()
    }

    /// What it answered to this job, under whichever server.
    fn remembered(&self, key: JobKey) -> Option<Begun> {
        let Done { change, answer, .. } = self.done(key)?;
        answer.map(|(stdout, status)| Begun::Answered { stdout, status, change })
    }

    /// Whether it carried out the line of this job itself, under whichever server, and knows what it answered: the same job is given
    /// that, and isn't carried out anew.
    pub fn has_answered(&self, key: JobKey) -> bool {
        self.done(key).is_some_and(|done| done.answer.is_some())
    }

    /// What this job changed, if that is merged.
    fn merged(&self, key: JobKey) -> Option<SessionChange> {
        self.done(key).map(|done| done.change)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its directory.
    pub fn working_directory(&self) -> PathBuf {
        Path::new(OsStr::from_bytes(&self.state().cwd)).to_owned()
    }

    /// The home directory of its account.
    pub fn home(&self) -> &Path {
        &self.inner.home
    }

    /// How it is.
    pub fn info(&self) -> SessionInfo {
        let usage = self.usage();
        SessionInfo {
            id: self.inner.id.clone(),
            name: self.inner.name.clone(),
            working_directory: self.working_directory(),
            created: self.inner.created,
            used: usage.at,
            jobs: usage.jobs,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A merge changes it wholly or not at all.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn usage(&self) -> MutexGuard<'_, Usage> {
        self.inner.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn merge(&self, before: &State, after: &State) -> Result<(), TooLarge> {
        self.touch();
        Change::between(before, after).apply(&mut self.state())
    }

    /// Notes how a line ended, for the `$?` of the next.
    fn note_status(&self, how: How) {
        self.state().status = match how {
            How::Exited(status) => u8::try_from(status).unwrap_or(u8::MAX),
            How::Signaled { signal, .. } => 128_u8.saturating_add(u8::try_from(signal.number()).unwrap_or(0)),
            How::Unknown | How::KeeperLost => u8::MAX,
        };
    }

    fn change(&self, carried: Carried, left: bool, note: String) -> SessionChange {
        let (working_directory, name) = (self.working_directory(), self.inner.name.clone());
        SessionChange { carried, working_directory, left, note, name }
    }

    fn touch(&self) {
        let mut usage = self.usage();
        usage.since = Instant::now();
        usage.at = SystemTime::now();
    }

    fn begin_job(&self) {
        self.touch();
        self.usage().jobs += 1;
    }

    fn end_job(&self) {
        self.touch();
        let mut usage = self.usage();
        usage.jobs = usage.jobs.saturating_sub(1);
    }

    fn is_idle_for(&self, limit: Duration) -> bool {
        let usage = self.usage();
        usage.jobs == 0 && usage.since.elapsed() >= limit
    }
}

/// Whose sessions they are: another's are absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    uid: u32,
    /// [`Authority::id`].
    authority: String,
}

impl Owner {
    fn of(account: &Account, authority: &Authority) -> Self {
        Owner { uid: account.uid, authority: authority.id() }
    }
}

/// All sessions of this process.
#[derive(Debug)]
pub struct Sessions {
    base: BaseEnvironment,
    limits: SessionLimits,
    /// Of this process; asked when it is first needed, since most processes have no session.
    umask: OnceLock<u32>,
    owners: Mutex<Vec<(Owner, BTreeMap<String, Session>)>>,
    /// None where they end with this process.
    store: Option<Arc<Store>>,
}

impl Sessions {
    pub(crate) fn new(base: BaseEnvironment, limits: SessionLimits) -> Self {
        Sessions { base, limits, umask: OnceLock::new(), owners: Mutex::default(), store: None }
    }

    /// As [`Sessions::new`], with those that are in a folder, where what changes is written.
    ///
    /// # Errors
    /// The folder can't be used.
    pub(crate) fn kept(base: BaseEnvironment, limits: SessionLimits, folder: PathBuf) -> io::Result<Self> {
        let store = Arc::new(Store::open(folder)?);
        let mut owners: Vec<(Owner, BTreeMap<String, Session>)> = Vec::new();
        for saved in store.all() {
            let owner = saved.owner.clone();
            let session = Session::restored(saved, Arc::clone(&store));
            let one = (session.name().to_owned(), session);
            match owners.iter_mut().find(|(whose, _)| *whose == owner) {
                Some((_, own)) => own.extend([one]),
                None => owners.push((owner, BTreeMap::from([one]))),
            }
        }
        let store = Some(store);
        Ok(Sessions { owners: Mutex::new(owners), store, ..Sessions::new(base, limits) })
    }

    /// One by its id, whosever it is.
    fn by_id(&self, id: &str) -> Option<Session> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.iter().flat_map(|(_, own)| own.values()).find(|session| session.inner.id == id).cloned()
    }

    /// Finds a session of who asks by its name or id, or makes one of that name; whether it was made.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn open(&self, permitted: Permitted<SessionName>) -> Result<(Session, bool), SessionError> {
        let (wanted, account, authority) = permitted.into_parts();
        check_name(&wanted.name)?;
        let owner = Owner::of(&account, &authority);
        self.with(&owner, |own| {
            if let Some(session) = find(own, &wanted.name) {
                session.touch();
                return Ok((session.clone(), false));
            }
            // What looks like an id was somebody's once, and isn't a name.
            if wanted.existing || is_id(&wanted.name) {
                return Err(SessionError::Absent);
            }
            if own.len() >= self.limits.per_owner {
                return Err(SessionError::TooMany(own.len()));
            }
            let copy = self.store.as_ref().map(|store| Copy {
                store: Arc::clone(store),
                owner: owner.clone(),
                written: Mutex::default(),
            });
            let session = self.make(Some(&wanted.name), &account, copy)?;
            own.insert(wanted.name.clone(), session.clone());
            Ok((session, true))
        })
    }

    /// The sessions of who asks, by name.
    pub fn list(&self, permitted: Permitted<()>) -> Vec<SessionInfo> {
        let ((), account, authority) = permitted.into_parts();
        self.with(&Owner::of(&account, &authority), |own| own.values().map(Session::info).collect())
    }

    /// Forgets a session. Its jobs go on.
    ///
    /// # Errors
    /// [`SessionError::Absent`], [`SessionError::Name`].
    pub fn end(&self, permitted: Permitted<SessionName>) -> Result<SessionInfo, SessionError> {
        let (wanted, account, authority) = permitted.into_parts();
        check_name(&wanted.name)?;
        self.with(&Owner::of(&account, &authority), |own| {
            let session = find(own, &wanted.name).cloned().ok_or(SessionError::Absent)?;
            own.remove(session.name());
            session.end();
            Ok(session.info())
        })
    }

    /// A session that is on no list and ends with its last handle: a plain connection's own.
    ///
    /// # Errors
    /// [`SessionError`].
    pub fn apart(&self, permitted: Permitted<()>) -> Result<Session, SessionError> {
        let ((), account, _) = permitted.into_parts();
        self.make(None, &account, None)
    }

    fn make(
        &self,
        name: Option<&str>,
        account: &Account,
        copy: Option<Copy>,
    ) -> Result<Session, SessionError> {
        Session::new(name, account, &self.base, *self.umask.get_or_init(own_umask), copy)
    }

    fn with<T>(&self, owner: &Owner, f: impl FnOnce(&mut BTreeMap<String, Session>) -> T) -> T {
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, sessions) in owners.iter_mut() {
            sessions.retain(|_, session| {
                let is_idle = session.is_idle_for(self.limits.idle);
                if is_idle {
                    session.end();
                }
                !is_idle
            });
        }
        owners.retain(|(whose, sessions)| whose == owner || !sessions.is_empty());
        match owners.iter_mut().find(|(whose, _)| whose == owner) {
            Some((_, own)) => f(own),
            None => {
                let mut own = BTreeMap::new();
                let result = f(&mut own);
                if !own.is_empty() {
                    owners.push((owner.clone(), own));
                }
                result
            }
        }
    }
}

fn find<'a>(own: &'a BTreeMap<String, Session>, name: &str) -> Option<&'a Session> {
    own.get(name).or_else(|| own.values().find(|session| session.inner.id == name))
}

fn check_name(name: &str) -> Result<(), SessionError> {
    let valid = (1..=limits::NAME).contains(&name.len())
        && !name.starts_with('-')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if valid { Ok(()) } else { Err(SessionError::Name) }
}

fn is_id(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The file mode creation mask of this process (proc_pid_status(5)); asking umask(2) would change it.
fn own_umask() -> u32 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
            u32::from_str_radix(mask.trim(), 8).ok()
        })
        .unwrap_or(0o022)
}

/// Takes bytes for a session, and for what is noted of one with a job.
#[cfg(fuzzing)]
pub(crate) fn read_back(bytes: &[u8]) {
    let _ = Saved::parse(bytes);
    let _ = crate::keeping::fields::Found::parse(bytes).and_then(store::state_of);
}

#[cfg(test)]
mod hostile_bytes {
    //! What users and their shells may send: any bytes at all. Nothing of it ends this process, and all of it is bounded.

    use super::dialect::Dialect;
    use super::state::tests::state;
    use super::{line, simulate, told, unquote, words};

    /// Nothing is a directory here.
    struct Nowhere;

    impl simulate::World for Nowhere {
        fn is_directory(&self, _: &[u8]) -> bool {
            true
        }
        fn physical(&self, _: &[u8]) -> Option<Vec<u8>> {
            None
        }
        fn home_of(&self, _: &str) -> Option<Vec<u8>> {
            None
        }
    }

    /// Pieces that shells read in ways of their own, put together at random; the seed is printed.
    #[test]
    fn any_line_is_read_and_any_telling_too() {
        const PIECES: &[&str] = &[
            "cd",
            "export",
            "umask",
            "alias",
            "pushd",
            "exit",
            "ls",
            " ",
            " ",
            "  ",
            ";",
            "&&",
            "||",
            "|",
            "&",
            "'",
            "\"",
            "\\",
            "$",
            "$X",
            "${X}",
            "${X:-",
            "}",
            "{",
            "(",
            ")",
            "$((",
            "`",
            "~",
            "~+",
            "/",
            "..",
            "=",
            "A=1",
            "<<E",
            "\n",
            ">",
            "<",
            "[[",
            "]]",
            "!",
            "if",
            "then",
            "fi",
            "for",
            "case",
            "esac",
            "in",
            "*",
            "?",
            "[a",
            "\u{e9}",
            "\0",
            "$'",
            "\\x",
            "#",
            "--",
            "-P",
            "077",
            "u+rwx",
            "a=rx,",
            "remora 1\0",
            "/tmp\n\0",
            "0022\n\0",
            "early\0",
            "\0",
            "declare -x ",
            "export ",
            "declare -a DIRSTACK=(",
            "end\0",
            "f () \n",
            "declare -f f\n",
        ];
        let seed =
            std::env::var("REMORA_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_0001_u64);
        let mut random = seed;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap_or_default()
        };
        let before = state("/w/x", &[("HOME", "/h"), ("X", "1 2")]);
        for round in 0..20_000 {
            let text: String = (0..next(14)).map(|_| PIECES[next(PIECES.len())]).collect();
            let mut bytes = text.into_bytes();
            if next(8) == 0 {
                let at = next(bytes.len() + 1);
                bytes.insert(at, u8::try_from(next(256)).unwrap_or_default());
            }
            let shown = || format!("REMORA_SEED={seed}, round {round}: {}", bytes.escape_ascii());
            for dialect in [Dialect::Bash, Dialect::Dash, Dialect::Zsh, Dialect::Fish, Dialect::Other] {
                if let line::Reading::Commands(commands) = line::read(&bytes, dialect, &before)
                    && let Some(answer) = simulate::carry_out(&commands, dialect, &before, &Nowhere)
                {
                    assert!(answer.after.cwd.starts_with(b"/"), "{}", shown());
                }
                if let Some(told) = told::read(dialect, &bytes, &before) {
                    assert!(told.after.cwd.starts_with(b"/"), "{}", shown());
                }
                let _ = (line::mentions_exit(&bytes, &before), line::mentions_status(&bytes));
            }
            let _ = unquote::commands(&bytes);
            let _ = std::str::from_utf8(&bytes).map(|text| words::expand(text, &before, &|_| None));
        }
    }
}
