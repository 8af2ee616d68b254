//! Getting in: which host and as whom, whose key is trusted, which of the user's keys proves who they are. Asks a person where
//! only a person can say.

use remora_client::{
    AskError, Class, ConnectError, Connection, HostTrust, JobError, Lasting, Opened, Options, Target,
    connect, connect_unix,
};

use super::capture;
use super::ending::lost;
use super::local::{self, LocalServer};
use super::timeline::Timeline;
use crate::arguments::Reach;
use crate::printable::{chain, escape};
use crate::terminal::{Failure, ask, say};
use crate::user_keys::Memory;
use crate::{home, host_keys, user_keys};

/// Which host, as whom.
pub(super) struct Place {
    pub(super) target: Target,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    /// What is done when a connection to it is lost.
    pub(super) lasting: Lasting,
}

/// What is known, and was learned, about getting in.
pub(super) struct Access {
    memory: Option<Memory>,
    files: Vec<std::path::PathBuf>,
    accepted: Option<remora_client::PublicKey>,
    unlocked: Option<remora_client::PublicKey>,
    unlocked_path: Option<std::path::PathBuf>,
    /// Keys that an agent holds and doesn't sign with.
    unusable: Vec<remora_client::PublicKey>,
    /// Whether the last attempt used a key without asking.
    pub(super) sure: bool,
}

impl Access {
    pub(super) fn new(reach: &Reach, place: &Place) -> Self {
        let remembers = matches!(place.target, Target::Native { .. }) && reach.identity.is_empty();
        Access {
            memory: remembers.then(|| Memory::open(&place.user, &place.host, place.port)),
            files: host_keys::files(reach.known_hosts.as_deref()),
            accepted: None,
            unlocked: None,
            unlocked_path: None,
            unusable: Vec::new(),
            sure: true,
        }
    }

    pub(super) fn remember(&mut self, key: &remora_client::PublicKey) {
        if let Some(memory) = self.memory.take() {
            memory.keep(key);
        }
    }
}

/// An open connection, and the server at its other end where that is in this process.
pub(super) struct Attempt {
    pub(super) opened: Opened,
    pub(super) server: Option<LocalServer>,
}

/// A connection whose user the host has accepted.
pub(super) struct Entered<T> {
    pub(super) place: Place,
    pub(super) connection: Connection,
    /// Where that is in this process.
    pub(super) server: Option<LocalServer>,
    /// The host's own name, as it came.
    pub(super) host_name: String,
    /// What was asked first.
    pub(super) first: Result<T, AskError>,
}

/// Gets in, and waits until the host has said so: for who has more to do there than one command. The first question travels with the
/// proof of who asks, as a command does.
///
/// # Errors
/// No connection, or a user that the host doesn't accept.
pub(super) async fn enter<T>(
    place: Place,
    reach: &Reach,
    timeline: &Timeline,
    question: impl AsyncFn(&Connection) -> Result<T, AskError>,
) -> Result<Entered<T>, Failure> {
    let mut access = Access::new(reach, &place);
    loop {
        let Attempt { opened, server } = place.open(reach, timeline, &mut access).await?;
        let (accepted, first) = tokio::join!(opened.connection.accepted(), question(&opened.connection));
        match accepted {
            Ok(host_name) => {
                let (user, host) = (escape(&place.user), escape(&host_name));
                timeline.note(&format!("authenticated as {user} on {host}"));
                if let Some(key) = &opened.user_key {
                    access.remember(key);
                }
                return Ok(Entered { place, connection: opened.connection, server, host_name, first });
            }
            Err(JobError::Denied) if access.sure => {
                timeline.note("the key that was tried first is not accepted; asking about all");
                access.sure = false;
            }
            Err(JobError::Denied) => return Err(place.denied()),
            Err(error) => return Err(lost(&place.name(), &error)),
        }
    }
}

