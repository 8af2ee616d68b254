//! The shell on a host: what it knows of its session, and how a line is run in it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use remora_client::{
    AskError, Class, Connection, Finished, JobError, Outcome, Request, Target, exit_status, outcome_of,
    proto, session_name, terminal_like,
};
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinHandle;

use super::super::ending::{in_session, job_id, killed_by, lost, not_started};
use super::super::local::LocalServer;
use super::super::place::{Entered, Place, enter};
use super::super::sessions::unanswered;
use super::super::timeline::Timeline;
use super::super::{outage, receipt, session, tty};
use super::jobs::{Jobs, Live};
use super::keys::{CTRL_D, Keys, Sent};
use super::prompt::{Shown, Style, took};
use super::running::{Around, Ran, run};
use super::screen::Screen;
use super::signals::Signals;
use super::validator::Dialect;
use super::words::{Quote, Word, written};
use super::words_of;
use crate::arguments::Shell;
use crate::printable::{chain, escape};
use crate::terminal::{Failure, hint, say};

/// A command that took at least so long is told how long.
const LONG: Duration = Duration::from_secs(2);
/// Shells whose variables and umask a host can keep, besides the directory.
const KEPT: &[&[u8]] = &[b"bash", b"dash", b"sh", b"zsh", b"fish"];
/// A signal's death that a person, or a pipe, has caused.
const EXPECTED: [i32; 2] = [signal_hook::consts::SIGINT, signal_hook::consts::SIGPIPE];

/// A session, and the connection to it.
pub(super) struct Native {
    pub(super) connection: Arc<Connection>,
    server: Option<LocalServer>,
    pub(super) place: Place,
    /// The host's name, for the prompt.
    host: String,
    pub(super) session: String,
    /// As it was typed.
    target: String,
    /// It was made for this shell, and ends with it.
    fresh: bool,
    info: proto::SessionInfo,
    directory: Vec<u8>,
    /// What each job's terminal is like; none where they get none.
    pub(super) terminal: Option<proto::Terminal>,
    /// Variables of our terminal's that the session doesn't know.
    environment: Vec<(Vec<u8>, Vec<u8>)>,
    style: Style,
    timeline: Timeline,
    /// Of the last line.
    pub(super) status: u8,
    pub(super) jobs: Jobs,
    /// For how long the host keeps a job that nobody is connected to.
    linger: Duration,
    /// Rings when a line was drawn over what is shown, and is gone.
    redrawn: Arc<Notify>,
    /// Shows losses of the connection.
    losses: JoinHandle<()>,
}

/// What a line led to.
pub(super) enum After {
    /// The next one, with what was typed and not read.
    Next { unread: Vec<u8> },
    /// The end of the shell, in order: `exit`.
    Exit,
}

impl Native {
    /// Gets in, and finds or makes the session.
    ///
    /// # Errors
    /// No connection, or the host has no session for us.
    pub(super) async fn open(
        mut place: Place,
        shell: &Shell,
        interactive: bool,
        style: Style,
        timeline: Timeline,
    ) -> Result<Self, Failure> {
        let session = match &shell.session {
            Some(name) => name.clone(),
            None => fresh_name(&place.name())?,
        };
        let (lasting, mut watch) = outage::watch(&shell.staying);
        place.lasting = lasting;
        let redrawn = Arc::new(Notify::new());
        let (bell, shown) = (redrawn.clone(), escape(&place.name()));
        let losses = tokio::spawn(async move { watch.show(&shown, || bell.notify_one()).await });
        let question =
            async |connection: &Connection| connection.open_session(session_name(&session, false)).await;
        let entered = enter(place, &shell.reach, &timeline, question).await?;
        let Entered { place, connection, server, host_name, first } = entered;
        let info = first.map_err(|error| unanswered(&place.name(), &error))?;
        timeline.note(&format!(
            "session {}: {}",
            escape(&info.name),
            if info.made { "made" } else { "found" }
        ));
        // Whoever comes back to one by its name should know that what they left there is gone.
        if interactive && info.made && shell.session.is_some() {
            say(&format!("{}: session {} is new", escape(&place.name()), escape(&info.name)));
        }
        let host = match &place.target {
            Target::Native { host, .. } => host.clone(),
            _ => host_name,
        };
        let name = info.name.clone();
        Ok(Native {
            connection: Arc::new(connection),
            server,
            host,
            session: if name.is_empty() { session } else { name },
            target: shell.target.clone(),
            fresh: shell.session.is_none(),
            directory: info.working_directory.clone(),
            info,
            terminal: terminal_like(io::stdin())
                .filter(|_| interactive && !shell.no_pty)
                .map(|terminal| proto::Terminal { job_control: true, ..terminal }),
            environment: if interactive { tty::travels().collect() } else { Vec::new() },
            style,
            timeline,
            status: 0,
            jobs: Jobs::default(),
            linger: outage::linger(&shell.staying),
            redrawn,
            losses,
            place,
        })
    }

