//! An address on this machine that answers nothing, as one behind a firewall does.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

/// An attempt that takes longer is taken for one without an answer.
const ANSWER: Duration = Duration::from_millis(400);
/// Far more than the queue takes.
const QUEUE: usize = 100;

/// A listener whose queue is full, and which nobody accepts from: the kernel drops what else comes (listen(2)).
pub struct Silence {
    address: SocketAddr,
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Silence {
    /// Fills the queue of a new listener on the loopback address.
    ///
    /// # Errors
    /// I/O errors, and a queue that takes all.
    pub fn new() -> io::Result<Self> {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None)?;
        bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        listen(&listener, 1)?;
        let listener = TcpListener::from(listener);
        let address = listener.local_addr()?;
        let mut queue = Vec::new();
        while let Ok(waiting) = TcpStream::connect_timeout(&address, ANSWER) {
            queue.push(waiting);
            if queue.len() > QUEUE {
                return Err(io::Error::other("the queue has no end"));
            }
        }
        Ok(Silence { address, _listener: listener, _queue: queue })
    }

    /// The address, which is silent as long as this lives.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
