//! The client's side of the TLS handshake: it learns the host's key, and leaves to its caller whether to trust it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use remora_identity::known_hosts::HostKeyKinds;
use remora_identity::{KeyAlgorithm, PublicKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct,
    SignatureScheme,
};

use super::{exporter, provider, schemes};
use crate::carrier::{ByteStream, Carrier};

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The byte stream failed.
    #[error("the connection failed during the TLS handshake")]
    Io(#[source] io::Error),
    /// The peer closed the connection before the handshake was over, in order or not: a full host answers nobody in words, since
    /// what a stranger is told costs a handshake.
    #[error(
        "the other side closed the connection during the TLS handshake: the host may be full, or it may not be a remora server"
    )]
    Closed,
    /// The host has none of the key types that are recorded for it.
    #[error("the host has no key of a recorded type")]
    NoCommonKeyType,
    /// Something else in TLS, such as a peer that speaks another protocol.
    #[error("the TLS handshake failed")]
    Tls(#[source] rustls::Error),
}

/// The key a host proved to have in this handshake, and what binds a user's proof to this connection.
#[derive(Clone, Debug)]
pub struct HostKey {
    /// The key.
    pub key: PublicKey,
    /// Exporter value (RFC 9266).
    pub exporter: [u8; 32],
}

/// Makes the handshake, asking for keys of these kinds. The caller judges the key before it sends anything of its own.
///
/// # Errors
/// [`ConnectError`].
pub async fn connect(
    stream: impl ByteStream + 'static,
    kinds: &HostKeyKinds,
    alpn: &str,
) -> Result<(Carrier, HostKey), ConnectError> {
    if offered(kinds).is_empty() {
        return Err(ConnectError::NoCommonKeyType);
    }
    let connection = client(kinds, alpn).map_err(ConnectError::Tls)?;
    let mut carrier = Carrier::tls(Box::new(stream), connection.into());
    poll_fn(|cx| carrier.poll_until_open(cx)).await.map_err(from_io)?;
    let connection = carrier.connection().ok_or(ConnectError::Closed)?;
    let key = connection
        .peer_certificates()
        .and_then(|chain| chain.first())
        .and_then(|spki| PublicKey::from_spki_der(spki).ok())
        .ok_or_else(|| ConnectError::Tls(CertificateError::BadEncoding.into()))?;
    let exporter = exporter(connection).map_err(ConnectError::Tls)?;
    if connection.alpn_protocol() != Some(alpn.as_bytes()) {
        return Err(ConnectError::Tls(rustls::Error::NoApplicationProtocol));
    }
    Ok((carrier, HostKey { key, exporter }))
}

fn client(kinds: &HostKeyKinds, alpn: &str) -> Result<ClientConnection, rustls::Error> {
    let schemes = offered(kinds);
    let provider = provider();
    let verifier = RawKeyVerifier { provider: provider.clone(), schemes };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.enable_sni = false;
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    // Without server name indication the name is never sent, and the key is judged by known_hosts, not by it.
    let name = ServerName::try_from("host.invalid").map_err(|_| rustls::Error::General("name".into()))?;
    ClientConnection::new(Arc::new(config), name)
}

fn offered(kinds: &HostKeyKinds) -> Vec<SignatureScheme> {
    let all = [
        KeyAlgorithm::Ed25519,
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa { bits: 0 },
    ];
    let others = if kinds.only { [].as_slice() } else { all.as_slice() };
    let mut offered = Vec::new();
    for scheme in kinds.preferred.iter().chain(others).flat_map(|algorithm| schemes(*algorithm)) {
        if !offered.contains(scheme) {
            offered.push(*scheme);
        }
    }
    offered
}

fn from_io(error: io::Error) -> ConnectError {
    match error.downcast::<rustls::Error>() {
        // This alert is how a server says that it has no key for the schemes offered (RFC 8446, 4.4.2.2 and 6.2).
        Ok(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)) => ConnectError::NoCommonKeyType,
        Ok(error) => ConnectError::Tls(error),
        Err(error) if is_closed(error.kind()) => ConnectError::Closed,
        Err(error) => ConnectError::Io(error),
    }
}

/// Which of these comes depends on what the peer had read when it closed.
fn is_closed(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Checks that the host holds the key it shows. Whether that is the right key is judged after the handshake.
#[derive(Debug)]
struct RawKeyVerifier {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for RawKeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !intermediates.is_empty() || PublicKey::from_spki_der(end_entity).is_err() {
            return Err(CertificateError::BadEncoding.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.schemes.contains(&dss.scheme) {
            return Err(rustls::PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(cert.as_ref()),
            dss,
            algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
