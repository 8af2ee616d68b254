//! What a program on the host has asked of our terminal, and may not have taken back when it was lost: the alternate screen, the
//! mouse, the keypad (xterm's control sequences, "Functions using CSI", DECSET and XTMODKEYS). Never text, colours or the title.

use std::io::{self, Write};

/// DEC's private modes that leave a terminal unusable for others. The cursor alone is on to begin with.
const PRIVATE: [u16; 15] = [1, 9, 25, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 1047, 1049, 2004];
/// Those that are three names of one screen.
const ALTERNATE: [u16; 3] = [47, 1047, 1049];
/// The mode that is on to begin with: a cursor that is seen.
const CURSOR: u16 = 25;
/// The resource of XTMODKEYS that changes what Ctrl and a letter send.
const OTHER_KEYS: u16 = 4;
/// Most numbers of one sequence that are looked at, more than xterm's terminfo entries ever send.
const NUMBERS: usize = 16;

/// Which modes are other than they were, as seen in what was written to the terminal.
#[derive(Debug, Default)]
pub(crate) struct Modes {
    state: State,
    numbers: [u16; NUMBERS],
    count: usize,
    /// A bit for each of [`PRIVATE`].
    private: u16,
    keypad: bool,
    other_keys: bool,
}

/// Where in a control sequence the bytes so far have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    Escape,
    Bracket,
    /// Behind this byte, which says what the numbers are of.
    Numbers(u8),
}

impl Modes {
    /// Bytes are written to the terminal; a sequence may begin in one piece and end in another.
    pub(crate) fn see(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        loop {
            if self.state == State::Text {
                let Some(at) = rest.iter().position(|byte| *byte == 0x1b) else { return };
                rest = rest.get(at..).unwrap_or_default();
            }
            let Some((byte, behind)) = rest.split_first() else { return };
            rest = behind;
            self.state = self.next(*byte);
        }
    }

    fn next(&mut self, byte: u8) -> State {
        match (self.state, byte) {
            (_, 0x1b) => return State::Escape,
            (State::Escape, b'[') => return State::Bracket,
            (State::Escape, b'=') => self.keypad = true,
            (State::Escape, b'>') => self.keypad = false,
            // RIS: all is as it was when the terminal was switched on.
            (State::Escape, b'c') => *self = Modes::default(),
            (State::Bracket, b'?' | b'>' | b'!') => {
                (self.numbers, self.count) = ([0; NUMBERS], 0);
                return State::Numbers(byte);
            }
            (State::Numbers(_), b'0'..=b'9') => {
                if let Some(number) = self.numbers.get_mut(self.count) {
                    *number = number.saturating_mul(10).saturating_add(u16::from(byte - b'0'));
                }
                return self.state;
            }
            (State::Numbers(_), b';') => {
                self.count += 1;
                return self.state;
            }
            (State::Numbers(b'?'), b'h' | b'l') => {
                let end = (self.count + 1).min(NUMBERS);
                for number in self.numbers.into_iter().take(end) {
                    self.switch(number, byte == b'h');
                }
            }
            (State::Numbers(b'>'), b'm') => match self.numbers {
                [OTHER_KEYS, level, ..] => self.other_keys = level > 0,
                [0, ..] => self.other_keys = false,
                _ => {}
            },
            // DECSTR: of ours it resets the cursor, its keys and the keypad.
            (State::Numbers(b'!'), b'p') => {
                self.switch(1, false);
                self.switch(CURSOR, true);
                self.keypad = false;
            }
            _ => {}
        }
        State::Text
    }

    fn switch(&mut self, number: u16, on: bool) {
        let changed = on != (number == CURSOR);
        for (bit, mode) in PRIVATE.iter().enumerate() {
            let same = ALTERNATE.contains(mode) && ALTERNATE.contains(&number) && !on;
            if *mode == number || same {
                self.private = self.private & !(1 << bit) | u16::from(changed) << bit;
            }
        }
    }

    /// Whether the alternate screen is shown.
    pub(crate) fn is_alternate(&self) -> bool {
        PRIVATE.iter().enumerate().any(|(bit, mode)| ALTERNATE.contains(mode) && self.private >> bit & 1 == 1)
    }

