//! Many at once, and who panics among them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use remora_identity::PrivateKey;
use remora_testkit::eventually_async;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use crate::host::Host;
use crate::peer::{PATIENCE, Peer};

/// Both ends of each connection are descriptors of this process.
fn room_for_descriptors(needed: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(needed), ..limit })
            .expect("descriptors for this test");
    }
}

#[tokio::test]
async fn a_thousand_silent_connections_push_out_only_themselves() {
    room_for_descriptors(4096);
    let host = Host::start_with(|settings| settings.max_unauthenticated = 100).await;
    let mut early = host.peer().await;
    let closed = Arc::new(AtomicUsize::new(0));
    let mut silent = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let mut stream = host.stream().await;
        let closed = closed.clone();
        silent.spawn(async move {
            let _ = stream.read(&mut [0]).await;
            closed.fetch_add(1, Ordering::Relaxed);
        });
    }
    eventually_async(PATIENCE, "all but a hundred are closed", || closed.load(Ordering::Relaxed) >= 900)
        .await;
    host.is_alive().await;
    // Who was there before goes on, too.
    let receipt = early.run(1, &host.user, "true").await;
    assert!(receipt.outcome.is_some());
    assert!(closed.load(Ordering::Relaxed) < 1000, "the last ones still have their time");
    drop(silent);
    host.stop().await;
}

#[tokio::test]
async fn more_connections_than_allowed_are_closed_and_room_is_used_again() {
    let host = Host::start_with(|settings| settings.max_connections = 2).await;
    let first = host.peer().await;
    let second = host.peer().await;
    let mut third = host.stream().await;
    let read = timeout(PATIENCE, third.read(&mut [0])).await.expect("the third is closed");
    assert!(matches!(read, Ok(0) | Err(_)));
    drop(first);
    drop(second);
    timeout(PATIENCE, async {
        loop {
            // Until the server has noticed that both are gone.
            let mut stream = host.stream().await;
            let read = timeout(std::time::Duration::from_millis(50), stream.read(&mut [0])).await;
            if read.is_err() {
                break;
            }
        }
    })
    .await
    .expect("there is room again");
    host.stop().await;
}

/// Panics where a denied user of a certain name is logged, in the midst of that connection's task.
struct Trap;

impl tracing::Subscriber for Trap {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Find(bool);
        impl tracing::field::Visit for Find {
            fn record_debug(&mut self, _: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0 |= format!("{value:?}").contains("trapdoor");
            }
        }
        let mut find = Find(false);
        event.record(&mut find);
        assert!(!find.0, "a panic on purpose, in a connection's task");
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_panic_in_one_connection_leaves_the_others_alive() {
    let _trap = tracing::subscriber::set_default(Trap);
    let host = Host::start_with(|settings| settings.max_connections = 3).await;
    let mut other = host.peer().await;
    let group = other.start(1, &host.user, "read line; exit 4").await;
    assert!(group > 0);
    // More often than there are places: each panic gives its place back.
    for _ in 0..6 {
        let mut peer = Peer::greeted(host.stream().await).await;
        let stranger = PrivateKey::generate_ed25519().unwrap();
        let sshsig = peer.claims("trapdoor").sign(&stranger, stranger.public());
        let proof = crate::peer::proof("trapdoor", stranger.public(), sshsig);
        peer.send(remora_wire::native::Kind::Authenticate, 0, &proof).await;
        timeout(PATIENCE, peer.expect_end("its task is gone")).await.expect("the connection is closed");
    }
    other.send_bytes(&crate::peer::data(crate::peer::Stream::Stdin, 1, 0, b"\n")).await;
    let receipt: remora_wire::native::proto::Receipt =
        other.message_among(remora_wire::native::Kind::Receipt).await;
    let exited = remora_wire::native::proto::Exited { status: 4 };
    assert_eq!(receipt.outcome, Some(remora_wire::native::proto::receipt::Outcome::Exited(exited)));
    host.is_alive().await;
    host.stop().await;
}
