//! Whose process is at the other end of a loopback connection: asked from the kernel.
//!
//! [`diag`] asks for exactly one socket. Where that isn't possible, [`table`] looks through all of them, on another thread.

mod diag;
mod table;

use std::io;
use std::net::SocketAddr;

/// The user id of the process that holds the other end; none where the kernel doesn't list it, or holds it itself: a socket
/// that its process has closed lost its owner, and is listed as root's.
///
/// # Errors
/// Where the kernel can't be asked in any way.
pub(super) async fn uid(peer: SocketAddr, own: SocketAddr) -> io::Result<Option<u32>> {
    let (peer, own) = (canonical(peer), canonical(own));
    // A kernel without the diagnosis of TCP says "not found" of every socket, so that one isn't believed either.
    if let Ok(owner) = diag::uid(peer, own) {
        return Ok(owner);
    }
    tokio::task::spawn_blocking(move || table::uid(peer, own)).await.map_err(io::Error::other)?
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// What both ways say of the client of a connection to `listen` by way of `dial`.
    fn both(listen: &str, dial: &str, close: bool) -> [io::Result<Option<u32>>; 2] {
        let listener = TcpListener::bind(listen).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect((dial, port)).unwrap();
        let (server, peer) = listener.accept().unwrap();
        let own = server.local_addr().unwrap();
        if close {
            drop(client);
        }
        let (peer, own) = (canonical(peer), canonical(own));
        [diag::uid(peer, own), table::uid(peer, own)]
    }

    #[test]
    fn both_ways_find_the_owner_whatever_the_family() {
        let me = rustix::process::geteuid().as_raw();
        for (listen, dial) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("127.0.0.1:0", "::ffff:127.0.0.1"),
            ("[::]:0", "127.0.0.1"),
            ("[::]:0", "::ffff:127.0.0.1"),
            ("[::1]:0", "::1"),
        ] {
            let [diag, table] = both(listen, dial, false);
            assert_eq!((diag.unwrap(), table.unwrap()), (Some(me), Some(me)), "{listen} by {dial}");
        }
    }

    #[test]
    fn a_socket_that_its_process_has_closed_vouches_for_nobody() {
        let [diag, table] = both("127.0.0.1:0", "127.0.0.1", true);
        assert_eq!((diag.unwrap(), table.unwrap()), (None, None));
    }

    #[test]
    fn who_only_listens_at_an_address_is_not_its_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let own = "127.0.0.1:9".parse().unwrap();
        assert!(diag::uid(peer, own).is_err());
        assert_eq!(table::uid(peer, own).unwrap(), None);
    }
}
