//! Detached jobs, as who asks for them sees them.

use remora_identity::statement::{Command, ReceiptFile};
use remora_wire::native::proto;

use crate::connection::Connection;
use crate::evidence::Expected;
use crate::job::JobError;
use crate::request::AskError;

impl Connection {
    /// Asks something about jobs that is answered by a list of them.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask_jobs(&self, question: proto::ask::Question) -> Result<proto::JobList, AskError> {
        match self.ask(question).await? {
            proto::answer::Answer::Jobs(list) => Ok(list),
            _ => Err(AskError::Other),
        }
    }

    /// Asks something about one job.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask_job(&self, question: proto::ask::Question) -> Result<proto::JobInfo, AskError> {
        self.ask_jobs(question).await?.jobs.pop().ok_or(AskError::Other)
    }

    /// The receipt to keep of a job that is over, where [`proto::FindJob::sign_receipt`] asked for it: its signature is verified, and it
    /// says what the job's receipt says. None where the host made none; not signed on a connection without a host key.
    ///
    /// # Errors
    /// [`JobError::Signature`], [`JobError::Contradiction`].
    pub fn receipt_to_keep(&self, job: &proto::JobInfo) -> Result<Option<ReceiptFile>, JobError> {
        let contradiction = |what: &str| JobError::Contradiction(what.to_owned());
        let Some(receipt) = &job.receipt else { return Ok(None) };
        let command = match &job.command {
            Some(proto::job_info::Command::Line(line)) => Command::line(line),
            Some(proto::job_info::Command::Argv(argv)) => Command::argv(&argv.arguments),
            Some(proto::job_info::Command::LoginShell(_)) => Command::LoginShell,
            None => return Err(contradiction("the host tells no command")),
        };
        let job_id = job.id.as_slice().try_into();
        let job_id = job_id.map_err(|_| contradiction("the host tells an id that is none"))?;
        let expected = Expected { job_id, user: self.user.clone(), command };
        expected.check(receipt, self.shared.lock().host_key())
    }

    /// Reads what a detached job has printed.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn read_log(&self, read: proto::ReadLog) -> Result<proto::Log, AskError> {
        match self.ask(proto::ask::Question::ReadLog(read)).await? {
            proto::answer::Answer::Log(log) => Ok(log),
            _ => Err(AskError::Other),
        }
    }
}
