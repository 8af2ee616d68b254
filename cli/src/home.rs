//! What the environment says: who the user is, and where their files are. Read here and nowhere else.

use std::env;
use std::path::PathBuf;

/// The user's home directory: `HOME`, or what the user database says.
pub(crate) fn directory() -> Option<PathBuf> {
    env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
        .or_else(|| account().map(|a| a.home))
}

/// The user's name: what the user database says of this process, or `USER`.
pub(crate) fn user() -> Option<String> {
    // The environment first, since asking the database costs more than a cold connection's share: but only where it can't
    // be stale, as it is under sudo.
    match (env::var("USER"), env::var("SUDO_USER")) {
        (Ok(user), Err(_)) if !user.is_empty() => Some(user),
        _ => account().map(|account| account.name),
    }
}

fn account() -> Option<remora_server::Account> {
    remora_server::own_account()
}

/// The SSH agent's socket.
pub(crate) fn agent() -> Option<PathBuf> {
    env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// Where remora keeps what it remembers (XDG Base Directory Specification).
pub(crate) fn state() -> Option<PathBuf> {
    let base = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    base.or_else(|| directory().map(|home| home.join(".local/state"))).map(|base| base.join("remora"))
}