    /// How the host's shell reads a line.
    pub(super) fn dialect(&self) -> Dialect {
        Dialect::of(&self.info.shell)
    }

    pub(super) fn prompt(&self) -> Shown {
        Shown::of(self.status, &self.place.user, &self.host, &self.directory, &self.info.home, self.style)
    }

    /// Makes a new session what a login gives: with the profile's environment, and what travels from here.
    ///
    /// # Errors
    /// As [`Native::line`].
    pub(super) async fn log_in(&mut self, with: &mut With<'_>) -> Result<(), Failure> {
        let shell = self.info.shell.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let kept = KEPT.contains(&shell);
        if !kept {
            say(&format!(
                "{}: your shell there is {}: a session keeps its directory, and nothing else of what lines change",
                escape(&self.place.name()),
                escape(&String::from_utf8_lossy(shell))
            ));
        }
        if !self.info.made {
            return Ok(());
        }
        self.request(":", true, Vec::new(), with).await?;
        let travels = std::mem::take(&mut self.environment);
        if kept && !travels.is_empty() {
            // Without them in the job's own environment: what is there already is no change of the session's.
            let words: Vec<String> = travels.iter().map(|(name, value)| assignment(name, value)).collect();
            self.request(&format!("export {}", words.join(" ")), false, Vec::new(), with).await?;
        }
        if !kept || self.status != 0 {
            self.environment = travels;
        }
        self.status = 0;
        Ok(())
    }

    /// Runs a line.
    ///
    /// # Errors
    /// Why the shell is over.
    pub(super) async fn line(
        &mut self,
        line: &str,
        typed: Vec<u8>,
        with: &mut With<'_>,
    ) -> Result<After, Failure> {
        self.request(line, false, typed, with).await
    }

    async fn request(
        &mut self,
        line: &str,
        login: bool,
        typed: Vec<u8>,
        with: &mut With<'_>,
    ) -> Result<After, Failure> {
        let live = self.start(line.as_bytes(), login)?;
        self.watch(live, typed, with).await
    }

    /// Asks for a line to be run.
    ///
    /// # Errors
    /// It can't be asked for.
    pub(super) fn start(&mut self, line: &[u8], login: bool) -> Result<Live, Failure> {
        let name = self.place.name();
        let mut request = Request::line(line);
        request.linger = self.linger;
        request.session = Some(session_name(&self.session, true));
        request.login = login;
        request.environment = self.environment.clone();
        request.terminal = self.terminal.clone();
        if let Some(terminal) = &mut request.terminal {
            terminal.size = tty::size();
        }
        let id = job_id(&name)?;
        let started = self.connection.start(id, request);
        let mut job = started.map_err(|error| not_started(&name, &error))?;
        match (job.stdin(), job.stdout(), job.stderr()) {
            (Some(stdin), Some(stdout), Some(stderr)) => {
                let line = String::from_utf8_lossy(line).into_owned();
                Ok(Live { id: receipt::hex(&id), job, stdin, stdout, stderr, line, sent: Sent::default() })
            }
            _ => Err(Failure::new(Class::Internal, &name, "the job has no streams")),
        }
    }

    /// Gives a job the terminal, for the first time or again.
    ///
    /// # Errors
    /// Why the shell is over.
    pub(super) async fn watch(
        &mut self,
        mut live: Live,
        typed: Vec<u8>,
        with: &mut With<'_>,
    ) -> Result<After, Failure> {
        let mut around = Around {
            screen: with.screen,
            keys: with.keys,
            signals: with.signals,
            jobs: &mut self.jobs,
            connection: &self.connection,
            redrawn: &self.redrawn,
        };
        let name = self.place.name();
        let ran = run(&mut live, &mut around, typed).await;
        let in_order = match &ran {
            Ran::Ended(result) => {
                result.as_ref().as_ref().is_ok_and(|f| matches!(outcome_of(&f.receipt), Outcome::Exited(_)))
            }
            Ran::Stopped { .. } => true,
            Ran::GivenUp | Ran::Left | Ran::End(_) | Ran::Broken(_) => false,
        };
        if !in_order {
            with.screen.lock().await.restore();
        }
        let unread = match ran {
            Ran::Ended(result) => match *result {
                Ok(finished) => return self.ended(&finished, &live, with).await,
                Err(JobError::Detached(_)) => {
                    self.status = exit_status(&Outcome::Failed(Class::Lost), false);
                    let text = format!("the command is detached, and goes on; {}", self.way_back(&live.id));
                    self.note(with, &text).await?;
                    return Ok(After::Next { unread: Vec::new() });
                }
                Err(error) => {
                    let way = outage::way_back_from(&self.target, &live.id, self.linger, &error);
                    let failure = lost(&name, &error);
                    return Err(self.keeping(Failure { hint: way.or(failure.hint), ..failure }));
                }
            },
            Ran::Stopped { typed } => {
                self.status = 128 + STOPPED;
                let text = self.jobs.stopped(live);
                self.show(with, &text).await?;
                typed
            }
            Ran::GivenUp => {
                self.status = 130;
                self.note(with, "the host ends the command").await?;
                Vec::new()
            }
            Ran::Left if self.connection.lost().is_some() => {
                let way = outage::way_back_now(&self.target, &live.id, self.linger, &self.connection);
                let failure = Failure::new(Class::Lost, &name, outage::left("~. or Ctrl-C"));
                return Err(self.keeping(failure.with_hint(way)));
            }
            Ran::Left => {
                let text = "you left by ~. (198); the host ends the command";
                return Err(self.keeping(Failure::new(Class::Lost, &name, text)));
            }
            Ran::End(signal) => return Err(self.told_to_end(signal)),
            Ran::Broken(error) => return Err(self.broken(&error)),
        };
        Ok(After::Next { unread })
    }

