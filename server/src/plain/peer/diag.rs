//! Asks the kernel for one TCP socket by its two addresses (sock_diag(7), "IPv4 and IPv6 sockets").
//!
//! One message goes out and one comes back within the same system calls (`netlink_rcv_skb` runs in the sender's), however many
//! sockets there are. No privilege is needed. The messages are small enough that no crate is needed for them, either.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, recv, send, socket_with,
};

/// `struct nlmsghdr` of linux/netlink.h, bytes.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2` of linux/inet_diag.h, bytes.
const REQUEST: usize = 56;
/// `SOCK_DIAG_BY_FAMILY` of linux/sock_diag.h: the type of request and answer.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR` and `NLM_F_REQUEST` of linux/netlink.h.
const ERROR: u16 = 2;
const IS_REQUEST: u16 = 1;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// `LOOPBACK_IFINDEX` of the kernel's include/net/flow.h. It finds sockets that are bound to `lo` and those bound to none.
const LOOPBACK: u32 = 1;
/// What the answer repeats.
const SEQUENCE: u32 = 1;

/// The user id of the process that holds the socket whose own address is `peer` and whose peer's is `own`, both canonical;
/// none where it is held by no process.
///
/// # Errors
/// Where the kernel can't be asked, or knows no such socket ([`io::ErrorKind::NotFound`]).
pub(super) fn uid(peer: SocketAddr, own: SocketAddr) -> io::Result<Option<u32>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(SOCK_DIAG))?;
    // Connected to the kernel: nobody else can answer (`netlink_getsockbyportid`).
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    send(&socket, &question(peer, own), SendFlags::empty())?;
    let mut answer = [0; 1024];
    let (_, length) = recv(&socket, answer.as_mut_slice(), RecvFlags::empty())?;
    owner(answer.get(..length).unwrap_or_default(), peer, own)
}

/// The question. Without `NLM_F_DUMP` it is for one socket, and found in the kernel's hash table.
fn question(peer: SocketAddr, own: SocketAddr) -> Vec<u8> {
    let length = HEADER + REQUEST;
    let mut out = Vec::with_capacity(length);
    out.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    out.extend(BY_FAMILY.to_ne_bytes());
    out.extend(IS_REQUEST.to_ne_bytes());
    out.extend(SEQUENCE.to_ne_bytes());
    out.extend([0; 4]);
    // An IPv6 socket that speaks IPv4 is found by the IPv4 question, too: the kernel hashes both alike.
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    out.extend([u8::try_from(family.as_raw()).unwrap_or(0), TCP, 0, 0]);
    // In whatever state.
    out.extend(u32::MAX.to_ne_bytes());
    out.extend(peer.port().to_be_bytes());
    out.extend(own.port().to_be_bytes());
    out.extend(words(peer.ip()));
    out.extend(words(own.ip()));
    out.extend(LOOPBACK.to_ne_bytes());
    // INET_DIAG_NOCOOKIE, twice.
    out.extend([0xff; 8]);
    out
}

/// An address as four words in network order, those it doesn't need being zero.
fn words(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// Reads the answer: `struct inet_diag_msg`, or an error number.
fn owner(answer: &[u8], peer: SocketAddr, own: SocketAddr) -> io::Result<Option<u32>> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "an answer of sock_diag that isn't one");
    let mut fields = Fields(answer);
    let length = fields.word().ok_or_else(malformed)?;
    let kind = fields.short().ok_or_else(malformed)?;
    let _flags = fields.short().ok_or_else(malformed)?;
    let sequence = fields.word().ok_or_else(malformed)?;
    let _port = fields.word().ok_or_else(malformed)?;
    if sequence != SEQUENCE || usize::try_from(length).is_ok_and(|length| length > answer.len()) {
        return Err(malformed());
    }
    match kind {
        ERROR => {
            let number = fields.word().ok_or_else(malformed)?.cast_signed();
            Err(io::Error::from_raw_os_error(number.saturating_neg()))
        }
        BY_FAMILY => {
            let found = Found::read(&mut fields).ok_or_else(malformed)?;
            // A listener is the answer where there is no connection (`inet_lookup`).
            if (found.local, found.remote) != (peer, own) {
                return Err(io::ErrorKind::NotFound.into());
            }
            // Without an inode there is no process, and the uid is a zero that means nothing.
            Ok((found.inode != 0).then_some(found.uid))
        }
        _ => Err(malformed()),
    }
}

/// What matters of `struct inet_diag_msg`.
struct Found {
    local: SocketAddr,
    remote: SocketAddr,
    uid: u32,
    inode: u32,
}

