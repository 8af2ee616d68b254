//! Tells the service manager how the server is (sd_notify(3)): a datagram to the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use remora_server::Stage;
use rustix::time::{ClockId, clock_gettime};

/// The variable that names the socket. For this process alone: nothing that it starts gets it.
pub(crate) const SOCKET: &str = "NOTIFY_SOCKET";

/// Tells of a stage; whoever has no service manager tells nobody.
pub(crate) fn tell(stage: Stage) {
    let Some(name) = std::env::var_os(SOCKET).filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&name, &message(stage)) {
        crate::terminal::say(&format!("the service manager can't be told: {error}"));
    }
}

fn message(stage: Stage) -> String {
    match stage {
        Stage::Ready => "READY=1\nSTATUS=serving".to_owned(),
        Stage::Stopping => {
            "STOPPING=1\nSTATUS=stopping; commands that run go on, unless stop_jobs is set".to_owned()
        }
        Stage::Reloading => {
            let now = clock_gettime(ClockId::Monotonic);
            let micros = now.tv_sec.saturating_mul(1_000_000).saturating_add(now.tv_nsec / 1000);
            format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading the configuration again")
        }
    }
}

fn send(name: &OsString, text: &str) -> io::Result<()> {
    // A leading @ stands for the NUL of an abstract name (unix(7)).
    let address = match name.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address).map(drop)
}
