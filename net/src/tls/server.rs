//! The server's side of the TLS handshake: which host key to show, and the server's hello behind its Finished.

use std::io;
use std::sync::Arc;

use remora_identity::statement::ReceiptKey;
use remora_identity::{PrivateKey, PrivateKeyDer, PublicKey};
use rustls::server::{Acceptor, AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{Connection, ServerConfig, SignatureScheme};
use tokio::io::AsyncReadExt;

use super::{exporter, provider, schemes};
use crate::carrier::{ByteStream, Carrier};

/// Longest ClientHello: ours is under 2 KiB, most of it the post-quantum key share.
const CLIENT_HELLO: usize = 16 * 1024;

/// Why a host key can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostKeyError {
    /// TLS 1.3 has no signature scheme for this type.
    #[error("TLS 1.3 can't use a key of type {0}")]
    Unsupported(&'static str),
    /// The key doesn't make sense to the TLS library.
    #[error("TLS can't use the key")]
    Tls(#[source] rustls::Error),
    /// There is no key at all.
    #[error("there is no host key")]
    None,
}

/// The host's keys, ready for TLS and for signing receipts, and for nothing else.
#[derive(Clone)]
pub struct HostKeys {
    keys: Arc<Vec<(ReceiptKey, Arc<ServerConfig>)>>,
}

impl HostKeys {
    /// Prepares keys, the preferred one first.
    ///
    /// # Errors
    /// [`HostKeyError`].
    pub fn new(keys: impl IntoIterator<Item = PrivateKey>, alpn: &str) -> Result<Self, HostKeyError> {
        let configs = keys
            .into_iter()
            .map(|key| {
                let config = Arc::new(config(&key, alpn)?);
                Ok((ReceiptKey::new(key), config))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if configs.is_empty() {
            return Err(HostKeyError::None);
        }
        Ok(HostKeys { keys: Arc::new(configs) })
    }

    /// The public keys.
    pub fn public(&self) -> impl Iterator<Item = &PublicKey> {
        self.keys.iter().map(|(key, _)| key.public())
    }

    fn choose(&self, offered: &[SignatureScheme]) -> Option<&(ReceiptKey, Arc<ServerConfig>)> {
        // In the client's order (RFC 8446, 4.2.3): it puts the types first that it has on record for this host.
        offered.iter().find_map(|scheme| {
            self.keys.iter().find(|(key, _)| schemes(key.public().algorithm()).contains(scheme))
        })
    }
}

fn config(key: &PrivateKey, alpn: &str) -> Result<ServerConfig, HostKeyError> {
    let public = key.public();
    if schemes(public.algorithm()).is_empty() {
        return Err(HostKeyError::Unsupported(public.name()));
    }
    let provider = provider();
    let der = match key.to_private_key_der() {
        PrivateKeyDer::Pkcs8(der) => rustls::pki_types::PrivateKeyDer::Pkcs8(der.to_vec().into()),
        PrivateKeyDer::Pkcs1(der) => rustls::pki_types::PrivateKeyDer::Pkcs1(der.to_vec().into()),
        PrivateKeyDer::Sec1(der) => rustls::pki_types::PrivateKeyDer::Sec1(der.to_vec().into()),
        _ => return Err(HostKeyError::Unsupported(public.name())),
    };
    let signing = provider.key_provider.load_private_key(der).map_err(HostKeyError::Tls)?;
    let certified = CertifiedKey::new(vec![public.to_spki_der().into()], signing);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(HostKeyError::Tls)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // The server's hello travels behind its Finished, which saves a round trip.
    config.send_half_rtt_data = true;
    Ok(config)
}

/// Why a client's handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The byte stream failed.
    #[error("the connection failed during the TLS handshake")]
    Io(#[source] io::Error),
    /// The client closed the connection.
    #[error("the client closed the connection during the TLS handshake")]
    Closed,
    /// The client accepts none of this host's key types.
    #[error("the client accepts none of this host's key types")]
    NoCommonKeyType,
    /// The client names no application protocol.
    #[error("the client names no application protocol (ALPN)")]
    NoProtocol,
    /// The client's first message is too long, or isn't one.
    #[error("the client doesn't speak TLS 1.3")]
    NotTls,
    /// Something else in TLS.
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
}

/// Makes the handshake, sending `hello` as half-RTT data. Gives the host key that was shown, and the exporter value (RFC 9266)
/// that binds a user's proof to this connection. The caller sets the deadline.
///
/// # Errors
/// [`AcceptError`].
pub async fn accept(
    stream: impl ByteStream + 'static,
    keys: &HostKeys,
    hello: &[u8],
) -> Result<(Carrier, ReceiptKey, [u8; 32]), AcceptError> {
    let mut stream: Box<dyn ByteStream> = Box::new(stream);
    let mut acceptor = Acceptor::default();
    let mut taken = 0;
    let accepted = loop {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.map_err(AcceptError::Io)?;
        taken += count;
        if count == 0 {
            return Err(AcceptError::Closed);
        }
        if taken > CLIENT_HELLO {
            return Err(AcceptError::NotTls);
        }
        let mut rest = buffer.get(..count).unwrap_or_default();
        while !rest.is_empty() {
            acceptor.read_tls(&mut rest).map_err(AcceptError::Io)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((_, alert)) => {
                send_alert(&mut stream, alert).await;
                return Err(AcceptError::NotTls);
            }
        }
    };
    // RFC 7301 lets a client say nothing; rustls then goes on without one, and refuses other names than ours by itself.
    if accepted.client_hello().alpn().is_none() {
        // A fatal no_application_protocol alert (RFC 8446, 6.2).
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &[21, 3, 3, 0, 2, 2, 120]).await;
        return Err(AcceptError::NoProtocol);
    }
    let Some((key, config)) = keys.choose(accepted.client_hello().signature_schemes()) else {
        // A fatal handshake_failure alert (RFC 8446, 6.2), since no rustls connection exists yet to send it.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &[21, 3, 3, 0, 2, 2, 40]).await;
        return Err(AcceptError::NoCommonKeyType);
    };
    let connection = match accepted.into_connection(config.clone()) {
        Ok(connection) => connection,
        Err((error, alert)) => {
            send_alert(&mut stream, alert).await;
            return Err(AcceptError::Tls(error));
        }
    };
    let mut carrier = Carrier::tls(stream, Connection::Server(connection));
    carrier.write(&[hello]).map_err(AcceptError::Io)?;
    std::future::poll_fn(|cx| carrier.poll_until_open(cx)).await.map_err(|error| {
        match error.downcast::<rustls::Error>() {
            Ok(error) => AcceptError::Tls(error),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => AcceptError::Closed,
            Err(error) => AcceptError::Io(error),
        }
    })?;
    let exporter = carrier.connection().map(|connection| exporter(connection)).ok_or(AcceptError::Closed)?;
    Ok((carrier, key.clone(), exporter.map_err(AcceptError::Tls)?))
}

async fn send_alert(stream: &mut Box<dyn ByteStream>, mut alert: rustls::server::AcceptedAlert) {
    let mut bytes = Vec::new();
    // Best effort: the peer is about to be dropped anyway.
    let _ = alert.write_all(&mut bytes);
    let _ = tokio::io::AsyncWriteExt::write_all(stream, &bytes).await;
}