    async fn ended(
        &mut self,
        finished: &Finished,
        live: &Live,
        with: &mut With<'_>,
    ) -> Result<After, Failure> {
        let receipt = &finished.receipt;
        let outcome = outcome_of(receipt);
        self.status = exit_status(&outcome, false);
        if let Some(change) = &receipt.session {
            if !change.working_directory.is_empty() {
                self.directory.clone_from(&change.working_directory);
            }
            self.timeline.note(&session::told(change));
            if let Some(note) = session::loud_note(change) {
                self.note(with, &note).await?;
            }
        }
        match (&outcome, &receipt.outcome) {
            (_, Some(proto::receipt::Outcome::NotStarted(why))) => {
                Failure { hint: in_session(why), ..self.failed(&outcome, escape(&why.text)) }.print();
            }
            (Outcome::Signaled { signal, by: None }, _) if !EXPECTED.contains(&i32::from(*signal)) => {
                self.tell(with, &outcome, killed_by(*signal), true).await?;
            }
            (Outcome::Signaled { by: Some(why), .. }, _) => {
                self.tell(with, &outcome, format!("the host ended the command ({why})"), false).await?;
            }
            (Outcome::Deadline, _) => {
                let text = "the command ran into the host's time limit and was ended";
                self.tell(with, &outcome, text.to_owned(), false).await?;
            }
            _ => {}
        }
        let time = Duration::from_nanos(receipt.wall_ns);
        if time >= LONG && with.interactive {
            self.show(with, &self.style.dim(&took(time))).await?;
        }
        // A host says so where it carries the line out itself, and leaves what it isn't sure of, as all of fish, to the real shell.
        let typed = matches!(words_of(&live.line).as_slice(), ["exit"] | ["exit", _]);
        if typed || receipt.session.as_ref().is_some_and(|change| change.left) {
            return Ok(After::Exit);
        }
        // A Ctrl-D that waited in the host's terminal is a NUL when it is read as it is there (n_tty's __DISABLED_CHAR).
        let again = |byte: &u8| if *byte == 0 { CTRL_D } else { *byte };
        let mut unread: Vec<u8> = receipt.unread_input.iter().map(again).collect();
        if self.terminal.is_some() {
            unread.extend_from_slice(live.sent.behind(receipt.unread_upto));
        }
        Ok(After::Next { unread })
    }

    /// Tells how a line ended: a person below what it wrote, and whoever reads the output of a script not in there.
    async fn tell(&self, with: &With<'_>, outcome: &Outcome, text: String, dim: bool) -> Result<(), Failure> {
        if with.interactive {
            return self.show(with, &if dim { self.style.dim(&text) } else { text }).await;
        }
        self.failed(outcome, text).print();
        Ok(())
    }

    /// Tells something that is no failure, likewise.
    async fn note(&self, with: &With<'_>, text: &str) -> Result<(), Failure> {
        if with.interactive {
            return self.show(with, text).await;
        }
        say(&format!("{}: {text}", escape(&self.place.name())));
        Ok(())
    }

    fn failed(&self, outcome: &Outcome, text: String) -> Failure {
        let failure = Failure::new(Class::Internal, &self.place.name(), text);
        Failure { outcome: outcome.clone(), ..failure }
    }

