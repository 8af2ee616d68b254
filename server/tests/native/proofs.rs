//! Proofs of identity: the good one, and every kind of bad one.

use remora_identity::{PrivateKey, sshsig};
use remora_wire::limits;
use remora_wire::native::{Kind, proto};
use tokio::time::timeout;

use crate::host::Host;
use crate::peer::{Claims, PATIENCE, Peer, Stream, data, frame, proof, start};

#[tokio::test]
async fn a_signature_for_anything_else_is_not_accepted() {
    let host = Host::start().await;
    let other = Peer::greeted(host.stream().await).await;
    type Change = Box<dyn Fn(&mut Claims)>;
    let other = other.claims(&host.user);
    let wrong: Vec<(&str, Change)> = vec![
        (
            "another connection",
            Box::new({
                let exporter = other.exporter;
                move |claims: &mut Claims| claims.exporter = exporter
            }),
        ),
        (
            "another nonce",
            Box::new({
                let nonce = other.nonce;
                move |claims: &mut Claims| claims.nonce = nonce
            }),
        ),
        ("another user", Box::new(|claims: &mut Claims| claims.user = "somebody-else".to_owned())),
        (
            "another host",
            Box::new(|claims: &mut Claims| {
                claims.host_key = PrivateKey::generate_ed25519().unwrap().public().blob().to_vec();
            }),
        ),
        ("no host", Box::new(|claims: &mut Claims| claims.host_key.clear())),
        ("another protocol", Box::new(|claims: &mut Claims| claims.alpn = "remora/2")),
        ("another namespace", Box::new(|claims: &mut Claims| claims.namespace = "git")),
    ];
    for (what, change) in wrong {
        let mut peer = Peer::greeted(host.stream().await).await;
        let mut claims = peer.claims(&host.user);
        change(&mut claims);
        let sshsig = claims.sign(&host.key, host.key.public());
        let reply = peer.authenticate(&host.user, host.key.public(), sshsig).await;
        assert!(!reply.accepted, "{what}");
        // The same connection may still do it right.
        assert!(peer.prove(&host.user, &host.key).await.accepted, "{what}");
    }
    host.stop().await;
}

#[tokio::test]
async fn only_the_key_that_signed_counts() {
    let host = Host::start().await;
    let stranger = PrivateKey::generate_ed25519().unwrap();
    let mut peer = Peer::greeted(host.stream().await).await;
    let keys = vec![host.key.public().blob().to_vec()];
    peer.send(Kind::Offer, 0, &proto::Offer { user: host.user.clone(), keys }).await;
    let _: proto::OfferReply = peer.message(Kind::OfferReply).await;
    let claims = peer.claims(&host.user);
    let user = &host.user;
    // The authorized key is named, the other signs.
    let sshsig = claims.sign(&stranger, host.key.public());
    assert!(!peer.authenticate(user, host.key.public(), sshsig.clone()).await.accepted);
    // The signature itself names the authorized key.
    let signature = stranger.sign(&sshsig::signed_data(claims.namespace, b"x")).unwrap();
    let forged = sshsig::encode(host.key.public(), claims.namespace, &signature);
    assert!(!peer.authenticate(user, host.key.public(), forged).await.accepted);
    // The other key is named and signs.
    let sshsig = claims.sign(&stranger, stranger.public());
    assert!(!peer.authenticate(user, stranger.public(), sshsig).await.accepted);
    // The other key is named, the authorized one signs.
    let sshsig = claims.sign(&host.key, stranger.public());
    assert!(!peer.authenticate(user, stranger.public(), sshsig).await.accepted);
    host.stop().await;
}

#[tokio::test]
async fn what_is_no_signature_is_not_accepted() {
    let host = Host::start().await;
    let mut peer = Peer::greeted(host.stream().await).await;
    let good = peer.claims(&host.user).sign(&host.key, host.key.public());
    let mut bent = good.clone();
    *bent.last_mut().unwrap() ^= 1;
    let long = [good.as_slice(), b"x"].concat();
    for sshsig in [Vec::new(), b"SSHSIG".to_vec(), good[..good.len() - 1].to_vec(), long, bent] {
        assert!(!peer.authenticate(&host.user, host.key.public(), sshsig).await.accepted);
    }
    host.stop().await;
}

#[tokio::test]
async fn the_kernels_word_counts_for_nothing_over_tls() {
    let host = Host::start().await;
    let mut peer = Peer::greeted(host.stream().await).await;
    let credentials = proto::authenticate::Proof::PeerCredentials(proto::PeerCredentials {});
    let message = proto::Authenticate { user: host.user.clone(), proof: Some(credentials) };
    peer.send(Kind::Authenticate, 0, &message).await;
    let reply: proto::AuthReply = peer.message(Kind::AuthReply).await;
    assert!(!reply.accepted);
    host.stop().await;
}

#[tokio::test]
async fn another_user_is_told_by_name_only_to_who_holds_a_key() {
    let host = Host::start().await;
    let mut peer = Peer::greeted(host.stream().await).await;
    assert!(peer.prove("somebody-else", &host.key).await.accepted);
    let receipt = peer.run(1, "somebody-else", "true").await;
    let Some(proto::receipt::Outcome::NotStarted(why)) = receipt.outcome else { panic!("{receipt:?}") };
    assert_eq!(why.class(), proto::NotStartedClass::Refused);
    assert!(why.text.contains("somebody-else"), "{}", why.text);
    // Nor does a job for the served account run for who logged in as another.
    let receipt = peer.run(2, &host.user, "true").await;
    assert!(matches!(receipt.outcome, Some(proto::receipt::Outcome::NotStarted(_))), "{receipt:?}");
    host.stop().await;
}

