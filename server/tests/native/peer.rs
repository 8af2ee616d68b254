//! A client that can say anything: frames put together by hand, in any order, true or not.

use std::future::poll_fn;
use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use remora_identity::auth::{AuthBinding, AuthContext, NAMESPACE};
use remora_identity::known_hosts::KnownHosts;
use remora_identity::{PrivateKey, PublicKey, sshsig};
use remora_net::{ByteStream, Carrier, tls};
use remora_wire::limits;
use remora_wire::native::{ALPN, Decoder, Kind, Piece, control_header, data_header, proto};

pub(crate) use remora_wire::native::Stream;

/// Far above anything that happens; a test that reaches it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a proof is about. A test changes what it wants to be wrong.
#[derive(Clone)]
pub(crate) struct Claims {
    pub(crate) exporter: [u8; 32],
    pub(crate) nonce: [u8; 32],
    pub(crate) alpn: &'static str,
    pub(crate) host_key: Vec<u8>,
    pub(crate) user: String,
    pub(crate) namespace: &'static str,
}

impl Claims {
    /// The SSHSIG of a key over these claims, for another public key if need be.
    pub(crate) fn sign(&self, key: &PrivateKey, presented: &PublicKey) -> Vec<u8> {
        let binding = AuthBinding::Tls { exporter: self.exporter };
        let context =
            AuthContext { binding, nonce: &self.nonce, alpn: self.alpn, host_key_blob: &self.host_key };
        sshsig::sign(key, self.namespace, &context.message(&self.user, presented.blob())).unwrap()
    }
}

pub(crate) struct Peer {
    carrier: Carrier,
    decoder: Decoder,
    input: BytesMut,
    exporter: [u8; 32],
    host_key: PublicKey,
    pub(crate) hello: proto::ServerHello,
}

impl Peer {
    /// Makes the TLS handshake and reads the server's hello. Says nothing of its own.
    pub(crate) async fn connect(stream: impl ByteStream + 'static) -> Peer {
        let kinds = KnownHosts::default().lookup("host", 1).host_key_kinds();
        let (carrier, shown) = tls::connect(stream, &kinds, ALPN).await.unwrap();
        let mut decoder = Decoder::new();
        decoder.set_control_limit(limits::CONTROL);
        let mut peer = Peer {
            carrier,
            decoder,
            input: BytesMut::new(),
            exporter: shown.exporter,
            host_key: shown.key,
            hello: proto::ServerHello::default(),
        };
        peer.hello = peer.message(Kind::ServerHello).await;
        peer
    }

    /// As [`Peer::connect`], and says hello.
    pub(crate) async fn greeted(stream: impl ByteStream + 'static) -> Peer {
        let mut peer = Peer::connect(stream).await;
        peer.say_hello().await;
        peer
    }

    /// As [`Peer::greeted`], and proves who the user is.
    pub(crate) async fn accepted(stream: impl ByteStream + 'static, user: &str, key: &PrivateKey) -> Peer {
        let mut peer = Peer::greeted(stream).await;
        let reply = peer.prove(user, key).await;
        assert!(reply.accepted, "{reply:?}");
        peer
    }

    pub(crate) async fn say_hello(&mut self) {
        let hello =
            proto::ClientHello { version: 1, output_window: limits::WINDOW, software: "a test".to_owned() };
        self.send(Kind::ClientHello, 0, &hello).await;
    }

    /// What a true proof on this connection claims.
    pub(crate) fn claims(&self, user: &str) -> Claims {
        Claims {
            exporter: self.exporter,
            nonce: self.hello.nonce.as_slice().try_into().unwrap(),
            alpn: ALPN,
            host_key: self.host_key.blob().to_vec(),
            user: user.to_owned(),
            namespace: NAMESPACE,
        }
    }

    pub(crate) async fn prove(&mut self, user: &str, key: &PrivateKey) -> proto::AuthReply {
        let sshsig = self.claims(user).sign(key, key.public());
        self.authenticate(user, key.public(), sshsig).await
    }

    pub(crate) async fn authenticate(
        &mut self,
        user: &str,
        key: &PublicKey,
        sshsig: Vec<u8>,
    ) -> proto::AuthReply {
        self.send(Kind::Authenticate, 0, &proof(user, key, sshsig)).await;
        self.message(Kind::AuthReply).await
    }

    pub(crate) async fn send(&mut self, kind: Kind, channel: u32, message: &impl Message) {
        self.send_bytes(&frame(kind, channel, message)).await;
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.carrier.write(&[bytes]).unwrap();
        // A server that has hung up already is not what is tested here.
        let _ = poll_fn(|cx| self.carrier.poll_flush(cx)).await;
    }

