//! Signing statements, and nothing else; and verifying them.

use std::fmt;
use std::sync::Arc;

use super::{NAMESPACE, Statement, StatementError};
use crate::private_key::{CryptoFailure, PrivateKey};
use crate::public_key::PublicKey;
use crate::sshsig::{self, SshsigError};

/// A host key that signs statements alone. No bytes of a caller's choice are ever signed with it (PITFALLS 66).
#[derive(Clone)]
pub struct ReceiptKey {
    key: Arc<PrivateKey>,
}

impl ReceiptKey {
    /// Takes a host key.
    pub fn new(key: PrivateKey) -> Self {
        ReceiptKey { key: Arc::new(key) }
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// Signs a statement, which then names this key.
    ///
    /// # Errors
    /// [`CryptoFailure`] when the cryptographic library fails.
    pub fn sign(&self, mut statement: Statement) -> Result<SignedStatement, CryptoFailure> {
        statement.host_key = Some(self.public().fingerprint());
        let text = statement.compose();
        let sshsig = sshsig::sign(&self.key, NAMESPACE, text.as_bytes())?;
        Ok(SignedStatement { text, sshsig })
    }
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReceiptKey").field(self.public()).finish()
    }
}

/// A statement's text, and the SSHSIG over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedStatement {
    /// The text.
    pub text: String,
    /// The binary signature.
    pub sshsig: Vec<u8>,
}

/// Why a signed statement doesn't count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyStatementError {
    /// The signature isn't this key's over this text.
    #[error("the signature is not good: {0}")]
    Signature(#[from] SshsigError),
    /// What was signed is no statement.
    #[error("what was signed is no statement of a receipt: {0}")]
    Statement(#[from] StatementError),
    /// It names another key than the one that signed it.
    #[error("the statement names another host key than the one that signed it")]
    OtherKey,
}

/// Verifies that `key` signed this text, and gives its statement.
///
/// # Errors
/// [`VerifyStatementError`].
pub fn verify(text: &[u8], sshsig: &[u8], key: &PublicKey) -> Result<Statement, VerifyStatementError> {
    sshsig::verify(sshsig, key, NAMESPACE, text)?;
    let statement = Statement::parse(text)?;
    if statement.host_key != Some(key.fingerprint()) {
        return Err(VerifyStatementError::OtherKey);
    }
    Ok(statement)
}
