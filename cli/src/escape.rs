//! ssh's escapes: a `~` at the beginning of a line, and a character that says what to do. What is typed goes through here on its way.

/// What a person asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// `~.`: leave, whatever the host does.
    Leave,
    /// `~^Z`: stop this client, and go on later.
    Suspend,
    /// `~?`: what there is.
    Help,
}

/// What `~?` shows.
pub(crate) const HELP: &str =
    "at the beginning of a line: ~. leaves, ~^Z stops this client, ~~ sends one ~, ~? shows this";

/// How far into an escape what was typed is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// At the beginning of a line.
    #[default]
    LineStart,
    /// Behind a `~` at the beginning of a line, which isn't sent yet.
    Tilde,
    /// Somewhere else in a line.
    Within,
}

/// Takes the escapes out of what is typed.
#[derive(Debug, Default)]
pub(crate) struct Escapes {
    state: State,
}

impl Escapes {
    /// Passes bytes on into `out`, up to the first escape: then the wish, and how many bytes were taken.
    pub(crate) fn filter(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<(Wish, usize)> {
        for (index, byte) in bytes.iter().copied().enumerate() {
            let before = self.state;
            self.state = match (before, byte) {
                (State::LineStart, b'~') => State::Tilde,
                // What a terminal in raw mode sends for Enter is a carriage return.
                (_, b'\r' | b'\n') => State::LineStart,
                _ => State::Within,
            };
            if before == State::Tilde {
                let wish = match byte {
                    b'.' => Some(Wish::Leave),
                    0x1a => Some(Wish::Suspend),
                    b'?' => Some(Wish::Help),
                    _ => None,
                };
                if let Some(wish) = wish {
                    self.state = State::LineStart;
                    return Some((wish, index + 1));
                }
                out.push(b'~');
                if byte == b'~' {
                    continue;
                }
            }
            if self.state != State::Tilde {
                out.push(byte);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that comes out of what is typed, in pieces of a size, and the wishes in between.
    fn typed(text: &[u8], size: usize) -> (Vec<u8>, Vec<Wish>) {
        let (mut out, mut wishes, mut escapes) = (Vec::new(), Vec::new(), Escapes::default());
        for mut piece in text.chunks(size) {
            while let Some((wish, taken)) = escapes.filter(piece, &mut out) {
                wishes.push(wish);
                piece = &piece[taken..];
            }
        }
        (out, wishes)
    }

    #[test]
    fn escapes_are_taken_out_at_the_beginning_of_a_line_and_nowhere_else() {
        let cases: [(&[u8], &[u8], &[Wish]); 9] = [
            (b"ls ~/x\r", b"ls ~/x\r", &[]),
            (b"~.", b"", &[Wish::Leave]),
            (b"ls\r~.", b"ls\r", &[Wish::Leave]),
            (b"x~.", b"x~.", &[]),
            (b"~~.\r", b"~.\r", &[]),
            (b"~/bin/x\r~?y", b"~/bin/x\ry", &[Wish::Help]),
            (b"~\x1a~.", b"", &[Wish::Suspend, Wish::Leave]),
            (b"~\r~.", b"~\r", &[Wish::Leave]),
            ("~é\n~?".as_bytes(), "~é\n".as_bytes(), &[Wish::Help]),
        ];
        for (text, out, wishes) in cases {
            for size in 1..=text.len() {
                assert_eq!(
                    typed(text, size),
                    (out.to_vec(), wishes.to_vec()),
                    "{text:?} in pieces of {size}"
                );
            }
        }
    }
}
