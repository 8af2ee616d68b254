//! The client's end, with a job on channel 1, against any bytes, cut at a place the input chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remora_wire::native::{Client, proto};

fuzz_target!(|input: &[u8]| {
    let [cut, bytes @ ..] = input else { return };
    let mut client = Client::new(4096);
    let cut = usize::from(*cut).min(bytes.len());
    for part in [&bytes[..cut], &bytes[cut..]] {
        client.input().extend_from_slice(part);
        while let Ok(Some(_)) = client.poll_event() {
            if client.running() == 0 {
                let _ = client.start(&proto::Start {
                    job_id: vec![0; 16],
                    command: Some(proto::start::Command::Line(b"x".to_vec())),
                    ..Default::default()
                });
            }
        }
    }
});
