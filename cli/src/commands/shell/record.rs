//! `--record`: all that is shown, as asciicast v2 (docs.asciinema.org), so that the usual players play it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use remora_client::proto::WindowSize;
use serde_json::json;

/// What a player is told of a window that has no size.
const UNKNOWN: (u32, u32) = (80, 24);

/// A recording.
pub(super) struct Record<W = File> {
    to: W,
    start: Instant,
    /// The beginning of a character whose end is still to come.
    held: Vec<u8>,
}

impl Record {
    /// Begins one, in a new file that nobody else can read.
    ///
    /// # Errors
    /// The file is there already, or can't be made.
    pub(super) fn begin(path: &Path, size: Option<WindowSize>) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Record::start(file, size)
    }
}

impl<W: Write> Record<W> {
    fn start(to: W, size: Option<WindowSize>) -> io::Result<Self> {
        let (width, height) = size.as_ref().map_or(UNKNOWN, dimensions);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let header = json!({
            "version": 2,
            "width": width,
            "height": height,
            "timestamp": since.as_secs(),
            "env": { "TERM": variable("TERM"), "SHELL": variable("SHELL") },
        });
        let mut record = Record { to, start: Instant::now(), held: Vec::new() };
        record.line(&header)?;
        Ok(record)
    }

    /// Bytes that are shown. What is no text is recorded as a terminal would show it.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn output(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.held.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.held) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // What isn't text in the middle hides whether the end is half a character.
            Err(_) => cut(&self.held),
            Ok(_) => self.held.len(),
        };
        let rest = self.held.split_off(whole);
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held = rest;
        if text.is_empty() { Ok(()) } else { self.event("o", &text) }
    }

    /// The window has another size.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn resized(&mut self, size: &WindowSize) -> io::Result<()> {
        let (width, height) = dimensions(size);
        self.event("r", &format!("{width}x{height}"))
    }

    fn event(&mut self, kind: &str, data: &str) -> io::Result<()> {
        let time = (self.start.elapsed().as_secs_f64() * 1e6).round() / 1e6;
        self.line(&json!([time, kind, data]))
    }

    fn line(&mut self, value: &serde_json::Value) -> io::Result<()> {
        self.to.write_all(format!("{value}\n").as_bytes())
    }
}

fn dimensions(size: &WindowSize) -> (u32, u32) {
    if size.columns == 0 || size.rows == 0 { UNKNOWN } else { (size.columns, size.rows) }
}

/// Where the last whole character of bytes ends that aren't all text.
fn cut(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let tail = bytes.get(bytes.len() - back..).unwrap_or_default();
        if let Err(error) = std::str::from_utf8(tail)
            && error.error_len().is_none()
            && error.valid_up_to() == 0
        {
            return bytes.len() - back;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(pieces: &[&[u8]]) -> Vec<serde_json::Value> {
        let mut to = Vec::new();
        let size = WindowSize { rows: 33, columns: 99, width: 0, height: 0 };
        let mut record = Record::start(&mut to, Some(size)).unwrap();
        for piece in pieces {
            record.output(piece).unwrap();
        }
        record.resized(&WindowSize { rows: 5, columns: 7, width: 0, height: 0 }).unwrap();
        String::from_utf8(to).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn it_is_a_header_and_an_event_a_line() {
        let lines = recorded(&[b"a\r\n\x1b[31m"]);
        assert_eq!(
            (&lines[0]["version"], &lines[0]["width"], &lines[0]["height"]),
            (&2.into(), &99.into(), &33.into())
        );
        assert!(lines[0]["timestamp"].as_u64() > Some(1_600_000_000) && lines[0]["env"]["TERM"].is_string());
        assert_eq!((&lines[1][1], &lines[1][2]), (&"o".into(), &"a\r\n\u{1b}[31m".into()));
        assert_eq!((&lines[2][1], &lines[2][2]), (&"r".into(), &"7x5".into()));
        assert!(lines[1][0].as_f64() <= lines[2][0].as_f64());
    }

    #[test]
    fn characters_are_whole_whatever_the_pieces() {
        let bytes = "naïve 文字 \u{1f980}!".as_bytes();
        for size in 1..=bytes.len() {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            let lines = recorded(&pieces);
            let text: String = lines
                .iter()
                .skip(1)
                .filter(|line| line[1] == "o")
                .map(|line| line[2].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(text.as_bytes(), bytes, "in pieces of {size}");
        }
        let text = recorded(&[b"\xff\xe6", b"\x96\x87"]);
        assert_eq!((text[1][2].as_str(), text[2][2].as_str()), (Some("\u{fffd}"), Some("文")));
    }

    #[test]
    fn an_existing_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cast");
        drop(Record::begin(&path, None).unwrap());
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            Record::begin(&path, None).err().map(|error| error.kind()),
            Some(io::ErrorKind::AlreadyExists)
        );
    }
}