    /// Detaches the jobs of these words, `-a` all of them, and gives what is to be said.
    ///
    /// # Errors
    /// What wasn't detached, in the words of a shell.
    pub(super) async fn disown(&mut self, words: &[&str]) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for number in self.jobs.chosen(words, "disown")? {
            let released = self.jobs.release(number)?;
            let detach = Some(proto::Detach::default());
            let question = proto::DetachJob { job: released.id().to_owned(), detach };
            match self.connection.ask_job(proto::ask::Question::DetachJob(question)).await {
                Ok(_) => {
                    lines.push(format!("{}  {}", released.told(), self.way_back(released.id())));
                    lines.extend(released.drain().await);
                }
                Err(error) => {
                    self.jobs.take_back(released);
                    let why = match error {
                        AskError::Refused(why) => escape(&why.text),
                        error => chain(&error),
                    };
                    lines.push(format!("disown: {why}"));
                    return Err(lines.join("\r\n"));
                }
            }
        }
        Ok(lines)
    }

    /// How to come back to a detached job.
    fn way_back(&self, id: &str) -> String {
        format!("remora attach {} {}", escape(&self.target), id.get(..outage::SHORT_ID).unwrap_or(id))
    }

    /// Shows a line of the shell's own.
    pub(super) async fn show(&self, with: &With<'_>, text: &str) -> Result<(), Failure> {
        with.screen.lock().await.line(text).await.map_err(|error| self.broken(&error))
    }

    pub(super) fn broken(&self, error: &io::Error) -> Failure {
        let text = format!("this terminal can't be used: {error}; the host ends what runs");
        self.keeping(Failure::new(Class::Internal, &self.place.name(), text))
    }

    /// The shell is over by a signal.
    pub(super) fn told_to_end(&self, signal: i32) -> Failure {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        let number = u8::try_from(signal).unwrap_or(0);
        let failure = Failure::new(Class::Lost, &self.place.name(), format!("left on {name}"));
        self.keeping(Failure { outcome: Outcome::Signaled { signal: number, by: None }, ..failure })
    }

    /// The connection is over.
    pub(super) fn lost(&self, error: &remora_client::JobError) -> Failure {
        let failure = lost(&self.place.name(), error);
        // No command ran that it could be about.
        self.keeping(Failure { hint: None, ..failure })
    }

    /// The session is still there, and may be found again.
    fn keeping(&self, failure: Failure) -> Failure {
        if self.server.is_some() {
            return failure;
        }
        let what = failure.hint.as_ref().map(|hint| format!("{hint}; ")).unwrap_or_default();
        let (session, target) = (escape(&self.session), escape(&self.target));
        failure.with_hint(format!("{what}back to its session: remora shell --session {session} {target}"))
    }

    /// Leaves in order: what was made for this shell ends with it.
    pub(super) async fn leave(self) {
        if self.fresh && self.connection.lost().is_some() {
            hint(&format!("session {} is left behind: the connection is lost", escape(&self.session)));
        } else if self.fresh
            && self.server.is_none()
            && let Err(error) = self.connection.end_session(session_name(&self.session, true)).await
        {
            hint(&format!(
                "session {} is left behind: {}",
                escape(&self.session),
                escape(&error.to_string())
            ));
        }
        self.close().await;
    }

    /// Closes the connection; the host ends what still runs.
    pub(super) async fn close(self) {
        let Native { connection, server, jobs, losses, .. } = self;
        losses.abort();
        drop(jobs);
        if let Ok(connection) = Arc::try_unwrap(connection) {
            connection.leave().await;
        }
        if let Some(server) = server {
            server.finish().await;
        }
    }
}

/// The number of SIGTSTP on Linux: what a shell tells of a command that was stopped.
const STOPPED: u8 = 20;

/// What all lines share.
pub(super) struct With<'a> {
    pub(super) screen: &'a Mutex<Screen>,
    pub(super) keys: Option<&'a Keys>,
    pub(super) signals: &'a mut Signals,
    /// A person sees it.
    pub(super) interactive: bool,
}

/// A name that no other session has.
fn fresh_name(place: &str) -> Result<String, Failure> {
    let id = job_id(place)?;
    let text = data_encoding::BASE32_NOPAD.encode(&id).to_ascii_lowercase();
    Ok(format!("shell-{}", text.get(..6).unwrap_or(&text)))
}

fn assignment(name: &[u8], value: &[u8]) -> String {
    let word = Word {
        start: 0,
        text: String::new(),
        quote: Quote::Single,
        kind: proto::CompletionKind::Path,
        tilde: false,
    };
    format!("{}={}", String::from_utf8_lossy(name), written(value, &word, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_session_has_a_name_of_its_own() {
        let (one, other) = (fresh_name("x").unwrap(), fresh_name("x").unwrap());
        assert_ne!(one, other);
        for name in [one, other] {
            let tail = name.strip_prefix("shell-").unwrap();
            assert!(
                tail.len() == 6
                    && tail.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
            );
        }
    }

    #[test]
    fn variables_travel_in_quotes() {
        assert_eq!(assignment(b"TERM", b"xterm-256color"), "TERM='xterm-256color'");
        assert_eq!(assignment(b"LANG", b"it's $x"), "LANG='it'\\''s $x'");
    }
}