impl Place {
    /// Joins what the target and the options say.
    ///
    /// # Errors
    /// They contradict each other, or nobody says who the user is.
    pub(super) fn of(target: Target, reach: &Reach) -> Result<Self, Failure> {
        let (host, port, user) = match &target {
            Target::Native { user, host, port } => {
                let user = match (user, &reach.user) {
                    (Some(named), Some(option)) if named != option => {
                        return Err(Failure::usage(format!(
                            "two users: {}@ and --user {}",
                            escape(named),
                            escape(option)
                        )));
                    }
                    (named, option) => named.clone().or_else(|| option.clone()),
                };
                let port = match (port, reach.port) {
                    (Some(named), Some(option)) if *named != option => {
                        return Err(Failure::usage(format!("two ports: :{named} and --port {option}")));
                    }
                    (named, option) => named.or(option).unwrap_or(remora_client::DEFAULT_PORT),
                };
                (host.clone(), port, user)
            }
            _ => (target.to_string(), 0, reach.user.clone()),
        };
        let user = user
            .or_else(home::user)
            .ok_or_else(|| Failure::usage("can't tell who you are; name a --user"))?;
        remora_identity::UserName::parse(&user)
            .map_err(|error| Failure::usage(format!("'{}' can't be a user name: {error}", escape(&user))))?;

        Ok(Place { target, host, port, user, lasting: Lasting::once() })
    }

    pub(super) async fn open(
        &self,
        reach: &Reach,
        timeline: &Timeline,
        access: &mut Access,
    ) -> Result<Attempt, Failure> {
        match &self.target {
            Target::Local => {
                let (opened, server) = local::connect(&self.user, capture::tap(reach)?).await?;
                access.sure = false;
                Ok(Attempt { opened, server: Some(server) })
            }
            Target::Unix { path } => {
                access.sure = false;
                let opened = connect_unix(path, &self.user, self.lasting.clone(), capture::tap(reach)?)
                    .await
                    .map_err(|error| self.failure(&error))?;
                timeline.note("connected");
                Ok(Attempt { opened, server: None })
            }
            _ => {
                self.open_native(reach, timeline, access).await.map(|opened| Attempt { opened, server: None })
            }
        }
    }

    async fn open_native(
        &self,
        reach: &Reach,
        timeline: &Timeline,
        access: &mut Access,
    ) -> Result<Opened, Failure> {
        let ask_all = !access.sure;
        loop {
            let remembered = access.memory.as_ref().and_then(Memory::key).filter(|_| !ask_all);
            let mut choice = user_keys::find(&reach.identity, remembered.as_ref()).await?;
            if let (Some(public), Some(path)) = (&access.unlocked, &access.unlocked_path) {
                choice.keys.retain(|key| key.public != *public);
                choice.keys.insert(0, user_keys::unlock(&self.host, path)?);
                choice.sure = true;
            }
            choice.keys.retain(|key| !access.unusable.contains(&key.public));
            let keys = choice.keys.len();
            choice.sure &= !ask_all || access.unlocked.is_some();
            // A remembered key is the only one looked for: there may be others.
            access.sure = choice.sure && (choice.keys.len() > 1 || remembered.is_some());
            let known = host_keys::read(&access.files)?.lookup(&self.host, self.port);
            let trust = HostTrust { known, accept_new: reach.accept_new, accepted: access.accepted.clone() };
            let options = Options {
                user: self.user.clone(),
                trust,
                keys: choice.keys,
                sure: choice.sure,
                connect_timeout: reach.connect_timeout,
                lasting: self.lasting.clone(),
                observer: timeline.observer(),
                tap: capture::tap(reach)?,
            };
            match connect(&self.host, self.port, options).await {
                Ok(opened) => {
                    if let (true, Some(key)) = (opened.host_is_new, &opened.host_key) {
                        self.record(access, key);
                    }
                    return Ok(opened);
                }
                Err(ConnectError::UnknownHost { key, plain_name_differs }) => {
                    access.accepted = Some(self.accept_host(*key, plain_name_differs)?);
                }
                Err(ConnectError::Key(remora_client::UserKeyError::Locked { public, path })) => {
                    // The connection is closed while a person types, so that no deadline of the host's runs meanwhile.
                    access.unlocked = Some(*public);
                    access.unlocked_path = Some(path);
                }
                Err(ConnectError::Key(error @ remora_client::UserKeyError::Agent { .. })) if keys > 1 => {
                    // As ssh does: another key may do.
                    say(&format!("{}; going on without it", chain(&error)));
                    if let remora_client::UserKeyError::Agent { public, .. } = error {
                        access.unusable.push(*public);
                    }
                }
                Err(error) => return Err(self.failure(&error)),
            }
        }
    }

    pub(super) fn name(&self) -> String {
        match self.port {
            0 | remora_client::DEFAULT_PORT => self.host.clone(),
            port => format!("{}:{port}", self.host),
        }
    }

