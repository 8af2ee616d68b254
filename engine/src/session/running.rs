//! A job in a session: what the session makes of its request, and what becomes of the session at its end.
//!
//! Where jobs have keepers, the job may end under another server than began it: what is needed then is noted with the job
//! ([`note`](super::note)), and its session keeps account of what it has merged ([`store`](super::store)).

use std::path::PathBuf;

use remora_identity::Account;

use super::dialect::Dialect;
use super::fifo::{Collector, Folder};
use super::line::{self, Joint, Reading};
use super::simulate::{self, Answer, Machine, World};
use super::state::{Map, State};
use super::store::Done;
use super::told::{self, Told};
use super::wrap::{self, Line};
use super::{Carried, Session, SessionChange, limits};
use crate::keeping::JobKey;
use crate::outcome::How;
use crate::request::{JobRequest, Program};

/// What a session makes of a request.
pub(crate) enum Begun {
    /// It has carried the line out: there is nothing to run.
    Answered { stdout: Vec<u8>, status: u8, change: SessionChange },
    /// It is to be run, as the request says now, and here. What is detached has nothing to do with the session from then on.
    Runs(Option<Running>, Place),
}

/// Where a session runs a job.
pub(crate) struct Place {
    /// The whole environment.
    pub(crate) environment: Map,
    /// Where the working directory can't be gone to, the root will do.
    pub(crate) or_root: bool,
}

/// A job that runs in a session. While it lives the session isn't idle.
pub(crate) struct Running {
    pub(super) session: Session,
    /// Which job it is, where its server may change.
    pub(super) key: Option<JobKey>,
    /// The state that the job began with.
    pub(super) before: State,
    pub(super) means: Means,
}

/// How what it changes is found out.
pub(super) enum Means {
    /// It can change nothing.
    Program,
    /// Its shell tells; also whether the line has ended it, where it may.
    Told { ear: Ear, dialect: Dialect, may_exit: bool },
    /// Nobody will know: its shell can't tell.
    Untold,
    /// Nobody will know, for a reason that is ours.
    Lost(String),
}

/// Who reads what a shell tells.
pub(super) enum Ear {
    /// This process.
    Here(Collector),
    /// The job's keeper.
    Keeper,
}

/// Where the shell of a job tells its state.
pub(crate) enum Telling<'a> {
    /// In a folder of this process.
    Here(&'a Captures),
    /// In its own folder, to its keeper.
    Keeper { key: JobKey, path: PathBuf, captures: &'a Captures },
}

impl Telling<'_> {
    fn captures(&self) -> &Captures {
        match self {
            Telling::Here(captures) | Telling::Keeper { captures, .. } => captures,
        }
    }

    fn key(&self) -> Option<JobKey> {
        match self {
            Telling::Here(_) => None,
            Telling::Keeper { key, .. } => Some(*key),
        }
    }
}

/// What beginning a job needs.
#[derive(Debug)]
pub(crate) struct Captures {
    folder: Option<Folder>,
    machine: Machine,
}

impl Captures {
    /// Shells tell their states in this folder.
    pub(crate) fn new(folder: Option<std::path::PathBuf>) -> Self {
        Captures { folder: folder.map(Folder::new), machine: Machine::default() }
    }
}

