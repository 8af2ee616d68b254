//! A native frame's body as text.

use prost::Message;

use super::{kind_name, preview};
use crate::limits;
use crate::native::{Kind, proto};

/// Most bytes shown of one bytes field.
const BYTES: usize = 64;

/// A frame with its fields. `body` is the beginning of it, all of it for a control message.
pub(super) fn frame(code: u8, channel: u32, length: u64, body: &[u8]) -> String {
    let name = kind_name(code);
    let Some(kind) = Kind::from_code(code) else {
        return format!(
            "{name}, channel {channel}, {length} bytes, ignored as its number allows: {}",
            preview(body, length)
        );
    };
    if kind.stream().is_some() {
        let (offset, bytes) = body.split_at_checked(limits::DATA_OFFSET).unwrap_or((body, &[]));
        let offset =
            <[u8; limits::DATA_OFFSET]>::try_from(offset).map(u64::from_be_bytes).unwrap_or_default();
        let length = length.saturating_sub(limits::DATA_OFFSET as u64);
        return format!(
            "{name}, channel {channel}, {length} bytes at offset {offset}: {}",
            preview(bytes, length)
        );
    }
    format!("{name}, channel {channel}, {length} bytes: {}", control(kind, body))
}

fn control(kind: Kind, body: &[u8]) -> String {
    match kind {
        Kind::ServerHello => message::<proto::ServerHello>(body),
        Kind::ClientHello => message::<proto::ClientHello>(body),
        Kind::Offer => message::<proto::Offer>(body),
        Kind::OfferReply => message::<proto::OfferReply>(body),
        Kind::Authenticate => message::<proto::Authenticate>(body),
        Kind::AuthReply => message::<proto::AuthReply>(body),
        Kind::GoAway => message::<proto::GoAway>(body),
        Kind::Fault => message::<proto::Fault>(body),
        Kind::Start => message::<proto::Start>(body),
        Kind::Started => message::<proto::Started>(body),
        Kind::Receipt => message::<proto::Receipt>(body),
        Kind::Credit => message::<proto::Credit>(body),
        Kind::End => message::<proto::End>(body),
        Kind::Stop => message::<proto::Stop>(body),
        Kind::Signal => message::<proto::Signal>(body),
        Kind::Resize => message::<proto::WindowSize>(body),
        Kind::Stopped => message::<proto::Stopped>(body),
        Kind::Ask => message::<proto::Ask>(body),
        Kind::Answer => message::<proto::Answer>(body),
        Kind::Close => message::<proto::Close>(body),
        Kind::Detached => message::<proto::Detached>(body),
        Kind::Settled => message::<proto::Settled>(body),
        Kind::Leave => message::<proto::Leave>(body),
        Kind::Ping | Kind::Pong | Kind::Stdin | Kind::Stdout | Kind::Stderr => {
            preview(body, body.len() as u64)
        }
    }
}

fn message<M: Message + Default + std::fmt::Debug>(body: &[u8]) -> String {
    match M::decode(body) {
        Ok(message) => readable(&format!("{message:?}")),
        Err(error) => format!(
            "not such a message ({}): {}",
            error.to_string().escape_debug(),
            preview(body, body.len() as u64)
        ),
    }
}

/// Rewrites the lists of numbers that `Debug` makes of bytes: as text where they are, else in hexadecimal. The protocol has no
/// other lists of numbers. Text in quotes stays as it is; `Debug` has escaped it.
fn readable(debug: &str) -> String {
    let mut out = String::with_capacity(debug.len());
    let mut rest = debug;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => {
                // The escaped character, a quote for one, is part of the text.
                let next = after.chars().next().map_or(0, char::len_utf8);
                out.push_str(rest.get(..1 + next).unwrap_or_default());
                rest = after.get(next..).unwrap_or_default();
                continue;
            }
            '[' if !quoted => {
                if let Some((list, behind)) = after.split_once(']')
                    && let Some(bytes) = numbers(list)
                {
                    out.push_str(&shown(&bytes));
                    rest = behind;
                    continue;
                }
            }
            _ => {}
        }
        out.push(c);
        rest = after;
    }
    out
}

fn numbers(list: &str) -> Option<Vec<u8>> {
    list.split(", ").map(|number| number.parse().ok()).collect()
}

fn shown(bytes: &[u8]) -> String {
    let part = bytes.get(..BYTES).unwrap_or(bytes);
    let more = if bytes.len() > part.len() { format!("… ({} bytes)", bytes.len()) } else { String::new() };
    if part.iter().all(|byte| (0x20..0x7f).contains(byte)) {
        return format!("b\"{}\"{more}", part.escape_ascii());
    }
    let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{hex}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_text_or_hexadecimal() {
        for (debug, text) in [
            ("X { a: [108, 115], b: [] }", "X { a: b\"ls\", b: [] }"),
            ("X { a: [0, 255] }", "X { a: 0x00ff }"),
            ("X { s: \"[1, 2] \\\" [3]\", a: [104, 105] }", "X { s: \"[1, 2] \\\" [3]\", a: b\"hi\" }"),
            ("X { l: [Y { v: [65] }, Y { v: [66] }] }", "X { l: [Y { v: b\"A\" }, Y { v: b\"B\" }] }"),
            ("X { l: [[65], [66]] }", "X { l: [b\"A\", b\"B\"] }"),
            ("X { a: [300] }", "X { a: [300] }"),
            ("X { a: [", "X { a: ["),
        ] {
            assert_eq!(readable(debug), text);
        }
        assert!(readable(&format!("{:?}", vec![0u8; 1000])).ends_with("… (1000 bytes)"));
    }
}
