//! `remora wait`: the exit status of a detached command.

use remora_client::{AskError, Class, Connection, outcome_of, proto};

use super::super::receipt;
use super::super::sessions::unanswered;
use super::ask::{Asking, begin, finish, one};
use super::end::tell;
use super::list::{command, id};
use crate::arguments::Wait;
use crate::terminal::{Failure, print};

/// How long one question waits, milliseconds.
const WAIT: u32 = 30_000;

/// Waits, and gives the process' exit status.
pub(crate) fn run(wait: &Wait) -> u8 {
    let which = &wait.which;
    finish(async {
        let find = proto::FindJob { job: which.job.clone(), wait_ms: 0 };
        let question = proto::ask::Question::FindJob(find);
        let (mut asking, list) = begin(&which.target, &which.reach, Some(&wait.staying), question).await?;
        let job = until_over(&mut asking, list).await?;
        let Some(told) = &job.receipt else {
            return Err(Failure::new(Class::Internal, &asking.name, "the host told no end"));
        };
        if wait.json {
            let nothing = receipt::Captured { bytes: &[], seen: 0 };
            let object = receipt::receipt(&which.target, command(&job), told, &nothing, &nothing, None);
            print(&(object.to_string() + "\n")).map_err(|error| {
                Failure::new(Class::Internal, &asking.name, format!("can't write standard output: {error}"))
            })?;
            return Ok(outcome_of(told));
        }
        Ok(tell(&asking.name, told))
    })
}

/// Waits until a job that was found is over.
pub(super) async fn until_over(asking: &mut Asking, list: proto::JobList) -> Result<proto::JobInfo, Failure> {
    let mut job = one(&asking.name, list)?;
    asking
        .during(async |connection: &Connection, name: &str| {
            while job.receipt.is_none() {
                // By its whole id: its name may be another's by then.
                let find = proto::FindJob { job: id(&job), wait_ms: WAIT };
                let found: Result<proto::JobInfo, AskError> =
                    connection.ask_job(proto::ask::Question::FindJob(find)).await;
                job = found.map_err(|error| unanswered(name, &error))?;
            }
            Ok(job)
        })
        .await
}
