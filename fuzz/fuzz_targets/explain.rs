//! `remora wire decode` of any bytes, of any wire: it says something and never puts a control character on a terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use remora_wire::explain::{Explainer, Protocol, Side};
use remora_wire::plain::Wire;

fuzz_target!(|input: &[u8]| {
    let [which, cut, bytes @ ..] = input else { return };
    let protocol = match which % 4 {
        0 => Protocol::Native,
        1 => Protocol::Plain(Wire::Raw),
        2 => Protocol::Plain(Wire::Length),
        _ => Protocol::Plain(Wire::Header),
    };
    let side = if which & 4 == 0 { Side::Server } else { Side::Client };
    let mut explainer = Explainer::new(protocol, side, true);
    let mut say = |line: String| assert!(!line.chars().any(char::is_control), "{line:?}");
    let cut = usize::from(*cut).min(bytes.len());
    for part in [&bytes[..cut], &bytes[cut..]] {
        explainer.begin_read(&mut say);
        explainer.handle_bytes(part, &mut say);
    }
    explainer.handle_end(&mut say);
});
