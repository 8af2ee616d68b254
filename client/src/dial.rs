//! Gets a byte stream to a host.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use remora_net::{ByteStream, tune};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::{Instant, timeout};

use crate::connect::{Observer, Step};

/// How long a connection may take to come about, each of: resolving, connecting, the TLS handshake.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A byte stream to a host, and where it leads, for people.
pub type Dialed = (Box<dyn ByteStream>, String);

/// A byte stream to a host that is on its way.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = Result<Dialed, DialError>> + Send + 'a>>;

/// Gets byte streams to one host, as often as it is asked: whenever a connection is lost, too.
pub trait Dial: Send + Sync {
    /// Gets one, within a time.
    fn dial(&self, limit: Duration) -> Dialing<'_>;
}

/// A host by its name, which is looked up each time: it may have moved.
pub(crate) struct TcpDial {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) observer: Option<Observer>,
}

impl Dial for TcpDial {
    fn dial(&self, limit: Duration) -> Dialing<'_> {
        let observe = |step: Step| self.observer.iter().for_each(|observer| observer(step.clone()));
        Box::pin(async move {
            let until = Instant::now() + limit;
            let addresses = resolve(&self.host, self.port).await?;
            observe(Step::Resolved(addresses.clone()));
            let (stream, address) = tcp(&addresses, until.saturating_duration_since(Instant::now())).await?;
            observe(Step::Connected(address));
            Ok((Box::new(stream) as Box<dyn ByteStream>, address.to_string()))
        })
    }
}

/// A Unix socket.
pub(crate) struct UnixDial(pub(crate) PathBuf);

impl Dial for UnixDial {
    fn dial(&self, _: Duration) -> Dialing<'_> {
        Box::pin(async move {
            let stream = unix(&self.0).await?;
            Ok((Box::new(stream) as Box<dyn ByteStream>, self.0.display().to_string()))
        })
    }
}

/// Why there is no byte stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The name has no address.
    #[error("can't resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver says.
        #[source]
        source: io::Error,
    },
    /// No address answers.
    #[error("can't connect to {address}")]
    Connect {
        /// The last address tried, or the socket's path.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// The addresses of a host. An address needs no resolver and no thread.
pub(crate) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |source| DialError::Resolve { host: host.to_owned(), source };
    let found = timeout(DIAL_TIMEOUT, lookup_host((host, port))).await.map_err(|_| failed(timed_out()))?;
    let addresses: Vec<SocketAddr> = found.map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(addresses)
}

/// Connects to the first address that answers, in the resolver's order (RFC 6724), all within one deadline.
pub(crate) async fn tcp(
    addresses: &[SocketAddr],
    limit: Duration,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let mut last = None;
    // Each address gets its share of the time, so that a black hole in front doesn't use up all of it.
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        let failed = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                tune(&stream).map_err(|source| connect_error(address, source))?;
                return Ok((stream, *address));
            }
            Ok(Err(error)) => error,
            Err(_) => timed_out(),
        };
        last = Some(connect_error(address, failed));
    }
    Err(last.unwrap_or_else(|| DialError::Resolve {
        host: String::new(),
        source: io::ErrorKind::NotFound.into(),
    }))
}

/// Connects to a Unix socket.
pub(crate) async fn unix(path: &Path) -> Result<UnixStream, DialError> {
    let failed = |source| DialError::Connect {
        address: path.display().to_string().escape_debug().to_string(),
        source,
    };
    timeout(DIAL_TIMEOUT, UnixStream::connect(path)).await.map_err(|_| failed(timed_out()))?.map_err(failed)
}

fn connect_error(address: &SocketAddr, source: io::Error) -> DialError {
    DialError::Connect { address: address.to_string(), source }
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer within its time")
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::time::Instant;

    use remora_testkit::Silence;

    use super::*;

    /// Long for a machine, short for a person.
    const LIMIT: Duration = Duration::from_millis(400);

    fn open() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn refusing() -> SocketAddr {
        open().1
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_passed_over_for_the_next() {
        let (_listener, good) = open();
        let (_, address) = tcp(&[refusing(), good], DIAL_TIMEOUT).await.unwrap();
        assert_eq!(address, good);
    }

    #[tokio::test]
    async fn an_address_that_is_silent_has_its_share_of_the_time_and_no_more() {
        let ((_listener, good), silence) = (open(), Silence::new().unwrap());
        let start = Instant::now();
        let (_, address) = tcp(&[silence.address(), good], LIMIT).await.unwrap();
        assert_eq!(address, good);
        assert!(start.elapsed() >= LIMIT / 2 && start.elapsed() < DIAL_TIMEOUT, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn when_none_answers_the_last_one_is_told() {
        let silence = Silence::new().unwrap();
        let last = refusing();
        let error = tcp(&[silence.address(), last], LIMIT).await.unwrap_err();
        assert_eq!(error.to_string(), format!("can't connect to {last}"));
        let error = tcp(&[silence.address()], LIMIT).await.unwrap_err();
        let DialError::Connect { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.kind(), io::ErrorKind::TimedOut);
    }
}
