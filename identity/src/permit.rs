//! Proof types: who somebody is, and that policy let a request through.
//!
//! Both have private fields and are made in this crate alone, where the check happens. Code that does the deed takes them by
//! value, so that a deed without its check doesn't compile. Neither crosses a process border.

use std::path::PathBuf;

/// An account of this machine, as its user database gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
    /// Login shell; `/bin/sh` where the database has none.
    pub shell: PathBuf,
}

/// What somebody logged in with. Job ids are scoped to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// A key from `authorized_keys`, by its SHA-256 fingerprint (`SHA256:…`, as `ssh-keygen -l` prints it).
    Key {
        /// The fingerprint.
        fingerprint: String,
    },
    /// A process on this machine whose user id the kernel told.
    PeerUid(u32),
    /// Nothing: a plain wire that was opened to anybody who reaches it.
    Nothing,
}

impl Authority {
    /// What tells it from every other, and stays the same from one version to the next: for who keeps things by it.
    pub fn id(&self) -> String {
        match self {
            Authority::Key { fingerprint } => format!("key {fingerprint}"),
            Authority::PeerUid(uid) => format!("uid {uid}"),
            Authority::Nothing => "nothing".to_owned(),
        }
    }
}

impl std::fmt::Display for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Authority::Key { fingerprint } => write!(f, "key {fingerprint}"),
            Authority::PeerUid(uid) => write!(f, "local uid {uid}"),
            Authority::Nothing => f.write_str("nothing (a plain wire open to anybody)"),
        }
    }
}

/// Proof that somebody showed who they are, and the account they asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    user: String,
    authority: Authority,
}

impl Authenticated {
    pub(crate) fn new(user: String, authority: Authority) -> Self {
        Authenticated { user, authority }
    }

    /// Accepts a local peer whose user id the kernel told (`SO_PEERCRED`, unix(7)): the served account itself, or root,
    /// who could become it anyway.
    ///
    /// `user` is the account it asks for; whether it may have that one is [`Policy::permit`]'s to say.
    ///
    /// # Errors
    /// [`ForeignPeer`] for any other user id.
    pub fn by_peer_uid(peer_uid: u32, served: &Account, user: &str) -> Result<Self, ForeignPeer> {
        if peer_uid == served.uid || peer_uid == 0 {
            Ok(Authenticated::new(user.to_owned(), Authority::PeerUid(peer_uid)))
        } else {
            Err(ForeignPeer { peer_uid, served_uid: served.uid })
        }
    }

    /// Accepts the peer of a plain wire whose user id the kernel told: the served account's own alone. Root isn't among
    /// them, since these wires are for a user's own programs.
    ///
    /// # Errors
    /// [`ForeignPeer`] for any other user id.
    pub fn by_plain_peer_uid(peer_uid: u32, served: &Account) -> Result<Self, ForeignPeer> {
        if peer_uid == served.uid {
            Ok(Authenticated::new(served.name.clone(), Authority::PeerUid(peer_uid)))
        } else {
            Err(ForeignPeer { peer_uid, served_uid: served.uid })
        }
    }

    /// Accepts anybody as the served account: for the plain wires of a server whose owner said
    /// `--allow-plaintext-network`, and for nothing else.
    pub fn without_proof(served: &Account) -> Self {
        Authenticated::new(served.name.clone(), Authority::Nothing)
    }

    /// The account asked for.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// What they logged in with.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }
}

/// A local peer that runs as somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the peer runs as uid {peer_uid}, and this server serves uid {served_uid}")]
pub struct ForeignPeer {
    /// The peer's user id.
    pub peer_uid: u32,
    /// The served account's user id.
    pub served_uid: u32,
}

/// What this server allows. In this first step: the account it runs as, and nobody else.
#[derive(Clone, Debug)]
pub struct Policy {
    served: Account,
}

impl Policy {
    /// A policy that serves one account.
    pub fn serving(account: Account) -> Self {
        Policy { served: account }
    }

    /// The account this server serves.
    pub fn served(&self) -> &Account {
        &self.served
    }

    /// Judges a request.
    ///
    /// # Errors
    /// [`Refusal::OtherAccount`] when another account than the served one is asked for.
    pub fn permit<R>(&self, who: &Authenticated, request: R) -> Result<Permitted<R>, Refusal> {
        if who.user == self.served.name {
            Ok(Permitted { request, account: self.served.clone(), authority: who.authority.clone() })
        } else {
            Err(Refusal::OtherAccount { asked: who.user.clone(), served: self.served.name.clone() })
        }
    }
}

/// Why policy says no to somebody whose identity is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Another account than the one this server runs as.
    #[error("this server runs as {served} and serves only that account, not {asked}")]
    OtherAccount {
        /// The account asked for.
        asked: String,
        /// The account served.
        served: String,
    },
}

/// Proof that policy let this request through, for this account, asked by this authority.
#[derive(Debug)]
pub struct Permitted<R> {
    request: R,
    account: Account,
    authority: Authority,
}

impl<R> Permitted<R> {
    /// The request.
    pub fn request(&self) -> &R {
        &self.request
    }

    /// The account to run it as.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Who asked.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Takes the proof apart where the deed is done.
    pub fn into_parts(self) -> (R, Account, Authority) {
        (self.request, self.account, self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(name: &str, uid: u32) -> Account {
        Account { name: name.to_owned(), uid, gid: uid, home: "/home".into(), shell: "/bin/sh".into() }
    }

    #[test]
    fn only_the_served_account_and_root_are_let_in_by_uid() {
        let served = account("ada", 1000);
        for uid in [0, 1000] {
            let who = Authenticated::by_peer_uid(uid, &served, "ada").unwrap();
            assert_eq!(who.authority(), &Authority::PeerUid(uid));
        }
        let foreign = Authenticated::by_peer_uid(1001, &served, "ada").unwrap_err();
        assert_eq!(foreign, ForeignPeer { peer_uid: 1001, served_uid: 1000 });
    }

    #[test]
    fn a_plain_wire_is_for_the_served_account_alone() {
        let served = account("ada", 1000);
        assert!(Authenticated::by_plain_peer_uid(1000, &served).is_ok());
        for uid in [0, 1001, u32::MAX] {
            let refused = Authenticated::by_plain_peer_uid(uid, &served);
            assert_eq!(refused, Err(ForeignPeer { peer_uid: uid, served_uid: 1000 }));
        }
        assert_eq!(Authenticated::without_proof(&served).authority(), &Authority::Nothing);
    }

    #[test]
    fn another_account_is_refused_after_authentication_by_name() {
        let policy = Policy::serving(account("ada", 1000));
        let who = Authenticated::by_peer_uid(1000, policy.served(), "bob").unwrap();
        let refusal = policy.permit(&who, ()).unwrap_err();
        assert_eq!(refusal, Refusal::OtherAccount { asked: "bob".to_owned(), served: "ada".to_owned() });
        let who = Authenticated::by_peer_uid(1000, policy.served(), "ada").unwrap();
        let permitted = policy.permit(&who, 7).unwrap();
        assert_eq!((permitted.request(), permitted.account().uid), (&7, 1000));
    }
}
