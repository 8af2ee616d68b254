//! What is typed while a command runs: read without taking more than was asked for, so that the line editor finds the rest.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bytes::Bytes;
use reedline::{KeyCode, KeyModifiers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::time::Instant;

pub(super) const CTRL_C: u8 = 0x03;
pub(super) const CTRL_D: u8 = 0x04;

/// Most bytes read at once.
const READ: usize = 16 * 1024;

/// The terminal's keyboard.
pub(super) struct Keys {
    fd: OwnedFd,
    /// Tells when there is something to read: the runtime's name for any descriptor that can be waited for.
    ready: pipe::Receiver,
}

impl Keys {
    /// The one on our standard input. It isn't opened anew, which another user's terminal wouldn't allow, and stays blocking: the flag
    /// belongs to all who share it.
    ///
    /// # Errors
    /// It can't be waited for.
    pub(super) fn open() -> io::Result<Self> {
        let fd = io::stdin().as_fd().try_clone_to_owned()?;
        let ready = pipe::Receiver::from_owned_fd_unchecked(fd.try_clone()?)?;
        Ok(Keys { fd, ready })
    }

    /// The next bytes; none when the terminal is gone.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) async fn read(&self) -> io::Result<Option<Bytes>> {
        loop {
            self.ready.readable().await?;
            let read = self.ready.try_io(|| {
                let mut ready = [PollFd::new(&self.fd, PollFlags::IN)];
                // The line editor may have read what the wake-up was for, and a read would wait.
                if poll(&mut ready, Some(&Timespec::default()))? == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let mut buffer = vec![0; READ];
                let count = rustix::io::read(&self.fd, &mut buffer)?;
                buffer.truncate(count);
                Ok(buffer)
            });
            match read {
                Ok(bytes) => return Ok((!bytes.is_empty()).then(|| bytes.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Keys {
    /// Waits until the terminal is gone: whoever is at its prompt then may never be told by a signal (su makes a session of its own),
    /// and the line editor reads its end again and again.
    pub(super) async fn hung_up(&self) {
        while let Ok(ready) = self.ready.ready(Interest::READABLE).await {
            if ready.is_read_closed() {
                return;
            }
            // What is typed is the editor's.
            let _ = self.ready.try_io(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }
}

/// What the line editor has read ahead, behind the line that it gave, as it was typed.
pub(super) fn read_ahead() -> Vec<u8> {
    use crossterm::event::{Event, poll, read};
    let mut typed = Vec::new();
    // No time at all would not even look at what is read already.
    while let Ok(true) = poll(Duration::from_millis(1)) {
        match read() {
            Ok(Event::Key(key)) => typed.extend(key_bytes(key.code, key.modifiers)),
            Ok(Event::Paste(text)) => typed.extend(text.replace('\n', "\r").bytes()),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    typed
}

/// A key as xterm sends it.
fn key_bytes(code: KeyCode, modifiers: KeyModifiers) -> Vec<u8> {
    let plain: Vec<u8> = match code {
        KeyCode::Char(c) if modifiers.contains(KeyModifiers::CONTROL) && c.is_ascii() => {
            vec![u8::try_from(c).unwrap_or_default() & 0x1f]
        }
        KeyCode::Char(c) => c.to_string().into_bytes(),
        KeyCode::Enter => b"\r".to_vec(),
        KeyCode::Tab => b"\t".to_vec(),
        KeyCode::Backspace => b"\x7f".to_vec(),
        KeyCode::Esc => b"\x1b".to_vec(),
        KeyCode::Up => b"\x1b[A".to_vec(),
        KeyCode::Down => b"\x1b[B".to_vec(),
        KeyCode::Right => b"\x1b[C".to_vec(),
        KeyCode::Left => b"\x1b[D".to_vec(),
        KeyCode::Home => b"\x1b[H".to_vec(),
        KeyCode::End => b"\x1b[F".to_vec(),
        KeyCode::BackTab => b"\x1b[Z".to_vec(),
        KeyCode::Insert => b"\x1b[2~".to_vec(),
        KeyCode::Delete => b"\x1b[3~".to_vec(),
        KeyCode::PageUp => b"\x1b[5~".to_vec(),
        KeyCode::PageDown => b"\x1b[6~".to_vec(),
        _ => Vec::new(),
    };
    if modifiers.contains(KeyModifiers::ALT) && !plain.is_empty() {
        return [b"\x1b", plain.as_slice()].concat();
    }
    plain
}

/// Typed bytes that nobody read, as lines for the prompt: those that were ended, and the beginning of one.
pub(super) fn as_lines(typed: &[u8]) -> (Vec<String>, String) {
    let text = String::from_utf8_lossy(typed);
    let (mut lines, mut line) = (Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' | '\n' => lines.push(std::mem::take(&mut line)),
            '\u{7f}' | '\u{8}' => drop(line.pop()),
            '\u{15}' => line.clear(),
            // Who pressed Ctrl-C wants nothing of what came before.
            '\u{3}' => {
                lines.clear();
                line.clear();
            }
            '\u{1b}' => {
                // A key that isn't a character: ESC, and up to the letter or ~ at its end.
                if chars.next_if(|c| "[O".contains(*c)).is_some() {
                    while chars.next_if(|c| c.is_ascii_digit() || *c == ';').is_some() {}
                }
                chars.next();
            }
            c if c.is_control() && c != '\t' => {}
            c => line.push(c),
        }
    }
    // In a line that isn't ended a tab asked for a completion.
    line.retain(|c| c != '\t');
    (lines, line)
}

/// The first whole command among what nobody read, and where it ends; otherwise what there is of one.
pub(super) fn first_command(
    typed: &[u8],
    is_whole: impl Fn(&str) -> bool,
) -> Result<(String, usize), String> {
    let ends = typed.iter().enumerate().filter(|(_, byte)| matches!(byte, b'\r' | b'\n'));
    for (at, _) in ends {
        let text = as_lines(typed.get(..=at).unwrap_or_default()).0.join("\n");
        if is_whole(&text) {
            return Ok((text, at + 1));
        }
    }
    let (mut lines, rest) = as_lines(typed);
    lines.push(rest);
    Err(lines.join("\n"))
}

/// After so long without an answer to what was typed a person may leave by `~.`.
const SILENCE: Duration = Duration::from_secs(3);

/// Watches for `~.` at the beginning of a line, while the host says nothing: a command may want these characters itself.
#[derive(Debug)]
pub(super) struct Leaving {
    line_start: bool,
    tilde: bool,
    unanswered: Option<Instant>,
}

impl Leaving {
    pub(super) fn new() -> Self {
        Leaving { line_start: true, tilde: false, unanswered: None }
    }

    /// The host said something.
    pub(super) fn heard(&mut self) {
        self.unanswered = None;
    }

    /// Whether what is typed leaves.
    pub(super) fn typed(&mut self, bytes: &[u8], lost: bool, now: Instant) -> bool {
        let silent = lost || self.unanswered.is_some_and(|since| now.duration_since(since) >= SILENCE);
        self.unanswered.get_or_insert(now);
        for byte in bytes {
            if self.tilde && *byte == b'.' && silent {
                return true;
            }
            self.tilde = self.line_start && *byte == b'~';
            self.line_start = matches!(byte, b'\r' | b'\n' | 0x03);
        }
        false
    }
}

/// What was sent to a job's terminal, as far back as may be asked for: what didn't get there is typed again at the prompt.
#[derive(Debug, Default)]
pub(super) struct Sent {
    total: u64,
    tail: Vec<u8>,
}

impl Sent {
    /// Bytes that are remembered.
    const TAIL: usize = 64 * 1024;

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.tail.extend_from_slice(bytes);
        let over = self.tail.len().saturating_sub(2 * Sent::TAIL);
        if over > 0 {
            self.tail.drain(..over + Sent::TAIL);
        }
    }

    pub(super) fn ends_with(&self, byte: u8) -> bool {
        self.tail.last() == Some(&byte)
    }

    /// What is behind the first `count` bytes.
    pub(super) fn behind(&self, count: u64) -> &[u8] {
        let missing = usize::try_from(self.total.saturating_sub(count)).unwrap_or(usize::MAX);
        self.tail.get(self.tail.len().saturating_sub(missing)..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bytes_again() {
        let none = KeyModifiers::NONE;
        for (code, modifiers, bytes) in [
            (KeyCode::Char('a'), none, b"a".as_slice()),
            (KeyCode::Char('é'), none, "é".as_bytes()),
            (KeyCode::Char('A'), KeyModifiers::SHIFT, b"A"),
            (KeyCode::Char('c'), KeyModifiers::CONTROL, b"\x03"),
            (KeyCode::Char('b'), KeyModifiers::ALT, b"\x1bb"),
            (KeyCode::Enter, none, b"\r"),
            (KeyCode::Up, none, b"\x1b[A"),
        ] {
            assert_eq!(key_bytes(code, modifiers), bytes);
        }
    }

    #[test]
    fn what_nobody_read_is_lines_again() {
        let lines = |typed: &[u8]| as_lines(typed);
        assert_eq!(lines(b"ls\rcd x\rec"), (vec!["ls".into(), "cd x".into()], "ec".into()));
        assert_eq!(lines(b"lx\x7fs\r"), (vec!["ls".into()], String::new()));
        assert_eq!(lines(b"rm -r\x15ls\n"), (vec!["ls".into()], String::new()));
        assert_eq!(lines(b"make\rrm\x03ls"), (vec![], "ls".into()));
        assert_eq!(lines(b"a\x1b[A\x1b[3~b\x1bOPc\x1bxd"), (vec![], "abcd".into()));
        assert_eq!(lines("é文\x04".as_bytes()), (vec![], "é文".into()));
        assert_eq!(lines(b"\ta\rcat fi\t"), (vec!["\ta".into()], "cat fi".into()));
    }

    #[test]
    fn commands_are_taken_one_by_one_so_that_each_can_read_the_rest() {
        let whole = |text: &str| !text.contains("<<") || text.ends_with("\nE");
        assert_eq!(first_command(b"cat\rhello\r", whole), Ok(("cat".into(), 4)));
        assert_eq!(first_command(b"cat <<E\rx\rE\rls", whole), Ok(("cat <<E\nx\nE".into(), 12)));
        assert_eq!(first_command(b"cat <<E\rx", whole), Err("cat <<E\nx".into()));
        assert_eq!(first_command(b"ls", whole), Err("ls".into()));
        assert_eq!(first_command(b"\r", whole), Ok((String::new(), 1)));
        assert_eq!(first_command(b"", whole), Err(String::new()));
    }

    #[test]
    fn one_leaves_a_silent_host_alone() {
        let start = Instant::now();
        let later = start + SILENCE;
        let mut leaving = Leaving::new();
        assert!(!leaving.typed(b"x\r", false, start));
        assert!(!leaving.typed(b"~", false, later));
        assert!(leaving.typed(b".", false, later));
        let mut leaving = Leaving::new();
        assert!(!leaving.typed(b"x\r~.", false, start), "it may just be slow");
        leaving.heard();
        assert!(!leaving.typed(b"\r~.", false, later), "it answered");
        assert!(!leaving.typed(b"x~.", false, later + SILENCE), "not at the beginning of a line");
        assert!(leaving.typed(b"\r~.", false, later + SILENCE));
        let mut leaving = Leaving::new();
        assert!(leaving.typed(b"~.", true, start), "nobody can answer");
    }

    #[test]
    fn what_was_sent_is_remembered_from_its_end() {
        let mut sent = Sent::default();
        for number in 0..100_000u32 {
            sent.add(format!("{number:05} ").as_bytes());
        }
        assert_eq!(sent.behind(600_000), b"");
        assert_eq!(sent.behind(599_988), b"99998 99999 ");
        assert!(sent.behind(0).len() >= Sent::TAIL && sent.tail.len() <= 2 * Sent::TAIL);
    }
}
