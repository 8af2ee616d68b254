//! A server of plain wires in a thread of its own, on port 0.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use remora_server::{ListenUrl, ListenerChange, SessionLimits, Settings, bind, own_account, serve};
use remora_wire::plain::Header;
use tokio::sync::{mpsc, oneshot, watch};

/// Far above anything that happens; a test that reaches it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    _state: tempfile::TempDir,
}

impl Server {
    /// Serves `WIRE://127.0.0.1:0`, `url` being the wire and what follows the port.
    pub(crate) fn start(wire: &str) -> Self {
        Server::with(wire, |_| {})
    }

    pub(crate) fn with(wire: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let (name, parameters) = wire.split_once('?').unwrap_or((wire, ""));
        let parameters = if parameters.is_empty() { String::new() } else { format!("?{parameters}") };
        Server::at(&format!("{name}://127.0.0.1:0{parameters}"), change)
    }

    pub(crate) fn at(url: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let asked: ListenUrl = url.parse().unwrap();
        let state = tempfile::tempdir().unwrap();
        let mut settings =
            Settings::new(own_account().unwrap(), Some(state.path()), SessionLimits::default()).unwrap();
        // What a test leaves running is of no interest.
        settings.stop_grace = Duration::from_millis(100);
        change(&mut settings);
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = bind(&asked).unwrap();
                let ListenUrl::Plain { address, .. } = listener.url else { panic!("not plain") };
                let (changes, seen) = mpsc::channel(1);
                changes.send(ListenerChange { wanted: vec![asked], added: vec![listener] }).await.unwrap();
                let (_settings, settings) = watch::channel(Arc::new(settings));
                tell.send(address).unwrap();
                let stopped = async {
                    let _ = stopped.await;
                };
                serve(seen, settings, stopped, std::future::pending()).await;
            });
        });
        Server { address: told.recv().unwrap(), stop: Some(stop), thread: Some(thread), _state: state }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends a request, half-closes, and reads to the end.
    pub(crate) fn ask(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        reply
    }

    /// Asks for the end, without waiting for it.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        let result = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || result.is_ok());
    }
}

/// Reads a reply of the `length` wire.
pub(crate) fn read_length(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut payload = vec![0; usize::try_from(i32::from_le_bytes(length)).unwrap()];
    stream.read_exact(&mut payload).unwrap();
    payload
}

/// Reads a reply of the `header` wire.
pub(crate) fn read_header(stream: &mut TcpStream) -> (Header, Vec<u8>) {
    let header = Header::parse(&read_length(stream)).unwrap();
    let mut payload = vec![0; usize::try_from(header.total_size).unwrap()];
    stream.read_exact(&mut payload).unwrap();
    (header, payload)
}

/// A file that a command can write to, and that goes with the test.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
