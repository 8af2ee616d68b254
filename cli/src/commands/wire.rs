//! `remora wire`: looks at what travels on a wire.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use remora_client::{Class, exit_status};
use remora_wire::explain::{Explainer, Protocol, Side};
use remora_wire::plain;

use crate::arguments::{self, Decode, Wire, WireCommand, WireName};
use crate::printable::escape;
use crate::terminal::{Failure, print};

/// Longest line of a capture: a read of 8 MiB.
const LINE: u64 = 16 * 1024 * 1024 + 2;
/// Bytes read at once.
const READ: usize = 64 * 1024;

/// Runs the subcommand and gives the process' exit status.
pub(crate) fn run(wire: Wire) -> u8 {
    let WireCommand::Decode(decode) = wire.command;
    match decode_file(&decode) {
        Ok(false) => 0,
        Ok(true) => exit_status(&remora_client::Outcome::Failed(Class::Incompatible), false),
        Err(failure) => {
            failure.print();
            exit_status(&failure.outcome, false)
        }
    }
}

/// Prints what is in the file; gives whether it makes no sense somewhere, or stops half-way.
fn decode_file(decode: &Decode) -> Result<bool, Failure> {
    let name = escape(&decode.file.display().to_string());
    let unreadable = |error: io::Error| Failure::usage(format!("can't read {name}: {error}"));
    let input: Box<dyn Read> = if decode.file.as_os_str() == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(&decode.file).map_err(unreadable)?)
    };
    let mut input = BufReader::with_capacity(READ, input);
    let protocol = match decode.wire {
        WireName::Native => Protocol::Native,
        WireName::Raw => Protocol::Plain(plain::Wire::Raw),
        WireName::Length => Protocol::Plain(plain::Wire::Length),
        WireName::Header => Protocol::Plain(plain::Wire::Header),
    };
    let mut printer = Printer { error: None };
    let malformed = if looks_like_capture(input.fill_buf().map_err(unreadable)?) {
        if !decode.reads.is_empty() {
            return Err(Failure::usage(format!(
                "{name} is a capture, which has its reads in it; leave out --reads"
            )));
        }
        from_capture(&mut input, protocol, &name, &mut printer)?
    } else {
        let side = match decode.from {
            arguments::Side::Server => Side::Server,
            arguments::Side::Client => Side::Client,
        };
        let (malformed, beyond) =
            from_bytes(&mut input, protocol, side, &decode.reads, &mut printer).map_err(unreadable)?;
        if beyond > 0 {
            return Err(Failure::usage(format!("--reads goes {beyond} bytes beyond the end of {name}")));
        }
        malformed
    };
    match printer.error {
        // Whoever reads has seen enough.
        Some(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Class::Internal, "", format!("can't write standard output: {error}")))
        }
        _ => Ok(malformed),
    }
}

/// Writes lines as long as somebody reads them.
struct Printer {
    error: Option<io::Error>,
}

impl Printer {
    fn say(&mut self, line: &str) {
        if self.error.is_none() {
            self.error = print(&format!("{line}\n")).err();
        }
    }
}

/// The bytes of one direction, cut into reads of these sizes; what is beyond them is one read more. Gives whether they make no
/// sense somewhere or stop half-way, and how many bytes of the reads there aren't.
fn from_bytes(
    input: &mut impl BufRead,
    protocol: Protocol,
    side: Side,
    reads: &[usize],
    printer: &mut Printer,
) -> io::Result<(bool, usize)> {
    let mut explainer = Explainer::new(protocol, side, !reads.is_empty());
    let mut sizes = reads.iter().copied();
    let mut left = 0;
    let mut say = |line: String| printer.say(&line);
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            explainer.handle_end(&mut say);
            let cut = if left == usize::MAX { 0 } else { left };
            let broken = explainer.is_malformed() || explainer.is_cut();
            return Ok((broken, sizes.fold(cut, usize::saturating_add)));
        }
        if left == 0 {
            left = sizes.next().unwrap_or(usize::MAX);
            explainer.begin_read(&mut say);
        }
        let take = left.min(buffer.len());
        explainer.handle_bytes(buffer.get(..take).unwrap_or(buffer), &mut say);
        input.consume(take);
        if left != usize::MAX {
            left -= take;
        }
    }
}

fn looks_like_capture(start: &[u8]) -> bool {
    let line = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
    match line.split_first() {
        Some((b'<' | b'>', rest)) => {
            rest.len() > 1 && rest.iter().all(|byte| byte.is_ascii_hexdigit() || byte.is_ascii_whitespace())
        }
        _ => false,
    }
}

fn from_capture(
    input: &mut impl BufRead,
    protocol: Protocol,
    name: &str,
    printer: &mut Printer,
) -> Result<bool, Failure> {
    let mut server = Explainer::new(protocol, Side::Server, true);
    let mut client = Explainer::new(protocol, Side::Client, true);
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let wrong = |what: &str| Failure::usage(format!("{name}, line {number}: {what}"));
        let read = input.by_ref().take(LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| wrong(&format!("can't be read: {error}")))? == 0 {
            break;
        }
        if line.len() as u64 == LINE {
            return Err(wrong("longer than any read"));
        }
        line.retain(|byte| !byte.is_ascii_whitespace());
        let Some((mark, digits)) = line.split_first() else { continue };
        let explainer = match mark {
            b'<' => &mut server,
            b'>' => &mut client,
            _ => return Err(wrong("it begins neither with '<' nor with '>'")),
        };
        let bytes = data_encoding::HEXLOWER_PERMISSIVE
            .decode(digits)
            .map_err(|_| wrong("what follows the mark isn't hexadecimal bytes"))?;
        let mark = char::from(*mark);
        let mut say = |line: String| printer.say(&format!("{mark} {line}"));
        explainer.begin_read(&mut say);
        explainer.handle_bytes(&bytes, &mut say);
        explainer.end_read(&mut say);
    }
    client.handle_end(&mut |line| printer.say(&format!("> {line}")));
    server.handle_end(&mut |line| printer.say(&format!("< {line}")));
    Ok([server, client].iter().any(|side| side.is_malformed() || side.is_cut()))
}
