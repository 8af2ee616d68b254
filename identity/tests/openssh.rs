//! The real `ssh-keygen` as the other side. Where it is missing these tests fail: install openssh-client.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by a panic, in its helpers too"
)]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64ct::{Base64, Encoding as _};
use remora_identity::known_hosts::new_line;
use remora_identity::statement::{self, ReceiptFile, ReceiptKey, Statement};
use remora_identity::{
    KeyAlgorithm, KeyError, KeyFile, KeyState, KnownHosts, PrivateKey, PrivateKeyDer, PublicKey, Verdict,
    sshsig,
};

const KINDS: [(&str, &str); 7] = [
    ("ed25519", "256"),
    ("ecdsa", "256"),
    ("ecdsa", "384"),
    ("ecdsa", "521"),
    ("rsa", "2048"),
    ("rsa", "3072"),
    ("rsa", "4096"),
];

/// Runs ssh-keygen with `input` on its stdin and gives its stdout.
fn ssh_keygen(arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, String> {
    let mut child = Command::new("ssh-keygen")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ssh-keygen is needed; install openssh-client");
    child.stdin.take().unwrap().write_all(input).ok();
    let output = child.wait_with_output().unwrap();
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!("ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn generate(folder: &Path, (kind, bits): (&str, &str), more: &[&str]) -> PathBuf {
    let path = folder.join(format!("{kind}-{bits}"));
    let mut arguments = vec!["-q", "-t", kind, "-b", bits, "-C", "a comment", "-f", text(&path)];
    arguments.extend_from_slice(more);
    ssh_keygen(&arguments, b"").unwrap();
    path
}

fn public_of(path: &Path) -> PublicKey {
    PublicKey::from_text(&fs::read_to_string(path.with_extension("pub")).unwrap()).unwrap()
}

fn plain(path: &Path) -> PrivateKey {
    KeyFile::parse(&fs::read(path).unwrap()).unwrap().into_plain().unwrap()
}

fn signs(key: &PrivateKey) {
    let signature = key.sign(b"message").unwrap();
    key.public().verify(&signature, b"message").unwrap();
    assert!(key.public().verify(&signature, b"massage").is_err());
}

#[test]
fn every_kind_of_key_that_ssh_keygen_makes_is_read_and_has_its_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let path = generate(folder.path(), kind, &["-N", ""]);
        let key = plain(&path);
        assert_eq!(*key.public(), public_of(&path), "{kind:?}");
        signs(&key);

        let listed = ssh_keygen(&["-l", "-f", text(&path)], b"").unwrap();
        let listed = String::from_utf8(listed).unwrap();
        let fields: Vec<&str> = listed.split_whitespace().collect();
        assert_eq!(fields[1], key.public().fingerprint());
        assert_eq!(*fields.last().unwrap(), format!("({})", key.public().algorithm()));
        if let KeyAlgorithm::Rsa { bits } = key.public().algorithm() {
            assert_eq!(bits.to_string(), kind.1);
        }
        let spki = key.public().to_spki_der();
        assert_eq!(PublicKey::from_spki_der(&spki).unwrap(), *key.public());
        let pem = ssh_keygen(&["-e", "-m", "PKCS8", "-f", text(&path)], b"");
        // Ed25519 has no PKCS8 export in every version of ssh-keygen; the bytes of RFC 8410 have their own test.
        if kind.0 != "ed25519" {
            let pem = String::from_utf8(pem.unwrap()).unwrap();
            let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
            assert_eq!(Base64::decode_vec(&base64).unwrap(), spki, "{kind:?}");
        }
    }
}

#[test]
fn encrypted_keys_open_with_their_passphrase_only() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [KINDS[0], KINDS[1], KINDS[4]] {
        let path = generate(folder.path(), kind, &["-N", "correct horse", "-a", "2"]);
        let file = KeyFile::parse(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(file.public, public_of(&path), "the public half needs no passphrase");
        let KeyState::Encrypted(encrypted) = file.state else { panic!("not encrypted") };
        assert_eq!(encrypted.decrypt(b"wrong horse").unwrap_err(), KeyError::WrongPassphrase);
        assert_eq!(encrypted.decrypt(b"").unwrap_err(), KeyError::WrongPassphrase);
        let key = encrypted.decrypt(b"correct horse").unwrap();
        assert_eq!(*key.public(), public_of(&path));
        signs(&key);
    }
}