impl Found {
    fn read(fields: &mut Fields<'_>) -> Option<Found> {
        let [family, _state, _timer, _retransmits] = fields.take()?;
        let ports = [u16::from_be_bytes(fields.take()?), u16::from_be_bytes(fields.take()?)];
        let [local, remote]: [[u8; 16]; 2] = [fields.take()?, fields.take()?];
        let _interface_and_cookie: [u8; 12] = fields.take()?;
        let _expires_and_queues: [u8; 12] = fields.take()?;
        let (uid, inode) = (fields.word()?, fields.word()?);
        let v4 = u16::from(family) == AddressFamily::INET.as_raw();
        let address = |ip: [u8; 16], port| {
            let [a, b, c, d, ..] = ip;
            let ip = if v4 { Ipv4Addr::new(a, b, c, d).into() } else { Ipv6Addr::from(ip).to_canonical() };
            SocketAddr::new(ip, port)
        };
        let [local_port, remote_port] = ports;
        Some(Found { local: address(local, local_port), remote: address(remote, remote_port), uid, inode })
    }
}

/// What is left of an answer, whose numbers are the machine's.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn short(&mut self) -> Option<u16> {
        self.take().map(u16::from_ne_bytes)
    }

    fn word(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const ENOENT: i32 = 2;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// An answer as the kernel writes it.
    fn answer(family: u8, ports: [u16; 2], ips: [[u8; 16]; 2], uid: u32, inode: u32) -> Vec<u8> {
        let mut out = vec![88, 0, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, family, 1, 0, 0];
        for port in ports {
            out.extend(port.to_be_bytes());
        }
        out.extend(ips.concat());
        out.extend([0; 24]);
        out.extend(uid.to_le_bytes());
        out.extend(inode.to_le_bytes());
        out
    }

    const HOME: [u8; 16] = [127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
    const SIX: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    #[test]
    fn the_question_is_as_the_kernel_reads_it() {
        let question = question(at("127.0.0.1:40961"), at("127.0.0.2:8080"));
        let mut expected = vec![72, 0, 0, 0, 20, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([2, 6, 0, 0, 255, 255, 255, 255, 0xa0, 0x01, 0x1f, 0x90]);
        expected.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([127, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expected.extend([1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]);
        assert_eq!(question, expected);
    }

    #[test]
    fn the_owner_is_read_whatever_the_family() {
        let (peer, own) = (at("127.0.0.1:40961"), at("127.0.0.1:8080"));
        for (family, ip) in [(2, HOME), (10, MAPPED)] {
            let answer = answer(family, [40961, 8080], [ip, ip], 1000, 12);
            assert_eq!(owner(&answer, peer, own).unwrap(), Some(1000));
        }
        let answer = answer(10, [40961, 8080], [SIX, SIX], 5, 12);
        assert_eq!(owner(&answer, at("[::1]:40961"), at("[::1]:8080")).unwrap(), Some(5));
    }

    #[test]
    fn a_socket_without_a_process_vouches_for_nobody() {
        let answer = answer(2, [40961, 8080], [HOME, HOME], 0, 0);
        assert_eq!(owner(&answer, at("127.0.0.1:40961"), at("127.0.0.1:8080")).unwrap(), None);
    }

    #[test]
    fn another_socket_than_the_one_asked_for_is_no_answer() {
        let (peer, own) = (at("127.0.0.1:40961"), at("127.0.0.1:8080"));
        let elsewhere = [127, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (ports, ips) in [
            ([40961, 0], [HOME, [0; 16]]),
            ([8080, 40961], [HOME, HOME]),
            ([40961, 8081], [HOME, HOME]),
            ([40961, 8080], [elsewhere, HOME]),
            ([40961, 8080], [HOME, elsewhere]),
        ] {
            let error = owner(&answer(2, ports, ips, 1000, 12), peer, own).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{ports:?}");
        }
    }

    #[test]
    fn errors_are_told_and_scraps_are_none() {
        let (peer, own) = (at("127.0.0.1:40961"), at("127.0.0.1:8080"));
        let mut refused = vec![36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0];
        refused.extend((-ENOENT).to_le_bytes());
        refused.extend([0; 16]);
        assert_eq!(owner(&refused, peer, own).unwrap_err().raw_os_error(), Some(ENOENT));
        let whole = answer(2, [40961, 8080], [HOME, HOME], 1000, 12);
        for length in 0..whole.len() {
            let error = owner(&whole[..length], peer, own).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length}");
        }
        // Another's sequence number, another type.
        for at in [8, 4] {
            let mut odd = whole.clone();
            odd[at] = 77;
            assert_eq!(owner(&odd, peer, own).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
