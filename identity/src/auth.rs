//! User authentication: the message a user signs, and the judgement of an attempt.
//!
//! A key that is merely offered grants nothing (PITFALLS 20); the key that signed is the key that is looked up (PITFALLS 21);
//! every attempt is complete in itself, so nothing of an earlier one counts (PITFALLS 22); and an unknown user costs the same
//! signature check as a known one (PITFALLS 27). The floor of time under a failure is the server's.

use crate::authorized_keys::AuthorizedKeys;
use crate::encoding::put_string;
use crate::permit::{Authenticated, Authority};
use crate::public_key::{PublicKey, PublicKeyError};
use crate::sshsig::{self, SshsigError};
use crate::user_name::{BadUserName, UserName};

/// The SSHSIG namespace of user authentication.
pub const NAMESPACE: &str = "remora-auth-v1";

/// What ties an authentication to one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthBinding {
    /// TLS 1.3: the exporter value `EXPORTER-Channel-Binding` of 32 bytes (RFC 9266).
    Tls {
        /// The value.
        exporter: [u8; 32],
    },
    /// A carrier without TLS on one machine: the peer's user id, from the kernel.
    Local {
        /// The user id of the client's process.
        peer_uid: u32,
    },
}

/// What both ends of a connection know, and a user's signature covers.
#[derive(Clone, Copy, Debug)]
pub struct AuthContext<'a> {
    /// What ties it to this connection.
    pub binding: AuthBinding,
    /// The server's nonce, from its hello.
    pub nonce: &'a [u8; 32],
    /// The application protocol that TLS negotiated, such as `remora/1`.
    pub alpn: &'a str,
    /// The host's public key blob, as the client saw it in the handshake.
    pub host_key_blob: &'a [u8],
}

/// One signed attempt, as it came from the peer: nothing in it is checked yet.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The account asked for.
    pub user: &'a str,
    /// The user's public key blob.
    pub key_blob: &'a [u8],
    /// The binary SSHSIG.
    pub sshsig: &'a [u8],
}

/// The bytes that a user's SSHSIG covers: six strings in SSH encoding, in the order DESIGN.md gives: exporter value (or
/// `peer-uid:N`), nonce, ALPN, user name, host key blob, user key blob.
pub fn auth_message(
    binding: AuthBinding,
    nonce: &[u8; 32],
    alpn: &str,
    user: &str,
    host_key_blob: &[u8],
    user_key_blob: &[u8],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + host_key_blob.len() + user_key_blob.len());
    match binding {
        // Never mistaken for each other: `peer-uid:` and at most ten digits are shorter than 32 bytes.
        AuthBinding::Tls { exporter } => put_string(&mut out, &exporter),
        AuthBinding::Local { peer_uid } => put_string(&mut out, format!("peer-uid:{peer_uid}").as_bytes()),
    }
    put_string(&mut out, nonce);
    put_string(&mut out, alpn.as_bytes());
    put_string(&mut out, user.as_bytes());
    put_string(&mut out, host_key_blob);
    put_string(&mut out, user_key_blob);
    out
}

impl AuthContext<'_> {
    /// [`auth_message`] for this connection.
    pub fn message(&self, user: &str, user_key_blob: &[u8]) -> Vec<u8> {
        auth_message(self.binding, self.nonce, self.alpn, user, self.host_key_blob, user_key_blob)
    }
}

/// An attempt that failed. Its `Display` is what the peer may know, the same for every reason; [`AuthFailure::reason`] is for
/// the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the host accepts none of these keys for this user")]
pub struct AuthFailure {
    reason: AuthFailureReason,
}

impl AuthFailure {
    /// Why, for the log. Never for the peer.
    pub fn reason(&self) -> &AuthFailureReason {
        &self.reason
    }
}

