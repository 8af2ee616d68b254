//! The TLS handshake with peers that want something else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, its helpers included"
)]

use std::future::poll_fn;
use std::sync::{Arc, Mutex};

use remora_identity::PrivateKey;
use remora_net::tls::{AcceptError, HostKeys, accept};
use remora_net::{ByteStream, Carrier};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup, SignatureScheme};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

const ALPN: &str = "remora/1";

fn host_keys() -> HostKeys {
    HostKeys::new([PrivateKey::generate_ed25519().unwrap()], ALPN).unwrap()
}

/// Believes everything.
#[derive(Debug)]
struct Gullible {
    raw_keys: bool,
}

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.raw_keys
    }
}

/// Counts the tickets it is given.
#[derive(Debug, Default)]
struct Tickets(Mutex<usize>);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }
    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}
    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }
    fn remove_tls12_session(&self, _: &ServerName<'static>) {}
    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        *self.0.lock().unwrap() += 1;
    }
    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}

fn config(raw_keys: bool, alpn: &[&str]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible { raw_keys }))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

async fn open(stream: impl ByteStream + 'static, config: ClientConfig) -> std::io::Result<Carrier> {
    let connection = ClientConnection::new(Arc::new(config), "host.invalid".try_into().unwrap()).unwrap();
    let mut carrier = Carrier::tls(Box::new(stream), connection.into());
    poll_fn(|cx| carrier.poll_until_open(cx)).await?;
    poll_fn(|cx| carrier.poll_flush(cx)).await?;
    Ok(carrier)
}

#[tokio::test]
async fn a_client_without_our_protocol_is_refused() {
    let keys = host_keys();
    for alpn in [&[][..], &["http/1.1"], &["h2", "remora/2"]] {
        let (ours, theirs) = duplex(1 << 16);
        let (served, opened) = tokio::join!(accept(theirs, &keys, b"hello"), open(ours, config(true, alpn)));
        assert!(served.is_err(), "{alpn:?} was let in");
        let read = match opened {
            Err(_) => true,
            Ok(mut carrier) => {
                poll_fn(|cx| carrier.poll_read(cx, &mut bytes::BytesMut::with_capacity(9))).await.is_err()
            }
        };
        assert!(read, "{alpn:?} is not told");
    }
    let (ours, theirs) = duplex(1 << 16);
    let both = &["h2", ALPN];
    let (served, opened) = tokio::join!(accept(theirs, &keys, b"hello"), open(ours, config(true, both)));
    assert!(served.is_ok() && opened.is_ok());
}

#[tokio::test]
async fn a_client_that_wants_a_certificate_is_refused() {
    let keys = host_keys();
    let (ours, theirs) = duplex(1 << 16);
    let (served, _) = tokio::join!(accept(theirs, &keys, b"hello"), open(ours, config(false, &[ALPN])));
    assert!(served.is_err());
}

#[tokio::test]
async fn neither_resumption_nor_early_data_is_offered() {
    let keys = host_keys();
    let tickets = Arc::new(Tickets::default());
    let mut config = config(true, &[ALPN]);
    config.resumption = Resumption::store(tickets.clone());
    config.enable_early_data = true;
    let (ours, theirs) = duplex(1 << 16);
    let (served, opened) = tokio::join!(accept(theirs, &keys, b"hello"), open(ours, config));
    let (mut server, ..) = served.unwrap();
    let mut client = opened.unwrap();
    server.write(&[b"and more"]).unwrap();
    poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
    server.close();
    poll_fn(|cx| server.poll_flush(cx)).await.unwrap();
    drop(server);
    let mut input = bytes::BytesMut::with_capacity(1 << 16);
    while poll_fn(|cx| client.poll_read(cx, &mut input)).await.unwrap_or(0) > 0 {}
    assert_eq!(&input[..], b"helloand more");
    assert_eq!(*tickets.0.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_client_that_knows_none_of_the_keys_types_is_told() {
    let keys = host_keys();
    let (ours, theirs) = duplex(1 << 16);
    let known = remora_identity::known_hosts::HostKeyKinds {
        preferred: vec![remora_identity::KeyAlgorithm::EcdsaP256],
        only: true,
    };
    let (served, opened) =
        tokio::join!(accept(theirs, &keys, b"hello"), remora_net::tls::connect(ours, &known, ALPN));
    assert!(matches!(served, Err(AcceptError::NoCommonKeyType)));
    assert!(matches!(opened, Err(remora_net::tls::ConnectError::NoCommonKeyType)));
}

#[tokio::test]
async fn what_is_no_client_hello_is_refused() {
    let keys = host_keys();
    let record = |length: u16, body: &[u8]| [&[22, 3, 1], length.to_be_bytes().as_slice(), body].concat();
    let mut endless = Vec::new();
    // A handshake message of 16 MiB, of which ever more comes.
    for part in 0..64 {
        let mut body = vec![0; 4096];
        if part == 0 {
            body[..4].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
        }
        endless.extend(record(4096, &body));
    }
    let garbage: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("ssh", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ("zeros", vec![0; 100]),
        ("a record too long", record(0xffff, &[1; 100])),
        ("an empty message", record(4, &[1, 0, 0, 0])),
        ("a truncated message", record(8, &[1, 0, 0, 4, 3, 3, 0, 0])),
        ("an alert", vec![21, 3, 3, 0, 2, 2, 40]),
        ("data first", vec![23, 3, 3, 0, 2, 2, 40]),
        ("an endless hello", endless),
        ("nothing", Vec::new()),
    ];
    for (what, bytes) in garbage {
        let (mut ours, theirs) = duplex(1 << 20);
        let send = async {
            let _ = ours.write_all(&bytes).await;
            let _ = ours.shutdown().await;
            let mut answer = Vec::new();
            let _ = ours.read_to_end(&mut answer).await;
            answer
        };
        let (served, answer) = tokio::join!(accept(theirs, &keys, b"hello"), send);
        assert!(served.is_err(), "{what}");
        assert!(!answer.windows(5).any(|part| part == b"hello"), "{what}");
    }
}
