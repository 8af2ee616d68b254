//! What depends on time, on a virtual clock: the client and the server are two ends of a pipe in memory, so that nothing
//! outside of the runtime can move the clock.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers included")]

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use remora_identity::PrivateKey;
use remora_net::tls::HostKeys;
use remora_testkit::eventually_async;
use remora_wire::native::proto;
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::task::JoinHandle;

use super::*;
use crate::admission::Admission;
use crate::key_files::hanging::Hold;
use crate::key_path::KeyPath;
use peer::Peer;

#[allow(dead_code, reason = "the tests of whole servers use the rest of it")]
#[path = "../../tests/native/peer.rs"]
mod peer;

struct Host {
    settings: watch::Sender<Arc<Settings>>,
    phase: watch::Sender<Phase>,
    key: PrivateKey,
    _folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        // Beside the test itself, where nobody else can write: StrictModes looks at every parent.
        let test = std::env::current_exe().unwrap();
        let folder = tempfile::Builder::new().prefix("clock").tempdir_in(test.parent().unwrap()).unwrap();
        let key = PrivateKey::generate_ed25519().unwrap();
        let authorized = folder.path().join("authorized_keys");
        std::fs::write(&authorized, key.public().to_text() + "\n").unwrap();
        std::fs::set_permissions(&authorized, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut settings =
            Settings::new(crate::account::own_account().unwrap(), None, crate::SessionLimits::default())
                .unwrap();
        settings.host_keys =
            Some(HostKeys::new([PrivateKey::generate_ed25519().unwrap()], PROTOCOL).unwrap());
        settings.authorized_keys = vec![authorized.to_str().unwrap().parse().unwrap()];
        let (settings, _) = watch::channel(Arc::new(settings));
        let (phase, _) = watch::channel(Phase::Serving);
        Host { settings, phase, key, _folder: folder }
    }

    fn served(&self) -> String {
        self.settings.borrow().policy.served().name.clone()
    }

