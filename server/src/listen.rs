//! Where a server listens.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: u32 = 1024;
/// The native wire's port.
const PORT: u16 = 7366;

/// A place to listen, as it is typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenUrl {
    /// The native wire over TLS and TCP.
    Native(SocketAddr),
    /// The native wire over a Unix socket.
    Unix(PathBuf),
    /// A plain wire over TCP.
    Plain {
        /// Which one.
        wire: PlainWire,
        /// Where.
        address: SocketAddr,
        /// What replies are transcoded to, from UTF-8.
        encoding: Option<&'static encoding_rs::Encoding>,
    },
}

/// One of the plain wires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainWire {
    /// `raw://`.
    Raw,
    /// `length://`.
    Length,
    /// `header://`.
    Header,
}

impl std::fmt::Display for PlainWire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            PlainWire::Raw => "raw",
            PlainWire::Length => "length",
            PlainWire::Header => "header",
        })
    }
}

/// Why a listening URL makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// No scheme, or an unknown one.
    #[error(
        "'{0}' is no listening URL: native://ADDR:PORT, unix:PATH, raw://, length:// or header://ADDR:PORT is"
    )]
    Scheme(String),
    /// Not an address and a port.
    #[error("'{0}' isn't ADDR:PORT with a numeric address, as 127.0.0.1:8080 or [::1]:8080")]
    Address(String),
    /// Not a path.
    #[error("unix: names no path")]
    Path,
    /// An unknown parameter.
    #[error("'{0}': ?encoding=NAME is the only parameter, on plain wires")]
    Parameter(String),
    /// An unknown encoding.
    #[error("'{0}' is no encoding known here (names as in the WHATWG Encoding Standard)")]
    Encoding(String),
}

impl FromStr for ListenUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() { Err(UrlError::Path) } else { Ok(ListenUrl::Unix(path.into())) };
        }
        let (scheme, rest) = text.split_once("://").ok_or_else(|| UrlError::Scheme(text.to_owned()))?;
        let (place, parameters) = match rest.split_once('?') {
            Some((place, parameters)) => (place, Some(parameters)),
            None => (rest, None),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        let wire = match scheme {
            "native" => {
                if let Some(parameters) = parameters {
                    return Err(UrlError::Parameter(parameters.to_owned()));
                }
                let address = place.parse().ok().or_else(|| Some(SocketAddr::new(bare_ip(place)?, PORT)));
                return address.map(ListenUrl::Native).ok_or_else(|| UrlError::Address(place.to_owned()));
            }
            "raw" => PlainWire::Raw,
            "length" => PlainWire::Length,
            "header" => PlainWire::Header,
            _ => return Err(UrlError::Scheme(text.to_owned())),
        };
        let address = place.parse().map_err(|_| UrlError::Address(place.to_owned()))?;
        let encoding = match parameters {
            None => None,
            Some(parameters) => {
                let name = parameters
                    .strip_prefix("encoding=")
                    .ok_or_else(|| UrlError::Parameter(parameters.to_owned()))?;
                let known = encoding_rs::Encoding::for_label(name.as_bytes());
                // What can't be written isn't offered: these decode only (Encoding Standard, 4.3).
                Some(
                    known
                        .filter(|encoding| encoding.output_encoding() == *encoding)
                        .ok_or_else(|| UrlError::Encoding(name.to_owned()))?,
                )
            }
        };
        Ok(ListenUrl::Plain { wire, address, encoding })
    }
}

/// An address without a port. An IPv6 one is in brackets here, too: `::1:80` would be an address, and not what was meant.
fn bare_ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(ip) => ip.parse().ok().map(IpAddr::V6),
        None => text.parse().ok().map(IpAddr::V4),
    }
}

impl std::fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListenUrl::Native(address) => write!(f, "native://{address}"),
            // A path's own two slashes at the beginning would be taken for the URL's.
            ListenUrl::Unix(path) if path.as_os_str().as_encoded_bytes().starts_with(b"//") => {
                write!(f, "unix://{}", path.display())
            }
            ListenUrl::Unix(path) => write!(f, "unix:{}", path.display()),
            ListenUrl::Plain { wire, address, encoding: None } => write!(f, "{wire}://{address}"),
            ListenUrl::Plain { wire, address, encoding: Some(encoding) } => {
                write!(f, "{wire}://{address}?encoding={}", encoding.name().to_ascii_lowercase())
            }
        }
    }
}