    /// What switches back all that is still switched, and nothing else; it counts as written.
    pub(crate) fn take_back(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.other_keys {
            out.extend_from_slice(format!("\x1b[>{OTHER_KEYS}m").as_bytes());
        }
        if self.keypad {
            out.extend_from_slice(b"\x1b>");
        }
        for (bit, mode) in PRIVATE.iter().enumerate() {
            if self.private >> bit & 1 == 1 {
                let end = if *mode == CURSOR { 'h' } else { 'l' };
                out.extend_from_slice(format!("\x1b[?{mode}{end}").as_bytes());
            }
        }
        *self = Modes::default();
        out
    }
}

/// The terminal on our standard output, which gets back what it was when this is dropped, also when a panic unwinds.
#[derive(Default)]
pub(crate) struct Restored {
    pub(crate) modes: Modes,
}

impl Restored {
    /// Switches back now, and gives what was written for that.
    pub(crate) fn back(&mut self) -> Vec<u8> {
        let bytes = self.modes.take_back();
        if !bytes.is_empty() {
            // A terminal that is gone needs nothing.
            let mut out = io::stdout();
            let _ = out.write_all(&bytes).and_then(|()| out.flush());
        }
        bytes
    }

    /// It is to stay as it is: the program that left it so has ended as it wanted to.
    pub(crate) fn leave(&mut self) {
        self.modes = Modes::default();
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        self.back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What switches back behind this text, which is seen in pieces of each size.
    #[track_caller]
    fn behind(text: &str) -> String {
        let mut all = None;
        for size in 1..=text.len().max(1) {
            let mut modes = Modes::default();
            text.as_bytes().chunks(size).for_each(|piece| modes.see(piece));
            let back = String::from_utf8(modes.take_back()).unwrap();
            assert_eq!(modes.take_back(), b"");
            assert_eq!(all.get_or_insert_with(|| back.clone()), &back, "{text:?} in pieces of {size}");
        }
        all.unwrap()
    }

    #[test]
    fn what_is_still_on_is_switched_back() {
        let cases = [
            ("", ""),
            ("text\r\n[?1049h ?25l", ""),
            ("\x1b[?1049h", "\x1b[?1049l"),
            ("\x1b[?1049h\x1b[?1049l", ""),
            ("\x1b[?1049h\x1b[?47l", ""),
            ("\x1b[?25l", "\x1b[?25h"),
            ("\x1b[?25l\x1b[?12;25h", ""),
            ("\x1b[?1000;1006hx\x1b[31m", "\x1b[?1000l\x1b[?1006l"),
            ("\x1b[?1000;1006h\x1b[?1000l", "\x1b[?1006l"),
            ("\x1b[?1h\x1b=", "\x1b>\x1b[?1l"),
            ("\x1b[?1h\x1b=\x1b[?1l\x1b>", ""),
            ("\x1b[?2004h\x1b[?1003h\x1b[?1004h", "\x1b[?1003l\x1b[?1004l\x1b[?2004l"),
            ("\x1b[>4;2m", "\x1b[>4m"),
            ("\x1b[>4;2m\x1b[>4;m", ""),
            ("\x1b[?1049h\x1b[?25l\x1b=\x1bc", ""),
            ("\x1b[?1h\x1b[?25l\x1b[?1000h\x1b=\x1b[!p", "\x1b[?1000l"),
            // A sequence that another one cuts, one without a number, one with a number too large, other modes and settings.
            ("\x1b[?10\x1b[?25l", "\x1b[?25h"),
            ("\x1b[?h\x1b[?99999999999h\x1b[?7h\x1b[4h\x1b[25l\x1b[?1000$p\x1b[?1000s", ""),
        ];
        for (text, back) in cases {
            assert_eq!(behind(text), back, "{text:?}");
        }
        assert_eq!(behind(&format!("\x1b[?{}25lx\x1b[?25l", "7;".repeat(100))), "\x1b[?25h");
    }

    #[test]
    fn the_alternate_screen_is_known() {
        let mut modes = Modes::default();
        for (text, alternate) in [("\x1b[?25l", false), ("\x1b[?47h", true), ("\x1b[?1049l", false)] {
            modes.see(text.as_bytes());
            assert_eq!(modes.is_alternate(), alternate);
        }
    }
}
