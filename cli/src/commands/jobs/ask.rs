//! How a verb gets in and asks.

use std::future::Future;

use remora_client::{Class, Connection, Outcome, Target, exit_status, proto};

use super::super::options;
use super::super::outage::{self, Watch};
use super::super::place::{Entered, Place, enter};
use super::super::sessions::unanswered;
use super::super::timeline::Timeline;
use super::list::id;
use crate::arguments::{Reach, Staying, Which};
use crate::host_keys;
use crate::printable::escape;
use crate::terminal::Failure;

/// Runs a verb to its end, and gives the process' exit status.
pub(super) fn finish(work: impl Future<Output = Result<Outcome, Failure>>) -> u8 {
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(work);
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Failure::new(Class::Internal, "", format!("no runtime: {error}"))),
    };
    exit_status(
        &result.unwrap_or_else(|failure| {
            failure.print();
            failure.outcome
        }),
        false,
    )
}

/// A connection to ask on.
pub(super) struct Asking {
    pub(super) name: String,
    pub(super) connection: Connection,
    watch: Option<Watch>,
}

/// Gets in, with a question about one job.
///
/// # Errors
/// No connection, or no answer.
pub(super) async fn begin(
    target: &str,
    reach: &Reach,
    staying: Option<&Staying>,
    question: proto::ask::Question,
) -> Result<(Asking, proto::JobList), Failure> {
    let timeline = Timeline::new(reach.verbose);
    let parsed: Target =
        target.parse().map_err(|error: remora_client::TargetError| Failure::usage(error.to_string()))?;
    options::check_jobs(reach, &parsed)?;
    host_keys::check(reach.known_hosts.as_deref())?;
    let mut place = Place::of(parsed, reach)?;
    let mut watch = None;
    if let Some(staying) = staying {
        let (lasting, seen) = outage::watch(staying);
        (place.lasting, watch) = (lasting, Some(seen));
    }
    let ask = async |connection: &Connection| connection.ask_jobs(question.clone()).await;
    let Entered { place, connection, first, .. } = enter(place, reach, &timeline, ask).await?;
    let name = place.name();
    let list = first.map_err(|error| unanswered(&name, &error))?;
    Ok((Asking { name, connection, watch }, list))
}

impl Asking {
    /// Does something that takes its time, and tells of lost connections meanwhile.
    pub(super) async fn during<T>(&mut self, work: impl AsyncFnOnce(&Connection, &str) -> T) -> T {
        let Asking { name, connection, watch } = self;
        let work = work(connection, name);
        match watch {
            None => work.await,
            Some(watch) => {
                let shown = escape(name);
                tokio::select! {
                    biased;
                    done = work => done,
                    never = async { watch.show(&shown, || {}).await; std::future::pending().await } => never,
                }
            }
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
