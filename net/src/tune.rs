//! Socket options of a TCP connection, the same at both ends.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::TcpStream;

/// Small frames leave at once instead of waiting for acknowledgements of earlier ones (Nagle), and a peer that vanished without a
/// word is noticed within a minute, instead of never (tcp(7), TCP_KEEPIDLE).
///
/// # Errors
/// What the kernel says.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(10))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    // No TCP_USER_TIMEOUT: it also ends connections whose reader is merely stopped, since probes of a closed window count.
    Ok(())
}
