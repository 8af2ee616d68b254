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
fn a_peer_that_closes_at_once_may_be_a_server_that_does_not_serve_us() {
    for wire in ["length", "header"] {
        let output = remora(&["exec", &format!("{wire}://{}", sending(Vec::new())), "x"]);
        assert_eq!(status(&output), 198, "{}", stderr(&output));
        assert!(
            stderr(&output).contains(
                "hint: the command may have run; but a server closes at once on peers that it doesn't serve"
            ),
            "{}",
            stderr(&output)
        );
    }
    // With the request unread the connection is reset, on any wire.
    for wire in ["raw", "length", "header"] {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let refusing = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            // Something has come, and is left there.
            stream.peek(&mut [0]).unwrap();
        });
        let output = remora(&["exec", &format!("{wire}://{address}"), "x"]);
        refusing.join().unwrap();
        assert_eq!(status(&output), 198, "{wire}: {}", stderr(&output));
        assert!(stderr(&output).contains("closes at once"), "{wire}: {}", stderr(&output));
    }
    // Whoever has begun to answer serves us.
    let output = remora(&["exec", &format!("length://{}", sending(b"\x05\0\0\0he".to_vec())), "x"]);
    assert!(!stderr(&output).contains("closes at once"), "{}", stderr(&output));
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
fn an_ending_that_cannot_be_is_told_as_that() {
    for (members, words) in [
        ("\"exit_code\":300", "the peer names an exit code that can't be"),
        ("\"exit_code\":-1", "the peer names an exit code that can't be"),
        ("\"signal\":65", "the peer names a signal that can't be"),
        ("\"exit_code\":0,\"signal\":9", "contradict each other"),
    ] {
        let bytes = framed(&format!("{{\"total_size\":2,{members}}}"), b"ok");
        let output = remora(&["exec", &format!("header://{}", sending(bytes)), "x"]);
        assert_eq!((status(&output), stdout(&output).as_str()), (198, "ok"));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    // Not even a number: a member of the peer's own.
    let bytes = framed("{\"total_size\":2,\"signal\":\"9\"}", b"ok");
    let output = remora(&["exec", "-v", &format!("header://{}", sending(bytes)), "x"]);
    assert_eq!(status(&output), 0);
    assert!(stderr(&output).contains("ignored, since they make no sense: signal"), "{}", stderr(&output));
}

#[test]
fn what_the_host_ended_is_told_as_that() {
    for (members, code, class, words) in [
        (
            "\"exit_code\":124,\"ended_by\":\"deadline\"",
            124,
            "deadline",
            "deadline: the command ran into the host's time limit",
        ),
        (
            "\"signal\":15,\"ended_by\":\"limit: output\"",
            143,
            "signaled",
            "the host ended the command (limit: output)",
        ),
        // A command's own 124.
        ("\"exit_code\":124", 124, "exited", ""),
    ] {
        let bytes = framed(&format!("{{\"total_size\":0,{members}}}"), b"");
        let output = remora(&["exec", "--json", &format!("header://{}", sending(bytes)), "x"]);
        assert_eq!(status(&output), code, "{}", stderr(&output));
        let object: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(object["outcome"]["class"], class);
        assert!(stderr(&output).contains(words) && stderr(&output).is_empty() == words.is_empty());
    }
}

#[test]
fn messages_hold_no_escapes_of_the_peers() {
    let folder = tempfile::tempdir().unwrap();
    let name = "..\\u001b[2J";
    let bytes = framed(&format!("{{\"total_size\":0,\"filename\":\"{name}/..\"}}"), b"");
    let url = format!("header://{}", sending(bytes));
    let output = remora(&["exec", "--save", folder.path().to_str().unwrap(), &url, "x"]);
    assert_eq!(status(&output), 0);
    assert!(stderr(&output).contains("no file can be called"), "{:?}", stderr(&output));
    assert!(!stderr(&output).contains('\u{1b}'), "{:?}", stderr(&output));
}
