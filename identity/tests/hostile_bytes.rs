//! Every decoder against arbitrary bytes and against mutations of valid ones: an answer, never a panic (PITFALLS 13).
//!
//! The seed is fixed, so a failure is the same failure everywhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

use std::sync::LazyLock;

use base64ct::{Base64, Encoding as _};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed};
use remora_identity::auth::{Attempt, AuthBinding, AuthContext, NAMESPACE, authenticate, offer_acceptable};
use remora_identity::statement::{self, ReceiptFile, ReceiptKey, Statement};
use remora_identity::{
    AuthorizedKeys, KeyFile, KeyState, KnownHosts, PrivateKey, PublicKey, UserName, agent, sshsig,
};

fn config() -> Config {
    Config {
        cases: 512,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(0x7265_6d6f_7261),
        ..Config::default()
    }
}

/// The same key in every run: the seed is 32 sevens, as PKCS#8 (RFC 8410, section 7).
static KEY: LazyLock<PrivateKey> = LazyLock::new(sevens);

fn sevens() -> PrivateKey {
    let mut der = vec![0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
    der.extend_from_slice(&[7; 32]);
    KeyFile::parse(pem("PRIVATE KEY", &der).as_bytes()).unwrap().into_plain().unwrap()
}

/// What a host says of a command.
const STATEMENT: &str = r#"remora-receipt-v1
host "web1"
host-key SHA256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
boot-id 01010101010101010101010101010101
job abababababababababababababababab
user "ada"
session "build"
session-directory "/srv"
directory "/srv/na\xc3\xafve\n"
argv "ls" "a \"b\"" ""
outcome exited 3
step -
errno -
reason -
ended-by limit output
pid 4242
started 1764061308.123456789
ended 1764061309.000000001
wall 0.876543212
user-time 1.500000
system-time 0.000012
peak-memory 65536
memory-limit cgroup
stdin -
stdout 12 DIGEST closed-early
stderr 0 DIGEST closed-early
spool drop-oldest 4096 8192 0 reached lost 7 0
"#;

fn statement() -> Statement {
    Statement::parse(STATEMENT.replace("DIGEST", &"07".repeat(32)).as_bytes()).unwrap()
}

fn pem(label: &str, content: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", Base64::encode_string(content))
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// What `ssh-keygen -N` writes, behind its base64, with a section that nothing decrypts.
fn encrypted_file() -> Vec<u8> {
    let mut options = Vec::new();
    string(&mut options, &[9; 16]);
    options.extend_from_slice(&1u32.to_be_bytes());
    let mut file = b"openssh-key-v1\0".to_vec();
    string(&mut file, b"aes256-ctr");
    string(&mut file, b"bcrypt");
    string(&mut file, &options);
    file.extend_from_slice(&1u32.to_be_bytes());
    string(&mut file, KEY.public().blob());
    string(&mut file, &[3; 160]);
    file
}

/// A mutation: overwrite, cut, insert or double some bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Length(prop::sample::Index, u32),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let at = any::<prop::sample::Index>;
    let one = prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        1 => at().prop_map(Mutation::Cut),
        2 => (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        2 => (at(), 1..9usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        3 => (at(), prop_oneof![Just(0), Just(1), 0..300u32, Just(0x1000_0000), Just(u32::MAX)])
            .prop_map(|(at, length)| Mutation::Length(at, length)),
    ];
    prop::collection::vec(one, 1..5)
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        let length = bytes.len();
        if length == 0 {
            return bytes;
        }
        match mutation {
            Mutation::Set(at, byte) => bytes[at.index(length)] = *byte,
            Mutation::Cut(at) => bytes.truncate(at.index(length)),
            Mutation::Insert(at, new) => {
                let at = at.index(length);
                bytes.splice(at..at, new.iter().copied());
            }
            Mutation::Remove(at, count) => {
                let at = at.index(length);
                bytes.drain(at..length.min(at + count));
            }
            Mutation::Length(at, value) => {
                let at = at.index(length);
                let end = length.min(at + 4);
                bytes[at..end].copy_from_slice(&value.to_be_bytes()[..end - at]);
            }
        }
    }
    bytes
}

/// Everything that takes bytes from outside.
fn feed(bytes: &[u8]) {
    if let Ok(key) = PublicKey::from_blob(bytes) {
        assert_eq!(key.blob(), bytes, "a key has one encoding");
        assert_eq!(PublicKey::from_spki_der(&key.to_spki_der()).unwrap(), key);
        assert!(key.verify(bytes, b"message").is_err());
    }
    if let Ok(key) = PublicKey::from_spki_der(bytes) {
        assert_eq!(key.to_spki_der(), bytes, "a key has one DER encoding");
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = PublicKey::from_text(&text);
    let _ = UserName::parse(&text);
    if let Ok(KeyFile { state: KeyState::Encrypted(key), .. }) = KeyFile::parse(bytes) {
        assert!(format!("{key:?}").ends_with(", ..)"));
    }
    assert!(KEY.public().verify(bytes, b"message").is_err());
    assert!(sshsig::verify(bytes, KEY.public(), NAMESPACE, b"message").is_err());
    if let Ok(list) = AuthorizedKeys::parse(bytes) {
        assert!(list.keys().len() + list.problems().len() <= bytes.split(|byte| *byte == b'\n').count());
    }
    if let Ok(known) = KnownHosts::parse("file", bytes) {
        let keys = known.lookup("web3", 7366);
        let _ = (keys.judge(KEY.public()), keys.host_key_kinds());
    }
    if let Ok(statement) = Statement::parse(bytes) {
        assert_eq!(statement.compose().as_bytes(), bytes, "a statement has one text");
    }
    if let Ok(file) = ReceiptFile::parse(bytes) {
        assert_eq!(ReceiptFile::parse(&file.compose()), Ok(file));
    }
    assert!(statement::verify(bytes, bytes, KEY.public()).is_err());
    let _ = agent::decode_identities(bytes);
    let _ = agent::decode_signature(bytes);
    let _ = offer_acceptable(bytes, &AuthorizedKeys::default());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        feed(&bytes);
    }

    #[test]
    fn arbitrary_lines_never_panic(
        text in "([ \t@!|#\"\\\\=,*?\\[\\]:\r\n]|ssh-ed25519|ssh-rsa|AAAAC3NzaC1lZDI1NTE5AAAAI|web3|cert-authority|1){0,60}"
    ) {
        feed(text.as_bytes());
    }

    #[test]
    fn mutated_public_keys_never_panic(changes in mutations()) {
        feed(&mutate(KEY.public().blob().to_vec(), &changes));
        feed(&mutate(KEY.public().to_spki_der(), &changes));
    }

    #[test]
    fn mutated_rsa_and_ecdsa_blobs_never_panic(changes in mutations()) {
        for blob in samples() {
            feed(&mutate(blob, &changes));
        }
    }

    #[test]
    fn mutated_private_key_files_never_panic(changes in mutations()) {
        let file = KEY.to_openssh("comment").unwrap();
        feed(&mutate(file.as_bytes().to_vec(), &changes));
    }

    #[test]
    fn mutated_contents_of_private_key_files_never_panic(changes in mutations()) {
        let file = KEY.to_openssh("comment").unwrap();
        let base64: String = file.lines().filter(|line| !line.starts_with('-')).collect();
        let content = mutate(Base64::decode_vec(&base64).unwrap(), &changes);
        let der = mutate(KEY.to_private_key_der().bytes().to_vec(), &changes);
        for (label, content) in [
            ("OPENSSH PRIVATE KEY", &content),
            ("PRIVATE KEY", &der),
            ("EC PRIVATE KEY", &der),
            ("RSA PRIVATE KEY", &der),
        ] {
            if let Ok(file) = KeyFile::parse(pem(label, content).as_bytes())
                && let KeyState::Plain(key) = file.state
            {
                // What is accepted is whole: it signs what its public half verifies.
                key.public().verify(&key.sign(b"message").unwrap(), b"message").unwrap();
            }
        }
    }

    #[test]
    fn mutated_encrypted_files_never_panic(changes in mutations()) {
        let content = encrypted_file();
        assert!(matches!(
            KeyFile::parse(pem("OPENSSH PRIVATE KEY", &content).as_bytes()).unwrap().state,
            KeyState::Encrypted(_)
        ));
        // Nothing is decrypted: a mutated number of rounds may be a slow one.
        let content = mutate(content, &changes);
        feed(pem("OPENSSH PRIVATE KEY", &content).as_bytes());
    }

    #[test]
    fn mutated_signatures_never_verify_and_never_panic(changes in mutations()) {
        let good = sshsig::sign(&KEY, NAMESPACE, b"message").unwrap();
        let bytes = mutate(good.clone(), &changes);
        let verdict = sshsig::verify(&bytes, KEY.public(), NAMESPACE, b"message");
        prop_assert_eq!(verdict.is_ok(), bytes == good);
        if bytes != good {
            feed(&bytes);
        }
    }

    #[test]
    fn mutated_receipts_never_verify_and_never_panic(changes in mutations()) {
        let signed = ReceiptKey::new(sevens()).sign(statement()).unwrap();
        statement::verify(signed.text.as_bytes(), &signed.sshsig, KEY.public()).unwrap();
        let text = mutate(signed.text.clone().into_bytes(), &changes);
        let verdict = statement::verify(&text, &signed.sshsig, KEY.public());
        prop_assert_eq!(verdict.is_ok(), text == signed.text.as_bytes());
        feed(&text);
        let file = ReceiptFile { statement: signed.text.into_bytes(), sshsig: Some(signed.sshsig) };
        feed(&mutate(file.compose(), &changes));
    }

    #[test]
    fn mutated_attempts_authenticate_nobody_else(changes in mutations(), in_key in any::<bool>()) {
        let nonce = [1; 32];
        let context = AuthContext {
            binding: AuthBinding::Tls { exporter: [2; 32] },
            nonce: &nonce,
            alpn: "remora/1",
            host_key_blob: b"host",
        };
        let key_blob = KEY.public().blob().to_vec();
        let signature = sshsig::sign(&KEY, NAMESPACE, &context.message("ada", &key_blob)).unwrap();
        let (key, sig) = match in_key {
            true => (mutate(key_blob.clone(), &changes), signature.clone()),
            false => (key_blob.clone(), mutate(signature.clone(), &changes)),
        };
        let list = AuthorizedKeys::parse(KEY.public().to_text().as_bytes()).unwrap();
        let verdict = authenticate(Attempt { user: "ada", key_blob: &key, sshsig: &sig }, &context, &list);
        prop_assert_eq!(verdict.is_ok(), key == key_blob && sig == signature);
    }

    #[test]
    fn mutated_lists_never_panic(changes in mutations()) {
        let key = KEY.public().to_text();
        let text = format!("command=\"a b\" {key} x\n{key}\n[web3]:7366 {key}\n@revoked web* {key}\n");
        feed(&mutate(text.into_bytes(), &changes));
        let hashed = remora_identity::known_hosts::new_line("web3", 7366, KEY.public(), Some(&[1; 20])).unwrap();
        feed(&mutate(hashed.into_bytes(), &changes));
    }

    #[test]
    fn mutated_agent_answers_never_panic(changes in mutations()) {
        let blob = KEY.public().blob();
        let mut answer = vec![12, 0, 0, 0, 2];
        for field in [blob, b"comment", blob, b""] {
            answer.extend_from_slice(&(field.len() as u32).to_be_bytes());
            answer.extend_from_slice(field);
        }
        assert_eq!(agent::decode_identities(&answer).unwrap().identities.len(), 2);
        feed(&mutate(answer, &changes));
    }
}

/// Blobs that have the form of RSA and ECDSA keys.
fn samples() -> Vec<Vec<u8>> {
    let mut rsa = Vec::new();
    string(&mut rsa, b"ssh-rsa");
    string(&mut rsa, &[1, 0, 1]);
    string(&mut rsa, &[&[0][..], &[0xc1; 256]].concat());
    let mut ecdsa = Vec::new();
    string(&mut ecdsa, b"ecdsa-sha2-nistp256");
    string(&mut ecdsa, b"nistp256");
    string(&mut ecdsa, &[4; 65]);
    for blob in [&rsa, &ecdsa] {
        PublicKey::from_blob(blob).unwrap();
    }
    vec![rsa, ecdsa]
}
