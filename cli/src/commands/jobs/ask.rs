//! How a verb gets in and asks.

use std::future::Future;

use remora_client::{AskError, Class, Connection, Outcome, Target, exit_status, proto};
use tokio::signal::unix::{SignalKind, signal};

use super::super::exec::Ending;
use super::super::outage::{self, Watch};
use super::super::place::{Entered, Place, enter};
use super::super::timeline::Timeline;
use super::super::{options, receipt, sessions};
use super::list::id;
use crate::arguments::{Reach, Watching, Which};
use crate::host_keys;
use crate::printable::escape;
use crate::terminal::{Failure, print, say};

/// Why a verb stops before its end.
pub(super) enum Halt {
    Failed(Failure),
    /// Ctrl-C.
    Interrupted,
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Halt::Failed(failure)
    }
}

/// Runs a verb to its end, and tells how the process is to end.
pub(super) fn finish(work: impl Future<Output = Result<Outcome, Halt>>) -> Ending {
    run(work, None)
}

/// As [`finish`], of a verb that was asked about this target, and prints one JSON object whatever happens, if `is_json`.
pub(super) fn finish_in_json(
    is_json: bool,
    target: &str,
    work: impl Future<Output = Result<Outcome, Halt>>,
) -> Ending {
    run(work, is_json.then_some(target))
}

fn run(work: impl Future<Output = Result<Outcome, Halt>>, json: Option<&str>) -> Ending {
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(work);
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::new(Class::Internal, "", format!("no runtime: {error}")).into()),
    };
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(Halt::Interrupted) => return Ending::Interrupted,
        Err(Halt::Failed(failure)) => {
            failure.print();
            if let Some(target) = json.filter(|_| !failure.told) {
                let object = receipt::failed(target, serde_json::Value::Null, &failure, None);
                if let Err(error) = print(&(object.to_string() + "\n")) {
                    say(&format!("can't write standard output: {error}"));
                }
            }
            failure.outcome
        }
    };
    Ending::Status(exit_status(&outcome, false))
}

/// A host that is asked.
pub(super) struct At {
    pub(super) name: String,
    pub(super) connection: Connection,
    /// How to come back once the connection is gone.
    way: Option<String>,
}

impl At {
    /// A question that has no answer. What it was about goes on without us.
    pub(super) fn unanswered(&self, error: &AskError) -> Failure {
        unanswered(&self.name, error, self.way.as_deref())
    }

    /// # Errors
    /// No answer.
    pub(super) async fn ask_job(&self, question: proto::ask::Question) -> Result<proto::JobInfo, Failure> {
        self.connection.ask_job(question).await.map_err(|error| self.unanswered(&error))
    }

    /// # Errors
    /// No answer.
    pub(super) async fn read_log(&self, read: proto::ReadLog) -> Result<proto::Log, Failure> {
        self.connection.read_log(read).await.map_err(|error| self.unanswered(&error))
    }
}

fn unanswered(name: &str, error: &AskError, way: Option<&str>) -> Failure {
    let failure = sessions::unanswered(name, error);
    match error {
        AskError::Ended(_) => Failure { hint: way.map(str::to_owned), ..failure },
        _ => failure,
    }
}

/// A connection to ask on.
pub(super) struct Asking {
    pub(super) at: At,
    watch: Option<Watch>,
}

/// How a connection is held on to.
pub(super) struct Held<'a> {
    pub(super) watching: &'a Watching,
    /// What to type to come back once it is given up.
    pub(super) again: &'static str,
    pub(super) which: &'a Which,
}

impl Held<'_> {
    /// What is told once it is given up.
    pub(super) fn way(&self) -> String {
        let Which { target, job, .. } = self.which;
        format!("the command goes on; to come back: {} {} {}", self.again, escape(target), escape(job))
    }
}