#[test]
fn every_cipher_that_ssh_keygen_offers_and_we_name_is_decrypted() {
    let folder = tempfile::tempdir().unwrap();
    for cipher in [
        "aes128-cbc",
        "aes256-cbc",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
    ] {
        let inner = folder.path().join(cipher);
        fs::create_dir(&inner).unwrap();
        let path = generate(&inner, KINDS[0], &["-N", "pass phrase", "-a", "1", "-Z", cipher]);
        let KeyState::Encrypted(key) = KeyFile::parse(&fs::read(&path).unwrap()).unwrap().state else {
            panic!("{cipher}")
        };
        assert_eq!(key.decrypt(b"pass phrasd").unwrap_err(), KeyError::WrongPassphrase, "{cipher}");
        signs(&key.decrypt(b"pass phrase").unwrap_or_else(|error| panic!("{cipher}: {error}")));
    }
}

#[test]
fn older_pem_files_are_read_unless_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    for (kind, format) in [
        (KINDS[1], "PEM"),
        (KINDS[2], "PEM"),
        (KINDS[3], "PEM"),
        (KINDS[4], "PEM"),
        (KINDS[1], "PKCS8"),
        (KINDS[5], "PKCS8"),
    ] {
        let inner = folder.path().join(format!("{}{}{format}", kind.0, kind.1));
        fs::create_dir(&inner).unwrap();
        let path = generate(&inner, kind, &["-N", "", "-m", format]);
        assert!(!fs::read_to_string(&path).unwrap().contains("OPENSSH"), "{kind:?} {format}");
        let key = plain(&path);
        assert_eq!(*key.public(), public_of(&path));
        signs(&key);
    }
    let path = generate(folder.path(), KINDS[4], &["-N", "pass phrase", "-m", "PEM"]);
    let error = KeyFile::parse(&fs::read(&path).unwrap()).unwrap_err();
    assert_eq!(error, KeyError::LegacyEncryption);
}

#[test]
fn an_rsa_key_that_is_too_short_is_told_to_be() {
    let folder = tempfile::tempdir().unwrap();
    for (format, passphrase) in [("RFC4716", ""), ("PEM", ""), ("PKCS8", ""), ("RFC4716", "secret")] {
        let inner = folder.path().join(format!("{format}{passphrase}"));
        fs::create_dir(&inner).unwrap();
        let path = generate(&inner, ("rsa", "1024"), &["-a", "1", "-N", passphrase, "-m", format]);
        let error = match KeyFile::parse(&fs::read(&path).unwrap()) {
            Ok(KeyFile { state: KeyState::Encrypted(key), .. }) => {
                key.decrypt(passphrase.as_bytes()).unwrap_err()
            }
            other => other.unwrap_err(),
        };
        assert_eq!(error, KeyError::RsaSize { bits: 1024 }, "{format}");
        assert_eq!(error.to_string(), "an RSA key of 1024 bits is too short: 2048 to 8192 are used");
        assert!(error.hint().is_some());
    }
}

#[test]
fn der_for_tls_is_what_aws_lc_takes() {
    use aws_lc_rs::signature as s;
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let key = plain(&generate(folder.path(), kind, &["-N", ""]));
        let der = key.to_private_key_der();
        let read = match (&der, kind.1) {
            (PrivateKeyDer::Pkcs8(der), _) => s::Ed25519KeyPair::from_pkcs8(der).is_ok(),
            (PrivateKeyDer::Pkcs1(der), _) => s::RsaKeyPair::from_der(der).is_ok(),
            (PrivateKeyDer::Sec1(der), bits) => {
                let algorithm = match bits {
                    "256" => &s::ECDSA_P256_SHA256_ASN1_SIGNING,
                    "384" => &s::ECDSA_P384_SHA384_ASN1_SIGNING,
                    _ => &s::ECDSA_P521_SHA512_ASN1_SIGNING,
                };
                s::EcdsaKeyPair::from_private_key_der(algorithm, der).is_ok()
            }
            _ => false,
        };
        assert!(read, "{kind:?} {der:?}");
    }
}

