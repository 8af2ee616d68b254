//! The way to an open connection, and what goes wrong on it.

use std::future::poll_fn;
use std::time::Duration;

use remora_client::{Class, ConnectError, HostTrust, Options, Request, Signer, UserKey, connect, proto};
use remora_identity::PrivateKey;
use remora_identity::known_hosts::KnownHosts;
use remora_net::tls::{self, HostKeys};
use remora_wire::native::{ALPN, Kind};
use tokio::net::TcpListener;

use crate::foe::{Foe, frame, hello, local, raw_frame, server_hello};

async fn refused(bytes: Vec<u8>) -> ConnectError {
    let (mut foe, theirs) = Foe::pair();
    foe.say(&bytes).await;
    local(theirs).await.err().unwrap()
}

#[tokio::test]
async fn a_hello_that_makes_no_sense_is_incompatible() {
    let future = proto::ServerHello { version_min: 2, version_max: 9, ..server_hello() };
    let short = proto::ServerHello { nonce: vec![1; 31], ..server_hello() };
    let fault = proto::Fault { code: 13, text: "\x1b[2J".to_owned() };
    for bytes in [
        frame(Kind::ServerHello, 0, &future),
        frame(Kind::ServerHello, 0, &short),
        frame(Kind::Fault, 0, &fault),
        raw_frame(Kind::ServerHello, 0, b"\xff"),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ] {
        let error = refused(bytes.clone()).await;
        assert_eq!(error.class(), Class::Incompatible, "{error}: {bytes:?}");
        assert!(!error.to_string().chars().any(char::is_control), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_never_says_hello_is_given_up() {
    let (_foe, theirs) = Foe::pair();
    let before = tokio::time::Instant::now();
    let error = local(theirs).await.err().unwrap();
    assert_eq!(error.class(), Class::Unreachable, "{error}");
    assert_eq!(before.elapsed(), Duration::from_secs(10));
}

fn options(keys: Vec<PrivateKey>, trust: HostTrust) -> Options {
    let keys = keys.into_iter().map(|key| UserKey {
        public: key.public().clone(),
        signer: Signer::Key(key),
        source: "a test".to_owned(),
    });
    Options {
        user: "me".to_owned(),
        trust,
        keys: keys.collect(),
        sure: false,
        lasting: remora_client::Lasting::default(),
        connect_timeout: Duration::from_secs(10),
        observer: None,
        tap: None,
    }
}

fn key() -> PrivateKey {
    PrivateKey::generate_ed25519().unwrap()
}

/// A TLS server with this key, which says hello and gives what the client says before it closes.
async fn listen(host_key: PrivateKey, reply: Vec<u8>) -> (u16, tokio::task::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let keys = HostKeys::new([host_key], ALPN).unwrap();
    let task = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let Ok((mut carrier, ..)) = tls::accept(stream, &keys, &hello()).await else { return Vec::new() };
        let mut input = bytes::BytesMut::with_capacity(1 << 16);
        let mut told = false;
        loop {
            match poll_fn(|cx| carrier.poll_read(cx, &mut input)).await {
                Ok(0) | Err(_) => return input.to_vec(),
                Ok(_) => {}
            }
            if !std::mem::replace(&mut told, true) {
                carrier.write(&[&reply]).unwrap();
                let _ = poll_fn(|cx| carrier.poll_flush(cx)).await;
            }
            input.reserve(1 << 16);
        }
    });
    (port, task)
}

#[tokio::test]
async fn a_host_whose_key_is_not_trusted_hears_nothing() {
    let recorded = key().public().to_text();
    for known in [String::new(), format!("[127.0.0.1]:PORT {recorded}\n"), format!("@revoked * {recorded}\n")]
    {
        let host_key = key();
        let (port, heard) = listen(host_key, Vec::new()).await;
        let known = known.replace("PORT", &port.to_string());
        let known = KnownHosts::parse("a test", known.as_bytes()).unwrap().lookup("127.0.0.1", port);
        let trust = HostTrust { known, accept_new: false, accepted: None };
        let error = connect("127.0.0.1", port, options(vec![key()], trust)).await.err().unwrap();
        assert_eq!(error.class(), Class::Unauthenticated, "{error}");
        assert_eq!(heard.await.unwrap(), b"", "{error}");
    }
}

#[tokio::test]
async fn a_key_accepted_by_a_person_is_good_for_that_key_alone() {
    let accepted = key().public().clone();
    let (port, heard) = listen(key(), Vec::new()).await;
    let trust = HostTrust { accepted: Some(accepted), ..HostTrust::default() };
    let error = connect("127.0.0.1", port, options(vec![key()], trust)).await.err().unwrap();
    assert!(matches!(error, ConnectError::UnknownHost { .. }), "{error}");
    assert_eq!(heard.await.unwrap(), b"");
}

#[tokio::test]
async fn a_host_that_picks_a_key_nobody_offered_is_incompatible() {
    let reply = frame(Kind::OfferReply, 0, &proto::OfferReply { acceptable: Some(77) });
    let (port, _heard) = listen(key(), reply).await;
    let trust = HostTrust { accept_new: true, ..HostTrust::default() };
    let error = connect("127.0.0.1", port, options(vec![key(), key()], trust)).await.err().unwrap();
    assert_eq!(error.class(), Class::Incompatible, "{error}");
}

#[tokio::test]
async fn no_more_than_eight_keys_are_offered() {
    let reply = frame(Kind::OfferReply, 0, &proto::OfferReply { acceptable: None });
    let (port, _heard) = listen(key(), reply).await;
    let trust = HostTrust { accept_new: true, ..HostTrust::default() };
    let keys = (0..20).map(|_| key()).collect();
    let error = connect("127.0.0.1", port, options(keys, trust)).await.err().unwrap();
    assert!(matches!(error, ConnectError::NotAccepted { tried: 8, untried: 12 }), "{error}");
    assert!(error.to_string().ends_with("; 12 more were not offered"), "{error}");
}

#[tokio::test]
async fn without_a_key_nothing_is_proven() {
    let (port, _heard) = listen(key(), Vec::new()).await;
    let trust = HostTrust { accept_new: true, ..HostTrust::default() };
    let error = connect("127.0.0.1", port, options(Vec::new(), trust)).await.err().unwrap();
    assert!(matches!(error, ConnectError::NoKeys), "{error}");
}

#[tokio::test]
async fn a_connection_that_is_dropped_gives_its_jobs_up() {
    let (mut foe, connection, job) = Foe::with_job().await;
    drop(connection);
    assert!(crate::foe::end(job).await.0.is_err());
    while foe.next().await.is_some() {}
    let _ = Request::line("x");
}
