//! From a name to an open connection, in as few round trips as there can be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use remora_identity::PublicKey;
use remora_identity::auth::{AuthBinding, AuthContext};
use remora_identity::known_hosts::{HostKeyKinds, KnownKeys, Recorded, Verdict};
use remora_net::{ByteStream, Carrier, Link, LinkError, Tap, tls};
use remora_wire::limits;
use remora_wire::native::{ALPN, Client, ClientEvent, proto};
use tokio::time::{Instant, timeout, timeout_at};

use crate::auth::{UserKey, UserKeyError};
use crate::connection::Connection;
use crate::dial::{DIAL_TIMEOUT, Dial, DialError, TcpDial, UnixDial};
use crate::outage::Lasting;
use crate::outcome::Class;

/// What the client says it is.
const SOFTWARE: &str = concat!("remora ", env!("CARGO_PKG_VERSION"));

/// Something that happened on the way to an open connection, for whoever wants to tell it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// The name has these addresses.
    Resolved(Vec<SocketAddr>),
    /// TCP is connected.
    Connected(SocketAddr),
    /// TLS is up, and the host has shown this key.
    Secured {
        /// The host's key.
        key: PublicKey,
        /// Key exchange and cipher.
        suite: String,
    },
    /// These many keys were offered without a signature.
    Offered(usize),
    /// The proof with this key is on its way.
    Proving {
        /// The key's fingerprint.
        fingerprint: String,
        /// Where it is from.
        source: String,
    },
}

/// Is told the steps.
pub type Observer = Arc<dyn Fn(Step) + Send + Sync>;

/// What decides whether a host's key is the right one.
#[derive(Clone, Debug, Default)]
pub struct HostTrust {
    /// The keys recorded for this host and port.
    pub known: KnownKeys,
    /// Accept a host that nothing is recorded for.
    pub accept_new: bool,
    /// A key that a person has accepted just now.
    pub accepted: Option<PublicKey>,
}

/// What a connection needs to know.
pub struct Options {
    /// The account on the host.
    pub user: String,
    /// Which host keys are right.
    pub trust: HostTrust,
    /// The user's keys, the likeliest first.
    pub keys: Vec<UserKey>,
    /// Whether the first key is sure enough to be used without asking: it worked last time, or is the only one.
    pub sure: bool,
    /// For how long to try, from the first address to the host's hello and its pick of a key.
    pub connect_timeout: Duration,
    /// What is done when the connection is lost.
    pub lasting: Lasting,
    /// Is told what happens.
    pub observer: Option<Observer>,
    /// Is told what travels inside TLS.
    pub tap: Option<Tap>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// No byte stream.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(#[from] tls::ConnectError),
    /// The host said nothing for too long.
    #[error("no answer from {address} within {limit:?}")]
    Timeout {
        /// Where.
        address: String,
        /// How long was waited.
        limit: Duration,
    },
    /// Nothing, or only the plain name's key, is recorded for this host. Somebody must accept it.
    #[error("the host's key is not known: {}", key.fingerprint())]
    UnknownHost {
        /// The key it showed.
        key: Box<PublicKey>,
        /// Another key is recorded for the same name at ssh's port.
        plain_name_differs: bool,
    },
    /// Another key is recorded for exactly this host and port.
    #[error("the host's key is not the recorded one, but {}", key.fingerprint())]
    HostKeyMismatch {
        /// The key it showed.
        key: Box<PublicKey>,
        /// What is recorded, and where.
        recorded: Vec<Recorded>,
    },
    /// The key is marked as revoked.
    #[error("the host's key {} is revoked", key.fingerprint())]
    HostKeyRevoked {
        /// The key it showed.
        key: Box<PublicKey>,
    },
    /// The user has no key to try.
    #[error("there is no key to prove who you are")]
    NoKeys,
    /// None of the offered keys is accepted.
    #[error("the host accepts none of your keys for this user{}", untried_text(*untried))]
    NotAccepted {
        /// How many were tried.
        tried: usize,
        /// How many more there are, which were not: only so many may be offered.
        untried: usize,
    },
    /// The accepted key can't sign, or not yet.
    #[error(transparent)]
    Key(#[from] UserKeyError),
    /// The protocol failed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The host ended the connection, naming a fault of ours.
    #[error("the host ended the connection: {text}")]
    Fault {
        /// Its code (docs/PROTOCOL.md).
        code: u32,
        /// Its words, escaped.
        text: String,
    },
}

impl ConnectError {
    /// The class that the exit status tells.
    pub fn class(&self) -> Class {
        match self {
            ConnectError::Dial(_) | ConnectError::Timeout { .. } => Class::Unreachable,
            ConnectError::Tls(tls::ConnectError::NoCommonKeyType) => Class::Unauthenticated,
            ConnectError::Tls(tls::ConnectError::Tls(_)) => Class::Incompatible,
            ConnectError::Tls(_) => Class::Unreachable,
            ConnectError::UnknownHost { .. }
            | ConnectError::HostKeyMismatch { .. }
            | ConnectError::HostKeyRevoked { .. }
            | ConnectError::NoKeys
            | ConnectError::NotAccepted { .. }
            | ConnectError::Key(_) => Class::Unauthenticated,
            ConnectError::Link(LinkError::Fault(_) | LinkError::ClosedHalfWay | LinkError::Tls(_)) => {
                Class::Incompatible
            }
            ConnectError::Link(_) => Class::Unreachable,
            ConnectError::Fault { .. } => Class::Incompatible,
        }
    }
}

impl ConnectError {
    /// Whether trying again makes no sense: who is at the other end, or who we are, won't change by that.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            ConnectError::Dial(_)
            | ConnectError::Timeout { .. }
            | ConnectError::Tls(tls::ConnectError::Io(_)) => false,
            ConnectError::Tls(tls::ConnectError::NoCommonKeyType) => true,
            // A connection that is cut looks like many things.
            ConnectError::Tls(_) => false,
            ConnectError::UnknownHost { .. }
            | ConnectError::HostKeyMismatch { .. }
            | ConnectError::HostKeyRevoked { .. }
            | ConnectError::NoKeys
            | ConnectError::NotAccepted { .. }
            | ConnectError::Key(UserKeyError::Locked { .. } | UserKeyError::Crypto(_)) => true,
            // An agent may be back in a moment.
            ConnectError::Key(_) => false,
            ConnectError::Link(LinkError::Fault(_)) => true,
            ConnectError::Link(_) => false,
            // 0 is a server that stops, 15 one that waited for too long.
            ConnectError::Fault { code, .. } => !matches!(code, 0 | 15),
        }
    }
}