#[test]
fn ssh_keygen_reads_the_key_we_make() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made");
    for comment in
        ["", "x", "remora host key", "a comment of quite some length, so that another line is needed"]
    {
        let key = PrivateKey::generate_ed25519().unwrap();
        fs::write(&path, key.to_openssh(comment).unwrap().as_bytes()).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let public = String::from_utf8(ssh_keygen(&["-y", "-f", text(&path)], b"").unwrap()).unwrap();
        assert_eq!(public.trim_end(), format!("{} {comment}", key.public().to_text()).trim_end());
    }
}

fn armor(sshsig: &[u8]) -> String {
    let base64 = Base64::encode_string(sshsig);
    let lines: Vec<&str> = base64.as_bytes().chunks(70).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
}

fn unarmor(armored: &[u8]) -> Vec<u8> {
    let text = str::from_utf8(armored).unwrap();
    let base64: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    Base64::decode_vec(&base64).unwrap()
}

#[test]
fn ssh_keygen_verifies_what_we_sign_and_we_what_it_signs() {
    let folder = tempfile::tempdir().unwrap();
    let namespace = remora_identity::auth::NAMESPACE;
    let message = b"a message\0 with bytes\xff";
    for kind in KINDS {
        let path = generate(folder.path(), kind, &["-N", ""]);
        let key = plain(&path);

        let ours = sshsig::sign(&key, namespace, message).unwrap();
        let signature = folder.path().join("message.sig");
        fs::write(&signature, armor(&ours)).unwrap();
        let signers = folder.path().join("allowed_signers");
        fs::write(&signers, format!("ada {}\n", key.public().to_text())).unwrap();
        let verify = |namespace: &str, message: &[u8]| {
            ssh_keygen(
                &["-Y", "verify", "-f", text(&signers), "-I", "ada", "-n", namespace, "-s", text(&signature)],
                message,
            )
        };
        verify(namespace, message).unwrap();
        assert!(verify("file", message).is_err());
        assert!(verify(namespace, b"another message").is_err());

        let theirs = ssh_keygen(&["-Y", "sign", "-f", text(&path), "-n", namespace], message).unwrap();
        let theirs = unarmor(&theirs);
        sshsig::verify(&theirs, key.public(), namespace, message).unwrap();
        assert!(sshsig::verify(&theirs, key.public(), "file", message).is_err());
        assert!(sshsig::verify(&theirs, key.public(), namespace, b"another message").is_err());
    }
}

#[test]
fn ssh_keygen_verifies_a_receipt_of_every_kind_of_host_key() {
    let folder = tempfile::tempdir().unwrap();
    for kind in KINDS {
        let key = ReceiptKey::new(plain(&generate(folder.path(), kind, &["-N", ""])));
        let signed = key.sign(statement()).unwrap();
        let receipt = ReceiptFile { statement: signed.text.into_bytes(), sshsig: Some(signed.sshsig) };
        let file = String::from_utf8(receipt.compose()).unwrap();
        let at = file.find("-----BEGIN").unwrap();
        let signature = folder.path().join("sig");
        fs::write(&signature, &file[at..]).unwrap();
        let signers = folder.path().join("allowed_signers");
        fs::write(&signers, format!("web1 {}\n", key.public().to_text())).unwrap();
        let verify = |namespace, message: &str| {
            let arguments =
                ["-Y", "verify", "-n", namespace, "-I", "web1", "-f", text(&signers), "-s", text(&signature)];
            ssh_keygen(&arguments, message.as_bytes())
        };
        verify("remora-receipt-v1", &file[..at]).unwrap();
        assert!(verify("remora-receipt-v1", &file[..at].replace("exited 0", "exited 1")).is_err());
        assert!(verify("file", &file[..at]).is_err());
    }
}

