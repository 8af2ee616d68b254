//! Replies for peers that don't read UTF-8.

use encoding_rs::{CoderResult, Decoder, Encoder, EncoderResult, Encoding, UTF_8};

/// Turns one stream of UTF-8 into another encoding, across any borders. What isn't UTF-8, or has no place in the other encoding,
/// becomes `?`.
pub(super) struct Transcoder {
    decoder: Decoder,
    encoder: Encoder,
}

impl Transcoder {
    pub(super) fn new(encoding: &'static Encoding) -> Self {
        Transcoder { decoder: UTF_8.new_decoder_without_bom_handling(), encoder: encoding.new_encoder() }
    }

    /// The next bytes; `last` when nothing follows.
    pub(super) fn convert(&mut self, mut bytes: &[u8], last: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 16);
        let mut text = String::with_capacity(bytes.len() + 16);
        loop {
            text.clear();
            let (result, read, _) = self.decoder.decode_to_string(bytes, &mut text, last);
            bytes = bytes.get(read..).unwrap_or_default();
            let over = result == CoderResult::InputEmpty;
            self.encode(&text, last && over, &mut out);
            if over {
                return out;
            }
            text.reserve(bytes.len() + 16);
        }
    }

    fn encode(&mut self, mut text: &str, last: bool, out: &mut Vec<u8>) {
        loop {
            out.reserve(text.len() + 16);
            let (result, read) = self.encoder.encode_from_utf8_to_vec_without_replacement(text, out, last);
            text = text.get(read..).unwrap_or_default();
            match result {
                EncoderResult::InputEmpty => return,
                EncoderResult::OutputFull => {}
                // ISO-2022-JP is in a state where this is a question mark (Encoding Standard, 12.2.2).
                EncoderResult::Unmappable(_) => out.push(b'?'),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use encoding_rs::{GBK, ISO_2022_JP, SHIFT_JIS, WINDOWS_1252};

    fn convert(encoding: &'static Encoding, bytes: &[u8], size: usize) -> Vec<u8> {
        let mut transcoder = Transcoder::new(encoding);
        let mut out = Vec::new();
        for chunk in bytes.chunks(size) {
            out.extend(transcoder.convert(chunk, false));
        }
        out.extend(transcoder.convert(b"", true));
        out
    }

    #[test]
    fn text_is_the_same_however_it_is_cut() {
        for (encoding, text, expected) in [
            (GBK, "中文 ok", &b"\xd6\xd0\xce\xc4 ok"[..]),
            (GBK, "a😀b", b"a?b"),
            (SHIFT_JIS, "日本", b"\x93\xfa\x96\x7b"),
            (WINDOWS_1252, "naïve 中", b"na\xefve ?"),
            (ISO_2022_JP, "aあ😀あ", b"a\x1b$B$\"\x1b(B?\x1b$B$\"\x1b(B"),
        ] {
            for size in 1..=text.len() {
                let got = convert(encoding, text.as_bytes(), size);
                assert_eq!(
                    got.escape_ascii().to_string(),
                    expected.escape_ascii().to_string(),
                    "{text} by {size}"
                );
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_question_marks() {
        assert_eq!(convert(GBK, b"a\xffb\xe4", 1), b"a?b?");
        let long = "中".repeat(100_000);
        assert_eq!(convert(GBK, long.as_bytes(), 4096).len(), 200_000);
    }
}