fn untried_text(untried: usize) -> String {
    if untried == 0 { String::new() } else { format!("; {untried} more were not offered") }
}

/// An open connection, and what was found out on the way.
pub struct Opened {
    /// The connection. The proof of identity may still wait to be judged, in one flight with the first job.
    pub connection: Connection,
    /// The host's key, where it has shown one.
    pub host_key: Option<PublicKey>,
    /// Whether the host's key is new, and should be recorded.
    pub host_is_new: bool,
    /// The user's key that proves who the user is.
    pub user_key: Option<PublicKey>,
}

/// Connects to a host over TLS and TCP.
///
/// The proof of identity is handed over and not yet written: it travels together with the first job. Its verdict is that
/// of [`Connection::accepted`], and of every job.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(host: &str, port: u16, options: Options) -> Result<Opened, ConnectError> {
    let dial = TcpDial { host: host.to_owned(), port, observer: options.observer.clone() };
    connect_by(dial, host, options).await
}

/// Connects to a host over TLS and whatever byte streams `dial` gets; otherwise as [`connect`].
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_by(
    dial: impl Dial + 'static,
    host: &str,
    options: Options,
) -> Result<Opened, ConnectError> {
    let (user, lasting) = (options.user.clone(), options.lasting.clone());
    open(Door { dial: Box::new(dial), way: Way::Tls(Box::new(options)) }, host, user, lasting).await
}

/// Speaks over a stream whose ends the kernel vouches for: a Unix socket, a socket pair. Its loss is the end.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_local(
    stream: impl ByteStream + 'static,
    host: &str,
    user: &str,
    tap: Option<Tap>,
) -> Result<Opened, ConnectError> {
    let greeted = greet_local(stream, host, user, tap).await?;
    let connection = Connection::new(
        greeted.link,
        user.to_owned(),
        host.to_owned(),
        greeted.epoch,
        None,
        Lasting::once(),
        None,
    );
    Ok(Opened { connection, host_key: None, host_is_new: false, user_key: None })
}

/// Connects to the Unix socket of a server on this machine.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect_unix(
    path: &std::path::Path,
    user: &str,
    lasting: Lasting,
    tap: Option<Tap>,
) -> Result<Opened, ConnectError> {
    let host = format!("unix:{}", path.display().to_string().escape_debug());
    let way = Way::Local { host: host.clone(), user: user.to_owned(), tap };
    open(Door { dial: Box::new(UnixDial(path.to_owned())), way }, &host, user.to_owned(), lasting).await
}

