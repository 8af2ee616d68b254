//! The client's decoders of the plain wires, the header's parser, file names, and what tells web pages from peers.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use remora_wire::plain::{Decoder, Header, Wire, safe_file_name, web_sign};

fuzz_target!(|input: &[u8]| {
    let [wire, cut, bytes @ ..] = input else { return };
    let wire = match wire % 3 {
        0 => Wire::Raw,
        1 => Wire::Length,
        _ => Wire::Header,
    };
    let mut decoder = Decoder::new(wire);
    let cut = usize::from(*cut).min(bytes.len());
    let mut buffer = BytesMut::new();
    for part in [&bytes[..cut], &bytes[cut..]] {
        buffer.extend_from_slice(part);
        while let Ok(Some(_)) = decoder.next(&mut buffer) {}
    }
    let _ = decoder.handle_end(buffer.len());
    let _ = Header::parse(bytes);
    let _ = web_sign(bytes);
    if let Some(name) = safe_file_name(&String::from_utf8_lossy(bytes)) {
        assert!(!name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']) && name != "." && name != "..");
    }
});
