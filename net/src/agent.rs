//! Asks the user's SSH agent, over its Unix socket. Every answer has a length limit and a deadline.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use remora_identity::PublicKey;
use remora_identity::agent::{self, AgentIdentities};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long an agent may take to list its keys.
const LIST: Duration = Duration::from_secs(5);
/// How long it may take to sign: somebody may have to confirm, or to touch a key.
const SIGN: Duration = Duration::from_secs(60);

/// Why an agent gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// Its socket failed, or it took too long.
    #[error("can't ask the SSH agent at {socket}")]
    Io {
        /// The socket.
        socket: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its answer makes no sense, or is a refusal.
    #[error("the SSH agent at {socket} gave no usable answer")]
    Answer {
        /// The socket.
        socket: String,
        /// What is wrong with it.
        #[source]
        source: agent::AgentError,
    },
}

/// An agent's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    socket: PathBuf,
}

impl Agent {
    /// The agent that listens at a path.
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Agent { socket: socket.into() }
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The keys it holds.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn identities(&self) -> Result<AgentIdentities, AgentError> {
        let answer = self.ask(&agent::request_identities(), LIST).await?;
        agent::decode_identities(&answer).map_err(|source| self.answer(source))
    }

    /// An SSH signature blob over `data`; RSA keys sign with SHA-512.
    ///
    /// # Errors
    /// [`AgentError`].
    pub async fn sign(&self, key: &PublicKey, data: &[u8]) -> Result<Vec<u8>, AgentError> {
        let answer = self.ask(&agent::sign_request(key, data), SIGN).await?;
        agent::decode_signature(&answer).map_err(|source| self.answer(source))
    }

    async fn ask(&self, request: &[u8], limit: Duration) -> Result<Vec<u8>, AgentError> {
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(request).await?;
            let mut header = [0; 4];
            stream.read_exact(&mut header).await?;
            // The length is judged before memory is asked for (PITFALLS 12).
            let length = match agent::frame_length(header) {
                Ok(length) => length,
                Err(error) => return Ok(Err(error)),
            };
            let mut answer = vec![0; length];
            stream.read_exact(&mut answer).await?;
            Ok(Ok(answer))
        };
        let failed = |source| AgentError::Io { socket: self.name(), source };
        timeout(limit, exchange)
            .await
            .map_err(|_| failed(io::ErrorKind::TimedOut.into()))?
            .map_err(failed)?
            .map_err(|source| self.answer(source))
    }

    fn answer(&self, source: agent::AgentError) -> AgentError {
        AgentError::Answer { socket: self.name(), source }
    }

    fn name(&self) -> String {
        self.socket.display().to_string().escape_debug().to_string()
    }
}
