//! The JSON object in front of a payload on the `header` wire.

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::fault::Fault;
use super::number::{Size, size};
use crate::limits;

/// How long stdout and stderr are in a payload, bytes: it is the one, then the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// Bytes of stdout.
    pub stdout: u64,
    /// Bytes of stderr.
    pub stderr: u64,
}

/// How the command ended, as the peer tells it. Nothing proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this status.
    Exited(u8),
    /// By the signal of this number, 1 to 64.
    Signaled(u8),
    /// The peer says that it doesn't know.
    Unknown,
    /// The peer means to say it, and names what can't be: this.
    Impossible(&'static str),
}

/// What made the peer end the command. Nothing proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedBy {
    /// Its time limit.
    Deadline,
    /// Its limit of output.
    Output,
    /// Its limit of memory.
    Memory,
    /// The server stops.
    Shutdown,
}

impl EndedBy {
    const ALL: [EndedBy; 4] = [EndedBy::Deadline, EndedBy::Output, EndedBy::Memory, EndedBy::Shutdown];

    /// Its word on the wire.
    pub fn name(self) -> &'static str {
        match self {
            EndedBy::Deadline => "deadline",
            EndedBy::Output => "limit: output",
            EndedBy::Memory => "limit: memory",
            EndedBy::Shutdown => "shutdown",
        }
    }
}

/// What the object says. Members that it may lack, or that hold what they can't, are `None`: the `header` wire is spoken by peers
/// that know three members, and give others a meaning of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Length of the payload, bytes: `total_size`.
    pub total_size: u64,
    /// `md5`: 32 hexadecimal digits in either case.
    pub md5: Option<[u8; 16]>,
    /// `blake3`: 64 of them.
    pub blake3: Option<[u8; 32]>,
    /// `filename`, as the peer gave it: see [`safe_file_name`](super::safe_file_name).
    pub file_name: Option<String>,
    /// `stdout_size` and `stderr_size`, where both are there and add up to the total.
    pub streams: Option<Streams>,
    /// `exit_code` and `signal`, where they agree with each other.
    pub ending: Option<Ending>,
    /// `ended_by`, where it fits the ending.
    pub ended_by: Option<EndedBy>,
    /// Members known here that hold what they can't, and were ignored.
    pub ignored: Vec<&'static str>,
}

/// The members that count, as they stand in the text. A number there may have any number of digits.
#[derive(Default)]
struct Members<'a> {
    total_size: Option<&'a RawValue>,
    md5: Option<&'a RawValue>,
    blake3: Option<&'a RawValue>,
    filename: Option<&'a RawValue>,
    stdout_size: Option<&'a RawValue>,
    stderr_size: Option<&'a RawValue>,
    exit_code: Option<&'a RawValue>,
    signal: Option<&'a RawValue>,
    ended_by: Option<&'a RawValue>,
    repeated: Option<&'static str>,
}

impl<'a> Members<'a> {
    fn slot(&mut self, name: &str) -> Option<(&'static str, &mut Option<&'a RawValue>)> {
        Some(match name {
            "total_size" => ("total_size", &mut self.total_size),
            "md5" => ("md5", &mut self.md5),
            "blake3" => ("blake3", &mut self.blake3),
            "filename" => ("filename", &mut self.filename),
            "stdout_size" => ("stdout_size", &mut self.stdout_size),
            "stderr_size" => ("stderr_size", &mut self.stderr_size),
            "exit_code" => ("exit_code", &mut self.exit_code),
            "signal" => ("signal", &mut self.signal),
            "ended_by" => ("ended_by", &mut self.ended_by),
            _ => return None,
        })
    }
}

struct MembersVisitor;

impl<'a> Visitor<'a> for MembersVisitor {
    type Value = Members<'a>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key::<std::borrow::Cow<'a, str>>()? {
            let Some((name, slot)) = members.slot(&name) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if slot.replace(map.next_value()?).is_some() {
                members.repeated = Some(name);
            }
        }
        Ok(members)
    }
}

