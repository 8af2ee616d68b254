//! Reads what a shell prints of its state for itself to read again: commands of words, in any of the quotes of bash, dash and zsh.

/// Commands, each its words; none where the text isn't such.
pub(crate) fn commands(text: &[u8]) -> Option<Vec<Vec<Vec<u8>>>> {
    let mut all = Vec::new();
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        match rest {
            [] => break,
            [b' ' | b'\t', after @ ..] => rest = after,
            [b'\n' | b';', after @ ..] => {
                rest = after;
                if !words.is_empty() {
                    all.push(std::mem::take(&mut words));
                }
            }
            _ => {
                let (word, after) = word(rest)?;
                words.push(word);
                rest = after;
            }
        }
    }
    if !words.is_empty() {
        all.push(words);
    }
    Some(all)
}

/// One word, and what follows it.
fn word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut out = Vec::new();
    loop {
        rest = match rest {
            [] | [b' ' | b'\t' | b'\n' | b';', ..] => return Some((out, rest)),
            [b'\'', after @ ..] => {
                let end = after.iter().position(|byte| *byte == b'\'')?;
                out.extend_from_slice(after.get(..end)?);
                after.get(end + 1..)?
            }
            [b'$', b'\'', after @ ..] => ansi_c(after, &mut out)?,
            [b'"', after @ ..] => double(after, &mut out)?,
            [b'\\', b'\n', after @ ..] => after,
            [b'\\', byte, after @ ..] => {
                out.push(*byte);
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
        };
    }
}

/// Inside double quotes (POSIX.1-2024, XCU 2.2.3). Nothing is expanded in what a shell prints of itself.
fn double<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'"', after @ ..] => return Some(after),
            [b'\\', b'\n', after @ ..] => after,
            [b'\\', byte @ (b'$' | b'`' | b'"' | b'\\'), after @ ..] => {
                out.push(*byte);
                after
            }
            [byte, after @ ..] => {
                out.push(*byte);
                after
            }
        };
    }
}

/// Inside `$'…'` (POSIX.1-2024, XCU 2.2.4), as bash and zsh write it.
fn ansi_c<'a>(mut rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = rest.split_first()?;
        rest = after;
        match byte {
            b'\'' => return Some(rest),
            b'\\' => {}
            byte => {
                out.push(*byte);
                continue;
            }
        }
        let (letter, after) = rest.split_first()?;
        rest = after;
        match letter {
            b'a' => out.push(7),
            b'b' => out.push(8),
            b'e' | b'E' => out.push(27),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'\\' | b'\'' | b'"' | b'?' => out.push(*letter),
            b'0'..=b'7' => {
                let more = rest.iter().take(2).take_while(|byte| (b'0'..=b'7').contains(byte)).count();
                let (digits, after) = rest.split_at_checked(more)?;
                rest = after;
                let value = digits
                    .iter()
                    .fold(u32::from(letter - b'0'), |value, digit| value * 8 + u32::from(digit - b'0'));
                out.push(u8::try_from(value & 0xff).ok()?);
            }
            b'x' => {
                let (value, after) = hexadecimal(rest, 2)?;
                rest = after;
                out.push(u8::try_from(value).ok()?);
            }
            b'u' | b'U' => {
                let (value, after) = hexadecimal(rest, if *letter == b'u' { 4 } else { 8 })?;
                rest = after;
                out.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
            }
            // zsh: control and meta characters.
            b'C' => {
                let (character, after) = rest.strip_prefix(b"-")?.split_first()?;
                rest = after;
                out.push(if *character == b'?' { 127 } else { character & 0x1f });
            }
            _ => return None,
        }
    }
}

fn hexadecimal(rest: &[u8], most: usize) -> Option<(u32, &[u8])> {
    let count = rest.iter().take(most).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, after) = rest.split_at_checked(count)?;
    let value = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((value, after))
}

/// A word in quotes that holds no line break of its own, for bash and zsh: the numbers of a line's lines stay as they are.
pub(crate) fn quoted_on_one_line(word: &[u8]) -> Vec<u8> {
    if word.contains(&b'\n') {
        let mut out = b"$'".to_vec();
        for byte in word {
            match byte {
                b'\n' => out.extend_from_slice(b"\\n"),
                b'\'' => out.extend_from_slice(b"\\'"),
                b'\\' => out.extend_from_slice(b"\\\\"),
                byte => out.push(*byte),
            }
        }
        out.push(b'\'');
        out
    } else {
        quoted(word)
    }
}

/// A word in single quotes (POSIX.1-2024, XCU 2.2.2), as every shell but fish reads it.
pub(crate) fn quoted(word: &[u8]) -> Vec<u8> {
    let mut out = b"'".to_vec();
    for byte in word {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quote_that_shells_print() {
        for (text, word) in [
            ("plain", b"plain".as_slice()),
            ("'a b'", b"a b"),
            ("'it'\"'\"'s'", b"it's"),
            ("'it'\\''s'", b"it's"),
            ("\"a \\$x \\\\ \\\" \\`\"", b"a $x \\ \" `"),
            ("$'x\\ny\\001\\e\\\\\\''", b"x\ny\x01\x1b\\'"),
            ("$'\\C-A\\C-?'", b"\x01\x7f"),
            ("$'\\M'", b""),
            ("''", b""),
            ("a\\ b", b"a b"),
        ] {
            let parsed = commands(text.as_bytes());
            if text == "$'\\M'" {
                assert_eq!(parsed, None);
            } else {
                assert_eq!(parsed, Some(vec![vec![word.to_vec()]]), "{text}");
            }
        }
        assert_eq!(commands(b"'open"), None);
        assert_eq!(commands(b"\"open"), None);
        assert_eq!(commands(b"a b\n\nc 'd\ne'\n").map(|all| all.len()), Some(2));
    }

    #[test]
    fn shells_read_what_is_quoted_here() {
        let word: Vec<u8> = (1..=255).collect();
        for (shell, text) in
            [("dash", quoted(&word)), ("bash", quoted(&word)), ("bash", quoted_on_one_line(&word))]
        {
            use std::os::unix::ffi::OsStringExt;
            let line = std::ffi::OsString::from_vec([b"printf %s ".as_slice(), &text].concat());
            let output = std::process::Command::new(shell).arg("-c").arg(line).output().unwrap();
            assert_eq!(output.stdout, word, "{shell}");
        }
        assert!(!quoted_on_one_line(b"a\nb").contains(&b'\n'));
    }
}
