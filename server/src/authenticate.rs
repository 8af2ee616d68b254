//! Who the client is: the kernel's word on local carriers, a signature by an authorized key on all.

use std::io;

use remora_identity::auth::{Attempt, AuthBinding, AuthContext, authenticate, offer_acceptable};
use remora_identity::{Authenticated, AuthorizedKeys, limits};
use remora_wire::native::{ALPN, proto};
use tracing::{error, info, warn};

use crate::key_files::ReadError;
use crate::settings::Settings;

/// What a proof on this connection must be about.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) auth: AuthBinding,
    pub(crate) nonce: [u8; 32],
    pub(crate) host_key: Vec<u8>,
    /// The peer, for the log.
    pub(crate) peer: String,
}

/// Judges a proof. The reason for a failure goes to the log, and only there.
pub(crate) async fn judge(
    settings: &Settings,
    binding: &Binding,
    user: &str,
    proof: &proto::authenticate::Proof,
) -> Option<Authenticated> {
    let served = settings.policy.served();
    let result = match (proof, binding.auth) {
        (proto::authenticate::Proof::PeerCredentials(_), AuthBinding::Local { peer_uid }) => {
            Authenticated::by_peer_uid(peer_uid, served, user).map_err(|error| error.to_string())
        }
        (proto::authenticate::Proof::PeerCredentials(_), AuthBinding::Tls { .. }) => {
            Err("it named peer credentials on a connection that has none".to_owned())
        }
        (proto::authenticate::Proof::Key(proof), auth) => {
            // The same files whatever account is asked for: an unknown one costs what a known one costs, and who holds one
            // of these keys may be told by name that only this account is served.
            let authorized = authorized_keys(settings).await;
            let attempt = Attempt { user, key_blob: &proof.key, sshsig: &proof.sshsig };
            let context = AuthContext {
                binding: auth,
                nonce: &binding.nonce,
                alpn: ALPN,
                host_key_blob: &binding.host_key,
            };
            let mut result = authenticate(attempt, &context, &AuthorizedKeys::default());
            for keys in &authorized {
                result = result.or_else(|_| authenticate(attempt, &context, keys));
            }
            result.map_err(|failure| failure.reason().to_string())
        }
    };
    match result {
        Ok(who) => {
            info!(peer = %binding.peer, user = %who.user().escape_debug(), by = %who.authority(), "authenticated");
            Some(who)
        }
        Err(reason) => {
            let user: String = user.chars().take(limits::USER_NAME_MAX).collect();
            warn!(peer = %binding.peer, user = %user.escape_debug(), reason, "not authenticated");
            None
        }
    }
}

/// The first of these unsigned offers that would be accepted with a signature. Grants nothing.
pub(crate) async fn acceptable(settings: &Settings, keys: &[Vec<u8>]) -> Option<u32> {
    let authorized = authorized_keys(settings).await;
    let acceptable = |key: &Vec<u8>| authorized.iter().any(|keys| offer_acceptable(key, keys));
    keys.iter().position(acceptable).and_then(|at| u32::try_from(at).ok())
}

/// Reads the keys afresh each time, as sshd does: a key taken out of the file is out at once.
/// Files that can't be read, or not in time, authorize nobody.
async fn authorized_keys(settings: &Settings) -> Vec<AuthorizedKeys> {
    let served = settings.policy.served();
    let paths = settings.authorized_keys.iter().map(|template| template.expand(served)).collect();
    let read = settings.key_files.read(paths, served.clone()).await.unwrap_or_else(|reason| {
        error!(%reason, "nobody is authorized: authorized_keys can't be read");
        Vec::new()
    });
    let mut found = Vec::new();
    for (path, keys) in read {
        match keys {
            Ok(keys) => {
                for problem in keys.problems() {
                    warn!(file = %path.display(), line = problem.line, reason = %problem.reason, "key line refused");
                }
                found.push(keys);
            }
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                info!(file = %path.display(), "no authorized keys there");
            }
            Err(error) => warn!(file = %path.display(), reason = %error, "authorized keys not read"),
        }
    }
    found
}