fn statement() -> Statement {
    Statement {
        host: Statement::text(b"web1"),
        host_key: None,
        boot_id: [1; 16],
        job_id: [2; 16],
        user: Statement::text(b"ada"),
        session: None,
        directory: Statement::text(b"/"),
        command: statement::Command::line(b"true"),
        outcome: statement::Outcome::Exited(0),
        ended_by: None,
        pid: Some(1),
        started_unix_ns: Some(1),
        ended_unix_ns: Some(2),
        wall_ns: 1,
        user_us: 0,
        system_us: 0,
        peak_memory_bytes: None,
        memory_limit: None,
        stdin: None,
        stdout: None,
        stderr: None,
        spool: None,
    }
}

#[test]
fn names_that_ssh_keygen_hashed_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let a = PrivateKey::generate_ed25519().unwrap().public().clone();
    let b = PrivateKey::generate_ed25519().unwrap().public().clone();
    let path = folder.path().join("known_hosts");
    let line = |host, port, key| new_line(host, port, key, None).unwrap();
    fs::write(&path, line("web3", 7366, &a) + &line("web4", 22, &b) + &line("2001:db8::1", 7366, &b))
        .unwrap();
    ssh_keygen(&["-H", "-f", text(&path)], b"").unwrap();
    let hashed = fs::read(&path).unwrap();
    assert!(!String::from_utf8_lossy(&hashed).contains("web"));

    let known = KnownHosts::parse("known_hosts", &hashed).unwrap();
    assert!(matches!(known.lookup("web3", 7366).judge(&a), Verdict::Trusted { .. }));
    assert!(matches!(known.lookup("web3", 7366).judge(&b), Verdict::Mismatch { .. }));
    assert!(matches!(known.lookup("web4", 22).judge(&b), Verdict::Trusted { .. }));
    assert!(matches!(known.lookup("web4", 7366).judge(&b), Verdict::Trusted { .. }));
    assert!(matches!(known.lookup("2001:db8::1", 7366).judge(&b), Verdict::Trusted { .. }));
    assert!(known.lookup("web3", 22).is_empty());
}

#[test]
fn ssh_keygen_finds_the_lines_we_write() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    let key = PrivateKey::generate_ed25519().unwrap().public().clone();
    for salt in [None, Some([5; 20])] {
        for (host, port, name) in
            [("Web3", 7366, "[web3]:7366"), ("web3", 22, "web3"), ("::1", 7366, "[::1]:7366")]
        {
            fs::write(&path, new_line(host, port, &key, salt.as_ref()).unwrap()).unwrap();
            let found = ssh_keygen(&["-F", name, "-f", text(&path)], b"").unwrap();
            assert!(String::from_utf8(found).unwrap().contains(&key.to_text()), "{name} {salt:?}");
            assert!(ssh_keygen(&["-F", "other", "-f", text(&path)], b"").is_err());
        }
    }
}

#[test]
fn wildcards_and_negations_match_where_ssh_keygen_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    let key = PrivateKey::generate_ed25519().unwrap().public().clone();
    for names in
        ["*", "web?", "*,!web3", "!web4,web*", "[web*]:7366", "web3,web4", "[web3]:*", "WEB3", "!web3", "w*3"]
    {
        fs::write(&path, format!("{names} {}\n", key.to_text())).unwrap();
        let known = KnownHosts::parse("known_hosts", &fs::read(&path).unwrap()).unwrap();
        for (host, port, name) in [("web3", 22, "web3"), ("web3", 7366, "[web3]:7366"), ("mail", 22, "mail")]
        {
            let theirs = ssh_keygen(&["-F", name, "-f", text(&path)], b"").is_ok();
            let ours = !known.lookup(host, port).exact.is_empty();
            assert_eq!(ours, theirs, "{names} for {name}");
        }
    }
}