/// Why an attempt failed, in words for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthFailureReason {
    /// The key can't be read.
    #[error("{0}")]
    Key(#[from] PublicKeyError),
    /// The signature doesn't count: another connection, user, host, namespace or key, or plainly wrong.
    #[error("key {fingerprint}: {cause}")]
    Signature {
        /// The presented key.
        fingerprint: String,
        /// What is wrong.
        cause: SshsigError,
    },
    /// The name can't be an account's.
    #[error("key {fingerprint}: {cause}")]
    UserName {
        /// The presented key, which did sign.
        fingerprint: String,
        /// What is wrong.
        cause: BadUserName,
    },
    /// The signature is good and the key isn't listed, or there is no such user.
    #[error("key {fingerprint} is not authorized")]
    NotAuthorized {
        /// The presented key, which did sign.
        fingerprint: String,
    },
}

impl From<AuthFailureReason> for AuthFailure {
    fn from(reason: AuthFailureReason) -> Self {
        AuthFailure { reason }
    }
}

/// Judges a signed attempt. The signature is always verified first; only then is the key looked up in `authorized`, which
/// is [`AuthorizedKeys::default`] for an unknown user.
///
/// # Errors
/// [`AuthFailure`], one and the same to the peer's eyes.
pub fn authenticate(
    attempt: Attempt<'_>,
    context: &AuthContext<'_>,
    authorized: &AuthorizedKeys,
) -> Result<Authenticated, AuthFailure> {
    let key = PublicKey::from_blob(attempt.key_blob).map_err(AuthFailureReason::Key)?;
    let fingerprint = key.fingerprint();
    let message = context.message(attempt.user, attempt.key_blob);
    if let Err(cause) = sshsig::verify(attempt.sshsig, &key, NAMESPACE, &message) {
        return Err(AuthFailureReason::Signature { fingerprint, cause }.into());
    }
    let user = match UserName::parse(attempt.user) {
        Ok(user) => user,
        Err(cause) => return Err(AuthFailureReason::UserName { fingerprint, cause }.into()),
    };
    if authorized.find(&key).is_none() {
        return Err(AuthFailureReason::NotAuthorized { fingerprint }.into());
    }
    Ok(Authenticated::new(user.as_str().to_owned(), Authority::Key { fingerprint }))
}

