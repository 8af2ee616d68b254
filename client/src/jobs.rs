//! Detached jobs, as who asks for them sees them.

use remora_wire::native::proto;

use crate::connection::Connection;
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