#[tokio::test]
async fn six_attempts_are_all_a_connection_has() {
    let host = Host::start().await;
    let stranger = PrivateKey::generate_ed25519().unwrap();
    let mut peer = Peer::greeted(host.stream().await).await;
    for left in (0..limits::AUTH_ATTEMPTS).rev() {
        // Another name each time makes no difference.
        let reply = peer.prove(&format!("user{left}"), &stranger).await;
        assert_eq!((reply.accepted, reply.attempts_left), (false, left));
    }
    let sshsig = peer.claims(&host.user).sign(&host.key, host.key.public());
    peer.send(Kind::Authenticate, 0, &proof(&host.user, host.key.public(), sshsig)).await;
    timeout(PATIENCE, peer.expect_end("a seventh attempt, a good one")).await.expect("the end");
    host.is_alive().await;
    host.stop().await;
}

#[tokio::test]
async fn jobs_behind_a_failed_proof_never_run() {
    let host = Host::start().await;
    let stranger = PrivateKey::generate_ed25519().unwrap();
    let mark = host.folder.path().join("mark");
    let mut peer = Peer::greeted(host.stream().await).await;
    let sshsig = peer.claims(&host.user).sign(&stranger, stranger.public());
    let line = format!("echo first >> {}", mark.display());
    let flight = [
        frame(Kind::Authenticate, 0, &proof(&host.user, stranger.public(), sshsig)),
        frame(Kind::Start, 1, &start(&host.user, &line)),
        data(Stream::Stdin, 1, 0, b"input"),
        frame(Kind::Start, 2, &start(&host.user, &line)),
    ];
    peer.send_bytes(&flight.concat()).await;
    let reply: proto::AuthReply = peer.message(Kind::AuthReply).await;
    assert!(!reply.accepted);
    assert!(peer.prove(&host.user, &host.key).await.accepted);
    let line = format!("echo second >> {}", mark.display());
    peer.run(1, &host.user, &line).await;
    assert_eq!(std::fs::read_to_string(mark).unwrap(), "second\n");
    host.stop().await;
}

#[tokio::test]
async fn jobs_behind_a_good_proof_run_at_once() {
    let host = Host::start().await;
    let mut peer = Peer::greeted(host.stream().await).await;
    let sshsig = peer.claims(&host.user).sign(&host.key, host.key.public());
    let flight = [
        frame(Kind::Authenticate, 0, &proof(&host.user, host.key.public(), sshsig)),
        frame(Kind::Start, 1, &start(&host.user, "cat >&2; exit 9")),
        data(Stream::Stdin, 1, 0, b"input"),
        frame(Kind::End, 1, &proto::End { stream: proto::Stream::Stdin as i32, length: 5 }),
    ];
    peer.send_bytes(&flight.concat()).await;
    let receipt: proto::Receipt = peer.message_among(Kind::Receipt).await;
    assert_eq!(receipt.outcome, Some(proto::receipt::Outcome::Exited(proto::Exited { status: 9 })));
    assert_eq!(receipt.stderr.unwrap().length, 5);
    host.stop().await;
}

#[tokio::test]
async fn what_is_thrown_away_behind_a_failed_proof_is_bounded() {
    let host = Host::start().await;
    let stranger = PrivateKey::generate_ed25519().unwrap();
    let mut peer = Peer::greeted(host.stream().await).await;
    assert!(!peer.prove(&host.user, &stranger).await.accepted);
    let piece = data(Stream::Stdin, 1, 0, &vec![0; limits::DATA_FRAME]);
    let pieces = (limits::WINDOW_MAX as usize + limits::CONTROL) / piece.len() + 2;
    for _ in 0..pieces {
        peer.send_bytes(&piece).await;
    }
    timeout(PATIENCE, peer.next()).await.expect("the connection ends");
    host.is_alive().await;
    host.stop().await;
}

/// Keeps the reasons that are logged.
#[derive(Clone, Default)]
struct Reasons(std::sync::Arc<std::sync::Mutex<Vec<String>>>);

impl tracing::Subscriber for Reasons {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Find<'a>(&'a Reasons);
        impl tracing::field::Visit for Find<'_> {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                if field.name() == "reason" {
                    self.0.0.lock().unwrap().push(format!("{value:?}"));
                }
            }
        }
        event.record(&mut Find(self));
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn the_signature_is_checked_first_whoever_is_asked_for() {
    let reasons = Reasons::default();
    let _kept = tracing::subscriber::set_default(reasons.clone());
    let host = Host::start().await;
    let stranger = PrivateKey::generate_ed25519().unwrap();
    for user in [host.user.as_str(), "nobody-here", "no\nname"] {
        for key in [&host.key, &stranger] {
            let mut peer = Peer::greeted(host.stream().await).await;
            let mut sshsig = peer.claims(user).sign(key, key.public());
            *sshsig.last_mut().unwrap() ^= 1;
            assert!(!peer.authenticate(user, key.public(), sshsig).await.accepted);
        }
    }
    let kept = reasons.0.lock().unwrap().clone();
    assert_eq!(kept.len(), 6, "{kept:?}");
    assert!(kept.iter().all(|reason| reason.contains("signature")), "{kept:?}");
    host.stop().await;
}
