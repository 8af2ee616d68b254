//! What people type: targets, listening URLs, user names, configuration files.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remora_identity::UserName;

fuzz_target!(|input: &str| {
    if let Ok(target) = input.parse::<remora_client::Target>() {
        assert!(!target.to_string().chars().any(char::is_control));
    }
    if let Ok(url) = input.parse::<remora_server::ListenUrl>() {
        assert_eq!(url.to_string().parse::<remora_server::ListenUrl>().expect("its own text"), url);
    }
    let _ = UserName::parse(input);
    let _ = remora_server::FileConfig::parse(input);
});
