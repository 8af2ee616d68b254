//! Private key files. Passphrases aren't tried: their rounds are the file's to choose, up to a limit that takes minutes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remora_identity::KeyFile;

fuzz_target!(|input: &[u8]| {
    let _ = KeyFile::parse(input);
});
