//! Looks for one TCP socket in the tables of all of them: for kernels and sandboxes that don't offer [`super::diag`].
//!
//! `/proc/net/tcp` and `/proc/net/tcp6` (proc_pid_net(5), and `get_tcp4_sock` in the kernel's `net/ipv4/tcp_ipv4.c`) list both
//! ends of a connection between two sockets of this machine, each with its owner.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most bytes read of each table: some 400,000 connections.
const LONGEST: u64 = 64 * 1024 * 1024;

/// The user id of the process that holds the socket whose own address is `peer` and whose peer's is `own`, both canonical;
/// none where there is no such socket, or no process holds it. Takes as long as there are sockets: some 2 ms for a thousand.
///
/// # Errors
/// Where a table can't be read.
pub(super) fn uid(peer: SocketAddr, own: SocketAddr) -> io::Result<Option<u32>> {
    // An IPv4 connection is in the second table where the peer's socket is an IPv6 one (RFC 4291, section 2.5.5.2).
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        let file = match File::open(table) {
            // IPv6 may be switched off.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if let Some(owner) = find(BufReader::with_capacity(64 * 1024, file.take(LONGEST)), peer, own)? {
            return Ok(Some(owner));
        }
    }
    Ok(None)
}

fn find(mut table: impl BufRead, peer: SocketAddr, own: SocketAddr) -> io::Result<Option<u32>> {
    let mut line = String::new();
    loop {
        line.clear();
        if table.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if let Some(owner) = owner(&line, peer, own) {
            return Ok(Some(owner));
        }
    }
}

/// The owner in a row, where it is the peer's end of the connection and a process holds it.
fn owner(row: &str, peer: SocketAddr, own: SocketAddr) -> Option<u32> {
    let mut fields = row.split_ascii_whitespace().skip(1);
    let (local, remote) = (address(fields.next()?)?, address(fields.next()?)?);
    if local != peer || remote != own {
        return None;
    }
    // st tx:rx tr:when retrnsmt uid timeout inode
    let owner = fields.nth(4)?.parse().ok()?;
    let inode: u64 = fields.nth(1)?.parse().ok()?;
    // Without an inode there is no process, and the uid is a zero that means nothing.
    (inode != 0).then_some(owner)
}

/// An address of the tables: 32-bit words of network bytes printed as the machine's integers, and a port.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0u8; 16];
    let words = ip.len() / 8;
    if ip.len() % 8 != 0 || !ip.is_ascii() {
        return None;
    }
    for (index, to) in bytes.chunks_mut(4).take(words).enumerate() {
        let word = u32::from_str_radix(ip.get(index * 8..index * 8 + 8)?, 16).ok()?;
        to.copy_from_slice(&word.to_ne_bytes());
    }
    let ip = match words {
        1 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(..4)?).ok()?)),
        4 => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn look(rows: &str, peer: &str, own: &str) -> Option<u32> {
        find(format!("{HEAD}{rows}").as_bytes(), peer.parse().unwrap(), own.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_peers_end_is_found_and_not_our_own() {
        let rows = "   0: 0100007F:1F90 0100007F:A001 01 00000000:00000000 00:00000000 00000000     7        0 11 1 0 20\n   \
                    1: 0100007F:A001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 12 1 0 20\n";
        assert_eq!(look(rows, "127.0.0.1:40961", "127.0.0.1:8080"), Some(1000));
        assert_eq!(look(rows, "127.0.0.1:40962", "127.0.0.1:8080"), None);
        assert_eq!(look(rows, "127.0.0.2:40961", "127.0.0.1:8080"), None);
    }

    #[test]
    fn a_socket_without_a_process_vouches_for_nobody() {
        let row = "   1: 0100007F:A001 0100007F:1F90 04 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20\n";
        assert_eq!(look(row, "127.0.0.1:40961", "127.0.0.1:8080"), None);
        let waiting = "   1: 0100007F:A001 0100007F:1F90 06 00000000:00000000 03:0000176F 00000000     0        0 0 3 0\n";
        assert_eq!(look(waiting, "127.0.0.1:40961", "127.0.0.1:8080"), None);
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let v6 = "   1: 00000000000000000000000001000000:A001 00000000000000000000000001000000:1F90 01 0:0 0:0 0  5 0 12 1\n";
        assert_eq!(look(v6, "[::1]:40961", "[::1]:8080"), Some(5));
        let mapped = "   1: 0000000000000000FFFF00000100007F:A001 0000000000000000FFFF00000100007F:1F90 01 0:0 0:0 0  6 0 12 1\n";
        assert_eq!(look(mapped, "127.0.0.1:40961", "127.0.0.1:8080"), Some(6));
    }

    #[test]
    fn odd_rows_are_passed_over() {
        let odd = "\n1:\n2: x y\n3: 0100007F:A001 0100007F:1F90\n4: é0007F:A001 0100007F:1F90 01\n5: 0100007F:A001 0100007F:1F90 01 0 0 0 -1 0 1\n";
        assert_eq!(look(odd, "127.0.0.1:40961", "127.0.0.1:8080"), None);
    }
}