async fn open(door: Door, host: &str, user: String, lasting: Lasting) -> Result<Opened, ConnectError> {
    let Greeted { link, epoch, host_key, host_is_new, user_key } = door.open(None).await?;
    let pinned = Pinned { host_key: host_key.clone(), user_key: user_key.clone() };
    let again = Some((Arc::new(door), pinned)).filter(|_| lasting.reconnect > Duration::ZERO);
    let proven = host_key.clone();
    let connection = Connection::new(link, user, host.to_owned(), epoch, proven, lasting, again);
    Ok(Opened { connection, host_key, host_is_new, user_key })
}

/// How a host is got to, each time anew.
pub(crate) struct Door {
    dial: Box<dyn Dial>,
    way: Way,
}

/// What is done with a byte stream.
enum Way {
    Tls(Box<Options>),
    Local { host: String, user: String, tap: Option<Tap> },
}

/// Who was at both ends the first time, and has to be there each time.
#[derive(Clone)]
pub(crate) struct Pinned {
    host_key: Option<PublicKey>,
    user_key: Option<PublicKey>,
}

/// A connection that waits for the verdict on its user: the proof is handed over and not yet written.
pub(crate) struct Greeted {
    pub(crate) link: Link<Client>,
    pub(crate) epoch: Vec<u8>,
    host_key: Option<PublicKey>,
    host_is_new: bool,
    user_key: Option<PublicKey>,
}

impl Door {
    /// For how long the host may take, where somebody has been accepted before.
    pub(crate) fn limit(&self) -> Duration {
        match &self.way {
            Way::Tls(options) => options.connect_timeout,
            Way::Local { .. } => DIAL_TIMEOUT,
        }
    }

    /// Opens a connection: the first one, or one to whom the first one was with.
    pub(crate) async fn open(&self, pinned: Option<&Pinned>) -> Result<Greeted, ConnectError> {
        // One limit for all of it: whoever names one means the whole way, not a step of it.
        let until = Instant::now() + self.limit();
        let (stream, address) = self.dial.dial(self.limit()).await?;
        match &self.way {
            Way::Tls(options) => greet_tls(stream, address, until, options, pinned).await,
            Way::Local { host, user, tap } => greet_local(stream, host, user, tap.clone()).await,
        }
    }
}

async fn greet_tls(
    stream: Box<dyn ByteStream>,
    address: String,
    until: Instant,
    options: &Options,
    pinned: Option<&Pinned>,
) -> Result<Greeted, ConnectError> {
    let observe = |step: Step| options.observer.iter().for_each(|observer| observer(step.clone()));
    let late = |_| ConnectError::Timeout { address: address.clone(), limit: options.connect_timeout };
    // Whoever was trusted first is the one to come back to, even if another would be trusted as well.
    let only = pinned
        .and_then(|pinned| pinned.host_key.clone())
        .map(|accepted| HostTrust { accepted: Some(accepted), ..HostTrust::default() });
    let trust = only.as_ref().unwrap_or(&options.trust);

    let kinds = kinds(trust);
    let (mut carrier, shown) =
        timeout_at(until, tls::connect(stream, &kinds, ALPN)).await.map_err(late)??;
    let suite = carrier.connection().map(|connection| suite(connection)).unwrap_or_default();
    observe(Step::Secured { key: shown.key.clone(), suite });
    // Nothing of ours was sent so far but the handshake, and nothing is unless this key is the right one.
    let host_is_new = judge(trust, &shown.key)?;

    carrier.set_tap(options.tap.clone());
    let mut link = Link::new(carrier, Client::new(limits::WINDOW));
    let hello = timeout_at(until, greeting(&mut link)).await.map_err(late)??;
    let nonce = nonce(&hello);
    let context = AuthContext {
        binding: AuthBinding::Tls { exporter: shown.exporter },
        nonce: &nonce,
        alpn: ALPN,
        host_key_blob: shown.key.blob(),
    };
    link.end.hello(SOFTWARE);
    let again = pinned.and_then(|pinned| pinned.user_key.as_ref());
    let key = match options.keys.iter().find(|key| Some(&key.public) == again) {
        Some(key) => key,
        None => timeout_at(until, choose(&mut link, options, observe)).await.map_err(late)??,
    };
    observe(Step::Proving { fingerprint: key.public.fingerprint(), source: key.source.clone() });
    let proof = key.prove(&context, &options.user).await?;
    let user_key = Some(key.public.clone());
    link.end.authenticate(&options.user, proto::authenticate::Proof::Key(proof));
    Ok(Greeted { link, epoch: hello.epoch, host_key: Some(shown.key), host_is_new, user_key })
}