    fn record(&self, access: &Access, key: &remora_client::PublicKey) {
        let Some(file) = access.files.first() else { return };
        let name = escape(&file.display().to_string());
        match host_keys::record(file, &self.host, self.port, key) {
            Ok(()) => say(&format!(
                "{}: recorded {} key {} in {name}",
                escape(&self.name()),
                key.algorithm(),
                key.fingerprint()
            )),
            Err(error) => say(&format!("{}: can't record the key in {name}: {error}", escape(&self.name()))),
        }
    }

    fn accept_host(
        &self,
        key: remora_client::PublicKey,
        plain_name_differs: bool,
    ) -> Result<remora_client::PublicKey, Failure> {
        let name = escape(&self.name());
        let shown = format!("{} key {}", key.algorithm(), key.fingerprint());
        let differs = if plain_name_differs {
            format!("\nAnother key is on record for {} at ssh's port.", escape(&self.host))
        } else {
            String::new()
        };
        let question = format!(
            "{name} is not known. It shows the {shown}.{differs}\nTrust this key from now on (yes, no, or the fingerprint)? "
        );
        let fingerprint = key.fingerprint();
        for _ in 0..3 {
            match ask(&question).as_deref().map(str::trim) {
                Some(answer) if answer == fingerprint || answer.eq_ignore_ascii_case("yes") => {
                    return Ok(key);
                }
                Some(answer) if answer.eq_ignore_ascii_case("no") => {
                    return Err(Failure::new(
                        Class::Unauthenticated,
                        &self.name(),
                        "you did not accept the host's key",
                    ));
                }
                Some(_) => say("type yes, no, or the whole fingerprint"),
                None => break,
            }
        }
        let failure = Failure::new(
            Class::Unauthenticated,
            &self.name(),
            format!("the host is not known, and shows the {shown}"),
        );
        Err(if plain_name_differs {
            failure.with_hint(format!(
                "another key is on record for {}; compare the fingerprint with the host's (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub), then add the key to known_hosts",
                escape(&self.host)
            ))
        } else {
            failure.with_hint("compare the fingerprint with the host's, then run this once with --accept-new")
        })
    }

    pub(super) fn denied(&self) -> Failure {
        let text = match &self.target {
            Target::Unix { .. } | Target::Local => {
                format!("the server does not serve you as {}", escape(&self.user))
            }
            _ => format!("the host does not accept your key for user {}", escape(&self.user)),
        };
        let failure = Failure::new(Class::Unauthenticated, &self.name(), text);
        match self.target {
            Target::Native { .. } => failure.with_hint(format!(
                "is the key in {}'s ~/.ssh/authorized_keys on the host? its server's log has the reason; -v shows which key was used",
                escape(&self.user)
            )),
            _ => failure,
        }
    }

    fn failure(&self, error: &ConnectError) -> Failure {
        let failure = Failure::new(error.class(), &self.name(), chain(error));
        let hint = match error {
            ConnectError::HostKeyMismatch { recorded, .. } => Some(match recorded.first() {
                Some(first) => {
                    let file = escape(&first.source);
                    format!(
                        "somebody may be in between, or the host was set up anew. On record is {}, in {file} line {}; if you know it is out: ssh-keygen -R '[{}]:{}' -f '{file}'",
                        first.key.as_ref().map_or_else(|| escape(&first.key_type), |key| key.fingerprint()),
                        first.line,
                        escape(&self.host),
                        self.port
                    )
                }
                None => "somebody may be in between, or the host was set up anew".to_owned(),
            }),
            ConnectError::NoKeys => {
                Some("make one with ssh-keygen -t ed25519, or name one with --identity".to_owned())
            }
            ConnectError::NotAccepted { .. } => Some(format!(
                "add one of your public keys to {}'s authorized_keys on the host, or name the right one with --identity: of many only the first {} are tried",
                escape(&self.user),
                remora_wire::limits::OFFERS
            )),
            ConnectError::Dial(remora_client::DialError::Connect { .. }) if self.port == 0 => {
                Some("does a server listen there, and is it yours?".to_owned())
            }
            ConnectError::Dial(remora_client::DialError::Connect { .. }) => {
                Some(format!("does `remora serve` run there, and is port {} open?", self.port))
            }
            ConnectError::Tls(_) if error.class() == Class::Unauthenticated => {
                Some("the host's key may have changed its type; compare with `ssh-keygen -F`".to_owned())
            }
            ConnectError::Tls(_) if error.class() == Class::Incompatible => {
                Some(format!("is it a remora server that listens on port {}?", self.port))
            }
            _ => None,
        };
        match hint {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    }
}
