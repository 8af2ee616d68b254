//! Peers that misbehave, as a user sees them.

use crate::bench::{framed, remora, sending, status, stderr, stdout};

#[test]
fn malformed_replies_are_197_and_cut_ones_198() {
    let long = format!("{{\"total_size\":{}}}", "9".repeat(200));
    for (wire, bytes, expected, words) in [
        ("length", (-1i32).to_le_bytes().to_vec(), 197, "negative length"),
        ("header", 65_537i32.to_le_bytes().to_vec(), 197, "65536 is the limit"),
        ("header", framed("nonsense", b""), 197, "not JSON"),
        ("header", framed("{\"total_size\":\"7\"}", b""), 197, "not a number"),
        ("header", framed(&long, b""), 197, "200 digits"),
        ("length", b"\x05\0\0\0he".to_vec(), 198, "stopped after 2 of the 5 bytes"),
        ("header", framed("{\"total_size\":5}", b"he"), 198, "stopped after 2 of the 5 bytes"),
        ("header", b"\x05\0\0\0{".to_vec(), 198, "stopped after 1 of the 5 bytes of the reply's header"),
        ("length", b"\x05".to_vec(), 198, "stopped after 1 of the 4 bytes"),
        ("length", Vec::new(), 198, "without a reply"),
    ] {
        let output = remora(&["exec", &format!("{wire}://{}", sending(bytes)), "x"]);
        assert_eq!(status(&output), expected, "{words}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}

#[test]
fn a_wrong_digest_is_an_error_after_the_output() {
    for member in [format!("\"md5\":\"{}\"", "0".repeat(32)), format!("\"blake3\":\"{}\"", "0".repeat(64))] {
        let bytes = framed(&format!("{{\"total_size\":2,{member},\"exit_code\":0}}"), b"ok");
        let url = format!("header://{}", sending(bytes.clone()));
        let output = remora(&["exec", &url, "x"]);
        assert_eq!((status(&output), stdout(&output).as_str()), (198, "ok"));
        assert!(stderr(&output).contains("digest differs"), "{}", stderr(&output));
        // Nor does the receipt say success.
        let output = remora(&["exec", "--json", &format!("header://{}", sending(bytes)), "x"]);
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["outcome"]["class"], "lost");
    }
}

#[test]
fn an_ending_the_peer_does_not_know_is_no_success() {
    let bytes = framed("{\"total_size\":2,\"exit_code\":null,\"signal\":null}", b"ok");
    let output = remora(&["exec", &format!("header://{}", sending(bytes)), "x"]);
    assert_eq!((status(&output), stdout(&output).as_str()), (198, "ok"));
}

#[test]
fn messages_hold_no_escapes_of_the_peers() {
    let folder = tempfile::tempdir().unwrap();
    let name = "..\\u001b[2J";
    let bytes = framed(&format!("{{\"total_size\":0,\"filename\":\"{name}/..\"}}"), b"");
    let url = format!("header://{}", sending(bytes));
    let output = remora(&["exec", "--save", folder.path().to_str().unwrap(), &url, "x"]);
    assert_eq!(status(&output), 197);
    assert!(!stderr(&output).contains('\u{1b}'), "{:?}", stderr(&output));
}
