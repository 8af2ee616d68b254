//! Peers that do what a test says, and a client that collects what they send.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use remora_client::Plain;
use remora_client::plain::{Done, Exchange, Header, Part, Piece, PlainError, PlainOptions};

/// Far above anything that happens; a test that reaches it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A peer that reads one request and then does something.
pub(crate) struct Peer {
    pub(crate) port: u16,
    thread: JoinHandle<Vec<u8>>,
}

impl Peer {
    pub(crate) fn new(act: impl FnOnce(&mut TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = vec![0; 65536];
            let count = stream.read(&mut request).unwrap();
            request.truncate(count);
            act(&mut stream);
            request
        });
        Peer { port, thread }
    }

    /// One that sends bytes and closes.
    pub(crate) fn sending(bytes: Vec<u8>) -> Self {
        Peer::new(move |stream| {
            // A client that has found a fault resets.
            let _ = stream.write_all(&bytes);
        })
    }

    /// The request, once the peer is done.
    pub(crate) fn request(self) -> Vec<u8> {
        self.thread.join().unwrap()
    }
}

/// All that came.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) header: Option<Box<Header>>,
    pub(crate) length: Option<u64>,
    pub(crate) both: Vec<u8>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) done: Option<Done>,
}

pub(crate) fn ask(wire: Plain, port: u16, options: PlainOptions) -> (Reply, Result<(), PlainError>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut reply = Reply::default();
        let work = collect(wire, port, options, b"the request", &mut reply);
        let result = tokio::time::timeout(PATIENCE, work).await.expect("it hangs");
        (reply, result)
    })
}

pub(crate) fn run(wire: Plain, port: u16, command: &str) -> Reply {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut reply = Reply::default();
        let options = PlainOptions::default();
        let work = collect(wire, port, options, command.as_bytes(), &mut reply);
        tokio::time::timeout(PATIENCE, work).await.expect("it hangs").unwrap();
        reply
    })
}

async fn collect(
    wire: Plain,
    port: u16,
    options: PlainOptions,
    request: &[u8],
    reply: &mut Reply,
) -> Result<(), PlainError> {
    let mut exchange = Exchange::begin(wire, "127.0.0.1", port, request.to_vec(), &options).await?;
    while let Some(piece) = exchange.next().await? {
        match piece {
            Piece::Length(length) => reply.length = Some(length),
            Piece::Header(header) => reply.header = Some(header),
            Piece::Payload { part, bytes } => match part {
                Part::Both => reply.both.extend_from_slice(&bytes),
                Part::Stdout => reply.stdout.extend_from_slice(&bytes),
                Part::Stderr => reply.stderr.extend_from_slice(&bytes),
            },
            Piece::Done(done) => reply.done = Some(done),
        }
    }
    Ok(())
}

/// A `header` reply.
pub(crate) fn framed(json: &str, payload: &[u8]) -> Vec<u8> {
    [&(json.len() as i32).to_le_bytes(), json.as_bytes(), payload].concat()
}