    fn connect(&self) -> (DuplexStream, JoinHandle<Result<(), HandshakeError>>) {
        let (ours, theirs) = duplex(1 << 20);
        let place = Admission::default().admit(1).unwrap();
        let (settings, phase) = (self.settings.subscribe(), self.phase.subscribe());
        (ours, tokio::spawn(serve_tls(theirs, "a test".to_owned(), settings, phase, place)))
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_stalls_is_closed_after_ten_seconds() {
    let host = Host::new();
    let before = Instant::now();
    let (mut silent, handler) = host.connect();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(before.elapsed(), Duration::from_secs(10));
    assert!(matches!(handler.await.unwrap(), Err(HandshakeError::Stalled)));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_trickles_is_closed_after_ten_seconds() {
    let host = Host::new();
    let before = Instant::now();
    let (mut slow, handler) = host.connect();
    // A byte of a ClientHello's record each second.
    for byte in [22, 3, 1, 0x10, 0, 1, 0, 0x0f, 0xfc, 3, 3, 0, 0, 0] {
        let _ = tokio::io::AsyncWriteExt::write_all(&mut slow, &[byte]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(matches!(handler.await.unwrap(), Err(HandshakeError::Stalled)));
    assert!(before.elapsed() <= Duration::from_secs(14));
    assert_eq!(slow.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_no_hello_is_told_after_ten_seconds() {
    let host = Host::new();
    let (stream, handler) = host.connect();
    let mut peer = Peer::connect(stream).await;
    let before = Instant::now();
    peer.flush().await;
    peer.expect_fault(15, "silence").await;
    assert_eq!(before.elapsed(), Duration::from_secs(10));
    assert!(matches!(handler.await.unwrap(), Err(HandshakeError::Stalled)));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_proves_anything_is_told_after_a_minute() {
    let host = Host::new();
    let (stream, handler) = host.connect();
    let before = Instant::now();
    let mut peer = Peer::greeted(stream).await;
    // Being busy gains no time.
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        peer.send_bytes(&peer::raw_frame(remora_wire::native::Kind::Ping, 0, b"12345678")).await;
    }
    peer.expect_fault(15, "no proof").await;
    assert_eq!(before.elapsed(), Duration::from_secs(60));
    assert!(handler.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn every_failed_proof_gets_the_same_answer_after_the_same_time() {
    let host = Host::new();
    let served = host.served();
    let stranger = PrivateKey::generate_ed25519().unwrap();
    let mut answers = Vec::new();
    for (user, key, good_signature) in [
        (served.as_str(), &stranger, true),
        ("nobody-here", &stranger, true),
        (served.as_str(), &stranger, false),
        ("nobody-here", &stranger, false),
        (served.as_str(), &host.key, false),
        ("nobody-here", &host.key, false),
        ("a/name that\0none has", &stranger, true),
        ("", &stranger, true),
    ] {
        let (stream, _handler) = host.connect();
        let mut peer = Peer::greeted(stream).await;
        let mut sshsig = peer.claims(user).sign(key, key.public());
        if !good_signature {
            *sshsig.last_mut().unwrap() ^= 1;
        }
        let before = Instant::now();
        let reply = peer.authenticate(user, key.public(), sshsig).await;
        answers.push((reply, before.elapsed()));
    }
    let same = proto::AuthReply {
        accepted: false,
        attempts_left: limits::AUTH_ATTEMPTS - 1,
        host_name: String::new(),
    };
    let floor = host.settings.borrow().auth_floor;
    assert!(floor >= Duration::from_millis(100));
    for answer in answers {
        assert_eq!(answer, (same.clone(), floor));
    }
}

#[tokio::test(start_paused = true)]
async fn a_good_proof_waits_for_no_floor() {
    let host = Host::new();
    let (stream, _handler) = host.connect();
    let before = Instant::now();
    Peer::accepted(stream, &host.served(), &host.key).await;
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_hold_up_a_server_that_stops() {
    let host = Host::new();
    let (silent, without_tls) = host.connect();
    let (stream, without_hello) = host.connect();
    let mut quiet = Peer::connect(stream).await;
    quiet.flush().await;
    let (stream, without_proof) = host.connect();
    let unknown = Peer::greeted(stream).await;
    tokio::task::yield_now().await;
    let before = Instant::now();
    host.phase.send_replace(Phase::Draining);
    for handler in [without_tls, without_hello, without_proof] {
        let _ = handler.await.unwrap();
    }
    assert_eq!(before.elapsed(), Duration::ZERO);
    drop((silent, quiet, unknown));
}

#[tokio::test]
async fn authorized_keys_that_hang_hold_up_no_other_connection() {
    let host = Host::new();
    let (hold, key_files) = Hold::new(Duration::from_secs(2));
    let mut readable = vec!["/hangs".parse::<KeyPath>().unwrap()];
    host.settings.send_modify(|settings| {
        let settings = Arc::make_mut(settings);
        settings.key_files = key_files;
        std::mem::swap(&mut settings.authorized_keys, &mut readable);
    });
    let (stream, _handler) = host.connect();
    let mut peer = Peer::greeted(stream).await;
    let (user, key) = (host.served(), host.key.public().clone());
    let sshsig = peer.claims(&user).sign(&host.key, &key);
    let hung = tokio::spawn(async move { peer.authenticate(&user, &key, sshsig).await });
    eventually_async(Duration::from_secs(60), "a reading hangs", || hold.held() == 1).await;
    // The same reader reads another file meanwhile.
    host.settings.send_modify(|settings| Arc::make_mut(settings).authorized_keys = readable);
    let (stream, _handler) = host.connect();
    Peer::accepted(stream, &host.served(), &host.key).await;
    assert!(!hung.is_finished());
    // Who waits for the one that hangs is denied like anybody else.
    let denied = hung.await.unwrap();
    assert_eq!((denied.accepted, denied.attempts_left), (false, limits::AUTH_ATTEMPTS - 1));
}
