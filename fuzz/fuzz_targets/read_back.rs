//! What a server reads back from its disk, and what keepers tell: records, notes, sessions, outcomes.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| remora_server::read_back(input));
