//! `known_hosts` files, looked up under a name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remora_identity::known_hosts::KnownHosts;

fuzz_target!(|input: &[u8]| {
    if let Ok(known) = KnownHosts::parse("file", input) {
        for port in [22, 7366] {
            let keys = known.lookup("web3", port);
            let _ = keys.host_key_kinds();
            for recorded in keys.exact.iter().chain(&keys.plain) {
                let _ = recorded.key.as_ref().map(|key| keys.judge(key));
            }
        }
    }
});