/// Gets in, with a question about one job.
///
/// # Errors
/// No connection, or no answer.
pub(super) async fn begin(
    target: &str,
    reach: &Reach,
    held: Option<Held<'_>>,
    question: proto::ask::Question,
) -> Result<(Asking, proto::JobList), Failure> {
    let timeline = Timeline::new(reach.verbose);
    let parsed: Target =
        target.parse().map_err(|error: remora_client::TargetError| Failure::usage(error.to_string()))?;
    options::check_jobs(reach, &parsed)?;
    host_keys::check(reach.known_hosts.as_deref())?;
    let mut place = Place::of(parsed, reach)?;
    let mut watch = None;
    if let Some(held) = &held {
        let (lasting, seen) = outage::watch(&held.watching.staying());
        (place.lasting, watch) = (lasting, Some(seen));
    }
    let ask = async |connection: &Connection| connection.ask_jobs(question.clone()).await;
    let Entered { place, connection, first, .. } = enter(place, reach, &timeline, ask).await?;
    let only_asks = matches!(question, proto::ask::Question::ListJobs(_) | proto::ask::Question::FindJob(_));
    let unsure =
        || format!("whether the host has heard this isn't known; remora jobs {} tells", escape(target));
    let way = held.map(|held| held.way()).or_else(|| (!only_asks).then(unsure));
    let name = place.name();
    let list = first.map_err(|error| unanswered(&name, &error, way.as_deref()))?;
    Ok((Asking { at: At { name, connection, way }, watch }, list))
}

impl Asking {
    /// Does something that takes its time, and tells of lost connections meanwhile.
    pub(super) async fn during<T>(&mut self, work: impl AsyncFnOnce(&At) -> T) -> T {
        let Asking { at, watch } = self;
        let shown = escape(&at.name);
        let work = work(at);
        match watch {
            None => work.await,
            Some(watch) => tokio::select! {
                biased;
                done = work => done,
                never = async { watch.show(&shown, || {}).await; std::future::pending().await } => never,
            },
        }
    }

    /// As [`Asking::during`], up to a Ctrl-C: a line of ours is to be off the terminal before this process dies of it.
    pub(super) async fn up_to_interrupt<T>(
        &mut self,
        work: impl AsyncFnOnce(&At) -> Result<T, Failure>,
    ) -> Result<T, Halt> {
        let mut interrupt = signal(SignalKind::interrupt());
        let interrupted = async {
            match &mut interrupt {
                Ok(interrupt) => drop(interrupt.recv().await),
                // As it was: the kernel ends us.
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            done = self.during(work) => Ok(done?),
            () = interrupted => Err(Halt::Interrupted),
        }
    }
}

/// The one job that an answer tells of.
pub(super) fn one(name: &str, mut list: proto::JobList) -> Result<proto::JobInfo, Failure> {
    let none = || Failure::new(Class::Internal, name, "the host answered with no job");
    list.jobs.pop().ok_or_else(none)
}

/// The question for a job, as somebody names it.
pub(super) fn find(job: &str) -> proto::FindJob {
    proto::FindJob { job: job.to_owned(), ..proto::FindJob::default() }
}

/// The job, unless its output is its client's.
pub(super) fn detached(which: &Which, job: proto::JobInfo, name: &str) -> Result<proto::JobInfo, Failure> {
    let (text, hint) = match (job.state(), &job.receipt) {
        (proto::JobState::Attached, _) => (
            "the command is attached: what it prints is its client's, and not kept on the host",
            Some(format!(
                "remora detach {} {} keeps it from now on, and ends its client",
                escape(&which.target),
                id(&job)
            )),
        ),
        // It was waited for, and nothing else is known of it.
        (proto::JobState::Ended, Some(receipt)) if receipt.spool.is_none() => {
            ("the command is over, and was never detached: what it printed is its client's", None)
        }
        _ => return Ok(job),
    };
    Err(Failure { hint, ..Failure::new(Class::Refused, name, text) })
}