impl Header {
    /// Reads the object.
    ///
    /// # Errors
    /// [`Fault`], where it isn't one, repeats a member that counts, or has no usable `total_size`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(bytes).map_err(|error| Fault::NotUtf8(error.valid_up_to()))?;
        let malformed =
            |error: &serde_json::Error| Fault::NotJson { line: error.line(), column: error.column() };
        // Whether it is JSON at all is asked first, so that a list isn't called malformed.
        let whole: &RawValue = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        if !whole.get().starts_with('{') {
            return Err(Fault::NotAnObject);
        }
        let mut reader = serde_json::Deserializer::from_str(text);
        let members = reader.deserialize_map(MembersVisitor).map_err(|error| malformed(&error))?;
        if let Some(name) = members.repeated {
            return Err(Fault::Repeated(name));
        }
        let total_size = total(members.total_size)?;
        let mut ignored = Vec::new();
        let md5 = digest(members.md5);
        let blake3 = digest(members.blake3);
        let streams = streams(&members, total_size, &mut ignored);
        let ending = ending(&members, &mut ignored);
        let ended_by = ended_by(members.ended_by, ending, &mut ignored);
        let file_name = string(members.filename);
        Ok(Header { total_size, md5, blake3, file_name, streams, ending, ended_by, ignored })
    }

    /// The object and its length, as they go over the wire. It never comes near [`limits::PLAIN_HEADER`] unless the name of
    /// the file does; then the name is left out.
    pub fn encode(&self) -> Vec<u8> {
        let object = self.to_json(self.file_name.as_deref().unwrap_or_default());
        let object = if object.len() > limits::PLAIN_HEADER { self.to_json("") } else { object };
        let length = i32::try_from(object.len()).unwrap_or(0);
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(object.as_bytes());
        bytes
    }

    fn to_json(&self, file_name: &str) -> String {
        use std::fmt::Write;
        let quoted = serde_json::Value::from(file_name).to_string();
        let mut text = format!("{{\"total_size\":{},\"md5\":", self.total_size);
        push_hex(&mut text, self.md5.as_ref().map(<[u8; 16]>::as_slice));
        // Writing to a String can't fail.
        let _ = write!(text, ",\"filename\":{quoted}");
        if let Some(streams) = self.streams {
            let _ = write!(text, ",\"stdout_size\":{},\"stderr_size\":{}", streams.stdout, streams.stderr);
        }
        let _ = match self.ending {
            None => Ok(()),
            Some(Ending::Exited(status)) => write!(text, ",\"exit_code\":{status},\"signal\":null"),
            Some(Ending::Signaled(signal)) => write!(text, ",\"exit_code\":null,\"signal\":{signal}"),
            Some(Ending::Unknown | Ending::Impossible(_)) => {
                write!(text, ",\"exit_code\":null,\"signal\":null")
            }
        };
        if let Some(by) = self.ended_by {
            let _ = write!(text, ",\"ended_by\":\"{}\"", by.name());
        }
        text.push_str(",\"blake3\":");
        push_hex(&mut text, self.blake3.as_ref().map(<[u8; 32]>::as_slice));
        text.push('}');
        text
    }
}