/// Why nothing listens there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The kernel says no.
    #[error("can't listen on {url}")]
    Io {
        /// Where.
        url: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Something that isn't an abandoned socket is at that path.
    #[error("can't listen on {url}: {what}")]
    Occupied {
        /// Where.
        url: String,
        /// What is there.
        what: &'static str,
    },
}

/// A listening socket.
pub struct Listener {
    /// What was asked for.
    pub asked: ListenUrl,
    /// What it became: port 0 is a real port here.
    pub url: ListenUrl,
    pub(crate) socket: Socket,
}

pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Starts to listen. Needs a tokio runtime.
///
/// # Errors
/// [`ListenError`].
pub fn bind(asked: &ListenUrl) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Io { url: asked.to_string(), source };
    let (socket, url) = match asked {
        ListenUrl::Native(address) => {
            let (socket, address) = tcp(*address).map_err(failed)?;
            (socket, ListenUrl::Native(address))
        }
        ListenUrl::Plain { wire, address, encoding } => {
            let (socket, address) = tcp(*address).map_err(failed)?;
            (socket, ListenUrl::Plain { wire: *wire, address, encoding: *encoding })
        }
        ListenUrl::Unix(path) => {
            remove_abandoned(path)
                .map_err(failed)?
                .map_or(Ok(()), |what| Err(ListenError::Occupied { url: asked.to_string(), what }))?;
            let listener = UnixListener::bind(path).map_err(failed)?;
            // The kernel tells who connects; the mode keeps others from filling the queue.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
            (Socket::Unix(listener), asked.clone())
        }
    };
    Ok(Listener { asked: asked.clone(), url, socket })
}

fn tcp(address: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    Ok((Socket::Tcp(listener), address))
}

/// A socket that nobody listens on is what a killed server leaves. Anything else is somebody's.
fn remove_abandoned(path: &std::path::Path) -> io::Result<Option<&'static str>> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if !metadata.file_type().is_socket() {
        return Ok(Some("a file that isn't a socket is there"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Ok(Some("another server listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let ListenUrl::Unix(path) = &self.url {
            // Best effort: a path left behind is recognized as abandoned by the next server.
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_shown_alike() {
        for text in [
            "native://0.0.0.0:7366",
            "native://[::1]:0",
            "raw://127.0.0.1:1",
            "length://127.0.0.1:8080",
            "header://[::1]:8080?encoding=gbk",
            "unix:/run/remora.sock",
            "unix:////two/slashes",
        ] {
            assert_eq!(text.parse::<ListenUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn the_native_wire_has_a_default_port() {
        for (text, whole) in [
            ("native://127.0.0.1", "native://127.0.0.1:7366"),
            ("native://127.0.0.1/", "native://127.0.0.1:7366"),
            ("native://[::1]", "native://[::1]:7366"),
            ("native://127.0.0.1:0", "native://127.0.0.1:0"),
        ] {
            assert_eq!(text.parse::<ListenUrl>().unwrap().to_string(), whole);
        }
    }

    #[test]
    fn nonsense_urls_are_refused() {
        for text in [
            "",
            "127.0.0.1:80",
            "http://127.0.0.1:80",
            "raw://localhost:1",
            "raw://127.0.0.1",
            "native://",
            "native://:7366",
            "native://127.0.0.1:",
            "native://::1",
            "native://[127.0.0.1]",
            "unix:",
            "native://127.0.0.1:1?encoding=gbk",
            "raw://127.0.0.1:1?x=y",
            "raw://127.0.0.1:1?encoding=klingon",
            "raw://127.0.0.1:1?encoding=utf-16le",
        ] {
            assert!(text.parse::<ListenUrl>().is_err(), "{text:?}");
        }
    }
}