/// Begins a job in a session: carries its line out, or changes the request so that it runs there.
///
/// One that is detached runs there as a line with `&` behind it would: it begins as the session is, and what it changes is its own.
pub(crate) fn begin(
    session: Session,
    request: &mut JobRequest,
    telling: Telling<'_>,
    account: &Account,
) -> Begun {
    let (machine, key, is_detached) = (&telling.captures().machine, telling.key(), request.detach.is_some());
    if let Some(answered) = key.and_then(|key| session.remembered(key)) {
        return answered;
    }
    let shell = request.shell.clone().unwrap_or_else(|| account.shell.clone());
    let dialect = Dialect::of(&shell);
    let mut before = session.state().clone();
    if let Some(cwd) = &request.cwd {
        use std::os::unix::ffi::OsStrExt;
        let here = std::path::Path::new(std::ffi::OsStr::from_bytes(&before.cwd));
        before.cwd = here.join(cwd).as_os_str().as_bytes().to_vec();
    }
    before.environment.extend(request.env.iter().cloned());

    let mut reading = Reading::Program;
    if let Program::Line(line) = &request.program {
        reading = line::read(line, dialect, &before);
        let is_real = request.login || is_detached && matches!(reading, Reading::Commands(_));
        if is_real && !matches!(reading, Reading::Shell { .. }) {
            reading = Reading::Shell { is_right: true };
        }
    }
    if let Reading::Commands(commands) = &reading {
        match simulate::carry_out(commands, dialect, &before, machine) {
            Some(answer) => return answered(&session, key, &before, answer),
            None => reading = Reading::Shell { is_right: true },
        }
    }
    let mut here = before.cwd.clone();
    if let (Program::Line(line), Reading::Shell { .. }) = (&request.program, &reading)
        && let Some(elsewhere) = way_out(line, dialect, &before, machine)
    {
        here = elsewhere;
    }
    let means = match (&request.program, reading) {
        (Program::Line(line), Reading::Shell { is_right }) => {
            let line = Line {
                text: line,
                is_right,
                // fish marks the end of a line at no cost.
                may_exit: !is_detached && (dialect == Dialect::Fish || line::mentions_exit(line, &before)),
                asks_status: line::mentions_status(line),
            };
            let may_exit = line.may_exit;
            match capture(&line, dialect, &before, (!is_detached).then_some(&telling)) {
                Ok((text, ear)) => {
                    request.program = Program::Line(text);
                    ear.map_or(Means::Program, |ear| Means::Told { ear, dialect, may_exit })
                }
                Err(Untellable::Shell) => Means::Untold,
                Err(Untellable::Fault(why)) => Means::Lost(why),
            }
        }
        _ => Means::Program,
    };
    let place = Place {
        environment: State { cwd: here.clone(), ..before.clone() }.environment_of_a_command(),
        // An account whose home isn't there begins in the root, in a session as elsewhere.
        or_root: request.cwd.is_none() && before.cwd == account_home(account),
    };
    request.cwd = Some(path(&here));
    request.umask = Some(before.umask);
    request.env.clear();
    if is_detached {
        return Begun::Runs(None, place);
    }
    session.begin_job();
    Begun::Runs(Some(Running { session, key, before, means }), place)
}

/// Where a shell can begin a line whose directory has vanished: where its first command goes, if it goes there from anywhere. A
/// shell of the session's own would still stand in a directory that is no more; a new one can't.
fn way_out(line: &[u8], dialect: Dialect, before: &State, machine: &Machine) -> Option<Vec<u8>> {
    if machine.is_directory(&before.cwd) {
        return None;
    }
    let command = [(Joint::Then, line::first_cd(line, dialect)?)];
    let there = simulate::carry_out(&command, dialect, before, machine)?.after;
    let again = simulate::carry_out(&command, dialect, &there, machine)?.after;
    (again.cwd == there.cwd).then_some(there.cwd)
}

fn account_home(account: &Account) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    account.home.as_os_str().as_bytes().to_vec()
}

fn path(bytes: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(bytes).into()
}

/// Why a shell can't be made to tell its state.
enum Untellable {
    /// It isn't one of those that are known.
    Shell,
    /// Something is wrong here.
    Fault(String),
}

/// The text that makes a shell begin as the session is, and, where there is a telling, tell its state; and who reads that.
fn capture(
    line: &Line<'_>,
    dialect: Dialect,
    before: &State,
    telling: Option<&Telling<'_>>,
) -> Result<(Vec<u8>, Option<Ear>), Untellable> {
    use std::os::unix::ffi::OsStrExt;
    if dialect == Dialect::Other {
        return Err(Untellable::Shell);
    }
    let fault = |why: &str| Untellable::Fault(why.to_owned());
    let wrapped = |path: Option<&[u8]>| {
        wrap::wrap(dialect, line, path, before).filter(|text| text.len() < limits::VARIABLE).ok_or_else(
            || {
                let limit = limits::VARIABLE;
                Untellable::Fault(format!(
                    "line, aliases and functions together are longer than {limit} bytes"
                ))
            },
        )
    };
    match telling {
        None => Ok((wrapped(None)?, None)),
        Some(Telling::Keeper { path, .. }) => {
            Ok((wrapped(Some(path.as_os_str().as_bytes()))?, Some(Ear::Keeper)))
        }
        Some(Telling::Here(captures)) => {
            let folder = captures.folder.as_ref().ok_or_else(|| fault("there is no folder to capture by"))?;
            let fifo = folder.fifo().map_err(Untellable::Fault)?;
            let text = wrapped(Some(fifo.path()))?;
            let collector = fifo.collect().map_err(|error| {
                Untellable::Fault(format!("the state of the shell can't be read: {error}"))
            })?;
            Ok((text, Some(Ear::Here(collector))))
        }
    }
}