    /// Writes what waits: the end of the handshake, which otherwise leaves with the first frame.
    #[allow(dead_code, reason = "the tests on a virtual clock use it")]
    pub(crate) async fn flush(&mut self) {
        self.send_bytes(&[]).await;
    }

    /// The next frame; none when the server has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.decoder.next(&mut self.input).unwrap() {
                return Some(piece);
            }
            self.input.reserve(64 * 1024);
            match poll_fn(|cx| self.carrier.poll_read(cx, &mut self.input)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next control message, which must be of this kind.
    pub(crate) async fn message<M: Message + Default>(&mut self, wanted: Kind) -> M {
        match self.next().await {
            Some(Piece::Control { kind, body, .. }) if kind == wanted => M::decode(body).unwrap(),
            other => panic!("instead of {wanted}: {}", tell(other)),
        }
    }

    /// The next control message of this kind, whatever comes before.
    pub(crate) async fn message_among<M: Message + Default>(&mut self, wanted: Kind) -> M {
        loop {
            match self.next().await {
                Some(Piece::Control { kind, body, .. }) if kind == wanted => return M::decode(body).unwrap(),
                Some(Piece::Control { kind: Kind::Fault, body, .. }) => {
                    panic!("instead of {wanted}: {:?}", proto::Fault::decode(body))
                }
                Some(_) => {}
                None => panic!("instead of {wanted}: the end"),
            }
        }
    }

    /// The server names this fault of ours, and closes the connection. Frames of jobs that came before are let go.
    pub(crate) async fn expect_fault(&mut self, code: u32, what: &str) {
        loop {
            match self.next().await {
                Some(Piece::Control { kind: Kind::Fault, body, .. }) => {
                    let fault = proto::Fault::decode(body).unwrap();
                    assert_eq!(fault.code, code, "{what}: {}", fault.text);
                    break;
                }
                Some(_) => {}
                None => panic!("{what}: closed without a fault"),
            }
        }
        self.expect_end(what).await;
    }

    /// The server closes the connection, and says nothing more.
    pub(crate) async fn expect_end(&mut self, what: &str) {
        let next = self.next().await;
        assert!(next.is_none(), "{what}: {}", tell(next));
    }

    /// Starts a line on a channel and waits until it runs; its process id, which is its process group's too.
    pub(crate) async fn start(&mut self, channel: u32, user: &str, line: &str) -> i32 {
        self.send(Kind::Start, channel, &start(user, line)).await;
        let started: proto::Started = self.message_among(Kind::Started).await;
        i32::try_from(started.pid).unwrap()
    }

    /// Runs a line and gives its receipt.
    pub(crate) async fn run(&mut self, channel: u32, user: &str, line: &str) -> proto::Receipt {
        self.send(Kind::Start, channel, &start(user, line)).await;
        self.message_among(Kind::Receipt).await
    }
}

fn tell(piece: Option<Piece>) -> String {
    match piece {
        None => "the end".to_owned(),
        Some(Piece::Control { kind: Kind::Fault, body, .. }) => format!("{:?}", proto::Fault::decode(body)),
        Some(piece) => format!("{piece:?}"),
    }
}

pub(crate) fn proof(user: &str, key: &PublicKey, sshsig: Vec<u8>) -> proto::Authenticate {
    let proof = proto::KeyProof { key: key.blob().to_vec(), sshsig };
    proto::Authenticate { user: user.to_owned(), proof: Some(proto::authenticate::Proof::Key(proof)) }
}

pub(crate) fn start(user: &str, line: &str) -> proto::Start {
    proto::Start {
        job_id: vec![7; limits::JOB_ID],
        user: user.to_owned(),
        command: Some(proto::start::Command::Line(line.as_bytes().to_vec())),
        ..proto::Start::default()
    }
}

pub(crate) fn frame(kind: Kind, channel: u32, message: &impl Message) -> Vec<u8> {
    raw_frame(kind, channel, &message.encode_to_vec())
}

pub(crate) fn raw_frame(kind: Kind, channel: u32, body: &[u8]) -> Vec<u8> {
    [control_header(kind, channel, body.len() as u32).as_slice(), body].concat()
}

pub(crate) fn data(stream: Stream, channel: u32, offset: u64, bytes: &[u8]) -> Vec<u8> {
    [data_header(stream, channel, offset, bytes.len() as u32).as_slice(), bytes].concat()
}