fn push_hex(text: &mut String, digest: Option<&[u8]>) {
    use std::fmt::Write;
    let Some(digest) = digest else { return text.push_str("null") };
    text.push('"');
    for byte in digest {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('"');
}

fn total(value: Option<&RawValue>) -> Result<u64, Fault> {
    let limit = limits::PLAIN_TOTAL;
    match size(value.ok_or(Fault::NoSize)?.get()) {
        Some(Size::Whole(bytes)) if bytes <= limit => Ok(bytes),
        Some(Size::Whole(bytes)) => Err(Fault::SizeTooLarge { digits: u64::from(bytes.ilog10()) + 1, limit }),
        Some(Size::TooLarge(digits)) => Err(Fault::SizeTooLarge { digits, limit }),
        Some(Size::Negative) => Err(Fault::NotASize("negative")),
        Some(Size::Fraction) => Err(Fault::NotASize("not whole")),
        None => Err(Fault::SizeNotANumber),
    }
}

fn string(value: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(value?.get()).ok()
}

/// `N` bytes as hexadecimal digits in a string.
fn digest<const N: usize>(value: Option<&RawValue>) -> Option<[u8; N]> {
    let text = string(value)?;
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        // Not u8::from_str_radix on the pair alone: it takes a sign for a digit.
        let pair =
            std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|c| c.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

fn streams(members: &Members<'_>, total: u64, ignored: &mut Vec<&'static str>) -> Option<Streams> {
    if members.stdout_size.is_none() && members.stderr_size.is_none() {
        return None;
    }
    let read = |value: Option<&RawValue>| match size(value?.get()) {
        Some(Size::Whole(bytes)) => Some(bytes),
        _ => None,
    };
    let found = read(members.stdout_size).zip(read(members.stderr_size));
    let found = found.filter(|(stdout, stderr)| stdout.checked_add(*stderr) == Some(total));
    if found.is_none() {
        ignored.extend(["stdout_size", "stderr_size"]);
    }
    found.map(|(stdout, stderr)| Streams { stdout, stderr })
}

fn ending(members: &Members<'_>, ignored: &mut Vec<&'static str>) -> Option<Ending> {
    enum Read {
        Nothing,
        Null,
        Number(u64),
        Nonsense,
    }
    let mut read = |name, value: Option<&RawValue>, range: std::ops::RangeInclusive<u64>| {
        match value.map(RawValue::get) {
            None => Read::Nothing,
            // Not even a number: a member of the peer's own that happens to have this name.
            Some(text) if text != "null" && !text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
                ignored.push(name);
                Read::Nothing
            }
            Some("null") => Read::Null,
            Some(text) => match size(text) {
                Some(Size::Whole(number)) if range.contains(&number) => Read::Number(number),
                _ => Read::Nonsense,
            },
        }
    };
    let status = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
    let exit_code = read("exit_code", members.exit_code, 0..=255);
    let signal = read("signal", members.signal, 1..=64);
    match (exit_code, signal) {
        (Read::Nothing, Read::Nothing | Read::Null) => None,
        (Read::Number(code), Read::Nothing | Read::Null) => Some(Ending::Exited(status(code))),
        (Read::Null, Read::Nothing | Read::Null) => Some(Ending::Unknown),
        (Read::Nothing | Read::Null, Read::Number(signal)) => Some(Ending::Signaled(status(signal))),
        // As a shell tells of a signal.
        (Read::Number(code), Read::Number(signal)) if code == 128 + signal => {
            Some(Ending::Signaled(status(signal)))
        }
        // What follows is meant to tell an ending, and doesn't: no reason to take it for a good one.
        (Read::Nonsense, _) => Some(Ending::Impossible("an exit code that can't be")),
        (_, Read::Nonsense) => Some(Ending::Impossible("a signal that can't be")),
        (Read::Number(_), Read::Number(_)) => {
            Some(Ending::Impossible("an exit code and a signal that contradict each other"))
        }
    }
}

fn ended_by(
    value: Option<&RawValue>,
    ending: Option<Ending>,
    ignored: &mut Vec<&'static str>,
) -> Option<EndedBy> {
    let value = value.filter(|value| value.get() != "null")?;
    let name = string(Some(value));
    let by =
        EndedBy::ALL.into_iter().find(|by| name.as_deref() == Some(by.name())).filter(|by| match ending {
            Some(Ending::Signaled(_)) => true,
            // The status of docs/EXIT-STATUS.md.
            Some(Ending::Exited(124)) => *by == EndedBy::Deadline,
            _ => false,
        });
    if by.is_none() {
        ignored.push("ended_by");
    }
    by
}
