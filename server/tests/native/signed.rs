//! Receipts that are asked for as statements: signed by the host key that the connection has shown, whatever came of the job.

use std::process::Command;

use remora_identity::statement::{self, Outcome, verify};
use remora_identity::{KeyFile, PrivateKey};
use remora_net::tls::HostKeys;
use remora_wire::native::{ALPN, Kind, proto};

use crate::host::Host;
use crate::peer::start;

/// A key of a kind that this crate doesn't make itself.
fn key(kind: &str) -> PrivateKey {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-N", "", "-t", kind, "-f"]).arg(&path);
    assert!(command.status().expect("ssh-keygen (openssh-client) is needed").success());
    KeyFile::parse(&std::fs::read(path).unwrap()).unwrap().into_plain().unwrap()
}

#[tokio::test]
async fn every_kind_of_host_key_signs_the_receipt_and_only_where_it_is_asked() {
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let host_key = key(kind);
        let public = host_key.public().clone();
        let host =
            Host::start_with(|settings| settings.host_keys = Some(HostKeys::new([host_key], ALPN).unwrap()))
                .await;
        let mut peer = host.peer().await;

        let ask = |id, line: &str| proto::Start {
            job_id: vec![id; 16],
            sign_receipt: true,
            ..start(&host.user, line)
        };
        peer.send(Kind::Start, 1, &ask(1, "echo out; exit 3")).await;
        let receipt: proto::Receipt = peer.message_among(Kind::Receipt).await;
        let stated = verify(&receipt.statement, &receipt.sshsig, &public).unwrap();
        assert_eq!(stated.outcome, Outcome::Exited(3), "{kind}");
        assert_eq!(stated.command, statement::Command::line(b"echo out; exit 3"));
        assert_eq!(stated.stdout.unwrap().blake3, *blake3::hash(b"out\n").as_bytes());
        assert_eq!(stated.pid, Some(receipt.pid));
        assert_eq!(receipt.host_key_fingerprint, public.fingerprint());

        let nowhere = proto::Start { working_directory: Some(b"/nonexistent".to_vec()), ..ask(2, "true") };
        peer.send(Kind::Start, 3, &nowhere).await;
        let receipt: proto::Receipt = peer.message_among(Kind::Receipt).await;
        let stated = verify(&receipt.statement, &receipt.sshsig, &public).unwrap();
        assert!(matches!(stated.outcome, Outcome::NotStarted { errno: Some(2), .. }), "{stated:?}");
        assert_eq!((stated.stdout, stated.pid), (None, None));

        let receipt = peer.run(5, &host.user, "true").await;
        assert!(receipt.statement.is_empty() && receipt.sshsig.is_empty(), "nobody asked");
        drop(peer);
        host.stop().await;
    }
}

#[tokio::test]
async fn the_longest_command_fits_into_its_signed_receipt() {
    let host = Host::start().await;
    let mut peer = host.peer().await;
    let line = format!(": {}", "\u{1}".repeat(100_000));
    let ask = proto::Start { sign_receipt: true, ..start(&host.user, &line) };
    peer.send(Kind::Start, 1, &ask).await;
    let receipt: proto::Receipt = peer.message_among(Kind::Receipt).await;
    let text = String::from_utf8(receipt.statement).unwrap();
    let digest = blake3::hash(line.as_bytes()).to_hex();
    assert!(text.contains(&format!("\nline length {} blake3 {digest}\n", line.len())), "{text}");
    drop(peer);
    host.stop().await;
}