/// Whether a signature by this key would be accepted: the answer to an unsigned offer. It grants nothing, and the caller counts
/// offers (PITFALLS 20, 28).
pub fn offer_acceptable(key_blob: &[u8], authorized: &AuthorizedKeys) -> bool {
    PublicKey::from_blob(key_blob).is_ok_and(|key| authorized.find(&key).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::private_key::PrivateKey;

    const NONCE: [u8; 32] = [7; 32];

    fn context() -> AuthContext<'static> {
        AuthContext {
            binding: AuthBinding::Tls { exporter: [9; 32] },
            nonce: &NONCE,
            alpn: "remora/1",
            host_key_blob: b"host key",
        }
    }

    fn authorized(key: &PrivateKey) -> AuthorizedKeys {
        AuthorizedKeys::parse(key.public().to_text().as_bytes()).unwrap()
    }

    fn signed(key: &PrivateKey, context: &AuthContext<'_>, user: &str) -> Vec<u8> {
        sshsig::sign(key, NAMESPACE, &context.message(user, key.public().blob())).unwrap()
    }

    fn judge(
        key: &PrivateKey,
        sshsig: &[u8],
        user: &str,
        list: &AuthorizedKeys,
    ) -> Result<Authenticated, AuthFailure> {
        let attempt = Attempt { user, key_blob: key.public().blob(), sshsig };
        authenticate(attempt, &context(), list)
    }

    #[test]
    fn the_message_has_these_bytes() {
        let message =
            auth_message(AuthBinding::Local { peer_uid: 1000 }, &NONCE, "remora/1", "u", b"H", b"K");
        let mut expected = b"\0\0\0\x0dpeer-uid:1000\0\0\0\x20".to_vec();
        expected.extend_from_slice(&NONCE);
        expected.extend_from_slice(b"\0\0\0\x08remora/1\0\0\0\x01u\0\0\0\x01H\0\0\0\x01K");
        assert_eq!(message, expected);
    }

    #[test]
    fn a_good_signature_by_a_listed_key_authenticates() {
        let key = PrivateKey::generate_ed25519().unwrap();
        let who = judge(&key, &signed(&key, &context(), "ada"), "ada", &authorized(&key)).unwrap();
        assert_eq!(who.user(), "ada");
        assert_eq!(who.authority(), &Authority::Key { fingerprint: key.public().fingerprint() });
    }

    #[test]
    fn a_signature_for_another_connection_user_host_or_namespace_fails() {
        let key = PrivateKey::generate_ed25519().unwrap();
        let list = authorized(&key);
        let other_nonce = [8; 32];
        for (what, elsewhere) in [
            ("exporter", AuthContext { binding: AuthBinding::Tls { exporter: [8; 32] }, ..context() }),
            ("carrier", AuthContext { binding: AuthBinding::Local { peer_uid: 0 }, ..context() }),
            ("nonce", AuthContext { nonce: &other_nonce, ..context() }),
            ("alpn", AuthContext { alpn: "remora/2", ..context() }),
            ("host", AuthContext { host_key_blob: b"other host", ..context() }),
        ] {
            let failure = judge(&key, &signed(&key, &elsewhere, "ada"), "ada", &list).unwrap_err();
            assert!(matches!(failure.reason(), AuthFailureReason::Signature { .. }), "{what}");
        }
        let failure = judge(&key, &signed(&key, &context(), "bob"), "ada", &list).unwrap_err();
        assert!(matches!(failure.reason(), AuthFailureReason::Signature { .. }), "user");

        let message = context().message("ada", key.public().blob());
        let file = sshsig::sign(&key, "file", &message).unwrap();
        let failure = judge(&key, &file, "ada", &list).unwrap_err();
        assert!(matches!(
            failure.reason(),
            AuthFailureReason::Signature { cause: SshsigError::Namespace, .. }
        ));
    }

    #[test]
    fn a_listed_key_that_did_not_sign_is_no_use() {
        // PITFALLS 21
        let listed = PrivateKey::generate_ed25519().unwrap();
        let own = PrivateKey::generate_ed25519().unwrap();
        let message = context().message("ada", listed.public().blob());
        let sshsig = sshsig::sign(&own, NAMESPACE, &message).unwrap();
        let failure = judge(&listed, &sshsig, "ada", &authorized(&listed)).unwrap_err();
        assert!(matches!(
            failure.reason(),
            AuthFailureReason::Signature { cause: SshsigError::OtherKey, .. }
        ));
    }

    #[test]
    fn an_offer_without_a_signature_authenticates_nobody() {
        // PITFALLS 20
        let key = PrivateKey::generate_ed25519().unwrap();
        let list = authorized(&key);
        assert!(offer_acceptable(key.public().blob(), &list));
        assert!(judge(&key, b"", "ada", &list).is_err());
        let other = PrivateKey::generate_ed25519().unwrap();
        assert!(!offer_acceptable(other.public().blob(), &list));
        assert!(!offer_acceptable(b"garbage", &list));
    }

    #[test]
    fn every_failure_reads_the_same_to_the_peer() {
        // PITFALLS 27
        let key = PrivateKey::generate_ed25519().unwrap();
        let nobody = AuthorizedKeys::default();
        let good = signed(&key, &context(), "ada");
        let unknown = judge(&key, &good, "ada", &nobody).unwrap_err();
        let forged = judge(&key, b"forged", "ada", &authorized(&key)).unwrap_err();
        let hostile = judge(&key, &signed(&key, &context(), "-x"), "-x", &authorized(&key)).unwrap_err();
        assert!(matches!(hostile.reason(), AuthFailureReason::UserName { .. }));
        assert_eq!(unknown.to_string(), forged.to_string());
        assert_eq!(unknown.to_string(), hostile.to_string());
        assert_ne!(unknown.reason().to_string(), forged.reason().to_string());
    }

    #[test]
    fn the_signature_is_judged_before_the_user_is_looked_up() {
        // PITFALLS 27: with an empty list, a bad signature is still what is complained about.
        let key = PrivateKey::generate_ed25519().unwrap();
        let bad = signed(&key, &context(), "bob");
        let failure = judge(&key, &bad, "ada", &AuthorizedKeys::default()).unwrap_err();
        assert!(matches!(failure.reason(), AuthFailureReason::Signature { .. }));
    }
}