fn answered(session: &Session, key: Option<JobKey>, before: &State, answer: Answer) -> Begun {
    let Answer { stdout, status, left, after } = answer;
    let (carried, note) = match session.merge(before, &after) {
        Ok(()) => (Carried::Simulated, String::new()),
        // A shell would have taken it: nothing is kept, and that is said.
        Err(error) => (Carried::Lost, error.to_string()),
    };
    session.note_status(How::Exited(status.into()));
    let change = session.change(carried, left, note);
    if let Some(key) = key.filter(|_| *before != after) {
        let answer = (stdout.clone(), status);
        session.remember(Done { key, change: change.clone(), answer: Some(answer) });
    }
    session.save();
    Begun::Answered { stdout, status, change }
}

impl Running {
    /// Whether the job's keeper is to read what its shell tells.
    pub(crate) fn is_heard_by_keeper(&self) -> bool {
        matches!(self.means, Means::Told { ear: Ear::Keeper, .. })
    }

    /// The job is over: merges what it changed. What its shell told is given where its keeper has read it.
    pub(crate) fn settle(mut self, how: How, told: Option<(Vec<u8>, usize)>) -> SessionChange {
        // Under the server before, which had no time left to say so.
        if let Some(change) = self.key.and_then(|key| self.session.merged(key)) {
            return change;
        }
        let means = std::mem::replace(&mut self.means, Means::Program);
        self.session.note_status(how);
        let mut left = false;
        let (carried, note) = match means {
            Means::Program => (Carried::Unchanged, String::new()),
            Means::Untold => {
                let note =
                    "nothing is known of this shell: only the directory is kept, and only cd changes it";
                (Carried::NotCaptured, note.to_owned())
            }
            Means::Lost(why) => (Carried::Lost, why),
            Means::Told { ear, dialect, may_exit } => {
                let (bytes, length) = match ear {
                    Ear::Here(collector) => collector.told(),
                    Ear::Keeper => told.unwrap_or_default(),
                };
                let (carried, note, has_left) = self.merge(how, dialect, &bytes, length);
                left = may_exit && has_left;
                (carried, note)
            }
        };
        let change = self.session.change(carried, left, note);
        if let Some(key) = self.key.filter(|_| carried != Carried::Unchanged) {
            self.session.remember(Done { key, change: change.clone(), answer: None });
        }
        self.session.save();
        change
    }

    /// Merges what a shell told; how that went, what there is to say, and whether the shell ended before the line did.
    fn merge(&self, how: How, dialect: Dialect, bytes: &[u8], length: usize) -> (Carried, String, bool) {
        if length > limits::CAPTURE {
            if let Some(after) = told::read_place(dialect, bytes, &self.before) {
                // Where the line went always fits.
                let _ = self.session.merge(&self.before, &after);
            }
            let limit = limits::ENVIRONMENT;
            let note =
                format!("the shell's state has {length} bytes, and a session's environment {limit} at most");
            (Carried::Lost, note, false)
        } else if let Some(Told { after, early }) = told::read(dialect, bytes, &self.before) {
            let has_left = early && matches!(how, How::Exited(_));
            match self.session.merge(&self.before, &after) {
                Ok(()) => (Carried::Captured, String::new(), has_left),
                Err(error) => (Carried::Lost, error.to_string(), has_left),
            }
        } else if length > 0 && !matches!(how, How::Signaled { .. }) {
            (Carried::Lost, "what the shell told of its state isn't whole".to_owned(), false)
        } else {
            (Carried::NotCaptured, untold(how).to_owned(), false)
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.session.end_job();
    }
}

/// Why a shell told nothing.
fn untold(how: How) -> &'static str {
    match how {
        How::Signaled { .. } | How::KeeperLost => "the shell was killed",
        _ => "the line set an EXIT trap of its own, replaced its shell, or the shell couldn't run it",
    }
}
