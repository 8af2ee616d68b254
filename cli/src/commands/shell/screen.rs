//! All that the shell shows, in order, and its copy in a recording.

use std::io;

use bytes::Bytes;
use encoding_rs::{Decoder, Encoding};
use remora_client::proto::WindowSize;

use super::super::streams::decode;
use super::prompt::Style;
use super::record::Record;
use crate::modes::Restored;
use crate::raw_mode;
use crate::stdio::{Sink, Which};
use crate::terminal::say;

/// Which stream of a job bytes are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Stdout,
    Stderr,
}

/// Our two output streams.
pub(super) struct Screen {
    out: Sink,
    err: Sink,
    encoding: Option<&'static Encoding>,
    decoders: Option<(Decoder, Decoder)>,
    record: Option<Record>,
    style: Style,
    /// Both streams are shown in one place, where they have to be told apart.
    tint: bool,
    /// What is asked of the terminal, where this is one; taken back when this is dropped.
    asked: Option<Restored>,
    /// Nothing stands in the line where the cursor is.
    pub(super) at_start: bool,
}

impl Screen {
    pub(super) fn new(encoding: Option<&'static Encoding>, record: Option<Record>, style: Style) -> Self {
        let mut screen = Screen {
            out: Sink::open(Which::Stdout),
            err: Sink::open(Which::Stderr),
            encoding: encoding.filter(|encoding| *encoding != encoding_rs::UTF_8),
            decoders: None,
            record,
            style,
            tint: false,
            asked: None,
            at_start: true,
        };
        screen.begin();
        screen
    }

    /// Standard error is tinted from now on.
    pub(super) fn tinted(mut self) -> Self {
        self.tint = true;
        self
    }

    /// A terminal shows it: what programs ask of that is taken back where they can't.
    pub(super) fn restored(mut self) -> Self {
        self.asked = Some(Restored::default());
        self
    }

    /// A program had no chance to take back what it asked of the terminal.
    pub(super) fn restore(&mut self) {
        let Some(asked) = &mut self.asked else { return };
        // Where the cursor was, a line began: it is there again.
        self.at_start |= asked.modes.is_alternate();
        let bytes = asked.back();
        self.copy(&bytes);
    }

    /// Whether a program fills the screen.
    pub(super) fn is_filled(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.modes.is_alternate())
    }

    /// The shell is left in order: the terminal is as its programs wanted it.
    pub(super) fn leave(&mut self) {
        self.asked.iter_mut().for_each(Restored::leave);
    }

    /// Another job's output begins: half a character of the last one's is none of it.
    pub(super) fn begin(&mut self) {
        let decoder = |encoding: &'static Encoding| encoding.new_decoder_without_bom_handling();
        self.decoders = self.encoding.map(|encoding| (decoder(encoding), decoder(encoding)));
    }

    /// Shows what a job wrote.
    ///
    /// # Errors
    /// Our stream can't be written.
    pub(super) async fn show(&mut self, of: Of, bytes: Bytes) -> io::Result<()> {
        let bytes = match (&mut self.decoders, of) {
            (None, _) => bytes,
            (Some((decoder, _)), Of::Stdout) | (Some((_, decoder)), Of::Stderr) => {
                decode(decoder, &bytes, false)
            }
        };
        let Some(last) = bytes.last() else { return Ok(()) };
        self.at_start = *last == b'\n';
        if let Some(asked) = &mut self.asked {
            asked.modes.see(&bytes);
        }
        let bytes = if self.tint && of == Of::Stderr && self.style.is_coloured() {
            [b"\x1b[31m", bytes.as_ref(), b"\x1b[0m"].concat().into()
        } else {
            bytes
        };
        self.copy(&bytes);
        match of {
            Of::Stdout => self.out.write(bytes).await,
            Of::Stderr => self.err.write(bytes).await,
        }
    }

    /// Shows a line of the shell's own, at the beginning of a line.
    ///
    /// # Errors
    /// Our stream can't be written.
    pub(super) async fn line(&mut self, text: &str) -> io::Result<()> {
        let end = if raw_mode::is_raw() { "\r\n" } else { "\n" };
        let begin = if self.at_start { "" } else { end };
        let line = Bytes::from(format!("{begin}{text}{end}"));
        self.at_start = true;
        self.copy(&line);
        self.out.write(line).await
    }

    /// The editor shows a prompt.
    pub(super) fn prompted(&mut self, prompt: &str) {
        self.copy(prompt.as_bytes());
    }

    /// A line was typed behind the prompt, and is on the screen already.
    pub(super) fn typed(&mut self, line: &str) {
        let further = format!("\r\n{}", super::prompt::CONTINUED);
        self.at_start = true;
        self.copy(format!("{}\r\n", line.replace('\n', &further)).as_bytes());
    }

    /// The window has another size.
    pub(super) fn resized(&mut self, size: &WindowSize) {
        if let Some(Err(error)) = self.record.as_mut().map(|record| record.resized(size)) {
            self.stop_recording(&error);
        }
    }

    /// Leaves the prompt where the editor shows it, and what the editor asked of the terminal behind.
    pub(super) async fn abandon(&mut self) {
        // Off: bracketed paste (xterm's control sequences, DECRST 2004).
        let _ = self.out.write(Bytes::from_static(b"\x1b[?2004l\r\n")).await;
        self.at_start = true;
    }

    fn copy(&mut self, bytes: &[u8]) {
        if let Some(Err(error)) = self.record.as_mut().map(|record| record.output(bytes)) {
            self.stop_recording(&error);
        }
    }

    fn stop_recording(&mut self, error: &io::Error) {
        self.record = None;
        say(&format!("the recording ends here: {error}"));
    }
}
