//! The server's end against any bytes, cut at a place the input chooses. The first byte says how far the handshake is.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remora_wire::native::{Greeting, Server, ServerEvent};

fuzz_target!(|input: &[u8]| {
    let [open, cut, bytes @ ..] = input else { return };
    let mut server = Server::new(&Greeting {
        nonce: [0; 32],
        boot_id: [0; 16],
        stdin_window: 4096,
        max_jobs: 4,
        software: String::new(),
    });
    let cut = usize::from(*cut).min(bytes.len());
    for part in [&bytes[..cut], &bytes[cut..]] {
        server.input().extend_from_slice(part);
        loop {
            match server.poll_event() {
                Ok(Some(ServerEvent::Authenticate { .. })) if open % 2 == 0 => server.accept("host"),
                Ok(Some(ServerEvent::Authenticate { .. })) => {
                    server.deny();
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
