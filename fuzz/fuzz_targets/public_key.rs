//! Public keys in SSH's and TLS's form, and as text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remora_identity::PublicKey;

fuzz_target!(|input: &[u8]| {
    if let Ok(key) = PublicKey::from_blob(input) {
        assert_eq!(key.blob(), input);
        assert_eq!(PublicKey::from_spki_der(&key.to_spki_der()).expect("its own DER"), key);
        assert_eq!(PublicKey::from_text(&key.to_text()).expect("its own text"), key);
        assert!(key.verify(input, b"message").is_err());
    }
    if let Ok(key) = PublicKey::from_spki_der(input) {
        assert_eq!(key.to_spki_der(), input);
    }
    let _ = PublicKey::from_text(&String::from_utf8_lossy(input));
});
