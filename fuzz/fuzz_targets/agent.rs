//! Answers of an SSH agent.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remora_identity::agent;

fuzz_target!(|input: &[u8]| {
    let _ = agent::decode_identities(input);
    let _ = agent::decode_signature(input);
    if let Some((header, _)) = input.split_first_chunk::<4>() {
        assert!(agent::frame_length(*header).map_or(true, |length| length <= 256 * 1024));
    }
});
