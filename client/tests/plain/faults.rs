//! Each way a peer can misbehave has its own clear error, and none hangs.

use std::io::{Read, Write};
use std::time::Duration;

use remora_client::plain::{Fault, PlainError, PlainOptions, RawEnd};
use remora_client::{Class, Plain};

use crate::common::{Peer, ask, framed};

fn fails(wire: Plain, bytes: &[u8]) -> (String, Class) {
    let peer = Peer::sending(bytes.to_vec());
    let (_, result) = ask(wire, peer.port, PlainOptions::default());
    let error = result.unwrap_err();
    peer.request();
    (error.to_string(), error.class())
}

#[test]
fn malformed_replies_are_incompatible_each_in_its_own_words() {
    let size =
        |value: &str| framed(&format!("{{\"total_size\":{value},\"md5\":\"\",\"filename\":\"x\"}}"), b"");
    for (wire, bytes, words) in [
        (Plain::Length, (-1i32).to_le_bytes().to_vec(), "negative length, -1"),
        (Plain::Header, (-5i32).to_le_bytes().to_vec(), "negative length, -5"),
        (Plain::Header, 65_537i32.to_le_bytes().to_vec(), "a header of 65537 bytes, and 65536 is the limit"),
        (Plain::Header, framed("{nonsense}", b""), "not JSON"),
        (Plain::Header, framed("[]", b""), "no object"),
        (Plain::Header, framed("{}", b""), "no total_size"),
        (Plain::Header, size("\"12\""), "total_size is not a number"),
        (Plain::Header, size("-1"), "negative"),
        (Plain::Header, size("0.5"), "not whole"),
        (Plain::Header, size(&"7".repeat(200)), "too large: a number of 200 digits"),
    ] {
        let (text, class) = fails(wire, &bytes);
        assert!(text.contains(words), "{text}");
        assert_eq!(class, Class::Incompatible, "{text}");
    }
}

#[test]
fn a_peer_that_stops_half_way_is_lost_wherever_it_stops() {
    let bytes = framed("{\"total_size\":5}", b"hello");
    for end in 0..bytes.len() {
        let (text, class) = fails(Plain::Header, &bytes[..end]);
        assert_eq!(class, Class::Lost, "{end}: {text}");
    }
    for end in 0..9 {
        let (text, class) = fails(Plain::Length, &b"\x05\0\0\0hello"[..end]);
        assert_eq!(class, Class::Lost, "{end}: {text}");
    }
}

#[test]
fn a_reset_is_lost_on_every_wire() {
    for wire in [Plain::Raw, Plain::Length, Plain::Header] {
        let peer = Peer::new(|stream| {
            stream.write_all(b"\x05\0\0\0h").unwrap();
            rustix::net::sockopt::set_socket_linger(&*stream, Some(Duration::ZERO)).unwrap();
        });
        let (_, result) = ask(wire, peer.port, PlainOptions::default());
        let error = result.unwrap_err();
        assert_eq!(error.class(), Class::Lost, "{wire}: {error}");
    }
}

#[test]
fn a_peer_that_stops_half_way_without_closing_is_given_up() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let peer = Peer::new(move |stream| {
        stream.write_all(b"\x05\0\0\0he").unwrap();
        let _ = released.recv();
    });
    let options = PlainOptions { stall: Duration::from_millis(50), ..PlainOptions::default() };
    let (reply, result) = ask(Plain::Length, peer.port, options);
    assert_eq!(reply.both, b"he");
    let error = result.unwrap_err();
    assert!(matches!(error, PlainError::Stalled(_)), "{error}");
    assert_eq!(error.class(), Class::Lost);
    drop(release);
}

#[test]
fn a_command_that_takes_its_time_is_no_stalled_peer() {
    let peer = Peer::new(|stream| {
        std::thread::sleep(Duration::from_millis(300));
        stream.write_all(b"\x02\0\0\0ok").unwrap();
    });
    let options = PlainOptions { stall: Duration::from_millis(50), ..PlainOptions::default() };
    let (reply, result) = ask(Plain::Length, peer.port, options);
    result.unwrap();
    assert_eq!(reply.both, b"ok");
}

#[test]
fn nobody_there_is_unreachable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_, result) = ask(Plain::Raw, port, PlainOptions::default());
    assert_eq!(result.unwrap_err().class(), Class::Unreachable);
}

#[test]
fn an_exchange_that_is_dropped_resets_the_connection() {
    let (tell, told) = std::sync::mpsc::channel();
    let peer = Peer::new(move |stream| {
        stream.write_all(b"first").unwrap();
        let mut rest = Vec::new();
        tell.send(stream.read_to_end(&mut rest).map_err(|error| error.kind())).unwrap();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        use remora_client::plain::Exchange;
        let options =
            PlainOptions { raw_end: RawEnd::Silence(Duration::from_secs(60)), ..PlainOptions::default() };
        let mut exchange =
            Exchange::begin(Plain::Raw, "127.0.0.1", peer.port, b"request".to_vec(), &options).await.unwrap();
        exchange.next().await.unwrap();
    });
    assert_eq!(told.recv().unwrap(), Err(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn faults_are_typed() {
    let peer = Peer::sending(Vec::new());
    let (_, result) = ask(Plain::Header, peer.port, PlainOptions::default());
    assert!(matches!(result, Err(PlainError::Fault(Fault::NoReply))));
}
