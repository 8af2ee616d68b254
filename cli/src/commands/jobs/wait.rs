//! `remora wait`: the exit status of a command that runs elsewhere, and its receipt.

use remora_client::{AskError, Class, Connection, outcome_of, proto};

use super::super::ending::lost;
use super::super::receipt;
use super::super::sessions::unanswered;
use super::ask::{Asking, begin, finish, one};
use super::end::{held_back, tell};
use super::list::{command, id};
use crate::arguments::Wait;
use crate::printable::escape;
use crate::terminal::{Failure, print, say};

/// How long one question waits, milliseconds.
pub(super) const WAIT: u32 = 30_000;

/// Waits, and gives the process' exit status.
pub(crate) fn run(wait: &Wait) -> u8 {
    let which = &wait.which;
    finish(async {
        let keep = wait.receipt.as_deref().map(receipt::Keep::begin).transpose()?;
        let find = find(which.job.clone(), 0, keep.is_some());
        let question = proto::ask::Question::FindJob(find);
        let (mut asking, list) = begin(&which.target, &which.reach, Some(&wait.staying), question).await?;
        let job = until_over(&mut asking, list, keep.is_some(), true).await?;
        let Some(told) = &job.receipt else {
            return Err(Failure::new(Class::Internal, &asking.name, "the host told no end"));
        };
        let kept = match keep {
            Some(keep) => {
                let file = asking.connection.receipt_to_keep(&job);
                let file = file.map_err(|error| lost(&asking.name, &error))?;
                keep.finish(&asking.name, file.as_ref())?;
                wait.receipt.as_deref()
            }
            None => None,
        };
        if wait.json {
            let nothing = receipt::Captured { bytes: &[], seen: 0 };
            let object = receipt::receipt(&which.target, command(&job), told, &nothing, &nothing, kept);
            print(&(object.to_string() + "\n")).map_err(|error| {
                Failure::new(Class::Internal, &asking.name, format!("can't write standard output: {error}"))
            })?;
            return Ok(outcome_of(told));
        }
        Ok(tell(&asking.name, told))
    })
}

fn find(job: String, wait_ms: u32, sign_receipt: bool) -> proto::FindJob {
    proto::FindJob { job, wait_ms, sign_receipt }
}

/// Waits until a job that was found is over. `tells`: what holds it back, if anything does.
pub(super) async fn until_over(
    asking: &mut Asking,
    list: proto::JobList,
    is_kept: bool,
    tells: bool,
) -> Result<proto::JobInfo, Failure> {
    let mut job = one(&asking.name, list)?;
    asking
        .during(async |connection: &Connection, name: &str| {
            let mut is_told = !tells;
            while job.receipt.is_none() {
                if let (false, Some(text)) = (is_told, held_back(&job)) {
                    say(&format!("{}: {text}", escape(name)));
                    is_told = true;
                }
                job = look(connection, name, &job, WAIT, is_kept).await?;
            }
            Ok(job)
        })
        .await
}

/// How a job is now, or once it is over, if it is so within `wait_ms`; with its statement, if that is to be kept.
pub(super) async fn look(
    connection: &Connection,
    name: &str,
    job: &proto::JobInfo,
    wait_ms: u32,
    is_kept: bool,
) -> Result<proto::JobInfo, Failure> {
    // By its whole id: its name may be another's by then.
    let find = find(id(job), wait_ms, is_kept);
    let found: Result<proto::JobInfo, AskError> =
        connection.ask_job(proto::ask::Question::FindJob(find)).await;
    found.map_err(|error| unanswered(name, &error))
}
