//! The user's keys, and which of them proves who the user is.

use std::path::PathBuf;

use remora_identity::auth::{AuthContext, NAMESPACE};
use remora_identity::{CryptoFailure, PrivateKey, PublicKey, sshsig};
use remora_net::agent::{Agent, AgentError};
use remora_wire::native::proto;

/// What makes a key's signatures.
#[derive(Debug)]
pub enum Signer {
    /// The private key itself.
    Key(PrivateKey),
    /// An agent that holds it.
    Agent(Agent),
    /// Nothing yet: the private key is in this file, under a passphrase.
    Locked(PathBuf),
}

/// One of the user's keys.
#[derive(Debug)]
pub struct UserKey {
    /// Its public half.
    pub public: PublicKey,
    /// What signs with it.
    pub signer: Signer,
    /// Where it is from, for people: a path, or "agent".
    pub source: String,
}

/// Why a key makes no proof.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserKeyError {
    /// Its passphrase is needed first.
    #[error("the key {} is under a passphrase", path.display().to_string().escape_debug())]
    Locked {
        /// Its public half.
        public: Box<PublicKey>,
        /// Its file.
        path: PathBuf,
    },
    /// The agent didn't sign.
    #[error("the key {} can't sign", public.fingerprint())]
    Agent {
        /// Its public half.
        public: Box<PublicKey>,
        /// What the agent says.
        #[source]
        source: AgentError,
    },
    /// Signing failed.
    #[error("can't sign with the key")]
    Crypto(#[from] CryptoFailure),
}

impl UserKey {
    /// The proof that the user holds this key, on this connection alone.
    pub(crate) async fn prove(
        &self,
        context: &AuthContext<'_>,
        user: &str,
    ) -> Result<proto::KeyProof, UserKeyError> {
        let message = context.message(user, self.public.blob());
        let sshsig = match &self.signer {
            Signer::Key(key) => sshsig::sign(key, NAMESPACE, &message)?,
            Signer::Agent(agent) => {
                let signature =
                    agent.sign(&self.public, &sshsig::signed_data(NAMESPACE, &message)).await.map_err(
                        |source| UserKeyError::Agent { public: Box::new(self.public.clone()), source },
                    )?;
                sshsig::encode(&self.public, NAMESPACE, &signature)
            }
            Signer::Locked(path) => {
                return Err(UserKeyError::Locked {
                    public: Box::new(self.public.clone()),
                    path: path.clone(),
                });
            }
        };
        Ok(proto::KeyProof { key: self.public.blob().to_vec(), sshsig })
    }
}
