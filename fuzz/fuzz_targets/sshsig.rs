//! Signatures and proofs: nothing that a fuzzer makes is valid.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use remora_identity::auth::{Attempt, AuthBinding, AuthContext, authenticate};
use remora_identity::{AuthorizedKeys, PrivateKey, sshsig};

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate_ed25519().expect("a key"));

fuzz_target!(|input: &[u8]| {
    assert!(sshsig::verify(input, KEY.public(), "remora-auth-v1", b"message").is_err());
    let keys = AuthorizedKeys::parse(KEY.public().to_text().as_bytes()).expect("one line");
    let context = AuthContext {
        binding: AuthBinding::Local { peer_uid: 0 },
        nonce: &[0; 32],
        alpn: "remora/1",
        host_key_blob: &[],
    };
    let attempt = Attempt { user: "ada", key_blob: KEY.public().blob(), sshsig: input };
    assert!(authenticate(attempt, &context, &keys).is_err());
});
