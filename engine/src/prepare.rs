//! From a request to what the system calls take, and from a failed system call to what it means.

use std::ffi::{CString, OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use remora_identity::Account;

use crate::config::BaseEnvironment;
use crate::environment::Environment;
use crate::error::{NotStarted, Step};
use crate::order::Order;
use crate::request::{JobRequest, Program};
use crate::session::Place;
use crate::sys::{ChildStep, Failed};

/// Where commands are looked for when a job's environment has no `PATH` (execvp(3)).
const FALLBACK_PATH: &[u8] = b"/bin:/usr/bin";

/// Bytes of the longest file name (`NAME_MAX`): a longer one isn't in any folder, however many `PATH` has.
const LONGEST_NAME: usize = 255;

/// A request that is laid out, and what is needed to say why it can't be started.
pub(crate) struct Prepared {
    pub(crate) order: Order,
    /// The command is the shell of a line.
    is_shell: bool,
    /// The command as it was asked for.
    command: OsString,
}

impl Prepared {
    /// Checks and lays out a request, with what its session gives it in place of the base environment.
    ///
    /// # Errors
    /// [`Step::EmptyArgv`], [`Step::NulByte`] and [`Step::EnvironmentName`].
    pub(crate) fn new(
        request: JobRequest,
        place: Option<Place>,
        base: &BaseEnvironment,
        account: &Account,
    ) -> Result<Self, NotStarted> {
        let JobRequest {
            program,
            shell,
            cwd,
            env,
            login,
            umask,
            stdin,
            terminal,
            wait_streams,
            keep_order,
            ..
        } = request;
        let (environment, or_root) = match place {
            Some(Place { environment, or_root }) => (Environment::of(environment), or_root),
            None => (Environment::new(base, account, env)?, false),
        };
        let (command, argv, is_shell) = match program {
            Program::Line(line) => {
                let shell = shell.unwrap_or_else(|| account.shell.clone());
                let name = shell.file_name().unwrap_or(shell.as_os_str()).as_bytes().to_vec();
                let options = [b"-l".as_slice(), b"-c"];
                let options = options.into_iter().skip(usize::from(!login)).map(<[u8]>::to_vec);
                let argv = std::iter::once(name).chain(options).chain([line]).collect();
                (shell.into_os_string().into_vec(), argv, true)
            }
            Program::LoginShell => {
                let shell = shell.unwrap_or_else(|| account.shell.clone());
                let name = shell.file_name().unwrap_or(shell.as_os_str()).as_bytes();
                let name = [b"-", name].concat();
                (shell.into_os_string().into_vec(), vec![name], true)
            }
            Program::Argv(argv) => match argv.first() {
                Some(command) => (command.clone(), argv, false),
                None => return Err(NotStarted::bytes(Step::EmptyArgv, None, b"")),
            },
        };
        let candidates = candidates(&command, environment.get("PATH").unwrap_or(FALLBACK_PATH));
        let is_home = cwd.is_none() || or_root;
        let cwd = match cwd {
            Some(cwd) => account.home.join(cwd),
            None => account.home.clone(),
        };
        let order = Order {
            candidates: candidates.into_iter().map(string).collect::<Result<_, _>>()?,
            argv: argv.into_iter().map(string).collect::<Result<_, _>>()?,
            envp: environment.into_strings()?,
            cwd: string(cwd.into_os_string().into_vec())?,
            or_root: is_home,
            umask,
            stdin,
            terminal,
            wait_streams,
            keep_order,
        };
        Ok(Prepared { order, is_shell, command: OsString::from_vec(command) })
    }

    /// What a failed start means. Looks at the file system again to tell a missing command from a missing interpreter.
    pub(crate) fn explain(&self, failed: Failed) -> NotStarted {
        let (step, errno, candidate) = match failed {
            Failed::Step { step, errno, candidate } => (step, errno, candidate),
            Failed::Spawner(errno) => {
                return NotStarted::bytes(Step::Spawner, Some(errno.raw_os_error()), b"");
            }
        };
        let failed = errno;
        let errno = Some(errno);
        match step {
            ChildStep::Clone => {
                let step = match failed {
                    libc::ENOMEM => Step::Memory,
                    libc::EMFILE | libc::ENFILE => Step::Descriptors,
                    _ => Step::TooManyProcesses,
                };
                NotStarted::bytes(step, errno, b"")
            }
            ChildStep::Session => NotStarted::bytes(Step::Session, errno, b""),
            ChildStep::Terminal => NotStarted::bytes(Step::Terminal, errno, b""),
            ChildStep::Descriptors => NotStarted::bytes(Step::Descriptors, errno, b""),
            ChildStep::Cgroup => NotStarted::bytes(Step::Limits, errno, b"cgroup"),
            ChildStep::Limits => NotStarted::bytes(Step::Limits, errno, b""),
            ChildStep::WorkingDirectory => {
                NotStarted::bytes(Step::WorkingDirectory, errno, self.order.cwd.as_bytes())
            }
            ChildStep::Execute => match failed {
                libc::E2BIG => NotStarted::new(Step::ArgumentListTooLong, errno, &self.command),
                libc::ENOMEM => NotStarted::new(Step::Memory, errno, &self.command),
                libc::EMFILE | libc::ENFILE => NotStarted::new(Step::Descriptors, errno, &self.command),
                libc::EAGAIN => NotStarted::new(Step::TooManyProcesses, errno, &self.command),
                libc::ENOENT | libc::ENOTDIR => self.missing(errno),
                _ => {
                    let path = self.order.candidates.get(candidate).map_or(&[][..], |path| path.as_bytes());
                    NotStarted::bytes(Step::NotExecutable, errno, path)
                }
            },
        }
    }

    /// Nothing could be executed because something isn't there: the command, or what it needs to run.
    fn missing(&self, errno: Option<i32>) -> NotStarted {
        let cwd = Path::new(OsStr::from_bytes(self.order.cwd.as_bytes()));
        let there = self
            .order
            .candidates
            .iter()
            .map(|candidate| cwd.join(OsStr::from_bytes(candidate.as_bytes())))
            .find(|path| path.is_file());
        match there {
            Some(path) => {
                let what = interpreter(&path).unwrap_or_else(|| path.into_os_string());
                NotStarted::new(Step::InterpreterMissing, errno, what)
            }
            None if self.is_shell => NotStarted::new(Step::Shell, errno, &self.command),
            None => NotStarted::new(Step::NotFound, errno, &self.command),
        }
    }
}

/// The paths to try for a command, in order.
fn candidates(command: &[u8], path: &[u8]) -> Vec<Vec<u8>> {
    if command.contains(&b'/') || command.is_empty() {
        return vec![command.to_vec()];
    }
    if command.len() > LONGEST_NAME {
        return Vec::new();
    }
    path.split(|byte| *byte == b':')
        .map(|folder| match folder {
            // An empty entry is the working directory (execvp(3)).
            b"" => [b"./", command].concat(),
            folder => [folder, b"/", command].concat(),
        })
        .collect()
}

/// The interpreter that the first line of a script names.
fn interpreter(script: &Path) -> Option<OsString> {
    let mut line = Vec::new();
    let file = std::fs::File::open(script).ok()?;
    // The kernel reads no more of it either (BINPRM_BUF_SIZE).
    BufReader::new(file.take(256)).read_until(b'\n', &mut line).ok()?;
    let rest = line.strip_prefix(b"#!")?.trim_ascii();
    let name = rest.split(|byte| byte.is_ascii_whitespace()).next()?;
    (!name.is_empty()).then(|| OsString::from_vec(name.to_vec()))
}

fn string(bytes: Vec<u8>) -> Result<CString, NotStarted> {
    CString::new(bytes).map_err(|error| NotStarted::bytes(Step::NulByte, None, &error.into_vec()))
}
