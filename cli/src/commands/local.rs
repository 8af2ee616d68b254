//! The `local` target: a server inside this process, on the other end of a socket pair.

use std::sync::Arc;

use remora_client::{Class, Opened, connect_local};
use remora_net::Tap;
use remora_server::{Settings, local};
use tokio::net::UnixStream;

use crate::terminal::Failure;

/// A server's handler that goes on when the client's end is dropped, until its jobs are ended.
pub(crate) struct LocalServer {
    task: tokio::task::JoinHandle<()>,
    settings: Arc<Settings>,
}

/// Starts the server and connects to it.
///
/// # Errors
/// No socket pair, an account that the user database doesn't know, or a failed greeting.
pub(crate) async fn connect(user: &str, tap: Option<Tap>) -> Result<(Opened, LocalServer), Failure> {
    let internal = |text: String| Failure::new(Class::Internal, "local", text);
    let settings = Arc::new(
        Settings::for_local(crate::home::state().as_deref()).map_err(|error| internal(error.to_string()))?,
    );
    let (ours, theirs) = UnixStream::pair().map_err(|error| internal(format!("no socket pair: {error}")))?;
    let task = tokio::spawn(local(theirs, settings.clone()));
    let opened = connect_local(ours, "local", user, tap)
        .await
        .map_err(|error| internal(crate::printable::chain(&error)))?;
    Ok((opened, LocalServer { task, settings }))
}

impl LocalServer {
    /// Waits until nothing of an abandoned job is left.
    pub(crate) async fn finish(self) {
        let _ = self.task.await;
        while self.settings.engine.running() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}