async fn greet_local(
    stream: impl ByteStream + 'static,
    host: &str,
    user: &str,
    tap: Option<Tap>,
) -> Result<Greeted, ConnectError> {
    let mut carrier = Carrier::clear(stream);
    carrier.set_tap(tap);
    let mut link = Link::new(carrier, Client::new(limits::WINDOW));
    let late = |_| ConnectError::Timeout { address: host.to_owned(), limit: DIAL_TIMEOUT };
    let hello = timeout(DIAL_TIMEOUT, greeting(&mut link)).await.map_err(late)??;
    link.end.hello(SOFTWARE);
    let proof = proto::authenticate::Proof::PeerCredentials(proto::PeerCredentials {});
    link.end.authenticate(user, proof);
    Ok(Greeted { link, epoch: hello.epoch, host_key: None, host_is_new: false, user_key: None })
}

/// For a known host only the types of its recorded keys are asked for, as ssh does; otherwise it would show its favourite.
fn kinds(trust: &HostTrust) -> HostKeyKinds {
    match &trust.accepted {
        Some(key) => HostKeyKinds { preferred: vec![key.algorithm()], only: true },
        None => match trust.known.host_key_kinds() {
            // All that is on record is revoked, or of a kind nobody can use: whatever the host shows is told by name.
            kinds if kinds.preferred.is_empty() => HostKeyKinds::default(),
            kinds => kinds,
        },
    }
}

/// Whether to go on with this key; true when it is new and should be recorded.
fn judge(trust: &HostTrust, shown: &PublicKey) -> Result<bool, ConnectError> {
    let key = || Box::new(shown.clone());
    match trust.known.judge(shown) {
        Verdict::Trusted { .. } => Ok(false),
        Verdict::Revoked { .. } => Err(ConnectError::HostKeyRevoked { key: key() }),
        Verdict::Mismatch { recorded } => Err(ConnectError::HostKeyMismatch { key: key(), recorded }),
        Verdict::Unknown { plain_name_differs } => {
            let accepted = trust.accepted.as_ref() == Some(shown) || trust.accept_new && !plain_name_differs;
            if accepted {
                Ok(true)
            } else {
                Err(ConnectError::UnknownHost { key: key(), plain_name_differs })
            }
        }
    }
}

async fn greeting(link: &mut Link<Client>) -> Result<proto::ServerHello, ConnectError> {
    match link.event().await? {
        ClientEvent::Hello(hello) => Ok(hello),
        event => Err(unexpected(event)),
    }
}

/// The key to prove with: the sure one, or the one the host picks out of those that are offered.
async fn choose<'a>(
    link: &mut Link<Client>,
    options: &'a Options,
    observe: impl Fn(Step),
) -> Result<&'a UserKey, ConnectError> {
    let first = options.keys.first().ok_or(ConnectError::NoKeys)?;
    if options.sure {
        return Ok(first);
    }
    let offered = options.keys.get(..limits::OFFERS).unwrap_or(&options.keys);
    observe(Step::Offered(offered.len()));
    link.end.offer(&options.user, offered.iter().map(|key| key.public.blob().to_vec()).collect());
    match link.event().await? {
        ClientEvent::OfferReply(Some(index)) => offered.get(index as usize).ok_or_else(|| {
            ConnectError::Fault { code: 0, text: "it picked a key that was not offered".to_owned() }
        }),
        ClientEvent::OfferReply(None) => {
            let (tried, all) = (offered.len(), options.keys.len());
            Err(ConnectError::NotAccepted { tried, untried: all.saturating_sub(tried) })
        }
        event => Err(unexpected(event)),
    }
}

fn unexpected(event: ClientEvent) -> ConnectError {
    match event {
        ClientEvent::Fault { code, text } => {
            ConnectError::Fault { code, text: text.escape_debug().to_string() }
        }
        ClientEvent::GoAway { text } => {
            ConnectError::Fault { code: 0, text: text.escape_debug().to_string() }
        }
        _ => ConnectError::Fault { code: 0, text: "it spoke out of turn".to_owned() },
    }
}

fn nonce(hello: &proto::ServerHello) -> [u8; limits::NONCE] {
    // The end of the protocol has compared its length.
    let mut nonce = [0; limits::NONCE];
    nonce.iter_mut().zip(&hello.nonce).for_each(|(to, from)| *to = *from);
    nonce
}

fn suite(connection: &rustls::Connection) -> String {
    let exchange = connection.negotiated_key_exchange_group().map(|group| group.name());
    let cipher = connection.negotiated_cipher_suite().map(|suite| suite.suite());
    match (exchange, cipher) {
        (Some(exchange), Some(cipher)) => format!("{exchange:?} {cipher:?}"),
        _ => String::new(),
    }
}
