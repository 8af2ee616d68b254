//! A server of all three wires, peers that send fixed bytes, and clients of either.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Far above anything that happens; a test that reaches it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const REMORA: &str = env!("CARGO_BIN_EXE_remora");

pub(crate) struct Serve {
    child: Child,
    pub(crate) raw: String,
    pub(crate) length: String,
    pub(crate) header: String,
    state: tempfile::TempDir,
}

impl Serve {
    pub(crate) fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let mut child = Command::new(REMORA)
            .args(["serve", "--allow-plaintext-root", "--state-dir"])
            .arg(state.path())
            .args(["--listen", "raw://127.0.0.1:0", "--listen", "length://127.0.0.1:0"])
            .args(["--listen", "header://127.0.0.1:0"])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut url = || {
            let mut line = String::new();
            loop {
                line.clear();
                assert!(log.read_line(&mut line).unwrap() > 0, "the server ended");
                if let Some(url) = line.strip_prefix("remora: listening on ") {
                    return url.trim().to_owned();
                }
            }
        };
        let (raw, length, header) = (url(), url(), url());
        // Its log goes on; nobody may be held up by a full pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Serve { child, raw, length, header, state }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = &self.state;
    }
}

/// Runs `remora` with arguments and nothing on its standard input.
pub(crate) fn remora(arguments: &[&str]) -> Output {
    Command::new(REMORA).args(arguments).stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn status(output: &Output) -> i32 {
    output.status.code().expect("killed by a signal")
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A peer that reads one request, does something, and closes; its address as it is written behind `WIRE://`.
pub(crate) fn peer(act: impl FnOnce(&mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.read(&mut [0; 65536]);
        act(&mut stream);
    });
    address
}

/// One that sends these bytes.
pub(crate) fn sending(bytes: Vec<u8>) -> String {
    peer(move |stream| {
        let _ = stream.write_all(&bytes);
    })
}

/// A `header` reply.
pub(crate) fn framed(json: &str, payload: &[u8]) -> Vec<u8> {
    [&(json.len() as i32).to_le_bytes(), json.as_bytes(), payload].concat()
}
