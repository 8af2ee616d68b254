//! Receipts: a file, the statement in it, and a signature that no fuzzer can make.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use remora_identity::PrivateKey;
use remora_identity::statement::{ReceiptFile, Statement, verify};

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate_ed25519().expect("a key"));

fuzz_target!(|input: &[u8]| {
    if let Ok(statement) = Statement::parse(input) {
        assert_eq!(statement.compose().as_bytes(), input, "a statement has one text");
    }
    if let Ok(file) = ReceiptFile::parse(input) {
        assert_eq!(ReceiptFile::parse(&file.compose()).as_ref(), Ok(&file));
        let sshsig = file.sshsig.unwrap_or_default();
        assert!(verify(&file.statement, &sshsig, KEY.public()).is_err());
    }
});
