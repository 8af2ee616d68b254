//! `remora wait`: the exit status of a command that runs elsewhere, and its receipt.

use remora_client::{Class, outcome_of, proto};

use super::super::ending::lost;
use super::super::exec::Ending;
use super::super::receipt;
use super::ask::{Asking, At, Halt, Held, begin, finish_in_json, one};
use super::end::{held_back, tell};
use super::list::{command, id};
use crate::arguments::Wait;
use crate::printable::escape;
use crate::terminal::{Failure, print, say};

/// How long one question waits, milliseconds.
pub(super) const WAIT: u32 = 30_000;

/// Waits, and tells how the process is to end.
pub(crate) fn run(wait: &Wait) -> Ending {
    let which = &wait.which;
    finish_in_json(wait.json, &which.target, async {
        let keep = wait.receipt.as_deref().map(receipt::Keep::begin).transpose()?;
        let find = find(which.job.clone(), 0, keep.is_some());
        let question = proto::ask::Question::FindJob(find);
        let held = Held { watching: &wait.watching, again: "remora wait", which };
        let (mut asking, list) = begin(&which.target, &which.reach, Some(held), question).await?;
        let job = until_over(&mut asking, list, keep.is_some(), true).await?;
        let Some(told) = &job.receipt else {
            return Err(Failure::new(Class::Internal, &asking.at.name, "the host told no end").into());
        };
        let kept = match keep {
            Some(keep) => {
                let file = asking.at.connection.receipt_to_keep(&job);
                let file = file.map_err(|error| lost(&asking.at.name, &error))?;
                keep.finish(&asking.at.name, file.as_ref())?;
                wait.receipt.as_deref()
            }
            None => None,
        };
        if wait.json {
            let object = receipt::receipt(&which.target, command(&job), told, None, kept);
            print(&(object.to_string() + "\n")).map_err(|error| {
                let text = format!("can't write standard output: {error}");
                Failure { told: true, ..Failure::new(Class::Internal, &asking.at.name, text) }
            })?;
            return Ok(outcome_of(told));
        }
        Ok(tell(&asking.at.name, told))
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
) -> Result<proto::JobInfo, Halt> {
    let mut job = one(&asking.at.name, list)?;
    asking
        .up_to_interrupt(async |at: &At| {
            let mut is_told = !tells;
            while job.receipt.is_none() {
                if let (false, Some(text)) = (is_told, held_back(&job)) {
                    say(&format!("{}: {text}", escape(&at.name)));
                    is_told = true;
                }
                job = look(at, &job, WAIT, is_kept).await?;
            }
            Ok(job)
        })
        .await
}

/// How a job is now, or once it is over, if it is so within `wait_ms`; with its statement, if that is to be kept.
pub(super) async fn look(
    at: &At,
    job: &proto::JobInfo,
    wait_ms: u32,
    is_kept: bool,
) -> Result<proto::JobInfo, Failure> {
    // By its whole id: its name may be another's by then.
    at.ask_job(proto::ask::Question::FindJob(find(id(job), wait_ms, is_kept))).await
}
