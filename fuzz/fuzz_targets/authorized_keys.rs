//! `authorized_keys` files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remora_identity::AuthorizedKeys;

fuzz_target!(|input: &[u8]| {
    if let Ok(list) = AuthorizedKeys::parse(input) {
        assert!(list.keys().len() <= input.split(|byte| *byte == b'\n').count());
    }
});
