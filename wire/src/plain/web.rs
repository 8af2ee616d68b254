//! Recognizes a web browser, so that no web page can reach a plain wire.
//!
//! A page can make a browser send requests to a loopback port, with a body of the page's choice (a form post), and bodies
//! hold lines that a shell would run. What it can't choose is how the request begins.

/// What shows that these bytes, the beginning of a request, come from a browser or another speaker of HTTP or TLS; none where
/// nothing does.
///
/// A shell command is hit only where its first line ends in ` HTTP/` and a version, begins with a method in capitals and a
/// path, or is followed by lines that end in CR LF and are headers of HTTP.
pub fn web_sign(request: &[u8]) -> Option<&'static str> {
    if request.starts_with(&[0x16, 0x03]) {
        // RFC 8446, section 5.1: a handshake record, whose first version byte is 3 for compatibility.
        return Some("a TLS handshake");
    }
    // RFC 9112, section 2.2: empty lines in front of a request line are skipped.
    let start = request.iter().position(|byte| !matches!(byte, b'\r' | b'\n' | b' ' | b'\t'))?;
    let text = request.get(start..)?;
    if text.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP/")) {
        return Some("an HTTP status line");
    }
    let mut lines = text.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    if ends_in_version(first.strip_suffix(b"\r").unwrap_or(first)) {
        return Some("an HTTP request line");
    }
    // The first read may end inside a long path, before the version.
    if begins_with_method(first) {
        return Some("an HTTP method and a target");
    }
    // The request line may have come in an earlier read, or half of it.
    lines.take(64).find_map(header_line)
}

fn ends_in_version(line: &[u8]) -> bool {
    let line = line.trim_ascii_end();
    let Some(space) = line.iter().rposition(|byte| matches!(byte, b' ' | b'\t')) else { return false };
    let Some(version) = line.get(space + 1..) else { return false };
    let is_version = version.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"HTTP/"));
    is_version && version.get(5).is_some_and(u8::is_ascii_digit) && version.len() <= 8
}

fn begins_with_method(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] =
        [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH"];
    let Some(space) = line.iter().position(|byte| matches!(byte, b' ' | b'\t')) else { return false };
    let (method, rest) = line.split_at(space);
    let target = rest.trim_ascii_start();
    METHODS.contains(&method)
        && (target.starts_with(b"/") || target.starts_with(b"*") || target.starts_with(b"http"))
}

fn header_line(line: &[u8]) -> Option<&'static str> {
    const NAMES: [&[u8]; 6] =
        [b"host:", b"origin:", b"referer:", b"user-agent:", b"sec-fetch-", b"content-type:"];
    let line = line.strip_suffix(b"\r")?;
    let named = |name: &&[u8]| line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    NAMES.iter().any(named).then_some("an HTTP header")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_recognized() {
        for request in [
            "GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n",
            "POST /run HTTP/1.0\r\n\r\nrm -rf ~\n",
            "get / http/1.1\r\n",
            "pAtCh /x HTTP/1.1",
            "FOO-BAR / HTTP/1.1\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "CONNECT a:1 HTTP/1.1\r\n",
            "\r\n\r\nPOST / HTTP/1.1\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "http/1.1 200 OK\r\n\r\n",
            "OST / HTTP/1.1\r\nHost: x\r\n",
            "/ HTTP/1.1\r\n",
            ".1\r\nHost: localhost\r\n\r\nid\n",
            "id\r\nSec-Fetch-Mode: cors\r\n",
            "\u{16}\u{3}\u{1}\0\u{1}hello",
        ] {
            assert!(web_sign(request.as_bytes()).is_some(), "{request:?}");
        }
        let long = "POST /".to_owned() + &"a".repeat(65_530);
        assert!(web_sign(long.as_bytes()).is_some());
    }

    #[test]
    fn commands_are_not() {
        for request in [
            "",
            "\n",
            "ls -l",
            "head /etc/passwd",
            "get /x",
            "curl http://localhost/",
            "echo HTTP/1.1",
            "grep GET access.log",
            "GET",
            "POST x",
            "HEAD=1 true",
            "cat <<E\nHost: x\nGET / HTTP/1.1\nE\n",
            "echo 'User-Agent: x'\r\n",
        ] {
            let expected = request == "echo HTTP/1.1";
            assert_eq!(web_sign(request.as_bytes()).is_some(), expected, "{request:?}");
        }
    }
}
