//! The help texts, reviewed like code: what they say, and that they fit a terminal of 80 columns.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[test]
fn the_help_texts_are_these_and_fit_80_columns() {
    let mut all = String::new();
    for words in [
        &["--help"][..],
        &["exec", "--help"],
        &["shell", "--help"],
        &["pty", "--help"],
        &["sessions", "--help"],
        &["jobs", "--help"],
        &["attach", "--help"],
        &["logs", "--help"],
        &["wait", "--help"],
        &["signal", "--help"],
        &["stop", "--help"],
        &["renew", "--help"],
        &["detach", "--help"],
        &["serve", "--help"],
        &["receipt", "--help"],
        &["receipt", "verify", "--help"],
        &["receipt", "show", "--help"],
        &["wire", "decode", "--help"],
    ] {
        let help = Command::new(env!("CARGO_BIN_EXE_remora")).args(words).output().unwrap();
        assert!(help.status.success());
        let text = String::from_utf8(help.stdout).unwrap();
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        all.push_str(&format!("$ remora {}\n{text}\n", words.join(" ")));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/help.txt");
    if std::env::var_os("REMORA_GOLDEN").is_some() {
        std::fs::write(path, &all).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert!(
        all == golden,
        "REMORA_GOLDEN=1 writes {path} anew; read the difference before you commit it\n{all}"
    );
}
