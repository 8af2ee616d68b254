//! A job's streams on their way from and to ours.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use encoding_rs::{CoderResult, Decoder, Encoding};
use remora_client::{Reader, Writer};

use super::folder::Copy;
use super::receipt::Captured;
use crate::stdio::{Sink, Source};

/// Our stdin, which can be sent again from its start to another job until the user is accepted.
pub(crate) struct Input {
    source: Option<Source>,
    /// What was read so far, while a denied key may still mean a second try. Bounded by what a job takes before its user is
    /// accepted: a window and a queue.
    kept: VecDeque<Bytes>,
    accepted: Rc<Cell<bool>>,
    ended: bool,
}

impl Input {
    pub(crate) fn new() -> Self {
        Input { source: None, kept: VecDeque::new(), accepted: Rc::default(), ended: false }
    }

    /// To be set once the user is accepted: no second try will need what was read.
    pub(crate) fn accepted(&self) -> Rc<Cell<bool>> {
        self.accepted.clone()
    }

    /// Sends it all, again what was sent before, until its end or until the command reads no more.
    ///
    /// # Errors
    /// I/O errors of our stdin.
    pub(crate) async fn pump(&mut self, mut writer: Writer) -> io::Result<()> {
        for chunk in self.kept.clone() {
            if !writer.write(chunk).await {
                return Ok(());
            }
        }
        while !self.ended {
            let source = self.source.get_or_insert_with(Source::open);
            let chunk = tokio::select! {
                biased;
                chunk = source.read() => chunk?,
                () = writer.closed() => return Ok(()),
            };
            let Some(chunk) = chunk else {
                self.ended = true;
                break;
            };
            if self.accepted.get() {
                self.kept.clear();
            } else {
                self.kept.push_back(chunk.clone());
            }
            if !writer.write(chunk).await {
                return Ok(());
            }
        }
        writer.finish();
        Ok(())
    }
}

/// Where a job's output goes.
pub(crate) enum Target {
    /// To one of our streams as it comes.
    Stream(Sink),
    /// Into memory, up to a bound, for `--json`.
    Kept { bytes: Vec<u8>, limit: u64, seen: u64 },
}

/// One output stream's way to its target.
pub(crate) struct Output {
    pub(crate) target: Target,
    /// What is kept besides: as it came, before any decoding.
    copy: Option<Copy>,
    decoder: Option<Decoder>,
}

impl Output {
    pub(crate) fn new(target: Target, encoding: Option<&'static Encoding>) -> Self {
        // UTF-8 goes through as it is: bytes that aren't text stay what they were.
        let decoder =
            encoding.filter(|e| *e != encoding_rs::UTF_8).map(Encoding::new_decoder_without_bom_handling);
        Output { target, copy: None, decoder }
    }

    /// Has it kept besides.
    pub(crate) fn with_copy(self, copy: Option<Copy>) -> Self {
        Output { copy, ..self }
    }

    /// What was kept besides.
    pub(crate) fn take_copy(&mut self) -> Option<Copy> {
        self.copy.take()
    }

    /// Moves the stream to its end; each piece is seen before it is written. Dropping the reader early closes the stream on the host.
    ///
    /// # Errors
    /// I/O errors of our stream; a broken pipe among them.
    pub(crate) async fn pump(&mut self, mut reader: Reader, mut seen: impl FnMut(&[u8])) -> io::Result<()> {
        while let Some(chunk) = reader.next().await {
            seen(&chunk);
            if let Some(copy) = &mut self.copy {
                copy.take(&chunk);
            }
            self.put(chunk, false).await?;
        }
        if self.decoder.is_some() {
            self.put(Bytes::new(), true).await?;
        }
        Ok(())
    }

    /// What was kept for `--json`.
    pub(crate) fn captured(&self) -> Captured<'_> {
        match &self.target {
            Target::Kept { bytes, seen, .. } => Captured { bytes, seen: *seen },
            Target::Stream(_) => Captured { bytes: &[], seen: 0 },
        }
    }

    /// Takes bytes of the stream; `last` when nothing follows.
    ///
    /// # Errors
    /// I/O errors of our stream.
    pub(crate) async fn put(&mut self, chunk: Bytes, last: bool) -> io::Result<()> {
        let chunk = match &mut self.decoder {
            Some(decoder) => decode(decoder, &chunk, last),
            None => chunk,
        };
        match &mut self.target {
            Target::Stream(sink) => sink.write(chunk).await,
            Target::Kept { bytes, limit, seen } => {
                let room = usize::try_from(limit.saturating_sub(bytes.len() as u64)).unwrap_or(usize::MAX);
                bytes.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                *seen += chunk.len() as u64;
                Ok(())
            }
        }
    }
}

/// Decodes across chunk borders; what is no text in that encoding becomes U+FFFD, as everywhere on the web.
pub(super) fn decode(decoder: &mut Decoder, chunk: &[u8], last: bool) -> Bytes {
    let mut text = String::with_capacity(decoder.max_utf8_buffer_length(chunk.len()).unwrap_or(chunk.len()));
    let mut rest = chunk;
    loop {
        let (result, read, _) = decoder.decode_to_string(rest, &mut text, last);
        rest = rest.get(read..).unwrap_or_default();
        match result {
            CoderResult::InputEmpty => return text.into_bytes().into(),
            CoderResult::OutputFull => text.reserve(rest.len().saturating_mul(3).saturating_add(16)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_decoded_whatever_the_chunks() {
        for (encoding, text) in [
            (encoding_rs::GBK, "中文输出 abc"),
            (encoding_rs::SHIFT_JIS, "日本語テキスト"),
            (encoding_rs::WINDOWS_1252, "naïve café"),
        ] {
            let (bytes, _, _) = encoding.encode(text);
            for size in 1..=bytes.len() {
                let mut decoder = encoding.new_decoder_without_bom_handling();
                let mut out = Vec::new();
                for chunk in bytes.chunks(size) {
                    out.extend_from_slice(&decode(&mut decoder, chunk, false));
                }
                out.extend_from_slice(&decode(&mut decoder, &[], true));
                assert_eq!(String::from_utf8(out).unwrap(), text, "{} in chunks of {size}", encoding.name());
            }
        }
    }

    #[test]
    fn half_a_character_at_the_end_is_shown_as_broken() {
        let mut decoder = encoding_rs::GBK.new_decoder_without_bom_handling();
        assert_eq!(decode(&mut decoder, &[0xd6], false), "");
        assert_eq!(decode(&mut decoder, &[], true), "\u{fffd}");
    }
}
